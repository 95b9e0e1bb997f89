"""What making a root leaves behind, whatever its format, and an image must not carry: each case with its reason."""

from __future__ import annotations

import fnmatch
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rootfsbuild.rootfs.inside import Inside

_DAY = 86400

Accident = tuple[str, str, str]
"""(directory, pattern of names in it, why they go)."""

ACCIDENTS: tuple[Accident, ...] = (
    ("/var/log", "fontconfig.log", "tells when the image was built"),
    ("/var/cache/ldconfig", "aux-cache", "holds inode numbers and times; ldconfig makes it again"),
    ("/var/lib/dbus", "machine-id", "must differ on every machine"),
    ("/var/lib/systemd", "random-seed", "must differ on every machine"),
    ("/var/lib/systemd", "credential.secret", "must differ on every machine"),
    ("/etc/ssh", "ssh_host_*", "a private key in an image is no secret; `ssh-keygen -A` makes them at first boot"),
)

_SHADOW_DAY = re.compile(rb"^([^:\n]*:[^:\n]*:)(\d+)(?=:)", re.MULTILINE)


def remove_accidents(root: Inside, more: Iterable[Accident], epoch: int) -> None:
    """Remove accidents of a build, those of every root and `more`, and take times and identities out of the rest.

    `epoch` is the build's time in seconds: no password was changed after it.
    """
    for directory, pattern, _ in (*ACCIDENTS, *more):
        for name in fnmatch.filter(root.names(directory), pattern):
            root.remove(f"{directory}/{name}")
    # machine-id(5): an empty file is initialised at boot; an image that never had one gets none.
    if root.exists("/etc/machine-id"):
        root.write("/etc/machine-id", b"")
    for name in ("/etc/shadow", "/etc/shadow-"):
        _set_shadow_day(root, name, epoch // _DAY)


def _set_shadow_day(root: Inside, path: str, day: int) -> None:
    status = root.status(path)
    data = root.read(path)
    if status is None or data is None:
        return

    def clamp(match: re.Match[bytes]) -> bytes:
        return match[1] + str(min(int(match[2]), day)).encode()

    root.write(path, _SHADOW_DAY.sub(clamp, data), status.st_mode & 0o7777)
