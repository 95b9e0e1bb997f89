"""Values as text or JSON for standard output."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rootfsbuild.plan import Plan
from rootfsbuild.repository.bundle import Listing


def render_plan(plan: Plan) -> str:
    """Return a plan as a table for people: package, version, architecture, archive, size and reason."""
    rows = [
        (
            package.name,
            package.version,
            package.architecture,
            f"{package.archive}/{package.suite}",
            _bytes(package.size),
            str(package.reason),
        )
        for package in sorted(plan.packages, key=lambda package: package.name)
    ]
    heading = ("PACKAGE", "VERSION", "ARCH", "ARCHIVE", "SIZE", "WHY")
    total = sum(package.size for package in plan.packages)
    disk = sum(package.installed_size for package in plan.packages)
    return "\n".join(
        [
            *_table([heading, *rows]),
            "",
            f"{len(rows)} packages, {_bytes(total)} to fetch, {_bytes(disk)} installed",
        ]
    )


def render_settings(settings: Iterable[tuple[str, object, str]]) -> str:
    """Return (dotted path, value, origin) triples, a line each."""
    rows = list(settings)
    width = max((len(path) for path, _, _ in rows), default=0)
    return "\n".join(f"{path:<{width}} = {_value(value)}  # {origin}" for path, value, origin in rows)


def settings_document(settings: Iterable[tuple[str, object, str]]) -> dict[str, Any]:
    """Return (dotted path, value, origin) triples as a JSON object keyed by path."""
    return {path: {"value": value, "origin": origin} for path, value, origin in settings}


def render_bundle(listing: Listing) -> str:
    """Return what a bundle holds, a line for each lock and one for all."""
    rows = [("LOCK", "DISTRIBUTION", "ARCH", "PACKAGES", "SIZE")]
    rows += [
        (lock.file, f"{lock.distro} {lock.release}", lock.architecture, str(lock.packages), _bytes(lock.size))
        for lock in listing.locks
    ]
    total = f"{listing.packages} different packages, {_bytes(listing.size)} with what proves them"
    return "\n".join([*_table(rows), "", total])


def to_json(document: Mapping[str, Any]) -> str:
    """Return indented JSON; dates and other values that JSON lacks become text."""
    return json.dumps(document, indent=2, default=str, ensure_ascii=False)


def _value(value: object) -> str:
    return json.dumps(value, default=str, ensure_ascii=False)


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))] if rows else []
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
