"""Open what lies beneath a directory, and nothing that a link or a mount leads to (openat2(2))."""

from __future__ import annotations

import ctypes
import errno
import os

from rootfsbuild.errors import HostError

_OPENAT2 = 437  # the same on every architecture: include/uapi/asm-generic/unistd.h
_RESOLVE = 0x01 | 0x02 | 0x04 | 0x08  # NO_XDEV, NO_MAGICLINKS, NO_SYMLINKS, BENEATH
_libc = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_beneath(directory: int, path: bytes, flags: int) -> int:
    """Open `path` beneath the directory descriptor.

    Raises OSError: EXDEV at a mount (a bind mount of the same file system included) or at a way out, ELOOP
    at a symlink. Raises HostError where the kernel has no openat2 (before Linux 5.6) or a filter forbids it.
    """
    how = _OpenHow(flags | os.O_CLOEXEC, 0, _RESOLVE)
    fd = _libc.syscall(_OPENAT2, directory, path, ctypes.byref(how), ctypes.sizeof(how))
    if fd >= 0:
        return int(fd)
    code = ctypes.get_errno()
    if code == errno.ENOSYS:
        raise HostError(
            "openat2(2)",
            "the kernel or the container's filter lacks it, and without it no mount can be told from a tree",
            hint="use Linux 5.6 or later, and a container runtime whose seccomp profile allows openat2",
        )
    raise OSError(code, os.strerror(code), path)
