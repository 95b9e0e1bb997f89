from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from rootfsbuild.formats.deb.database import ADMIN, Unpacked, create_database, read_diversions, record_unpacked
from rootfsbuild.rootfs.inside import edit_root

MD5_A = "0cc175b9c0f1b6a831c399e269772661"
MD5_B = "92eb5ffee6ae2fec3ad71c777531578f"


def control(name="alpha", version="1.0-1", architecture="all", **fields):
    """The bytes of a control file; keywords are further fields, `_` for `-`."""
    lines = {
        "Package": name,
        "Version": version,
        "Architecture": architecture,
        "Maintainer": "Nobody <nobody@example.org>",
        **{key.replace("_", "-"): value for key, value in fields.items()},
        "Description": "made by a test\n with a second line",
    }
    return "".join(f"{key}: {value}\n" for key, value in lines.items()).encode()


def unpacked(name="alpha", architecture="all", *, members=None, paths=(), conffiles=None, **fields):
    every = {member: (data, 0o644) for member, data in (members or {}).items()}
    listed = [b"/.", *(os.fsencode(path) for path in paths)]
    digests = {os.fsencode(path): digest for path, digest in (conffiles or {}).items()}
    return Unpacked(name, architecture, control(name, architecture=architecture, **fields), every, listed, digests)


@pytest.fixture
def root(tmp_path):
    (tmp_path / "root").mkdir()
    with edit_root(str(tmp_path / "root")) as inside:
        create_database(inside, "amd64")
        yield inside


def read(root, path):
    data = root.read(f"{ADMIN}/{path}")
    return None if data is None else data.decode()


# An empty database


def test_empty_database_is_what_dpkg_expects_to_find(root):
    assert read(root, "status") == ""
    assert read(root, "arch") == "amd64\n"
    assert read(root, "info/format") == "1\n"
    assert {"alternatives", "info", "parts", "triggers", "updates"} <= set(root.names(ADMIN))
    assert "available" not in root.names(ADMIN)


# status


def test_status_is_the_control_file_and_the_state_unpacked(root):
    record_unpacked(root, [unpacked()])
    assert read(root, "status") == control().decode() + "Status: install ok unpacked\n\n"


def test_status_separates_packages_by_one_empty_line_however_control_ends(root):
    ragged = Unpacked("alpha", "all", b"\n" + control() + b"\n\n", {}, [b"/."], {})
    record_unpacked(root, [ragged, unpacked("beta")])
    stanzas = read(root, "status").removesuffix("\n\n").split("\n\n")
    assert [stanza.splitlines()[0] for stanza in stanzas] == ["Package: alpha", "Package: beta"]


def test_a_second_call_adds_to_the_first(root):
    record_unpacked(root, [unpacked("alpha")])
    record_unpacked(root, [unpacked("beta")])
    assert read(root, "status").count("Status: install ok unpacked\n\n") == 2


def test_conffiles_stand_with_their_hashes_in_the_order_of_the_package(root):
    package = unpacked(members={"conffiles": b"/etc/b\n/etc/a\n"}, conffiles={"/etc/a": MD5_A, "/etc/b": MD5_B})
    record_unpacked(root, [package])
    assert f"Conffiles:\n /etc/b {MD5_B}\n /etc/a {MD5_A}\n\n" in read(root, "status")


def test_a_flag_of_a_conffile_comes_behind_its_hash(root):
    # deb-conffiles(5): `remove-on-upgrade /etc/old`; such a file is not shipped.
    record_unpacked(root, [unpacked(members={"conffiles": b"remove-on-upgrade /etc/old\n"})])
    assert "Conffiles:\n /etc/old newconffile remove-on-upgrade\n" in read(root, "status")


def test_a_conffile_may_have_a_blank_in_its_name(root):
    package = unpacked(members={"conffiles": b"/etc/a b\n"}, conffiles={"/etc/a b": MD5_A})
    record_unpacked(root, [package])
    assert f"Conffiles:\n /etc/a b {MD5_A}\n" in read(root, "status")


@pytest.mark.parametrize("data", [b"", b"\n", b"  \n\n"])
def test_a_conffiles_member_without_any_makes_no_field(root, data):
    record_unpacked(root, [unpacked(members={"conffiles": data})])
    assert "Conffiles" not in read(root, "status")


# info/


def test_info_holds_list_and_members_with_dpkgs_modes(root):
    package = unpacked(
        members={"postinst": b"#!/bin/sh\n", "md5sums": b"x  y\n", "templates": b"", "config": b"#!/bin/sh\n"},
        paths=["/usr", "/usr/bin", "/usr/bin/alpha"],
    )
    record_unpacked(root, [package])
    assert read(root, "info/alpha.list") == "/.\n/usr\n/usr/bin\n/usr/bin/alpha\n"
    modes = {name: root.status(f"{ADMIN}/info/{name}").st_mode & 0o7777 for name in root.names(f"{ADMIN}/info")}
    assert modes == {
        "alpha.config": 0o755,
        "alpha.list": 0o644,
        "alpha.md5sums": 0o644,
        "alpha.postinst": 0o755,
        "alpha.templates": 0o644,
        "format": 0o644,
    }


@pytest.mark.parametrize(
    ("fields", "stem"),
    [
        ({"Multi_Arch": "same"}, "alpha:amd64"),
        ({"Multi_Arch": " same "}, "alpha:amd64"),
        ({"Multi_Arch": "foreign"}, "alpha"),
        ({"Multi_Arch": "allowed"}, "alpha"),
        ({"X_Multi_Arch": "same"}, "alpha"),
        ({"Comment": "Multi-Arch: same"}, "alpha"),
        ({}, "alpha"),
    ],
)
def test_only_a_package_that_may_be_there_twice_has_its_architecture_in_file_names(root, fields, stem):
    package = unpacked("alpha", "amd64", **fields)
    assert package.record == stem
    record_unpacked(root, [package])
    assert root.exists(f"{ADMIN}/info/{stem}.list")


def test_a_package_without_md5sums_gets_those_that_dpkg_would_make(root):
    root.write("/usr/bin/alpha", b"a")
    root.write("/etc/a", b"b")
    root.link("/usr/bin/link", "alpha")
    paths = ["/etc", "/etc/a", "/usr", "/usr/bin", "/usr/bin/alpha", "/usr/bin/link", "/usr/share/excluded"]
    package = unpacked(paths=paths, members={"conffiles": b"/etc/a\n"}, conffiles={"/etc/a": MD5_B})
    record_unpacked(root, [package, unpacked("empty")])
    assert read(root, "info/alpha.md5sums") == f"{MD5_B}  etc/a\n{MD5_A}  usr/bin/alpha\n"
    # An empty one too: without it `dpkg --audit` asks for the package to be installed again.
    assert read(root, "info/empty.md5sums") == ""


def test_a_path_that_is_no_text_is_listed_as_it_is(root):
    record_unpacked(root, [unpacked(paths=[os.fsdecode(b"/usr/\xff")])])
    assert root.read(f"{ADMIN}/info/alpha.list") == b"/.\n/usr/\xff\n"


# What deb-triggers(5) says of triggers


def test_interests_are_noted_by_trigger_and_by_path(root):
    text = (
        b"# a comment\ninterest /usr/lib\ninterest-noawait ldconfig # why\n"
        b"interest-await man-db\n\nactivate elsewhere\ninterest\n"
    )
    record_unpacked(root, [unpacked(members={"triggers": text})])
    assert read(root, "triggers/File") == "/usr/lib alpha\n"
    assert read(root, "triggers/ldconfig") == "alpha/noawait\n"
    assert read(root, "triggers/man-db") == "alpha\n"
    assert not root.exists(f"{ADMIN}/triggers/elsewhere")


def test_two_packages_may_wait_for_one_trigger(root):
    first = unpacked("alpha", members={"triggers": b"interest ldconfig\n"})
    second = unpacked("beta", "amd64", members={"triggers": b"interest-noawait ldconfig\n"}, Multi_Arch="same")
    record_unpacked(root, [first])
    record_unpacked(root, [second])
    assert read(root, "triggers/ldconfig") == "alpha\nbeta:amd64/noawait\n"


def test_a_file_below_an_interesting_path_activates_it(root):
    watcher = unpacked("alpha", members={"triggers": b"interest-noawait /usr/share/man\n"})
    record_unpacked(root, [watcher])
    inside = unpacked("beta", paths=["/usr/share/man/man1/x.1"])
    beside = unpacked("gamma", paths=["/usr/share/manual"])
    record_unpacked(root, [inside, beside])
    assert read(root, "triggers/Unincorp") == "/usr/share/man -\n"


def test_a_trigger_that_is_waited_for_names_who_waits_once(root):
    record_unpacked(root, [unpacked("alpha", members={"triggers": b"interest /usr/lib\n"})])
    record_unpacked(root, [unpacked("beta", paths=["/usr/lib", "/usr/lib/a", "/usr/lib/b"])])
    assert read(root, "triggers/Unincorp") == "/usr/lib beta\n"


def test_nothing_is_activated_where_nobody_is_interested(root):
    record_unpacked(root, [unpacked(paths=["/usr/lib/a"])])
    assert not root.exists(f"{ADMIN}/triggers/Unincorp")


# Diversions


def test_diversions_are_read_as_dpkg_divert_writes_them(root):
    root.write(f"{ADMIN}/diversions", b"/bin/sh\n/bin/sh.distrib\ndash\n/a\n/a.real\n:\n")
    assert read_diversions(root) == {b"/bin/sh": ("dash", b"/bin/sh.distrib"), b"/a": (":", b"/a.real")}


def test_no_diversions(root):
    assert read_diversions(root) == {}


# The real dpkg reads it as it was meant

needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-query") is None, reason="dpkg is not installed")


def dpkg(tmp_path, *words, program="dpkg"):
    root = tmp_path / "root"
    command = [program, f"--root={root}", f"--admindir={root}{ADMIN}", *words]
    if program == "dpkg-query":
        command = [program, f"--admindir={root}{ADMIN}", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"})


@needs_dpkg
@pytest.mark.oracle
class TestDpkgReads:
    @pytest.fixture(autouse=True)
    def recorded(self, root):
        record_unpacked(
            root,
            [
                unpacked(
                    "alpha",
                    members={
                        "conffiles": b"/etc/b\nremove-on-upgrade /etc/old\n/etc/a\n",
                        "md5sums": f"{MD5_A}  usr/bin/alpha\n".encode(),
                        "triggers": b"interest-noawait /usr/lib\n",
                    },
                    paths=["/etc", "/etc/a", "/etc/b", "/usr", "/usr/bin", "/usr/bin/alpha"],
                    conffiles={"/etc/a": MD5_A, "/etc/b": MD5_B},
                ),
                unpacked("libbeta", "amd64", Multi_Arch="same", paths=["/usr", "/usr/lib", "/usr/lib/libbeta.so"]),
            ],
        )

    def test_every_package_is_unpacked(self, tmp_path):
        listed = dpkg(tmp_path, "-l", program="dpkg-query")
        assert listed.stderr == ""
        states = [line.split()[:3] for line in listed.stdout.splitlines() if line.startswith("i")]
        assert states == [["iU", "alpha", "1.0-1"], ["iU", "libbeta:amd64", "1.0-1"]]

    def test_audit_finds_only_that_they_are_not_configured(self, tmp_path):
        audit = dpkg(tmp_path, "--audit")
        assert audit.stderr == ""
        assert "unpacked but not yet configured" in audit.stdout
        for fault in ("mess", "missing", "triggers", "half"):
            assert fault not in audit.stdout

    def test_files(self, tmp_path):
        listed = dpkg(tmp_path, "-L", "alpha", program="dpkg-query")
        assert listed.stdout.split() == ["/.", "/etc", "/etc/a", "/etc/b", "/usr", "/usr/bin", "/usr/bin/alpha"]
        found = dpkg(tmp_path, "-S", "/usr/lib/libbeta.so", program="dpkg-query")
        assert found.stdout == "libbeta:amd64: /usr/lib/libbeta.so\n"

    def test_conffiles(self, tmp_path):
        shown = dpkg(tmp_path, "-W", "-f=${Conffiles}", "alpha", program="dpkg-query")
        assert shown.stdout == f" /etc/b {MD5_B}\n /etc/old newconffile remove-on-upgrade\n /etc/a {MD5_A}"

    def test_control_members(self, tmp_path):
        shown = dpkg(tmp_path, "--control-list", "alpha", program="dpkg-query")
        assert set(shown.stdout.split()) == {"md5sums", "triggers"}

    @pytest.mark.skipif(os.geteuid() != 0, reason="dpkg --configure wants to be root")
    def test_configuring_needs_nothing_else(self, tmp_path):
        # --force-script-chrootless keeps dpkg from entering a root in which there is no shell.
        done = dpkg(tmp_path, "--force-script-chrootless", "--configure", "-a")
        assert (done.returncode, done.stderr) == (0, "")
        listed = dpkg(tmp_path, "-W", "-f=${db:Status-Abbrev} ${binary:Package}\n", program="dpkg-query")
        assert listed.stdout == "ii  alpha\nii  libbeta:amd64\n"
        assert dpkg(tmp_path, "--audit").stdout == ""
        shown = dpkg(tmp_path, "-W", "-f=${Conffiles}", "alpha", program="dpkg-query")
        assert f" /etc/a {MD5_A}" in shown.stdout
