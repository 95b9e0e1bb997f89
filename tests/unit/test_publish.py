from __future__ import annotations

import errno
import json
import os
import signal
import stat
import subprocess
import sys

import pytest
from making.extracting import needs_root

from rootfsbuild.errors import InterruptedBuildError, PackageError, StorageError, TargetError
from rootfsbuild.events import Published, Warned
from rootfsbuild.rootfs import publish
from rootfsbuild.rootfs.publish import check_target, open_staging, sweep_stale


def _build(target, text="new", **options):
    with open_staging(str(target), home="/nonexistent", cwd="/", **options) as staging:
        with open(os.path.join(staging.root, "f"), "w") as file:
            file.write(text)
        os.rename(staging.root, staging.result)
        return staging.publish({"name": "x"})


def _fail(target, **options):
    """A build that fails after it has written one file."""
    with open_staging(str(target), home="/nonexistent", cwd="/", **options) as staging:
        open(os.path.join(staging.root, "f"), "w").close()
        raise PackageError("x", "broken", hint="look")


def _meet(target, make):
    """A build in whose way something comes while it works."""
    with open_staging(str(target), home="/nonexistent", cwd="/") as staging:
        os.rename(staging.root, staging.result)
        make(target)
        staging.publish({})


def _refuse(*_words, **_named):
    raise OSError(errno.EIO, "the disk is broken")


def _check(path, **options):
    return check_target(str(path), **{"home": "/nonexistent", "cwd": "/nonexistent", **options})


def test_a_lock_is_published_with_its_result(tmp_path):
    with open_staging(str(tmp_path / "x")) as staging:
        os.rename(staging.root, staging.result)
        staging.publish({}, lock="a lock\n")
    assert sorted(os.listdir(tmp_path)) == ["x", "x.lock", "x.manifest.json"]
    assert (tmp_path / "x.lock").read_text() == "a lock\n"


def test_a_result_appears_whole_with_its_record_and_nothing_else(tmp_path):
    manifest = _build(tmp_path / "out" / "debian")
    assert sorted(os.listdir(tmp_path / "out")) == ["debian", "debian.manifest.json"]
    assert (tmp_path / "out/debian/f").read_text() == "new"
    assert stat.S_IMODE(os.stat(tmp_path / "out/debian").st_mode) == 0o755
    record = json.loads((tmp_path / "out/debian.manifest.json").read_text())
    assert manifest == str(tmp_path / "out/debian.manifest.json")
    assert record["name"] == "x"
    assert record["made"][0]["inode"] == os.stat(tmp_path / "out/debian").st_ino


def test_the_result_is_not_visible_before_it_is_published(tmp_path):
    with open_staging(str(tmp_path / "debian"), home="/nonexistent", cwd="/") as staging:
        assert not (tmp_path / "debian").exists()
        assert stat.S_IMODE(os.stat(staging.directory).st_mode) == 0o700
        assert os.stat(staging.root).st_dev == os.stat(tmp_path).st_dev
    assert os.listdir(tmp_path) == []


def test_a_file_is_published_too_and_replaced_by_force(tmp_path):
    for text in ("one", "two"):
        with open_staging(str(tmp_path / "x.tar"), force=text == "two", home="/nonexistent", cwd="/") as staging:
            with open(staging.result, "w") as file:
                file.write(text)
            staging.publish({})
    assert (tmp_path / "x.tar").read_text() == "two"
    assert sorted(os.listdir(tmp_path)) == ["x.tar", "x.tar.manifest.json"]


@pytest.mark.parametrize("content", [(), ("lost+found",)])
def test_an_empty_directory_is_accepted(tmp_path, content):
    (tmp_path / "debian").mkdir()
    for name in content:
        (tmp_path / "debian" / name).mkdir()
    _build(tmp_path / "debian")
    assert sorted(os.listdir(tmp_path / "debian")) == sorted(["f", *content])
    assert sorted(os.listdir(tmp_path)) == ["debian", "debian.manifest.json"]


@needs_root
def test_an_empty_file_system_is_filled(tmp_path):
    (tmp_path / "debian").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", tmp_path / "debian"], check=True)
    try:
        _build(tmp_path / "debian")
        assert os.listdir(tmp_path / "debian") == ["f"]
        assert stat.S_IMODE(os.stat(tmp_path / "debian").st_mode) == 0o755
    finally:
        subprocess.run(["umount", tmp_path / "debian"], check=True)


def test_files_of_the_users_are_refused_with_or_without_force(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis").write_text("x")
    (tmp_path / "file").write_text("x")
    for name in ("mine", "file"):
        for force in (False, True):
            with pytest.raises(TargetError, match="no build of rootfsbuild made it"):
                _build(tmp_path / name, force=force)
    assert sorted(os.listdir(tmp_path)) == ["file", "mine"]
    assert (tmp_path / "mine/thesis").read_text() == "x"


def test_an_earlier_result_is_replaced_only_by_force(tmp_path):
    _build(tmp_path / "debian", "old")
    with pytest.raises(TargetError, match="earlier build") as caught:
        _build(tmp_path / "debian")
    assert "--force" in caught.value.hint
    _build(tmp_path / "debian", "new", force=True)
    _build(tmp_path / "debian", "newer", force=True)
    assert (tmp_path / "debian/f").read_text() == "newer"
    assert sorted(os.listdir(tmp_path)) == ["debian", "debian.manifest.json"]


def test_a_directory_put_in_an_earlier_results_place_is_the_users(tmp_path):
    _build(tmp_path / "debian")
    os.rename(tmp_path / "debian", tmp_path / "moved")
    (tmp_path / "debian").mkdir()
    (tmp_path / "debian/mine").write_text("x")
    with pytest.raises(TargetError, match="no build"):
        _build(tmp_path / "debian", force=True)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"made": [{}]}', '{"made": 3}', "not json", '{"made": [null]}'])
def test_a_broken_record_recognises_nothing(tmp_path, text):
    (tmp_path / "debian").mkdir()
    (tmp_path / "debian/mine").write_text("x")
    (tmp_path / "debian.manifest.json").write_text(text)
    with pytest.raises(TargetError, match="no build"):
        _check(tmp_path / "debian", force=True)


def test_the_root_of_the_file_system_is_refused():
    for path in ("/", "//", "/tmp/..", "/."):
        with pytest.raises(TargetError):
            _check(path, force=True)


@pytest.mark.parametrize("force", [False, True])
def test_home_and_working_directory_and_what_holds_them_are_refused(tmp_path, force):
    (tmp_path / "a/b").mkdir(parents=True)
    for path in ("a", "a/b", "a/b/../b", "."):
        for where in ({"home": str(tmp_path / "a/b")}, {"cwd": str(tmp_path / "a/b")}):
            with pytest.raises(TargetError, match="holds"):
                _check(tmp_path / path, force=force, **where)
    assert _check(tmp_path / "a/b/c", home=str(tmp_path / "a/b")) == str(tmp_path / "a/b/c")
    assert _check(tmp_path / "a/bb", cwd=str(tmp_path / "a/b")) == str(tmp_path / "a/bb")


def test_the_real_home_and_working_directory_are_meant_by_default(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    for path in (".", "home", ""):
        with pytest.raises(TargetError):
            check_target(path)
    assert check_target("new") == str(tmp_path / "new")


@pytest.mark.parametrize("force", [False, True])
def test_a_symlink_is_refused_and_a_symlink_above_is_followed(tmp_path, force):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "dangling").symlink_to("nowhere")
    for name in ("link", "dangling"):
        with pytest.raises(TargetError, match="symbolic link"):
            _check(tmp_path / name, force=force)
    assert _check(tmp_path / "link/new") == str(tmp_path / "real/new")


def test_a_target_that_appears_meanwhile_is_not_overwritten(tmp_path):
    for make in (lambda path: (path.mkdir(), (path / "mine").write_text("x")), lambda path: path.write_text("x")):
        target = tmp_path / f"t{len(os.listdir(tmp_path))}"
        with pytest.raises(TargetError, match="came into being"):
            _meet(target, make)
        assert target.is_file() or (target / "mine").read_text() == "x"
        assert not os.path.exists(f"{target}.manifest.json")


def test_what_happens_after_the_renaming_takes_nothing_back(tmp_path, monkeypatch):
    monkeypatch.setattr(publish, "_sync_directory", _refuse)
    said = []
    with open_staging(str(tmp_path / "x"), home="/nonexistent", cwd="/") as staging:
        os.rename(staging.root, staging.result)
        assert staging.publish({}, said.append) == str(tmp_path / "x.manifest.json")
    assert sorted(os.listdir(tmp_path)) == ["x", "x.manifest.json"]
    assert said[0] == Published(str(tmp_path / "x"))
    assert isinstance(said[1], Warned)
    assert "the disk is broken" in said[1].text


def test_a_renaming_that_fails_leaves_no_record(tmp_path, monkeypatch):
    monkeypatch.setattr(publish, "_put", _refuse)
    with pytest.raises(StorageError, match="the disk is broken"):
        _build(tmp_path / "x")
    assert os.listdir(tmp_path) == []


def test_an_earlier_result_that_cannot_be_replaced_comes_back(tmp_path, monkeypatch):
    _build(tmp_path / "x", "old")
    real = os.rename

    def rename(source, target):
        if source.endswith("/result") and target == str(tmp_path / "x"):
            _refuse()
        real(source, target)

    class Without:
        """A C library, or a file system, that cannot exchange two names."""

        def __getattr__(self, name):
            return (lambda *_: -1) if name == "renameat2" else getattr(libc, name)

    libc = publish._libc
    monkeypatch.setattr(publish, "_libc", Without())
    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(StorageError, match="the disk is broken"):
        _build(tmp_path / "x", force=True)
    assert (tmp_path / "x/f").read_text() == "old"
    monkeypatch.undo()
    _build(tmp_path / "x", "new", force=True)  # still known for a result


def test_a_file_system_that_cannot_be_filled_is_left_empty(tmp_path, monkeypatch):
    (tmp_path / "disk/lost+found").mkdir(parents=True)
    monkeypatch.setattr(os, "chown", _refuse)
    with pytest.raises(StorageError, match="the disk is broken"):
        _build(tmp_path / "disk")
    assert os.listdir(tmp_path / "disk") == ["lost+found"]
    assert os.listdir(tmp_path) == ["disk"]


def test_a_failed_build_leaves_nothing(tmp_path):
    with pytest.raises(PackageError):
        _fail(tmp_path / "debian")
    assert os.listdir(tmp_path) == []


def test_a_failed_build_with_force_leaves_the_earlier_result(tmp_path):
    _build(tmp_path / "debian", "old")
    with pytest.raises(PackageError):
        _fail(tmp_path / "debian", force=True)
    assert (tmp_path / "debian/f").read_text() == "old"


def test_keep_keeps_the_half_made_root_and_says_where(tmp_path):
    for expected in ("debian.kept", "debian.kept-2"):
        with pytest.raises(PackageError) as caught:
            _fail(tmp_path / "debian", keep=True)
        assert os.listdir(tmp_path / expected) == ["f"]
        assert caught.value.hint == f"look; the half-made root is {tmp_path / expected}"
    assert sorted(os.listdir(tmp_path)) == ["debian.kept", "debian.kept-2"]


def test_keep_says_where_the_root_of_a_stopped_build_is(tmp_path):
    with (
        pytest.raises(InterruptedBuildError) as caught,
        open_staging(str(tmp_path / "debian"), home="/nonexistent", cwd="/", keep=True),
    ):
        raise InterruptedBuildError(signal.SIGINT)
    assert caught.value.hint == f"the half-made root is {tmp_path / 'debian.kept'}"


def _killed_build(target):
    program = f"""
import os, signal
from rootfsbuild.rootfs.publish import open_staging
with open_staging({str(target)!r}, home="/nonexistent", cwd="/") as staging:
    open(os.path.join(staging.root, "f"), "w").close()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -signal.SIGKILL


def test_what_a_killed_build_left_is_swept_by_the_next(tmp_path):
    _killed_build(tmp_path / "debian")
    assert len(os.listdir(tmp_path)) == 1
    _build(tmp_path / "other")
    assert sorted(os.listdir(tmp_path)) == ["other", "other.manifest.json"]


def test_what_a_living_build_holds_is_not_swept(tmp_path):
    with open_staging(str(tmp_path / "debian"), home="/nonexistent", cwd="/") as staging:
        sweep_stale(str(tmp_path))
        assert os.path.isdir(staging.root)


def test_only_staging_directories_are_swept(tmp_path):
    (tmp_path / "x.rootfsbuild-1").mkdir()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".a.rootfsbuild-2").symlink_to("x.rootfsbuild-1")
    (tmp_path / ".b.rootfsbuild-3").write_text("a file")
    sweep_stale(str(tmp_path))
    assert len(os.listdir(tmp_path)) == 4


@needs_root
def test_a_mount_in_a_dead_builds_directory_is_left_and_reported(tmp_path):
    _killed_build(tmp_path / "debian")
    point = tmp_path / os.listdir(tmp_path)[0] / "root"
    subprocess.run(["mount", "-t", "tmpfs", "none", point], check=True)
    told = []
    try:
        (point / "canary").write_text("alive")
        sweep_stale(str(tmp_path), told.append)
        assert (point / "canary").read_text() == "alive"
        assert "is a mount" in told[0]
    finally:
        subprocess.run(["umount", point], check=True)


def test_a_name_of_255_bytes_can_be_a_target(tmp_path):
    name = "n" * (255 - len(".manifest.json"))
    _build(tmp_path / name)
    assert (tmp_path / name / "f").exists()
