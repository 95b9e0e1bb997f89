from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess

import pytest
from making.plans import make_package, make_plan

from rootfsbuild.formats.deb.aptstate import write_apt_state
from rootfsbuild.rootfs.inside import edit_root

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="a directory is given to another user, which needs root")
EXTENDED = "/var/lib/apt/extended_states"


@pytest.fixture
def root(tmp_path):
    (tmp_path / "root").mkdir()
    with edit_root(str(tmp_path / "root")) as inside:
        yield inside


def plan_of(*automatic, manual=("apt",)):
    packages = [make_package(name) for name in manual]
    packages += [make_package(name, automatic=True) for name in automatic]
    return make_plan(*packages)


def test_without_apt_there_is_nothing_to_write(root, tmp_path):
    write_apt_state(root, plan_of("libc6", manual=("bash",)))
    assert os.listdir(tmp_path / "root") == []


@needs_root
def test_every_automatic_package_is_marked_under_the_native_architecture(root):
    # apt-mark(8); apt keeps an Architecture: all package under the native one.
    write_apt_state(root, plan_of("libc6", "tzdata", manual=("apt", "bash")))
    stanzas = root.read(EXTENDED).decode().removesuffix("\n\n").split("\n\n")
    assert set(stanzas) == {
        "Package: libc6\nArchitecture: amd64\nAuto-Installed: 1",
        "Package: tzdata\nArchitecture: amd64\nAuto-Installed: 1",
    }


@needs_root
def test_no_mark_no_file(root):
    write_apt_state(root, plan_of())
    assert not root.exists(EXTENDED)


@needs_root
def test_marks_stand_in_apts_order_whatever_the_plans(root):
    names = [f"package-{number}" for number in range(60)]
    write_apt_state(root, plan_of(*names))
    forward = root.read(EXTENDED)
    write_apt_state(root, plan_of(*reversed(names)))
    assert root.read(EXTENDED) == forward
    order = [line.split()[1] for line in forward.decode().splitlines() if line.startswith("Package")]
    assert sorted(order) == sorted(names)
    assert order != sorted(names)


@needs_root
def test_locks_and_private_directories_are_as_apt_makes_them(root):
    root.write("/etc/passwd", b"root:x:0:0::/root:/bin/sh\n_apt:x:142:65534::/nonexistent:/usr/sbin/nologin\n")
    write_apt_state(root, plan_of())
    for path in ("/var/cache/apt/archives/lock", "/var/lib/apt/lists/lock"):
        status = root.status(path)
        assert (status.st_mode & 0o7777, status.st_size) == (0o640, 0)
    for path in ("/var/cache/apt/archives/partial", "/var/lib/apt/lists/partial"):
        status = root.status(path)
        assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o700, 142, 0)


@needs_root
@pytest.mark.parametrize(
    "passwd", [None, b"", b"root:x:0:0::/root:/bin/sh\n", b"_apt\n", b"_apt:x:many:0\n", b"my_apt:x:5:5::\n"]
)
def test_without_a_download_user_they_stay_roots(root, passwd):
    if passwd is not None:
        root.write("/etc/passwd", passwd)
    write_apt_state(root, plan_of())
    assert root.status("/var/lib/apt/lists/partial").st_uid == 0


@needs_root
@pytest.mark.oracle
@pytest.mark.skipif(shutil.which("apt-mark") is None, reason="apt is not installed")
def test_apt_reads_the_marks(root, tmp_path):
    top = tmp_path / "root"
    write_apt_state(root, plan_of("libc6", "tzdata"))
    stanza = (
        "Package: {}\nStatus: install ok installed\nVersion: 1\nArchitecture: amd64\nMaintainer: x\nDescription: x\n\n"
    )
    names = ("apt", "libc6", "tzdata")
    root.write("/var/lib/dpkg/status", "".join(stanza.format(name) for name in names).encode())
    options = [
        f"Dir={top}",
        f"Dir::State::status={top}/var/lib/dpkg/status",
        "APT::Architecture=amd64",
        "APT::Architectures=amd64",
        f"Dir::Cache={top}/var/cache/apt",
    ]
    words = [word for option in options for word in ("-o", option)]
    environment = {**os.environ, "LC_ALL": "C"}
    shown = {
        verb: subprocess.run(
            ["apt-mark", *words, verb], capture_output=True, text=True, check=True, env=environment
        ).stdout.split()
        for verb in ("showauto", "showmanual")
    }
    assert shown == {"showauto": ["libc6", "tzdata"], "showmanual": ["apt"]}


def test_marks_do_not_depend_on_anything_but_names(root):
    if os.geteuid() != 0:
        pytest.skip("needs root")
    one = plan_of("libc6")
    write_apt_state(root, one)
    before = root.read(EXTENDED)
    write_apt_state(root, dataclasses.replace(one, epoch=1))
    assert root.read(EXTENDED) == before
