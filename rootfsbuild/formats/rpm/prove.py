"""Whether signed documents prove what a plan installs: the chain from a signature to each package's hash."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rootfsbuild.errors import UntrustedError
from rootfsbuild.formats.rpm.refresh import Metadata, Read, gather, refresh_repository
from rootfsbuild.repository.sources import Sources, at_hand
from rootfsbuild.repository.trust import load_keyring

if TYPE_CHECKING:
    from rootfsbuild.events import Report
    from rootfsbuild.plan import Package, Plan, Snapshot


def prove(plan: Plan, sources: Sources, report: Report) -> None:
    """Verify the very documents that a plan names, as if they came from a mirror, and that they list its packages.

    Raises UntrustedError, IntegrityError, or FetchError for what is not at hand.
    """
    metadata = gather([_read(plan, snapshot, sources, report) for snapshot in plan.snapshots], sources)
    for package in plan.packages:
        if not proves(metadata, package):
            problem = f"{package.version} with the SHA-256 {package.sha256[:12]}… is in none of the signed indexes"
            raise UntrustedError(package.name, "mismatch", problem, hint="make the lock anew with rootfsbuild lock")


def proves(metadata: Metadata, package: Package) -> bool:
    """Tell whether the metadata of its own repository lists exactly this package."""
    universe = metadata.universe
    return any(
        (found.evr, found.arch, found.lookup_location()[0]) == (package.version, package.architecture, package.filename)
        and str(found.lookup_checksum(universe.solv.SOLVABLE_CHECKSUM)) == f"sha256:{package.sha256}"
        and found.lookup_num(universe.solv.SOLVABLE_DOWNLOADSIZE) == package.size
        and universe.place(found).archive == package.archive
        for found in universe.named(package.name, all_of_them=True)
    )


def _read(plan: Plan, snapshot: Snapshot, sources: Sources, report: Report) -> Read:
    archive, kept = at_hand(sources, plan, snapshot)
    keyring = load_keyring([(key.fingerprint, key.path) for key in archive.keys])
    return refresh_repository(kept, archive, snapshot.suite, keyring, report, snapshot)
