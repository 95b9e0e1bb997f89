"""What apt finds when it is first run in the image: as if it had installed the packages itself."""

from __future__ import annotations

import os

from rootfsbuild.plan import Plan
from rootfsbuild.rootfs.inside import Inside

_LOCKS = ("/var/cache/apt/archives/lock", "/var/lib/apt/lists/lock")
_PARTIAL = ("/var/cache/apt/archives/partial", "/var/lib/apt/lists/partial")
_USER = b"_apt"

# apt writes extended_states in the order of its cache's hash table: djb2 over the lower-cased name, this many buckets.
_BUCKETS = 196613


def write_apt_state(root: Inside, plan: Plan) -> None:
    """Write the auto-installed marks (apt-mark(8)), and the locks and private directories that apt makes."""
    if not any(package.name == "apt" for package in plan.packages):
        return
    automatic = sorted((package.name for package in plan.packages if package.automatic), key=_bucket)
    marks = "".join(f"Package: {name}\nArchitecture: {plan.architecture}\nAuto-Installed: 1\n\n" for name in automatic)
    if marks:
        root.write("/var/lib/apt/extended_states", marks.encode())
    for path in _LOCKS:
        root.write(path, b"", 0o640)
    owner = _find_uid(root)
    for path in _PARTIAL:
        root.make_directory(path)
        with root.parent(path) as (directory, name):
            os.chown(name, owner, 0, dir_fd=directory, follow_symlinks=False)
            os.chmod(name, 0o700, dir_fd=directory)


def _bucket(name: str) -> tuple[int, str]:
    value = 5381
    for character in name.lower().encode():
        value = (33 * value + character) & 0xFFFFFFFF
    return value % _BUCKETS, name


def _find_uid(root: Inside) -> int:
    """Return the uid of apt's download user in the root, 0 if it has none."""
    for line in (root.read("/etc/passwd") or b"").splitlines():
        fields = line.split(b":")
        if fields[0] == _USER and len(fields) > 2 and fields[2].isdigit():
            return int(fields[2])
    return 0
