"""What stands in a root before the first package: device nodes, and what a recipe says of the tree itself."""

from __future__ import annotations

from rootfsbuild.formats.format import Image
from rootfsbuild.formats.rpm.sourcelist import SOURCE_LIST
from rootfsbuild.rootfs.devices import make_devices
from rootfsbuild.rootfs.inside import edit_root


def prepare(root: str, image: Image) -> None:
    """Make an empty directory into a root that packages can be laid into; raises HostError without mknod(2)."""
    with edit_root(root) as inside:
        # Where the sandbox mounts its own: a script may run before any package has brought them.
        for directory, mode in (("/proc", 0o555), ("/sys", 0o555), ("/run", 0o755), ("/tmp", 0o1777)):
            inside.make_directory(directory, mode)
        make_devices(inside)
        if image.hostname:
            inside.write("/etc/hostname", f"{image.hostname}\n".encode())
        if image.sources:
            inside.write(SOURCE_LIST, image.sources.encode())
