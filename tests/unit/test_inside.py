from __future__ import annotations

import os
import stat

import pytest

from rootfsbuild.errors import HostError
from rootfsbuild.rootfs import openat2 as module
from rootfsbuild.rootfs.inside import edit_root
from rootfsbuild.rootfs.openat2 import open_inside


@pytest.fixture
def top(tmp_path):
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture
def root(top):
    with edit_root(str(top)) as inside:
        yield inside


@pytest.fixture
def outside(tmp_path):
    """A file beside the root that nothing may touch."""
    secret = tmp_path / "secret"
    secret.write_text("the host's")
    return secret


def mode(path):
    return stat.S_IMODE(os.lstat(path).st_mode)


# Nothing leads out


@pytest.mark.parametrize("link", ["../secret", "../../../../../../../../{outside}", "{outside}"])
def test_reading_follows_links_only_within_the_root(root, top, outside, link):
    (top / "leak").symlink_to(link.format(outside=outside))
    assert root.read("/leak") is None
    assert root.read("/leak/x") is None


def test_dots_stop_at_the_root(root, top, outside):
    (top / "a").write_text("inside")
    assert root.read("/../../a") == b"inside"
    assert root.read("../secret") is None


def test_an_absolute_link_means_the_roots_own_file(root, top):
    (top / "etc").mkdir()
    (top / "etc/passwd").write_text("the root's")
    (top / "link").symlink_to("/etc/passwd")
    assert root.read("/link") == b"the root's"


def test_a_directory_that_is_a_link_leads_into_the_root(root, top, tmp_path):
    (tmp_path / "host").mkdir()
    (top / "host").mkdir()
    (top / "way").symlink_to(tmp_path / "host")
    with pytest.raises(OSError, match="No such file"):
        root.write("/way/file", b"x")
    (top / "there").symlink_to("/host")
    root.write("/there/file", b"x")
    assert (top / "host/file").read_bytes() == b"x"
    assert os.listdir(tmp_path / "host") == []


@pytest.mark.parametrize("place", ["target", "dangling"])
def test_writing_does_not_follow_the_last_link(root, top, outside, place):
    if place == "target":
        (top / "target").write_text("kept")
    (top / "link").symlink_to("target")
    with pytest.raises(OSError, match="symbolic links"):
        root.write("/link", b"new")
    assert os.readlink(top / "link") == "target"
    assert not (top / "target").exists() or (top / "target").read_text() == "kept"


def test_proc_is_no_way_out(root, top):
    # A magic link leads to wherever its process's root is, whatever the path says.
    if not os.path.exists("/proc/self/root"):
        pytest.skip("needs /proc")
    descriptor = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises(OSError, match="symbolic links"):
            open_inside(descriptor, "self/root/etc", os.O_RDONLY)
    finally:
        os.close(descriptor)


def test_a_root_that_is_a_link_is_refused(top, tmp_path):
    (tmp_path / "link").symlink_to(top)
    with pytest.raises(OSError, match=r"directory|symbolic"), edit_root(str(tmp_path / "link")):
        pass


def test_a_kernel_without_openat2_is_said_to_be_what_is_missing(root, monkeypatch):
    class Old:
        def syscall(self, *_):
            import ctypes

            ctypes.set_errno(38)
            return -1

    monkeypatch.setattr(module, "_libc", Old())
    with pytest.raises(HostError) as caught:
        root.read("/etc/passwd")
    assert "openat2" in str(caught.value)
    assert "5.6" in caught.value.hint


# Reading


def test_reading_what_is_no_file_gives_nothing(root, top):
    (top / "directory").mkdir()
    os.mkfifo(top / "fifo")
    (top / "file").write_bytes(b"\xff\0")
    assert root.read("/file") == b"\xff\0"
    assert [root.read(path) for path in ("/directory", "/fifo", "/file/below", "/none", "/none/x")] == [None] * 5


def test_names_are_sorted_and_missing_directories_empty(root, top):
    for name in ("b", "a", "C"):
        (top / name).write_text("")
    (top / "empty").mkdir()
    assert root.names("/") == ["C", "a", "b", "empty"]
    assert root.names("/empty") == root.names("/none") == root.names("/a") == []


def test_status_is_that_of_the_link_itself(root, top):
    (top / "dangling").symlink_to("nowhere")
    assert stat.S_ISLNK(root.status("/dangling").st_mode)
    assert root.exists("/dangling")
    assert not root.exists("/nowhere")
    assert not root.exists("/dangling/x")
    assert root.status("/").st_ino == os.stat(top).st_ino


# Writing


def test_write_makes_what_lies_above_and_sets_exact_modes_whatever_the_umask(root, top):
    before = os.umask(0o077)
    try:
        root.write("/a/b/file", b"data", 0o664)
        root.make_directory("/t", 0o1777)
    finally:
        os.umask(before)
    assert (top / "a/b/file").read_bytes() == b"data"
    modes = [mode(top / path) for path in ("a", "a/b", "a/b/file", "t")]
    assert modes == [0o755, 0o755, 0o664, 0o1777]


def test_write_replaces_the_bytes_and_append_adds(root, top):
    root.write("/file", b"long text", 0o600)
    root.write("/file", b"short")
    assert ((top / "file").read_bytes(), mode(top / "file")) == (b"short", 0o644)
    root.write("/file", b"er", append=True)
    assert (top / "file").read_bytes() == b"shorter"


def test_an_existing_directory_stays_as_it_is(root, top):
    (top / "etc").mkdir(mode=0o700)
    root.make_directory("/etc/apt")
    root.make_directory("/etc", 0o755)
    assert mode(top / "etc") == 0o700
    root.make_directory("/")


def test_a_directory_may_be_a_link_to_one(root, top):
    (top / "usr").mkdir()
    (top / "lib").symlink_to("usr")
    root.make_directory("/lib/new")
    assert (top / "usr/new").is_dir()


def test_a_file_where_a_directory_should_be_is_an_error(root, top):
    (top / "etc").write_text("")
    with pytest.raises(OSError, match="Not a directory"):
        root.write("/etc/passwd", b"")


def test_link_keeps_its_text(root, top):
    root.link("/dev/fd", "/proc/self/fd")
    assert os.readlink(top / "dev/fd") == "/proc/self/fd"


# Removing


def test_remove_takes_one_name_and_does_not_miss_what_is_not_there(root, top):
    (top / "target").write_text("")
    (top / "link").symlink_to("target")
    for path in ("/link", "/link", "/none/x", "/target/x"):
        root.remove(path)
    assert os.listdir(top) == ["target"]


def test_remove_directory_only_removes_an_empty_one(root, top):
    (top / "empty").mkdir()
    (top / "full").mkdir()
    (top / "full/file").write_text("")
    (top / "file").write_text("")
    for path in ("/empty", "/full", "/file", "/none"):
        root.remove_directory(path)
    assert sorted(os.listdir(top)) == ["file", "full"]


def test_no_descriptor_is_left_open(top):
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    with edit_root(str(top)) as root:
        root.write("/a/b", b"x")
        root.read("/a/b")
        root.names("/a")
        root.read("/none")
        root.remove("/a/b")
    assert (len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0) == before
