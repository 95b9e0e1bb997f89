from __future__ import annotations

import pytest
from making.headers import make_main, numbers, text, texts

from rootfsbuild.errors import PackageError
from rootfsbuild.formats.rpm.scriptlets import Sense
from rootfsbuild.formats.rpm.transaction import Execute, Member, Record, Unpack, order
from rootfsbuild.formats.rpm.version import satisfies

IN, PREIN = int(Sense.TRIGGERIN), int(Sense.TRIGGERPREIN)
ALL = {"PRETRANS": text("x"), "PREIN": text("x"), "POSTIN": text("x"), "POSTTRANS": text("x")}


def package(name, *paths, version="1", flags=(), **more):
    folders = sorted({path.rpartition("/")[0] + "/" for path in paths})
    files = {
        "BASENAMES": texts(*(path.rpartition("/")[2] for path in paths)),
        "DIRNAMES": texts(*folders),
        "DIRINDEXES": numbers(*(folders.index(path.rpartition("/")[0] + "/") for path in paths)),
        "FILEFLAGS": numbers(*(flags or [0] * len(paths))),
    }
    return make_main(name, version, **{**(files if paths else {}), **more})


def on_packages(*conditions):
    """Triggers, one for each (name, flags, version)."""
    names, senses, versions = zip(*conditions, strict=True)
    return {
        "TRIGGERSCRIPTS": texts(*(f"{number} on {name}" for number, name in enumerate(names))),
        "TRIGGERSCRIPTPROG": texts(*["/bin/sh"] * len(names)),
        "TRIGGERNAME": texts(*names),
        "TRIGGERFLAGS": numbers(*senses),
        "TRIGGERVERSION": texts(*versions),
        "TRIGGERINDEX": numbers(*range(len(names))),
    }


def on_files(*prefixes, kind="FILE", priorities=None):
    return {
        f"{kind}TRIGGERSCRIPTS": texts(*(f"below {prefix}" for prefix in prefixes)),
        f"{kind}TRIGGERSCRIPTPROG": texts(*["/bin/sh"] * len(prefixes)),
        f"{kind}TRIGGERNAME": texts(*prefixes),
        f"{kind}TRIGGERFLAGS": numbers(*[IN] * len(prefixes)),
        f"{kind}TRIGGERVERSION": texts(*[""] * len(prefixes)),
        f"{kind}TRIGGERINDEX": numbers(*range(len(prefixes))),
        f"{kind}TRIGGERPRIORITIES": numbers(*(priorities or [1_000_000] * len(prefixes))),
    }


def told(*members):
    """The steps, a line each."""
    headers = [member.header if isinstance(member, Member) else member for member in members]
    everyone = [member if isinstance(member, Member) else Member(member) for member in members]
    names = [header.text(1000) for header in headers]
    lines = []
    for step in order(everyone, satisfies):
        if isinstance(step, Execute):
            words = [names[step.number], step.scriptlet.kind, *map(str, step.arguments)]
            words += [] if step.cause is None else [f"by {names[step.cause]}"]
            words += [] if step.paths is None else [f"< {b' '.join(step.paths).decode()}"]
            lines.append(" ".join(words))
        else:
            lines.append(f"{names[step.number]} {type(step).__name__.lower()}")
    return lines


def runs(kind, *members):
    return [line for line in told(*members) if f" {kind} " in line]


def test_each_package_is_scripts_around_its_files_and_its_record():
    assert told(package("alpha", **ALL), package("beta", **ALL)) == [
        "alpha pretrans 1",
        "beta pretrans 1",
        "alpha pre 1",
        "alpha unpack",
        "alpha record",
        "alpha post 1",
        "beta pre 1",
        "beta unpack",
        "beta record",
        "beta post 1",
        "alpha posttrans 1",
        "beta posttrans 1",
    ]


def test_a_package_without_scriptlets_is_unpacked_and_recorded():
    assert list(order([Member(package("alpha"))], satisfies)) == [Unpack(0), Record(0)]


def test_of_two_with_one_name_the_second_is_told_that_it_is_the_second():
    both = (package("alpha", **ALL), package("alpha", version="2", **ALL))
    assert [line for line in told(*both) if line[-1].isdigit()] == [
        "alpha pretrans 1",
        "alpha pretrans 1",
        "alpha pre 1",
        "alpha post 1",
        "alpha pre 2",
        "alpha post 2",
        "alpha posttrans 2",
        "alpha posttrans 2",
    ]


def test_a_trigger_runs_when_what_it_waits_for_comes_later_and_when_it_was_there():
    waiting, cause = package("alpha", **on_packages(("beta", IN, ""))), package("beta", **ALL)
    assert told(waiting, cause)[-3:-1] == ["beta post 1", "alpha triggerin 1 1 by beta"]
    assert told(cause, waiting)[-2] == "alpha triggerin 1 1 by beta"


def test_a_trigger_before_an_installation_runs_before_its_pre_and_counts_what_is_there():
    waiting, cause = package("alpha", **on_packages(("beta", PREIN, ""))), package("beta", **ALL)
    lines = told(waiting, cause)
    assert lines.index("alpha triggerprein 1 0 by beta") == lines.index("beta pre 1") - 1
    assert runs("triggerprein", cause, waiting) == ["alpha triggerprein 0 1 by beta"]


def test_a_trigger_on_its_own_package_runs_twice_as_with_rpm():
    assert len(runs("triggerin", package("alpha", **on_packages(("alpha", IN, ""))))) == 2


@pytest.mark.parametrize(("flags", "version", "runs_it"), [(IN | 4, "2", True), (IN | 2, "3", False), (IN, "9", True)])
def test_a_trigger_runs_for_the_versions_that_it_names(flags, version, runs_it):
    waiting = package("alpha", **on_packages(("beta", flags, version)))
    assert bool(runs("triggerin", waiting, package("beta", version="3"))) is runs_it


def test_an_epoch_counts_in_a_triggers_version():
    waiting = package("alpha", **on_packages(("beta", IN | 4, "9")))
    assert runs("triggerin", waiting, package("beta", version="3", EPOCH=numbers(1)))


def test_of_several_triggers_on_one_package_the_first_that_fits_runs():
    waiting = package("alpha", **on_packages(("beta", IN | 2, "1"), ("beta", IN, ""), ("beta", IN, "")))
    steps = order([Member(waiting), Member(package("beta"))], satisfies)
    assert [step.scriptlet.body for step in steps if isinstance(step, Execute)] == [b"1 on beta"]


def test_file_triggers_of_high_priority_run_before_post_and_the_others_after_triggers():
    waiting = package("alpha", **on_files("/usr", "/usr/", "/u", priorities=[9_999, 10_000, 2_000_000]))
    cause = package("beta", "/usr/x", **ALL, **on_packages(("alpha", IN, "")))
    lines = told(waiting, cause)
    assert lines[lines.index("beta record") + 1 : -1] == [
        "alpha filetriggerin 0 by beta < /usr/x",
        "alpha filetriggerin 0 by beta < /usr/x",
        "beta post 1",
        "beta triggerin 1 1 by alpha",
        "alpha filetriggerin 0 by beta < /usr/x",
    ]
    bodies = [
        step.scriptlet.body
        for step in order([Member(waiting), Member(cause)], satisfies)
        if isinstance(step, Execute) and step.paths
    ]
    assert bodies == [b"below /u", b"below /usr/", b"below /usr"]


def test_paths_are_the_packages_own_in_its_order_once_for_each_prefix():
    trigger = {**on_files("/usr/lib", "/usr"), "FILETRIGGERINDEX": numbers(0, 0)}
    waiting = package("alpha", **trigger)
    cause = package("beta", "/etc/x", "/usr/lib/b", "/usr/lib64/a", "/usr/share/c")
    assert runs("filetriggerin", waiting, cause) == [
        "alpha filetriggerin 0 by beta < /usr/lib/b /usr/lib64/a /usr/lib/b /usr/lib64/a /usr/share/c"
    ]


def test_a_new_packages_file_triggers_see_its_own_files_and_then_those_before_it():
    late = package("gamma", "/usr/c", **on_files("/usr"))
    assert runs("filetriggerin", package("alpha", "/usr/a"), package("beta", "/usr/b"), late) == [
        "gamma filetriggerin 0 by gamma < /usr/c",
        "gamma filetriggerin 0 < /usr/a /usr/b",
    ]


def test_a_transactions_file_triggers_come_last_each_package_by_its_own_priorities():
    low = package("alpha", "/usr/a", **on_files("/usr", "/u", kind="TRANSFILE", priorities=[1, 2]), **ALL)
    high = package("beta", "/usr/b", **on_files("/usr", kind="TRANSFILE", priorities=[9_000_000]), **ALL)
    assert told(low, high)[-5:] == [
        "alpha posttrans 1",
        "beta posttrans 1",
        "alpha transfiletriggerin 0 < /usr/a /usr/b",
        "alpha transfiletriggerin 0 < /usr/a /usr/b",
        "beta transfiletriggerin 0 < /usr/a /usr/b",
    ]


def test_a_transactions_file_triggers_look_for_folders_that_begin_with_the_prefix():
    waiting = package("alpha", **on_files("/usr/lib", kind="TRANSFILE"))
    assert runs("transfiletriggerin", waiting, package("beta", "/usr/library")) == []
    assert runs("transfiletriggerin", waiting, package("beta", "/usr/lib64/x")) == [
        "alpha transfiletriggerin 0 < /usr/lib64/x"
    ]


def test_files_that_are_not_installed_set_nothing_off():
    waiting = package("alpha", **on_files("/usr/share/doc"), **on_files("/usr/share/doc", kind="TRANSFILE"))
    cause = package("beta", "/usr/share/doc/x", "/usr/share/doc/y")
    assert runs("filetriggerin", waiting, Member(cause, frozenset({0}))) == [
        "alpha filetriggerin 0 by beta < /usr/share/doc/y"
    ]
    assert runs("transfiletriggerin", waiting, Member(cause, frozenset({0, 1}))) == []


def test_what_a_package_before_it_has_brought_sets_nothing_off_again_unless_a_ghost():
    waiting = package("alpha", **on_files("/usr"))
    others = [package(name, "/usr/both", "/usr/ghost", flags=(0, 64)) for name in ("beta", "gamma", "delta")]
    assert runs("filetriggerin", waiting, *others) == [
        "alpha filetriggerin 0 by beta < /usr/both /usr/ghost",
        "alpha filetriggerin 0 by gamma < /usr/ghost",
        "alpha filetriggerin 0 by delta < /usr/both /usr/ghost",
    ]


def test_paths_of_old_packages_are_known_too():
    old = make_main("beta", OLDFILENAMES=texts("/usr/lib/x", "/etc/y"))
    assert runs("filetriggerin", package("alpha", **on_files("/usr")), old) == [
        "alpha filetriggerin 0 by beta < /usr/lib/x"
    ]


@pytest.mark.parametrize("indexes", [numbers(0, 5), numbers(0), numbers(0, 0, 0)])
def test_a_header_whose_files_and_folders_do_not_fit_is_refused_before_anything_runs(indexes):
    broken = package("beta", "/usr/a", "/usr/b", DIRINDEXES=indexes)
    with pytest.raises(PackageError, match="do not fit together"):
        order([Member(package("alpha", **ALL)), Member(broken)], satisfies)
