"""What differs between bookworm as it was released last and bookworm today; and what dpkg says is installed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest
from making.builds import mirror_at_hand, rootfsbuild

from rootfsbuild.formats.deb.installed import installed
from rootfsbuild.formats.deb.version import compare, sort_key
from rootfsbuild.inspection.diff import compare_packages, from_plan, group_changes
from rootfsbuild.inspection.differences import difference_document
from rootfsbuild.lock import load_lock

pytestmark = pytest.mark.oracle

# Security updates of a browser come every few weeks, those of the others between any two point releases.
INCLUDE = ["firefox-esr", "openssl", "curl", "git", "python3", "tzdata", "vim"]
TRIGGERS = ("triggers-awaited", "triggers-pending")
NEWER = {"bookworm-security", "bookworm-updates"}
ONLY_MAIN = """
[[archive]]
name = "debian"
suites = ["bookworm"]

[[archive]]
name = "debian-security"
enabled = false
"""


@pytest.fixture(scope="module")
def locks(tmp_path_factory, store):
    for archive in ("debian", "debian-security"):
        mirror_at_hand(archive)
    folder = tmp_path_factory.mktemp("diff")
    files = []
    for name, extra in (("released", ONLY_MAIN), ("today", "")):
        recipe = folder / f"{name}.toml"
        recipe.write_text(
            f'distro = "debian"\nrelease = "bookworm"\narch = "amd64"\n[packages]\ninclude = {INCLUDE}\n{extra}'
        )
        done = rootfsbuild("lock", recipe, "--cache-dir", store, "-o", folder / f"{name}.lock")
        if done.status == 5:
            pytest.skip(f"no network: {done.err}")
        assert done.status == 0, done.err
        files.append(str(folder / f"{name}.lock"))
    return files


@pytest.fixture(scope="module")
def difference(locks):
    found = compare_packages(*(from_plan(load_lock(file).plan) for file in locks), compare)
    if not found:
        pytest.skip("a point release has just taken in every update")
    return found


def changes_of(difference):
    return [*difference.changed, *difference.added, *difference.removed]


def test_only_updates_change_what_was_released(difference):
    for change in difference.changed:
        assert sort_key(change.before.version) < sort_key(change.after.version)
        assert change.after.suite in NEWER
        assert change.before.suite == "bookworm"
    assert difference.changed


def test_sizes_add_up(locks, difference):
    before, after = (load_lock(file).plan.packages for file in locks)
    assert difference.size_before == sum(package.installed_size for package in before)
    assert difference.size_after == sum(package.installed_size for package in after)
    # The same version in two suites is the same file, whose estimate is the same.
    assert difference.size_before + sum(change.delta for change in changes_of(difference)) == difference.size_after
    assert len(before) + len(difference.added) - len(difference.removed) == len(after)


def test_markdown_has_every_package_once_and_aligned_columns(locks, difference):
    text = rootfsbuild("diff", *locks, "--markdown").out
    rows = [line for line in text.splitlines() if line.startswith("| ") and not re.match(r"\| (package|---) ", line)]
    names = [name for row in rows for name in re.findall(r"`([^`]+)`", row.split(" | ")[0].split("**: ")[-1])]
    assert sorted(names) == sorted(change.package.name for change in changes_of(difference))
    assert len(rows) == len(group_changes(changes_of(difference)))
    assert {row.count(" | ") for row in rows} <= {2, 3}
    assert all(re.search(r"\| ([+-]\d[\d.]* (B|kB|MB|GB)|0 B) \|$", row) for row in rows)
    assert "&#" not in "".join(rows)
    assert text.startswith("## ")


def test_text_and_json(locks, difference):
    lines = rootfsbuild("diff", *locks).out.splitlines()
    assert lines[-1].startswith(f"{len(difference.changed)} upgraded, ")
    words = set(" ".join(lines).split())
    assert {change.package.name for change in changes_of(difference)} <= words
    assert (
        json.loads(rootfsbuild("diff", *locks, "--json").out)["changed"] == difference_document(difference)["changed"]
    )


def test_the_same_lock_differs_in_nothing(locks):
    assert rootfsbuild("diff", locks[1], locks[1]).out.startswith("no differences (")


@pytest.mark.skipif(shutil.which("dpkg-query") is None, reason="dpkg-query is the judge, and is not on this host")
def test_installed_packages_are_those_of_dpkg():
    form = (
        "${db:Status-Eflag}\t${db:Status-Status}\t${Package}\t${Version}\t${Architecture}\t"
        "${source:Package}\t${source:Version}\t${Installed-Size}\n"
    )
    output = subprocess.run(["dpkg-query", "-W", "-f", form], capture_output=True, check=True, text=True).stdout
    rows = [line.split("\t") for line in output.splitlines()]
    theirs = sorted(
        (*row[2:7], int(row[7] or 0) * 1024) for row in rows if row[0] == "ok" and row[1] in {"installed", *TRIGGERS}
    )
    ours = [
        (item.name, item.version, item.architecture, item.source, item.source_version, item.installed_size)
        for item in installed("/")
    ]
    assert ours == theirs
    assert ours
