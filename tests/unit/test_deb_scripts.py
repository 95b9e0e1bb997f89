from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from rootfsbuild.errors import ScriptError
from rootfsbuild.formats.deb.database import ADMIN, Unpacked, create_database, record_unpacked
from rootfsbuild.formats.deb.scripts import blame, configure, run_preinsts, script_environment
from rootfsbuild.formats.deb.standins import POLICY, STAND_INS
from rootfsbuild.rootfs.inside import edit_root
from rootfsbuild.rootfs.runner import Ended

ROOM = f"{ADMIN}/tmp.ci"


@pytest.fixture
def root(tmp_path):
    (tmp_path / "root").mkdir()
    with edit_root(str(tmp_path / "root")) as inside:
        yield inside


def control(name, **fields):
    lines = {"Package": name, "Version": "1", "Architecture": "all", "Maintainer": "x <x@example.org>", **fields}
    return "".join(f"{key}: {value}\n" for key, value in {**lines, "Description": "x"}.items()).encode()


def package(name="alpha", architecture="amd64", fields=None, **members):
    every = {member: (text.encode(), 0o755) for member, text in members.items()}
    return Unpacked(name, architecture, fields or control(name), every, [b"/."], {})


class Runner:
    """A sandbox that notes what it was given and what lay in dpkg's room just then."""

    def __init__(self, root=None, *, status=0, lines=()):
        self.root, self.ended = root, Ended(status, tuple(lines))
        self.calls, self.rooms, self.modes = [], [], []

    def __call__(self, argv, *, extra_env):
        self.calls.append((list(argv), dict(extra_env)))
        if self.root is not None:
            names = self.root.names(ROOM)
            self.rooms.append({name: self.root.read(f"{ROOM}/{name}") for name in names})
            self.modes.append({name: self.root.status(f"{ROOM}/{name}").st_mode & 0o777 for name in names})
        return self.ended


# The environment


def test_environment_is_the_whole_of_it_and_nothing_of_the_host(monkeypatch):
    monkeypatch.setenv("SECRET", "of the host")
    environment = script_environment(1_600_000_000)
    assert environment["DEBIAN_FRONTEND"] == "noninteractive"
    assert environment["DEBCONF_NONINTERACTIVE_SEEN"] == "true"
    assert environment["LC_ALL"] == environment["LANG"] == environment["LANGUAGE"] == "C.UTF-8"
    assert environment["SOURCE_DATE_EPOCH"] == "1600000000"
    assert {"/usr/sbin", "/usr/bin", "/sbin", "/bin"} == set(environment["PATH"].split(":"))
    assert "SECRET" not in environment


# deb-systemd-helper's has a test of its own, beside the program it stands for.
@pytest.mark.parametrize("path", sorted(STAND_INS.keys() - {"/usr/bin/deb-systemd-helper"}))
def test_stand_ins_let_no_service_start_and_do_nothing_else(tmp_path, path):
    content, mode = STAND_INS[path]
    script = tmp_path / "script"
    script.write_bytes(content)
    script.chmod(mode)
    done = subprocess.run([script, "--start", "x"], capture_output=True, check=False)
    # invoke-rc.d(8): 101 means that the action is forbidden.
    assert done.returncode == (101 if path == "/usr/sbin/policy-rc.d" else 0)
    assert done.stdout + done.stderr == b""


def test_hooks_meet_the_roots_own_programs_but_start_no_service_either():
    assert list(POLICY) == ["/usr/sbin/policy-rc.d"]


# preinst


def test_preinst_runs_as_dpkg_runs_it(root):
    runner = Runner(root)
    run_preinsts(root, [package(preinst="#!/bin/sh\n", postinst="#!/bin/sh\n")], runner, "1.21.22")
    ((argv, environment),) = runner.calls
    assert argv == [f"{ROOM}/preinst", "install"]
    assert environment == {
        "DPKG_MAINTSCRIPT_PACKAGE": "alpha",
        "DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT": "1",
        "DPKG_MAINTSCRIPT_ARCH": "amd64",
        "DPKG_MAINTSCRIPT_NAME": "preinst",
        "DPKG_RUNNING_VERSION": "1.21.22",
        "DPKG_ADMINDIR": ADMIN,
        "DPKG_ROOT": "",
        "DPKG_FORCE": environment["DPKG_FORCE"],
    }


def test_what_a_preinst_finds_beside_itself_is_the_packages_control_archive(root):
    runner = Runner(root)
    run_preinsts(root, [package(preinst="#!/bin/sh\n", templates="Template: x\n", config="#!/bin/sh\n")], runner, "1")
    assert runner.rooms == [
        {
            "control": control("alpha"),
            "preinst": b"#!/bin/sh\n",
            "templates": b"Template: x\n",
            "config": b"#!/bin/sh\n",
        }
    ]
    assert runner.modes[0]["preinst"] == 0o755
    assert runner.modes[0]["control"] == 0o644


def test_nothing_of_it_stays(root):
    run_preinsts(root, [package(preinst="#!/bin/sh\n", config="x")], Runner(root), "1")
    assert not root.exists(ROOM)


def test_only_packages_with_a_preinst_run_in_the_order_given(root):
    runner = Runner(root)
    packages = [package("b", preinst="b"), package("none", postinst="x"), package("a", preinst="a")]
    run_preinsts(root, packages, runner, "1")
    assert [room["preinst"] for room in runner.rooms] == [b"b", b"a"]


def test_a_preinst_that_fails_is_told_with_its_package_status_and_last_lines(root):
    runner = Runner(root, status=-9, lines=[f"line {number}" for number in range(40)])
    with pytest.raises(ScriptError) as caught:
        run_preinsts(root, [package(preinst="x"), package("beta", preinst="y")], runner, "1")
    error = caught.value
    assert (error.package, error.script, error.status) == ("alpha", "preinst", -9)
    assert list(error.tail) == [f"line {number}" for number in range(20, 40)]
    assert "--debug-shell" in error.hint
    assert len(runner.calls) == 1


# dpkg --configure


def test_the_roots_own_dpkg_configures_everything(root):
    runner = Runner()
    configure(runner)
    ((argv, environment),) = runner.calls
    assert argv[0] == "dpkg"
    assert argv[-2:] == ["--configure", "-a"]
    # A conffile that the user's files or a hook changed is not a reason to ask.
    assert "--force-confold" in argv
    assert environment == {}


FAILED = """\
Setting up libx (1) ...
Setting up alpha (1) ...
starting
dpkg: error processing package alpha (--configure):
 installed alpha package post-installation script subprocess returned error exit status 3
dpkg: dependency problems prevent configuration of beta:
 beta depends on alpha; however:
  Package alpha is not configured yet.

dpkg: error processing package beta (--configure):
 dependency problems - leaving unconfigured
Errors were encountered while processing:
 alpha
 beta
""".splitlines()

KILLED = """\
dpkg: error processing package libc6:amd64 (--configure):
 installed libc6:amd64 package post-installation script subprocess was killed by signal (Killed)
""".splitlines()

BROKEN_BEFORE = """\
dpkg: dependency problems prevent configuration of beta:
 beta depends on missing; however:
  Package missing is not installed.

dpkg: error processing package beta (--configure):
 dependency problems - leaving unconfigured
Setting up alpha (1) ...
dpkg: error processing package alpha (--configure):
 installed alpha package post-installation script subprocess returned error exit status 3
""".splitlines()


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (FAILED, ("alpha", "postinst", 3)),
        (KILLED, ("libc6:amd64", "postinst", None)),
        (BROKEN_BEFORE, ("alpha", "postinst", 3)),
        (BROKEN_BEFORE[:6], ("beta", "", None)),
        (["dpkg: error: cannot open"], ("", "", None)),
        ([], ("", "", None)),
    ],
)
def test_the_first_script_that_failed_is_found_in_what_dpkg_says(lines, expected):
    assert blame(lines) == expected


def test_a_failure_names_package_script_and_status():
    with pytest.raises(ScriptError) as caught:
        configure(Runner(status=1, lines=FAILED))
    assert str(caught.value).startswith("alpha: postinst exited with status 3\n")
    assert "  | starting" in str(caught.value)


def test_a_failure_that_is_nobodys_is_dpkgs():
    with pytest.raises(ScriptError) as caught:
        configure(Runner(status=2, lines=["dpkg: error: database is locked"]))
    assert str(caught.value).startswith("dpkg --configure -a exited with status 2")
    assert "locked" in str(caught.value)


# The real dpkg


@pytest.mark.oracle
@pytest.mark.skipif(shutil.which("dpkg") is None or os.geteuid() != 0, reason="needs dpkg and root")
class TestDpkg:
    @pytest.fixture
    def run(self, root, tmp_path):
        create_database(root, "amd64")

        def run(argv, *, extra_env):
            command = ["dpkg", f"--root={tmp_path / 'root'}", "--force-script-chrootless", *argv[1:]]
            environment = {"PATH": os.environ["PATH"], "LC_ALL": "C", **extra_env}
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            return Ended(done.returncode, tuple((done.stdout + done.stderr).splitlines()))

        return run

    def test_configures(self, root, run):
        record_unpacked(root, [package(architecture="all", postinst="#!/bin/sh\nexit 0\n")])
        configure(run)
        assert "Status: install ok installed" in root.read(f"{ADMIN}/status").decode()

    @pytest.mark.parametrize(("end", "status"), [("exit 3", 3), ("kill -9 $$", None)])
    def test_the_failing_script_is_found_in_its_own_words(self, root, run, end, status):
        needy = control("beta", Depends="alpha")
        bad = package(architecture="all", postinst=f"#!/bin/sh\necho ouch\n{end}\n")
        record_unpacked(root, [package("beta", "all", needy), bad, package("gamma", "all")])
        with pytest.raises(ScriptError) as caught:
            configure(run)
        assert (caught.value.package, caught.value.script) == ("alpha", "postinst")
        assert caught.value.status == (1 if status is None else status)
        assert "ouch" in caught.value.tail
