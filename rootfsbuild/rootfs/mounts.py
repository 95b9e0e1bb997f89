"""The tree that a sandboxed process sees: the root, with a /proc, /sys, /dev, /run and /tmp of its own.

Everything is mounted inside a private mount namespace, so that it is gone with the last process in it,
however that ends. Nothing is looked up through a symbolic link of the root before the root has become `/`.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rootfsbuild.errors import HostError, PackageError
from rootfsbuild.rootfs import namespaces
from rootfsbuild.rootfs.namespaces import (
    BIND,
    MOVE,
    NO_DEVICES,
    NO_EXECUTE,
    NO_SETUID,
    PRIVATE,
    READ_ONLY,
    RECURSIVE,
    REMOUNT,
    mount,
    unmount,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MOUNT_POINTS = ("proc", "sys", "dev", "run", "tmp")
COVERED = "/run/covered"
"""Below it a command finds the programs that overlays cover, by their paths."""

_STAGE = "/proc"  # free until the pid namespace has its first process
_LATER = "/dev/shm"
_NODES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}
# What root may write without any capability, only because it owns it; and what tells about the host.
_PROC_READ_ONLY = ("sys", "sysrq-trigger", "irq", "bus", "fs", "acpi", "scsi", "mtrr", "asound")
_PROC_HIDDEN = ("kcore", "keys", "timer_list", "sched_debug", "latency_stats", "1/cmdline")


@dataclass(frozen=True)
class Bind:
    """A file or directory of the host shown inside the sandbox, with whatever is mounted below it."""

    source: str
    """On the host."""
    target: str
    """Inside the root, absolute; made for the session when it is absent, and then removed again."""
    writable: bool = True
    """When false, what is mounted below the source is left out."""


@dataclass(frozen=True)
class Placeholder:
    """A file or directory that was made only to be mounted on."""

    parent: int
    """A descriptor of its directory, so that no renaming can lead its removal astray."""
    name: str
    identity: tuple[int, int]
    """Device and inode."""
    times: tuple[int, int]
    """The directory's atime and mtime before, in nanoseconds."""
    touched: int
    """The directory's mtime after, in nanoseconds."""


def check_mount_points(root: str) -> None:
    """Refuse a root whose /proc, /sys, /dev, /run or /tmp is missing or is anything but a directory."""
    if not os.path.isdir(root):
        raise PackageError(root, "is not a directory, so nothing can run in it")
    for name in MOUNT_POINTS:
        try:
            mode = os.lstat(os.path.join(root, name)).st_mode
        except FileNotFoundError:
            raise PackageError(root, "is missing, and the sandbox needs it to mount on", f"/{name}") from None
        if not stat.S_ISDIR(mode):
            problem = "is a symbolic link" if stat.S_ISLNK(mode) else "is not a directory"
            raise PackageError(root, f"{problem}; the sandbox mounts there and follows no links", f"/{name}")


def enter(root: str, binds: Sequence[Bind], overlays: Mapping[str, tuple[bytes, int]]) -> tuple[Placeholder, ...]:
    """Make `root` the root of this mount namespace and furnish it; `/proc` follows in `mount_proc`.

    Needs a new mount namespace and umask 0. `overlays` maps absolute paths to (content, mode); they are shown
    read-only in place of what is there, which stays in reach below COVERED if it is a program. Returns what had to
    be made, for `remove`. Raises OSError.
    """
    mount("none", "/", flags=RECURSIVE | PRIVATE)
    mount(root, root, flags=BIND)
    _without_devices(root)
    _prepare_stage(root + _STAGE, binds, overlays)
    _mount_sys(root + "/sys")
    os.chdir(root)
    namespaces.pivot()
    _mount_memory()
    _furnish_dev()
    made: list[Placeholder] = []
    for number, bind in enumerate(binds):
        made += _show(f"{_STAGE}/bind{number}", bind.target, writable=bind.writable)
    for number, (path, (_, mode)) in enumerate(overlays.items()):
        if mode & stat.S_IXUSR and os.path.isfile(path):
            _keep_within_reach(path)
        made += _show(f"{_STAGE}/overlay{number}", path, writable=False)
    return tuple(made)


def _keep_within_reach(path: str) -> None:
    """Show a program that is about to be covered below COVERED, for its stand-in to hand on to."""
    place = COVERED + path
    for end in (at for at in range(len(COVERED), len(place)) if place[at] == "/"):
        if not os.path.isdir(place[:end]):
            _make(place[:end], directory=True)
    _make(place, directory=False)
    mount(os.path.realpath(path), place, flags=BIND)
    _protect(place)


def _without_devices(root: str) -> None:
    """Make device nodes in the tree useless, as a script may make any: the host's disks are one mknod away.

    noexec and nosuid of the file system that the root lies on are lifted, for this namespace only.
    """
    kept = os.statvfs(root).f_flag & READ_ONLY
    mount("none", root, flags=BIND | REMOUNT | NO_DEVICES | kept)


def _prepare_stage(stage: str, binds: Sequence[Bind], overlays: Mapping[str, tuple[bytes, int]]) -> None:
    """Gather on a temporary file system what must be taken from the host while it can still be seen."""
    mount("tmpfs", stage, "tmpfs", NO_SETUID, "mode=0700,size=64m")
    for name, (major, minor) in {**_NODES, "console": (1, 3)}.items():
        _stage_node(stage, name, os.makedev(major, minor))
    os.mkdir(f"{stage}/proc")
    mount("/proc", f"{stage}/proc", flags=BIND | RECURSIVE)
    for number, bind in enumerate(binds):
        _stage_bind(bind, f"{stage}/bind{number}")
    for number, (content, mode) in enumerate(overlays.values()):
        path = f"{stage}/overlay{number}"
        with open(path, "wb") as file:
            file.write(content)
        os.chmod(path, mode)


def _stage_node(stage: str, name: str, device: int) -> None:
    """Make a device node; where that is not allowed, borrow the host's, read-only so that chmod fails."""
    path = f"{stage}/{name}"
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, device)
    except PermissionError:
        _make(path, directory=False)
        mount(f"/dev/{'null' if name == 'console' else name}", path, flags=BIND)
        _protect(path)


def _stage_bind(bind: Bind, path: str) -> None:
    try:
        directory = stat.S_ISDIR(os.stat(bind.source).st_mode)
    except OSError as error:
        why = f"cannot be shown in the sandbox: {error.strerror}"
        raise HostError(bind.source, why, "give a --bind whose source exists") from error
    _make(path, directory=directory)
    mount(bind.source, path, flags=BIND | (RECURSIVE if bind.writable else 0))


def _mount_sys(target: str) -> None:
    """Mount a sysfs that shows the sandbox's own network, read-only; else the host's; else nothing."""
    quiet = READ_ONLY | NO_SETUID | NO_DEVICES | NO_EXECUTE
    try:
        mount("sysfs", target, "sysfs", quiet)
    except OSError:
        try:
            mount("/sys", target, flags=BIND | RECURSIVE)
            _protect(target)
        except OSError:
            mount("tmpfs", target, "tmpfs", quiet, "mode=0555,size=4k")


def _mount_memory() -> None:
    """Mount /run and /tmp, with the directories (not the files) that the root's own /run has."""
    directories = _directories("/run")
    mount("tmpfs", "/run", "tmpfs", NO_SETUID | NO_DEVICES, "mode=0755,size=20%")
    for path, found in directories:
        os.mkdir(path)
        os.chown(path, found.st_uid, found.st_gid)
        os.chmod(path, stat.S_IMODE(found.st_mode))
    if not os.path.isdir("/run/lock"):
        os.mkdir("/run/lock", 0o1777)
    mount("tmpfs", "/tmp", "tmpfs", NO_SETUID | NO_DEVICES, "mode=1777,size=50%")


def _directories(top: str, most: int = 1000) -> list[tuple[str, os.stat_result]]:
    """List the directories below `top`, parents first, without following links; at most `most` of them."""
    found: list[tuple[str, os.stat_result]] = []
    for parent, names, _files in os.walk(top):
        for name in sorted(names):
            path = os.path.join(parent, name)
            status = os.lstat(path)
            if stat.S_ISDIR(status.st_mode) and len(found) < most:
                found.append((path, status))
    return found


def _furnish_dev() -> None:
    """Mount a /dev with the usual nodes, each bound on its own: on the file system itself no node works."""
    mount("tmpfs", "/dev", "tmpfs", NO_SETUID | NO_DEVICES, "mode=0755,size=4m,nr_inodes=4096")
    for name in (*_NODES, "console"):
        _make(f"/dev/{name}", directory=False)
        mount(f"{_STAGE}/{name}", f"/dev/{name}", flags=BIND)
    for name, target in _LINKS.items():
        os.symlink(target, f"/dev/{name}")
    os.mkdir("/dev/pts", 0o755)
    _mount_terminals()
    os.mkdir(_LATER, 0o1777)
    mount("tmpfs", _LATER, "tmpfs", NO_SETUID | NO_DEVICES, "mode=1777,size=25%")


def _mount_terminals() -> None:
    options = "newinstance,ptmxmode=0666,mode=0620"
    try:
        mount("devpts", "/dev/pts", "devpts", NO_SETUID | NO_EXECUTE, f"{options},gid=5")
    except OSError:
        # The group `tty` is not mapped in this user namespace.
        mount("devpts", "/dev/pts", "devpts", NO_SETUID | NO_EXECUTE, options)


def mount_proc() -> None:
    """Mount /proc for the pid namespace of this process, its first, and clear the stage away.

    A container that shows only part of its own /proc may not mount a whole one: then that one is bound.
    """
    mount(_STAGE, _LATER, flags=MOVE)
    try:
        mount("proc", "/proc", "proc", NO_SETUID | NO_DEVICES | NO_EXECUTE)
    except PermissionError:
        mount(f"{_LATER}/proc", "/proc", flags=BIND | RECURSIVE)
    unmount(_LATER)
    for name in _PROC_READ_ONLY:
        if os.path.exists(f"/proc/{name}"):
            mount(f"/proc/{name}", f"/proc/{name}", flags=BIND | RECURSIVE)
            _protect(f"/proc/{name}")
    for name in _PROC_HIDDEN:
        if os.path.exists(f"/proc/{name}"):
            mount("/dev/null", f"/proc/{name}", flags=BIND)


def _protect(path: str) -> None:
    """Make the bind mount at `path` read-only and keep its other restrictions."""
    kept = os.statvfs(path).f_flag & (NO_SETUID | NO_DEVICES | NO_EXECUTE)
    mount("none", path, flags=BIND | REMOUNT | READ_ONLY | kept)


def _show(source: str, path: str, *, writable: bool) -> list[Placeholder]:
    """Bind `source` over `path`, links followed inside the root, and return what had to be made for it."""
    target = os.path.realpath(path)
    made = [] if os.path.exists(target) else _place(target, directory=os.path.isdir(source))
    mount(source, target, flags=BIND | RECURSIVE)
    if not writable:
        _protect(target)
    return made


def _place(target: str, *, directory: bool) -> list[Placeholder]:
    """Make a mount point and the directories that lead to it."""
    parent, name = os.path.split(target)
    made = [] if os.path.isdir(parent) else _place(parent, directory=True)
    descriptor = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    before = os.stat(descriptor)
    _make(target, directory=directory)
    status = os.lstat(target)
    made.append(
        Placeholder(
            descriptor,
            name,
            (status.st_dev, status.st_ino),
            (before.st_atime_ns, before.st_mtime_ns),
            os.stat(descriptor).st_mtime_ns,
        )
    )
    return made


def _make(path: str, *, directory: bool) -> None:
    if directory:
        os.mkdir(path, 0o755)
    else:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644))


def remove(made: Sequence[Placeholder]) -> None:
    """Remove what `enter` made, unless someone has put something of their own in its place.

    The directory's times are put back if nothing else has changed in it. Nothing else may run in the sandbox
    any more: all its mounts are detached first, as what is mounted on cannot be removed.
    """
    if made:
        unmount("/")
    for placeholder in reversed(made):
        try:
            _remove(placeholder)
        except OSError:
            continue  # it has been replaced or filled: then it is no longer ours
        finally:
            os.close(placeholder.parent)


def _remove(placeholder: Placeholder) -> None:
    parent, name = placeholder.parent, placeholder.name
    status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    if (status.st_dev, status.st_ino) != placeholder.identity:
        return
    untouched = os.stat(parent).st_mtime_ns == placeholder.touched
    if stat.S_ISDIR(status.st_mode):
        os.rmdir(name, dir_fd=parent)
    elif status.st_size == 0:
        os.unlink(name, dir_fd=parent)
    if untouched:
        os.utime(parent, ns=placeholder.times)
