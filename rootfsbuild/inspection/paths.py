"""Differences between trees, told: as text for a terminal and as JSON objects."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rootfsbuild.inspection.compare import Aspect, PathDifference, What, compare_trees
from rootfsbuild.inspection.dump import WHOLE, dump_tree
from rootfsbuild.inspection.shown import show

_SHOWN = 50
_WIDEST = 60
_WITH_VALUES = frozenset({What.TYPE, What.MODE, What.OWNER, What.TARGET, What.DEVICE, What.TIME})


def compare_files(before: str, after: str) -> tuple[PathDifference, ...]:
    """Compare the files of two root directories, times aside; what is only in `after` is extra. Raises OSError."""
    return compare_trees(dump_tree(before, digits=WHOLE), dump_tree(after, digits=WHOLE))


def render_paths(differences: Sequence[PathDifference], shown: int = _SHOWN) -> str:
    """Return the first differing paths with what differs, how many more there are, and the totals in the last line."""
    rows = [(show(difference.path), _tell(difference)) for difference in differences[:shown]]
    width = max((len(path) for path, _ in rows if len(path) <= _WIDEST), default=0)
    more = [f"and {len(differences) - shown} more"] if len(differences) > shown else []
    return "\n".join([*(f"{path:<{width}}  {words}" for path, words in rows), *more, count_paths(differences)])


def count_paths(differences: Sequence[PathDifference]) -> str:
    """Return the totals: `3 paths differ: 1 missing, 2 content, 1 mode`."""
    if not differences:
        return "no differences"
    counts = Counter(what for difference in differences for what in difference.what)
    verb = "paths differ" if len(differences) > 1 else "path differs"
    return f"{len(differences)} {verb}: {', '.join(f'{counts[what]} {what.value}' for what in What if counts[what])}"


def summarise_files(differences: Sequence[PathDifference]) -> str:
    """Return what became of a tree: `files: 12 added, 3 removed, 40 changed`, directories and links among them."""
    signs = Counter(map(_sign, differences))
    return f"files: {signs['+']} added, {signs['-']} removed, {signs['~']} changed"


def render_files(differences: Sequence[PathDifference]) -> str:
    """Return what became of every path that differs, a line each: `+ /new`, `- /gone`, `~ /etc/passwd  content`."""
    return "\n".join(_signed(difference) for difference in differences)


def paths_document(differences: Sequence[PathDifference]) -> list[dict[str, Any]]:
    r"""Return differences as JSON objects; bytes that are not UTF-8 are written `\xff`, since JSON holds only text."""
    return [
        {
            "path": _text(difference.path),
            "differs": [
                {
                    "what": aspect.what.value,
                    "expected": _text(aspect.expected) or None,
                    "actual": _text(aspect.actual) or None,
                }
                for aspect in difference.aspects
            ],
        }
        for difference in differences
    ]


def _tell(difference: PathDifference) -> str:
    return ", ".join(map(_tell_aspect, difference.aspects))


def _tell_aspect(aspect: Aspect) -> str:
    if aspect.what not in _WITH_VALUES:
        return aspect.what.value
    return f"{aspect.what.value} {show(aspect.actual)} instead of {show(aspect.expected)}"


def _sign(difference: PathDifference) -> str:
    return {What.EXTRA: "+", What.MISSING: "-"}.get(difference.what[0], "~")


def _signed(difference: PathDifference) -> str:
    sign = _sign(difference)
    words = f"  {', '.join(what.value for what in difference.what)}" if sign == "~" else ""
    return f"{sign} {show(difference.path)}{words}"


def _text(value: str) -> str:
    return os.fsencode(value).decode("utf-8", "backslashreplace")
