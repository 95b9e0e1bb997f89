from __future__ import annotations

import itertools
import random
import re
import tempfile
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, event, given, note, reject, settings
from hypothesis import strategies as st
from making.rpm_universe import make_universe, place

from rootfsbuild.errors import UnsatisfiableError, UsageError
from rootfsbuild.formats.rpm.resolve import resolve
from rootfsbuild.formats.rpm.upgrade import upgrade
from rootfsbuild.formats.rpm.wanted import no_groups
from rootfsbuild.plan import Reason, Request, Why


def request_of(*include, **fields):
    return Request("x86_64", "custom", include, **fields)


def metadata_of(universe, groups=no_groups):
    return SimpleNamespace(universe=universe, packages_of=groups)


@pytest.fixture
def turn(tmp_path):
    """Lock `old` for a request, then upgrade `names` of it against `new`."""

    def run(old, new, *names, include=(), then=None, same_recipe=False, locked=None, groups=no_groups, **fields):
        request = request_of(*include, **fields)
        locked = locked or resolve(request, make_universe(tmp_path, *worlds(old)), groups).packages
        metadata = metadata_of(make_universe(tmp_path, *worlds(new)), groups)
        packages = upgrade(then or request, locked, frozenset(names), metadata, same_recipe=same_recipe)
        assert problems(packages) == []
        return packages

    return run


def worlds(given):
    return given if isinstance(given, list) else [given]


def versions(packages):
    return {package.name: package.version for package in packages}


OLD = """
    nginx 1-1
    Requires: libc, libssl >= 1

    curl 1-1
    Requires: libc, libssl

    libssl 1-1
    Requires: libc

    libc 1-1
"""
NEW = OLD.replace(" 1-1", " 2-1")


# What moves, and what stays.


def test_nothing_named_changes_nothing(turn, tmp_path):
    locked = resolve(request_of("nginx"), make_universe(tmp_path, OLD)).packages
    assert turn(OLD, NEW, include=("nginx",), same_recipe=True) == locked


def test_what_is_named_moves_and_all_else_stays(turn, tmp_path):
    locked = resolve(request_of("nginx", "curl"), make_universe(tmp_path, OLD)).packages
    packages = turn(OLD, NEW, "libssl", include=("nginx", "curl"), same_recipe=True)
    assert versions(packages) == {"nginx": "1-1", "curl": "1-1", "libssl": "2-1", "libc": "1-1"}
    assert {one for one in packages if one.name != "libssl"} == {one for one in locked if one.name != "libssl"}


def test_what_stands_in_the_way_moves_along(turn):
    new = NEW.replace("Requires: libc\n", "Requires: libc >= 2\n")
    packages = turn(OLD, new, "libssl", include=("nginx", "curl"))
    assert versions(packages) == {"nginx": "1-1", "curl": "1-1", "libssl": "2-1", "libc": "2-1"}


def test_what_needed_the_old_version_moves_along(turn):
    old = "app 1-1\nRequires: lib = 1-1\n\nlib 1-1\n\nother 1-1"
    new = "app 2-1\nRequires: lib = 2-1\n\nlib 2-1\n\nother 2-1"
    packages = turn(old, new, "lib", include=("app", "other"))
    assert versions(packages) == {"app": "2-1", "lib": "2-1", "other": "1-1"}


def test_all_of_them_named_is_a_fresh_resolution(turn, tmp_path):
    names = ("nginx", "libssl", "libc")
    fresh = resolve(request_of("nginx"), make_universe(tmp_path, NEW)).packages
    assert turn(OLD, NEW, *names, include=("nginx",)) == fresh


def test_packages_come_in_install_order_and_complete(turn):
    packages = turn(OLD, NEW, "libssl", include=("nginx",))
    assert [one.name for one in packages] == ["libc", "libssl", "nginx"]
    libssl = packages[1]
    assert libssl.depends == ("libc",)
    assert libssl.reason == Reason(Why.DEPENDENCY, "Requires: libssl >= 1", "nginx")
    assert libssl.automatic
    assert libssl.filename == "Packages/libssl-2-1.x86_64.rpm"
    assert packages[2].depends == ("libc", "libssl")


def test_a_lock_keeps_what_no_repository_lists(turn):
    packages = turn(OLD, "curl 2-1\nRequires: libc, libssl", "curl", include=("nginx", "curl"))
    assert versions(packages) == {"nginx": "1-1", "curl": "2-1", "libssl": "1-1", "libc": "1-1"}


def test_paths_of_what_no_repository_lists_any_more_are_remembered(turn):
    old = "app 1-1\nRequires: /bin/sh, /usr/share/zone, /opt/x\n\nbash 1-1\nFiles: /bin/sh"
    old += "\n\nzone 1-1\nFiles: /usr/share/zone\n\nother 1-1\nFiles: /opt/x"
    new = "app 2-1\nRequires: /bin/sh\n\nbash 2-1\nFiles: /bin/sh\n\nzone 2-1\nFiles: /usr/share/zone"
    assert versions(turn(old, new, "bash", include=("app", "other"))) == {
        "app": "1-1",
        "bash": "2-1",
        "zone": "1-1",
        "other": "1-1",
    }


def test_a_file_that_is_elsewhere_now_is_named_where_it_is(turn, tmp_path):
    moved = place(tmp_path, OLD.replace("libc 1-1", "libc 1-1\nLocation: old/libc.rpm"), "vault")
    packages = turn(OLD, [moved, NEW], "curl", include=("nginx", "curl"))
    libc = next(one for one in packages if one.name == "libc")
    assert (libc.version, libc.archive, libc.filename) == ("1-1", "vault", "old/libc.rpm")


def test_what_is_where_it_was_is_not_named_elsewhere(turn, tmp_path):
    both = [place(tmp_path, OLD, "base"), place(tmp_path, OLD, "another", priority=1), NEW]
    packages = turn(OLD, both, "curl", include=("nginx", "curl"))
    assert {one.archive for one in packages if one.name != "curl"} == {"base"}


def test_the_same_version_as_another_file_is_taken_where_it_is_named(turn):
    new = OLD.replace("libc 1-1", f"libc 1-1\nChecksum: sha256 {'a' * 64}")
    assert {one.sha256 for one in turn(OLD, new, "libc", include=("nginx",)) if one.name == "libc"} == {"a" * 64}
    assert "a" * 64 not in {one.sha256 for one in turn(OLD, new, "libssl", include=("nginx",))}


def test_a_kernel_is_replaced_and_not_added(turn):
    kind = "Provides: installonlypkg(kernel)"
    old = f"kernel 1-1\n{kind}\nRequires: core = 1-1\n\ncore 1-1\n{kind}"
    new = old.replace("1-1", "2-1")
    assert versions(turn(old, new, "kernel", include=("kernel",))) == {"kernel": "2-1", "core": "2-1"}
    packages = turn(old, f"{new}\n\nother 1-1", "other", include=("kernel",), then=request_of("kernel", "other"))
    assert versions(packages) == {"kernel": "1-1", "core": "1-1", "other": "1-1"}


def test_what_obsoletes_takes_the_place_of_what_is_named(turn):
    old = "app 1-1\nRequires: tool\n\ntool 1-1"
    new = "app 2-1\nRequires: tool\n\nnewtool 2-1\nProvides: tool = 2\nObsoletes: tool < 2"
    assert versions(turn(old, new, "tool", include=("app",))) == {"app": "1-1", "newtool": "2-1"}
    assert versions(turn(f"{old}\n\nx 1-1", f"{new}\n\nx 2-1", "x", include=("app", "x"))) == {
        "app": "1-1",
        "tool": "1-1",
        "x": "2-1",
    }


# What goes, and what comes.


def test_what_nothing_needs_any_more_goes(turn):
    new = NEW.replace("Requires: libc, libssl >= 1", "Requires: libc")
    assert versions(turn(OLD, new, "nginx", include=("nginx",))) == {"nginx": "2-1", "libc": "1-1"}


def test_what_is_asked_for_no_more_goes_with_what_it_needed(turn):
    packages = turn(OLD, NEW, "libc", include=("nginx", "libc"), then=request_of("libc"))
    assert versions(packages) == {"libc": "2-1"}


def test_what_is_asked_for_now_comes(turn):
    packages = turn(OLD, NEW, "curl", include=("nginx",), then=request_of("nginx", "curl"))
    assert versions(packages) == {"nginx": "1-1", "libssl": "1-1", "libc": "1-1", "curl": "2-1"}


def test_what_is_excluded_now_goes(turn):
    old = "app 1-1\nRequires: (first or second)\n\nfirst 1-1\n\nother 1-1"
    new = "app 1-1\nRequires: (first or second)\n\nfirst 1-1\n\nsecond 1-1\n\nother 2-1"
    packages = turn(old, new, "other", include=("app", "other"), then=request_of("app", "other", exclude=("first",)))
    assert versions(packages) == {"app": "1-1", "second": "1-1", "other": "2-1"}


def test_a_version_that_is_asked_for_bounds_the_upgrade(turn):
    new = f"{NEW}\n\ncurl 3-1\nRequires: libc, libssl\n\n{OLD}"
    packages = turn(OLD, new, "curl", include=("curl",), then=request_of("curl=2*"))
    assert versions(packages)["curl"] == "2-1"
    assert versions(turn(OLD, new, "curl", include=("curl",)))["curl"] == "3-1"


WEAK = "app 1-1\nRecommends: docs\n\ndocs 1-1\n\nside 1-1"


def test_what_is_recommended_stays_as_long_as_that_counts(turn):
    new = WEAK.replace("1-1", "2-1")
    packages = turn(WEAK, new, "side", include=("app", "side"), recommends=True)
    assert versions(packages) == {"app": "1-1", "docs": "1-1", "side": "2-1"}
    packages = turn(
        WEAK, new, "side", include=("app", "side"), recommends=True, then=request_of("app", "side", recommends=False)
    )
    assert versions(packages) == {"app": "1-1", "side": "2-1"}


def test_what_a_new_version_recommends_comes_with_it(turn):
    old = WEAK.replace("Recommends: docs\n", "")
    new = WEAK.replace("app 1-1", "app 2-1").replace("side 1-1", "side 2-1")
    packages = turn(old, new, "app", include=("app", "side"), recommends=True, same_recipe=True)
    assert versions(packages) == {"app": "2-1", "docs": "1-1", "side": "1-1"}


def test_an_alternative_that_was_taken_stays_taken(turn):
    old = "app 1-1\nRequires: (first or second)\n\nsecond 1-1\n\nother 1-1"
    new = "app 1-1\nRequires: (first or second)\n\nfirst 1-1\n\nsecond 2-1\n\nother 2-1"
    assert versions(turn(old, new, "other", include=("app", "other"))) == {
        "app": "1-1",
        "second": "1-1",
        "other": "2-1",
    }
    assert versions(turn(old, new, "second", include=("app", "other")))["second"] == "2-1"


def test_a_provider_of_what_is_asked_for_stays_it(turn):
    old = "exim 1-1\nProvides: mta\n\nother 1-1"
    new = "exim 2-1\nProvides: mta\n\nanother 1-1\nProvides: mta\n\nother 2-1"
    assert versions(turn(old, new, "other", include=("mta", "other"))) == {"exim": "1-1", "other": "2-1"}
    assert versions(turn(old, new, "exim", include=("mta", "other"))) == {"exim": "2-1", "other": "1-1"}


def test_a_group_that_grew_adds_nothing_for_the_same_recipe(turn, tmp_path):
    world = "a 1-1\n\nb 1-1\n\nc 1-1"
    groups = {"old": ("a", "b"), "new": ("a", "c")}
    locked = resolve(request_of("@core"), make_universe(tmp_path, world), lambda _: groups["old"]).packages
    later = world.replace("1-1", "2-1")

    def now(_):
        return groups["new"]

    packages = turn(world, later, "a", include=("@core",), locked=locked, groups=now, same_recipe=True)
    assert versions(packages) == {"a": "2-1", "b": "1-1"}
    assert {one.reason for one in packages} == {Reason(Why.REQUESTED, "@core")}
    packages = turn(world, later, "a", include=("@core",), locked=locked, groups=now)
    assert versions(packages) == {"a": "2-1", "c": "2-1"}


# Failures.


def test_a_name_that_is_not_in_the_lock_is_refused_with_the_nearest(turn):
    with pytest.raises(UsageError, match=r"^nginz: not in the lock$") as caught:
        turn(OLD, NEW, "nginz", include=("nginx",))
    assert caught.value.hint == "did you mean nginx?"


def test_a_name_that_is_not_in_the_result_is_refused_too(turn):
    with pytest.raises(UsageError, match=r"^curl: not in the lock$"):
        turn(OLD, NEW, "curl", include=("nginx",))


def test_what_cannot_be_is_explained_as_a_fresh_resolution_explains_it(turn, tmp_path):
    new = NEW.replace("Requires: libc, libssl >= 1", "Requires: nowhere")
    with pytest.raises(UnsatisfiableError) as caught:
        turn(OLD, new, "nginx", include=("nginx",))
    with pytest.raises(UnsatisfiableError) as fresh:
        resolve(request_of("nginx"), make_universe(tmp_path, new))
    assert caught.value == fresh.value


def test_a_dependency_whose_newest_version_cannot_be_is_no_upgrade(turn):
    new = f"{OLD}\n\nlibc 2-1\nRequires: nowhere"
    with pytest.raises(UnsatisfiableError, match="libc") as caught:
        turn(OLD, new, "libc", include=("nginx",))
    assert any("nowhere" in line for line in caught.value.chains)


def test_metadata_stay_as_they_were(tmp_path):
    universe = make_universe(tmp_path, NEW)
    before = resolve(request_of("nginx"), universe).packages
    locked = resolve(request_of("nginx"), make_universe(tmp_path, OLD)).packages
    upgrade(request_of("nginx"), locked, frozenset({"libc"}), metadata_of(universe))
    assert resolve(request_of("nginx"), universe).packages == before
    assert not any(one.evr == "1-1" for one in universe.named("*", all_of_them=True))


# Any world. What can be installed is judged by what follows, and by nothing of the resolver.


def says(package, field):
    return [text for text in dict(package.control).get(field, "").split(", ") if text]


def number(version):
    return int(version.partition("-")[0])


def meets(package, wanted):
    if wanted.startswith("("):
        return any(meets(package, part) for part in re.split(" or ", wanted[1:-1]))
    name, *rest = wanted.split()
    for offered in [f"{package.name} = {package.version}", *says(package, "Provides")]:
        other, *given = offered.split()
        if other == name and (not rest or (given and compares(number(given[1]), rest[0], number(rest[1])))):
            return True
    return False


def compares(left, operator, right):
    return (
        (left == right and "=" in operator) or (left < right and "<" in operator) or (left > right and ">" in operator)
    )


def problems(packages):
    """Return, a line each, what keeps packages from being installed together; paths are not looked at."""
    found = []
    for package in packages:
        for wanted in [*says(package, "Requires"), *says(package, "Requires(pre)")]:
            met = wanted.startswith("/") or any(meets(other, wanted) for other in packages)
            found += [] if met else [f"{package.name} {package.version} needs {wanted}"]
        for rival in says(package, "Conflicts"):
            found += [f"{package.name} rules out {o.name}" for o in packages if o is not package and meets(o, rival)]
        for old in says(package, "Obsoletes"):
            name, *rest = old.split()
            found += [
                f"{package.name} replaces {other.name}"
                for other in packages
                if other.name == name and other is not package
                if not rest or compares(number(other.version), rest[0], number(rest[1]))
            ]
    names = [package.name for package in packages]
    return found + [f"{name} is there twice" for name in set(names) if names.count(name) > 1]


NAMES = [f"p{number}" for number in range(8)]
VIRTUAL = ["v0", "v1"]


def any_target(chance, world):
    name = chance.choice([*world, *world, *VIRTUAL])
    if name in VIRTUAL:
        return name
    version = world[name]
    return name + chance.choice(["", "", f" = {version}", f" >= {version}", f" < {version + 1}"])


def any_paragraph(chance, world, name):
    def group(*_):
        first, second = any_target(chance, world), any_target(chance, world)
        return first if chance.random() < 0.7 else f"({first} or {second})"

    def rival(*_):
        other = chance.choice([*world, chance.choice(VIRTUAL)])
        return f"{other} < {world[other]}" if other in world else other

    def some(most, make, likely=1.0):
        return [make(chance, world) for _ in range(chance.randint(0, most))] if chance.random() < likely else []

    fields = {
        "Requires": some(2, group),
        "Recommends": some(2, any_target, 0.5),
        "Conflicts": some(1, rival, 0.5),
        "Obsoletes": [one for one in some(1, rival, 0.2) if one not in VIRTUAL],
        "Provides": [chance.choice(VIRTUAL)] if chance.random() < 0.4 else [],
    }
    lines = [f"{key}: {', '.join(value)}" for key, value in fields.items() if value]
    return "\n".join([f"{name} {world[name]}-1", *lines])


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


CHANCES = st.integers(0, 1 << 40).map(random.Random)
QUICKLY = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])


def any_lock(chance, folder):
    old, new = any_moments(chance)
    request = request_of(*chance.sample(NAMES, chance.randint(1, 4)), recommends=chance.random() < 0.4)
    note(f"{old}\n\n---- later:\n\n{new}\n\n---- {request}")
    try:
        return request, resolve(request, make_universe(folder, old)).packages, make_universe(folder, new)
    except UnsatisfiableError:
        reject()


def needed(names, packages, *fields):
    found = [package for package in packages if package.name in names]
    for package in found:
        texts = [text for field in ("Requires", *fields) for text in says(package, field)]
        found += [other for other in packages if other not in found and any(meets(other, text) for text in texts)]
    return found


@QUICKLY
@given(CHANCES)
def test_an_upgrade_is_installable_and_every_change_of_it_is_needed(chance):
    with tempfile.TemporaryDirectory() as folder:
        request, locked, universe = any_lock(chance, folder)
        keep = chance.random() < 0.6
        then = request if keep else request_of(*chance.sample(NAMES, 3), recommends=request.recommends)
        names = frozenset(chance.sample([one.name for one in locked], min(len(locked), chance.randint(0, 2))))
        note(f"{then}, upgrading {sorted(names)}")
        try:
            packages = upgrade(then, locked, names, metadata_of(universe), same_recipe=keep)
        except UnsatisfiableError:
            event("unsatisfiable")
            if not names:
                with pytest.raises(UnsatisfiableError):
                    resolve(then, universe)
            return
        assert problems(packages) == []
        assert set(then.include) <= {one.name for one in packages} | replaced(packages)
        old = {one.name: one for one in locked}
        newest = {one.name: one.evr for one in universe.named("*")}
        for package in packages:
            if package.name in names and package.name in newest:
                assert package.version == newest[package.name]
            assert package.version in {newest.get(package.name), package.name in old and old[package.name].version}
        assert all(set(one.depends) <= {other.name for other in packages} for one in packages)
        moved = [p for p in packages if p.name in old and p.name not in names and p.version != old[p.name].version]
        moved = [package for package in moved if not stands_for(package, then)]
        for package in moved:
            swapped = [old[one.name] if one is package else one for one in packages]
            kept = needed(then.include, swapped, *(["Recommends"] * then.recommends))
            assert problems(swapped) or old[package.name] not in kept, f"{package.name} need not have changed"
        event(f"{min(3, len(moved))} moved along")


def stands_for(package, request):
    """What obsoletes something that is asked for can be there in its place, and has to be the best of that."""
    return not replaced([package]).isdisjoint(request.include)


def replaced(packages):
    return {text.split()[0] for one in packages for text in says(one, "Obsoletes")}


@QUICKLY
@given(CHANCES)
def test_what_was_upgraded_is_upgraded(chance):
    with tempfile.TemporaryDirectory() as folder:
        request, locked, universe = any_lock(chance, folder)
        names = frozenset(one.name for one in locked[:1])
        try:
            once = upgrade(request, locked, names, metadata_of(universe), same_recipe=True)
        except UnsatisfiableError:
            return
        known = {one.name for one in once}
        if names <= known and names < known:
            again = upgrade(request, once, names, metadata_of(universe), same_recipe=True)
            # What a named package recommends gets another chance with each call, as nothing stands in its place now.
            more = versions(again).keys() - versions(once).keys()
            assert not more or request.recommends
            assert versions(once).items() <= versions(again).items()


@QUICKLY
@given(CHANCES)
def test_no_other_selection_with_the_same_packages_moves_less(chance):
    with tempfile.TemporaryDirectory() as folder:
        request, locked, universe = any_lock(chance, folder)
        request = replace(request, recommends=False)
        names = frozenset(one.name for one in locked[: chance.randint(0, 1)])
        if names >= {one.name for one in locked}:
            reject()
        try:
            packages = upgrade(request, locked, names, metadata_of(universe))
        except UnsatisfiableError:
            return
        old = {one.name: one for one in locked}
        moved = [p for p in packages if p.name in old and p.name not in names and p.version != old[p.name].version]
        moved = {package.name for package in moved if not stands_for(package, request)}
        event(f"{len(moved)} moved along")
        for back in itertools.chain.from_iterable(
            itertools.combinations(sorted(moved), n + 1) for n in range(len(moved))
        ):
            other = needed(request.include, [old[p.name] if p.name in back else p for p in packages])
            same = {one.name for one in other} == {one.name for one in packages}
            assert problems(other) or not same, f"{back} need not have changed"
