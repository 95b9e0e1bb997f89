"""Delete a tree without ever reaching through a mount or a link into somebody's data."""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from rootfsbuild.errors import StorageError, TargetError
from rootfsbuild.rootfs.openat2 import open_beneath

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_DEEPEST = 64
"""Levels that are held open at once; what lies deeper is brought up first, so that descriptors never run
out."""


def remove_tree(path: str) -> None:
    """Delete the directory or file `path` and all below it; one that does not exist is no error.

    Raises TargetError, before anything is deleted if the mount is known to this process, when a mount lies
    at or below `path`; StorageError when the file system refuses.
    """
    parent, name = os.path.split(os.path.abspath(path))
    if not name:
        raise TargetError(path, "the root of the file system is never deleted")
    inside = mounts_below(os.path.join(os.path.realpath(parent), name))
    if inside:
        raise _mounted(path, inside[0])
    try:
        directory = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        with contextlib.suppress(FileNotFoundError):
            _remove(directory, os.fsencode(name))
    except OSError as error:
        if error.errno in {errno.EXDEV, errno.EBUSY}:
            raise _mounted(path, os.fsdecode(error.filename or name)) from None
        raise StorageError(path, f"cannot be deleted: {error.strerror}") from error
    finally:
        os.close(directory)


def mounts_below(path: str) -> list[str]:
    """Return this process's mount points at or below an absolute path free of symlinks (proc(5))."""
    try:
        with open("/proc/self/mountinfo", "rb") as lines:
            fields = [line.split(b" ", 5)[4] for line in lines]
    except OSError:
        return []
    prefix = os.fsencode(path)
    points = [field.replace(b"\\040", b" ").replace(b"\\011", b"\t").replace(b"\\012", b"\n") for field in fields]
    points = [point.replace(b"\\134", b"\\") for point in points]
    return [os.fsdecode(point) for point in points if point == prefix or point.startswith(prefix + b"/")]


def _mounted(path: str, point: str) -> TargetError:
    return TargetError(path, f"not deleted: {point} in it is a mount", hint=f"unmount it: umount {point}")


def _remove(directory: int, name: bytes) -> None:
    if not stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
        os.unlink(name, dir_fd=directory)
        return
    top = _open(directory, name)
    try:
        lifted = 1
        while lifted:
            lifted = _empty(top, top, 0)
    finally:
        os.close(top)
    os.rmdir(name, dir_fd=directory)


def _empty(directory: int, top: int, depth: int) -> int:
    """Delete what a directory holds; return how many trees were too deep and now lie in `top`."""
    lifted = 0
    with os.scandir(directory) as found:
        entries = [(os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in found]
    for name, is_directory in entries:
        if not is_directory:
            os.unlink(name, dir_fd=directory)
        elif depth >= _DEEPEST:
            os.rename(name, _free_name(top), src_dir_fd=directory, dst_dir_fd=top)
            lifted += 1
        else:
            child = _open(directory, name)
            try:
                lifted += _empty(child, top, depth + 1)
            finally:
                os.close(child)
            os.rmdir(name, dir_fd=directory)
    return lifted


def _free_name(top: int) -> bytes:
    number = 0
    while True:
        name = b".lifted-%d" % number
        try:
            os.stat(name, dir_fd=top, follow_symlinks=False)
        except FileNotFoundError:
            return name
        number += 1


def _open(directory: int, name: bytes) -> int:
    try:
        return open_beneath(directory, name, _DIRECTORY)
    except PermissionError:
        # A directory of ours without the permission to list it, as packages may ship.
        os.chmod(name, 0o700, dir_fd=directory)
        return open_beneath(directory, name, _DIRECTORY)
