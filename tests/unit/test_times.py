from __future__ import annotations

import os

import pytest

from rootfsbuild.rootfs.times import clamp_times

EPOCH = 1_600_000_000
BEFORE, AFTER = EPOCH - 1000, EPOCH + 1000
SECOND = 1_000_000_000


def put(path, seconds, *, extra=0):
    stamp = seconds * SECOND + extra
    os.utime(path, ns=(stamp, stamp), follow_symlinks=False)


def when(path):
    return os.lstat(path).st_mtime_ns


@pytest.fixture
def root(tmp_path):
    top = tmp_path / "root"
    (top / "dir/deep").mkdir(parents=True)
    (top / "dir/deep/file").write_text("x")
    (top / "old").write_text("x")
    (top / "link").symlink_to("../outside")
    (tmp_path / "outside").write_text("x")
    return top


def test_only_what_is_later_is_set_to_the_epoch(root):
    put(root / "old", BEFORE, extra=7)
    put(root / "dir/deep/file", AFTER)
    put(root / "dir/deep", EPOCH)
    clamp_times(str(root), EPOCH)
    assert when(root / "old") == BEFORE * SECOND + 7
    assert when(root / "dir/deep/file") == when(root / "dir/deep") == EPOCH * SECOND


def test_a_part_of_a_second_is_later_too(root):
    put(root / "old", EPOCH, extra=1)
    clamp_times(str(root), EPOCH)
    assert when(root / "old") == EPOCH * SECOND


def test_directories_and_the_root_itself_are_set_after_what_they_hold(root):
    clamp_times(str(root), EPOCH)
    for path in (root, root / "dir", root / "dir/deep", root / "dir/deep/file"):
        assert when(path) == EPOCH * SECOND
    assert os.lstat(root).st_atime_ns // SECOND >= EPOCH


def test_a_link_is_set_and_not_what_it_points_to(root):
    put(root.parent / "outside", AFTER)
    clamp_times(str(root), EPOCH)
    assert when(root / "link") == EPOCH * SECOND
    assert when(root.parent / "outside") == AFTER * SECOND


def test_a_link_to_a_directory_is_not_entered(root):
    beside = root.parent / "beside"
    beside.mkdir()
    (beside / "file").write_text("x")
    put(beside / "file", AFTER)
    (root / "way").symlink_to(beside)
    clamp_times(str(root), EPOCH)
    assert when(beside / "file") == AFTER * SECOND


def test_names_that_are_no_text(root):
    path = os.fsencode(root) + b"/\xff\n"
    with open(path, "w"):
        pass
    clamp_times(str(root), EPOCH)
    assert when(path) == EPOCH * SECOND


def test_fifos_are_set_without_being_opened(root):
    os.mkfifo(root / "fifo")
    clamp_times(str(root), EPOCH)
    assert when(root / "fifo") == EPOCH * SECOND


def test_a_root_that_is_a_link_is_refused(root):
    put(root / "old", AFTER)
    (root.parent / "way").symlink_to(root)
    with pytest.raises(OSError, match=r"directory|symbolic"):
        clamp_times(str(root.parent / "way"), EPOCH)
    assert when(root / "old") == AFTER * SECOND
