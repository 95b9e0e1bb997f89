"""A directory as a source of entries."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from rootfsbuild.rootfs.entries import Content, Entries, Entry, Kind
from rootfsbuild.rootfs.openat2 import open_beneath

if TYPE_CHECKING:
    from collections.abc import Iterator

_CHUNK = 1 << 20
_KINDS = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFCHR: Kind.CHARACTER,
    stat.S_IFBLK: Kind.BLOCK,
    stat.S_IFIFO: Kind.FIFO,
}
_XATTRS = ("security.capability", "system.posix_acl_", "user.")
"""What belongs to a tree; labels of a security module and overlayfs marks belong to the machine it lies
on."""


class FileContent:
    """The bytes of an open file, whose descriptor a sink may use instead of iterating."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        data = os.read(self.fd, _CHUNK)
        if not data:
            raise StopIteration
        return data


def read_tree(root: str | int) -> Entries:
    """Yield every file of a directory (a path or a descriptor), sorted name by name, the root first.

    The second and later names of an inode are HARDLINK entries. Sockets are left out, as tar(1) does; a
    mount point is an entry, what is mounted on it is not read. The tree must not change meanwhile. Raises
    OSError.
    """
    directory = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if isinstance(root, str) else os.dup(root)
    try:
        # Name by name, so that a directory's files follow it at once: `a`, `a/b`, `a.c`. tar(1) sets a
        # directory's time when it leaves it, and would otherwise come back.
        found = sorted(_walk(directory), key=lambda pair: pair[0].replace(b"/", b"\0"))
        first: dict[tuple[int, int], bytes] = {}
        for path, status in found:
            yield from _entry(directory, path, status, first)
    finally:
        os.close(directory)


def _walk(directory: int) -> Iterator[tuple[bytes, os.stat_result]]:
    yield b"", os.fstat(directory)
    pending = [b""]
    while pending:
        above = pending.pop()
        try:
            fd = open_beneath(directory, above or b".", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError as error:
            if error.errno == errno.EXDEV:
                continue
            raise
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    name = os.fsencode(entry.name)
                    path = above + b"/" + name if above else name
                    yield path, entry.stat(follow_symlinks=False)
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(path)
        finally:
            os.close(fd)


def _entry(
    directory: int, path: bytes, status: os.stat_result, first: dict[tuple[int, int], bytes]
) -> Iterator[tuple[Entry, Content]]:
    kind = _KINDS.get(stat.S_IFMT(status.st_mode))
    if kind is None:
        return
    target, device = b"", (0, 0)
    if kind is not Kind.DIRECTORY and status.st_nlink > 1:
        target = first.setdefault((status.st_dev, status.st_ino), path)
        kind = kind if target == path else Kind.HARDLINK
    if kind is Kind.SYMLINK:
        target = os.readlink(path, dir_fd=directory)
    elif kind is not Kind.HARDLINK:
        target = b""
    if kind in {Kind.CHARACTER, Kind.BLOCK}:
        device = (os.major(status.st_rdev), os.minor(status.st_rdev))
    entry = Entry(
        path,
        kind,
        stat.S_IMODE(status.st_mode),
        status.st_uid,
        status.st_gid,
        status.st_mtime_ns,
        status.st_size if kind is Kind.FILE else 0,
        target,
        device,
        _xattrs(directory, path) if kind in {Kind.FILE, Kind.DIRECTORY} else (),
    )
    if kind is not Kind.FILE or not entry.size:
        yield entry, iter(())
        return
    fd = open_beneath(directory, path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        yield entry, FileContent(fd)
    finally:
        os.close(fd)


def _xattrs(directory: int, path: bytes) -> tuple[tuple[str, bytes], ...]:
    where = b"/proc/self/fd/%d/%s" % (directory, path or b".")
    try:
        names = os.listxattr(where, follow_symlinks=False)
        wanted = sorted(name for name in names if name.startswith(_XATTRS))
        return tuple((name, os.getxattr(where, name, follow_symlinks=False)) for name in wanted)
    except OSError as error:
        if error.errno in {errno.ENOTSUP, errno.ENODATA}:
            return ()
        raise
