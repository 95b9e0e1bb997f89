"""What stands in a root before the first package: directories, links into /usr, devices, an empty database."""

from __future__ import annotations

from rootfsbuild.formats.deb.database import create_database
from rootfsbuild.formats.deb.sourcelist import SOURCE_LIST
from rootfsbuild.formats.format import Image
from rootfsbuild.rootfs.devices import make_devices
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
        make_devices(inside)


def _write_settings(inside: Inside, image: Image) -> None:
    if image.hostname:
        inside.write("/etc/hostname", f"{image.hostname}\n".encode())
    # dpkg(1): the last rule that matches decides, so what is kept is written after what is left out.
    rules = [f"path-exclude={pattern}\n" for pattern in image.path_exclude]
    rules += [f"path-include={pattern}\n" for pattern in image.path_keep]
    if rules:
        inside.write("/etc/dpkg/dpkg.cfg.d/rootfsbuild-paths", "".join(rules).encode())
