"""openat2(2): open by path within bounds that the kernel keeps, without a race."""

from __future__ import annotations

import ctypes
import errno
import os

from rootfsbuild.errors import HostError

_OPENAT2 = 437  # the same on every architecture: include/uapi/asm-generic/unistd.h
_NO_XDEV, _NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH, _IN_ROOT = 0x01, 0x02, 0x04, 0x08, 0x10
_libc = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_beneath(directory: int, path: bytes, flags: int) -> int:
    """Open what lies beneath a directory descriptor, and nothing that a link or a mount leads to.

    Raises OSError: EXDEV at a mount (a bind mount of the same file system included) or at a way out, ELOOP at a
    symlink. Raises HostError where the kernel has no openat2 (before Linux 5.6) or a filter forbids it.
    """
    return _open(directory, path, flags, 0, _NO_XDEV | _NO_MAGICLINKS | _NO_SYMLINKS | _BENEATH)


def open_inside(root: int, path: str | bytes, flags: int, mode: int = 0) -> int:
    """Open `path` as a process chrooted into the directory descriptor `root` would: links never lead out of it.

    Raises OSError, and HostError as `open_beneath` does.
    """
    raw = os.fsencode(path).lstrip(b"/") or b"."
    return _open(root, raw, flags, mode, _IN_ROOT | _NO_MAGICLINKS)


def _open(directory: int, path: bytes, flags: int, mode: int, resolve: int) -> int:
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    fd = _libc.syscall(_OPENAT2, directory, path, ctypes.byref(how), ctypes.sizeof(how))
    if fd >= 0:
        return int(fd)
    code = ctypes.get_errno()
    if code == errno.ENOSYS:
        raise HostError(
            "openat2(2)",
            "the kernel or the container's filter lacks it, and without it no root can be read or edited safely",
            hint="use Linux 5.6 or later, and a container runtime whose seccomp profile allows openat2",
        )
    raise OSError(code, os.strerror(code), os.fsdecode(path))
