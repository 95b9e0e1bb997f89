"""Maintainer scripts, run as dpkg runs them (Debian Policy 6.5, deb-preinst(5), dpkg(1) ENVIRONMENT)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rootfsbuild.errors import ScriptError
from rootfsbuild.formats.deb.database import ADMIN, Unpacked
from rootfsbuild.rootfs.inside import Inside
from rootfsbuild.rootfs.runner import Run

_TAIL_LINES = 20
_HINT = "run again with --keep to look at the half-made root, or with --debug-shell for a shell in it"
_TEMPORARY = f"{ADMIN}/tmp.ci"
_DPKG_FAILED = re.compile(r"^dpkg: error processing package (\S+) \(--configure\):")
_SCRIPT_FAILED = re.compile(
    r"package (?P<script>\S+)-installation script subprocess"
    r" (?:returned error exit status (?P<status>\d+)|was killed by signal \([^)]*\)(?:, core dumped)?)"
)


def script_environment(epoch: int) -> dict[str, str]:
    """Return the whole environment of scripts: what mmdebstrap sets, the build's time, nothing of the host."""
    return {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "TERM": "dumb",
        "LC_ALL": "C.UTF-8",
        "LANG": "C.UTF-8",
        "LANGUAGE": "C.UTF-8",
        "DEBIAN_FRONTEND": "noninteractive",
        "DEBCONF_NONINTERACTIVE_SEEN": "true",
        "SOURCE_DATE_EPOCH": str(epoch),
    }


def run_preinsts(root: Inside, packages: Sequence[Unpacked], run: Run, dpkg_version: str) -> None:
    """Run `preinst install` of each package that has one, from where dpkg would have put it.

    Raises ScriptError.
    """
    for package in packages:
        if "preinst" in package.members:
            _run_preinst(root, package, run, dpkg_version)


def _run_preinst(root: Inside, package: Unpacked, run: Run, dpkg_version: str) -> None:
    # debconf's frontend finds out whose script it serves from the control file beside a preinst.
    members = {"control": (package.fields, 0o644), **package.members}
    for name, (data, mode) in members.items():
        root.write(f"{_TEMPORARY}/{name}", data, mode | 0o644)
    done = run([f"{_TEMPORARY}/preinst", "install"], extra_env=_dpkg_environment(package, dpkg_version))
    for name in members:
        root.remove(f"{_TEMPORARY}/{name}")
    root.remove_directory(_TEMPORARY)
    if done.status:
        raise ScriptError(package.name, "preinst", done.status, done.lines[-_TAIL_LINES:], hint=_HINT)


def _dpkg_environment(package: Unpacked, dpkg_version: str) -> dict[str, str]:
    return {
        "DPKG_MAINTSCRIPT_PACKAGE": package.name,
        "DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT": "1",
        "DPKG_MAINTSCRIPT_ARCH": package.architecture,
        "DPKG_MAINTSCRIPT_NAME": "preinst",
        "DPKG_RUNNING_VERSION": dpkg_version,
        "DPKG_ADMINDIR": ADMIN,
        "DPKG_ROOT": "",
        "DPKG_FORCE": "security-mac,downgrade",
    }


def configure(run: Run) -> None:
    """Let the root's own dpkg configure everything that is unpacked.

    Raises ScriptError that names the first package whose script failed.
    """
    done = run(["dpkg", "--force-confold", "--configure", "-a"], extra_env={})
    if done.status:
        package, script, status = blame(done.lines)
        raise ScriptError(
            package,
            script or "dpkg --configure -a",
            done.status if status is None else status,
            done.lines[-_TAIL_LINES:],
            hint=_HINT,
        )


def blame(lines: Sequence[str]) -> tuple[str, str, int | None]:
    """Find in dpkg's output which package's script failed first: (package, script, exit status)."""
    first = current = ""
    for line in lines:
        if failed := _DPKG_FAILED.match(line):
            current = failed[1]
            first = first or current
        elif current and (how := _SCRIPT_FAILED.search(line)):
            return current, f"{how['script']}inst", int(how["status"]) if how["status"] else None
    return first, "", None
