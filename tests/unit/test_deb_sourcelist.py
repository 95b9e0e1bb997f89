from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from rootfsbuild.distro import Archive
from rootfsbuild.formats.deb.sourcelist import SOURCE_LIST, localise_sources, source_list
from rootfsbuild.rootfs.inside import edit_root


@pytest.fixture
def root(tmp_path):
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def archive(name="debian", suites=("bookworm",), components=("main",)):
    return Archive(name, suites, components)


def test_source_list_has_a_line_for_each_suite_in_the_recipes_order():
    archives = [
        archive(suites=("bookworm", "bookworm-updates"), components=("main", "contrib")),
        archive("debian-security", ("bookworm-security",)),
    ]
    urls = {"debian-security": "http://b.example/s", "debian": "http://a.example/d"}
    assert source_list(archives, urls) == (
        "deb http://a.example/d bookworm main contrib\n"
        "deb http://a.example/d bookworm-updates main contrib\n"
        "deb http://b.example/s bookworm-security main\n"
    )


def test_an_archive_without_a_url_is_left_out():
    assert source_list([archive(), archive("local")], {"debian": "http://a.example"}).count("\n") == 1
    assert source_list([archive("local")], {}) == ""


@pytest.mark.oracle
@pytest.mark.skipif(shutil.which("apt-get") is None, reason="apt is not installed")
def test_apt_reads_the_source_list(root):
    for folder in ("etc/apt/sources.list.d", "etc/apt/preferences.d", "etc/apt/apt.conf.d", "var/lib/dpkg"):
        (root / folder).mkdir(parents=True)
    (root / "var/lib/dpkg/status").touch()
    text = source_list([archive(suites=("bookworm", "bookworm-updates"))], {"debian": "http://a.example/d"})
    (root / "etc/apt/sources.list").write_text(text)
    done = subprocess.run(
        ["apt-get", "-o", f"Dir={root}", "-o", "APT::Architecture=amd64", "update", "--print-uris"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LC_ALL": "C"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    for suite in ("bookworm", "bookworm-updates"):
        assert f"'http://a.example/d/dists/{suite}/InRelease'" in done.stdout
        assert f"'http://a.example/d/dists/{suite}/main/binary-amd64/Packages" in done.stdout


# What a command in the root sees instead


def localised(root, text, urls):
    with edit_root(str(root)) as inside:
        inside.write(SOURCE_LIST, text)
        found = localise_sources(inside, urls)
        assert inside.read(SOURCE_LIST) == text
    return found


URLS = {"http://official.example/debian": "http://near.example/d"}


@pytest.mark.parametrize("slash", [b"", b"/"])
def test_urls_of_this_host_take_the_place_of_the_official_ones(root, slash):
    text = b"# a comment\ndeb http://official.example/debian%s bookworm main\ndeb http://other.example x y\n" % slash
    assert localised(root, text, URLS) == {
        SOURCE_LIST: (
            b"# a comment\ndeb http://near.example/d bookworm main\ndeb http://other.example x y\n",
            0o644,
        )
    }


@pytest.mark.parametrize(
    "text", [b"", b"deb http://official.example/debian-security x main\n", b"\xff deb http://other.example x\n"]
)
def test_a_list_in_which_none_of_them_occurs_is_left_alone(root, text):
    assert localised(root, text, URLS) == {}


def test_a_root_without_a_source_list_gets_none(root):
    with edit_root(str(root)) as inside:
        assert localise_sources(inside, URLS) == {}
