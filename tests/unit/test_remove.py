from __future__ import annotations

import os
import subprocess

import pytest
from making.extracting import needs_root

from rootfsbuild.errors import TargetError
from rootfsbuild.rootfs import remove
from rootfsbuild.rootfs.remove import mounts_below, remove_tree


def test_a_tree_goes_with_everything_in_it(tmp_path):
    tree = tmp_path / "tree"
    (tree / "a/b/c").mkdir(parents=True)
    (tree / "a/f").write_text("x")
    (tree / "a/l").symlink_to("/etc")
    os.mkfifo(tree / "p")
    open(os.fsencode(tree) + b"/\xff\n", "wb").close()
    remove_tree(str(tree))
    assert os.listdir(tmp_path) == []


def test_a_single_file_and_what_is_not_there(tmp_path):
    (tmp_path / "f").write_text("x")
    remove_tree(str(tmp_path / "f"))
    remove_tree(str(tmp_path / "f"))
    remove_tree(str(tmp_path / "no/such/thing"))
    assert os.listdir(tmp_path) == []


def test_a_symlink_goes_and_what_it_points_to_stays(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").write_text("x")
    (tmp_path / "l").symlink_to("d")
    remove_tree(str(tmp_path / "l"))
    assert os.listdir(tmp_path) == ["d"]
    assert os.listdir(tmp_path / "d") == ["f"]


def test_links_inside_are_not_followed(tmp_path):
    (tmp_path / "keep").mkdir()
    (tmp_path / "keep/f").write_text("x")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/l").symlink_to(tmp_path / "keep")
    remove_tree(str(tmp_path / "tree"))
    assert os.listdir(tmp_path / "keep") == ["f"]


def test_a_tree_deeper_than_any_path_and_any_stack(tmp_path):
    top = os.open(tmp_path, os.O_RDONLY)
    os.mkdir("tree", dir_fd=top)
    fd = os.open("tree", os.O_RDONLY, dir_fd=top)
    for _ in range(1100):
        os.mkdir("d", dir_fd=fd)
        child = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = child
    os.close(fd)
    os.close(top)
    remove_tree(str(tmp_path / "tree"))
    assert os.listdir(tmp_path) == []


def test_a_directory_without_permissions(tmp_path):
    (tmp_path / "tree/closed/in").mkdir(parents=True)
    (tmp_path / "tree/closed").chmod(0)
    remove_tree(str(tmp_path / "tree"))
    assert os.listdir(tmp_path) == []


def test_the_root_of_the_file_system_is_refused():
    with pytest.raises(TargetError):
        remove_tree("/")


@pytest.fixture
def canary(tmp_path):
    """A tree in which a folder of the same file system is bind-mounted, a file of it is a canary."""
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/canary").write_text("alive")
    (tmp_path / "tree/a/mnt").mkdir(parents=True)
    (tmp_path / "tree/b").write_text("x")
    subprocess.run(["mount", "--bind", tmp_path / "precious", tmp_path / "tree/a/mnt"], check=True)
    yield tmp_path / "precious/canary"
    subprocess.run(["umount", tmp_path / "tree/a/mnt"], check=True)


@needs_root
def test_a_bind_mount_in_the_tree_is_refused_before_anything_is_deleted(tmp_path, canary):
    with pytest.raises(TargetError, match=r"a/mnt in it is a mount") as caught:
        remove_tree(str(tmp_path / "tree"))
    assert canary.read_text() == "alive"
    assert (tmp_path / "tree/b").exists()
    assert "umount" in caught.value.hint


@needs_root
def test_the_canary_survives_even_if_the_mount_table_does_not_tell(tmp_path, canary, monkeypatch):
    monkeypatch.setattr(remove, "mounts_below", lambda _path: [])
    with pytest.raises(TargetError):
        remove_tree(str(tmp_path / "tree"))
    assert canary.read_text() == "alive"


@needs_root
def test_a_mounted_file_is_refused_too(tmp_path, monkeypatch):
    monkeypatch.setattr(remove, "mounts_below", lambda _path: [])
    (tmp_path / "canary").write_text("alive")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/f").write_text("")
    subprocess.run(["mount", "--bind", tmp_path / "canary", tmp_path / "tree/f"], check=True)
    try:
        with pytest.raises(TargetError):
            remove_tree(str(tmp_path / "tree"))
        assert (tmp_path / "canary").read_text() == "alive"
    finally:
        subprocess.run(["umount", tmp_path / "tree/f"], check=True)


@needs_root
def test_a_mount_point_itself_is_refused(tmp_path):
    (tmp_path / "strange name\\").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", tmp_path / "strange name\\"], check=True)
    try:
        assert mounts_below(str(tmp_path)) == [str(tmp_path / "strange name\\")]
        with pytest.raises(TargetError):
            remove_tree(str(tmp_path / "strange name\\"))
    finally:
        subprocess.run(["umount", tmp_path / "strange name\\"], check=True)
