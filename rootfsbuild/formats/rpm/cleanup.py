"""What installing .rpms leaves behind and an image must not carry: each case once, with its reason."""

from __future__ import annotations

from rootfsbuild.plan import Plan
from rootfsbuild.rootfs.accidents import remove_accidents
from rootfsbuild.rootfs.inside import Inside

_ACCIDENTS = (
    ("/var/log", "dnf*.log", "tells when the image was built"),
    ("/var/log", "hawkey.log", "tells when the image was built"),
    ("/var/log", "yum.log", "tells when the image was built"),
    ("/var/lib/rpm", "__db.*", "belongs to programs that had the database open"),
    ("/var/lib/rpm", ".rpm.lock", "belongs to programs that had the database open"),
    ("/usr/lib/sysimage/rpm", ".rpm.lock", "belongs to programs that had the database open"),
    ("/etc", "passwd-", "is what shadow's tools kept of the file before the last change"),
    ("/etc", "group-", "the same"),
    ("/etc", "shadow-", "the same"),
    ("/etc", "gshadow-", "the same"),
    ("/etc", ".pwd.lock", "belongs to programs that had the files open"),
)


def clean(root: Inside, plan: Plan) -> None:
    """Remove accidents of the build, and set the day of password changes to the plan's own."""
    remove_accidents(root, _ACCIDENTS, plan.epoch)
