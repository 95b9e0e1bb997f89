"""Real builds for tests: recipes written on the spot, run through the command line as a user would."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass

import pytest

from rootfsbuild.distro import find_release, load_distro
from rootfsbuild.errors import HostError
from rootfsbuild.repository.mirrors import find_mirrors
from rootfsbuild.rootfs.sandbox import check_host


def need_root():
    try:
        check_host()
    except HostError as error:
        pytest.skip(f"building a root needs privileges: {error}")


def mirror_at_hand(archive="debian", release="bookworm"):
    """The host's own mirror of an archive, or a skip: tests do not lean on public mirrors."""
    found = next(item for item in find_release(load_distro("debian"), release).archives if item.name == archive)
    mirrors = find_mirrors(archive, (), distro="debian", suites=found.suites, overrides={}, environ=os.environ)
    if not mirrors:
        pytest.skip(f"no mirror of {archive} is set up on this host")
    return mirrors[0].url


ELSEWHERE = {
    "TZ": "Pacific/Kiritimati",
    "LANG": "tr_TR.UTF-8",
    "LC_ALL": "tr_TR.UTF-8",
    "HOSTNAME": "elsewhere",
    "USER": "somebody",
    "TERM": "vt52",
    "PYTHONHASHSEED": "4711",
    "DPKG_COLORS": "always",
    "DEB_BUILD_OPTIONS": "nocheck",
}


@dataclass(frozen=True)
class Ran:
    status: int
    out: str
    err: str


def rootfsbuild(*words, cwd=None, timeout=900, **variables):
    """Run the program; returns its status and output."""
    done = subprocess.run(
        [sys.executable, "-m", "rootfsbuild", *map(str, words)],
        cwd=cwd,
        env={**os.environ, **{name: str(value) for name, value in variables.items()}},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=timeout,
        check=False,
    )
    return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())


def rootfsbuild_elsewhere(*words, timeout=900, **variables):
    """Run the program as another user of another machine would: other language, clock's zone, name, umask, one core."""
    renamed = ["unshare", "--uts", "sh", "-c", 'hostname elsewhere; exec "$@"', "sh"]

    def settle():
        os.umask(0o077)
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

    done = subprocess.run(
        [*(renamed if shutil.which("unshare") else []), sys.executable, "-m", "rootfsbuild", *map(str, words)],
        env={**os.environ, **ELSEWHERE, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **variables},
        cwd="/",
        preexec_fn=settle,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=timeout,
        check=False,
    )
    return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def one_suite_recipe(path, release, mirror, *, include=(), variant="required", extra=""):
    """A recipe for exactly what a plain mmdebstrap call names: one suite, main only, the mirror in sources.list."""
    names = ", ".join(f'"{name}"' for name in include)
    suffix = "" if release == "sid" else '\n[[archive]]\nname = "debian-security"\nenabled = false\n'
    path.write_text(
        f"""distro = "debian"
release = "{release}"

[packages]
variant = "{variant}"
include = [{names}]

[apt]
sources = {{ debian = "{mirror}" }}

[[archive]]
name = "debian"
suites = ["{release}"]
{suffix}{extra}"""
    )
    return path
