"""What a bundle carries of each suite: its signed documents, the indexes they list, and the packages in these."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rootfsbuild.errors import UntrustedError
from rootfsbuild.formats.deb.cleartext import split_inrelease
from rootfsbuild.formats.deb.metadata import Deb, Placed, load_index
from rootfsbuild.formats.deb.release import Release, parse_release
from rootfsbuild.formats.format import Blob, Contents, Proof
from rootfsbuild.plan import Index, Package, Snapshot


@dataclass(frozen=True)
class Listed:
    """A carried package where an index lists it."""

    blob: Blob
    text: bytes
    """Its paragraph as it stands in the index, without the last newline."""


@dataclass(frozen=True)
class Carried:
    """An index at hand."""

    index: Index
    file: str
    component: str
    architecture: str
    date: int
    """That of the document that lists it, in seconds since the epoch."""
    packages: tuple[Listed, ...]
    """The carried ones that it lists."""


@dataclass(frozen=True)
class Suite:
    """One suite, as the newest of its documents at hand describes it."""

    archive: str
    name: str
    """As it is asked for: its path below `dists`."""
    folder: str
    """Where its documents lie, below the archive's root."""
    release: Release
    text: bytes
    """The Release itself."""
    documents: Mapping[str, bytes]
    """Path below the archive's root -> bytes as signed."""
    signers: tuple[str, ...]
    """Fingerprints (upper-case) of those who signed."""
    carried: tuple[Carried, ...]
    """Every index at hand, those of the newest document first."""

    @property
    def current(self) -> tuple[Carried, ...]:
        """Return the indexes that are, byte for byte, those that the newest document lists."""
        return tuple(one for one in self.carried if self.release.indexes.get(one.index.path) == one.index)

    def lacking(self) -> tuple[str, ...]:
        """Return what apt reads besides the indexes of its own architecture, and that is not at hand.

        An index of the architecture `all` is read unless the Release says that the others have its packages, too.
        """
        words = re.search(rb"(?im)^No-Support-for-Architecture-all:(.*)$", self.text)
        if "all" not in self.release.architectures or (words and b"Packages" in words[1].split()):
            return ()
        held = {one.component for one in self.current if one.architecture == "all"}
        wanted = sorted({one.component for one in self.current} - held)
        names = [f"{component}/binary-all/Packages" for component in wanted]
        return tuple(name for name in names if any(path.startswith(name) for path in self.release.indexes))


def gather_suites(contents: Contents, folder: str) -> tuple[Suite, ...]:
    """Return the suites of all proofs, sorted by archive and name.

    `folder` may hold what was kept of the indexes earlier (`load_index`). Raises UntrustedError for documents and
    indexes that cannot be read, and for a package that none of the indexes of its archive lists.
    """
    found: dict[tuple[str, str], list[Proof]] = {}
    for proof in contents.proofs:
        found.setdefault((proof.snapshot.archive, proof.snapshot.suite), []).append(proof)
    wanted = {
        (package.archive, package.filename, package.sha256): (package, blob) for package, blob in contents.packages
    }
    suites = tuple(_gather(found[place], list(wanted.values()), folder) for place in sorted(found))
    listed = {_identity(one.blob) for suite in suites for carried in suite.carried for one in carried.packages}
    for blob in wanted.values():
        if _identity(blob) not in listed:
            package = blob[0]
            problem = f"{package.version} with the SHA-256 {package.sha256[:12]}… is in none of the signed indexes"
            raise UntrustedError(package.name, "mismatch", problem)
    return suites


def is_in(blob: Blob, indexes: Sequence[Carried]) -> bool:
    """Tell whether one of some indexes lists a package."""
    return any(_identity(one.blob) == _identity(blob) for carried in indexes for one in carried.packages)


def _identity(blob: Blob) -> tuple[str, str, str]:
    return blob[0].archive, blob[0].filename, blob[0].sha256


def _gather(proofs: Sequence[Proof], blobs: Sequence[Blob], folder: str) -> Suite:
    # Of two of one moment the digest decides, so that the order in which they are given does not.
    ordered = sorted(proofs, key=lambda proof: (-proof.snapshot.date, proof.snapshot.sha256))
    newest = ordered[0].snapshot
    documents = {
        path: data
        for proof in reversed(ordered)
        if proof.snapshot.sha256 == newest.sha256
        for path, data in proof.documents.items()
    }
    text, release = _read_release(documents, newest)
    carried: dict[tuple[str, str], Carried] = {}
    for proof in ordered:
        for one in _read_indexes(proof, blobs, folder):
            carried.setdefault((one.index.path, one.index.sha256), one)
    return Suite(
        archive=newest.archive,
        name=newest.suite,
        folder=min(documents).rpartition("/")[0],
        release=release,
        text=text,
        documents=documents,
        signers=newest.signers,
        carried=tuple(carried.values()),
    )


def _read_release(documents: Mapping[str, bytes], snapshot: Snapshot) -> tuple[bytes, Release]:
    subject = f"the signed document of {snapshot.archive} {snapshot.suite}"
    names = {path.rpartition("/")[2]: data for path, data in documents.items()}
    if "InRelease" in names:
        text = split_inrelease(names["InRelease"], subject)
    elif "Release" in names:
        text = names["Release"]
    else:
        raise UntrustedError(subject, "mismatch", "is not there")
    return text, parse_release(text, subject)


def _read_indexes(proof: Proof, blobs: Sequence[Blob], folder: str) -> Iterator[Carried]:
    snapshot = proof.snapshot
    _, release = _read_release(proof.documents, snapshot)
    for path in sorted(proof.indexes):
        index = release.indexes.get(path)
        component, found, rest = path.partition("/binary-")
        if index is None or not found:
            problem = f"is no index of packages that its Release lists: {path}"
            raise UntrustedError(f"{snapshot.archive} {snapshot.suite}", "mismatch", problem)
        placed = Placed(
            load_index(proof.indexes[path], index.sha256, folder),
            snapshot.archive,
            release.suite or snapshot.suite,
            release.codename or snapshot.suite,
            component,
            pin=0,
        )
        own = [blob for blob in blobs if blob[0].archive == snapshot.archive]
        packages = tuple(Listed(blob, text) for blob in own if (text := _find(placed, blob[0])))
        architecture = rest.partition("/")[0]
        yield Carried(index, proof.indexes[path], component, architecture, release.date, packages)


def _find(placed: Placed, package: Package) -> bytes:
    wanted = (package.version, package.architecture, package.sha256, package.size, package.filename)
    for paragraph in placed.index.paragraphs(package.name):
        deb = Deb(paragraph, (placed,))
        if (deb.version, deb.architecture, deb.sha256, deb.size, deb.filename) == wanted:
            return placed.index.as_written(paragraph)
    return b""
