"""What a package's header says is to be run when it is installed: its scriptlets and its triggers.

Sources: rpm's tags (rpmtag.h), `rpm-scriptlets(7)`, its manual on triggers and file triggers. What runs at removal or
upgrade is left out: a root that was empty knows neither.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntFlag

from rootfsbuild.errors import PackageError
from rootfsbuild.formats.rpm import tags
from rootfsbuild.formats.rpm.header import Header

LUA = b"<lua>"
_SHELL = (b"/bin/sh",)
_PREFIXES = 1098


class Flag(IntFlag):
    """What is to be done with a scriptlet's text, and what its failure means."""

    EXPAND = 1
    """Its macros are expanded when it is about to run (`-e`)."""
    QFORMAT = 2
    """It is a query format for the package's own header (`-q`)."""
    CRITICAL = 4
    """Its failure fails the package; of %pretrans and %pre always true."""


NO_FLAGS = Flag(0)


class Sense(IntFlag):
    """The bits of a trigger's dependency flags that matter here (RPMSENSE_*)."""

    LESS = 2
    GREATER = 4
    EQUAL = 8
    TRIGGERIN = 1 << 16
    TRIGGERUN = 1 << 17
    TRIGGERPOSTUN = 1 << 18
    TRIGGERPREIN = 1 << 25


@dataclass(frozen=True)
class Scriptlet:
    """Something to run."""

    kind: str
    """As in a spec file: `pretrans`, `pre`, `post`, `posttrans`, `triggerprein`, `triggerin`, `filetriggerin` or
    `transfiletriggerin`."""
    program: tuple[bytes, ...]
    """An interpreter, or a program that needs no text, and its arguments; `<lua>` is rpm's own."""
    body: bytes | None
    """The text; None if there is none, and the program then runs without further arguments."""
    flags: Flag = NO_FLAGS
    prefixes: tuple[bytes, ...] = ()
    """Of a relocatable package: the directories that it was built to be installed below."""

    @property
    def critical(self) -> bool:
        """Tell whether its failure fails the build, strict or not."""
        return self.kind in {"pretrans", "pre"} or Flag.CRITICAL in self.flags


@dataclass(frozen=True)
class Scriptlets:
    """The scriptlets of a package; None for those that it does not have."""

    pretrans: Scriptlet | None = None
    pre: Scriptlet | None = None
    post: Scriptlet | None = None
    posttrans: Scriptlet | None = None


@dataclass(frozen=True)
class Condition:
    """A package, in some version, that sets off a trigger."""

    name: str
    operator: str
    """`<`, `<=`, `=`, `>=`, `>` or empty for any version."""
    version: str
    trigger: int
    """Which of the package's triggers."""
    sense: Sense


@dataclass(frozen=True)
class FileTrigger:
    """A trigger on files that are installed."""

    scriptlet: Scriptlet
    """Of the kind `filetriggerin` or `transfiletriggerin`."""
    prefixes: tuple[bytes, ...]
    """What paths begin with that set it off, in the header's order."""
    priority: int
    """Higher ones run earlier; from 10,000 on before the package's own %post."""


@dataclass(frozen=True)
class Triggers:
    """The triggers of a package, as far as an installation sets them off."""

    conditions: tuple[Condition, ...] = ()
    """On packages, in the header's order: of those that fit, the first one is carried out."""
    scripts: tuple[Scriptlet, ...] = ()
    """What the conditions' numbers mean; of others than `triggerprein` and `triggerin`, what stands here never runs."""
    files: tuple[FileTrigger, ...] = ()
    transaction_files: tuple[FileTrigger, ...] = ()


@dataclass(frozen=True)
class _Tags:
    """The tags of one kind of trigger."""

    scripts: int
    programs: int
    flags: int
    names: int
    indexes: int
    versions: int
    senses: int
    priorities: int = 0


_PACKAGES = _Tags(
    tags.TRIGGERSCRIPTS,
    tags.TRIGGERSCRIPTPROG,
    tags.TRIGGERSCRIPTFLAGS,
    tags.TRIGGERNAME,
    tags.TRIGGERINDEX,
    tags.TRIGGERVERSION,
    tags.TRIGGERFLAGS,
)
_FILES = _Tags(
    tags.FILETRIGGERSCRIPTS,
    tags.FILETRIGGERSCRIPTPROG,
    tags.FILETRIGGERSCRIPTFLAGS,
    tags.FILETRIGGERNAME,
    tags.FILETRIGGERINDEX,
    tags.FILETRIGGERVERSION,
    tags.FILETRIGGERFLAGS,
    tags.FILETRIGGERPRIORITIES,
)
_TRANSACTION = _Tags(
    tags.TRANSFILETRIGGERSCRIPTS,
    tags.TRANSFILETRIGGERSCRIPTPROG,
    tags.TRANSFILETRIGGERSCRIPTFLAGS,
    tags.TRANSFILETRIGGERNAME,
    tags.TRANSFILETRIGGERINDEX,
    tags.TRANSFILETRIGGERVERSION,
    tags.TRANSFILETRIGGERFLAGS,
    tags.TRANSFILETRIGGERPRIORITIES,
)
_OPERATORS = {
    Sense(0): "",
    Sense.LESS: "<",
    Sense.LESS | Sense.EQUAL: "<=",
    Sense.EQUAL: "=",
    Sense.GREATER | Sense.EQUAL: ">=",
    Sense.GREATER: ">",
}


def read_scriptlets(header: Header) -> Scriptlets:
    """Return the scriptlets that an installation runs; raises PackageError."""
    return Scriptlets(
        _read_one(header, "pretrans", tags.PRETRANS, tags.PRETRANSPROG, tags.PRETRANSFLAGS),
        _read_one(header, "pre", tags.PREIN, tags.PREINPROG, tags.PREINFLAGS),
        _read_one(header, "post", tags.POSTIN, tags.POSTINPROG, tags.POSTINFLAGS),
        _read_one(header, "posttrans", tags.POSTTRANS, tags.POSTTRANSPROG, tags.POSTTRANSFLAGS),
    )


def read_triggers(header: Header) -> Triggers:
    """Return the triggers that an installation can set off; PackageError if their indexes point nowhere."""
    if not any(kind.names in header or kind.scripts in header for kind in (_PACKAGES, _FILES, _TRANSACTION)):
        return Triggers()
    scripts, conditions = _read_kind(header, _PACKAGES, _package_kind)
    return Triggers(
        tuple(found for found in conditions if found.sense & (Sense.TRIGGERIN | Sense.TRIGGERPREIN)),
        scripts,
        _read_files(header, _FILES, "filetriggerin"),
        _read_files(header, _TRANSACTION, "transfiletriggerin"),
    )


def _read_one(header: Header, kind: str, text: int, program: int, flags: int) -> Scriptlet | None:
    if text not in header and program not in header:
        return None
    body = header.strings(text)
    words = header.strings(program) or _SHELL
    return Scriptlet(kind, words, body[0] if body else None, Flag(header.number(flags) & 7), header.strings(_PREFIXES))


def _package_kind(sense: Sense) -> str:
    return "triggerprein" if Sense.TRIGGERPREIN in sense else "triggerin"


def _read_files(header: Header, kind: _Tags, name: str) -> tuple[FileTrigger, ...]:
    scripts, conditions = _read_kind(header, kind, lambda _sense: name)
    priorities = header.numbers(kind.priorities)
    if len(priorities) != len(scripts):
        raise PackageError(header.label, f"the header has {len(scripts)} {name} and {len(priorities)} priorities")
    prefixes: list[list[bytes]] = [[] for _ in scripts]
    senses = [Sense(0)] * len(scripts)
    for prefix, condition in zip(header.strings(kind.names), conditions, strict=True):
        # The first prefix of a trigger tells what it is for, as in rpm.
        if not prefixes[condition.trigger]:
            senses[condition.trigger] = condition.sense
        prefixes[condition.trigger].append(prefix)
    return tuple(
        FileTrigger(script, tuple(below), priority)
        for script, below, priority, sense in zip(scripts, prefixes, priorities, senses, strict=True)
        if Sense.TRIGGERIN in sense
    )


def _read_kind(
    header: Header, kind: _Tags, name: Callable[[Sense], str]
) -> tuple[tuple[Scriptlet, ...], tuple[Condition, ...]]:
    bodies, programs = header.strings(kind.scripts), header.strings(kind.programs)
    flags = header.numbers(kind.flags) or (0,) * len(bodies)
    programs = programs or _SHELL * len(bodies)
    if not len(bodies) == len(programs) == len(flags):
        raise PackageError(header.label, f"the header has {len(bodies)} trigger scripts and {len(programs)} programs")
    conditions = _read_conditions(header, kind, len(bodies))
    kinds = {condition.trigger: name(condition.sense) for condition in reversed(conditions)}
    prefixes = header.strings(_PREFIXES)
    scripts = tuple(
        # A trigger without a text has an empty one in the header. rpm hands its program a file of no bytes then, which
        # no program that needs no text, such as ldconfig, can do anything with.
        Scriptlet(kinds.get(number, "trigger"), (program,), body or None, Flag(flag & 7), prefixes)
        for number, (program, body, flag) in enumerate(zip(programs, bodies, flags, strict=True))
    )
    return scripts, conditions


def _read_conditions(header: Header, kind: _Tags, scripts: int) -> tuple[Condition, ...]:
    names, versions = header.strings(kind.names), header.strings(kind.versions)
    senses, indexes = header.numbers(kind.senses), header.numbers(kind.indexes)
    if not len(names) == len(versions) == len(senses) == len(indexes):
        raise PackageError(header.label, "the header's triggers have differing numbers of names, versions and indexes")
    for index in indexes:
        if index >= scripts:
            raise PackageError(header.label, f"the header has {scripts} trigger scripts, and a trigger names {index}")
    return tuple(
        Condition(
            _text(name),
            _OPERATORS.get(Sense(sense & 0xE), ""),
            _text(version) if sense & 0xE else "",
            index,
            Sense(sense & (0xE | 7 << 16 | 1 << 25)),
        )
        for name, version, sense, index in zip(names, versions, senses, indexes, strict=True)
    )


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
