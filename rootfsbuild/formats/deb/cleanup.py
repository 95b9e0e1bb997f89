"""What installing .debs leaves behind and an image must not carry: each case once, with its reason."""

from __future__ import annotations

import stat

from rootfsbuild.formats.deb.aptstate import write_apt_state
from rootfsbuild.plan import Plan
from rootfsbuild.rootfs.accidents import remove_accidents
from rootfsbuild.rootfs.inside import Inside

_ACCIDENTS = (
    ("/var/log", "dpkg.log", "tells when and in which order the image was built"),
    ("/var/log", "alternatives.log", "tells when the image was built"),
    ("/var/log", "bootstrap.log", "tells when the image was built"),
    ("/var/log/apt", "*", "tells when the image was built"),
    ("/var/cache/apt", "*.bin", "apt makes its caches again"),
    ("/var/cache/apt/archives", "*.deb", "packages are in the store, not in the image"),
    ("/etc/ssl/private", "ssl-cert-snakeoil.key", "a private key in an image is no secret"),
    ("/etc/ssl/certs", "ssl-cert-snakeoil.pem", "belongs to the key above"),
    ("/usr/sbin", "policy-rc.d", "stood there for the scripts of the build only"),
    ("/var/lib/dpkg/tmp.ci", "*", "dpkg's room for a package that is being installed"),
)

# Empty directories that merged /usr prepares for libraries of another word size.
_EMPTY_LINKS = ("lib32", "libx32", "libo32", "lib64")


def clean(root: Inside, plan: Plan) -> None:
    """Remove accidents of the build, set the day of password changes to the plan's own and leave apt's state."""
    remove_accidents(root, _ACCIDENTS, plan.epoch)
    root.remove_directory("/var/lib/dpkg/tmp.ci")
    for name in _EMPTY_LINKS:
        _remove_empty_link(root, name)
    write_apt_state(root, plan)


def _remove_empty_link(root: Inside, name: str) -> None:
    status = root.status(f"/{name}")
    if status is not None and stat.S_ISLNK(status.st_mode) and not root.names(f"/usr/{name}"):
        root.remove(f"/{name}")
        root.remove_directory(f"/usr/{name}")
