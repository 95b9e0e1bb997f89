"""A bundle: locks, the documents and keys that make them believable, and the packages, in one file.

What it holds is exactly what its locks ask for. That its members are those of its own list says nothing about who
made it: only the signatures do, and they are verified anew by every build.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, cast

from rootfsbuild import events
from rootfsbuild.errors import BundleError, FetchError, RecipeError
from rootfsbuild.lock import Lock, read_lock
from rootfsbuild.repository.bundle_contents import check_complete, labels
from rootfsbuild.repository.bundle_file import AGAIN, Member, Part, blob_path, digest_of, scan, signed_path
from rootfsbuild.repository.signed import document_sets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from rootfsbuild.plan import Plan
    from rootfsbuild.repository.trust import Keyring

_CHUNK = 1 << 20
_MAX_SMALL = 32_000_000
"""Bytes of a lock, a key or a signed document."""


@dataclass(frozen=True)
class Locked:
    """One lock of a bundle, in numbers."""

    file: str
    name: str
    architecture: str
    distro: str
    release: str
    packages: int
    size: int
    """Bytes of its package files."""


@dataclass(frozen=True)
class Listing:
    """What a bundle holds, in numbers."""

    locks: tuple[Locked, ...]
    packages: int
    """Different package files."""
    size: int
    """Bytes of all members."""


@dataclass(frozen=True)
class Bundle:
    """An open bundle; its list, locks, keys and signed documents are what they should be, packages not read yet."""

    file: str
    members: Mapping[str, Member]
    locks: Mapping[str, Lock]
    """By file name."""
    descriptor: int

    def find_lock(self, name: str, architecture: str) -> Lock | None:
        """Return the lock of a recipe on an architecture."""
        found = (lock for lock in self.locks.values() if (lock.name, lock.plan.architecture) == (name, architecture))
        return next(found, None)

    def signed(self, sha256: str, path: str) -> bytes | None:
        """Return a signed document by its snapshot's digest; raise BundleError if it changed since the opening."""
        try:
            member = self.members.get(signed_path(sha256, path))
        except ValueError:
            return None
        return None if member is None else _read_small(self.descriptor, member, self.file)

    def key(self, name: str) -> bytes | None:
        """Return certificates by their fingerprint or by their keyring's digest."""
        member = self.members.get(f"keys/{name}.pgp")
        return None if member is None else _read_small(self.descriptor, member, self.file)

    def open_blob(self, sha256: str) -> BinaryIO:
        """Return a package or index as a file to read; its bytes are not verified. KeyError if it is not here."""
        return cast("BinaryIO", io.BufferedReader(Part(self.descriptor, self.members[blob_path(sha256)]), _CHUNK))

    def list(self) -> Listing:
        """Return what it holds, in numbers."""
        locks = tuple(
            Locked(
                file,
                lock.name,
                lock.plan.architecture,
                lock.plan.distro,
                lock.plan.release,
                len(lock.plan.packages),
                sum({package.sha256: package.size for package in lock.plan.packages}.values()),
            )
            for file, lock in sorted(self.locks.items())
        )
        return Listing(locks, count_packages(self.locks), sum(member.size for member in self.members.values()))


def keyring_entry(keyring: Keyring) -> tuple[str, bytes]:
    """Return the name and the content under which a bundle carries the certificates that may sign for an archive.

    The name is the digest that a Snapshot gives its keyring, and also that of the content.
    """
    return keyring.digest, b"".join(bytes(certificate.cert) for certificate in keyring.certificates)


def find_documents(plan: Plan, look: Callable[[str, str], bytes | None]) -> dict[tuple[str, str], bytes]:
    """Return the signed documents of a plan by digest and path, for `write_bundle`.

    `look` gives a document by digest and path (`Store.signed`). Raises FetchError that lists all it does not give.
    """
    found: dict[tuple[str, str], bytes] = {}
    attempts: list[tuple[str, str]] = []
    for snapshot in plan.snapshots:
        for paths in document_sets(snapshot):
            documents = {(snapshot.sha256, path): look(snapshot.sha256, path) for path in paths}
            if None not in documents.values():
                found |= {key: data for key, data in documents.items() if data is not None}
                break
        else:
            name = f"the signed document of {snapshot.archive} {snapshot.suite}"
            attempts.append((name, f"no document with the SHA-256 {snapshot.sha256} was kept"))
    if attempts:
        hint = "make the lock anew with rootfsbuild lock, where the network is"
        raise FetchError("what makes the lock believable", tuple(attempts), hint=hint)
    return found


@contextlib.contextmanager
def open_bundle(file: str) -> Iterator[Bundle]:
    """Yield a bundle after everything in it but the packages and indexes has been read and checked.

    Raises BundleError for what is no whole bundle, or holds another thing than its locks ask for, and IntegrityError
    for a lock that does not fit its own digest.
    """
    descriptor = _open(file)
    try:
        members = scan(descriptor, file)
        small = {
            path: _read_small(descriptor, member, file)
            for path, member in members.items()
            if not path.startswith("blobs/")
        }
        locks = {
            path.removeprefix("locks/"): _parse_lock(data, path, file)
            for path, data in small.items()
            if path.startswith("locks/")
        }
        check_complete(file, locks, members)
        yield Bundle(file, members, locks, descriptor)
    finally:
        os.close(descriptor)


def check_bundle(bundle: Bundle, report: events.Report = events.ignore) -> None:
    """Read every package and index; raise BundleError that names the first that is not what the locks ask for."""
    names = labels(bundle.locks)
    blobs = [member for path, member in bundle.members.items() if path.startswith("blobs/")]
    report(events.StageStarted("bundle", sum(member.size for member in blobs), "B"))
    for member in blobs:
        actual = digest_of(bundle.descriptor, member)
        if actual != member.sha256:
            problem = f"{names[member.path]} was altered: it has the SHA-256 {actual}"
            raise BundleError(bundle.file, problem, member.path, hint=AGAIN)
        report(events.Progress("bundle", member.size, member.path))
    report(events.StageEnded("bundle"))


def _open(file: str) -> int:
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise BundleError(file, f"cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise BundleError(file, "is no file")
    return descriptor


def _read_small(descriptor: int, member: Member, file: str) -> bytes:
    if member.size > _MAX_SMALL:
        raise BundleError(file, f"has {member.size} bytes, more than {_MAX_SMALL}", member.path)
    data = os.pread(descriptor, member.size, member.offset)
    actual = hashlib.sha256(data).hexdigest()
    if actual != member.sha256:
        raise BundleError(file, f"was altered: it has the SHA-256 {actual}", member.path, hint=AGAIN)
    return data


def _parse_lock(data: bytes, path: str, file: str) -> Lock:
    try:
        return read_lock(data.decode("utf-8"), f"{file}: {path}")
    except RecipeError as error:
        place = f"line {error.line}: " if error.line else ""
        where = f"{error.where}: " if error.where else ""
        raise BundleError(file, f"is no lock: {place}{where}{error.problem}", path, hint=error.hint or AGAIN) from None
    except (UnicodeDecodeError, RecursionError) as error:
        raise BundleError(file, f"is no lock: {error}", path, hint=AGAIN) from None


def count_packages(locks: Mapping[str, Lock]) -> int:
    """Return how many different package files some locks name."""
    return len({package.sha256 for lock in locks.values() for package in lock.plan.packages})
