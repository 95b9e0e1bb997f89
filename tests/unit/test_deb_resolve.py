from __future__ import annotations

import sys

import pytest
from making.universe import make_universe

from rootfsbuild.errors import UnsatisfiableError
from rootfsbuild.formats.deb.choose import choose
from rootfsbuild.formats.deb.order import install_order
from rootfsbuild.formats.deb.resolve import resolve
from rootfsbuild.plan import Request, Why


def plan(universe, *include, variant="custom", **request):
    return resolve(Request("amd64", variant, include, **request), universe).packages


def names(packages):
    return [package.name for package in packages]


BASE = """
    dpkg 1
    Essential: yes
    Priority: required
    Pre-Depends: libc6
    Depends: tool

    libc6 2
    Multi-Arch: same

    init 1
    Essential: yes
    Depends: usrmerge | usr-is-merged

    usrmerge 1
    Depends: perl

    usr-is-merged 1

    perl 5

    tool 1

    apt 2
    Priority: required
    Depends: libapt, tool

    libapt 2

    vim 9
    Priority: important
    Depends: libvim

    libvim 9

    man 2
    Priority: standard

    nginx 1.22
    Depends: libc6, libnginx
    Recommends: docs
    Replaces: nginx-old (<< 1), httpd

    libnginx 1.22
    Source: nginx (1.22-0)

    docs 1
"""


@pytest.fixture
def base(tmp_path):
    return make_universe(tmp_path, BASE)


def test_a_variant_is_made_in_two_steps(base):
    packages = plan(base, "nginx", variant="required", preselect=("usr-is-merged",))
    assert {package.name: (package.automatic, package.wave, package.reason.why) for package in packages} == {
        "usr-is-merged": (False, 0, Why.DISTRIBUTION),
        "dpkg": (False, 0, Why.ESSENTIAL),
        "init": (False, 0, Why.ESSENTIAL),
        "libc6": (False, 0, Why.DEPENDENCY),
        "tool": (False, 0, Why.DEPENDENCY),
        "apt": (False, 0, Why.PRIORITY),
        "libapt": (True, 0, Why.DEPENDENCY),
        "nginx": (False, 1, Why.REQUESTED),
        "libnginx": (True, 1, Why.DEPENDENCY),
    }


def test_without_the_distributions_selection_the_first_alternative_wins(base):
    packages = plan(base, variant="essential")
    assert "usr-is-merged" not in names(packages)
    assert {"usrmerge", "perl"} <= set(names(packages))


@pytest.mark.parametrize(
    ("variant", "more"),
    [
        ("essential", set()),
        ("required", {"apt", "libapt"}),
        ("important", {"apt", "libapt", "vim", "libvim"}),
        ("standard", {"apt", "libapt", "vim", "libvim", "man"}),
    ],
)
def test_variants_build_on_each_other(base, variant, more):
    packages = plan(base, variant=variant, preselect=("usr-is-merged",))
    assert set(names(packages)) == {"dpkg", "libc6", "tool", "init", "usr-is-merged"} | more
    assert {package.name for package in packages if package.wave} == more - {"apt", "libapt"}


def test_custom_has_only_what_is_named_and_its_dependencies(base):
    packages = plan(base, "nginx", preselect=("usr-is-merged",))
    assert names(packages) == ["libc6", "libnginx", "nginx"]
    assert [package.automatic for package in packages] == [True, True, False]


def test_custom_keeps_the_distributions_selection_where_it_is_needed(base):
    packages = plan(base, "init", preselect=("usr-is-merged",))
    assert names(packages) == ["usr-is-merged", "init"]
    assert [package.wave for package in packages] == [0, 0]


def test_recommends_only_when_asked(base):
    assert "docs" not in names(plan(base, "nginx"))
    packages = {package.name: package for package in plan(base, "nginx", recommends=True)}
    assert packages["docs"].reason.detail == "Recommends: docs"
    assert packages["docs"].automatic


def test_everything_a_package_is(base):
    packages = {package.name: package for package in plan(base, "nginx")}
    nginx, library = packages["nginx"], packages["libnginx"]
    assert (nginx.archive, nginx.suite, nginx.component) == ("debian", "bookworm", "main")
    assert (library.source, library.source_version) == ("nginx", "1.22-0")
    assert nginx.depends == ("libc6", "libnginx")
    assert nginx.field("Replaces") == "nginx-old (<< 1), httpd"
    assert nginx.size == 1000
    assert len(nginx.sha256) == 64


def test_pre_depends_are_told_apart(base):
    dpkg = next(package for package in plan(base, "dpkg") if package.name == "dpkg")
    assert dpkg.depends == ("libc6", "tool")
    assert dpkg.pre_depends == ("libc6",)


def test_the_same_request_gives_the_same_plan(base, tmp_path):
    again = make_universe(tmp_path, BASE)
    request = Request("amd64", "standard", ("nginx", "perl"), recommends=True)
    assert resolve(request, base) == resolve(request, again)


SUITES = (
    ("app 1\nDepends: lib (>= 1)\n\nlib 1\n\nother 1", "bookworm", 500),
    ("app 2\nDepends: lib (>= 2), deep\n\nlib 2\nDepends: deep (>= 2)\n\ndeep 2", "bookworm-backports", 100),
    ("other 1.1\n\ndeep 1", "bookworm-updates", 500),
)


@pytest.mark.parametrize(
    ("include", "versions"),
    [
        ("app", {"app": "1", "lib": "1"}),
        ("other", {"other": "1.1"}),
        ("other=1", {"other": "1"}),
        ("other=1.*", {"other": "1.1"}),
        ("app=2", None),
        ("app/bookworm-backports", {"app": "2", "lib": "2", "deep": "2"}),
        ("app/bookworm-backports-suite", {"app": "2", "lib": "2", "deep": "2"}),
        ("app:amd64", {"app": "1", "lib": "1"}),
        ("other/bookworm", {"other": "1"}),
    ],
)
def test_includes_with_a_version_or_a_suite(tmp_path, include, versions):
    universe = make_universe(tmp_path, *SUITES)
    if versions is None:
        with pytest.raises(UnsatisfiableError, match=r"app Depends: lib \(>= 2\)"):
            plan(universe, include)
    else:
        assert {package.name: package.version for package in plan(universe, include)} == versions


def test_a_version_asked_for_is_there_from_the_first_step(tmp_path):
    universe = make_universe(
        tmp_path,
        ("base 1\nEssential: yes\nDepends: lib\n\nlib 1", "bookworm", 500),
        ("lib 2", "bookworm-backports", 100),
    )
    packages = plan(universe, "lib/bookworm-backports", variant="essential")
    assert {package.name: package.version for package in packages} == {"base": "1", "lib": "2"}


def test_where_a_version_comes_from_is_told(tmp_path):
    universe = make_universe(tmp_path, *SUITES)
    assert {package.suite for package in plan(universe, "app/bookworm-backports")} == {"bookworm-backports"}
    assert {package.suite for package in plan(universe, "other")} == {"bookworm-updates"}


def test_a_virtual_name_with_one_provider(tmp_path):
    universe = make_universe(tmp_path, "mta 1\nProvides: mail")
    (package,) = plan(universe, "mail")
    assert (package.name, package.reason.why, package.reason.detail, package.automatic) == (
        "mta",
        Why.REQUESTED,
        "mail",
        False,
    )


def test_excluded_packages_of_the_variant_are_left_out(base):
    packages = plan(base, variant="required", exclude=("apt", "init"), preselect=("usr-is-merged",))
    assert "apt" not in names(packages)
    assert "init" not in names(packages)
    assert "libapt" not in names(packages)


def test_an_excluded_alternative_loses(tmp_path):
    universe = make_universe(tmp_path, "a 1\nDepends: b | c\n\nb 1\n\nc 1")
    assert names(plan(universe, "a", exclude=("b",))) == ["c", "a"]


def test_deep_chains_are_walked(tmp_path):
    depth = 1500
    world = "\n\n".join(f"p{at} 1\nDepends: p{at + 1}" for at in range(depth)) + f"\n\np{depth} 1"
    before = sys.getrecursionlimit()
    packages = plan(make_universe(tmp_path, world), "p0")
    assert names(packages) == [f"p{at}" for at in range(depth, -1, -1)]
    assert sys.getrecursionlimit() == before


def test_another_search_may_take_over_where_the_walk_fails(tmp_path):
    # The walk takes b, which rules out c; a solution exists with d.
    universe = make_universe(tmp_path, "a 1\nDepends: b | d, c\n\nb 1\nDepends: e\n\ne 1\nConflicts: c\n\nc 1\n\nd 1")
    steps = []

    def complete(step, chosen):
        steps.append(([deb.name for deb in step.requests], [deb.name for deb, _ in chosen.broken]))
        lookup = {name: universe.candidate(name) for name in "acd"}
        return choose(universe, step.requests, lookup.get, step.current, recommends=False)

    packages = resolve(Request("amd64", "custom", ("a",)), universe, complete).packages
    assert names(packages) == ["c", "d", "a"]
    assert [requests for requests, _ in steps] == [["a"]]


def test_every_rejection_has_its_rule(tmp_path):
    universe = make_universe(
        tmp_path,
        """
        a 1
        Depends: gone | old (>= 2) | mta | c, real, broken | good

        old 1

        m1 1
        Provides: mta

        m2 1
        Provides: mta
        Priority: important

        m3 1
        Provides: mta
        Priority: important
        Suggests: m2

        m4 1
        Provides: mta
        Essential: yes

        c 1

        real 1

        double 1
        Provides: real

        broken 1
        Depends: nothing

        good 1
        """,
    )
    rejected = {package.name: dict(package.reason.rejected) for package in plan(universe, "a")}
    assert rejected["m4"] == {
        "m1": "not Essential",
        "m2": "not Essential",
        "m3": "not Essential",
        "c": "right of the chosen alternative",
        "gone": "not available",
        "old": "only version 1 is available",
    }
    assert rejected["real"] == {"double": "only provides real"}
    assert rejected["good"] == {"broken": "broken Depends: nothing"}
    without = {package.name: dict(package.reason.rejected) for package in plan(universe, "a", exclude=("m4",))}
    assert without["m3"]["m2"] == "mentioned earlier in the index"
    assert without["m3"]["m1"] == "lower priority (optional < important)"


def test_what_was_there_already_wins(tmp_path):
    universe = make_universe(
        tmp_path,
        "base 1\nEssential: yes\nDepends: p1\n\np1 1\nProvides: v\n\np2 1\nProvides: v\n\na 1\nDepends: p2 | p1",
    )
    assert "p2" not in names(plan(universe, "a", variant="essential"))


def test_order_puts_dependencies_first_and_breaks_cycles_by_name():
    depends = {"a": ("b", "x"), "b": ("c",), "c": ("b",), "x": ("y",), "y": ("z",), "z": ("x",)}
    assert install_order(depends, {}) == ["b", "c", "x", "y", "z", "a"]
    assert install_order(depends, {"x": ("y",)}) == ["b", "c", "y", "x", "z", "a"]


def test_order_begins_with_the_base():
    depends = {"a": (), "b": ("c",), "c": (), "d": ("a",)}
    assert install_order(depends, {}) == ["a", "c", "b", "d"]
    assert install_order(depends, {}, {"b", "c"}) == ["c", "b", "a", "d"]


@pytest.mark.parametrize(
    ("include", "line", "hint"),
    [
        ("ngnix", "ngnix is not in bookworm/main", "did you mean nginx?"),
        (
            "nginx=2*",
            "nginx has version 1.22 in bookworm/main",
            "name one of these versions, or add the suite to the recipe",
        ),
        (
            "nginx/sid",
            "nginx has version 1.22 in bookworm/main",
            "name one of these versions, or add the suite to the recipe",
        ),
        ("nginx:arm64", "nginx is asked for arm64, and this root is amd64", ""),
        ("a b", "'a b' names no package", "write name, name:arch, name=version or name/suite"),
    ],
)
def test_includes_that_name_nothing(base, include, line, hint):
    with pytest.raises(UnsatisfiableError) as caught:
        plan(base, include)
    assert (caught.value.request, *caught.value.chains, caught.value.hint) == (include, line, hint)


def test_a_virtual_name_with_several_providers(tmp_path):
    universe = make_universe(tmp_path, "b 1\nProvides: mail\n\na 1\nProvides: mail")
    with pytest.raises(UnsatisfiableError, match="virtual package with several") as caught:
        plan(universe, "mail")
    assert caught.value.hint == "include one of a, b"


def test_an_include_that_is_excluded(base):
    with pytest.raises(UnsatisfiableError, match="nginx is excluded") as caught:
        plan(base, "nginx", exclude=("nginx",))
    assert caught.value.hint == "take nginx out of exclude"


def test_a_forbidden_pin(tmp_path):
    universe = make_universe(tmp_path, ("a 1", "sid", -1))
    with pytest.raises(UnsatisfiableError, match="pin of -1 forbids"):
        plan(universe, "a")
