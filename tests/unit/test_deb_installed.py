from __future__ import annotations

import os
import sys

import pytest

from rootfsbuild.errors import PackageError, UsageError
from rootfsbuild.formats.deb.installed import installed
from rootfsbuild.listed import Listed

BASH = """\
Package: bash
Essential: yes
Status: install ok installed
Installed-Size: 7164
Architecture: amd64
Version: 5.2.15-2+b7
Source: bash-source (5.2.15-2)
Conffiles:
 /etc/bash.bashrc 89269e1298235f1b12b4c16e4065ad0d
 .
Description: GNU Bourne Again SHell
"""


def stanza(name="alpha", status="install ok installed", **fields):
    values = {"Package": name, "Status": status, "Architecture": "amd64", "Version": "1.0-1", **fields}
    return "".join(f"{key.replace('_', '-')}: {value}\n" for key, value in values.items() if value is not None)


@pytest.fixture
def root(tmp_path):
    (tmp_path / "var/lib/dpkg").mkdir(parents=True)
    return tmp_path


def write(root, *stanzas):
    data = "\n".join(stanzas)
    (root / "var/lib/dpkg/status").write_bytes(data.encode("utf-8", "surrogateescape"))
    return str(root)


def names(root):
    return [package.name for package in installed(str(root))]


def refused(root):
    with pytest.raises(PackageError) as caught:
        installed(str(root))
    assert caught.value.package == str(root)
    return str(caught.value)


def test_a_package_is_read_as_dpkg_wrote_it(root):
    assert installed(write(root, BASH)) == (
        Listed("bash", "5.2.15-2+b7", "amd64", "bash-source", "5.2.15-2", 7164 * 1024),
    )


def test_what_is_not_said_has_the_usual_meaning(root):
    found = installed(write(root, stanza("a"), stanza("b", Source="src")))
    assert found[0] == Listed("a", "1.0-1", "amd64", "a", "1.0-1", 0)
    assert (found[1].source, found[1].source_version) == ("src", "1.0-1")


@pytest.mark.parametrize(
    ("status", "is_there"),
    [
        ("install ok installed", True),
        ("hold ok installed", True),
        ("deinstall ok installed", True),
        ("install ok triggers-pending", True),
        ("install ok triggers-awaited", True),
        ("install reinstreq installed", False),
        ("install ok unpacked", False),
        ("install ok half-configured", False),
        ("deinstall ok config-files", False),
        ("purge ok not-installed", False),
    ],
)
def test_only_what_is_installed_counts(root, status, is_there):
    assert names(write(root, stanza("other"), stanza("alpha", status))) == ["alpha", "other"][not is_there :]


def test_what_is_not_installed_may_lack_fields(root):
    write(root, stanza("gone", "deinstall ok config-files", Version=None, Architecture=None), stanza())
    assert names(root) == ["alpha"]


def test_order_is_by_name_and_then_architecture(root):
    write(root, stanza("b"), stanza("a", Architecture="i386"), stanza("a"))
    assert [(package.name, package.architecture) for package in installed(str(root))] == [
        ("a", "amd64"),
        ("a", "i386"),
        ("b", "amd64"),
    ]


def test_an_empty_database_is_an_empty_list(root):
    assert installed(write(root, "")) == ()
    assert installed(write(root, "\n\n\n")) == ()


def test_images_without_dpkg_have_a_file_for_each_package(root):
    folder = root / "var/lib/dpkg/status.d"
    folder.mkdir()
    (folder / "tzdata").write_text(stanza("tzdata", None))
    (folder / "bGliYzY=").write_text(stanza("libc6", None))
    (folder / "tzdata.md5sums").write_text("d41d8cd98f00b204e9800998ecf8427e  usr/share/x\n")
    assert names(root) == ["libc6", "tzdata"]
    write(root, stanza("bash"))
    assert names(root) == ["bash", "libc6", "tzdata"]


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        (stanza() + "\nno field\n", 6, "no field"),
        (" continued\n", 1, "continues"),
        (stanza() + "\n continued\n", 6, "continues"),
        (stanza() + "version: 2\n", 5, "twice"),
        (stanza() + "\n" + stanza(), 6, "alpha is there twice"),
        (stanza(Version="one"), 4, "no version"),
        (stanza(Version="1\x1b[2J"), 4, "no version"),
        (stanza(Version=None), 1, "no field Version"),
        (stanza(Architecture=None), 1, "no field Architecture"),
        (stanza("a b"), 1, "Package cannot be"),
        (stanza("../a"), 1, "Package cannot be"),
        (stanza(Architecture="AMD 64"), 3, "Architecture cannot be"),
        (stanza(Source="a (1) (2)"), 5, "Source cannot be"),
        (stanza(Installed_Size="-1"), 5, "Installed-Size cannot be"),
        (stanza(Installed_Size="9" * 5000), 5, "Installed-Size cannot be"),
        (stanza(status="installed"), 2, "three words"),
        (stanza("alpha", None), 1, "no field Status"),
        ("\udcff\udcfe\n", 1, "no field"),
    ],
)
def test_malformed_is_refused_with_its_line(root, text, line, problem):
    told = refused(write(root, text))
    assert f"/var/lib/dpkg/status: line {line}: " in told
    assert problem in told


def test_a_folder_that_is_no_root_is_refused(tmp_path):
    assert "no root" in refused(tmp_path)
    for path in (tmp_path / "absent", tmp_path / "file"):
        (tmp_path / "file").touch()
        with pytest.raises(UsageError, match=path.name):
            installed(str(path))


def test_links_are_followed_inside_of_the_root_only(root, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "status"
    outside.write_text(stanza("outside"))
    status = root / "var/lib/dpkg/status"
    status.symlink_to(outside)
    assert "no root" in refused(root)
    status.unlink()
    status.symlink_to("../../../../../../../../kept")
    (root / "kept").write_text(stanza("inside"))
    assert names(root) == ["inside"]


def test_what_is_no_file_is_refused_and_nothing_waits_for_it(root):
    os.mkfifo(root / "var/lib/dpkg/status")
    assert "not a regular file" in refused(root)
    (root / "var/lib/dpkg/status").unlink()
    (root / "var/lib/dpkg/status").mkdir()
    assert "not a regular file" in refused(root)


def test_links_in_a_circle_are_refused(root):
    (root / "var/lib/dpkg/status").symlink_to("status")
    assert "/var/lib/dpkg/status: " in refused(root)
    (root / "var/lib/dpkg/status").unlink()
    (root / "var/lib/dpkg/status.d").symlink_to("status.d")
    assert "/var/lib/dpkg/status.d: " in refused(root)


def test_all_files_together_are_bounded(root, monkeypatch):
    monkeypatch.setattr(sys.modules[installed.__module__], "_LIMIT", 3 * len(stanza()))
    folder = root / "var/lib/dpkg/status.d"
    folder.mkdir()
    for name in "abc":
        (folder / name).write_text(stanza(name))
    assert names(root) == ["a", "b", "c"]
    (folder / "d").write_text(stanza("long-name" * 10))
    assert "larger than" in refused(root)
