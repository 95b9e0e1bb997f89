"""Differences between packages, told: as text for a terminal and as a JSON object."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from rootfsbuild.inspection.diff import Change, Difference, Group, group_changes, tell_name, tell_version
from rootfsbuild.inspection.shown import show
from rootfsbuild.listed import Listed

SAME = "no differences"
REBUILT = "same version, another file"
_WIDTH = 100


def render_difference(difference: Difference) -> str:
    """Return a difference as an aligned table for a terminal, a row for each source; its last line holds the totals."""
    if not difference:
        return f"{SAME} ({_packages(difference.count_after)}, {tell_size(difference.size_after)} installed)"
    groups = group_changes((*difference.changed, *difference.added, *difference.removed))
    rows = [[show(cell) for cell in _row(group)] for group in groups]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines: list[str] = []
    for kind, members in groupby(zip(groups, rows, strict=True), lambda pair: pair[0].kind):
        lines.append(f"{kind.value}:")
        for group, row in members:
            lines.append(_aligned(row, widths))
            lines += _names(group)
        lines.append("")
    sizes = f"{tell_size(difference.size_before)} -> {tell_size(difference.size_after)} installed"
    return "\n".join([*lines, f"{summarise(difference)} ({sizes})"])


def summarise(difference: Difference) -> str:
    """Return the totals in a line: `3 upgraded, 1 added, 1 removed, +1.2 MB`."""
    if not difference:
        return SAME
    counted = [f"{count} {kind.value}" for kind, count in difference.counts.items() if count]
    return ", ".join([*counted, tell_growth(difference.delta)])


def difference_document(difference: Difference) -> dict[str, Any]:
    """Return a difference as a JSON object; sizes are bytes, what is unknown is null."""
    return {
        "counts": {kind.value: count for kind, count in difference.counts.items()},
        "packages": {"before": difference.count_before, "after": difference.count_after},
        "installed_size": {
            "before": difference.size_before,
            "after": difference.size_after,
            "delta": difference.delta,
        },
        "changed": [_change_document(change) for change in difference.changed],
        "added": [_change_document(change) for change in difference.added],
        "removed": [_change_document(change) for change in difference.removed],
    }


def tell_growth(count: int) -> str:
    """Return a number of bytes with its sign: `+1.2 MB`."""
    return f"{'-' if count < 0 else '+' if count > 0 else ''}{tell_size(abs(count))}"


def tell_size(count: float) -> str:
    """Return a number of bytes, in thousands of thousands: `1.2 MB`."""
    for unit in ("B", "kB", "MB"):
        # What would be shown as 1000.0 is one of the next unit.
        if count < (1000 if unit == "B" else 999.95):
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def _row(group: Group) -> tuple[str, str, str, str, str]:
    first = group.changes[0]
    several = len(group.changes) > 1
    name = f"{group.name} ({_packages(len(group.changes))})" if several else group.name
    versions = [version for side in (first.before, first.after) if (version := tell_version(first, side))]
    remarks = ", ".join(dict.fromkeys(filter(None, map(_remark, group.changes))))
    return name, versions[0], f"-> {versions[1]}" if len(versions) > 1 else "", tell_growth(group.delta), remarks


def _remark(change: Change) -> str:
    return REBUILT if change.rebuilt else change.suite


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    name, before, after, size, remark = row
    cells = [name.ljust(widths[0]), before.ljust(widths[1]), after.ljust(widths[2]), size.rjust(widths[3]), remark]
    return "  " + "  ".join(cell for cell, width in zip(cells, (*widths, 1), strict=True) if width).rstrip()


def _names(group: Group) -> list[str]:
    if len(group.changes) == 1:
        return []
    names = " ".join(show(tell_name(change)) for change in group.changes)
    return textwrap.wrap(
        names, _WIDTH, initial_indent=" " * 4, subsequent_indent=" " * 4, break_on_hyphens=False, break_long_words=False
    )


def _packages(count: int) -> str:
    return f"{count} package{'' if count == 1 else 's'}"


def _change_document(change: Change) -> dict[str, Any]:
    return {
        "name": change.package.name,
        "source": change.package.source,
        "kind": change.kind.value,
        "before": _side_document(change.before),
        "after": _side_document(change.after),
        "delta": change.delta,
    }


def _side_document(package: Listed | None) -> dict[str, Any] | None:
    if package is None:
        return None
    return {
        "version": package.version,
        "architecture": package.architecture,
        "source_version": package.source_version,
        "installed_size": package.installed_size,
        "archive": package.archive or None,
        "suite": package.suite or None,
        "sha256": package.sha256 or None,
    }
