"""The content-addressed store under the user's cache: verified blobs that several builds share at once.

<root>/blobs/sha256/ab/abcdef…   blobs, named by what they contain
<root>/partial/abcdef…           downloads under way; the file is its own lock
<root>/indexes/                  compact caches of others
<root>/signed/, latest/          signed documents that were believed (`signed`)
<root>/trust/                    rollback memory
<root>/damaged/                  blobs that no longer were what their name says
<root>/in-use                    locked by every build, so that pruning waits its turn
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rootfsbuild import events
from rootfsbuild.errors import StorageError
from rootfsbuild.repository import signed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

REFUSED = {errno.EROFS, errno.EACCES, errno.EPERM}
DAY = 86400


def default_cache_dir(environ: Mapping[str, str]) -> str:
    """Return the store's directory: ROOTFSBUILD_CACHE_DIR, else below the XDG cache directory."""
    if environ.get("ROOTFSBUILD_CACHE_DIR"):
        return environ["ROOTFSBUILD_CACHE_DIR"]
    home = environ.get("XDG_CACHE_HOME") or os.path.join(environ.get("HOME") or "/root", ".cache")
    return os.path.join(home, "rootfsbuild")


@dataclass(frozen=True)
class Pruned:
    """What pruning took away."""

    count: int
    """Files."""
    size: int
    """Bytes."""


class Store:
    """Blobs by their SHA-256; every blob is hashed when this process first uses it."""

    def __init__(self, root: str, report: events.Report = events.ignore) -> None:
        self.root = os.path.abspath(root)
        self.indexes = os.path.join(self.root, "indexes")
        self.trust = os.path.join(self.root, "trust")
        self._report = report
        self._verified: dict[str, tuple[int, int, int]] = {}

    def path(self, sha256: str) -> str:
        """Return where the blob of this digest lies, or would lie."""
        if not signed.DIGEST.fullmatch(sha256):
            raise ValueError(f"not a SHA-256 in lower-case hexadecimal: {sha256!r}")
        return os.path.join(self.root, "blobs", "sha256", sha256[:2], sha256)

    def find(self, sha256: str, size: int) -> str | None:
        """Return the path of a blob that is here and intact, else None.

        A blob that is not what its name says is set aside in `damaged/` and counts as absent.
        """
        path = self.path(sha256)
        try:
            with open(path, "rb") as file:
                status = os.fstat(file.fileno())
                seen = status.st_ino, status.st_size, status.st_mtime_ns
                if self._verified.get(sha256) == seen:
                    return path
                intact = status.st_size == size and hashlib.file_digest(file, "sha256").hexdigest() == sha256
                if intact and time.time() - status.st_mtime > DAY:
                    seen = _touch(path, seen)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageError(path, _reason(error), hint="remove it, or choose another --cache-dir") from error
        if not intact:
            self._set_aside(path, sha256)
            return None
        self._verified[sha256] = seen
        return path

    def put(self, data: bytes) -> str:
        """Keep a small document that is already in memory; return its path."""
        sha256 = hashlib.sha256(data).hexdigest()
        found = self.find(sha256, len(data))
        if found is not None:
            return found
        with self.claim(sha256, time.sleep) as claim:
            claim.restart()
            claim.write(data)
            return claim.publish()

    @contextlib.contextmanager
    def claim(self, sha256: str, pause: Callable[[float], None], patience: float = 600) -> Iterator[Claim]:
        """Hold the right to write one blob; wait for another build that has it, at most `patience` seconds.

        The right is a flock on the partial file, which the kernel gives back when its holder dies. Where
        nothing can be had (a holder that hangs, a file system without locks) a private file is used instead.
        Look the blob up again once the right is held: the other build may have finished it.
        """
        path = os.path.join(self.root, "partial", sha256)
        final = self.path(sha256)
        descriptor = _lock_partial(path, pause, patience)
        if descriptor is None:
            path = f"{path}.{os.getpid()}.{time.monotonic_ns()}"
            descriptor = _open_partial(path)
        claim = Claim(descriptor, path, final, sha256)
        try:
            yield claim
        finally:
            claim.leave()

    def keep_signed(
        self,
        archive: str,
        sha256: str,
        documents: Mapping[str, bytes],
        *,
        latest: bool = True,
        report: events.Report | None = None,
    ) -> None:
        """Keep believed documents (path in the archive -> bytes) for builds from a lock or without a network.

        `sha256` is the digest that a Snapshot names them by. `latest`: they are what the archive says now. What
        cannot be written warns: this build lost nothing.
        """
        try:
            signed.keep_documents(self.root, archive, sha256, documents, latest=latest)
        except (OSError, ValueError) as error:
            reason = _reason(error) if isinstance(error, OSError) else str(error)
            text = f"{self.root} cannot keep the signed documents of {archive} for later ({reason})"
            (report or self._report)(events.Warned(text))

    def signed(self, sha256: str, path: str) -> bytes | None:
        """Return a document that was kept, by its snapshot's digest; None if it is not here intact."""
        return signed.read_signed(self.root, sha256, path)

    def latest(self, archive: str, path: str) -> bytes | None:
        """Return a document of an archive as it was believed last."""
        return signed.read_latest(self.root, archive, path)

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep this store from being pruned for the length of a build."""
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError, StorageError):  # what cannot be written is not pruned
                descriptor = _open_lock(os.path.join(self.root, "in-use"))
                stack.callback(os.close, descriptor)
                fcntl.flock(descriptor, fcntl.LOCK_SH)
            yield

    def prune(self, *, days: float | None = None, max_bytes: int | None = None) -> Pruned:
        """Remove blobs and documents not used for `days`, then the least recently used until `max_bytes` are left.

        Without either, everything but the rollback memory goes. Raises StorageError while a build is running.
        """
        lock = os.path.join(self.root, "in-use")
        if not os.path.isdir(self.root):
            return Pruned(0, 0)
        descriptor = _open_lock(lock)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            hint = "run it again when that build has ended"
            raise StorageError(self.root, "a build is using this cache", hint=hint) from None
        else:
            return self._prune(days, max_bytes)
        finally:
            os.close(descriptor)

    def _prune(self, days: float | None, max_bytes: int | None) -> Pruned:
        folders = ("blobs", "indexes", "partial", "damaged", *signed.FOLDERS)
        kept = sorted(_files(self.root, folders), key=lambda found: -found[1])
        everything = days is None and max_bytes is None
        oldest = time.time() - DAY * (days or 0) if days is not None else 0.0
        files = size = total = 0
        for path, used, length in kept:
            total += length
            if everything or used < oldest or (max_bytes is not None and total > max_bytes):
                os.unlink(path)
                files, size = files + 1, size + length
        for folder in signed.FOLDERS:
            _drop_empty(os.path.join(self.root, folder))
        self._verified.clear()
        return Pruned(files, size)

    def _set_aside(self, path: str, sha256: str) -> None:
        aside = os.path.join(self.root, "damaged", f"{sha256}.{time.time_ns()}")
        try:
            os.makedirs(os.path.dirname(aside), exist_ok=True)
            os.replace(path, aside)
        except FileNotFoundError:
            return  # another build has set it aside
        except OSError as error:
            problem = f"is damaged and cannot be set aside ({_reason(error)})"
            raise StorageError(path, problem, hint="remove it, or choose another --cache-dir") from error
        self._report(events.Warned(f"the cached file {sha256[:12]}… was damaged; it is now {aside}"))


class Claim:
    """A partial file that this thread alone may write, and its publication under the blob's name."""

    def __init__(self, descriptor: int, path: str, final: str, sha256: str) -> None:
        self._descriptor = descriptor
        self._path = path
        self._final = final
        self._sha256 = sha256
        self.have = os.fstat(descriptor).st_size
        """Bytes already written, perhaps by an earlier build; not verified."""
        self._published = False

    def prefix(self) -> hashlib._Hash:
        """Return a SHA-256 that has taken the bytes already written."""
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        with open(self._descriptor, "rb", closefd=False) as file:
            digest = hashlib.file_digest(file, "sha256")
        os.lseek(self._descriptor, self.have, os.SEEK_SET)
        return digest

    def restart(self) -> None:
        """Forget the bytes already written."""
        with _refusals(self._path):
            os.ftruncate(self._descriptor, 0)
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        self.have = 0

    def write(self, data: bytes) -> None:
        """Append bytes; raise StorageError when the file system refuses them."""
        view = memoryview(data)
        with _refusals(self._path):
            while view:
                written = os.write(self._descriptor, view)
                self.have += written
                view = view[written:]

    def publish(self) -> str:
        """Give the finished file its name, in one step, and return the path."""
        with _refusals(self._final):
            os.fchmod(self._descriptor, 0o644)
            os.makedirs(os.path.dirname(self._final), exist_ok=True)
            os.replace(self._path, self._final)
        self._published = True
        return self._final

    def leave(self) -> None:
        """Give the right back; what is written so far stays, for whoever resumes it."""
        private = not self._path.endswith(self._sha256)
        if not self._published and (private or os.fstat(self._descriptor).st_size == 0):
            with contextlib.suppress(OSError):
                os.unlink(self._path)
        os.close(self._descriptor)


def _lock_partial(path: str, pause: Callable[[float], None], patience: float) -> int | None:
    """Return a descriptor of the partial file with its lock held, or None when it cannot be had."""
    wait = 0.02
    while patience > 0:
        descriptor = _open_partial(path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _same_file(descriptor, path):
                return descriptor
        except OSError as error:
            if error.errno not in {errno.EWOULDBLOCK, errno.EINTR}:
                patience = 0  # a file system without locks
            try:
                pause(wait)
            except BaseException:
                os.close(descriptor)
                raise
            patience -= wait
            wait = min(wait * 2, 0.5)
        os.close(descriptor)  # finished or given up by its holder, or still held: look again
    return None


def _open_partial(path: str) -> int:
    with _refusals(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _open_lock(path: str) -> int:
    with _refusals(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        # Open for reading, so that a build can also hold off the pruning of a cache it may only read.
        return os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)


def _same_file(descriptor: int, path: str) -> bool:
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    here = os.fstat(descriptor)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)


@contextlib.contextmanager
def _refusals(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        hint = "free some space, run `rootfsbuild cache prune`, or choose another --cache-dir"
        if error.errno in REFUSED:
            hint = "what is not in this cache already needs one that can be written: choose another --cache-dir"
        raise StorageError(path, _reason(error), hint=hint) from error


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def _touch(path: str, seen: tuple[int, int, int]) -> tuple[int, int, int]:
    """Note the use of a blob in its modification time, by which pruning goes, if the cache allows it."""
    try:
        os.utime(path)
    except OSError:
        return seen
    return seen[0], seen[1], os.stat(path).st_mtime_ns


def _drop_empty(root: str) -> None:
    for path, _, _ in os.walk(root, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(path)


def _files(root: str, folders: tuple[str, ...]) -> Iterator[tuple[str, float, int]]:
    """Yield (path, time of last use, bytes) of every regular file below some folders."""
    for folder in folders:
        for path, _, names in os.walk(os.path.join(root, folder)):
            for name in names:
                status = os.lstat(os.path.join(path, name))
                if stat.S_ISREG(status.st_mode):
                    yield os.path.join(path, name), status.st_mtime, status.st_size
