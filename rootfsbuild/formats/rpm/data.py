"""The files that a repomd.xml lists: fetched, proven by the digest that it names, and read as plain bytes."""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rootfsbuild.errors import IntegrityError, PackageError, UntrustedError
from rootfsbuild.formats.rpm.repomd import Data, unusable
from rootfsbuild.repository.fetch import Wanted
from rootfsbuild.repository.signed import DIGEST
from rootfsbuild.rootfs.decompress import CHUNK, decompress

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from rootfsbuild.formats.rpm.trusted import Trusted
    from rootfsbuild.repository.fetch import Fetch
    from rootfsbuild.repository.store import Store

TYPES = ("primary", "filelists", "group", "modules", "updateinfo")
"""The kinds of data that anything here reads."""
MAX_UNNAMED = 256 << 20
"""Bytes of a file that is proven by another digest than SHA-256, and so goes through memory once."""

_LIMIT = 8 << 30
_COMPRESSED = (".xz", ".gz", ".zst", ".bz2")


@dataclass(frozen=True)
class Fetched:
    """A data file on disk, whose digest is the one that repomd.xml names."""

    data: Data
    path: str
    sha256: str
    """Lower-case hexadecimal, also where repomd.xml names another digest."""
    size: int


def chosen_data(trusted: Trusted, types: Iterable[str] = TYPES) -> dict[str, Data]:
    """Return the best file of each kind that the repository offers, by kind.

    Raises UntrustedError (rule `mismatch`) for a repository whose primary data cannot be used; nothing else is needed.
    """
    found = {kind: data for kind in types if (data := trusted.repomd.choose(kind)) is not None}
    if "primary" in types and "primary" not in found:
        listed = trusted.repomd.data.get("primary")
        problem = "lists no primary data" if listed is None else f"lists primary data that {unusable(listed)}"
        raise UntrustedError(f"repomd.xml of {trusted.base}", "mismatch", problem)
    return found


def wanted_data(trusted: Trusted, bases: Sequence[str], types: Iterable[str] = TYPES) -> list[Wanted]:
    """Return what to fetch of the kinds, as far as SHA-256 proves it; `fetch_data` gets the others too.

    `bases` are the URLs of the repository in the order in which they are to be tried (`Trusted.bases`).
    """
    chosen = chosen_data(trusted, types)
    return [_wanted(data, bases, data.sha256) for data in chosen.values() if data.sha256]


def fetch_data(
    trusted: Trusted,
    bases: Sequence[str],
    fetch: Fetch,
    store: Store,
    types: Iterable[str] = TYPES,
    *,
    known: Mapping[str, str] | None = None,
) -> dict[str, Fetched]:
    """Fetch the best file of each kind, by kind; what a repository does not offer is not there.

    The store names files by their SHA-256. Where repomd.xml has only a SHA-384 or SHA-512, `known` gives it by
    location, as a lock does; without it the store may remember, or the file is fetched as a document. Raises
    UntrustedError, IntegrityError or FetchError.
    """
    chosen = chosen_data(trusted, types)
    digests = {kind: _sha256_of(data, known or {}, store) for kind, data in chosen.items()}
    wanted = {kind: _wanted(data, bases, digests[kind]) for kind, data in chosen.items() if digests[kind]}
    paths = {one.sha256: path for one, path in fetch.blobs(dict.fromkeys(wanted.values()))}
    found: dict[str, Fetched] = {}
    for kind, data in chosen.items():
        path = paths[digests[kind]] if digests[kind] else _fetch_unnamed(data, bases, fetch, store)
        sha256 = digests[kind] or os.path.basename(path)
        if not data.sha256:
            _check(data, path)
            _remember(data, sha256, store)
        found[kind] = Fetched(data, path, sha256, os.path.getsize(path))
    return found


def open_data(
    path: str, href: str, label: str, open_size: int | None = None, *, limit: int = _LIMIT
) -> Iterator[bytes]:
    """Yield the plain bytes of a file on disk; the ending of `href`, as repomd.xml has it, tells the compression.

    `open_size` is how many bytes repomd.xml promises, None where it does not say, and `limit` the most in any case.
    Raises UntrustedError (rule `malformed`) for a stream that is corrupt, truncated, larger or not of that size.
    """
    try:
        with open(path, "rb") as file:
            chunks = iter(lambda: file.read(CHUNK), b"")
            most, total = min(limit, limit if open_size is None else open_size), 0
            for piece in _plain(chunks, href, label, most):
                total += len(piece)
                yield piece
    except PackageError as error:
        raise UntrustedError(label, "malformed", f"{error.path}: {error.problem}") from None
    if open_size not in {None, total}:
        raise UntrustedError(label, "malformed", f"{href}: expands to {total} bytes, not to {open_size}")


def read_data(fetched: Fetched, label: str) -> Iterator[bytes]:
    """Yield the plain bytes of a fetched file; raises as `open_data`."""
    return open_data(fetched.path, fetched.data.href, label, fetched.data.open_size)


def _plain(chunks: Iterator[bytes], href: str, label: str, most: int) -> Iterator[bytes]:
    # `.tar` is what decompress calls bytes that are plain already.
    return decompress(chunks, href if href.endswith(_COMPRESSED) else f"{href}.tar", label, most)


def _wanted(data: Data, bases: Sequence[str], sha256: str) -> Wanted:
    urls = tuple(f"{base}/{data.href}" for base in bases)
    return Wanted(urls, data.size or 0, sha256, data.href.rpartition("/")[2])


def _fetch_unnamed(data: Data, bases: Sequence[str], fetch: Fetch, store: Store) -> str:
    if (data.size or 0) > MAX_UNNAMED:
        problem = f"has {data.size} bytes and only a {data.checksum.type}: more than {MAX_UNNAMED}"
        raise UntrustedError(data.href, "size", problem)

    def accept(body: bytes) -> bytes:
        actual = hashlib.new(data.checksum.type, body).hexdigest()
        if (len(body), actual) != (data.size, data.checksum.value):
            problem = f"has {len(body)} bytes and the {data.checksum.type} {actual[:12]}…, not {_promised(data)}"
            raise UntrustedError(data.href, "hash", problem)
        return body

    urls = [f"{base}/{data.href}" for base in bases]
    body, _ = fetch.document(urls, limit=data.size or 0, label=data.href, accept=accept)
    return store.put(body)


def _check(data: Data, path: str) -> None:
    """Hold a blob, which has some SHA-256, against the digest that repomd.xml names."""
    with open(path, "rb") as file:
        actual = hashlib.file_digest(file, data.checksum.type).hexdigest()
    if actual != data.checksum.value:
        raise IntegrityError(data.href, _promised(data), f"{data.checksum.type} {actual}")


def _promised(data: Data) -> str:
    return f"{data.size} bytes with {data.checksum.type} {data.checksum.value}"


def _sha256_of(data: Data, known: Mapping[str, str], store: Store) -> str:
    """Return a SHA-256 under which a file may be had, empty if none is known; `_check` does not trust it."""
    if data.sha256 or known.get(data.href):
        return data.sha256 or known[data.href]
    with contextlib.suppress(OSError, ValueError), open(_note(data, store), encoding="ascii") as file:
        noted = file.read(65)
        if DIGEST.fullmatch(noted) and store.find(noted, data.size or 0) is not None:
            return noted
    return ""


def _remember(data: Data, sha256: str, store: Store) -> None:
    """Note the SHA-256 of a file that is proven by another digest; what cannot be noted is fetched again."""
    path = _note(data, store)
    temporary = f"{path}.{os.getpid()}"
    with contextlib.suppress(OSError):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(temporary, "w", encoding="ascii") as file:
            file.write(sha256)
        os.replace(temporary, path)


def _note(data: Data, store: Store) -> str:
    return os.path.join(store.indexes, f"{data.checksum.type}-{data.checksum.value}")
