"""Differences between packages as Markdown for a pull request (GitHub Flavored Markdown 0.29, section 4.10)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from rootfsbuild.inspection.diff import Change, Difference, Group, Kind, group_changes, tell_name, tell_version
from rootfsbuild.inspection.differences import REBUILT, SAME, summarise, tell_growth, tell_size

_MOST = 30
"""How many rows stand open; a table that would bring more is folded."""

_PLAIN = re.compile(r"[A-Za-z0-9.+:~_/-]+(?: \[[a-z0-9-]+\])?")


def render_markdown(difference: Difference, title: str = "Packages") -> str:
    """Return a difference as a heading, the totals, and a table for each kind of change with a row for each source.

    What a package is called cannot leave its cell, address a person or become a link.
    """
    head = [f"## {_escape(title)}", ""]
    if not difference:
        return "\n".join([*head, SAME[0].upper() + SAME[1:] + "."])
    sizes = f"installed size {tell_size(difference.size_before)} → {tell_size(difference.size_after)}"
    return "\n".join([*head, f"**{summarise(difference)}** ({sizes})", *_tables(difference)])


def _tables(difference: Difference) -> Iterator[str]:
    left = _MOST
    for title, changes, columns in (
        ("Changed", difference.changed, ("package", "from", "to", "size")),
        ("Added", difference.added, ("package", "version", "size")),
        ("Removed", difference.removed, ("package", "version", "size")),
    ):
        if not changes:
            continue
        groups = group_changes(changes)
        rows = [_changed_row(group) if len(columns) == 4 else _one_sided_row(group) for group in groups]
        open_ = len(rows) <= left
        left -= len(rows) if open_ else 0
        yield from _section(f"{title} ({len(changes)})", _table(columns, rows), open_=open_)


def _section(title: str, table: Sequence[str], *, open_: bool) -> Iterator[str]:
    # Inside of HTML, Markdown is only read again after an empty line.
    if open_:
        yield from ("", f"### {title}", "", *table)
    else:
        yield from ("", "<details>", f"<summary>{title}</summary>", "", *table, "", "</details>")


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    rule = ["---:" if column == "size" else "---" for column in columns]
    return [f"| {' | '.join(cells)} |" for cells in (columns, rule, *rows)]


def _changed_row(group: Group) -> tuple[str, ...]:
    first = group.changes[0]
    before, after = (_code(tell_version(first, side)) for side in (first.before, first.after))
    # A step back looks like a step forward, and a reader would pass over it.
    back = " **downgraded**" if group.kind is Kind.DOWNGRADED else ""
    return _package(group), before, f"{after}{_remarks(group)}{back}", tell_growth(group.delta)


def _one_sided_row(group: Group) -> tuple[str, ...]:
    version = _code(group.changes[0].package.version)
    return _package(group), f"{version}{_remarks(group)}", tell_growth(group.delta)


def _package(group: Group) -> str:
    names = ", ".join(_code(tell_name(change)) for change in group.changes)
    return f"**{_code(group.name)}**: {names}" if len(group.changes) > 1 else names


def _remarks(group: Group) -> str:
    remarks = dict.fromkeys(filter(None, map(_remark, group.changes)))
    return f" ({', '.join(remarks)})" if remarks else ""


def _remark(change: Change) -> str:
    return REBUILT if change.rebuilt else _code(change.suite) if change.suite else ""


def _code(text: str) -> str:
    # In code nothing addresses a person or becomes a link, and a character reference is never markup, not even
    # the bar between two cells (GFM 6.2).
    return f"`{text}`" if _PLAIN.fullmatch(text) else f"<code>{_escape(text, ' ')}</code>"


def _escape(text: str, plain: str = " .,-+()_:/") -> str:
    return "".join(char if char.isalnum() or char in plain else f"&#{ord(char)};" for char in text)
