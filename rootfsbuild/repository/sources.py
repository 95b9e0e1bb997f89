"""Where one build's archives are read from, and under which rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rootfsbuild.distro import Archive
    from rootfsbuild.repository.bundle import Bundle
    from rootfsbuild.repository.fetch import Fetch
    from rootfsbuild.repository.mirrors import Mirror
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
