"""From a recipe's archives to verified indexes: one signed Release a suite, and the Packages files it proves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rootfsbuild.distro import Archive
from rootfsbuild.documents.checks import did_you_mean
from rootfsbuild.errors import FetchError, IntegrityError, UntrustedError
from rootfsbuild.events import Detail, Report
from rootfsbuild.formats.deb.metadata import Placed, Universe, load_index
from rootfsbuild.formats.deb.release import Release
from rootfsbuild.formats.deb.resolve import resolve
from rootfsbuild.formats.deb.trusted import Trusted, fetch_release
from rootfsbuild.plan import Index, Package, Request, Snapshot
from rootfsbuild.repository.fetch import Wanted
from rootfsbuild.repository.mirrors import Mirror, without_password
from rootfsbuild.repository.sources import Sources
from rootfsbuild.repository.trust import Keyring, load_keyring

# In the order of preference: smaller first, all of them decompressed by the standard library.
_PACKAGES = ("Packages.xz", "Packages.gz", "Packages")

# apt_preferences(5): what a Release says of itself sets the pin of its packages.
_PIN_DEFAULT, _PIN_BUT_AUTOMATIC, _PIN_NOT_AUTOMATIC = 500, 100, 1


@dataclass(frozen=True)
class Metadata:
    """Verified metadata of every archive."""

    universe: Universe
    snapshots: tuple[Snapshot, ...]

    def keep(self) -> None:
        """Write down what was read and sought in the indexes, for the next build."""
        for placed in self.universe.placed:
            placed.index.keep()


def refresh(sources: Sources, report: Report) -> Metadata:
    """Fetch and verify every suite of every archive.

    Raises FetchError, UntrustedError or IntegrityError.
    """
    placed: list[Placed] = []
    snapshots: list[Snapshot] = []
    for archive in sources.archives:
        keyring = load_keyring([(key.fingerprint, key.path) for key in archive.keys])
        for suite in archive.suites:
            snapshot, indexes = refresh_suite(sources, archive, suite, keyring, report)
            snapshots.append(snapshot)
            placed += indexes
    return Metadata(Universe(placed, sources.architecture), tuple(snapshots))


def resolve_metadata(request: Request, metadata: Metadata) -> tuple[Package, ...]:
    """Choose packages, in install order; raises UnsatisfiableError."""
    return resolve(request, metadata.universe).packages


def refresh_suite(
    sources: Sources, archive: Archive, suite: str, keyring: Keyring, report: Report, expected: str = ""
) -> tuple[Snapshot, list[Placed]]:
    """Fetch and verify one suite: what was trusted, and its indexes in the order of the archive's components.

    `expected` is the SHA-256 of the only signed document that will do, empty for whichever is current.
    """
    trusted = _fetch_release(sources, archive, suite, keyring, report, expected)
    try:
        return _read_suite(sources, archive, suite, trusted)
    except (FetchError, IntegrityError) as error:
        # A mirror in the middle of a push serves indexes that are not its Release's: the next one may be there.
        report(Detail(f"{archive.name} {suite}: {error}; reading its Release again"))
        again = _fetch_release(sources, archive, suite, keyring, report, expected)
        if again.sha256 == trusted.sha256:
            raise
        return _read_suite(sources, archive, suite, again)


def _fetch_release(
    sources: Sources, archive: Archive, suite: str, keyring: Keyring, report: Report, expected: str
) -> Trusted:
    return fetch_release(
        archive,
        suite,
        sources.mirrors[archive.name],
        sources.fetch,
        sources.store,
        keyring,
        sources.now(),
        report,
        sources.relax,
        past=sources.past,
        expected=expected,
    )


def _read_suite(sources: Sources, archive: Archive, suite: str, trusted: Trusted) -> tuple[Snapshot, list[Placed]]:
    indexes = [
        (component, _choose_index(archive, suite, component, sources.architecture, trusted.release))
        for component in archive.components
    ]
    bases = _bases(trusted, sources.mirrors[archive.name])
    wanted = [_wanted(bases, suite, index, trusted.release) for _, index in indexes]
    paths = {found.sha256: path for found, path in sources.fetch.blobs(wanted)}
    placed = [
        Placed(
            load_index(paths[index.sha256], index.sha256, sources.store.indexes),
            archive.name,
            trusted.release.suite or suite,
            trusted.release.codename or suite,
            component,
            _pin(archive, trusted.release),
        )
        for component, index in indexes
    ]
    return _snapshot(sources, archive, suite, trusted, [index for _, index in indexes]), placed


def _choose_index(archive: Archive, suite: str, component: str, architecture: str, release: Release) -> Index:
    for name in _PACKAGES:
        index = release.indexes.get(f"{component}/binary-{architecture}/{name}")
        if index is not None:
            return index
    problem, hint = _absence(component, architecture, release)
    raise UntrustedError(f"{archive.name} {suite}", "mismatch", problem, hint=hint)


def _absence(component: str, architecture: str, release: Release) -> tuple[str, str]:
    """Return what a Release does not have of what was asked for, and a hint at what to do about it."""
    architectures = [name for name in release.architectures if name != "all"]
    if architectures and architecture not in release.architectures:
        hint = did_you_mean(architecture, architectures) or "build for one of these (--arch), or leave the suite out"
        return f"the suite has no architecture {architecture} (have: {', '.join(architectures)})", hint
    if release.components and component not in release.components:
        hint = did_you_mean(component, release.components) or f"take {component} out of the archive's components"
        return f"the suite has no component {component} (have: {', '.join(release.components)})", hint
    return f"its Release lists no Packages file with a SHA-256 for {component}/{architecture}", ""


def _bases(trusted: Trusted, mirrors: Sequence[Mirror]) -> tuple[str, ...]:
    # The mirror that served the Release is the likeliest to hold the indexes that belong to it.
    others = [mirror.url for mirror in mirrors if mirror.url != trusted.base]
    return (trusted.base, *others)


def _wanted(bases: Sequence[str], suite: str, index: Index, release: Release) -> Wanted:
    plain = [f"{base}/dists/{suite}/{index.path}" for base in bases]
    by_hash = [
        f"{base}/dists/{suite}/{index.path.rpartition('/')[0]}/by-hash/SHA256/{index.sha256}"
        for base in bases
        if release.acquire_by_hash
    ]
    urls = [url for pair in zip(by_hash, plain, strict=True) for url in pair] if by_hash else plain
    return Wanted(tuple(urls), index.size, index.sha256, f"{suite}/{index.path}")


def _pin(archive: Archive, release: Release) -> int:
    if archive.priority is not None:
        return archive.priority
    if not release.not_automatic:
        return _PIN_DEFAULT
    return _PIN_BUT_AUTOMATIC if release.but_automatic_upgrades else _PIN_NOT_AUTOMATIC


def _snapshot(sources: Sources, archive: Archive, suite: str, trusted: Trusted, indexes: Sequence[Index]) -> Snapshot:
    return Snapshot(
        archive=archive.name,
        suite=suite,
        codename=trusted.release.codename,
        components=archive.components,
        architecture=sources.architecture,
        date=trusted.release.date,
        valid_until=trusted.release.valid_until,
        sha256=trusted.sha256,
        signers=trusted.signers,
        keyring=trusted.keyring,
        indexes=tuple(indexes),
        mirror=without_password(trusted.base),
    )
