from __future__ import annotations

import datetime as dt
import os
import re

import pytest
from making.recipes import write_toml

from rootfsbuild.distro import SHIPPED, Database, distro_names, find_release, load_distro
from rootfsbuild.errors import RecipeError
from rootfsbuild.recipe import effective, load_recipe
from rootfsbuild.recipe_identity import identify
from rootfsbuild.repository.mirrors import address
from rootfsbuild.repository.trust import load_keyring

RPM = [name for name in distro_names() if load_distro(name).format == "rpm"]
RELEASES = [(name, release.codename) for name in RPM for release in load_distro(name).releases]
KEYS = {key.path: key for name in RPM for key in load_distro(name).keys.values()}

SELF_SIGNED_BY_SHA1 = {"1C59D66FCD52563A16933DBCFEC28EAF09D9EA69"}
"""Of these Sequoia's policy refuses whatever they sign."""


def release_of(name, selector):
    return find_release(load_distro(name), selector)


def load(tmp_path, text, **overrides):
    (tmp_path / "x.toml").write_text(text, encoding="utf-8")
    return load_recipe(str(tmp_path / "x.toml"), overrides)


def test_all_distributions_are_there():
    assert RPM == [
        "almalinux",
        "amazonlinux",
        "azurelinux",
        "centos-stream",
        "fedora",
        "opensuse-leap",
        "opensuse-tumbleweed",
        "rocky",
    ]


@pytest.mark.parametrize(
    ("name", "selector", "path", "kind", "level"),
    [
        ("fedora", "43", "usr/lib/sysimage/rpm", "sqlite", ""),
        ("rocky", "9", "var/lib/rpm", "sqlite", "x86-64-v2"),
        ("rocky", "10", "usr/lib/sysimage/rpm", "sqlite", "x86-64-v3"),
        ("almalinux", "9", "var/lib/rpm", "sqlite", "x86-64-v2"),
        ("almalinux", "10", "usr/lib/sysimage/rpm", "sqlite", "x86-64-v3"),
        ("centos-stream", "9", "var/lib/rpm", "sqlite", "x86-64-v2"),
        ("centos-stream", "stream10", "usr/lib/sysimage/rpm", "sqlite", "x86-64-v3"),
        ("opensuse-leap", "16.0", "usr/lib/sysimage/rpm", "ndb", "x86-64-v2"),
        ("opensuse-tumbleweed", "Tumbleweed", "usr/lib/sysimage/rpm", "ndb", ""),
        ("amazonlinux", "al2023", "var/lib/rpm", "sqlite", "x86-64-v2"),
        ("azurelinux", "3", "var/lib/rpm", "sqlite", ""),
    ],
)
def test_where_the_database_is_and_what_processor_it_takes(name, selector, path, kind, level):
    release = release_of(name, selector)
    assert release.database == Database(path, kind)
    assert release.isa.get("x86_64", "") == level


@pytest.mark.parametrize(("name", "codename"), RELEASES)
def test_every_release_is_whole(name, codename):
    distro, release = load_distro(name), release_of(name, codename)
    assert list(release.variants) == ["essential", "required", "important", "standard"]
    assert all(release.variants.values())
    assert {"bash", "filesystem"} <= set(release.variants["essential"]) <= set(release.variants["required"])
    assert "x86_64" in release.architectures
    assert release.merged_usr
    assert release.components == ()
    assert any(archive.enabled for archive in release.archives)
    for archive in release.archives:
        assert archive.suites == (release.version or codename,)
        assert archive.components == ()
        assert archive.keys, archive.name
        assert archive.mirrors or archive.metalink or archive.mirrorlist
    assert distro.moving == () or codename not in distro.moving


@pytest.mark.parametrize(("name", "codename"), RELEASES)
def test_every_address_is_one_once_release_and_architecture_are_known(name, codename, tmp_path):
    for arch in release_of(name, codename).architectures:
        archives = "".join(f"[[archive]]\nname = '{item.name}'\n" for item in release_of(name, codename).archives)
        recipe = load(tmp_path, f"distro = '{name}'\nrelease = '{codename}'\n{archives}", arch=arch)
        assert recipe.warnings == () or recipe.eol < dt.datetime.now(dt.UTC).date()
        for archive in recipe.archives:
            assert archive.enabled or archive.name
            for url in filter(None, (*archive.mirrors, archive.metalink, archive.mirrorlist)):
                assert not re.search(r"[{}$]", url)
                assert url.startswith("https://")
            assert [address(url) for url in archive.mirrors] == list(archive.mirrors)


@pytest.mark.parametrize(
    ("name", "release", "arch", "archive", "mirror", "metalink", "mirrorlist"),
    [
        (
            "fedora",
            "43",
            "s390x",
            "updates",
            "https://dl.fedoraproject.org/pub/fedora-secondary/updates/43/Everything/s390x",
            "https://mirrors.fedoraproject.org/metalink?repo=updates-released-f43&arch=s390x",
            "",
        ),
        (
            "almalinux",
            "10",
            "x86_64_v2",
            "baseos",
            "https://repo.almalinux.org/almalinux/10/BaseOS/x86_64_v2/os",
            "",
            "https://mirrors.almalinux.org/mirrorlist/10/baseos?arch=x86_64_v2",
        ),
        (
            "opensuse-tumbleweed",
            "tumbleweed",
            "ppc64le",
            "oss",
            "https://download.opensuse.org/ports/ppc/tumbleweed/repo/oss",
            "",
            "",
        ),
        (
            "opensuse-tumbleweed",
            "tumbleweed",
            "x86_64",
            "oss",
            "https://download.opensuse.org/tumbleweed/repo/oss",
            "",
            "",
        ),
        (
            "amazonlinux",
            "2023",
            "aarch64",
            "amazonlinux",
            "",
            "",
            "https://cdn.amazonlinux.com/al2023/core/mirrors/latest/aarch64/mirror.list",
        ),
    ],
)
def test_addresses_are_filled_in(name, release, arch, archive, mirror, metalink, mirrorlist, tmp_path):
    recipe = load(tmp_path, f"distro = '{name}'\nrelease = '{release}'\n", arch=arch)
    found = next(item for item in recipe.archives if item.name == archive)
    assert (next(iter(found.mirrors), ""), found.metalink, found.mirrorlist) == (mirror, metalink, mirrorlist)


@pytest.mark.parametrize("path", sorted(KEYS), ids=os.path.basename)
def test_every_key_loads_by_its_fingerprint(path):
    pytest.importorskip("pysequoia")
    key = KEYS[path]
    (certificate,) = load_keyring([(key.fingerprint, path)]).certificates
    assert (certificate.fingerprint, certificate.cert.is_revoked) == (key.fingerprint, False)
    assert key.origin.startswith("distribution-gpg-keys ")
    if key.fingerprint in SELF_SIGNED_BY_SHA1:
        with pytest.raises(RuntimeError, match="SHA1 is not considered secure"):
            certificate.cert.expiration  # noqa: B018 - reading it is what judges the certificate
    else:
        ends = certificate.cert.expiration
        assert ends is None or ends > dt.datetime(2029, 1, 1, tzinfo=dt.UTC)


FEDORA = "distro = 'fedora'\nrelease = 43\narch = 'x86_64'\n"
ROCKY = "distro = 'rocky'\nrelease = 9\narch = 'x86_64'\n"
DEBIAN = "distro = 'debian'\nrelease = 12\narch = 'amd64'\n"


def test_two_lines_are_a_recipe(tmp_path):
    recipe = load(tmp_path, FEDORA)
    assert (recipe.format, recipe.distro, recipe.release, recipe.version) == ("rpm", "fedora", "43", "43")
    assert recipe.database == Database("usr/lib/sysimage/rpm", "sqlite")
    assert (recipe.module_platform, recipe.isa) == ("f43", "")
    assert recipe.preselect == release_of("fedora", "43").variants["required"]
    assert [archive.name for archive in recipe.archives] == ["fedora", "updates"]
    assert recipe.apt_sources == {}
    assert (recipe.modules, recipe.docs, recipe.languages, recipe.strict) == ((), True, (), False)


@pytest.mark.parametrize("variant", ["custom", "essential", "required", "minbase", "important", "standard"])
def test_a_variant_is_what_the_distribution_says(tmp_path, variant):
    recipe = load(tmp_path, f"{ROCKY}[packages]\nvariant = '{variant}'\n")
    variants = {"custom": (), **release_of("rocky", "9").variants}
    assert recipe.preselect == variants["required" if variant == "minbase" else variant]


def test_a_part_of_a_variant_can_be_excluded(tmp_path):
    recipe = load(tmp_path, f"{ROCKY}[packages]\nexclude = ['microdnf', 'perl-*']\n")
    assert "microdnf" not in recipe.preselect
    assert set(release_of("rocky", "9").variants["required"]) - set(recipe.preselect) == {"microdnf"}
    assert recipe.exclude == ("microdnf", "perl-*")


def test_an_archive_is_switched_on_by_naming_it(tmp_path):
    assert [item.name for item in load(tmp_path, ROCKY).archives] == ["baseos", "appstream"]
    recipe = load(tmp_path, f"{ROCKY}[[archive]]\nname = 'crb'\n[[archive]]\nname = 'appstream'\nenabled = false\n")
    assert [item.name for item in recipe.archives] == ["baseos", "crb"]


def test_an_archive_of_its_own(tmp_path):
    (tmp_path / "key.asc").touch()
    mine = (
        "[[archive]]\nname = 'epel'\nkeys = ['key.asc']\npriority = 90\n"
        "metalink = 'https://m.example/metalink?repo=epel-{releasever}&arch={basearch}'\n"
        "mirrors = ['https://m.example/epel/{version}/Everything/{arch}']\n"
    )
    recipe = load(tmp_path, ROCKY + mine)
    epel = recipe.archives[-1]
    assert (epel.name, epel.suites, epel.components, epel.priority) == ("epel", ("9",), (), 90)
    assert epel.mirrors == ("https://m.example/epel/9/Everything/x86_64",)
    assert epel.metalink == "https://m.example/metalink?repo=epel-9&arch=x86_64"
    assert recipe.apt_sources == {"epel": epel.mirrors[0]}


@pytest.mark.parametrize(
    ("text", "where", "problem", "hint"),
    [
        (ROCKY + "[[archive]]\nname = 'crb'\ncomponents = ['main']\n", "archive[0].components", "rpm packages", ""),
        (ROCKY + "[[archive]]\nname = 'crb'\npriority = 500\n", "archive[0].priority", "500 is out of range", ""),
        (ROCKY + "[[archive]]\nname = 'epel'\nmirrors = ['http://a']\n", "archive[0].keys", "missing", ""),
        (
            ROCKY + "[[archive]]\nname = 'crb'\nmirrors = ['http://a/{basarch}']\n",
            "archive[0].mirrors[0]",
            "unknown variable {basarch}",
            'did you mean "basearch"?',
        ),
        (
            ROCKY + "[[archive]]\nname = 'crb'\nmetalink = 'http://a/$releasever'\n",
            "archive[0].metalink",
            "unknown variable $releasever",
            "write {releasever}",
        ),
        (ROCKY + "[packages]\ninclude = ['curl/epel']\n", "packages.include[0]", "cannot stand here", ""),
        (ROCKY + "[packages]\nmodules = ['nodejs']\n", "packages.modules[0]", "cannot stand here", ""),
        (
            FEDORA.replace("43", "'rawhide'"),
            "release",
            "means another release from time to time",
            "name the release itself",
        ),
        (FEDORA.replace("43", "'44a'"), "release", 'unknown release "44a"', 'did you mean "44"?'),
        ("distro = 'fedroa'\nrelease = 43\n", "distro", "unknown distribution", 'did you mean "fedora"?'),
        (FEDORA.replace("x86_64", "amd64"), "arch", "unknown architecture", ""),
        (
            DEBIAN + "[packages]\nmodules = ['nodejs:20']\n",
            "packages.modules",
            "deb packages",
            "",
        ),
        (DEBIAN + "[packages]\ninclude = ['@core']\n", "packages.include[0]", '"@core"', ""),
        (DEBIAN + "[packages]\nexclude = ['Perl']\n", "packages.exclude[0]", '"Perl"', ""),
        (
            DEBIAN + "[[archive]]\nname = 'debian'\nmetalink = 'http://a/b'\n",
            "archive[0].metalink",
            "deb packages",
            "",
        ),
    ],
)
def test_a_wrong_recipe_is_refused_with_its_place(tmp_path, text, where, problem, hint):
    with pytest.raises(RecipeError) as caught:
        load(tmp_path, text)
    assert caught.value.where == where
    assert problem in caught.value.problem
    assert caught.value.hint == hint
    assert caught.value.line


@pytest.mark.parametrize(
    "request_",
    [
        "NetworkManager",
        "bash=5.1.8-*",
        "bash-5.1.8-9.el9.x86_64",
        "@core",
        "@^minimal-environment",
        "/usr/bin/python3",
        "perl(Foo::Bar)",
        "libc.so.6(GLIBC_2.34)(64bit)",
        "python3-*",
        "(glibc-langpack-de if glibc)",
    ],
)
def test_what_include_may_name(tmp_path, request_):
    recipe = load(tmp_path, f"{ROCKY}[packages]\ninclude = [{request_!r}]\n")
    assert recipe.include == (request_,)


def test_what_makes_an_image_another_is_said_of_it(tmp_path):
    plain = identify(load(tmp_path, FEDORA))
    assert plain["database"] == ("usr/lib/sysimage/rpm", "sqlite")
    assert plain["module-platform"] == "f43"
    assert plain["archive.fedora.suites"] == ("43",)
    assert not [key for key in plain if "components" in key or key.startswith("apt")]
    assert not [value for value in plain.values() if "https" in str(value)]
    for more, key in [
        ("modules = ['a:1']", "packages.modules"),
        ("docs = false", "packages.docs"),
        ("languages = ['de']", "packages.languages"),
        ("strict = true", ""),
    ]:
        other = identify(load(tmp_path, f"{FEDORA}[packages]\n{more}\n"))
        assert {name for name in plain.keys() | other.keys() if plain.get(name) != other.get(name)} == {key} - {""}


def test_settings_are_told_with_their_origins(tmp_path):
    (tmp_path / "x.toml").write_text(FEDORA, encoding="utf-8")
    told = {path: (value, origin) for path, value, origin in effective(str(tmp_path / "x.toml"))}
    file = os.path.join(SHIPPED, "fedora.toml")
    with open(file, encoding="utf-8") as stream:
        lines = stream.readlines()
    for path, value in [
        ("database.format", "sqlite"),
        ("module-platform", "f43"),
        ("archive.updates-testing.enabled", False),
        ("archive.fedora.metalink", "https://mirrors.fedoraproject.org/metalink?repo=fedora-43&arch=x86_64"),
        ("variants.standard", ["@core", "fedora-release", "glibc-minimal-langpack"]),
    ]:
        assert told[path][0] == value
        place, _, line = told[path][1].rpartition(":")
        assert place == file
        assert path.rpartition(".")[2] in lines[int(line) - 1]
    assert not [path for path in told if path.endswith((".components", ".check-valid-until"))]


def test_of_debian_nothing_is_told_that_it_does_not_have(tmp_path):
    (tmp_path / "x.toml").write_text(DEBIAN, encoding="utf-8")
    told = [path for path, *_ in effective(str(tmp_path / "x.toml"))]
    words = ("metalink", "mirrorlist", "modules", "docs", "languages", "strict", "database", "isa", "variants")
    assert not [path for path in told if path.split(".")[-1] in words or path.split(".")[0] in words]


MINE = {
    "id": "mine",
    "name": "Mine",
    "format": "rpm",
    "architectures": {"x86_64": ["x86_64"], "aarch64": ["aarch64"]},
    "database": {"path": "var/lib/rpm", "format": "sqlite"},
    "variants": {name: ["bash"] for name in ("essential", "required", "important", "standard")},
    "variables": {"tree": {"aarch64": "ports/", "all": "main/"}},
    "keys": {"key": {"file": "key.asc", "fingerprint": "ab" * 20, "origin": "me"}},
    "archives": {"os": {"mirrors": ["http://mine.example/{tree}{version}"], "keys": ["key"]}},
    "release": [{"version": "1", "architectures": ["x86_64", "aarch64"], "archives": {"os": {}}}],
}
RELEASE = MINE["release"][0]


def save(tmp_path, changes):
    (tmp_path / "key.asc").touch()
    data = {key: value for key, value in (MINE | changes).items() if value is not None}
    (tmp_path / "mine.toml").write_text(write_toml(data), encoding="utf-8")
    return str(tmp_path / "mine.toml")


def test_a_new_distribution_is_a_file(tmp_path):
    save(tmp_path, {})
    text = "distro = './mine.toml'\nrelease = 1\n"
    urls = [load(tmp_path, text, arch=arch).archives[0].mirrors for arch in ("x86_64", "aarch64")]
    assert urls == [("http://mine.example/main/1",), ("http://mine.example/ports/1",)]


def test_a_release_says_otherwise_than_all_of_them(tmp_path):
    own = {"database": {"path": "x", "format": "ndb"}, "variants": {"essential": ["dash"]}, "module-platform": "m1"}
    release = find_release(load_distro(save(tmp_path, {"release": [RELEASE | own]})), "1")
    assert release.database == Database("x", "ndb")
    assert (release.variants["essential"], release.variants["required"]) == (("dash",), ("bash",))
    assert release.module_platform == "m1"


@pytest.mark.parametrize(
    ("changes", "where", "problem"),
    [
        ({"database": None}, "release[0].database", "missing"),
        ({"database": {"path": "/var/lib/rpm", "format": "sqlite"}}, "database.path", "cannot stand here"),
        ({"database": {"path": "a", "format": "sqlite3"}}, "database.format", 'unknown value "sqlite3"'),
        ({"variants": {"essential": ["bash"]}}, "release[0].variants.required", "missing"),
        ({"variants": MINE["variants"] | {"custom": ["bash"]}}, "variants.custom", "unknown key"),
        ({"isa": {"x86-64": "x86-64-v2"}}, "isa.x86-64", 'unknown name "x86-64"'),
        ({"isa": {"x86_64": "x86-64-v1"}}, "isa.x86_64", "unknown value"),
        ({"variables": {"tree": {"arm": "x"}}}, "variables.tree.arm", 'unknown name "arm"'),
        ({"variables": {}}, "archives.os.mirrors[0]", "unknown variable {tree}"),
        ({"release": [RELEASE | {"components": ["main"]}]}, "release[0].components", "whose format is deb"),
        ({"archives": {"os": {"check-valid-until": False}}}, "archives.os.check-valid-until", "whose format is deb"),
        ({"format": "deb"}, "database", "whose format is rpm"),
        ({"release": [{"architectures": ["x86_64"], "archives": {}}]}, "release[0].version", "missing"),
    ],
)
def test_a_wrong_distribution_file_is_refused_with_its_place(tmp_path, changes, where, problem):
    with pytest.raises(RecipeError) as caught:
        load_distro(save(tmp_path, changes))
    assert caught.value.where == where
    assert problem in caught.value.problem
    assert caught.value.line or "missing" in problem
