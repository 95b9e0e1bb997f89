"""Whether signed documents prove what a plan installs: the chain from a signature to each package's hash."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rootfsbuild.errors import UntrustedError
from rootfsbuild.formats.deb.metadata import Placed, Universe
from rootfsbuild.formats.deb.refresh import Metadata, refresh_suite
from rootfsbuild.repository.sources import Sources, at_hand
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
    archive, kept = at_hand(sources, plan, snapshot)
    keyring = load_keyring([(key.fingerprint, key.path) for key in archive.keys])
    return refresh_suite(kept, archive, snapshot.suite, keyring, report, snapshot.sha256)[1]
