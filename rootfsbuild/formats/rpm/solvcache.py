"""Repository metadata as libsolv reads it: decompressed once, then kept as `.solv` files, which load far faster.

libsolv trusts what it reads from a `.solv` file, so each carries a digest of itself: one that does not match, or that
another libsolv wrote, is made again. Files are written to a temporary name and renamed, and never written again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import IO, TYPE_CHECKING, Any

from rootfsbuild.errors import PackageError, StorageError, UntrustedError
from rootfsbuild.rootfs.decompress import CHUNK, decompress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_LAYOUT = 1
_DIGEST = hashlib.sha256
_LIMIT = 8 << 30
"""Most bytes of plain metadata: thirty times the file lists of the largest distribution."""
_ENDINGS = ("gz", "xz", "zst", "bz2", "lzma")
_DECLARATION = b"<!"
_HARMLESS = (b"<!--", b"<![CDATA[")


@dataclass(frozen=True)
class Document:
    """One metadata file of a repository, verified."""

    path: str
    """On disk, compressed as its name says (.gz, .xz, .zst, .bz2) or plain."""
    sha256: str
    """Of the file as it is on disk."""
    name: str = ""
    """What it is called where it comes from, if its ending is not that of `path`."""


def load_solv() -> Any:
    """Return the module of libsolv's bindings, which have no types."""
    return import_module("solv")  # 9 ms that only recipes of RPM distributions pay


def read_primary(repo: Any, primary: Document, folder: str) -> None:
    """Fill an empty libsolv repository; raises UntrustedError for a document that cannot be read."""

    def parse(scratch: Any, source: Any) -> Any:
        return scratch if scratch.add_rpmmd(source, None, 0) else None

    _read(repo, primary, os.path.join(folder, f"{primary.sha256}.{_kind()}.solv"), parse, 0)


def read_filelists(repo: Any, primary: Document, filelists: Document, folder: str) -> None:
    """Add all paths to a repository that was filled from `primary`; raises UntrustedError."""
    solv = load_solv()

    def parse(scratch: Any, source: Any) -> Any:
        read_primary(scratch, primary, folder)
        data = scratch.add_repodata(0)
        flags = solv.Repo.REPO_EXTEND_SOLVABLES | solv.Repo.REPO_REUSE_REPODATA
        return data if scratch.add_rpmmd(source, "FL", flags) else None

    kept = os.path.join(folder, f"{filelists.sha256}.{primary.sha256[:16]}.{_kind()}.solv")
    _read(repo, filelists, kept, parse, solv.Repo.REPO_EXTEND_SOLVABLES)


@cache
def _kind() -> str:
    from importlib.metadata import version  # noqa: PLC0415 - 50 ms

    return f"{version('solv')}-{_LAYOUT}"


def _read(repo: Any, document: Document, kept: str, parse: Callable[[Any, Any], Any], flags: int) -> None:
    with contextlib.suppress(OSError), open(kept, "rb", buffering=0) as stream:
        if _is_whole(stream) and _add(repo, stream, flags):
            return
    with tempfile.TemporaryFile() as plain, tempfile.TemporaryFile(buffering=0) as made:
        plain.writelines(_plain(document))
        plain.flush()
        plain.seek(0)
        # What is read from a .solv file is in another order than what was written to it: were it not read back at
        # once, the first build would not be equal to those after it.
        _convert(document, plain, made, parse)
        with contextlib.suppress(OSError):
            _keep(made, kept)
        if not _is_whole(made) or not _add(repo, made, flags):
            raise _refused(document, f"libsolv cannot read its own form of it: {repo.pool.errstr}")


def _add(repo: Any, stream: IO[bytes], flags: int) -> bool:
    with _solv_file("", stream) as source:
        return bool(repo.add_solv(source, flags))


def _convert(document: Document, plain: IO[bytes], made: IO[bytes], parse: Callable[[Any, Any], Any]) -> None:
    """Turn a plain document into a digest and libsolv's form of it."""
    pool = load_solv().Pool()
    # The name tells libsolv that nothing is compressed; where it finds no decompressor it hands over a null pointer,
    # which its own reader then follows.
    with _solv_file("metadata.xml", plain) as source:
        filled = parse(pool.add_repo("scratch"), source)
    if filled is None:
        raise _refused(document, f"is not repository metadata: {pool.errstr}")
    _write(filled, made)


def _plain(document: Document) -> Iterator[bytes]:
    name = os.path.basename(document.name or document.path)
    with open(document.path, "rb") as stream:
        chunks: Iterable[bytes] = iter(lambda: stream.read(CHUNK), b"")
        if name.rpartition(".")[2] in _ENDINGS:
            chunks = decompress(chunks, name, document.path, _LIMIT)
        try:
            yield from _without_declarations(chunks, document)
        except PackageError as error:
            raise _refused(document, error.problem) from error


def _without_declarations(chunks: Iterable[bytes], document: Document) -> Iterator[bytes]:
    """Pass chunks on, and refuse a document that declares anything: entities expand without bounds."""
    tail = b""
    for chunk in chunks:
        seen = tail + chunk
        at = seen.find(_DECLARATION)
        while at >= 0:
            if len(seen) - at >= len(_HARMLESS[1]) and not seen.startswith(_HARMLESS, at):
                raise _refused(document, "declares a document type, which repository metadata never does")
            at = seen.find(_DECLARATION, at + 1)
        tail = seen[-len(_HARMLESS[1]) + 1 :]
        yield chunk


def _refused(document: Document, problem: str) -> UntrustedError:
    return UntrustedError(os.path.basename(document.name or document.path), "malformed", problem)


@contextlib.contextmanager
def _solv_file(name: str, stream: IO[bytes]) -> Iterator[Any]:
    source = load_solv().xfopen_fd(name, stream.fileno())
    if source is None:
        raise OSError(f"libsolv cannot open {name}")
    try:
        yield source
    finally:
        source.close()


def _is_whole(stream: IO[bytes]) -> bool:
    """Tell whether a file is what was written, and leave it at the beginning of libsolv's part."""
    stream.seek(0)
    expected = stream.read(_DIGEST().digest_size)
    whole = _digest(stream) == expected
    stream.seek(len(expected))
    return whole


def _digest(stream: IO[bytes]) -> bytes:
    digest = _DIGEST()
    stream.seek(digest.digest_size)
    for chunk in iter(lambda: stream.read(CHUNK), b""):
        digest.update(chunk)
    return digest.digest()


def _keep(made: IO[bytes], kept: str) -> None:
    folder = os.path.dirname(kept)
    os.makedirs(folder, exist_ok=True)
    made.seek(0)
    with tempfile.NamedTemporaryFile(dir=folder, delete=False) as stream:
        try:
            shutil.copyfileobj(made, stream)
            stream.flush()
            os.replace(stream.name, kept)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(stream.name)
            raise


def _write(filled: Any, made: IO[bytes]) -> None:
    """Write a digest and, after it, what libsolv makes of a repository."""
    made.write(bytes(_DIGEST().digest_size))
    with _solv_file("", made) as target:
        if not filled.write(target) or not target.flush():
            raise StorageError(tempfile.gettempdir(), "libsolv could not write its form of the metadata")
    digest = _digest(made)
    made.seek(0)
    made.write(digest)
