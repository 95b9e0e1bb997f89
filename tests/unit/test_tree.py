from __future__ import annotations

import os
import socket
import subprocess

import pytest
from making.extracting import needs_root

from rootfsbuild.rootfs.entries import Kind
from rootfsbuild.rootfs.tree import read_tree


def _read(root):
    return [(entry, b"".join(content)) for entry, content in read_tree(str(root))]


def test_every_kind_is_read_and_paths_are_in_order_name_by_name(tmp_path):
    (tmp_path / "d").mkdir(mode=0o750)
    (tmp_path / "d/f").write_bytes(b"hello")
    (tmp_path / "d.conf").write_bytes(b"")
    (tmp_path / "l").symlink_to("/nowhere/../x")
    os.mkfifo(tmp_path / "p", 0o600)
    os.utime(tmp_path / "d/f", ns=(5, 1_000_000_007))
    found = _read(tmp_path)
    assert [(entry.path, entry.kind) for entry, _ in found] == [
        (b"", Kind.DIRECTORY),
        (b"d", Kind.DIRECTORY),
        (b"d/f", Kind.FILE),
        (b"d.conf", Kind.FILE),
        (b"l", Kind.SYMLINK),
        (b"p", Kind.FIFO),
    ]
    entry, body = found[2]
    assert (entry.size, entry.mtime, entry.uid, body) == (5, 1_000_000_007, os.getuid(), b"hello")
    assert found[4][0].target == b"/nowhere/../x"


def test_later_names_of_an_inode_are_hard_links_to_the_first(tmp_path):
    (tmp_path / "b").write_bytes(b"x")
    os.link(tmp_path / "b", tmp_path / "a")
    os.link(tmp_path / "b", tmp_path / "c")
    found = [(entry.path, entry.kind, entry.target, body) for entry, body in _read(tmp_path)[1:]]
    assert found == [
        (b"a", Kind.FILE, b"", b"x"),
        (b"b", Kind.HARDLINK, b"a", b""),
        (b"c", Kind.HARDLINK, b"a", b""),
    ]


def test_hard_linked_symlinks_keep_their_text(tmp_path):
    os.symlink("target", tmp_path / "a")
    os.link(tmp_path / "a", tmp_path / "b", follow_symlinks=False)
    found = [(entry.kind, entry.target) for entry, _ in _read(tmp_path)[1:]]
    assert found == [(Kind.SYMLINK, b"target"), (Kind.HARDLINK, b"a")]


def test_names_that_are_not_text_survive(tmp_path):
    names = [b"\xff\xfe", b"new\nline", b"x" * 255]
    for name in names:
        open(os.fsencode(tmp_path) + b"/" + name, "wb").close()
    assert sorted(entry.path for entry, _ in _read(tmp_path)[1:]) == sorted(names)


def test_a_directory_by_descriptor_is_read_and_stays_open(tmp_path):
    (tmp_path / "f").write_bytes(b"x")
    fd = os.open(tmp_path, os.O_RDONLY)
    assert [entry.path for entry, _ in read_tree(fd)] == [b"", b"f"]
    os.fstat(fd)
    os.close(fd)


def test_sockets_are_left_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as one:
        one.bind("s")
        assert [entry.path for entry, _ in _read(tmp_path)] == [b""]


@needs_root
def test_attributes_devices_and_owners_are_read(tmp_path):
    (tmp_path / "f").write_bytes(b"x")
    capability = b"\x01\0\0\x02\0\x20\0\0" + bytes(12)
    os.chown(tmp_path / "f", 12, 34)
    os.setxattr(tmp_path / "f", "security.capability", capability)
    os.setxattr(tmp_path / "f", "trusted.mark", b"host")
    os.mknod(tmp_path / "n", 0o020666, os.makedev(1, 3))
    _, (file, _), (node, _) = _read(tmp_path)
    assert (file.uid, file.gid, file.xattrs) == (12, 34, (("security.capability", capability),))
    assert (node.kind, node.device) == (Kind.CHARACTER, (1, 3))


@needs_root
@pytest.mark.parametrize("what", ["tmpfs", "bind"])
def test_what_is_mounted_in_a_tree_is_not_read(tmp_path, what):
    (tmp_path / "tree/mnt").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/secret").write_text("x")
    mount = ["mount", "--bind", tmp_path / "other"] if what == "bind" else ["mount", "-t", "tmpfs", "none"]
    subprocess.run([*mount, tmp_path / "tree/mnt"], check=True)
    try:
        (tmp_path / "tree/mnt/more").write_text("y")
        assert [entry.path for entry, _ in _read(tmp_path / "tree")] == [b"", b"mnt"]
    finally:
        subprocess.run(["umount", tmp_path / "tree/mnt"], check=True)
