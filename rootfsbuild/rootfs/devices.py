"""The device nodes that every root has (Linux's admin-guide/devices.txt, section "Compulsory")."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from rootfsbuild.errors import HostError

if TYPE_CHECKING:
    from rootfsbuild.rootfs.inside import Inside

_DEVICES = (
    ("console", 5, 1),
    ("full", 1, 7),
    ("null", 1, 3),
    ("ptmx", 5, 2),
    ("random", 1, 8),
    ("tty", 5, 0),
    ("urandom", 1, 9),
    ("zero", 1, 5),
)
_LINKS = ("fd", ""), ("stderr", "/2"), ("stdin", "/0"), ("stdout", "/1")


def make_devices(inside: Inside) -> None:
    """Make what a program expects in /dev before anything is mounted; raises HostError without mknod(2)."""
    inside.make_directory("/dev/pts")
    inside.make_directory("/dev/shm")
    for name, target in _LINKS:
        inside.link(f"/dev/{name}", f"/proc/self/fd{target}")
    for name, major, minor in _DEVICES:
        with inside.parent(f"/dev/{name}") as (directory, last):
            try:
                os.mknod(last, stat.S_IFCHR | 0o666, os.makedev(major, minor), dir_fd=directory)
            except PermissionError as error:
                raise HostError(
                    "mknod(2)",
                    "this process may not create device nodes",
                    "--dry-run, config and why need no privilege",
                    hint="run as root, with CAP_MKNOD",
                ) from error
            os.chmod(last, 0o666, dir_fd=directory)
