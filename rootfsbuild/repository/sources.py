"""Where one build's archives are read from, and under which rules."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rootfsbuild.errors import UntrustedError
from rootfsbuild.repository.mirrors import Mirror, past_url

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rootfsbuild.distro import Archive
    from rootfsbuild.plan import Plan, Snapshot
    from rootfsbuild.repository.bundle import Bundle
    from rootfsbuild.repository.fetch import Fetch
    from rootfsbuild.repository.store import Store

CARRIED = frozenset({"expired", "old"})
"""Freshness rules that do not apply to documents kept on purpose: that one is older than another still counts."""
ANY_MOMENT = CARRIED | {"rollback"}
"""Those that do not apply where a moment of the past was asked for."""


@dataclass(frozen=True)
class Sources:
    """The archives of a recipe with their mirrors, and what fetching from them needs."""

    archives: tuple[Archive, ...]
    architecture: str
    mirrors: Mapping[str, tuple[Mirror, ...]]
    """Archive name -> mirrors in the order in which they are asked."""
    store: Store
    fetch: Fetch
    now: Callable[[], float]
    """Seconds since the epoch: freshness is always judged by the real clock."""
    relax: frozenset[str]
    """Names of the checks that are switched off."""
    bundle: Bundle | None = None
    """What everything is read from, in place of mirrors; its own signatures are verified like theirs."""
    past: frozenset[str] = frozenset()
    """Freshness rules (`expired`, `old`, `rollback`) that do not apply, as a past moment was asked for."""
    modules: tuple[str, ...] = ()
    """Streams that the recipe switches on in place of the archives' defaults; rpm only."""
    module_platform: str = ""
    """The release's stream of the module `platform` (`el9`); empty if it has no modules."""


def at_hand(sources: Sources, plan: Plan, snapshot: Snapshot) -> tuple[Archive, Sources]:
    """Return the archive of a snapshot, and sources in which the very document that it names may be found.

    What is kept comes first; a mirror may still have it, or whoever keeps the archive's past. Raises UntrustedError for
    an archive that is not among the sources.
    """
    archive = next((archive for archive in sources.archives if archive.name == snapshot.archive), None)
    if archive is None:
        subject = f"the signed document of {snapshot.archive} {snapshot.suite}"
        raise UntrustedError(subject, "mismatch", f"is of an archive that the recipe does not have: {snapshot.archive}")
    kept = Mirror(f"signed:{snapshot.sha256}", "the lock")
    past = [Mirror(past_url(archive, snapshot.date), "the archive's past")] if archive.snapshot else []
    newest = max(other.date for other in plan.snapshots if _is_same_suite(other, snapshot))
    return archive, replace(
        sources,
        mirrors={archive.name: (kept, *sources.mirrors[archive.name], *past)},
        # An older one that proves what was kept of an earlier moment is no rollback.
        past=sources.past | (CARRIED if snapshot.date == newest else ANY_MOMENT),
    )


def _is_same_suite(one: Snapshot, other: Snapshot) -> bool:
    return (one.archive, one.suite) == (other.archive, other.suite)
