"""Writing a bundle: in one order, checked as it is written, there whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from rootfsbuild import events
from rootfsbuild.errors import BundleError, IntegrityError, StorageError
from rootfsbuild.lock import read_lock
from rootfsbuild.repository.bundle import count_packages
from rootfsbuild.repository.bundle_contents import check_complete
from rootfsbuild.repository.bundle_file import (
    INDEX,
    Member,
    blob_path,
    is_name,
    padding,
    signed_path,
    tell_end,
    tell_header,
    tell_index,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

_CHUNK = 1 << 20


@dataclass(frozen=True)
class BundleSummary:
    """What was written."""

    path: str
    locks: int
    packages: int
    """Different package files."""
    size: int
    """Bytes of the file."""


def write_bundle(
    path: str,
    locks: Mapping[str, str],
    signed: Mapping[tuple[str, str], bytes],
    keys: Mapping[str, bytes],
    blobs: Iterable[tuple[str, int, str]],
    report: events.Report = events.ignore,
) -> BundleSummary:
    """Write a bundle, complete or not at all; equal content gives equal bytes.

    `locks`: file name -> text. `signed`: (digest that a Snapshot gives, path in the archive) -> document. `keys`:
    fingerprint or keyring's digest -> certificates. `blobs`: (SHA-256, bytes, path of the file), packages and
    indexes. Raises BundleError for what would be no bundle, IntegrityError for a file that is not what its digest
    says, StorageError for what the file system refuses, and what `read_lock` raises.
    """
    parsed = {name: read_lock(text, name) for name, text in locks.items()}
    small = {f"locks/{name}": text.encode() for name, text in locks.items()}
    small |= {f"keys/{name}.pgp": data for name, data in keys.items()}
    try:
        small |= {signed_path(sha256, place): data for (sha256, place), data in signed.items()}
    except ValueError as error:
        raise BundleError(path, str(error)) from None
    files = {sha256: (size, place) for sha256, size, place in blobs}
    members = [Member(name, len(data), hashlib.sha256(data).hexdigest()) for name, data in sorted(small.items())]
    members += [Member(blob_path(sha256), size, sha256) for sha256, (size, _) in sorted(files.items())]
    _check_names(path, members)
    check_complete(path, parsed, {member.path: member for member in members})
    index = tell_index(members)
    report(events.StageStarted("bundle", sum(member.size for member in members), "B"))
    with _new_file(path) as file:
        _write_small(file, Member(INDEX, len(index), ""), index)
        for member in members:
            if member.path in small:
                _write_small(file, member, small[member.path])
                report(events.Progress("bundle", member.size, member.path))
            else:
                _copy_blob(file, member, files[member.sha256][1], report)
        file.write(tell_end(file.tell()))
        size = file.tell()
    report(events.StageEnded("bundle"))
    return BundleSummary(path, len(locks), count_packages(parsed), size)


def _check_names(path: str, members: Sequence[Member]) -> None:
    for member in members:
        if not is_name(member.path):
            raise BundleError(path, "cannot be the name of a member", member.path)
        try:
            tell_header(member.path, member.size)
        except ValueError as error:
            raise BundleError(path, str(error), member.path) from None


@contextlib.contextmanager
def _new_file(path: str) -> Iterator[BinaryIO]:
    """Yield a file that takes the place of `path` when the block ends well."""
    folder, name = os.path.split(os.path.abspath(path))
    temporary = ""
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{name[:200]}.", dir=folder)
        with open(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0o077)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, path)
    except BaseException as error:
        if temporary:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        if isinstance(error, OSError):
            raise StorageError(path, error.strerror or str(error), hint="choose another place with -o") from error
        raise


def _write_small(file: BinaryIO, member: Member, data: bytes) -> None:
    file.write(tell_header(member.path, member.size))
    file.write(data)
    file.write(padding(member.size))


def _copy_blob(file: BinaryIO, member: Member, source: str, report: events.Report) -> None:
    file.write(tell_header(member.path, member.size))
    digest, copied = hashlib.sha256(), 0
    with _open_source(source) as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            copied += len(chunk)
            file.write(chunk)
            report(events.Progress("bundle", len(chunk), member.path))
    if copied != member.size or digest.hexdigest() != member.sha256:
        expected = f"{member.size} bytes with SHA-256 {member.sha256}"
        raise IntegrityError(source, expected, f"{copied} bytes with SHA-256 {digest.hexdigest()}")
    file.write(padding(member.size))


def _open_source(source: str) -> BinaryIO:
    try:
        return open(source, "rb")
    except OSError as error:
        raise StorageError(source, error.strerror or str(error), hint="run it again, to fetch it again") from error
