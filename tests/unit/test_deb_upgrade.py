from __future__ import annotations

import itertools
import random
import tempfile
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, event, given, note, reject, settings
from hypothesis import strategies as st
from making.installable import meets, problems, relations
from making.universe import make_universe

from rootfsbuild.errors import UnsatisfiableError, UsageError
from rootfsbuild.formats.deb.resolve import resolve
from rootfsbuild.formats.deb.upgrade import upgrade
from rootfsbuild.plan import Request, Why


def request_of(*include, variant="custom", **fields):
    return Request("amd64", variant, include, **fields)


@pytest.fixture
def turn(tmp_path):
    """Lock `old` for a request, then upgrade `names` of it against `new`; worlds as make_universe takes them."""

    def run(old, new, *names, include=(), then=None, same_recipe=False, locked=None, **fields):
        request = request_of(*include, **fields)
        locked = locked or resolve(request, make_universe(tmp_path, *as_worlds(old))).packages
        metadata = SimpleNamespace(universe=make_universe(tmp_path, *as_worlds(new)))
        packages = upgrade(then or request, locked, frozenset(names), metadata, same_recipe=same_recipe)
        assert problems(packages) == []
        return packages

    return run


def as_worlds(worlds):
    return worlds if isinstance(worlds, list) else [worlds]


def versions(packages):
    return {package.name: package.version for package in packages}


OLD = """
    nginx 1
    Depends: libc, libssl (>= 1)

    curl 1
    Depends: libc, libssl

    libssl 1
    Depends: libc

    libc 1
"""
NEW = """
    nginx 2
    Depends: libc, libssl (>= 1)

    curl 2
    Depends: libc, libssl

    libssl 2
    Depends: libc

    libc 2
"""


def test_a_leaf_moves_alone_though_the_index_lists_nothing_else_that_is_locked(turn):
    packages = turn(OLD, NEW, "nginx", include=("nginx", "curl"))
    assert versions(packages) == {"nginx": "2", "curl": "1", "libssl": "1", "libc": "1"}
    assert [package.name for package in packages][-1] == "nginx"


def test_nothing_named_is_nothing_changed(turn, tmp_path):
    packages = turn(OLD, NEW, include=("nginx", "curl"))
    assert packages == resolve(request_of("nginx", "curl"), make_universe(tmp_path, OLD)).packages


def test_all_named_is_a_fresh_resolution(turn, tmp_path):
    packages = turn(OLD, NEW, "nginx", "curl", "libssl", "libc", include=("nginx", "curl"))
    assert packages == resolve(request_of("nginx", "curl"), make_universe(tmp_path, NEW)).packages


def test_what_is_named_and_the_newest_stays(turn):
    assert versions(turn(OLD, OLD, "nginx", include=("nginx",))) == {"nginx": "1", "libssl": "1", "libc": "1"}


def test_what_is_named_follows_the_index_downwards_too(turn):
    packages = turn("tool 2\n\nother 1", "tool 1\n\nother 1", "tool", include=("tool", "other"))
    assert versions(packages) == {"tool": "1", "other": "1"}


def test_what_is_named_and_no_longer_listed_stays(turn):
    packages = turn("tool 2\n\nother 1", "other 1", "tool", include=("tool", "other"))
    assert versions(packages) == {"tool": "2", "other": "1"}


def test_what_a_new_version_needs_moves_with_it_and_nothing_more(turn):
    new = NEW.replace("libssl (>= 1)", "libssl (>= 2)")
    packages = turn(OLD, new, "nginx", include=("nginx", "curl"))
    assert versions(packages) == {"nginx": "2", "curl": "1", "libssl": "2", "libc": "1"}


PAIRS = """
    app {0}
    Depends: lib (= {0})

    plugin {0}
    Depends: app (= {0})

    lib {0}
    Depends: lib-data (= {0})

    lib-data {0} all

    other {0}
"""


@pytest.mark.parametrize("name", ["app", "plugin", "lib", "lib-data"])
def test_what_is_of_one_version_moves_together_from_wherever_it_is_pulled(turn, name):
    packages = turn(PAIRS.format(1), PAIRS.format(2), name, include=("plugin", "other"))
    assert versions(packages) == {"app": "2", "plugin": "2", "lib": "2", "lib-data": "2", "other": "1"}


@pytest.mark.parametrize("field", ["Breaks", "Conflicts"])
def test_what_a_new_version_rules_out_moves_out_of_its_way(turn, field):
    old = "app 1\n\nneighbour 1\n\nother 1"
    new = f"app 2\n{field}: neighbour (<< 2)\n\nneighbour 2\n\nother 2"
    packages = turn(old, new, "app", include=("app", "neighbour", "other"))
    assert versions(packages) == {"app": "2", "neighbour": "2", "other": "1"}


def test_what_rules_the_new_version_out_moves_too(turn):
    old = "app 1\n\nneighbour 1\nBreaks: app (>> 1)\n\nother 1"
    new = "app 2\n\nneighbour 2\nBreaks: app (>> 2)\n\nother 2"
    packages = turn(old, new, "app", include=("app", "neighbour", "other"))
    assert versions(packages) == {"app": "2", "neighbour": "2", "other": "1"}


def test_what_is_broken_moves_rather_than_goes_where_another_could_take_its_place(turn):
    old = "app 1\n\nuser 1\nDepends: engine | replacement\n\nengine 1\n\nreplacement 1"
    new = "app 2\nBreaks: engine (<< 2)\n\nuser 1\nDepends: engine | replacement\n\nengine 2\n\nreplacement 2"
    packages = turn(old, new, "app", include=("app", "user"))
    assert versions(packages) == {"app": "2", "user": "1", "engine": "2"}


def test_what_is_broken_and_only_recommended_moves_too(turn):
    old = "app 1\nRecommends: docs\n\ndocs 1"
    new = "app 2\nRecommends: docs\nBreaks: docs (<< 2)\n\ndocs 2"
    packages = turn(old, new, "app", include=("app",), recommends=True)
    assert versions(packages) == {"app": "2", "docs": "2"}


def test_what_is_broken_for_good_goes(turn):
    old = "app 1\nRecommends: docs\n\ndocs 1"
    new = "app 2\nRecommends: docs\nBreaks: docs\n\ndocs 2"
    packages = turn(old, new, "app", include=("app",), recommends=True)
    assert versions(packages) == {"app": "2"}


def test_a_chain_of_changes_is_followed_through_new_packages(turn):
    old = "app 1\nDepends: base\n\nbase 1\n\nother 1\nDepends: base (<< 2)"
    new = "app 2\nDepends: newlib\n\nnewlib 5\nDepends: base (>= 2)\n\nbase 2\n\nother 2\nDepends: base"
    packages = turn(old, new, "app", include=("app", "other"))
    assert versions(packages) == {"app": "2", "newlib": "5", "base": "2", "other": "2"}


def test_what_the_archive_has_broken_does_not_matter_where_it_is_not_in_the_way(turn):
    old = "app 1\nDepends: lib\n\nlib 1\n\nother 1"
    new = "app 2\nDepends: lib (>= 2)\n\nlib 2\n\nother 2\nDepends: nowhere"
    packages = turn(old, new, "app", include=("app", "other"))
    assert versions(packages) == {"app": "2", "lib": "2", "other": "1"}


def test_of_two_that_are_in_the_way_one_may_have_to_stay(turn):
    old = "app 1\nDepends: left\n\nleft 1\n\nright 1"
    new = "app 2\nDepends: left (>= 2) | right (>= 2)\n\nleft 2\nDepends: nowhere\n\nright 2\nBreaks: left (>= 2)"
    packages = turn(old, new, "app", include=("app", "left", "right"))
    assert versions(packages) == {"app": "2", "left": "1", "right": "2"}


def test_a_dependency_that_the_new_version_does_without_goes(turn):
    old = "app 1\nDepends: oldlib\n\noldlib 1\n\nother 1"
    new = "app 2\nDepends: newlib\n\nnewlib 2\n\noldlib 2\n\nother 2"
    packages = turn(old, new, "app", include=("app", "other"))
    assert versions(packages) == {"app": "2", "newlib": "2", "other": "1"}


# Where a package is.


def test_what_is_listed_still_is_where_the_index_has_it_now(turn):
    old = ("app 1\n\nother 1", "bookworm-updates", 500)
    moved = "app 1\nFilename: pool/elsewhere.deb\nSHA256: {}".format
    locked = turn([old], [old], include=("app", "other"))
    digest = {package.name: package.sha256 for package in locked}["app"]
    packages = turn(
        [old],
        [(moved(digest), "bookworm", 500), ("other 2", "bookworm-updates", 500)],
        locked=locked,
        include=("app", "other"),
    )
    found = {package.name: package for package in packages}
    assert (found["app"].suite, found["app"].filename) == ("bookworm", "pool/elsewhere.deb")
    assert (found["other"].suite, found["other"].version) == ("bookworm-updates", "1")


def test_the_locked_file_stays_though_the_archive_has_another_under_its_version(turn):
    new = "app 1\nSHA256: " + "b" * 64
    locked = turn("app 1\n\nother 1", "app 1\n\nother 1", include=("app", "other"))
    packages = turn("", f"{new}\n\nother 1", locked=locked, include=("app", "other"))
    assert packages == locked
    packages = turn("", f"{new}\n\nother 1", "app", locked=locked, include=("app", "other"))
    assert next(package for package in packages if package.name == "app").sha256 == "b" * 64


def test_what_came_from_a_suite_that_the_recipe_no_longer_has_moves(turn):
    old = [("app 2\n\nother 1", "bookworm-backports", 500)]
    new = [("app 1\n\nother 1\nSHA256: " + "c" * 64, "bookworm", 500)]
    assert versions(turn(old, new, include=("app", "other"))) == {"app": "1", "other": "1"}


def test_what_is_locked_is_told_as_it_was(turn):
    text = """
        app 1:2-3
        Source: apps (2-3)
        Installed-Size: 12
        Priority: important
        Multi-Arch: allowed
        Depends: lib (>= 1) | other:any
        Provides: thing (= 4)

        lib 1

        side 1
    """
    old = turn(text, text, include=("app", "side"))
    assert turn(text, "side 2\n\nlib 7", "side", include=("app", "side"))[:-1] == tuple(
        package for package in old if package.name != "side"
    )


# Requests that changed.


def test_a_new_include_comes_with_what_it_needs_beside_the_old_rest(turn):
    new = f"{NEW}\n\nextra 1\nDepends: libc, helper\n\nhelper 1\nDepends: libssl"
    packages = turn(OLD, new, include=("nginx",), then=request_of("nginx", "extra"))
    assert versions(packages) == {"nginx": "1", "libssl": "1", "libc": "1", "extra": "1", "helper": "1"}


def test_a_new_include_frees_what_it_needs_newer(turn):
    new = f"{NEW}\n\nextra 1\nDepends: libssl (>= 2)"
    packages = turn(OLD, new, include=("nginx",), then=request_of("nginx", "extra"))
    assert versions(packages) == {"nginx": "1", "libssl": "2", "libc": "1", "extra": "1"}


def test_a_removed_include_goes_with_its_dependencies(turn):
    packages = turn(OLD, NEW, include=("curl", "libc"), then=request_of("libc"))
    assert versions(packages) == {"libc": "1"}


def test_a_dependency_that_is_asked_for_now_is_no_longer_automatic(turn):
    (libc, libssl) = turn(OLD, NEW, include=("curl",), then=request_of("libssl"))
    assert (libc.automatic, libssl.automatic) == (True, False)
    assert libssl.reason.why is Why.REQUESTED


@pytest.mark.parametrize("asked", ["nginx=2*", "nginx/trixie"])
def test_a_version_that_the_recipe_asks_for_now_moves(turn, asked):
    old, new = [(OLD, "trixie", 500)], [(OLD, "bookworm", 990), (NEW, "trixie", 500)]
    packages = turn(old, new, include=("nginx", "curl"), then=request_of(asked, "curl"))
    assert versions(packages) == {"nginx": "2", "curl": "1", "libssl": "1", "libc": "1"}


def test_a_version_that_the_recipe_asks_for_keeps_what_is_named(turn):
    packages = turn(OLD, NEW, "nginx", include=("nginx=1", "curl"))
    assert versions(packages)["nginx"] == "1"


def test_from_another_suite_comes_what_follows_from_there(turn):
    stable = "curl 7\nDepends: libcurl (= 7)\n\nlibcurl 7\n\nother 1"
    backports = "curl {0}\nDepends: libcurl (= {0})\n\nlibcurl {0}"
    old = [stable, (backports.format(8), "backports", 100)]
    new = [stable.replace("other 1", "other 2"), (backports.format(9), "backports", 100)]
    include = ("curl/backports", "other")
    assert versions(turn(old, new, include=include)) == {"curl": "8", "libcurl": "8", "other": "1"}
    assert versions(turn(old, new, "curl", include=include)) == {"curl": "9", "libcurl": "9", "other": "1"}
    assert versions(turn(old, new, "other", include=include)) == {"curl": "8", "libcurl": "8", "other": "2"}
    packages = turn(old, new, include=include, then=request_of("curl", "other"))
    assert versions(packages) == {"curl": "8", "libcurl": "8", "other": "1"}


def test_what_is_excluded_now_gives_way(turn):
    old = "app 1\nDepends: first | second\n\nfirst 1\n\nsecond 1"
    packages = turn(old, old, include=("app",), then=request_of("app", exclude=("first",)))
    assert versions(packages) == {"app": "1", "second": "1"}


def test_what_needs_the_excluded_moves_to_where_it_does_not(turn):
    old = "app 1\nDepends: spy\n\nspy 1\n\nother 1"
    new = "app 2\n\nspy 1\n\nother 2"
    packages = turn(old, new, include=("app", "other"), then=request_of("app", "other", exclude=("spy",)))
    assert versions(packages) == {"app": "2", "other": "1"}


BASE = """
    dpkg {0}
    Essential: yes
    Priority: required

    apt {0}
    Priority: required

    vim {0}
    Priority: important
"""


def test_a_larger_variant_adds_what_it_brings(turn):
    packages = turn(BASE.format(1), BASE.format(2), variant="required", then=request_of(variant="important"))
    assert versions(packages) == {"dpkg": "1", "apt": "1", "vim": "2"}


def test_a_smaller_variant_leaves_it_out(turn):
    packages = turn(BASE.format(1), BASE.format(2), variant="important", then=request_of(variant="essential"))
    assert versions(packages) == {"dpkg": "1"}


RISEN = """
    dpkg 2
    Essential: yes
    Priority: required
    Recommends: dpkg-docs

    dpkg-docs 1

    apt 2
    Priority: optional

    vim 2
    Priority: required

    new 2
    Essential: yes

    side 2
"""


def test_what_the_archive_ranks_otherwise_now_changes_nothing_for_the_same_recipe(turn):
    packages = turn(
        BASE.format(1) + "\n\nside 1",
        RISEN,
        "side",
        include=("side",),
        variant="required",
        recommends=True,
        same_recipe=True,
    )
    assert versions(packages) == {"dpkg": "1", "apt": "1", "side": "2"}


def test_for_another_recipe_the_archive_is_asked_again(turn):
    packages = turn(BASE.format(1) + "\n\nside 1", RISEN, "side", include=("side",), variant="required")
    assert versions(packages) == {"dpkg": "1", "apt": "1", "side": "2", "vim": "2", "new": "2"}


def test_what_a_new_version_recommends_comes_with_it(turn):
    old = "dpkg 1\n\nside 1"
    packages = turn(old, RISEN, "dpkg", include=("side", "dpkg"), recommends=True, same_recipe=True)
    assert versions(packages) == {"dpkg": "2", "dpkg-docs": "1", "side": "1"}


# Choices.


def test_an_alternative_that_was_taken_stays_taken(turn):
    old = "app 1\nDepends: first | second\n\nsecond 1\n\nother 1"
    new = "app 1\nDepends: first | second\n\nfirst 1\n\nsecond 2\n\nother 2"
    packages = turn(old, new, "other", include=("app", "other"))
    assert versions(packages) == {"app": "1", "second": "1", "other": "2"}
    second = next(package for package in packages if package.name == "second")
    assert second.reason.rejected == (("first", "second is in the lock"),)


def test_a_provider_that_was_taken_stays_taken(turn):
    old = "app 1\nDepends: mta\n\nexim 1\nProvides: mta\n\nother 1"
    better = "postfix 1\nProvides: mta\nPriority: important\n\nmta 1\nPriority: important"
    new = f"app 2\nDepends: mta\n\nexim 2\nProvides: mta\n\n{better}\n\nother 2"
    packages = turn(old, new, "other", include=("app", "other"))
    assert versions(packages) == {"app": "1", "exim": "1", "other": "2"}
    exim = next(package for package in packages if package.name == "exim")
    assert set(exim.reason.rejected) == {("postfix", "exim is in the lock"), ("mta", "exim is in the lock")}


def test_a_provider_of_what_is_asked_for_stays_it(turn):
    old = "exim 1\nProvides: mta\n\nother 1"
    new = "exim 2\nProvides: mta\n\npostfix 1\nProvides: mta\n\nother 2"
    packages = turn(old, new, "other", include=("mta", "other"))
    assert versions(packages) == {"exim": "1", "other": "2"}


def test_a_provider_that_provides_no_more_makes_room(turn):
    old = "app 1\nDepends: mta\n\nexim 1\nProvides: mta\n\nother 1"
    new = "app 2\nDepends: mta\n\nexim 2\n\npostfix 1\nProvides: mta\n\nother 2"
    packages = turn(old, new, "exim", include=("app", "other"))
    assert versions(packages) == {"app": "1", "postfix": "1", "other": "1"}


def test_what_met_a_relation_stays_though_another_that_came_meets_it_too(turn):
    old = "app 1\nDepends: first | second\n\nfirst 1"
    new = "app 1\nDepends: first | second\n\nfirst 2\n\nsecond 2\n\nnew 1\nDepends: second"
    packages = turn(old, new, include=("app",), then=request_of("new", "app"))
    assert versions(packages) == {"app": "1", "first": "1", "second": "2", "new": "1"}


# Failures.


def test_a_name_that_is_not_in_the_lock_is_refused_with_the_nearest(turn):
    with pytest.raises(UsageError, match=r"^nginz: not in the lock$") as caught:
        turn(OLD, NEW, "nginz", include=("nginx",))
    assert caught.value.hint == "did you mean nginx?"


def test_a_name_that_is_not_in_the_result_is_refused_too(turn):
    with pytest.raises(UsageError, match=r"^curl: not in the lock$"):
        turn(OLD, NEW, "curl", include=("nginx",))


def test_a_name_that_comes_with_the_request_is_fine(turn):
    packages = turn(OLD, NEW, "curl", include=("nginx",), then=request_of("nginx", "curl"))
    assert versions(packages) == {"nginx": "1", "libssl": "1", "libc": "1", "curl": "2"}


def test_what_cannot_be_is_explained_as_a_fresh_resolution_explains_it(turn, tmp_path):
    new = "nginx 2\nDepends: nowhere\n\ncurl 1\n\nlibssl 1\n\nlibc 1"
    with pytest.raises(UnsatisfiableError) as caught:
        turn(OLD, new, "nginx", include=("nginx",))
    with pytest.raises(UnsatisfiableError) as fresh:
        resolve(request_of("nginx"), make_universe(tmp_path, new))
    assert caught.value == fresh.value


# Any world.

NAMES = [f"p{number}" for number in range(9)]
VIRTUAL = ["v0", "v1"]


def any_target(chance, world):
    name = chance.choice([*world, *world, *VIRTUAL])
    if name in VIRTUAL:
        return name
    version = world[name]
    wanted = ["", "", f" (= {version})", f" (= {version})", f" (>= {version})", f" (<< {version + 1})"]
    return name + chance.choice(wanted)


def any_rival(chance, world):
    name = chance.choice([*world, chance.choice(VIRTUAL)])
    return name + chance.choice([f" (<< {world[name]})", f" (<< {world[name]})", ""]) if name in world else name


def any_paragraph(chance, world, name):
    def some(most, make):
        return [make(chance, world) for _ in range(chance.randint(0, most))]

    def group(*_):
        return " | ".join(any_target(chance, world) for _ in range(chance.choice([1, 1, 2, 3])))

    fields = {
        "Depends": some(2, group),
        "Pre-Depends": some(1, any_target) if chance.random() < 0.2 else [],
        "Recommends": some(2, group) if chance.random() < 0.5 else [],
        "Breaks": some(2, any_rival) if chance.random() < 0.6 else [],
        "Conflicts": some(1, any_rival) if chance.random() < 0.2 else [],
        "Provides": [chance.choice(VIRTUAL)] if chance.random() < 0.4 else [],
        "Essential": ["yes"] if chance.random() < 0.1 else [],
        "Priority": [chance.choice(["required", "important", "optional", "optional", "optional"])],
    }
    return "\n".join(
        [f"{name} {world[name]}", *(f"{key}: {', '.join(value)}" for key, value in fields.items() if value)]
    )


def any_moments(chance, names=NAMES):
    """Two moments of one world: versions have risen, relations changed, packages come and gone."""
    before = {name: 1 for name in names if chance.random() < 0.9}
    after = {name: before.get(name, 1) + chance.choice([0, 1, 1]) for name in names if chance.random() < 0.93}
    first = {name: any_paragraph(chance, before, name) for name in before}
    second = {
        name: first[name] if before.get(name) == version else any_paragraph(chance, after, name)
        for name, version in after.items()
    }
    return "\n\n".join(first.values()), "\n\n".join(second.values())


def any_request(chance):
    return Request(
        "amd64",
        chance.choice(["custom", "custom", "essential", "required"]),
        tuple(chance.sample(NAMES, chance.randint(1, 4))),
        tuple(chance.sample(NAMES, 1)) if chance.random() < 0.1 else (),
        recommends=chance.random() < 0.4,
    )


# A world is made of a number: to find a smaller one that fails would take minutes and show little.
CHANCES = st.integers(0, 1 << 40).map(random.Random)
QUICKLY = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])


def in_world(text):
    with tempfile.TemporaryDirectory() as folder:
        return make_universe(folder, text)


def any_lock(chance):
    """A request, what it came to at one moment, and the world at a later one."""
    old, new = any_moments(chance)
    request = any_request(chance)
    note(f"{old}\n\n---- later:\n\n{new}\n\n---- {request}")
    try:
        return request, resolve(request, in_world(old)).packages, in_world(new)
    except UnsatisfiableError:
        reject()


def check_installable(request, packages):
    assert problems(packages) == []
    for wanted in request.include:
        assert any(meets(package, {"name": wanted, "version": None}) for package in packages), wanted
    assert not {package.name for package in packages} & set(request.exclude)


def changes(locked, packages):
    """The packages that are in both with different versions."""
    before = versions(locked)
    return [package for package in packages if before.get(package.name, package.version) != package.version]


def needed(names, packages, *fields):
    """The part of a selection that names lead to, by the hard relations and those of other fields."""
    found = [package for package in packages if package.name in names]
    for package in found:
        groups = relations(package, "Pre-Depends", "Depends", *fields)
        found += [
            other
            for other in packages
            if other not in found and any(meets(other, wanted) for group in groups for wanted in group)
        ]
    return found


@QUICKLY
@given(CHANCES)
def test_an_upgrade_is_installable_and_every_change_of_it_is_needed(chance):
    request, locked, universe = any_lock(chance)
    keep = chance.random() < 0.6
    then = request if keep else any_request(chance)
    names = frozenset(chance.sample([package.name for package in locked], min(len(locked), chance.randint(0, 2))))
    note(f"{then}, upgrading {sorted(names)}")
    try:
        packages = upgrade(then, locked, names, SimpleNamespace(universe=universe), same_recipe=keep)
    except UnsatisfiableError:
        with pytest.raises(UnsatisfiableError):
            resolve(then, universe)
        event("unsatisfiable")
        return
    check_installable(then, packages)
    listed = {(package.name, package.version) for package in locked}
    for package in packages:
        assert (package.name, package.version) in listed or universe.versions(package.name)[
            0
        ].version == package.version
    old = {package.name: package for package in locked}
    moved = [package for package in changes(locked, packages) if package.name not in names]
    for package in moved:
        others = [each.name for each in packages if each is not package and each.reason.why is not Why.DEPENDENCY]
        roots = [*then.include, *others]
        swapped = [old[each.name] if each is package else each for each in packages]
        is_needed = old[package.name] in needed(roots, swapped, *(["Recommends"] * then.recommends))
        assert problems(swapped) or not is_needed, f"{package.name} need not have changed"
    event(f"{min(3, len(moved))} moved along")


@QUICKLY
@given(CHANCES)
def test_an_upgrade_of_nothing_changes_nothing(chance):
    request, locked, universe = any_lock(chance)
    metadata = SimpleNamespace(universe=universe)
    packages = upgrade(request, locked, frozenset(), metadata, same_recipe=True)
    assert versions(packages).items() <= versions(locked).items()
    fields = ("Pre-Depends", "Depends", "Recommends") if request.recommends else ("Pre-Depends", "Depends")
    for package in locked:
        if package.name not in versions(packages):
            event("dropped")
            groups = [group for other in packages for group in relations(other, *fields)]
            assert not any(meets(package, wanted) for group in groups for wanted in group), package.name


@QUICKLY
@given(CHANCES)
def test_an_upgrade_of_everything_is_a_fresh_resolution(chance):
    request, locked, universe = any_lock(chance)
    names = frozenset(package.name for package in locked)

    def outcome(function, *rest):
        try:
            return function(request, *rest)
        except UnsatisfiableError as error:
            return error

    fresh = outcome(lambda *given: resolve(*given).packages, universe)
    assert outcome(upgrade, locked, names, SimpleNamespace(universe=universe)) == fresh


@QUICKLY
@given(CHANCES)
def test_what_was_upgraded_is_upgraded(chance):
    request, locked, universe = any_lock(chance)
    metadata = SimpleNamespace(universe=universe)
    names = frozenset(package.name for package in locked[:1])
    try:
        once = upgrade(request, locked, names, metadata, same_recipe=True)
    except UnsatisfiableError:
        return
    again = upgrade(request, once, frozenset(), metadata, same_recipe=True)
    assert versions(again) == versions(once)


# Against all that there is to choose from.

FEW = NAMES[:6]


def choices(locked, universe, names):
    """What each package may be: as it is locked, as it is listed, or not there."""
    for name in FEW:
        old = next((package for package in locked if package.name == name), None)
        listed = universe.candidate(name)
        new = listed and as_planned(listed)
        if old is not None and (new is None or (new.version == old.version)):
            yield None, old
        elif old is not None and name not in names:
            yield None, old, new
        else:
            yield None, new


def as_planned(deb):
    """A listed package as those of a plan are asked."""
    return SimpleNamespace(name=deb.name, version=deb.version, field=lambda field: deb.fields.get(field.lower(), ""))


def does(request, packages):
    return set(request.include) <= {package.name for package in packages} and not problems(packages)


@QUICKLY
@given(CHANCES)
def test_no_other_selection_that_keeps_as_much_and_adds_no_more_moves_less(chance):
    old, new = any_moments(chance, FEW)
    request = request_of(*chance.sample(FEW, chance.randint(1, 4)))
    note(f"{old}\n\n---- later:\n\n{new}\n\n---- {request}")
    try:
        locked, universe = resolve(request, in_world(old)).packages, in_world(new)
    except UnsatisfiableError:
        reject()
    names = frozenset(chance.sample([package.name for package in locked], chance.randint(0, min(2, len(locked) - 1))))
    try:
        packages = upgrade(request, locked, names, SimpleNamespace(universe=universe), same_recipe=True)
    except UnsatisfiableError:
        packages = None
    everything = [
        needed(request.include, [package for package in combination if package is not None])
        for combination in itertools.product(*choices(locked, universe, names))
    ]
    possible = [selection for selection in everything if does(request, selection)]
    event("unsatisfiable" if packages is None else f"{len(changes(locked, packages))} changed")
    if packages is None:
        assert possible == []
        return
    before = versions(locked).keys()
    kept = before & versions(needed(request.include, packages)).keys()

    def moved(selection):
        return sum(package.name not in names for package in changes(locked, selection))

    def added(selection):
        return len(versions(selection).keys() - before)

    for other in possible:
        if kept <= versions(other).keys() and added(other) <= added(packages) and moved(other) < moved(packages):
            new = [package for package in other if package.name not in before]
            without = ([package for package in other if package is not each] for each in new)
            assert any(does(request, needed(request.include, rest)) for rest in without), versions(other)
