from __future__ import annotations

import pytest

from rootfsbuild.errors import RecipeError, UsageError
from rootfsbuild.repository.mirrors import Mirror, address, find_mirrors, host_distro

OFFICIAL = ("https://one.example/debian", "https://two.example/debian/")


def write(root, path, text):
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def find(root, archive="debian", *, environ=None, overrides=None, suites=("bookworm", "bookworm-updates")):
    return find_mirrors(
        archive,
        OFFICIAL,
        distro="debian",
        suites=suites,
        overrides=overrides or {},
        environ=environ or {},
        host_root=str(root),
    )


def urls(mirrors):
    return [mirror.url for mirror in mirrors]


def test_official_mirrors_in_turn(tmp_path):
    assert find(tmp_path) == (
        Mirror("https://one.example/debian", "distribution"),
        Mirror("https://two.example/debian", "distribution"),
    )


def test_command_line_is_used_alone(tmp_path):
    environ = {"ROOTFSBUILD_MIRROR_DEBIAN": "http://env.example"}
    found = find(tmp_path, overrides={"debian": "http://cli.example/d/"}, environ=environ)
    assert found == (Mirror("http://cli.example/d", "--mirror"),)


def test_command_line_for_another_archive_changes_nothing(tmp_path):
    assert urls(find(tmp_path, overrides={"other": "http://cli.example/"}))[0] == "https://one.example/debian"


def test_environment_is_used_alone_and_dashes_become_underscores(tmp_path):
    environ = {"ROOTFSBUILD_MIRROR_DEBIAN_SECURITY": "http://env.example/s"}
    found = find(tmp_path, "debian-security", environ=environ)
    assert found == (Mirror("http://env.example/s", "ROOTFSBUILD_MIRROR_DEBIAN_SECURITY"),)


def test_mirrors_files_come_first_and_others_follow(tmp_path):
    write(tmp_path, "home/.config/rootfsbuild/mirrors.toml", '[mirrors]\ndebian = "http://mine.example"\n')
    write(tmp_path, "etc/rootfsbuild/mirrors.toml", '[mirrors]\ndebian = ["http://a.example", "/srv/m"]\n')
    found = find(tmp_path, environ={"HOME": str(tmp_path / "home")})
    assert urls(found) == [
        "http://mine.example",
        "http://a.example",
        "file:///srv/m",
        "https://one.example/debian",
        "https://two.example/debian",
    ]
    assert found[0].origin.endswith("home/.config/rootfsbuild/mirrors.toml")


def test_xdg_config_home(tmp_path):
    write(tmp_path, "xdg/rootfsbuild/mirrors.toml", '[mirrors]\ndebian = "http://mine.example"\n')
    assert urls(find(tmp_path, environ={"XDG_CONFIG_HOME": str(tmp_path / "xdg")}))[0] == "http://mine.example"


@pytest.mark.parametrize(
    "text",
    ["[mirrors", "mirrors = 3", "[mirrors]\ndebian = 3", '[mirrors]\ndebian = ["ftp://x.example/"]'],
)
def test_wrong_mirrors_file_names_the_file(tmp_path, text):
    write(tmp_path, "etc/rootfsbuild/mirrors.toml", text)
    with pytest.raises(RecipeError) as caught:
        find(tmp_path)
    assert caught.value.file.endswith("etc/rootfsbuild/mirrors.toml")


ONE_LINE = """\
# deb http://commented.example/debian bookworm main
deb cdrom:[Debian 12]/ bookworm main
deb-src http://source.example/debian bookworm main
deb [ arch=amd64 signed-by=/x.gpg trusted=yes ] http://host.example/debian/ bookworm main contrib # why
deb\tmirror+file:/etc/mirrors.txt\tbookworm\tmain
deb http://named-otherwise.example/pub/d bookworm-updates main
deb http://vendor.example/tool stable main
"""
DEB822 = """\
# a comment
Types: deb deb-src
URIs: http://deb822.example/debian
  file:/srv/mirror/debian
# in between
Suites: bookworm
Components: main

Types: deb
URIs: http://off.example/debian
Suites: bookworm
Enabled: no

Types: deb-src
URIs: http://src.example/debian
Suites: bookworm

Types: deb
URIs: http://security.example/debian-security
Suites: bookworm-security
"""


def host(root, distro="debian"):
    write(root, "etc/os-release", f'NAME="x"\nID={distro}\n')
    write(root, "etc/apt/sources.list", ONE_LINE)
    write(root, "etc/apt/sources.list.d/debian.sources", DEB822)
    write(root, "etc/apt/sources.list.d/old.list.save", "deb http://saved.example/debian bookworm main")


def test_host_sources_of_the_same_distribution(tmp_path):
    host(tmp_path)
    found = find(tmp_path)
    assert urls(found) == [
        "http://host.example/debian",
        "http://deb822.example/debian",
        "file:///srv/mirror/debian",
        "http://named-otherwise.example/pub/d",
        "https://one.example/debian",
        "https://two.example/debian",
    ]
    assert found[0].origin == "the host's apt sources"


def test_host_sources_are_matched_by_archive(tmp_path):
    host(tmp_path)
    found = find(tmp_path, "debian-security", suites=["bookworm-security"])
    assert urls(found)[0] == "http://security.example/debian-security"
    assert "http://host.example/debian" not in urls(found)


def test_host_of_another_distribution_is_not_asked(tmp_path):
    host(tmp_path, distro="ubuntu")
    assert urls(find(tmp_path)) == ["https://one.example/debian", "https://two.example/debian"]


def test_one_mirror_is_listed_once_with_its_first_origin(tmp_path):
    write(tmp_path, "etc/rootfsbuild/mirrors.toml", '[mirrors]\ndebian = "https://two.example/debian"\n')
    found = find(tmp_path)
    assert urls(found) == ["https://two.example/debian", "https://one.example/debian"]
    assert found[0].origin.endswith("mirrors.toml")


def test_host_distro_falls_back_to_usr_lib(tmp_path):
    assert host_distro(str(tmp_path)) == ""
    write(tmp_path, "usr/lib/os-release", 'ID="debian"\n')
    assert host_distro(str(tmp_path)) == "debian"


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("/srv/a mirror/", "file:///srv/a%20mirror"),
        ("file:/srv/m", "file:///srv/m"),
        ("file:///srv/a%20mirror/", "file:///srv/a%20mirror"),
        ("http://h.example:8080/debian/", "http://h.example:8080/debian"),
        ("https://user:word@h.example/d", "https://user:word@h.example/d"),
    ],
)
def test_address(text, url):
    assert address(text) == url


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ftp://x.example/",
        "debian.example/d",
        "http://",
        "http://x y/",
        "file://other/x",
        "http://x/?a=b",
        "/a\nb",
    ],
)
def test_what_is_no_address(text, tmp_path):
    with pytest.raises(UsageError) as caught:
        find(tmp_path, overrides={"debian": text})
    assert "--mirror debian" in str(caught.value)
