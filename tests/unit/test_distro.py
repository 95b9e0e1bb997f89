from __future__ import annotations

import datetime as dt
import os

import pytest
from making.recipes import write_toml

from rootfsbuild.distro import SHIPPED, distro_names, find_architecture, find_release, load_distro
from rootfsbuild.errors import RecipeError


@pytest.fixture(scope="module")
def debian():
    return load_distro("debian")


def test_debian_is_known():
    assert "debian" in distro_names()


@pytest.mark.parametrize(
    ("selector", "codename"),
    [
        ("11", "bullseye"),
        ("12", "bookworm"),
        ("bookworm", "bookworm"),
        ("Trixie", "trixie"),
        ("14", "forky"),
        ("sid", "sid"),
        ("unstable", "sid"),
    ],
)
def test_a_release_has_a_number_and_names(debian, selector, codename):
    assert find_release(debian, selector).codename == codename


@pytest.mark.parametrize(
    ("selector", "hint"),
    [
        ("bokworm", 'did you mean "bookworm"?'),
        ("12.5", 'did you mean "12"?'),
        ("trix", 'did you mean "trixie"?'),
        ("xyzzy", ""),
    ],
)
def test_an_unknown_release_names_the_nearest(debian, selector, hint):
    with pytest.raises(RecipeError, match=f'unknown release "{selector}"') as caught:
        find_release(debian, selector)
    assert caught.value.hint == hint
    assert "12 = bookworm" in caught.value.expected


@pytest.mark.parametrize("name", ["stable", "testing", "oldstable"])
def test_a_name_that_moves_is_refused(debian, name):
    with pytest.raises(RecipeError, match="means another release from time to time"):
        find_release(debian, name)


def test_the_archives_of_a_release_are_resolved(debian):
    debian_archive, security = find_release(debian, "12").archives
    assert (debian_archive.name, debian_archive.suites) == ("debian", ("bookworm", "bookworm-updates"))
    assert (security.name, security.suites) == ("debian-security", ("bookworm-security",))
    assert debian_archive.components == security.components == ("main",)
    assert security.snapshot == "https://snapshot.debian.org/archive/{archive}/{timestamp}/"
    assert [archive.suites for archive in find_release(debian, "sid").archives] == [("sid",)]


def test_every_archive_has_keys_and_mirrors(debian):
    for release in debian.releases:
        for archive in release.archives:
            assert archive.keys, archive
            assert archive.mirrors, archive
            assert set(archive.architectures) <= set(release.architectures)
            assert set(archive.components) <= set(release.components)


def test_end_of_life_and_merged_usr(debian):
    assert find_release(debian, "11").eol == dt.date(2026, 8, 31)
    assert find_release(debian, "12").eol == dt.date(2028, 6, 30)
    assert find_release(debian, "sid").eol is None
    assert all(release.merged_usr for release in debian.releases)
    assert find_release(debian, "11").preselect == ()
    assert find_release(debian, "12").preselect == ("usr-is-merged",)
    assert debian.usr_links["amd64"] == ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
    assert debian.usr_links["arm64"] == ("bin", "sbin", "lib")


def test_the_kernels_name_of_an_architecture_leads_to_debians(debian):
    assert debian.machines["x86_64"] == "amd64"
    assert debian.machines["aarch64"] == "arm64"
    with pytest.raises(RecipeError) as caught:
        find_architecture(debian, find_release(debian, "12"), "x86_64")
    assert caught.value.hint == 'did you mean "amd64"?'


def test_an_architecture_that_a_release_does_not_have(debian):
    assert find_architecture(debian, find_release(debian, "13"), "riscv64") == "riscv64"
    with pytest.raises(RecipeError, match="Debian bookworm has no riscv64"):
        find_architecture(debian, find_release(debian, "12"), "riscv64")


def test_an_unknown_distribution_names_the_nearest():
    with pytest.raises(RecipeError, match='unknown distribution "debain"') as caught:
        load_distro("debain")
    assert caught.value.hint == 'did you mean "debian"?'


def test_shipped_keys_are_the_ones_their_fingerprints_say(debian):
    pysequoia = pytest.importorskip("pysequoia")
    assert len(debian.keys) == 9
    for fingerprint, key in debian.keys.items():
        certificates = pysequoia.Cert.split_file(key.path)
        assert [certificate.fingerprint.upper() for certificate in certificates] == [fingerprint]
        assert key.origin.startswith("debian-archive-keyring ")


def test_every_key_file_is_named_by_a_distribution():
    folder = os.path.join(SHIPPED, "keys")
    named = {key.path for name in distro_names() for key in load_distro(name).keys.values()}
    assert {os.path.join(folder, name) for name in os.listdir(folder)} == named


MINE = {
    "id": "mine",
    "name": "Mine",
    "format": "deb",
    "architectures": {"amd64": ["x86_64"], "arm64": []},
    "keys": {"key": {"file": "key.asc", "fingerprint": "ab" * 20, "origin": "me"}},
    "archives": {"mine": {"suites": ["{codename}", "v{version}"], "mirrors": ["http://mine.example"], "keys": ["key"]}},
    "release": [
        {
            "version": "1",
            "codename": "one",
            "architectures": ["amd64"],
            "components": ["main"],
            "archives": {"mine": {}},
        }
    ],
}


def save(tmp_path, **changes):
    (tmp_path / "key.asc").touch()
    file = tmp_path / "mine.toml"
    file.write_text(write_toml(MINE | changes), encoding="utf-8")
    return str(file)


def test_a_new_distribution_is_a_file(tmp_path):
    mine = load_distro(save(tmp_path))
    archive = find_release(mine, "1").archives[0]
    assert archive.suites == ("one", "v1")
    assert archive.components == ("main",)
    assert archive.keys[0].fingerprint == "AB" * 20
    assert archive.keys[0].path == str(tmp_path / "key.asc")
    assert load_distro("mine", str(tmp_path)) == mine


RELEASE = MINE["release"][0]


@pytest.mark.parametrize(
    ("changes", "where", "problem"),
    [
        ({"nmae": "x"}, "nmae", "unknown key"),
        ({"format": 3}, "format", "the number 3 cannot stand here"),
        (
            {"release": [RELEASE | {"archives": {"mine": {"keys": ["kye"]}}}]},
            "release[0].archives.mine.keys[0]",
            "kye",
        ),
        ({"release": [RELEASE | {"architectures": ["amd46"]}]}, "release[0].architectures[0]", "amd46"),
        ({"release": [RELEASE | {"archives": {"other": {}}}]}, "release[0].archives.other.suites", "missing"),
        ({"release": [{"codename": "one"}]}, "release[0].architectures", "missing"),
        ({"release": [RELEASE | {"eol": "soon"}]}, "release[0].eol", "no date"),
        (
            {"keys": MINE["keys"] | {"b": {"file": "b", "fingerprint": "0", "origin": ""}}},
            "keys.b.fingerprint",
            "0",
        ),
        (
            {"keys": MINE["keys"] | {"b": {"file": "b", "fingerprint": "0" * 40, "origin": ""}}},
            "keys.b.file",
            "no such",
        ),
    ],
)
def test_a_wrong_distribution_file_is_refused_with_its_place(tmp_path, changes, where, problem):
    with pytest.raises(RecipeError) as caught:
        load_distro(save(tmp_path, **changes))
    assert caught.value.where == where
    assert problem in caught.value.problem
    assert caught.value.line
