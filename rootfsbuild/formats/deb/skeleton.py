"""What stands in a root before the first package: directories, links into /usr, devices, an empty database."""

from __future__ import annotations

import os
import stat

from rootfsbuild.errors import HostError
from rootfsbuild.formats.deb.database import create_database
from rootfsbuild.formats.deb.sourcelist import SOURCE_LIST
from rootfsbuild.formats.format import Image
from rootfsbuild.rootfs.inside import Inside, edit_root

_DIRECTORIES = (
    "/etc/apt/apt.conf.d",
    "/etc/apt/preferences.d",
    "/etc/apt/sources.list.d",
    "/etc/dpkg/dpkg.cfg.d",
    "/proc",
    "/sys",
    "/var/cache/apt/archives/partial",
    "/var/lib/apt/lists/partial",
    "/var/log/apt",
)

# Linux's admin-guide/devices.txt, section "Compulsory": what a program expects before anything is mounted.
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
_DEVICE_LINKS = ("fd", ""), ("stderr", "/2"), ("stdin", "/0"), ("stdout", "/1")


def prepare(root: str, image: Image) -> None:
    """Make an empty directory into a root that packages can be laid into; raises HostError without mknod(2)."""
    with edit_root(root) as inside:
        for name in image.usr_links:
            inside.make_directory(f"/usr/{name}")
            inside.link(f"/{name}", f"usr/{name}")
        for directory in _DIRECTORIES:
            inside.make_directory(directory)
        inside.make_directory("/run/lock", 0o1777)
        inside.make_directory("/tmp", 0o1777)
        create_database(inside, image.architecture)
        inside.write("/etc/fstab", b"# UNCONFIGURED FSTAB FOR BASE SYSTEM\n")
        inside.write(SOURCE_LIST, image.sources.encode())
        _write_settings(inside, image)
        _make_devices(inside)


def _write_settings(inside: Inside, image: Image) -> None:
    if image.hostname:
        inside.write("/etc/hostname", f"{image.hostname}\n".encode())
    # dpkg(1): the last rule that matches decides, so what is kept is written after what is left out.
    rules = [f"path-exclude={pattern}\n" for pattern in image.path_exclude]
    rules += [f"path-include={pattern}\n" for pattern in image.path_keep]
    if rules:
        inside.write("/etc/dpkg/dpkg.cfg.d/rootfsbuild-paths", "".join(rules).encode())


def _make_devices(inside: Inside) -> None:
    inside.make_directory("/dev/pts")
    inside.make_directory("/dev/shm")
    for name, target in _DEVICE_LINKS:
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
