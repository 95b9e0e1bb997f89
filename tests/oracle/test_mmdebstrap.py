"""Our root against the one that mmdebstrap makes from the same archive, path by path."""

from __future__ import annotations

import shutil
import subprocess
import time

import pytest
from making.builds import mirror_at_hand, need_root, one_suite_recipe, rootfsbuild

from rootfsbuild.inspection.dump import dump_tree

pytestmark = [pytest.mark.oracle, pytest.mark.slow]

# Each path that may differ, with the reason. Nothing else may.
ALLOWED = {
    "/etc/hostname": "mmdebstrap copies the host's; an image must not carry it",
    "/etc/resolv.conf": "mmdebstrap copies the host's; an image must not carry it",
    "/run/lock/subsys": "a script makes it; ours have a /run of their own, as every boot gives them",
    "/var/cache/apt/archives/partial": "the host's apt made theirs, with the host's number for its user _apt",
    "/var/lib/apt/lists/partial": "the same",
    "/var/lib/dpkg/diversions-old": "dpkg-divert's back-up of an earlier moment",
    "/var/lib/dpkg/status-old": "dpkg's back-up of an earlier moment; dpkg was called another number of times",
    "/var/cache/debconf/config.dat-old": "debconf's back-up of an earlier moment",
    "/var/cache/debconf/templates.dat-old": "debconf's back-up of an earlier moment",
}
# What telling mmdebstrap to accept a lapsed Valid-Until leaves in its root.
LAPSED = {"/etc/apt/apt.conf.d/99mmdebstrap"}
# mmdebstrap's hook prepares links for libraries of other word sizes that no package of the set fills.
EMPTY_LINKS = {"/lib32", "/libx32", "/usr/lib32", "/usr/libx32"}
# Private keys that openssh-server's postinst makes: random, and no secret in an image.
HOST_KEYS = {f"/etc/ssh/ssh_host_{kind}_key{suffix}" for kind in ("ecdsa", "ed25519", "rsa") for suffix in ("", ".pub")}

BIG = ("systemd", "openssh-server", "python3", "nginx")

# bullseye has no usr-is-merged package, which the hook installs: there the links alone are made.
LINKS = 'for d in bin sbin lib lib32 lib64 libx32; do ln -s usr/$d "$1/$d"; mkdir -p "$1/usr/$d"; done'


def mmdebstrap(target, release, mirror, include, epoch):
    if shutil.which("mmdebstrap") is None:
        pytest.skip("mmdebstrap is not installed")
    hook = ["--setup-hook", LINKS] if release == "bullseye" else ["--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr"]
    command = [
        "mmdebstrap",
        "--quiet",
        "--variant=minbase",
        *hook,
        *([f"--include={','.join(include)}"] if include else []),
        *(['--aptopt=Acquire::Check-Valid-Until "false"'] if release == "sid" else []),
        release,
        str(target),
        f"deb {mirror} {release} main",
    ]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "SOURCE_DATE_EPOCH": str(epoch)}
    done = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize(
    ("release", "include"),
    [
        pytest.param("bullseye", (), marks=pytest.mark.xdist_group("one")),
        pytest.param("bookworm", (), marks=pytest.mark.xdist_group("two")),
        pytest.param("trixie", (), marks=pytest.mark.xdist_group("one")),
        pytest.param("sid", (), marks=pytest.mark.xdist_group("two")),
        pytest.param("bookworm", BIG, marks=pytest.mark.xdist_group("three")),
    ],
    ids=["bullseye", "bookworm", "trixie", "sid", "bookworm-big"],
)
def test_equals_mmdebstrap(tmp_path, public_folder, store, release, include):
    need_root()
    mirror = mirror_at_hand()
    epoch = int(time.time())
    theirs = public_folder / "theirs"
    mmdebstrap(theirs, release, mirror, include, epoch)
    recipe = one_suite_recipe(tmp_path / "recipe.toml", release, mirror, include=include)
    ours = tmp_path / "ours"
    relax = ["--allow", "expired"] if release == "sid" else []
    built = rootfsbuild(recipe, "-o", ours, "--cache-dir", store, *relax, SOURCE_DATE_EPOCH=epoch)
    assert built.status == 0, built.err
    wanted, found = dump_tree(str(theirs)), dump_tree(str(ours))
    allowed = set(ALLOWED)
    allowed |= EMPTY_LINKS if release != "bookworm" else set()
    allowed |= LAPSED if release == "sid" else set()
    allowed |= HOST_KEYS if include else set()
    different = {
        path: (wanted.get(path), found.get(path))
        for path in wanted.keys() | found.keys()
        if wanted.get(path) != found.get(path) and path not in allowed
    }
    assert different == {}
