"""Signed documents: where they lie in an archive, and how those are kept that were believed.

<root>/signed/<sha256>/<path>   a document, or a pair, by the digest of what was signed
<root>/latest/<archive>/<folder>/@   the digest of the last ones believed there: one file, so that a pair stays one

Kept documents are addressed like a mirror's, with `signed:<sha256>` or `latest:<archive>` where its URL would stand.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from typing import TYPE_CHECKING
from urllib.parse import quote

from rootfsbuild.repository.trust import MAX_DOCUMENT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rootfsbuild.plan import Snapshot

DIGEST = re.compile(r"[0-9a-f]{64}")
FOLDERS = ("signed", "latest")
REPOMD, REPOMD_SIGNATURE = "repodata/repomd.xml", "repodata/repomd.xml.asc"
METALINK = "metalink.xml"
"""The documents of an RPM repository, below its base; a metalink is fetched from elsewhere and only kept there."""
_NAME = re.compile(r"[A-Za-z0-9_.~%+-]+")  # what quote() leaves; no @, which is the pointer's name
_DAY = 86400


def suite_folder(suite: str) -> str:
    """Return the path of a suite's documents, quoted for a URL; a suite that ends in a slash is a flat repository."""
    return quote(suite.rstrip("/")) if suite.endswith("/") else f"dists/{quote(suite)}"


def document_sets(snapshot: Snapshot) -> tuple[tuple[str, ...], ...]:
    """Return which documents can stand for a snapshot, as sets of paths: the first of each is the one it names.

    The document that only a signature beside it makes believable is enough alone where no signature was asked for.
    """
    if any(index.path.startswith("repodata/") for index in snapshot.indexes):
        return ((REPOMD, REPOMD_SIGNATURE),) if snapshot.signers else ((REPOMD,),)
    folder = confined(suite_folder(snapshot.suite) + "/x").removesuffix("x")
    sets = ((f"{folder}InRelease",), (f"{folder}Release", f"{folder}Release.gpg"))
    return sets if snapshot.signers else (*sets, (f"{folder}Release",))


def confined(path: str) -> str:
    """Return a document's path without empty and `.` parts; raise ValueError for one that could lead elsewhere."""
    parts = [part for part in path.split("/") if part not in {"", "."}]
    if not parts or not all(_NAME.fullmatch(part) and part != ".." for part in parts):
        raise ValueError(f"{path!r} is no path of a document")
    return "/".join(parts)


def keep_documents(root: str, archive: str, sha256: str, documents: Mapping[str, bytes], *, latest: bool) -> None:
    """Write documents (path -> bytes) of one folder, and that they are the latest; raise OSError or ValueError."""
    if not DIGEST.fullmatch(sha256):
        raise ValueError(f"{sha256!r} is no digest")
    for path, data in documents.items():
        _write(os.path.join(root, "signed", sha256, confined(path)), data)
    for path in documents if latest else ():
        _write(_pointer(root, archive, path), sha256.encode())


def read_signed(root: str, sha256: str, path: str) -> bytes | None:
    """Return a document, None if it is not here or no longer what it was."""
    try:
        place = os.path.join(root, "signed", sha256, confined(path))
        data = _read(place) if DIGEST.fullmatch(sha256) else None
    except ValueError:
        return None
    # What stands beside a document has no digest to be held against: a signature proves itself, a metalink is compared.
    beside = place.endswith((".gpg", ".asc", f"/{METALINK}"))
    if data is None or (not beside and hashlib.sha256(data).hexdigest() != sha256):
        return None
    with contextlib.suppress(OSError):
        _renew(place)
    return data


def read_latest(root: str, archive: str, path: str) -> bytes | None:
    """Return a document of those that were kept last for an archive's folder, None if there is none."""
    try:
        pointer = _pointer(root, archive, path)
    except ValueError:
        return None
    digest = _read(pointer)
    return read_signed(root, digest.decode("ascii", "replace"), path) if digest is not None else None


def _pointer(root: str, archive: str, path: str) -> str:
    name = quote(archive, safe="")
    if not name or name in {".", ".."}:
        raise ValueError(f"{archive!r} is no name of an archive")
    return os.path.join(root, "latest", name, os.path.dirname(confined(path)), "@")


def _read(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_DOCUMENT + 1)
    except OSError:
        return None
    return data if len(data) <= MAX_DOCUMENT else None


def _write(path: str, data: bytes) -> None:
    if _read(path) == data:
        with contextlib.suppress(OSError):  # a cache that can only be read has it all the same
            _renew(path)
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    temporary = f"{path}@{os.getpid()}.{time.monotonic_ns()}"
    try:
        with open(temporary, "xb") as file:
            file.write(data)
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _renew(path: str) -> None:
    """Note the use of a file in its modification time, by which pruning goes."""
    if time.time() - os.stat(path).st_mtime > _DAY:
        os.utime(path)
