"""A result appears at its place complete or not at all, and only where nothing of the user's can be lost.

While it is made it lies in `.NAME.rootfsbuild-` and eight digits beside the target, a directory that only its owner
can enter and on which the builder holds a lock. A staging directory that nobody holds belongs to a build
that was killed, and the next build deletes it.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import secrets
import stat
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rootfsbuild.errors import InterruptedBuildError, RootfsbuildError, StorageError, TargetError
from rootfsbuild.events import Published, Report, Warned, ignore
from rootfsbuild.rootfs.remove import mounts_below, remove_tree
from rootfsbuild.rootfs.signals import postponed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_MARK = ".rootfsbuild-"
_MADE = "made"
_EXCHANGE = 2
_AT_FDCWD = -100
_SYMLINK_NOFOLLOW = 0x100
_STATX_BTIME = 0x800
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Staging:
    """The place where one result is made."""

    target: str
    """Absolute, its parent free of symlinks."""
    directory: str
    fd: int
    """Holds the lock; closing it, or dying, gives the directory up."""
    replaces: bool
    """Whether the target is an earlier result that may go."""

    @property
    def root(self) -> str:
        """The tree being built, an empty directory of mode 0755 at first."""
        return os.path.join(self.directory, "root")

    @property
    def result(self) -> str:
        """Where an output is to be written: on the file system of the target."""
        return os.path.join(self.directory, "result")

    @property
    def log(self) -> str:
        """Where the build's log goes; it stays, however the build ends."""
        return self.target + ".log"

    @property
    def manifest(self) -> str:
        """Where the record of the result goes."""
        return manifest_path(self.target)

    @property
    def lock(self) -> str:
        """Where the lock goes that builds the result again."""
        return self.target + ".lock"

    def publish(self, description: Mapping[str, Any], report: Report = ignore, *, lock: str = "") -> str:
        """Put `result` in the target's place, its record and the text of its lock beside it; return the record's path.

        Everything is on disk before it appears. Raises TargetError if the target has come into being
        meanwhile, StorageError when the file system refuses; nothing of the kind after `Published`.
        """
        with self._refusals():
            records = self._write_records(description, lock)
            _sync(self.result)
        with postponed():
            with self._refusals():
                self._take_place(records)
            report(Published(self.target))
        try:
            _sync_directory(os.path.dirname(self.target))
        except OSError as error:
            report(Warned(f"{self.target} is complete, but may not outlive a power failure: {error.strerror}"))
        return self.manifest

    def _write_records(self, description: Mapping[str, Any], lock: str) -> dict[str, str]:
        """Return where each file that belongs beside the target was written -> its place."""
        fills = not self.replaces and _fills(self.target)
        made = [_identity(self.target if fills else self.result)]
        if self.replaces:
            made.append(_identity(self.target))
        # Beside the target, which here is another file system than the staging directory's.
        record = json.dumps({**description, _MADE: made}, indent=2) + "\n"
        texts = {self.lock: lock, self.manifest: record} if lock else {self.manifest: record}
        written: dict[str, str] = {}
        for place, text in texts.items():
            new = place + ".new" if fills else os.path.join(self.directory, os.path.basename(place))
            _write_durably(new, text)
            written[new] = place
        return written

    def _take_place(self, records: Mapping[str, str]) -> None:
        # First, so that a result that is there can always be recognised.
        for new, place in records.items():
            os.rename(new, place)
        try:
            _put(self.result, self.target, os.path.join(self.directory, "replaced"), replaces=self.replaces)
        except OSError:
            if not self.replaces:
                for place in records.values():
                    with suppress(OSError):
                        os.unlink(place)
            raise

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in {errno.ENOTEMPTY, errno.EEXIST, errno.EISDIR, errno.ENOTDIR}:
                raise TargetError(self.target, "came into being while the result was made") from error
            raise StorageError(self.target, error.strerror or str(error)) from error


def manifest_path(target: str) -> str:
    """Return the path of the record that lies beside a result."""
    return target + ".manifest.json"


def check_target(path: str, *, force: bool = False, home: str | None = None, cwd: str | None = None) -> str:
    """Return the absolute path of a target that may be written, its parent free of symlinks.

    Free are a path where nothing is, an empty directory and one that holds only lost+found; with `force`
    also what its record beside it says an earlier build made. Raises TargetError for anything else: `/`, the
    home directory, the working directory and whatever holds them, a symlink, a mount that is not empty,
    files of the user's.
    """
    absolute = os.path.abspath(path)
    target = os.path.join(os.path.realpath(os.path.dirname(absolute)), os.path.basename(absolute))
    if os.path.islink(target):
        raise TargetError(path, "is a symbolic link", hint=f"name what it points to: {os.path.realpath(target)}")
    homes = [os.path.expanduser("~") if home is None else home, os.path.expanduser("~root")]
    for holy, what in (
        (os.getcwd() if cwd is None else cwd, "the working directory"),
        *((h, "a home") for h in homes),
    ):
        if holy.startswith("/") and _is_within(os.path.realpath(holy), target):
            raise TargetError(path, f"holds {what}, {holy}", hint="choose another place with -o")
    if not os.path.lexists(target) or _is_free(target):
        return target
    if not _made_by_build(target):
        hint = "choose another place with -o, or move it away"
        raise TargetError(path, "exists, and no build of rootfsbuild made it", hint=hint)
    if not force:
        raise TargetError(path, "exists from an earlier build", hint="replace it with --force")
    if mounts_below(target):
        raise TargetError(path, f"{mounts_below(target)[0]} in it is a mount", hint="unmount it")
    return target


@contextmanager
def open_staging(
    path: str,
    *,
    force: bool = False,
    keep: bool = False,
    home: str | None = None,
    cwd: str | None = None,
    warn: Callable[[str], None] = lambda _text: None,
) -> Iterator[Staging]:
    """Check a target and provide the place beside it where its result is made.

    The parent is created if missing. What is left there at the end is deleted, except that with `keep`
    the half-made root of a build that failed stays, as `TARGET.kept`, named in the error's hint. Raises as
    `check_target` does, and StorageError.
    """
    target = check_target(path, force=force, home=home, cwd=cwd)
    place = target if _fills(target) else os.path.dirname(target)
    made: list[Staging] = []
    try:
        with _refusals(place):
            os.makedirs(os.path.dirname(target), exist_ok=True)
            sweep_stale(place, warn)
            with postponed():
                made.append(_stage(target, place))
        yield made[0]
    except BaseException as error:
        if keep and made:
            _keep(made[0], error)
        raise
    finally:
        if made:
            _clear(made[0], warn)


@contextmanager
def _refusals(place: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(place, error.strerror or str(error)) from error


def _stage(target: str, place: str) -> Staging:
    directory, fd = _make_staging(place, os.path.basename(target))
    return Staging(target, directory, fd, replaces=os.path.lexists(target) and not _is_free(target, directory))


def sweep_stale(parent: str, warn: Callable[[str], None] = lambda _text: None) -> None:
    """Delete the staging directories of dead builds in `parent`; `warn` hears of those that cannot be."""
    for name in sorted(os.listdir(parent)):
        if not name.startswith(".") or _MARK not in name:
            continue
        directory = os.path.join(parent, name)
        fd = _lock(directory)
        if fd is None:
            continue
        try:
            remove_tree(directory)
        except (StorageError, TargetError) as error:
            warn(str(error))
        finally:
            os.close(fd)


def _make_staging(place: str, name: str) -> tuple[str, int]:
    while True:
        # Short names leave room: 255 bytes is the most that Linux takes.
        directory = os.path.join(place, f".{name[:200]}{_MARK}{secrets.token_hex(4)}")
        with suppress(FileExistsError):
            os.mkdir(directory, 0o700)
            fd = _lock(directory)
            # Another build may have taken it for a dead one's before it was locked.
            if fd is not None:
                root = os.path.join(directory, "root")
                os.mkdir(root)
                os.chmod(root, 0o755)
                return directory, fd


def _lock(directory: str) -> int | None:
    """Return a descriptor that holds a staging directory's lock, None if it is gone or somebody else's."""
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(fd), os.lstat(directory)):
            return fd
    except OSError:
        pass
    os.close(fd)
    return None


def _clear(staging: Staging, warn: Callable[[str], None]) -> None:
    try:
        with postponed():
            remove_tree(staging.directory)
    except (StorageError, TargetError) as error:
        warn(str(error))
    finally:
        os.close(staging.fd)


def _keep(staging: Staging, error: BaseException) -> None:
    number, kept = 1, staging.target + ".kept"
    while os.path.lexists(kept):
        number += 1
        kept = f"{staging.target}.kept-{number}"
    with suppress(OSError):
        os.rename(staging.root, kept)
        if isinstance(error, RootfsbuildError | InterruptedBuildError):
            error.hint = f"{error.hint}; " if error.hint else ""
            error.hint += f"the half-made root is {kept}"


def _is_within(path: str, holder: str) -> bool:
    return path == holder or path.startswith(holder.rstrip("/") + "/")


def _is_free(target: str, staging: str = "") -> bool:
    if not stat.S_ISDIR(os.lstat(target).st_mode):
        return False
    held = set(os.listdir(target)) - {"lost+found", os.path.basename(staging)}
    return not {name for name in held if not (name.startswith(".") and _MARK in name)}


def _fills(target: str) -> bool:
    """Tell whether the target can only be filled, not replaced: the top of an empty file system."""
    if not os.path.isdir(target) or not _is_free(target):
        return False
    return os.path.ismount(target) or bool(mounts_below(target)) or bool(os.listdir(target))


def _put(result: str, target: str, aside: str, *, replaces: bool) -> None:
    if not replaces and _fills(target):
        _fill(result, target)
    elif not replaces:
        # rename(2) replaces an empty directory, but also a file: link(2) does not.
        if os.path.isdir(result):
            os.rename(result, target)
        else:
            os.link(result, target, follow_symlinks=False)
            os.unlink(result)
    elif _libc.renameat2(_AT_FDCWD, os.fsencode(result), _AT_FDCWD, os.fsencode(target), _EXCHANGE) != 0:
        os.rename(target, aside)
        try:
            os.rename(result, target)
        except OSError:
            os.rename(aside, target)
            raise


def _fill(result: str, target: str) -> None:
    moved: list[str] = []
    try:
        for name in sorted(os.listdir(result)):
            os.rename(os.path.join(result, name), os.path.join(target, name))
            moved.append(name)
        status = os.stat(result)
        os.chown(target, status.st_uid, status.st_gid)
        os.chmod(target, stat.S_IMODE(status.st_mode))
        os.utime(target, ns=(status.st_mtime_ns, status.st_mtime_ns))
    except OSError:
        for name in moved:
            with suppress(OSError):
                os.rename(os.path.join(target, name), os.path.join(result, name))
        raise


def _made_by_build(target: str) -> bool:
    """Tell whether the record beside a target names the very inode that is there now."""
    try:
        fd = os.open(manifest_path(target), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with open(fd, encoding="utf-8") as file:
            made = json.load(file).get(_MADE, [])
        return any(_same(record, _identity(target)) for record in made)
    except (OSError, ValueError, AttributeError, TypeError, KeyError):
        return False


def _same(record: Mapping[str, int], found: Mapping[str, int]) -> bool:
    if record["inode"] != found["inode"]:
        return False
    # An inode's number is used again; its birth is not. Without births, at least the device must agree.
    if record["born"] and found["born"]:
        return record["born"] == found["born"]
    return record["device"] == found["device"]


def _identity(path: str) -> dict[str, int]:
    status = os.lstat(path)
    return {"device": status.st_dev, "inode": status.st_ino, "born": _birth(path)}


def _birth(path: str) -> int:
    """Return when an inode was made, in ns (statx(2)); 0 where file system or C library do not tell."""
    statx = getattr(_libc, "statx", None)
    data = ctypes.create_string_buffer(256)
    if statx is None or statx(_AT_FDCWD, os.fsencode(path), _SYMLINK_NOFOLLOW, _STATX_BTIME, data) != 0:
        return 0
    raw = data.raw
    if not int.from_bytes(raw[:4], "little") & _STATX_BTIME:
        return 0
    return int.from_bytes(raw[80:88], "little") * 1_000_000_000 + int.from_bytes(raw[88:92], "little")


def _write_durably(path: str, text: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(path, flags, 0o644), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.path.isdir(path):
            # One call for thousands of files.
            if _libc.syncfs(fd) != 0:
                code = ctypes.get_errno()
                raise OSError(code, os.strerror(code))
        else:
            os.fsync(fd)
    finally:
        os.close(fd)


def _sync_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
