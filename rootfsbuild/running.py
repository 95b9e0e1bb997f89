"""A command in a finished root, with the host's own way to the root's archives when it may use the network."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence

from rootfsbuild.distro import Distro, distro_names, load_distro
from rootfsbuild.formats import FORMATS
from rootfsbuild.repository.mirrors import find_mirrors
from rootfsbuild.rootfs.chroot import run_in_root
from rootfsbuild.rootfs.inside import Inside, edit_root
from rootfsbuild.rootfs.mounts import Bind


def run(root: str, argv: Sequence[str], binds: Sequence[Bind], environ: Mapping[str, str], *, network: bool) -> int:
    """Run a command, a shell if none is given, in the sandbox that builds use; return its exit status.

    With `network` the root's package manager sees the mirrors that this host is set up with, as builds do, in place
    of the official ones that the image names; the image itself is not changed. Raises as `run_in_root` does.
    """
    overlays = _local_sources(root, environ) if network and os.path.isdir(root) else {}
    return run_in_root(root, argv, binds=binds, network=network, environment=environ, overlays=overlays)


def _local_sources(root: str, environ: Mapping[str, str]) -> Mapping[str, tuple[bytes, int]]:
    with edit_root(os.path.realpath(root)) as inside:
        name = _os_id(inside)
        if name not in distro_names():
            return {}
        distro = load_distro(name)
        return FORMATS[distro.format].localise_sources(inside, _local_urls(distro, environ))


def _os_id(inside: Inside) -> str:
    """Return ID of os-release(5), empty if there is none."""
    text = (inside.read("/etc/os-release") or inside.read("/usr/lib/os-release") or b"").decode("utf-8", "replace")
    found = re.search(r"^ID=[\"']?([a-z0-9._-]+)", text, re.MULTILINE)
    return found[1] if found else ""


def _local_urls(distro: Distro, environ: Mapping[str, str]) -> dict[str, str]:
    """Return official URL -> the URL that this host prefers to it, for all archives where there is one."""
    urls = {}
    for archive in (archive for release in distro.releases for archive in release.archives):
        for mirror in find_mirrors(
            archive.name, (), distro=distro.id, suites=archive.suites, overrides={}, environ=environ
        ):
            if mirror.url.startswith("http"):
                urls.update(dict.fromkeys(archive.mirrors, mirror.url))
                break
    return urls
