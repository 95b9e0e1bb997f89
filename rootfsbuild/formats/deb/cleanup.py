"""What installing packages leaves behind and an image must not carry: each case once, with its reason."""

from __future__ import annotations

import fnmatch
import re
import stat

from rootfsbuild.formats.deb.aptstate import write_apt_state
from rootfsbuild.plan import Plan
from rootfsbuild.rootfs.inside import Inside

_DAY = 86400

# (directory, pattern of names, why)
_REMOVED = (
    ("/var/log", "dpkg.log", "tells when and in which order the image was built"),
    ("/var/log", "alternatives.log", "tells when the image was built"),
    ("/var/log", "bootstrap.log", "tells when the image was built"),
    ("/var/log", "fontconfig.log", "tells when the image was built"),
    ("/var/log/apt", "*", "tells when the image was built"),
    ("/var/cache/ldconfig", "aux-cache", "holds inode numbers and times; ldconfig makes it again"),
    ("/var/cache/apt", "*.bin", "apt makes its caches again"),
    ("/var/cache/apt/archives", "*.deb", "packages are in the store, not in the image"),
    ("/var/lib/dbus", "machine-id", "must differ on every machine"),
    ("/var/lib/systemd", "random-seed", "must differ on every machine"),
    ("/var/lib/systemd", "credential.secret", "must differ on every machine"),
    (
        "/etc/ssh",
        "ssh_host_*",
        "a private key in an image is no secret; `ssh-keygen -A` makes them at first boot",
    ),
    ("/etc/ssl/private", "ssl-cert-snakeoil.key", "a private key in an image is no secret"),
    ("/etc/ssl/certs", "ssl-cert-snakeoil.pem", "belongs to the key above"),
    ("/usr/sbin", "policy-rc.d", "stood there for the scripts of the build only"),
    ("/var/lib/dpkg/tmp.ci", "*", "dpkg's room for a package that is being installed"),
)

# Empty directories that merged /usr prepares for libraries of another word size.
_EMPTY_LINKS = ("lib32", "libx32", "libo32", "lib64")

_SHADOW_DAY = re.compile(rb"^([^:\n]*:[^:\n]*:)(\d+)(?=:)", re.MULTILINE)


def clean(root: Inside, plan: Plan) -> None:
    """Remove accidents of the build, set the day of password changes to the plan's own and leave apt's state."""
    for directory, pattern, _ in _REMOVED:
        for name in fnmatch.filter(root.names(directory), pattern):
            root.remove(f"{directory}/{name}")
    root.remove_directory("/var/lib/dpkg/tmp.ci")
    for name in _EMPTY_LINKS:
        _remove_empty_link(root, name)
    # machine-id(5): an empty file is initialised at boot; an image that never had one gets none.
    if root.exists("/etc/machine-id"):
        root.write("/etc/machine-id", b"")
    for name in ("/etc/shadow", "/etc/shadow-"):
        _set_shadow_day(root, name, plan.epoch // _DAY)
    write_apt_state(root, plan)


def _remove_empty_link(root: Inside, name: str) -> None:
    status = root.status(f"/{name}")
    if status is not None and stat.S_ISLNK(status.st_mode) and not root.names(f"/usr/{name}"):
        root.remove(f"/{name}")
        root.remove_directory(f"/usr/{name}")


def _set_shadow_day(root: Inside, path: str, day: int) -> None:
    status = root.status(path)
    data = root.read(path)
    if status is None or data is None:
        return

    def clamp(match: re.Match[bytes]) -> bytes:
        return match[1] + str(min(int(match[2]), day)).encode()

    root.write(path, _SHADOW_DAY.sub(clamp, data), status.st_mode & 0o7777)
