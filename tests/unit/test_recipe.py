from __future__ import annotations

import datetime as dt
import os

import pytest

from rootfsbuild.distro import SHIPPED
from rootfsbuild.errors import RecipeError
from rootfsbuild.recipe import FileToCopy, Hook, effective, load_recipe

TODAY = dt.date(2026, 10, 1)
TWO_LINES = 'distro = "debian"\nrelease = "bookworm"\n'
BOOKWORM_KEY = "B8B80B5B623EAB6AD8775C45B7C5D7D6350947F8"


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """Let this machine be of the architecture that every release has; return how to make it another."""
    real = os.uname()

    def become(name):
        monkeypatch.setattr(os, "uname", lambda: os.uname_result((*real[:4], name)))

    become("x86_64")
    return become


@pytest.fixture
def load(tmp_path):
    """Write a recipe that begins with the two lines, so that what follows begins at line 3, and load it."""

    def write_and_load(text="", begin=TWO_LINES, name="x.toml", **overrides):
        file = tmp_path / name
        file.write_text(begin + text, encoding="utf-8")
        return load_recipe(str(file), overrides, TODAY)

    return write_and_load


@pytest.fixture
def refused(load):
    def load_and_catch(text="", begin=TWO_LINES, **overrides):
        with pytest.raises(RecipeError) as caught:
            load(text, begin, **overrides)
        return caught.value

    return load_and_catch


@pytest.mark.parametrize("release", ['"bookworm"', '"12"', "12", '"Bookworm"'])
def test_two_lines_are_a_recipe(load, release):
    recipe = load(begin=f'distro = "debian"\nrelease = {release}\n', arch="amd64")
    assert (recipe.name, recipe.distro, recipe.format) == ("x", "debian", "deb")
    assert (recipe.release, recipe.version, recipe.arch) == ("bookworm", "12", "amd64")
    assert (recipe.variant, recipe.include, recipe.exclude, recipe.recommends) == ("required", (), (), False)
    assert [archive.name for archive in recipe.archives] == ["debian", "debian-security"]
    assert recipe.usr_links == ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
    assert recipe.preselect == ("usr-is-merged",)
    assert (recipe.hostname, recipe.snapshot, recipe.hooks, recipe.files) == (None, None, (), ())
    assert recipe.eol == dt.date(2028, 6, 30)
    assert recipe.warnings == ()


def test_the_architecture_is_this_machines_unless_someone_says_otherwise(load, machine):
    machine("aarch64")
    assert load().arch == "arm64"
    assert load('arch = "i386"').arch == "i386"
    assert load('arch = "i386"', arch="armhf").arch == "armhf"


def test_a_machine_without_a_name_in_the_distribution_is_an_error(refused, machine):
    machine("vax")
    error = refused()
    assert error.where == "arch"
    assert "vax" in error.expected


# The line is that of the text after the recipe's two lines.
WRONG = {
    "key": ("inclde = []", "inclde", 3, "unknown key", 'did you mean "packages.include"?'),
    "key far from any": ("zzz = 1", "zzz", 3, "unknown key", ""),
    "key in a table": (
        "[packages]\ninclde = []",
        "packages.inclde",
        4,
        "unknown key",
        'did you mean "include"?',
    ),
    "key of another table": (
        "[packages]\nhostname = 'x'",
        "packages.hostname",
        4,
        "unknown key",
        '"hostname"?',
    ),
    "type": (
        "[packages]\ninclude = 'nginx'",
        "packages.include",
        4,
        'the string "nginx" cannot stand here',
        "",
    ),
    "element": (
        "[packages]\ninclude = [\n'a1',\n'b+',\n3]",
        "packages.include[2]",
        7,
        "the number 3 cannot",
        "",
    ),
    "flag": ("[packages]\nrecommends = 1", "packages.recommends", 4, "the number 1 cannot stand here", ""),
    "variant": (
        "[packages]\nvariant = 'mnibase'",
        "packages.variant",
        4,
        'unknown value "mnibase"',
        'did you mean "minbase"?',
    ),
    "arch": ("arch = 'x86_64'", "arch", 3, 'unknown architecture "x86_64"', 'did you mean "amd64"?'),
    "arch of another release": ("arch = 'riscv64'", "arch", 3, "Debian bookworm has no riscv64", ""),
    "package": ("[packages]\ninclude = ['a b']", "packages.include[0]", 4, '"a b" cannot stand here', ""),
    "versions": (
        "[packages]\ninclude = ['nginx=1', 'nginx=2']",
        "packages.include[1]",
        4,
        '"nginx=2" contradicts "nginx=1"',
        "",
    ),
    "included and excluded": (
        "[packages]\ninclude = ['a1', 'b1']\nexclude = ['b1']",
        "packages.include[1]",
        4,
        '"b1" is both included and excluded',
        "",
    ),
    "component": (
        "[[archive]]\nname = 'debian'\ncomponents = ['non-fre']",
        "archive[0].components[0]",
        5,
        'bookworm has no component "non-fre"',
        'did you mean "non-free"?',
    ),
    "archive": (
        "[[archive]]\nname = 'debian-securty'\nenabled = false",
        "archive[0].suites",
        3,
        'missing: "debian-securty" is not one of',
        'did you mean "debian-security"?',
    ),
    "archive without keys": ("[[archive]]\nname = 'x'\nsuites = ['x']", "archive[0].keys", 3, "missing", ""),
    "archive without a name": ("[[archive]]\nsuites = ['x']", "archive[0].name", 3, "missing", ""),
    "archive twice": (
        "[[archive]]\nname = 'debian'\n[[archive]]\nname = 'debian'",
        "archive[1]",
        5,
        '"debian" is there twice',
        "",
    ),
    "no archive": (
        "".join(f"[[archive]]\nname = '{name}'\nenabled = false\n" for name in ("debian", "debian-security")),
        "archive",
        3,
        "every archive is switched off",
        "",
    ),
    "priority": (
        "[[archive]]\nname = 'debian'\npriority = 0",
        "archive[0].priority",
        5,
        "0 has no meaning",
        "",
    ),
    "big priority": (
        "[[archive]]\nname = 'debian'\npriority = 99999",
        "archive[0].priority",
        5,
        "out of range",
        "",
    ),
    "fingerprint": (
        f"[[archive]]\nname = 'debian'\nkeys = ['{BOOKWORM_KEY[:-1]}0']",
        "archive[0].keys[0]",
        5,
        "Debian has no key",
        f'did you mean "{BOOKWORM_KEY}"?',
    ),
    "key file": (
        "[[archive]]\nname = 'debian'\nkeys = ['a.asc']",
        "archive[0].keys[0]",
        5,
        "no such key file",
        "",
    ),
    "flat": (
        "[[archive]]\nname = 'x'\nsuites = ['./']",
        "archive[0].suites[0]",
        5,
        '"./" cannot stand here',
        "",
    ),
    "file": ("[files]\n'/etc/motd' = 'nothing'", 'files."/etc/motd"', 4, "no such file", ""),
    "target": ("[files]\n'/etc/../x' = 'x'", 'files."/etc/../x"', 4, "cannot stand here", ""),
    "file without source": ("[files]\n'/x' = { mode = '0644' }", 'files."/x".source', 4, "missing", ""),
    "stage": (
        "[[hook]]\nrun = 'x'\nstage = 'configure'",
        "hook[0].stage",
        5,
        "unknown value",
        '"configured"?',
    ),
    "no stage": ("[[hook]]\nrun = 'x'", "hook[0].stage", 3, "missing", "add stage"),
    "early inside": (
        "[[hook]]\nrun = 'x'\nstage = 'extracted'\nwhere = 'inside'",
        "hook[0].where",
        6,
        "nothing can run inside",
        'where = "outside"',
    ),
    "apt source": ("[apt.sources]\ndebain = '/x'", "apt.sources.debain", 4, "unknown archive", '"debian"?'),
    "suite": (
        "[[archive]]\nname = 'debian'\nsuites = ['{cdename}']",
        "archive[0].suites[0]",
        5,
        "cannot stand",
        "",
    ),
    "template": (
        "[[archive]]\nname = 'debian'\nsnapshot = 'http://x/{date}/{timestamp}'",
        "archive[0].snapshot",
        5,
        "cannot stand here",
        "",
    ),
    "snapshot": ("snapshot = '2026-02-30'", "snapshot", 3, "is no date or time", ""),
    "name": ("name = 'a/b'", "name", 3, '"a/b" cannot stand here', ""),
    "hostname": ("hostname = 'a_b'", "hostname", 3, '"a_b" cannot stand here', ""),
    "path": ("[paths]\nexclude = ['usr/*']", "paths.exclude[0]", 4, '"usr/*" cannot stand here', ""),
    "extends": ("extends = 'y.toml'", "extends", 3, "no such file", 'did you mean "x.toml"?'),
}


@pytest.mark.parametrize("case", WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_told_with_its_place(refused, tmp_path, case):
    text, where, line, problem, hint = case
    error = refused(text)
    assert error.file == str(tmp_path / "x.toml")
    assert (error.where, error.line) == (where, line)
    assert problem in error.problem
    assert hint in error.hint
    assert bool(error.hint) == bool(hint)


@pytest.mark.parametrize(
    "case",
    [
        ("", "distro", None, "missing", 'add distro = "debian"'),
        ('distro = "debian"', "release", None, "missing", 'add release = "bookworm"'),
        ('distro = "debain"\nrelease = 12', "distro", 1, "unknown distribution", 'did you mean "debian"?'),
        (
            'distro = "debian"\nrelease = "bokworm"',
            "release",
            2,
            "unknown release",
            'did you mean "bookworm"?',
        ),
        ('distro = "debian"\nrelease = 7', "release", 2, 'unknown release "7"', ""),
        ('distro = "debian"\nrelease = 12.5', "release", 2, "the number 12.5 cannot stand here", ""),
        ('distro = "debian"\nrelease = true', "release", 2, "true cannot stand here", ""),
        (
            'distro = "debian"\nrelease = "stable"',
            "release",
            2,
            "means another release",
            "name the release itself",
        ),
        ('distro = "./none.toml"\nrelease = "1"', "distro", 1, "no such file", ""),
    ],
)
def test_the_two_lines_can_be_wrong_too(refused, case):
    begin, where, line, problem, hint = case
    error = refused(begin=begin)
    assert (error.where, error.line, error.hint) == (where, line, hint)
    assert problem in error.problem


def test_an_error_reads_as_a_sentence_with_its_place(refused, tmp_path):
    error = refused("[packages]\ninclde = []")
    expected = "(expected one of variant, include, exclude, recommends, modules, docs, languages, strict)"
    assert str(error) == f"{tmp_path}/x.toml:4: packages.inclde: unknown key {expected}"


def test_the_command_line_is_checked_as_the_recipe_is(refused):
    error = refused(arch="amd46")
    assert (error.file, error.line, error.where) == ("command line", None, "arch")
    assert error.hint == 'did you mean "amd64"?'
    assert refused(**{"packages.varian": "required"}).hint == 'did you mean "variant"?'


def test_a_file_name_that_cannot_be_a_results_name(load):
    with pytest.raises(RecipeError, match="cannot be the result's"):
        load(name="-x y.toml")
    assert load('name = "fine"', name="-x y.toml").name == "fine"


@pytest.mark.parametrize(
    ("written", "moment"),
    [
        ("2026-10-01", "20261001T000000Z"),
        ("'2026-10-01'", "20261001T000000Z"),
        ("'20261001'", "20261001T000000Z"),
        ("'20261001T123456Z'", "20261001T123456Z"),
        ("2026-10-01T12:34:56Z", "20261001T123456Z"),
        ("2026-10-01 12:34:56", "20261001T123456Z"),
        ("2026-10-01T12:34:56.75+02:00", "20261001T103456Z"),
    ],
)
def test_a_snapshot_is_a_moment_in_utc(load, written, moment):
    assert load(f"snapshot = {written}").snapshot == moment


def test_minbase_is_required(load):
    assert load('[packages]\nvariant = "minbase"').variant == "required"


def test_what_is_asked_for_twice_is_asked_for_once(load):
    recipe = load(
        "[packages]\ninclude = ['nginx', 'curl', 'nginx=1.22.*', 'curl', 'curl:i386']\nexclude = ['x1', 'x1']"
    )
    assert recipe.include == ("nginx=1.22.*", "curl", "curl:i386")
    assert recipe.exclude == ("x1",)


def test_an_archive_of_the_distribution_is_changed_where_the_recipe_says_so(load):
    plain = load().archives[0]
    recipe = load("[[archive]]\nname = 'debian'\nsuites = ['{codename}']\npriority = -1\ncheck-valid-until = false")
    changed = recipe.archives[0]
    assert changed.suites == ("bookworm",)
    assert (changed.priority, changed.check_valid_until) == (-1, False)
    assert (changed.keys, changed.mirrors, changed.components) == (
        plain.keys,
        plain.mirrors,
        plain.components,
    )


def test_an_archive_can_be_left_out(load):
    recipe = load("[[archive]]\nname = 'debian-security'\nenabled = false")
    assert [archive.name for archive in recipe.archives] == ["debian"]
    assert list(recipe.apt_sources) == ["debian"]


def test_an_archive_can_be_added(load, tmp_path):
    (tmp_path / "vendor.asc").touch()
    recipe = load(
        "[[archive]]\nname = 'vendor'\nsuites = ['{codename}', 'v{version}']\n"
        f"keys = ['vendor.asc', '{BOOKWORM_KEY.lower()}']\nmirrors = ['https://vendor.example/deb']\n"
        "components = ['main', 'extra']\nthreshold = 2"
    )
    archive = recipe.archives[-1]
    assert (archive.name, archive.suites) == ("vendor", ("bookworm", "v12"))
    assert [key.fingerprint for key in archive.keys] == ["", BOOKWORM_KEY]
    assert archive.keys[0].path == str(tmp_path / "vendor.asc")
    assert (archive.components, archive.threshold, archive.snapshot) == (("main", "extra"), 2, "")
    assert recipe.apt_sources["vendor"] == "https://vendor.example/deb"


def test_the_images_sources_are_the_official_mirrors_or_what_the_recipe_says(load):
    plain = load()
    assert plain.apt_sources == {archive.name: archive.mirrors[0] for archive in plain.archives}
    recipe = load('[apt]\nsources = { debian = "http://ftp.fr.debian.org/debian" }')
    assert recipe.apt_sources["debian"] == "http://ftp.fr.debian.org/debian"
    assert recipe.apt_sources["debian-security"] == plain.apt_sources["debian-security"]


def test_an_archive_that_does_not_serve_the_architecture_is_left_out_with_a_warning(load):
    recipe = load(arch="armel")
    assert [archive.name for archive in recipe.archives] == ["debian"]
    assert recipe.warnings == ("debian-security has nothing for armel and is left out",)


def test_a_release_past_its_end_of_life_warns(tmp_path):
    file = tmp_path / "x.toml"
    file.write_text('distro = "debian"\nrelease = "bullseye"\narch = "amd64"\n', encoding="utf-8")
    assert load_recipe(str(file), today=dt.date(2026, 8, 31)).warnings == ()
    (warning,) = load_recipe(str(file), today=dt.date(2026, 9, 1)).warnings
    assert "Debian 11 (bullseye)" in warning
    assert "2026-08-31" in warning


def test_files_are_beside_the_recipe(load, tmp_path):
    (tmp_path / "motd").touch()
    recipe = load(
        "[files]\n'/etc/motd' = 'motd'\n'/srv/' = { source = '.', mode = 0o700, owner = '33:34' }\n"
        "'/x' = { source = 'motd', mode = '4755' }"
    )
    assert recipe.files == (
        FileToCopy(str(tmp_path / "motd"), "/etc/motd"),
        FileToCopy(str(tmp_path), "/srv", 0o700, (33, 34)),
        FileToCopy(str(tmp_path / "motd"), "/x", 0o4755),
    )


def test_hooks_run_where_their_stage_makes_sense(load, tmp_path):
    stages = ("extracted", "configured", "finished")
    recipe = load("".join(f"[[hook]]\nstage = '{stage}'\nrun = 'x'\n" for stage in stages))
    assert recipe.hooks == tuple(Hook(stage, "x", stage == "configured", str(tmp_path)) for stage in stages)
    outside = load("[[hook]]\nstage = 'configured'\nrun = 'x'\nwhere = 'outside'").hooks
    assert [hook.inside for hook in outside] == [False]


def test_a_recipe_is_laid_over_what_it_extends(load, tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    (base / "motd").touch()
    (base / "base.toml").write_text(
        'distro = "debian"\nrelease = "trixie"\nhostname = "base"\n'
        "[packages]\nvariant = 'essential'\ninclude = ['a1']\n"
        "[files]\n'/etc/motd' = 'motd'\n'/etc/issue' = 'motd'\n"
        "[[archive]]\nname = 'debian'\nsuites = ['{codename}']\n"
        "[[hook]]\nstage = 'configured'\nrun = 'one'\n",
        encoding="utf-8",
    )
    (tmp_path / "issue").touch()
    recipe = load(
        "extends = 'base/base.toml'\nrelease = 'bookworm'\n"
        "[packages]\ninclude = ['b1']\n[files]\n'/etc/issue' = 'issue'\n"
        "[[archive]]\nname = 'debian'\npriority = 7\n[[hook]]\nstage = 'configured'\nrun = 'two'\n",
        begin="",
    )
    assert (recipe.name, recipe.release, recipe.hostname, recipe.variant) == (
        "x",
        "bookworm",
        "base",
        "essential",
    )
    assert recipe.include == ("a1", "b1")
    assert [item.source for item in recipe.files] == [str(base / "motd"), str(tmp_path / "issue")]
    assert [(hook.run, hook.folder) for hook in recipe.hooks] == [("one", str(base)), ("two", str(tmp_path))]
    assert (recipe.archives[0].suites, recipe.archives[0].priority) == (("bookworm",), 7)


def test_later_ones_win_and_one_extended_twice_counts_once(load, tmp_path):
    (tmp_path / "root.toml").write_text(
        TWO_LINES + "[packages]\ninclude = ['r1']\n[[hook]]\nstage='finished'\nrun='r'\n"
    )
    (tmp_path / "a.toml").write_text("extends = 'root.toml'\nhostname = 'a'\n[packages]\ninclude = ['a1']")
    (tmp_path / "b.toml").write_text("extends = 'root.toml'\nhostname = 'b'\n[packages]\ninclude = ['b1']")
    recipe = load("extends = ['a.toml', 'b.toml']", begin="")
    assert (recipe.hostname, recipe.include, len(recipe.hooks)) == ("b", ("r1", "a1", "b1"), 1)


@pytest.mark.parametrize("names", [("x",), ("x", "a"), ("x", "a", "b")])
def test_a_circle_is_refused(refused, tmp_path, names):
    for name, following in zip(names, (*names[1:], names[0]), strict=True):
        (tmp_path / f"{name}.toml").write_text(f"extends = '{following}.toml'\n")
    error = refused(begin=f"extends = '{(*names, names[0])[1]}.toml'\n")
    assert error.where == "extends"
    assert "extends itself" in error.problem
    assert error.problem.count("x.toml") == 2


def test_a_fault_in_an_extended_recipe_is_told_there(refused, tmp_path):
    (tmp_path / "base.toml").write_text(TWO_LINES + "\n[packages]\ninclude = ['nginx', 'nginx=2']\n")
    error = refused("extends = 'base.toml'\n[packages]\ninclude = ['nginx=3']", begin="")
    assert (error.file, error.line) == (str(tmp_path / "x.toml"), 3)
    (tmp_path / "base.toml").write_text(TWO_LINES + "\n[packages]\nvarian = 'x'\n")
    error = refused("extends = 'base.toml'", begin="")
    assert (error.file, error.line, error.where) == (str(tmp_path / "base.toml"), 5, "packages.varian")


def test_a_distribution_can_be_a_file_beside_the_recipe(load, tmp_path):
    with open(os.path.join(SHIPPED, "debian.toml"), encoding="utf-8") as file:
        text = file.read().replace('"keys/', f'"{SHIPPED}/keys/').replace('id = "debian"', 'id = "mine"')
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
    recipe = load(begin='distro = "./mine.toml"\nrelease = 12\n')
    assert (recipe.distro, recipe.release) == ("mine", "bookworm")


def test_every_setting_is_told_with_its_origin(tmp_path):
    (tmp_path / "base.toml").write_text(
        TWO_LINES + "[packages]\ninclude = ['a1']\n[[archive]]\nname = 'debian'\npriority = 3\n"
    )
    file = tmp_path / "x.toml"
    file.write_text(
        "extends = 'base.toml'\n[packages]\ninclude = ['b1']\nvariant = 'minbase'\n"
        "[[archive]]\nname = 'debian-security'\nenabled = false\n"
    )
    told = {path: (value, origin) for path, value, origin in effective(str(file), {"arch": "i386"})}
    base = str(tmp_path / "base.toml")
    assert told["distro"] == ("debian", f"{base}:1")
    assert told["release"] == ("bookworm", f"{base}:2")
    assert told["name"] == ("x", "the recipe's file name")
    assert told["arch"] == ("i386", "command line")
    assert told["packages.include[0]"] == ("a1", f"{base}:4")
    assert told["packages.include[1]"] == ("b1", f"{file}:3")
    assert told["packages.variant"] == ("required", f"{file}:4")
    assert told["packages.recommends"] == (False, "default")
    assert told["archive.debian.priority"] == (3, f"{base}:7")
    assert told["archive.debian-security.enabled"] == (False, f"{file}:7")
    assert "archive.debian-security.suites" not in told
    value, origin = told["archive.debian.suites"]
    assert value == ["bookworm", "bookworm-updates"]
    assert origin.partition(":")[0] == os.path.join(SHIPPED, "debian.toml")
    with open(os.path.join(SHIPPED, "debian.toml"), encoding="utf-8") as distribution:
        assert distribution.readlines()[int(origin.partition(":")[2]) - 1].startswith("suites = ")
    assert told["eol"][0] == dt.date(2028, 6, 30)
