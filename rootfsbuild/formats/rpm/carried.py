"""What a bundle carries of each repository: its signed documents, what they prove, and the packages listed in it."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from rootfsbuild.errors import UntrustedError
from rootfsbuild.formats.format import Blob, Contents, Proof
from rootfsbuild.formats.rpm.metadata import Placed, Universe, load_universe
from rootfsbuild.formats.rpm.repomd import Data, Repomd, parse_repomd
from rootfsbuild.formats.rpm.solvcache import Document
from rootfsbuild.plan import Index, Package
from rootfsbuild.repository.signed import REPOMD, REPOMD_SIGNATURE

_READ = ("primary", "filelists", "group", "modules", "updateinfo", "prestodelta")
"""What dnf and zypper fetch of what a repomd.xml lists, and fail without."""


@dataclass(frozen=True)
class Carried:
    """One data file at hand."""

    data: Data
    index: Index
    file: str


@dataclass(frozen=True)
class Repository:
    """One repository, as the newest of its documents at hand describes it."""

    archive: str
    suite: str
    architecture: str
    date: int
    """Seconds since the epoch."""
    repomd: Repomd
    documents: Mapping[str, bytes]
    """Path below the repository's base -> bytes as fetched."""
    signers: tuple[str, ...]
    """Fingerprints (upper-case) of those who signed; empty if another reason made it believable."""
    carried: tuple[Carried, ...]
    packages: tuple[Blob, ...]
    """Those that any of its documents lists, by their location."""
    older: tuple[Package, ...]
    """The part of them that the newest document does not list."""

    @property
    def folder(self) -> str:
        """Return where it is laid out."""
        return f"{self.archive}/{self.suite}/{self.architecture}"

    def lacking(self) -> tuple[str, ...]:
        """Return the kinds of data that dnf would ask for and that are not at hand."""
        held = {one.data.type for one in self.carried}
        listed = self.repomd.data.keys()
        plain = (kind for kind in _READ if listed & {kind, f"{kind}_gz"} and held.isdisjoint({kind, f"{kind}_gz"}))
        # Where there is a file in parts, what can read such files asks for no other.
        return (*plain, *(f"{kind}_zck" for kind in _READ if f"{kind}_zck" in listed))


def gather_repositories(contents: Contents) -> tuple[Repository, ...]:
    """Return the repositories of all proofs, sorted by archive, suite and architecture.

    Raises UntrustedError for documents and metadata that cannot be read or do not fit each other, and for a package
    that none of the documents of its repository lists.
    """
    found: dict[tuple[str, str, str], list[Proof]] = {}
    for proof in contents.proofs:
        one = proof.snapshot
        found.setdefault((one.archive, one.suite, one.architecture), []).append(proof)
    blobs = {
        (package.archive, package.filename, package.sha256): (package, path) for package, path in contents.packages
    }
    wanted = [blobs[key] for key in sorted(blobs)]
    with tempfile.TemporaryDirectory() as folder:
        repositories = tuple(_gather(_merge(found[place]), wanted, folder) for place in sorted(found))
    listed = {_identity(package) for one in repositories for package, _ in one.packages}
    for package, _ in wanted:
        if _identity(package) not in listed:
            problem = f"{package.version} with the SHA-256 {package.sha256[:12]}… is in none of the signed indexes"
            raise UntrustedError(package.name, "mismatch", problem)
    return repositories


def _identity(package: Package) -> tuple[str, str, str]:
    return package.archive, package.filename, package.sha256


def _merge(proofs: Sequence[Proof]) -> list[Proof]:
    """Return one proof for each document, the newest first; what locks share comes with each of them."""
    found: dict[str, Proof] = {}
    for proof in proofs:
        same = found.get(proof.snapshot.sha256, proof)
        documents = {**same.documents, **proof.documents}
        indexes = {**same.indexes, **proof.indexes}
        found[proof.snapshot.sha256] = replace(same, documents=documents, indexes=indexes)
    # Of two of one moment the digest decides, so that the order in which they are given does not.
    return sorted(found.values(), key=lambda proof: (-proof.snapshot.date, proof.snapshot.sha256))


def _gather(ordered: Sequence[Proof], blobs: Sequence[Blob], folder: str) -> Repository:
    newest, documents = ordered[0].snapshot, ordered[0].documents
    packages: dict[str, Blob] = {}
    current: set[str] = set()
    for proof in ordered:
        for package, path in _list_packages(proof, blobs, folder):
            packages.setdefault(package.filename + package.sha256, (package, path))
            if proof.snapshot.sha256 == newest.sha256:
                current.add(package.sha256)
    return Repository(
        archive=newest.archive,
        suite=newest.suite,
        architecture=newest.architecture,
        date=newest.date,
        repomd=_read_repomd(ordered[0]),
        documents={path: documents[path] for path in (REPOMD, REPOMD_SIGNATURE) if path in documents},
        signers=newest.signers,
        carried=tuple(_list_data(ordered[0])),
        packages=tuple(packages[name] for name in sorted(packages)),
        older=tuple(package for package, _ in packages.values() if package.sha256 not in current),
    )


def _subject(proof: Proof) -> str:
    return f"repomd.xml of {proof.snapshot.archive} {proof.snapshot.suite}"


def _read_repomd(proof: Proof) -> Repomd:
    if REPOMD not in proof.documents:
        raise UntrustedError(_subject(proof), "mismatch", "is not there")
    return parse_repomd(proof.documents[REPOMD], _subject(proof))


def _list_data(proof: Proof) -> Iterator[Carried]:
    """Yield the data files of a proof; raise UntrustedError for one that its document does not list as it is."""
    listed = {data.href: data for data in _read_repomd(proof).data.values()}
    for path in sorted(proof.indexes):
        data, file = listed.get(path), proof.indexes[path]
        if data is None or not data.checksum.strong:
            raise UntrustedError(_subject(proof), "mismatch", f"does not list {path}")
        with open(file, "rb") as stream:
            content = stream.read()
        if hashlib.new(data.checksum.type, content).hexdigest() != data.checksum.value:
            raise UntrustedError(_subject(proof), "hash", f"lists another file as {path}")
        yield Carried(data, Index(path, len(content), hashlib.sha256(content).hexdigest()), file)


def _list_packages(proof: Proof, blobs: Sequence[Blob], folder: str) -> Iterator[Blob]:
    """Yield the packages that a proof's primary data list."""
    snapshot = proof.snapshot
    own = [blob for blob in blobs if blob[0].archive == snapshot.archive]
    primary = next((one for one in _list_data(proof) if one.data.type == "primary"), None)
    if primary is None:
        raise UntrustedError(_subject(proof), "mismatch", "its primary data are not there")
    document = Document(primary.file, primary.index.sha256, primary.index.path.rpartition("/")[2])
    placed = Placed(snapshot.archive, snapshot.suite, document)
    universe = load_universe([placed], snapshot.architecture, folder)
    yield from (blob for blob in own if _lists(universe, blob[0]))


def _lists(universe: Universe, package: Package) -> bool:
    wanted = (package.version, package.architecture, package.filename, package.size, f"sha256:{package.sha256}")
    solv = universe.solv
    return any(
        wanted
        == (
            one.evr,
            one.arch,
            (one.lookup_location() or ("",))[0],
            one.lookup_num(solv.SOLVABLE_DOWNLOADSIZE),
            str(one.lookup_checksum(solv.SOLVABLE_CHECKSUM)),
        )
        for one in universe.named(package.name, all_of_them=True)
    )
