from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys

import pytest
from making.server import wait_until

from rootfsbuild.errors import RecipeError, ScriptError
from rootfsbuild.events import Notice, ignore
from rootfsbuild.recipe import FileToCopy, Hook
from rootfsbuild.rootfs.hooks import copy_files, run_hooks
from rootfsbuild.rootfs.inside import Inside
from rootfsbuild.rootfs.runner import Ended

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="copied files are given to root, which needs root")


@pytest.fixture
def root(tmp_path):
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


# Files


@needs_root
@pytest.mark.parametrize(
    ("source_mode", "mode", "expected"),
    [(0o600, None, 0o644), (0o664, None, 0o644), (0o700, None, 0o755), (0o654, None, 0o644), (0o777, 0o4750, 0o4750)],
)
def test_a_copied_file_has_its_bytes_and_a_mode_that_the_umask_has_no_part_in(
    tmp_path, root, source_mode, mode, expected
):
    source = tmp_path / "motd"
    source.write_bytes(b"hello\xff")
    source.chmod(source_mode)
    copy_files(str(root), [FileToCopy(str(source), "/etc/motd", mode, (12, 34))])
    status = os.lstat(root / "etc/motd")
    assert (root / "etc/motd").read_bytes() == b"hello\xff"
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (expected, 12, 34)


@needs_root
def test_a_directory_is_copied_with_all_that_it_holds(tmp_path, root):
    source = tmp_path / "tree"
    (source / "sub/empty").mkdir(parents=True)
    (source / "sub/run").write_text("#!/bin/sh\n")
    (source / "sub/run").chmod(0o755)
    (source / "sub").chmod(0o700)  # a checkout made under umask 077
    (source / "top").write_text("x")
    copy_files(str(root), [FileToCopy(str(source), "/opt/tree", None)])
    found = sorted(
        os.path.relpath(os.path.join(at, name), root) for at, dirs, files in os.walk(root) for name in dirs + files
    )
    assert found == ["opt", "opt/tree", "opt/tree/sub", "opt/tree/sub/empty", "opt/tree/sub/run", "opt/tree/top"]
    assert stat.S_IMODE(os.lstat(root / "opt/tree/sub/run").st_mode) == 0o755
    assert stat.S_IMODE(os.lstat(root / "opt/tree/sub").st_mode) == 0o755


@needs_root
def test_a_copied_file_replaces_what_a_package_laid_there(tmp_path, root):
    (root / "etc").mkdir()
    (root / "etc/motd").write_text("a much longer text of the package")
    (tmp_path / "motd").write_text("mine")
    copy_files(str(root), [FileToCopy(str(tmp_path / "motd"), "/etc/motd")])
    assert (root / "etc/motd").read_text() == "mine"


@needs_root
def test_a_link_of_the_root_never_leads_the_copy_out(tmp_path, root):
    (tmp_path / "host").mkdir()
    (root / "etc").symlink_to(tmp_path / "host")
    (tmp_path / "motd").write_text("mine")
    with pytest.raises(RecipeError, match="/etc is a symbolic link"):
        copy_files(str(root), [FileToCopy(str(tmp_path / "motd"), "/etc/motd")])
    assert os.listdir(tmp_path / "host") == []


@needs_root
def test_a_link_to_a_directory_of_the_root_is_followed(tmp_path, root):
    (root / "usr/lib").mkdir(parents=True)
    (root / "lib").symlink_to("usr/lib")
    (tmp_path / "motd").write_text("mine")
    copy_files(str(root), [FileToCopy(str(tmp_path / "motd"), "/lib/motd")])
    assert (root / "usr/lib/motd").read_text() == "mine"


OBSTACLES = {
    "the target is a link": (
        "/lib/zone",
        "/lib/zone is a symbolic link to ../share/zone/UTC",
        "name the real path, /usr/share/zone/UTC",
    ),
    "the target is an absolute link": (
        "/etc/resolv.conf",
        "/etc/resolv.conf is a symbolic link to /run/resolv.conf",
        "name the real path, /run/resolv.conf",
    ),
    "a link on the way leads nowhere": (
        "/opt/app/etc/motd",
        "/opt/app is a symbolic link to /srv/none",
        "name the real path, /srv/none/etc/motd",
    ),
    "a link on the way leads to a file": (
        "/opt/file/motd",
        "/opt/file is a symbolic link to /etc/plain",
        "name the real path, /etc/plain/motd",
    ),
    "a link leads to itself": ("/opt/loop/motd", "/opt/loop is a symbolic link to loop", ""),
    "a file is on the way": ("/etc/plain/motd", "/etc/plain is no directory", ""),
    "the target is a directory": ("/etc", "/etc is a directory", "name a file in it, /etc/NAME"),
}


@pytest.fixture
def obstructed(root):
    for name in ("etc", "opt", "usr/lib", "usr/share/zone"):
        (root / name).mkdir(parents=True)
    (root / "etc/plain").touch()
    for name, text in {
        "lib": "usr/lib",
        "usr/lib/zone": "../share/zone/UTC",
        "etc/resolv.conf": "/run/resolv.conf",
        "opt/app": "/srv/none",
        "opt/file": "/etc/plain",
        "opt/loop": "loop",
    }.items():
        (root / name).symlink_to(text)
    return root


@pytest.mark.parametrize(("target", "obstacle", "hint"), OBSTACLES.values(), ids=OBSTACLES)
def test_what_is_in_a_copys_way_is_named(tmp_path, obstructed, target, obstacle, hint):
    source = tmp_path / "motd"
    source.write_text("mine")
    with pytest.raises(RecipeError) as caught:
        copy_files(str(obstructed), [FileToCopy(str(source), target)])
    assert str(caught.value) == f"{source}: files.'{target}': cannot be copied to {target}: in the root, {obstacle}"
    assert caught.value.hint == hint


def test_in_a_directory_the_path_of_the_file_in_it_is_named(tmp_path, obstructed):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/resolv.conf").write_text("mine")
    with pytest.raises(RecipeError) as caught:
        copy_files(str(obstructed), [FileToCopy(str(tmp_path / "tree"), "/etc")])
    assert caught.value.where == "files.'/etc'"
    assert "copied to /etc/resolv.conf: in the root, /etc/resolv.conf is a symbolic link" in caught.value.problem


def test_a_disk_that_is_full_is_not_taken_for_an_obstacle(tmp_path, root, monkeypatch):
    def full(*_words):
        raise OSError(errno.ENOSPC, "full")

    (tmp_path / "motd").write_text("mine")
    monkeypatch.setattr(Inside, "write", full)
    with pytest.raises(OSError, match="full"):
        copy_files(str(root), [FileToCopy(str(tmp_path / "motd"), "/motd")])


def test_a_source_that_is_missing_is_told_with_its_place_in_the_recipe(tmp_path, root):
    with pytest.raises(RecipeError) as caught:
        copy_files(str(root), [FileToCopy(str(tmp_path / "none"), "/etc/motd")])
    assert str(tmp_path / "none") in str(caught.value)
    assert "/etc/motd" in caught.value.where


# Hooks


def hook(run="true", stage="configured", *, inside=True, folder="/"):
    return Hook(stage, run, inside, str(folder))


class Runner:
    """A sandbox that only notes what it was given."""

    def __init__(self, status=0, lines=()):
        self.calls = []
        self.ended = Ended(status, tuple(lines))

    def __call__(self, argv, *, extra_env):
        self.calls.append((list(argv), dict(extra_env)))
        return self.ended


def run(hooks, stage, root, *, runner=None, log=None, environment=None, report=ignore):
    runner = runner or Runner()
    environment = dict(os.environ) if environment is None else environment
    run_hooks(hooks, stage, str(root), runner, (log if log is not None else []).append, environment, report)
    return runner


def test_inside_hooks_run_in_the_sandbox_in_their_order_and_only_those_of_the_stage(root):
    hooks = [hook("one"), hook("two", "finished"), hook("three")]
    runner = run(hooks, "configured", root)
    assert runner.calls == [(["/bin/sh", "-e", "-c", "one"], {}), (["/bin/sh", "-e", "-c", "three"], {})]


def test_a_hook_is_announced_by_its_number_in_the_recipe(root):
    said = []
    run([hook("one", "finished"), hook("two")], "configured", root, report=said.append)
    assert said == [Notice("Hook 2 (configured, inside)")]


def test_an_inside_hook_that_fails_ends_the_build_with_its_last_lines(root):
    runner = Runner(3, [f"line {number}" for number in range(50)])
    with pytest.raises(ScriptError) as caught:
        run([hook("bad"), hook("never")], "configured", root, runner=runner)
    assert len(runner.calls) == 1
    assert (caught.value.script, caught.value.status) == ("hook 1 (configured)", 3)
    assert caught.value.tail[-1] == "line 49"
    assert len(caught.value.tail) == 20


def test_an_outside_hook_runs_in_the_recipes_folder_and_knows_the_root(tmp_path, root):
    log = []
    script = 'pwd; echo "$ROOTFSBUILD_ROOT" >&2; echo x > "$ROOTFSBUILD_ROOT/made"; cat'
    runner = run([hook(script, inside=False, folder=tmp_path)], "configured", root, log=log)
    assert b"".join(log).decode().split() == [str(tmp_path), str(root)]
    assert (root / "made").exists()
    assert runner.calls == []


def test_an_outside_hook_has_the_environment_of_the_call(root):
    log = []
    environment = {"PATH": os.environ["PATH"], "MINE": "yes"}
    run([hook('echo "$MINE:$HOME"', inside=False)], "configured", root, log=log, environment=environment)
    assert b"".join(log) == b"yes:\n"


@pytest.mark.parametrize(
    ("script", "status"), [("echo ouch; exit 4", 4), ("echo ouch; false; echo never", 1), ("echo ouch; kill -9 $$", -9)]
)
def test_an_outside_hook_that_fails_ends_the_build(root, script, status):
    log = []
    with pytest.raises(ScriptError) as caught:
        run([hook("true", inside=False), hook(script, inside=False)], "configured", root, log=log)
    assert (caught.value.script, caught.value.status) == ("hook 2 (configured)", status)
    assert tuple(caught.value.tail) == ("ouch",)
    assert b"".join(log) == b"ouch\n"


def test_output_that_is_no_text_does_not_matter(root):
    with pytest.raises(ScriptError) as caught:
        run([hook(r"printf '\377\n'; exit 1", inside=False)], "configured", root)
    assert caught.value.tail == ("�",)


BUILDER = """
import os, sys
from rootfsbuild.recipe import Hook
from rootfsbuild.rootfs.hooks import run_hooks
run_hooks([Hook("finished", sys.argv[1], False, sys.argv[2])], "finished", "/", None, print, dict(os.environ), print)
"""


CLOSES = """
import os, time
os.closerange(3, 99)
open("pid.2", "w").write(str(os.getpid()))
time.sleep(99)
"""


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def pids(folder):
    return [int(word) for path in folder.glob("pid.*") for word in path.read_text().split()]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    "script",
    [
        "echo $$ > pid.1; exec sleep 99",
        "sleep 99 & echo $! $$ > pid.1; wait",
        "(echo $$ > pid.1; sh -c 'echo $$ > pid.2; sleep 99; true'; true); true",
        f"echo $$ > pid.1; {sys.executable} -c '{CLOSES}'; true",
    ],
    ids=["itself", "in the background", "deep down", "having closed what it inherits"],
)
def test_an_outside_hook_ends_with_its_builder_whatever_ends_that(tmp_path, script, number):
    builder = subprocess.Popen([sys.executable, "-c", BUILDER, script, str(tmp_path)], stderr=subprocess.DEVNULL)
    wait_until(lambda: len(pids(tmp_path)) >= (2 if "pid.2" in script or "$!" in script else 1))
    hooked = pids(tmp_path)
    assert all(map(is_alive, hooked))
    builder.send_signal(number)
    builder.wait()
    wait_until(lambda: not any(map(is_alive, hooked)))


def test_what_a_hook_that_ended_well_leaves_running_goes_on(root):
    log = []
    run([hook("sleep 99 > /dev/null 2>&1 & echo $!", inside=False)], "configured", root, log=log)
    left = int(b"".join(log))
    assert is_alive(left)
    os.kill(left, signal.SIGKILL)


def test_a_hook_whose_shell_cannot_start_leaves_nothing_open(root, tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(FileNotFoundError):
        run([hook("true", inside=False, folder=tmp_path / "none")], "configured", root)
    assert len(os.listdir("/proc/self/fd")) == before
