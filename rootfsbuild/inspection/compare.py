"""What differs between two trees, path by path, from their dumps."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class What(StrEnum):
    """In what a path can differ, in the order in which it is told."""

    MISSING = "missing"
    EXTRA = "extra"
    TYPE = "type"
    MODE = "mode"
    OWNER = "owner"
    CONTENT = "content"
    TARGET = "target"
    """Of a symlink, or the first name of a hard link's inode."""
    DEVICE = "device"
    CAPABILITY = "capability"
    ATTRIBUTE = "attribute"
    """Any other extended attribute, access control lists among them."""
    TIME = "time"


@dataclass(frozen=True)
class Aspect:
    """One thing in which a path differs, and both sides of it as the dumps write them."""

    what: What
    expected: str
    """Empty where there is none, as for what is extra."""
    actual: str


@dataclass(frozen=True)
class PathDifference:
    """One path that differs."""

    path: str
    """Absolute as seen from inside the tree, as `dump_tree` writes it."""
    aspects: tuple[Aspect, ...]
    """In the order of `What`; only one where a side is missing or of another type."""

    @property
    def what(self) -> tuple[What, ...]:
        """In what it differs."""
        return tuple(aspect.what for aspect in self.aspects)


_LINE = re.compile(r"(?P<kind>\w+) (?P<mode>[0-7]{4}) (?P<owner>\d+:\d+)(?P<rest>.*)", re.DOTALL)
_TIME = re.compile(r" @(-?\d+(?:\.\d{9})?)\Z")
_CAPABILITY = "security.capability"


def compare_trees(expected: Mapping[str, str], actual: Mapping[str, str]) -> tuple[PathDifference, ...]:
    """Compare two dumps of `inspection.dump`, made with equally many digits; sorted by path.

    Times are compared if both dumps have them. Raises ValueError for what is not such a dump.
    """
    times = _has_times(expected), _has_times(actual)
    found = []
    for path in sorted(expected.keys() | actual.keys(), key=_in_order):
        before, after = expected.get(path, ""), actual.get(path, "")
        aspects = _compare(before, after, times) if before != after else ()
        if aspects:
            found.append(PathDifference(path, aspects))
    return tuple(found)


def _in_order(path: str) -> str:
    return path.replace("/", "\0")


def _compare(expected: str, actual: str, times: tuple[bool, bool]) -> tuple[Aspect, ...]:
    if not expected or not actual:
        return (Aspect(What.MISSING if expected else What.EXTRA, expected, actual),)
    before, after = _facts(expected, timed=times[0]), _facts(actual, timed=times[1])
    if before[What.TYPE] != after[What.TYPE]:
        return (Aspect(What.TYPE, before[What.TYPE], after[What.TYPE]),)
    if not all(times):
        before[What.TIME] = after[What.TIME] = ""
    return tuple(
        Aspect(what, before.get(what, ""), after.get(what, ""))
        for what in What
        if before.get(what, "") != after.get(what, "")
    )


def _has_times(dump: Mapping[str, str]) -> bool:
    # The text of a symlink may itself end like a time; the root's own line cannot.
    lines = (line for line in dump.values() if not line.startswith(("symlink ", "hardlink ")))
    return _TIME.search(next(lines, "")) is not None


def _facts(line: str, *, timed: bool) -> dict[What, str]:
    """Take one line of a dump apart."""
    kind, _, target = line.partition(" ")
    if kind == "hardlink":
        return {What.TYPE: kind, What.TARGET: target}
    match = _LINE.fullmatch(line)
    if match is None:
        raise ValueError(f"not a line of a dump: {line!r}")
    facts = {What.TYPE: kind, What.MODE: match["mode"], What.OWNER: match["owner"]}
    rest = match["rest"]
    time = _TIME.search(rest) if timed else None
    if time is not None:
        facts[What.TIME] = time[1]
        rest = rest[: time.start()]
    if kind == "symlink":
        return facts | {What.TARGET: rest.removeprefix(" -> ")}
    words = rest.split(" ")[1:]
    own = {"file": What.CONTENT, "character": What.DEVICE, "block": What.DEVICE}.get(kind)
    if own is not None and words:
        facts[own] = words.pop(0)
    capability = [word for word in words if word.startswith(f"{_CAPABILITY}=")]
    facts[What.CAPABILITY] = " ".join(capability).removeprefix(f"{_CAPABILITY}=")
    facts[What.ATTRIBUTE] = " ".join(word for word in words if word not in capability)
    return facts
