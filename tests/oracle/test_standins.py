"""Our stand-in for deb-systemd-helper against the program itself, unit by unit."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest
from making.tinyroot import make_tiny_root, sh, tiny_sandbox

from rootfsbuild.formats.deb.standins import STAND_INS
from rootfsbuild.inspection.dump import dump_tree

pytestmark = pytest.mark.oracle

HELPER = "/usr/bin/deb-systemd-helper"
STATE = "var/lib/systemd/deb-systemd-helper"
OTHERS = {"/var/lib/systemd/deb-systemd-helper-enabled/x.timer.dsh-also": "/etc/systemd/system/a.wants/x.timer\n"}
PLAIN = "[Unit]\nDescription=x\n[Install]\nWantedBy=timers.target\n"

# What a unit says, and whether the stand-in does it itself.
UNITS = {
    "one": (PLAIN, True),
    "two-targets": ("[Install]\nWantedBy=a.target b.target\n", True),
    "two-lines": ("[Install]\nWantedBy=a.target\nWantedBy=b.target\n", True),
    "required": ("[Install]\nRequiredBy=a.target\nWantedBy=a.target\n", True),
    "indented": ("[Install]\n  WantedBy=a.target  \n", True),
    "no-line-break-at-the-end": ("[Install]\nWantedBy=a.target", True),
    "nothing-to-install": ("[Unit]\nDescription=x\n", True),
    "quoted": ('[Install]\nWantedBy="a.target"\n', False),
    "blank-first": ("[Install]\nWantedBy= a.target\n", False),
    "spelt-otherwise": ("[Install]\nwantedby=a.target\n", False),
    "commented-out": ("[Install]\n#WantedBy=a.target\n", False),
    "also": ("[Install]\nWantedBy=a.target\nAlso=y.socket\n", False),
    "alias": ("[Install]\nWantedBy=a.target\nAlias=z.service\n", False),
    "instance": ("[Install]\nWantedBy=a.target\nDefaultInstance=1\n", False),
    "twice": ("[Install]\nWantedBy=a.target a.target\n", False),
}


@pytest.fixture
def tree(tmp_path):
    """Return the folder of a root with the stand-in over a program that says that it was asked."""
    root = make_tiny_root(tmp_path / "root")
    write(root, HELPER, '#!/bin/sh\necho "handed on: $*"\nexit 42\n', 0o755)
    write(root, "/usr/lib/systemd/system/.keep", "")
    os.symlink("usr/lib", os.path.join(root, "lib"))
    return root


def write(root, path, text, mode=0o644):
    place = os.path.join(root, path.lstrip("/"))
    os.makedirs(os.path.dirname(place), exist_ok=True)
    with open(place, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(place, mode)


def ours(root, words, environment="DPKG_MAINTSCRIPT_PACKAGE=x"):
    box = tiny_sandbox(root, overlays={HELPER: STAND_INS[HELPER]})
    done, output = sh(box, f"umask 022; {environment} {HELPER} {words}")
    return done.status, output


def theirs(root, words):
    if not os.access(HELPER, os.X_OK):
        pytest.skip("needs deb-systemd-helper (apt install init-system-helpers)")
    environment = {"PATH": "/usr/bin:/bin", "DPKG_ROOT": root, "DPKG_MAINTSCRIPT_PACKAGE": "x"}
    command = ["sh", "-c", f"umask 022; {HELPER} {words}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def compare(tree, tmp_path, calls):
    """Make the same calls of both, each in a copy of the tree, and return what ours answered."""
    other = str(tmp_path / "other")
    shutil.copytree(tree, other, symlinks=True)
    answers = [ours(tree, words) for words in calls]
    assert answers == [theirs(other, words) for words in calls]
    assert dump_tree(tree) == dump_tree(other)
    return answers


@pytest.mark.parametrize("name", sorted(name for name, (_, plain) in UNITS.items() if plain))
def test_a_plain_unit_is_enabled_as_by_the_program(tree, tmp_path, name):
    write(tree, "/usr/lib/systemd/system/x.timer", UNITS[name][0])
    calls = ["debian-installed x.timer", "unmask x.timer", "--quiet was-enabled x.timer", "was-enabled x.timer"]
    answers = compare(tree, tmp_path, [*calls, "enable x.timer", "debian-installed x.timer", "was-enabled x.timer"])
    assert answers[-1] == (0, "enabled\n")


@pytest.mark.parametrize("name", sorted(name for name, (_, plain) in UNITS.items() if not plain))
def test_any_other_unit_is_handed_on_before_anything_is_done(tree, name):
    write(tree, "/usr/lib/systemd/system/x.timer", UNITS[name][0])
    before = dump_tree(tree)
    assert ours(tree, "enable x.timer") == (42, "handed on: enable x.timer\n")
    assert dump_tree(tree) == before


def test_several_units_one_after_the_other(tree, tmp_path):
    for name in ("a.timer", "b.service", "c@.service"):
        write(tree, f"/usr/lib/systemd/system/{name}", PLAIN)
    write(tree, "/etc/systemd/system/b.service", "[Install]\nRequiredBy=own.target\n")
    compare(tree, tmp_path, [f"enable {name}" for name in ("a.timer", "b.service", "c@.service")])
    assert os.readlink(os.path.join(tree, "etc/systemd/system/own.target.requires/b.service")).startswith("/etc/")


def test_a_link_that_somebody_removed_counts_as_disabled(tree, tmp_path):
    for path, text in OTHERS.items():
        write(tree, path, text)
    assert compare(tree, tmp_path, ["was-enabled x.timer", "--quiet was-enabled x.timer"])[0] == (1, "disabled\n")


@pytest.mark.parametrize(
    ("present", "words"),
    [
        ("", "disable x.timer"),
        ("", "update-state x.timer"),
        ("", "--user enable x.timer"),
        ("", "enable x.timer y.timer"),
        ("", "enable absent.timer"),
        ("/usr/bin/systemctl", "enable x.timer"),
        ("/etc/systemd/system/x.timer", "unmask x.timer"),
        (f"/{STATE}-masked/x.timer", "unmask x.timer"),
        (f"/{STATE}-enabled/x.timer.dsh-also", "enable x.timer"),
        ("/etc/systemd/system/timers.target.wants/x.timer", "enable x.timer"),
    ],
)
def test_whatever_is_not_simple_is_handed_on(tree, present, words):
    write(tree, "/usr/lib/systemd/system/x.timer", PLAIN)
    if present:
        write(tree, present, PLAIN, 0o755)
    assert ours(tree, words) == (42, f"handed on: {words}\n")


def test_only_dpkgs_scripts_are_served(tree):
    write(tree, "/usr/lib/systemd/system/x.timer", PLAIN)
    assert ours(tree, "enable x.timer", "")[0] == 42
    assert ours(tree, "enable x.timer", "DPKG_MAINTSCRIPT_PACKAGE=x _DEB_SYSTEMD_HELPER_PURGE=1")[0] == 42
