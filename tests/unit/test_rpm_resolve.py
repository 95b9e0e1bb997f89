from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from making.rpm_universe import make_universe, place, write_document, write_primary

from rootfsbuild.errors import UnsatisfiableError, UntrustedError
from rootfsbuild.formats.rpm.explain import nearest, why
from rootfsbuild.formats.rpm.links import split_rich
from rootfsbuild.formats.rpm.metadata import Placed, in_primary, load_universe
from rootfsbuild.formats.rpm.resolve import resolve
from rootfsbuild.plan import Reason, Request, Why

WORLD = """
    app 1-1
    Requires: lib >= 1, /usr/bin/tool, liba.so.1()(64bit)
    Requires(pre): setup
    Recommends: extra

    lib 1-1
    Source: lib-source-1-1

    lib 2-3
    Source: lib-source-2-3
    Provides: liba.so.1()(64bit)

    tool 1:4-1 noarch
    Files: /usr/bin/tool
    Conflicts: rival
    Obsoletes: hammer < 3

    hammer 2-1

    setup 1-1 noarch

    extra 1-1
    Requires: extra-data

    extra-data 1-1

    lang 1-1
    Supplements: (app and lib)
"""


def request(*include, **more):
    return Request("x86_64", "custom", include, **more)


def choose(universe, *include, **more):
    return [
        f"{one.name}-{one.version}.{one.architecture}" for one in resolve(request(*include, **more), universe).packages
    ]


def failure(universe, *include, **more):
    with pytest.raises(UnsatisfiableError) as caught:
        resolve(request(*include, **more), universe)
    return caught.value


@pytest.fixture
def universe(tmp_path):
    return make_universe(tmp_path, WORLD)


def test_dependencies_are_met_and_nothing_more(universe):
    assert sorted(choose(universe, "app")) == [
        "app-1-1.x86_64",
        "lib-2-3.x86_64",
        "setup-1-1.noarch",
        "tool-1:4-1.noarch",
    ]


def test_weak_dependencies_on_request(universe):
    names = {one.split("-1")[0] for one in choose(universe, "app", recommends=True)}
    assert names >= {"extra", "extra-data", "lang"}


def test_what_a_package_of_the_plan_says(universe):
    packages = {one.name: one for one in resolve(request("app", recommends=True), universe).packages}
    app, lib, tool = packages["app"], packages["lib"], packages["tool"]
    assert (app.archive, app.suite, app.component, app.filename) == ("base", "9", "", "Packages/app-1-1.x86_64.rpm")
    assert (lib.source, lib.source_version) == ("lib-source", "2-3")
    assert (lib.size, lib.installed_size, len(lib.sha256)) == (1000, 2000, 64)
    assert app.depends == ("lib", "setup", "tool")
    assert app.pre_depends == ("setup",)
    assert app.field("Requires") == "/usr/bin/tool, lib >= 1, liba.so.1()(64bit)"
    assert app.field("Requires(pre)") == "setup"
    assert app.field("Recommends") == "extra"
    assert tool.field("Provides") == "tool = 1:4-1"
    assert tool.field("Conflicts") == "rival"
    assert tool.field("Obsoletes") == "hammer < 3"
    assert packages["lang"].field("Supplements") == "(app and lib)"


def test_every_package_has_its_reason(universe):
    reasons = {one.name: one.reason for one in resolve(request("app", recommends=True), universe).packages}
    assert reasons == {
        "app": Reason(Why.REQUESTED, "app"),
        "lib": Reason(Why.DEPENDENCY, "Requires: lib >= 1", "app"),
        "tool": Reason(Why.DEPENDENCY, "Requires: /usr/bin/tool", "app"),
        "setup": Reason(Why.DEPENDENCY, "Requires: setup", "app"),
        "extra": Reason(Why.DEPENDENCY, "Recommends: extra", "app"),
        "extra-data": Reason(Why.DEPENDENCY, "Requires: extra-data", "extra"),
        "lang": Reason(Why.DEPENDENCY, "Supplements: (app and lib)", "app"),
    }


def test_only_what_was_asked_for_is_not_automatic(universe):
    packages = resolve(request("app", "lib"), universe).packages
    assert {one.name for one in packages if not one.automatic} == {"app", "lib"}


def test_dependencies_come_first_and_prerequisites_always(tmp_path):
    world = "\n\n".join(f"p{number} 1-1\nRequires(pre): p{number + 1}" for number in range(8)) + "\n\np8 1-1"
    names = [one.name for one in resolve(request("p0"), make_universe(tmp_path, world)).packages]
    assert names == [f"p{number}" for number in range(8, -1, -1)]


def test_the_distribution_selects_unless_the_variant_is_custom(universe):
    wanted = Request("x86_64", "standard", ("lib",), preselect=("setup", "@minimal"))
    reasons = {one.name: one.reason.why for one in resolve(wanted, universe, groups=lambda _: ("tool",)).packages}
    assert reasons == {"setup": Why.DISTRIBUTION, "tool": Why.DISTRIBUTION, "lib": Why.REQUESTED}
    assert [one.name for one in resolve(replace(wanted, variant="custom"), universe).packages] == ["lib"]


def test_what_the_distribution_selects_has_to_be_there(universe):
    with pytest.raises(UnsatisfiableError, match="not-there is not in base"):
        resolve(Request("x86_64", "standard", ("lib",), preselect=("not-there",)), universe)


@pytest.mark.parametrize(
    ("include", "chosen"),
    [
        ("lib", "lib-2-3.x86_64"),
        ("lib.x86_64", "lib-2-3.x86_64"),
        ("lib-1", "lib-1-1.x86_64"),
        ("lib-1-1", "lib-1-1.x86_64"),
        ("lib-0:1-1.x86_64", "lib-1-1.x86_64"),
        ("lib=1*", "lib-1-1.x86_64"),
        ("lib=2-3", "lib-2-3.x86_64"),
        ("tool=1:4*", "tool-1:4-1.noarch"),
        ("/usr/bin/tool", "tool-1:4-1.noarch"),
        ("liba.so.1()(64bit)", "lib-2-3.x86_64"),
        ("lib < 2", "lib-1-1.x86_64"),
        ("(lib < 2 or gone)", "lib-1-1.x86_64"),
        ("hammer", "tool-1:4-1.noarch"),
        ("se*p", "setup-1-1.noarch"),
    ],
)
def test_ways_to_ask_for_a_package(universe, include, chosen):
    assert choose(universe, include) == [chosen]


def test_wildcards_choose_every_package(universe):
    assert sorted(choose(universe, "extra*")) == ["extra-1-1.x86_64", "extra-data-1-1.x86_64"]


def test_a_group_is_its_packages_without_those_that_are_not_there(universe):
    def groups(name):
        assert name == "core"
        return ("lib", "gone", "(setup if lib)", "(tool if hammer)")

    resolution = resolve(request("@core"), universe, groups)
    assert {one.name: str(one.reason) for one in resolution.packages} == {
        "lib": "requested: @core",
        "setup": "requested: @core",
    }
    assert resolution.skipped == ("gone",)


def test_a_group_where_nothing_describes_any(universe):
    assert "there is no group core" in str(failure(universe, "@core"))


def test_excluded_packages_are_not_chosen(tmp_path):
    universe = make_universe(
        tmp_path, "app 1-1\nRequires: mta\n\nexim 1-1\nProvides: mta\n\npostfix 1-1\nProvides: mta"
    )
    assert {"exim-1-1.x86_64"} < set(choose(universe, "app", exclude=("post*",)))
    assert {"postfix-1-1.x86_64"} < set(choose(universe, "app", exclude=("exim",)))
    assert failure(universe, "app", exclude=("exim", "postfix.x86_64")).chains == (
        "app Requires: mta",
        "exim is excluded",
        "postfix is excluded",
    )
    assert len(choose(universe, "app")) == 2


def test_a_repository_with_priority_wins_and_a_cheaper_one_among_equals(tmp_path):
    def archives(first, second):
        universe = make_universe(
            tmp_path, place(tmp_path, "lib 1-1", "first", **first), place(tmp_path, "lib 1-1", "second", **second)
        )
        return [one.archive for one in resolve(request("lib"), universe).packages]

    assert archives({"priority": 10}, {"priority": 20}) == ["first"]
    assert archives({"priority": 20}, {"priority": 10}) == ["second"]
    assert archives({"cost": 2000}, {"cost": 10}) == ["second"]


def test_priority_goes_before_version(tmp_path):
    old = place(tmp_path, "lib 1-1", "old", priority=10)
    universe = make_universe(tmp_path, old, place(tmp_path, "lib 2-1", "new"))
    assert choose(universe, "lib") == ["lib-1-1.x86_64"]


def test_excludes_of_a_repository_are_only_its_own(tmp_path):
    first = place(tmp_path, "lib 2-1\n\nlib-devel 2-1", "first", excludes=("lib", "lib-devel-2*"))
    universe = make_universe(tmp_path, first, place(tmp_path, "lib 1-1\n\nlib-devel 1-1", "second"))
    assert sorted(choose(universe, "lib*")) == ["lib-1-1.x86_64", "lib-devel-1-1.x86_64"]


def test_hidden_packages_are_not_there(tmp_path):
    hidden = frozenset({"lib-0:2-1.x86_64", "other-1:2-1.noarch"})
    world = "lib 1-1\n\nlib 2-1\n\nother 1:2-1 noarch"
    universe = make_universe(tmp_path, place(tmp_path, world, hidden=hidden))
    assert choose(universe, "lib") == ["lib-1-1.x86_64"]
    assert failure(universe, "other").chains == ("other is hidden by module filtering",)


def test_what_an_active_module_claims_is_there_from_it_alone(tmp_path):
    modular = place(
        tmp_path,
        "node 1:20-1.module\n\nnode 1:18-1.module\n\nnpm 1:10-1.module",
        "modular",
        hidden=frozenset({"node-1:18-1.module.x86_64"}),
        shown=frozenset({"node-1:20-1.module.x86_64", "npm-1:10-1.module.x86_64"}),
        claimed=frozenset({"node", "npm"}),
    )
    plain = place(tmp_path, "node 1:22-1\n\nother 1-1\nProvides: npm = 11", "plain", claimed=frozenset({"node", "npm"}))
    universe = make_universe(tmp_path, modular, plain)
    assert choose(universe, "node") == ["node-1:20-1.module.x86_64"]
    assert choose(universe, "npm >= 1:1") == ["npm-1:10-1.module.x86_64"]
    assert failure(universe, "other").chains == ("other is hidden by module filtering",)


def test_both_architectures_side_by_side(tmp_path):
    world = "lib 1-1 i686\n\nlib 1-1\n\nwine 1-1\nRequires: lib(x86-32)\n\nlib2 1-1 i686\nProvides: lib(x86-32)"
    universe = make_universe(tmp_path, world)
    assert choose(universe, "lib") == ["lib-1-1.x86_64"]
    assert sorted(choose(universe, "lib.i686", "lib.x86_64")) == ["lib-1-1.i686", "lib-1-1.x86_64"]
    assert sorted(choose(universe, "wine")) == ["lib2-1-1.i686", "wine-1-1.x86_64"]


def test_another_architecture_is_never_chosen(tmp_path):
    universe = make_universe(tmp_path, "lib 1-1 aarch64\n\nlib 1-1 src")
    error = failure(universe, "lib")
    assert "lib is for aarch64, and this root is x86_64" in error.chains
    assert choose(make_universe(tmp_path, "lib 1-1 aarch64", architecture="aarch64"), "lib") == ["lib-1-1.aarch64"]


PATHS = """
    app 1-1
    Requires: {dependency}

    plain 1-1

    data 1-1
    Files: /usr/share/data /usr/bin/program
"""


@pytest.mark.parametrize(
    ("dependency", "chosen"),
    [
        ("/usr/share/data", ["app", "data"]),
        ("(plain if /usr/share/data)", ["app"]),
        ("(/usr/share/data or plain)", None),
        ("/usr/bin/program", ["app", "data"]),
    ],
)
def test_file_lists_are_read_when_a_path_needs_them(tmp_path, dependency, chosen):
    placed = place(tmp_path, PATHS.format(dependency=dependency))
    asked = []
    universe = make_universe(tmp_path, replace(placed, filelists=lambda: asked.append(1) or placed.filelists))
    assert choose(universe, "plain") == ["plain-1-1.x86_64"]
    assert not asked
    names = sorted(one.name for one in resolve(request("app"), universe).packages)
    assert names == (chosen or names)
    assert len(asked) == (dependency != "/usr/bin/program")
    eager = make_universe(tmp_path, placed)
    eager.load_filelists()
    assert names == sorted(one.name for one in resolve(request("app"), eager).packages)


def test_a_path_that_is_asked_for_is_looked_up_in_the_file_lists(tmp_path):
    universe = make_universe(tmp_path, PATHS.format(dependency="plain"))
    assert choose(universe, "/usr/share/data") == ["data-1-1.x86_64"]
    assert failure(universe, "/usr/share/other").chains == ("/usr/share/other is not in base",)


def test_which_paths_primary_holds():
    assert all(map(in_primary, ["/etc/passwd", "/usr/bin/sh", "/opt/x/bin/y", "/usr/lib/sendmail"]))
    assert not any(map(in_primary, ["/usr/share/x", "/usr/etc/x", "/usr/lib/sendmail.d", "/binary"]))


def test_the_cache_gives_the_same_plan(tmp_path):
    placed = place(tmp_path, WORLD)
    first = load_universe([placed], "x86_64", str(tmp_path / "cache"))
    first.load_filelists()
    plan = resolve(request("app", recommends=True), first).packages
    kept = sorted((tmp_path / "cache").iterdir())
    assert len(kept) == 2
    for document in (placed.primary, placed.filelists):
        os.unlink(document.path)
    second = load_universe([placed], "x86_64", str(tmp_path / "cache"))
    second.load_filelists()
    assert resolve(request("app", recommends=True), second).packages == plan


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: data[:0], lambda data: data[:200] + b"\xff" * 9]
)
def test_a_damaged_cache_is_made_again(tmp_path, damage):
    placed = place(tmp_path, WORLD)
    (tmp_path / "cache").mkdir()
    assert choose(load_universe([placed], "x86_64", str(tmp_path / "cache")), "lib") == ["lib-2-3.x86_64"]
    (kept,) = (tmp_path / "cache").iterdir()
    good = kept.read_bytes()
    kept.write_bytes(damage(good))
    assert choose(load_universe([placed], "x86_64", str(tmp_path / "cache")), "lib") == ["lib-2-3.x86_64"]
    assert kept.read_bytes() == good


def test_a_cache_that_cannot_be_written_costs_nothing(tmp_path):
    (tmp_path / "cache").write_text("not a folder")
    assert choose(load_universe([place(tmp_path, WORLD)], "x86_64", str(tmp_path / "cache")), "lib")


@pytest.mark.parametrize("ending", ["", ".gz", ".xz", ".bz2", ".zst"])
def test_every_compression(tmp_path, ending):
    import bz2
    import gzip
    import lzma

    import zstandard

    pack = {
        "": bytes,
        ".gz": gzip.compress,
        ".xz": lzma.compress,
        ".bz2": bz2.compress,
        ".zst": zstandard.ZstdCompressor().compress,
    }
    document = write_document(tmp_path, write_primary("lib 1-1"))
    path = Path(document.path + ending)
    path.write_bytes(pack[ending](Path(document.path).read_bytes()))
    universe = load_universe([Placed("base", "9", replace(document, path=str(path)))], "x86_64", str(tmp_path / "c"))
    assert choose(universe, "lib") == ["lib-1-1.x86_64"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is not repository metadata"),
        ("<metadata><package", "is not repository metadata"),
        ('<!DOCTYPE m [<!ENTITY a "b">]><metadata/>', "declares a document type"),
    ],
)
def test_a_malformed_document_is_refused(tmp_path, text, problem):
    placed = Placed("base", "9", write_document(tmp_path, text))
    with pytest.raises(UntrustedError, match=problem):
        load_universe([placed], "x86_64", str(tmp_path / "cache"))
    assert not (tmp_path / "cache").exists()


def test_a_truncated_document_is_refused(tmp_path):
    placed = place(tmp_path, WORLD)
    path = Path(placed.primary.path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UntrustedError, match="truncated"):
        load_universe([placed], "x86_64", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("Checksum: sha 0123456789012345678901234567890123456789", "only a checksum of type sha1 for lib"),
        ("Location: ../lib.rpm", "lib is said to be at"),
        ("Location: /etc/lib.rpm", "lib is said to be at"),
        ("Location: http://elsewhere/lib.rpm", "lib is said to be at"),
    ],
)
def test_a_package_that_cannot_be_believed(tmp_path, line, problem):
    universe = make_universe(tmp_path, f"lib 1-1\n{line}\n\nother 1-1")
    assert choose(universe, "other") == ["other-1-1.x86_64"]
    with pytest.raises(UntrustedError, match=problem):
        resolve(request("lib"), universe)


def test_a_name_that_is_none(tmp_path):
    universe = make_universe(tmp_path, "app 1-1\nRequires: lib\n\n../lib 1-1\nProvides: lib")
    with pytest.raises(UntrustedError, match="is not the name of any package"):
        resolve(request("app"), universe)


TROUBLE = """
    app 1-1
    Requires: middle

    middle 1-1
    Requires: lib >= 2

    lib 1-1

    data 1-1
    Conflicts: rival

    rival 1-1

    both 1-1
    Requires: data, rival

    best 1-1

    best 2-1
    Requires: gone

    wants 1-1
    Requires: capability >= 2

    gives 1-1
    Provides: capability = 1

    rich 1-1
    Requires: (gone or lost)

    one 1-1
    Requires: versions = 1

    two 1-1
    Requires: versions = 2

    versions 1-1

    versions 2-1
"""


@pytest.mark.parametrize(
    ("include", "chains"),
    [
        (("app",), ["app Requires: middle", "middle Requires: lib >= 2", "lib has version 1-1 in base"]),
        (
            ("both",),
            ["both Requires: rival", "both Requires: data", "data Conflicts: rival", "rival 1-1 is wanted as well"],
        ),
        (("wants",), ["wants Requires: capability >= 2", "gives 1-1 provides capability = 1"]),
        (("rich",), ["rich Requires: (gone or lost)", "gone is not in base", "lost is not in base"]),
        (("lib=3*",), ["lib has version 1-1 in base"]),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_explanations(tmp_path, include, chains):
    error = failure(make_universe(tmp_path, TROUBLE), *include)
    assert list(error.chains) == chains
    assert error.request == ", ".join(include)


def test_two_versions_of_one_package_are_named(tmp_path):
    error = failure(make_universe(tmp_path, TROUBLE), "one", "two")
    assert set(error.chains) == {
        "one Requires: versions = 1",
        "two Requires: versions = 2",
        "only one of versions 1-1 (x86_64) and versions 2-1 (x86_64) can be installed",
    } or set(error.chains) == {
        "one Requires: versions = 1",
        "two Requires: versions = 2",
        "only one of versions 2-1 (x86_64) and versions 1-1 (x86_64) can be installed",
    }
    assert error.request == "one, two"


@pytest.mark.parametrize(
    ("include", "exclude", "hint"),
    [
        ("best", (), "an older version can be installed: include best=1-1"),
        ("midle", (), "did you mean middle?"),
        ("lib", ("lib",), "take lib out of exclude"),
        ("both", ("rival",), "take rival out of exclude"),
        ("lib=3", (), "name one of these versions"),
    ],
)
def test_hints(tmp_path, include, exclude, hint):
    assert failure(make_universe(tmp_path, TROUBLE), include, exclude=exclude).hint == hint


def test_the_chain_goes_from_the_request_down(universe):
    packages = resolve(request("app", recommends=True), universe).packages
    assert why(packages, "extra-data") == [
        "app 1-1: requested as app",
        "app Recommends: extra -> extra 1-1",
        "extra Requires: extra-data -> extra-data 1-1",
    ]
    assert why(packages, "lang.x86_64") == [
        "app 1-1: requested as app",
        "lang 1-1 Supplements: (app and lib), which app is part of",
    ]
    assert why(packages, "app") == ["app 1-1: requested as app"]


def test_a_misspelt_name_gets_the_nearest(universe):
    with pytest.raises(UnsatisfiableError, match="setpu is not in the plan") as caught:
        why(resolve(request("app"), universe).packages, "setpu")
    assert caught.value.hint == "did you mean setup?"
    assert nearest("zzz", ["bash", "glibc"]) == ""


def test_splitting_rich_dependencies():
    assert split_rich("(a >= 1 or b)") == ("a >= 1", ("or", "b"))
    assert split_rich("((a if b) and lib.so()(64bit))") == ("(a if b)", ("and", "lib.so()(64bit)"))
    assert split_rich("(a if b else (c with d))") == ("a", ("if", "b"), ("else", "(c with d)"))


@pytest.mark.parametrize(
    ("dependency", "depends"),
    [
        ("(lib if setup)", ("lib",)),
        ("(lib if gone)", ()),
        ("(lib if gone else setup)", ("setup",)),
        ("(lib unless gone)", ("lib",)),
        ("(lib and setup)", ("lib", "setup")),
        ("(lib or gone)", ("lib",)),
        ("(cap with lib)", ("lib",)),
        ("(cap without lib)", ("setup",)),
        ("(lib if (setup and gone))", ()),
    ],
)
def test_who_meets_a_rich_dependency(tmp_path, dependency, depends):
    world = f"app 1-1\nRequires: {dependency}\n\nlib 1-1\nProvides: cap\n\nsetup 1-1\nProvides: cap\n\ngone2 1-1"
    packages = resolve(request("app", "lib", "setup"), make_universe(tmp_path, world)).packages
    assert {one.name: one.depends for one in packages}["app"] == depends
