"""Our root against the one that debootstrap makes from the same archive, path by path."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from making.builds import mirror_at_hand, need_root, one_suite_recipe, rootfsbuild

from rootfsbuild.inspection.dump import dump_tree

pytestmark = [pytest.mark.oracle, pytest.mark.slow, pytest.mark.xdist_group("debootstrap")]

# What only debootstrap's root has, with the reason.
ONLY_THEIRS = {
    r"/etc/hostname": "copied from the host; an image must not carry it",
    r"/etc/resolv\.conf": "copied from the host; an image must not carry it",
    r"/run/mount": "made by mount(8); ours have a /run of their own, as every boot gives them",
    r"/var/cache/apt/archives/[^/]+\.deb": "debootstrap leaves the packages",
    r"/var/cache/ldconfig/aux-cache": "inode numbers and times; ldconfig makes it again",
    r"/var/lib/apt/lists/.+_dists_bookworm_.+": "debootstrap leaves the indexes",
    r"/var/lib/dpkg/(available|cmethopt)": "for dselect, which no one uses",
    r"/var/log/(alternatives|bootstrap|dpkg)\.log": "tell when the root was built",
}
# What only our root has.
ONLY_OURS = {
    r"/var/cache/apt/archives/lock": "apt has run in ours, and dpkg alone in theirs",
    r"/var/lib/apt/lists/lock": "the same",
    r"/var/lib/apt/extended_states": "which packages were asked for: without it autoremove can do nothing",
    r"/var/lib/dpkg/arch": "the native architecture, as dpkg --add-architecture writes it",
}
# What both have and in which nothing has to be alike.
DIFFERENT = {
    r"/var/(cache/apt/archives|lib/apt/lists)/partial": "owned by apt's user once apt has run",
    r"/var/lib/dpkg/status-old": "dpkg's back-up of an earlier moment; dpkg was called another number of times",
}
# debootstrap takes these packages' Priority from the archive's index, dpkg from the package itself.
OVERRIDDEN = {"apt", "debconf", "libbz2-1.0", "libdb5.3", "zlib1g"}


@pytest.fixture(scope="module")
def roots(tmp_path_factory, store):
    need_root()
    if shutil.which("debootstrap") is None:
        pytest.skip("debootstrap is not installed")
    mirror = mirror_at_hand()
    folder = tmp_path_factory.mktemp("debootstrap")
    theirs, ours = folder / "theirs", folder / "ours"
    command = ["debootstrap", "--variant=minbase", "--merged-usr", "bookworm", theirs, mirror]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    done = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=900)
    assert done.returncode == 0, done.stdout.decode()[-2000:] + done.stderr.decode()
    recipe = one_suite_recipe(folder / "recipe.toml", "bookworm", mirror)
    built = rootfsbuild(recipe, "-o", ours, "--cache-dir", store)
    assert built.status == 0, built.err
    return theirs, ours


def matches(path, patterns):
    return any(re.fullmatch(pattern, path) for pattern in patterns)


def test_every_path_is_the_same(roots):
    theirs, ours = (dump_tree(str(root)) for root in roots)
    assert [path for path in theirs.keys() - ours.keys() if not matches(path, ONLY_THEIRS)] == []
    assert [path for path in ours.keys() - theirs.keys() if not matches(path, ONLY_OURS)] == []
    compared = {"/etc/shadow", "/var/lib/dpkg/status"}
    different = {
        path: (theirs[path], ours[path])
        for path in theirs.keys() & ours.keys()
        if theirs[path] != ours[path] and path not in compared and not matches(path, DIFFERENT)
    }
    assert different == {}
    for path in compared:
        # All but the content.
        assert theirs[path].split()[:-1] == ours[path].split()[:-1]


def test_every_exception_is_needed(roots):
    theirs, ours = (dump_tree(str(root)) for root in roots)
    differing = [path for path in theirs.keys() & ours.keys() if theirs[path] != ours[path]]
    for patterns, paths in (
        (ONLY_THEIRS, theirs.keys() - ours.keys()),
        (ONLY_OURS, ours.keys() - theirs.keys()),
        (DIFFERENT, differing),
    ):
        assert [pattern for pattern in patterns if not any(re.fullmatch(pattern, path) for path in paths)] == []


def test_shadow_differs_in_the_day_only(roots):
    theirs, ours = ([line.split(":") for line in (root / "etc/shadow").read_text().splitlines()] for root in roots)
    assert [fields[:2] + fields[3:] for fields in ours] == [fields[:2] + fields[3:] for fields in theirs]
    assert {fields[2] for fields in ours} == {ours[0][2]}


def test_status_differs_in_overridden_priorities_only(roots):
    theirs, ours = (paragraphs(root / "var/lib/dpkg/status") for root in roots)
    assert list(theirs) == list(ours)
    different = {
        (name, field)
        for name in theirs
        for field in theirs[name].keys() | ours[name].keys()
        if theirs[name].get(field) != ours[name].get(field)
    }
    assert different == {(name, "Priority") for name in OVERRIDDEN}
    assert [list(fields) for fields in theirs.values()] == [list(fields) for fields in ours.values()]


def paragraphs(path):
    """Return package -> field -> value, in the file's order."""
    found = {}
    for text in path.read_text().strip("\n").split("\n\n"):
        fields = dict(re.findall(r"^([^\s:]+):((?:.*)(?:\n[ \t].*)*)", text, re.MULTILINE))
        found[fields["Package"].strip()] = fields
    return found
