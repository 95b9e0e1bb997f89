from __future__ import annotations

import os
import stat

import pytest

from rootfsbuild.errors import HostError
from rootfsbuild.formats.deb.skeleton import prepare
from rootfsbuild.formats.format import Image
from rootfsbuild.inspection.dump import dump_tree
from rootfsbuild.rootfs import devices

LINKS = ("bin", "lib", "lib64", "sbin")

# Linux, Documentation/admin-guide/devices.txt.
DEVICES = {
    "console": (5, 1),
    "full": (1, 7),
    "null": (1, 3),
    "ptmx": (5, 2),
    "random": (1, 8),
    "tty": (5, 0),
    "urandom": (1, 9),
    "zero": (1, 5),
}


def image(**fields):
    return Image(**{"architecture": "amd64", "usr_links": LINKS, "sources": "deb x y z\n", "hostname": "", **fields})


@pytest.fixture
def root(tmp_path):
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture
def nodes(monkeypatch):
    """Device nodes without privilege: what mknod(2) was asked for."""
    made = {}

    def mknod(name, mode, device, *, dir_fd):
        made[name] = (stat.S_IFMT(mode), os.major(device), os.minor(device))
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY, dir_fd=dir_fd))

    monkeypatch.setattr(devices.os, "mknod", mknod)
    return made


def test_directories_and_files_of_an_empty_root(root, nodes):
    before = os.umask(0o077)
    try:
        prepare(str(root), image())
    finally:
        os.umask(before)
    dump = {path: " ".join(line.split()[:2]) for path, line in dump_tree(str(root)).items()}
    directories = {path for path, line in dump.items() if line == "directory 0755"}
    assert {"/etc/apt/sources.list.d", "/var/lib/dpkg/info", "/var/log/apt", "/usr/bin", "/dev/pts"} <= directories
    assert dump["/tmp"] == dump["/run/lock"] == "directory 1777"
    assert {path for path, line in dump.items() if line.startswith("directory")} - directories == {"/tmp", "/run/lock"}
    assert (root / "etc/apt/sources.list").read_text() == "deb x y z\n"
    assert (root / "etc/fstab").read_text() == "# UNCONFIGURED FSTAB FOR BASE SYSTEM\n"
    assert (root / "var/lib/dpkg/status").read_text() == ""
    assert all(stat.S_IMODE(os.lstat(root / "dev" / name).st_mode) == 0o666 for name in DEVICES)


def test_nothing_of_the_host_is_there(root, nodes):
    prepare(str(root), image())
    for name in ("hostname", "resolv.conf", "machine-id", "passwd", "dpkg/dpkg.cfg.d/rootfsbuild-paths"):
        assert not os.path.lexists(root / "etc" / name)


def test_merged_usr_is_there_from_the_start(root, nodes):
    prepare(str(root), image())
    for name in LINKS:
        assert os.readlink(root / name) == f"usr/{name}"
        assert (root / "usr" / name).is_dir()


def test_without_merged_usr_there_are_no_links(root, nodes):
    prepare(str(root), image(usr_links=()))
    assert not os.path.lexists(root / "bin")
    assert not os.path.lexists(root / "usr")


def test_hostname_and_architecture_are_the_recipes(root, nodes):
    prepare(str(root), image(hostname="box.example", architecture="arm64"))
    assert (root / "etc/hostname").read_text() == "box.example\n"
    assert (root / "var/lib/dpkg/arch").read_text() == "arm64\n"


def test_excluded_paths_are_told_to_the_images_own_dpkg_with_the_kept_ones_last(root, nodes):
    # dpkg(1): the last matching rule decides.
    prepare(str(root), image(path_exclude=("/usr/share/doc/*", "/usr/share/man/*"), path_keep=("*/copyright",)))
    assert (root / "etc/dpkg/dpkg.cfg.d/rootfsbuild-paths").read_text() == (
        "path-exclude=/usr/share/doc/*\npath-exclude=/usr/share/man/*\npath-include=*/copyright\n"
    )


def test_devices_have_the_kernels_numbers(root, nodes):
    prepare(str(root), image())
    assert nodes == {name: (stat.S_IFCHR, *numbers) for name, numbers in DEVICES.items()}
    links = {name: os.readlink(root / "dev" / name) for name in ("fd", "stdin", "stdout", "stderr")}
    assert links == {
        "fd": "/proc/self/fd",
        "stdin": "/proc/self/fd/0",
        "stdout": "/proc/self/fd/1",
        "stderr": "/proc/self/fd/2",
    }


@pytest.mark.skipif(os.geteuid() != 0, reason="mknod(2) needs root")
def test_devices_are_those_of_this_machine(root):
    try:
        prepare(str(root), image())
    except HostError as error:
        pytest.skip(str(error))
    for name in ("full", "null", "random", "urandom", "zero"):
        ours, theirs = os.lstat(root / "dev" / name), os.stat(f"/dev/{name}")
        assert (stat.S_IFMT(ours.st_mode), ours.st_rdev) == (stat.S_IFMT(theirs.st_mode), theirs.st_rdev)


def test_where_devices_are_forbidden_it_says_what_works_all_the_same(root, monkeypatch):
    def mknod(*_, **__):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(devices.os, "mknod", mknod)
    with pytest.raises(HostError) as caught:
        prepare(str(root), image())
    assert "mknod" in str(caught.value)
    assert "--dry-run" in str(caught.value)
    assert "root" in caught.value.hint
