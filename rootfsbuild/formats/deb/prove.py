"""Whether signed documents prove what a plan installs: the chain from a signature to each package's hash."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rootfsbuild.errors import UntrustedError
from rootfsbuild.formats.deb.metadata import Placed, Universe
from rootfsbuild.formats.deb.refresh import Metadata, refresh_suite
from rootfsbuild.repository.mirrors import Mirror, past_url
from rootfsbuild.repository.sources import ANY_MOMENT, CARRIED, Sources
from rootfsbuild.repository.trust import load_keyring

if TYPE_CHECKING:
    from rootfsbuild.events import Report
    from rootfsbuild.plan import Package, Plan, Snapshot


def prove(plan: Plan, sources: Sources, report: Report) -> None:
    """Verify the very documents that a plan names, as if they came from a mirror, and that they list its packages.

    Only the end of their validity does not count: they were kept on purpose. Raises UntrustedError, IntegrityError,
    or FetchError for what is not at hand.
    """
    placed = [index for snapshot in plan.snapshots for index in _read(plan, snapshot, sources, report)]
    metadata = Metadata(Universe(placed, plan.architecture), plan.snapshots)
    for package in plan.packages:
        if not proves(metadata, package):
            problem = f"{package.version} with the SHA-256 {package.sha256[:12]}… is in none of the signed indexes"
            raise UntrustedError(package.name, "mismatch", problem, hint="make the lock anew with rootfsbuild lock")


def proves(metadata: Metadata, package: Package) -> bool:
    """Tell whether an index of its own archive lists exactly this package."""
    return any(
        (deb.version, deb.architecture, deb.sha256, deb.size, deb.filename)
        == (package.version, package.architecture, package.sha256, package.size, package.filename)
        and any(placed.archive == package.archive for placed in deb.places)
        for deb in metadata.universe.versions(package.name)
    )


def _read(plan: Plan, snapshot: Snapshot, sources: Sources, report: Report) -> list[Placed]:
    subject = f"the signed document of {snapshot.archive} {snapshot.suite}"
    archive = next((archive for archive in sources.archives if archive.name == snapshot.archive), None)
    if archive is None:
        raise UntrustedError(subject, "mismatch", f"is of an archive that the recipe does not have: {snapshot.archive}")
    keyring = load_keyring([(key.fingerprint, key.path) for key in archive.keys])
    newest = max(other.date for other in plan.snapshots if _is_same_suite(other, snapshot))
    # What is kept first; a mirror may still have it, or whoever keeps the archive's past.
    kept = Mirror(f"signed:{snapshot.sha256}", "the lock")
    past = [Mirror(past_url(archive, snapshot.date), "the archive's past")] if archive.snapshot else []
    at_hand = replace(
        sources,
        mirrors={archive.name: (kept, *sources.mirrors[archive.name], *past)},
        # An older one that proves what was kept of an earlier moment is no rollback.
        past=sources.past | (CARRIED if snapshot.date == newest else ANY_MOMENT),
    )
    return refresh_suite(at_hand, archive, snapshot.suite, keyring, report, snapshot.sha256)[1]


def _is_same_suite(one: Snapshot, other: Snapshot) -> bool:
    return (one.archive, one.suite) == (other.archive, other.suite)
