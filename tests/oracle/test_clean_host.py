"""The program builds Debian on a machine that has Python and nothing of Debian's tools."""

from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution

import pytest
from making.builds import mirror_at_hand, need_root, rootfsbuild

from rootfsbuild.inspection.dump import dump_tree

pytestmark = [pytest.mark.oracle, pytest.mark.slow, pytest.mark.xdist_group("clean-host")]

CHECKOUT = pathlib.Path(__file__).parents[2]
PYTHON = (3, 11)  # bookworm's, for which the compiled dependencies copied into the root have to be made
HOST = """distro = "debian"
release = "bookworm"
[packages]
include = ["python3", "python3-venv", "ca-certificates"]
"""
# Everything of Debian's that could help: programs, their libraries and data, and the marks of the distribution.
TOOLS = """
rm -rf /usr/bin/dpkg* /usr/bin/apt* /usr/sbin/dpkg* /usr/lib/dpkg /usr/lib/apt /usr/share/dpkg /usr/share/keyrings
rm -rf /etc/apt /etc/dpkg /var/lib/dpkg /var/lib/apt /usr/lib/*/libapt-* /etc/debian_version
printf 'ID=other\\nNAME=Other\\n' > /usr/lib/os-release
! command -v dpkg && ! command -v apt-get && ! command -v debootstrap
"""
# A test needs the sandbox's `privileged`, which the command line does not offer.
IN_ROOT = """
import json, sys
from rootfsbuild.rootfs.chroot import parse_bind, run_in_root
root, binds, argv = json.loads(sys.argv[1])
sys.exit(run_in_root(root, argv, binds=[parse_bind(b) for b in binds], network=True, privileged=True))
"""


@pytest.fixture(scope="module")
def other_machine(tmp_path_factory, store):
    """A root with Python and no tools of Debian's."""
    need_root()
    if sys.version_info[:2] != PYTHON:
        pytest.skip("bookworm's Python is 3.11, and the dependencies at hand are made for another")
    folder = tmp_path_factory.mktemp("clean")
    (folder / "host.toml").write_text(HOST)
    root = folder / "host"
    built = rootfsbuild(folder / "host.toml", "-o", root, "--cache-dir", store)
    assert built.status == 0, built.err
    done = rootfsbuild("run", root, "--", "sh", "-e", "-c", TOOLS)
    assert done.status == 0, done.out + done.err
    copy_dependencies(root / "opt/packages")
    return root


def copy_dependencies(target):
    """Copy what pyproject.toml declares, and what that needs in turn, as pip would install it; nothing else."""
    wanted = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["dependencies"]
    done = set()
    while wanted:
        line = wanted.pop()
        name = re.match(r"[A-Za-z0-9._-]+", line)[0]
        if name in done or "extra ==" in line:
            continue
        done.add(name)
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue  # for another Python or system than this one
        wanted += found.requires or []
        for file in found.files or ():
            if ".." not in file.parts:
                (target / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file.locate(), target / file)


def in_root(root, *argv):
    """Run a command in a root from which builds can be made."""
    binds = [f"{CHECKOUT}:/opt/checkout:ro"]
    proxies = [f"{name}={value}" for name, value in os.environ.items() if name.lower().endswith("_proxy")]
    command = ["env", *proxies, "PYTHONPATH=/opt/checkout:/opt/packages", *map(str, argv)]
    return subprocess.run(
        [sys.executable, "-c", IN_ROOT, json.dumps([str(root), binds, command])],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=CHECKOUT,
        check=False,
    )


def test_builds_without_any_tool_of_debian(other_machine, store, tmp_path):
    mirrors = {name: mirror_at_hand(name) for name in ("debian", "debian-security")}
    if any(not url.startswith("http") for url in mirrors.values()):
        pytest.skip("the mirror at hand is a folder of this machine")
    words = [word for name, url in mirrors.items() for word in ("--mirror", f"{name}={url}")]
    recipe = "/opt/checkout/recipes/debian12.toml"
    done = in_root(other_machine, "python3", "-m", "rootfsbuild", recipe, "-o", "/srv/debian12", *words)
    assert done.returncode == 0, done.stdout.decode()
    # The same as on this machine, to the second.
    here = rootfsbuild(CHECKOUT / "recipes/debian12.toml", "-o", tmp_path / "here", "--cache-dir", store, *words)
    assert here.status == 0, here.err
    there = dump_tree(str(other_machine / "srv/debian12"), times=True)
    assert there == dump_tree(str(tmp_path / "here"), times=True)
    assert in_root(other_machine, "chroot", "/srv/debian12", "bash", "-c", "apt-get --version").returncode == 0


def test_without_a_privilege_it_says_what_is_missing(other_machine):
    """In the sandbox of `rootfsbuild run` there is no CAP_SYS_ADMIN: planning works, building says why it cannot."""
    binds = ["--bind", f"{CHECKOUT}:/opt/checkout:ro"]
    program = ["env", "PYTHONPATH=/opt/checkout:/opt/packages", "python3", "-m", "rootfsbuild"]
    done = rootfsbuild(
        "run", other_machine, *binds, "--", *program, "/opt/checkout/recipes/debian12.toml", "-o", "/srv/no"
    )
    assert done.status == 7, done.out + done.err
    assert "CAP_SYS_ADMIN" in done.err
