"""What several packages leave in a root, against dpkg itself unpacking them one after the other."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess

import pytest
from making.debs import make_deb
from making.extracting import needs_root
from making.tars import Directory, File, Hard, Link

from rootfsbuild.formats.deb.archive import open_deb
from rootfsbuild.inspection.dump import dump_tree
from rootfsbuild.rootfs.extract import Job, extract_packages

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(not shutil.which("dpkg"), reason="needs dpkg"),
    needs_root,
]

# name → (files, names in Replaces), in plan order; times of files are kept by dpkg, those of directories are not.
CASES = {
    "metadata": {
        "a": ({"usr/bin/su": File(b"su", 0o4755), "var/mail": Directory(0o2775, 0, 8), "l": Link("usr/bin/su")}, ()),
        "b": ({"usr/bin/x": File(b"x", 0o640, 1, 2, 77), "var/mail": Directory(0o755), "e/f/g": b""}, ()),
    },
    "later replaces": {"a": ({"f": b"a", "g": b"a"}, ()), "b": ({"f": b"b", "h": b"b"}, ("a",))},
    "earlier replaces": {"a": ({"f": b"a", "g": b"a"}, ("b",)), "b": ({"f": b"b", "h": b"b"}, ())},
    "both replace": {"a": ({"f": b"a", "k": b""}, ("b",)), "b": ({"f": b"b"}, ("a",))},
    "chain": {"a": ({"f": b"a", "k": b""}, ()), "b": ({"f": b"b", "k2": b""}, ("a",)), "c": ({"f": b"c"}, ("b",))},
    "hard links": {
        "a": ({"f": b"a", "g": Hard("f"), "k": b""}, ()),
        "b": ({"f": b"b", "h": Hard("f")}, ("a",)),
    },
    "link before directory": {"a": ({"real/x": b"", "d": Link("real")}, ()), "b": ({"d/y": b"b"}, ())},
    "directory before link": {"a": ({"d/y": b"a"}, ()), "b": ({"d": Link("elsewhere")}, ())},
    "link to a link to a directory": {
        "a": ({"real/x": b"", "d": Link("e"), "e": Link("real")}, ()),
        "b": ({"d/sub/y": b"b"}, ()),
        "c": ({"d/sub/z": b"c", "e/w": b""}, ()),
    },
    "directory and links in turn": {
        "a": ({"d/y": b"a"}, ()),
        "b": ({"d": Link("elsewhere"), "k": b""}, ()),
        "c": ({"d/z": b"c"}, ()),
    },
    "a link replaced": {"a": ({"f": Link("x"), "k": b""}, ()), "b": ({"f": b"b"}, ("a",))},
    "merged usr": {"a": ({"bin/x": b"a", "bin/only": b"", "k": b""}, ()), "b": ({"usr/bin/y": b"b"}, ())},
}


def _make_root(path):
    for name in ("usr/bin", "var/lib/dpkg/info", "var/lib/dpkg/updates", "var/lib/dpkg/triggers"):
        (path / name).mkdir(parents=True, exist_ok=True)
    (path / "bin").symlink_to("usr/bin")
    for name in ("status", "diversions", "arch"):
        (path / "var/lib/dpkg" / name).touch()
    return path


def _make_debs(folder, case):
    paths = {}
    for name, (files, replaces) in case.items():
        paths[name] = str(folder / f"{name}.deb")
        fields = {"Package": name, **({"Replaces": ", ".join(replaces)} if replaces else {})}
        make_deb(paths[name], fields, files, compression="gz")
    return paths


def _tree(root):
    return {path: line for path, line in dump_tree(str(root)).items() if not path.startswith("/var/lib/dpkg")}


def _dpkg(folder, case):
    root = _make_root(folder / "dpkg")
    environment = {**os.environ, "DPKG_ADMINDIR": ""}
    for path in _make_debs(folder, case).values():
        command = ["dpkg", f"--root={root}", "--force-unsafe-io", "--force-script-chrootless", "--unpack", path]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stderr
    lists = {}
    for name in case:
        found = root / f"var/lib/dpkg/info/{name}.list"
        lists[name] = found.read_bytes().splitlines() if found.exists() else None
    return _tree(root), lists


def _ours(folder, case, submitted):
    root = _make_root(folder / f"ours-{'-'.join(submitted)}")
    paths = _make_debs(folder, case)
    laid = extract_packages(
        str(root),
        [Job(paths[name], name, 1 << 24) for name in submitted],
        open_deb,
        order=tuple(case),
        may_replace=lambda *, loser, winner, **_: loser in case[winner][1],
    )
    return _tree(root), {name: list(found.paths) for name, found in laid.items()}


@pytest.mark.parametrize("name", CASES)
def test_the_tree_and_the_lists_are_dpkgs(tmp_path, name):
    case = CASES[name]
    tree, lists = _dpkg(tmp_path, case)
    for submitted in itertools.permutations(case):
        assert _ours(tmp_path, case, submitted) == (tree, lists)
