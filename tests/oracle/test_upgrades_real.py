"""The least change on real archives: bookworm as it was released last, a package at a time from its updates."""

from __future__ import annotations

import shutil

import pytest
from making.builds import mirror_at_hand, rootfsbuild
from making.installable import problems

from rootfsbuild.lock import load_lock

pytestmark = pytest.mark.oracle

RECIPE = """
distro = "debian"
release = "bookworm"
arch = "amd64"
[packages]
include = ["firefox-esr", "openssl", "curl", "git", "python3", "tzdata", "vim"]
"""
ONLY_MAIN = """
[[archive]]
name = "debian"
suites = ["bookworm"]

[[archive]]
name = "debian-security"
enabled = false
"""


@pytest.fixture(scope="module")
def moments(tmp_path_factory, store):
    """A recipe with the lock of the last point release, and that lock's packages and today's by name."""
    for archive in ("debian", "debian-security"):
        mirror_at_hand(archive)
    folder = tmp_path_factory.mktemp("upgrades")
    recipe = folder / "box.toml"
    found = []
    for name, extra in (("released", ONLY_MAIN), ("today", "")):
        recipe.write_text(RECIPE + extra)
        done = rootfsbuild("lock", recipe, "--cache-dir", store)
        if done.status == 5:
            pytest.skip(f"no network: {done.err}")
        assert done.status == 0, done.err
        shutil.move(folder / "box.amd64.lock", folder / f"{name}.lock")
        found.append({package.name: package for package in load_lock(folder / f"{name}.lock").plan.packages})
    released, today = found
    changed = [name for name in released if name in today and today[name].version != released[name].version]
    if not changed:
        pytest.skip("a point release has just taken in every update")
    return folder, released, today, changed


def upgrade(folder, store, name):
    shutil.copy(folder / "released.lock", folder / "box.amd64.lock")
    done = rootfsbuild("lock", folder / "box.toml", "--upgrade", name, "--cache-dir", store)
    assert done.status == 0, done.err
    return {package.name: package for package in load_lock(folder / "box.amd64.lock").plan.packages}


def test_each_upgrade_moves_its_package_and_only_what_could_not_have_stayed(moments, store):
    folder, released, today, changed = moments
    alone = 0
    for name in changed:
        packages = upgrade(folder, store, name)
        assert packages[name].version == today[name].version
        assert problems(list(packages.values())) == []
        both = released.keys() & packages.keys()
        moved = [other for other in both if packages[other].version != released[other].version]
        for other in set(moved) - {name}:
            swapped = {**packages, other: released[other]}
            assert problems(list(swapped.values())), f"for {name}, {other} need not have changed"
        alone += moved == [name]
    assert alone, "every upgrade moved others"
