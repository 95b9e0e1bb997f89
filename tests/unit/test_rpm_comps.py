from __future__ import annotations

import pytest
from making.rpmmd import COMPRESSORS, comps, environment, group
from making.shared import cs9_baseos

from rootfsbuild.errors import UnsatisfiableError, UntrustedError
from rootfsbuild.formats.rpm.comps import conditions, expand, join, parse_comps

CORE = group(
    "core", name="Core", mandatory=["bash", "setup"], default=["vim"], optional=["zsh"], conditional=[("de", "vim")]
)
TOOLS = group("tools", mandatory=["git"], conditional=[("git-gui", "x11"), ("git-de", "de")])
BODY = comps(CORE, TOOLS, environment("minimal-environment", "core", "gone", name="Minimal", optional=["tools"]))


@pytest.fixture(scope="module")
def read():
    return parse_comps(BODY)


def refusal(*arguments, **named):
    with pytest.raises(UnsatisfiableError) as caught:
        expand(*arguments, **named)
    return caught.value


def test_parse(read):
    core = read.groups["core"]
    assert (core.name, core.names("mandatory"), core.names("default")) == ("Core", ("bash", "setup"), ("vim",))
    assert (core.names("optional"), core.names("conditional")) == (("zsh",), ("de",))
    assert core.members["de"].requires == "vim"
    minimal = read.environments["minimal-environment"]
    assert (minimal.name, minimal.groups, minimal.optional) == ("Minimal", ("core", "gone"), ("tools",))


@pytest.mark.parametrize("ending", COMPRESSORS)
def test_from_a_file(tmp_path, read, ending):
    (tmp_path / "blob").write_bytes(COMPRESSORS[ending](BODY))
    assert parse_comps(str(tmp_path / "blob"), "it", href=f"repodata/comps.xml{ending}") == read


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        ("@core", "bash setup vim de"),
        ("core", "bash setup vim de"),
        ("@Core", "bash setup vim de"),
        ("@CORE", "bash setup vim de"),
        ("@co*", "bash setup vim de"),
        ("@minimal-environment", "bash setup vim de"),
        ("@^minimal-environment", "bash setup vim de"),
        ("@Minimal", "bash setup vim de"),
        ("@^Minimal", "bash setup vim de"),
        ("@core:optional", "bash setup vim zsh de"),
        ("@core:mandatory", "bash setup"),
        ("@core:default", "vim"),
        ("@core:mandatory,default", "bash setup vim"),
        ("@core/optional", "zsh"),
        ("@core/mandatory,optional", "bash setup zsh"),
        ("@tools", "git"),
        ("@*o*s", "git"),
        ("@*", "bash setup vim git de git-de"),
    ],
)
def test_expand(read, spec, names):
    assert expand(read, spec) == tuple(names.split())


def test_without_defaults(read):
    assert expand(read, "@core", weak=False) == ("bash", "setup")


def test_conditions_that_only_the_resolver_can_decide(read):
    assert conditions(read, "@core") == ()
    assert conditions(read, "@tools") == (("git-gui", "x11"), ("git-de", "de"))
    assert conditions(read, "@*") == (("git-gui", "x11"),)
    assert conditions(read, "@tools:mandatory") == ()


@pytest.mark.parametrize(
    ("spec", "hint"),
    [
        ("@cor", 'did you mean "@core"?'),
        ("@minimal-enviroment", 'did you mean "@minimal-environment"?'),
        ("@^minimal-env", 'did you mean "@^minimal-environment"?'),
        ("@^core", "there are @^minimal-environment"),
        ("@kde", "there are @core, @tools"),
    ],
)
def test_unknown_groups_name_the_nearest(read, spec, hint):
    error = refusal(read, spec)
    assert spec in str(error)
    assert error.hint == hint


@pytest.mark.parametrize("spec", ["@", "", "@core:", "@core:bogus", "@core/mandatory/x", "@core:a b"])
def test_specifications_that_mean_nothing(read, spec):
    assert "@group:optional" in refusal(read, spec).hint


def test_same_group_of_two_repositories_is_united():
    more = comps(
        group("core", name="Base", mandatory=["dnf"], optional=["vim"]), environment("minimal-environment", "x")
    )
    both = join([parse_comps(BODY), parse_comps(more)])
    assert expand(both, "@core") == ("bash", "setup", "dnf")
    assert both.groups["core"].names("optional") == ("vim", "zsh")
    assert both.groups["core"].name == "Base"
    assert both.environments["minimal-environment"].groups == ("core", "gone", "x")
    assert join([]).groups == {}


def test_kinds_and_architectures():
    wanted = (
        '<packagereq>plain</packagereq><packagereq type="bogus">no</packagereq><packagereq type="mandatory"/>'
        '<packagereq type="conditional">always</packagereq>'
        '<packagereq type="default" arch="s390x, ppc64le">s390</packagereq>'
    )
    body = comps(group("g").replace("</packagelist>", f"{wanted}</packagelist>"))
    assert expand(parse_comps(body, architecture="x86_64"), "@g") == ("plain", "always")
    assert expand(parse_comps(body, architecture="s390x"), "@g") == ("plain", "s390", "always")


def test_names_in_other_languages_are_not_taken():
    body = comps(group("g").replace("<name>g</name>", '<name xml:lang="de">Kern</name><name>Core</name>'))
    assert parse_comps(body).groups["g"].name == "Core"


@pytest.mark.parametrize(
    "body",
    [
        b"<comps>",
        b"<html/>",
        b"<!DOCTYPE html SYSTEM 'x'><comps/>",
        b"<!DOCTYPE comps SYSTEM 'x' [<!ENTITY a 'b'>]><comps>&a;</comps>",
    ],
)
def test_malformed_documents_are_refused(body):
    with pytest.raises(UntrustedError):
        parse_comps(body)


def test_real_groups():
    (path,) = (cs9_baseos() / "repodata").glob("*comps*.gz")
    read = parse_comps(str(path), "comps")
    assert len(read.groups) == 34
    assert set(read.environments) == {"custom-environment", "minimal-environment", "server-product-environment"}
    minimal = expand(read, "@^minimal-environment")
    assert minimal == expand(read, "@core")
    assert {"bash", "dnf", "systemd"} <= set(minimal)
    assert set(minimal) < set(expand(read, "@core:optional"))
    assert set(minimal) < set(expand(read, "@^server-product-environment"))
