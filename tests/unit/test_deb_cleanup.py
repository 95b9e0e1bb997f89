from __future__ import annotations

import os
import stat

import pytest
from making.plans import EPOCH, make_package, make_plan

from rootfsbuild.formats.deb.cleanup import clean
from rootfsbuild.inspection.dump import dump_tree
from rootfsbuild.rootfs.inside import edit_root

DAY = EPOCH // 86400


@pytest.fixture
def root(tmp_path):
    (tmp_path / "root").mkdir()
    with edit_root(str(tmp_path / "root")) as inside:
        yield inside


PLAN = make_plan(make_package("bash"))

ACCIDENTS = [
    "/var/log/dpkg.log",
    "/var/log/alternatives.log",
    "/var/log/bootstrap.log",
    "/var/log/apt/history.log",
    "/var/log/apt/term.log",
    "/var/log/apt/eipp.log.xz",
    "/var/cache/ldconfig/aux-cache",
    "/var/cache/apt/pkgcache.bin",
    "/var/cache/apt/srcpkgcache.bin",
    "/var/cache/apt/archives/bash_5_amd64.deb",
    "/var/lib/dbus/machine-id",
    "/var/lib/systemd/random-seed",
    "/var/lib/systemd/credential.secret",
    "/etc/ssh/ssh_host_ed25519_key",
    "/etc/ssh/ssh_host_ed25519_key.pub",
    "/etc/ssl/private/ssl-cert-snakeoil.key",
    "/etc/ssl/certs/ssl-cert-snakeoil.pem",
    "/usr/sbin/policy-rc.d",
    "/var/lib/dpkg/tmp.ci/control",
]
KEPT = [
    "/var/log/faillog",
    "/var/log/btmp",
    "/var/log/other.log",
    "/var/cache/apt/archives/lock",
    "/var/cache/debconf/config.dat-old",
    "/var/lib/dpkg/status-old",
    "/etc/passwd-",
    "/etc/ssh/sshd_config",
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/hostname",
]


def test_accidents_of_the_build_go_and_everything_else_stays(root, tmp_path):
    for path in [*ACCIDENTS, *KEPT]:
        root.write(path, b"x")
    clean(root, PLAN)
    files = {path for path, line in dump_tree(str(tmp_path / "root")).items() if line.startswith("file")}
    assert files == set(KEPT)
    assert not root.exists("/var/lib/dpkg/tmp.ci")
    assert root.exists("/var/log/apt")


def test_an_empty_root_stays_empty(root, tmp_path):
    clean(root, PLAN)
    assert os.listdir(tmp_path / "root") == []


def test_cleaning_twice_is_cleaning_once(root, tmp_path):
    for path in [*ACCIDENTS, "/etc/machine-id", "/etc/shadow"]:
        root.write(path, b"x\n")
    clean(root, PLAN)
    before = dump_tree(str(tmp_path / "root"))
    clean(root, PLAN)
    assert dump_tree(str(tmp_path / "root")) == before


def test_links_that_lead_out_are_removed_and_not_followed(root, tmp_path):
    (tmp_path / "host").mkdir()
    (tmp_path / "host/dpkg.log").write_text("the host's")
    root.make_directory("/var")
    root.link("/var/log", str(tmp_path / "host"))
    root.link("/etc/ssh/ssh_host_rsa_key", str(tmp_path / "host/dpkg.log"))
    clean(root, PLAN)
    assert (tmp_path / "host/dpkg.log").read_text() == "the host's"
    assert not root.exists("/etc/ssh/ssh_host_rsa_key")


# What machine-id(5) asks of an image


def test_a_machine_id_is_emptied_so_that_the_first_boot_makes_one(root):
    root.write("/etc/machine-id", b"0123456789abcdef0123456789abcdef\n", 0o444)
    clean(root, PLAN)
    assert root.read("/etc/machine-id") == b""
    assert stat.S_IMODE(root.status("/etc/machine-id").st_mode) & 0o444 == 0o444


def test_an_image_that_never_had_a_machine_id_gets_none(root):
    root.make_directory("/etc")
    clean(root, PLAN)
    assert not root.exists("/etc/machine-id")


# The days that shadow(5) holds, of password changes


@pytest.mark.parametrize("name", ["/etc/shadow", "/etc/shadow-"])
def test_the_day_of_password_changes_is_at_most_the_plans(root, name):
    text = f"root:*:{DAY + 400}:0:99999:7:::\nold:!:{DAY - 3}:0:99999:7:::\nnever:*::0:99999:7:::\nforced:*:0:0:::::\n"
    root.write(name, text.encode(), 0o640)
    clean(root, PLAN)
    wanted = f"root:*:{DAY}:0:99999:7:::\nold:!:{DAY - 3}:0:99999:7:::\nnever:*::0:99999:7:::\nforced:*:0:0:::::\n"
    assert root.read(name).decode() == wanted
    assert stat.S_IMODE(root.status(name).st_mode) == 0o640


# Links into /usr that no package has filled


def test_links_of_other_word_sizes_go_when_they_are_empty(root):
    for name in ("lib", "lib32", "lib64", "libx32"):
        root.make_directory(f"/usr/{name}")
        root.link(f"/{name}", f"usr/{name}")
    root.write("/usr/lib64/ld-linux-x86-64.so.2", b"")
    clean(root, PLAN)
    assert root.names("/") == ["lib", "lib64", "usr"]
    assert root.names("/usr") == ["lib", "lib64"]


def test_a_directory_that_is_not_a_link_into_usr_stays(root):
    # Without merged /usr, /lib32 is a directory of its own.
    root.write("/lib32/libc.so.6", b"")
    clean(root, PLAN)
    assert root.names("/lib32") == ["libc.so.6"]


@pytest.mark.skipif(os.geteuid() != 0, reason="apt's directories are given to a user, which needs root")
def test_apts_state_is_written_last(root):
    clean(root, make_plan(make_package("apt"), make_package("libc6", automatic=True)))
    assert b"Package: libc6" in root.read("/var/lib/apt/extended_states")
    assert root.exists("/var/cache/apt/archives/lock")
