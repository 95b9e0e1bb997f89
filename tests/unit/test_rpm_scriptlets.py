from __future__ import annotations

import pytest
from making.headers import make_main, numbers, text, texts

from rootfsbuild.errors import PackageError
from rootfsbuild.formats.rpm.expand import default_macros, expand_macros, expand_scriptlet, format_query
from rootfsbuild.formats.rpm.scriptlets import Flag, Scriptlet, Sense, read_scriptlets, read_triggers

IN, PREIN, UN = int(Sense.TRIGGERIN), int(Sense.TRIGGERPREIN), int(Sense.TRIGGERUN)


def triggers(kind="", *, scripts=("one", "two"), on=(("beta", IN, "", 0),), **more):
    """A package with triggers: `on` are (name, flags, version, which script)."""
    names, senses, versions, indexes = zip(*on, strict=True)
    values = {
        f"{kind}TRIGGERSCRIPTS": texts(*scripts),
        f"{kind}TRIGGERSCRIPTPROG": texts(*["/bin/sh"] * len(scripts)),
        f"{kind}TRIGGERNAME": texts(*names),
        f"{kind}TRIGGERFLAGS": numbers(*senses),
        f"{kind}TRIGGERVERSION": texts(*versions),
        f"{kind}TRIGGERINDEX": numbers(*indexes),
    }
    if kind:
        values[f"{kind}TRIGGERPRIORITIES"] = numbers(*[1_000_000] * len(scripts))
    return make_main(**{**values, **more})


# Scriptlets


def test_scriptlets_have_their_program_text_and_flags():
    header = make_main(
        PRETRANS=text("print(1)"),
        PRETRANSPROG=texts("<lua>"),
        PREIN=text("exit 1"),
        PREINPROG=text("/bin/sh"),
        POSTINPROG=texts("/sbin/ldconfig", "-v"),
        POSTTRANS=text("x"),
        POSTTRANSFLAGS=numbers(5),
    )
    found = read_scriptlets(header)
    assert found.pretrans == Scriptlet("pretrans", (b"<lua>",), b"print(1)")
    assert found.pre == Scriptlet("pre", (b"/bin/sh",), b"exit 1")
    assert found.post == Scriptlet("post", (b"/sbin/ldconfig", b"-v"), None)
    assert found.posttrans == Scriptlet("posttrans", (b"/bin/sh",), b"x", Flag.EXPAND | Flag.CRITICAL)


def test_a_package_may_have_none():
    found = read_scriptlets(make_main())
    assert (found.pretrans, found.pre, found.post, found.posttrans) == (None, None, None, None)
    assert read_triggers(make_main()).scripts == ()


def test_what_fails_the_build_is_what_fails_the_package_with_rpm():
    critical = {
        kind: Scriptlet(kind, (b"/bin/sh",), b"").critical
        for kind in ("pretrans", "pre", "post", "posttrans", "triggerprein", "triggerin", "filetriggerin")
    }
    assert [kind for kind, value in critical.items() if value] == ["pretrans", "pre"]
    assert Scriptlet("post", (b"/bin/sh",), b"", Flag.CRITICAL).critical


def test_a_relocatable_package_tells_its_scriptlets_where_it_is():
    header = make_main(PREIN=text("x"), PREFIXES=texts("/usr", "/opt"))
    assert read_scriptlets(header).pre.prefixes == (b"/usr", b"/opt")


def test_a_scriptlet_that_is_a_number_is_refused():
    with pytest.raises(PackageError, match="tag 1023 does not hold strings"):
        read_scriptlets(make_main(PREIN=numbers(5)))


# Triggers


def test_triggers_keep_the_headers_order_and_say_what_they_wait_for():
    header = triggers(
        on=(
            ("beta", IN | 2, "2", 1),
            ("gamma", IN, "ignored", 0),
            ("delta", PREIN | 12, "1:3-1", 0),
            ("beta", IN | 4, "5", 0),
        )
    )
    found = read_triggers(header)
    assert [(on.name, on.operator, on.version, on.trigger) for on in found.conditions] == [
        ("beta", "<", "2", 1),
        ("gamma", "", "", 0),
        ("delta", ">=", "1:3-1", 0),
        ("beta", ">", "5", 0),
    ]
    assert [script.body for script in found.scripts] == [b"one", b"two"]
    assert found.scripts[1].kind == "triggerin"


@pytest.mark.parametrize(("bits", "operator"), [(2, "<"), (10, "<="), (8, "="), (12, ">="), (4, ">"), (0, "")])
def test_versions_are_compared_as_the_flags_say(bits, operator):
    (condition,) = read_triggers(triggers(on=(("beta", IN | bits, "1", 0),))).conditions
    assert condition.operator == operator


def test_triggers_for_removals_are_left_out():
    header = triggers(on=(("beta", UN, "", 0), ("gamma", IN, "", 1)))
    assert [on.name for on in read_triggers(header).conditions] == ["gamma"]
    header = triggers("FILE", on=(("/usr", UN, "", 0), ("/lib", IN, "", 1)))
    assert [found.prefixes for found in read_triggers(header).files] == [(b"/lib",)]


def test_file_triggers_have_their_prefixes_and_priority():
    header = triggers(
        "TRANSFILE",
        on=(("/lib", IN, "", 1), ("/usr/lib", IN, "", 0), ("/usr/lib64", IN, "", 1)),
        TRANSFILETRIGGERPRIORITIES=numbers(5, 2_000_000),
    )
    found = read_triggers(header)
    assert found.files == ()
    assert [(trigger.scriptlet.body, trigger.prefixes, trigger.priority) for trigger in found.transaction_files] == [
        (b"one", (b"/usr/lib",), 5),
        (b"two", (b"/lib", b"/usr/lib64"), 2_000_000),
    ]
    assert found.transaction_files[0].scriptlet.kind == "transfiletriggerin"


def test_a_trigger_without_a_text_is_its_program():
    header = triggers("FILE", scripts=("",), FILETRIGGERSCRIPTPROG=texts("/sbin/ldconfig"), on=(("/lib", IN, "", 0),))
    (trigger,) = read_triggers(header).files
    assert trigger.scriptlet.program == (b"/sbin/ldconfig",)
    assert trigger.scriptlet.body is None


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        (triggers(on=(("beta", IN, "", 2),)), "2 trigger scripts, and a trigger names 2"),
        (triggers("FILE", on=(("/lib", IN, "", 4_000_000_000),)), "a trigger names 4000000000"),
        (triggers(TRIGGERINDEX=numbers(0, 0)), "differing numbers"),
        (triggers(TRIGGERVERSION=None), "differing numbers"),
        (triggers(TRIGGERSCRIPTPROG=texts("/bin/sh")), "2 trigger scripts and 1 programs"),
        (triggers(TRIGGERSCRIPTFLAGS=numbers(0)), "2 trigger scripts"),
        (triggers(TRIGGERSCRIPTS=None, TRIGGERSCRIPTPROG=None), "0 trigger scripts, and a trigger names 0"),
        (triggers("FILE", FILETRIGGERPRIORITIES=numbers(1)), "2 filetriggerin and 1 priorities"),
        (triggers("TRANSFILE", TRANSFILETRIGGERPRIORITIES=None), "2 transfiletriggerin and 0 priorities"),
        (triggers(TRIGGERFLAGS=texts("x")), "does not hold numbers"),
    ],
)
def test_triggers_that_do_not_fit_together_are_refused(header, problem):
    with pytest.raises(PackageError, match=problem):
        read_triggers(header)


# What stands for something else

MACROS = {**default_macros("x86_64"), "twice": "%{_lib}%{_lib}", "loop": "%{loop}x"}


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("plain", "plain"),
        ("%{_libdir}/x %_bindir/y", "/usr/lib64/x /usr/bin/y"),
        ("100%% %", "100% %"),
        ("%{unknown} %unknown %{unknown:x}", "%{unknown} %unknown %{unknown:x}"),
        ("%{?unknown:x}%{!?unknown:y}%{?_lib:z}%{!?_lib:w}", "yz"),
        ("%{?_lib} %{?unknown}.", "lib64 ."),
        ("%{!?unknown:%{?_lib:%{_prefix}}}", "/usr"),
        ("%(rm -rf /) %{lua:x} %[1+1]", "%(rm -rf /) %{lua:x} %[1+1]"),
        ("%{never closed", "%{never closed"),
        ("%{twice}", "lib64lib64"),
        ("date +%s; ${x%y}", "date +%s; ${x%y}"),
    ],
)
def test_macros(written, meant):
    assert expand_macros(written, MACROS) == meant


def test_a_macro_that_means_itself_ends():
    assert expand_macros("%{loop}", MACROS).endswith("x")


def test_libraries_lie_where_the_architecture_has_them():
    assert expand_macros("%{_libdir}", default_macros("i686")) == "/usr/lib"
    assert expand_macros("%{_libdir}", default_macros("aarch64")) == "/usr/lib64"


PACKAGE = make_main("alpha", "1.0", "2", EPOCH=numbers(3), BASENAMES=texts("a", "b"), DIRNAMES=texts("/x/"))


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("%{NAME}-%{version} %{VENDOR} 100%%", "alpha-1.0 (none) 100%"),
        ("%{NEVRA} %{EVR} %{NVR} %{epoch}", "alpha-3:1.0-2.noarch 3:1.0-2 alpha-1.0-2 3"),
        ("[%{BASENAMES} %{=NAME}\\n]", "a alpha\nb alpha\n"),
        ("%8{NAME}|%-8{NAME}|", "   alpha|alpha   |"),
        ("\\[ -f x \\] && echo \\\\", "[ -f x ] && echo \\"),
        ("[%{PROVIDENAME}]none", "none"),
    ],
)
def test_query_formats(written, meant):
    assert format_query(written, PACKAGE) == meant


@pytest.mark.parametrize("written", ["%{NOSUCHTAG}", "%{SIZE:humansi}", "[%{NAME}", "a ] b"])
def test_query_formats_that_mean_nothing_here_are_errors(written):
    with pytest.raises(PackageError, match="query format"):
        format_query(written, PACKAGE)


def test_a_text_is_taken_as_it_is_unless_its_flags_say_otherwise():
    body = b"%{_lib} %{NAME} %%{NAME} \xff"
    meant = {
        Flag(0): body,
        Flag.EXPAND: b"lib64 %{NAME} %{NAME} \xff",
        Flag.EXPAND | Flag.QFORMAT: b"lib64 alpha alpha \xff",
    }
    for flags, expected in meant.items():
        assert expand_scriptlet(Scriptlet("post", (b"/bin/sh",), body, flags), PACKAGE, "x86_64") == expected
    assert expand_scriptlet(Scriptlet("post", (b"x",), None, Flag.EXPAND), PACKAGE, "x86_64") is None
