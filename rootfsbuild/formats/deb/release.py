"""Release files, read into what they say (Debian's repository format)."""

from __future__ import annotations

import calendar
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rootfsbuild.errors import UntrustedError
from rootfsbuild.plan import Index

if TYPE_CHECKING:
    from collections.abc import Mapping

DATE = re.compile(
    r"(?:[A-Z][a-z]{2}, +)?(\d{1,2}) +([A-Z][a-z]{2}) (\d{4}) +"
    r"(\d{1,2}):(\d{2}):(\d{2}) (?:UTC|GMT|Z|[+-]0000)"
)
NAMES = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
MONTHS = {name: number for number, name in enumerate(NAMES, 1)}  # calendar's names follow the locale


@dataclass(frozen=True)
class Release:
    """What a Release file says."""

    origin: str
    label: str
    suite: str
    codename: str
    version: str
    date: int
    """Seconds since the epoch."""
    valid_until: int | None
    """Seconds since the epoch, None where the archive sets no end."""
    architectures: tuple[str, ...]
    components: tuple[str, ...]
    acquire_by_hash: bool
    not_automatic: bool
    but_automatic_upgrades: bool
    indexes: Mapping[str, Index]
    """By path relative to the Release; only those listed with a SHA-256."""


def parse_release(body: bytes, label: str) -> Release:
    """Read a Release file; `label` names it in errors. Raises UntrustedError (rule `malformed`)."""
    fields = _fields(body, label)
    if "date" not in fields:
        raise UntrustedError(label, "malformed", "has no Date")

    def flag(name: str) -> bool:
        return fields.get(name, "").lower() in {"yes", "true", "1"}

    return Release(
        origin=fields.get("origin", ""),
        label=fields.get("label", ""),
        suite=fields.get("suite", ""),
        codename=fields.get("codename", ""),
        version=fields.get("version", ""),
        date=_moment(fields["date"], "Date", label),
        valid_until=_moment(fields["valid-until"], "Valid-Until", label) if "valid-until" in fields else None,
        architectures=tuple(fields.get("architectures", "").split()),
        components=tuple(fields.get("components", "").split()),
        acquire_by_hash=flag("acquire-by-hash"),
        not_automatic=flag("notautomatic"),
        but_automatic_upgrades=flag("butautomaticupgrades"),
        indexes=_indexes(fields.get("sha256", ""), label),
    )


def _fields(body: bytes, label: str) -> dict[str, str]:
    """Read the one stanza of a Release; names in lower case, lines of a value joined by newlines."""
    fields: dict[str, list[str]] = {}
    name = ""
    text = body.decode("utf-8", "replace").strip("\n")
    if re.search(r"[\x00-\x08\x0b-\x1f\x7f]", text):
        raise UntrustedError(label, "malformed", "holds control characters")
    for number, line in enumerate(text.split("\n"), 1):
        if name and line[:1] in {" ", "\t"} and line.strip():
            fields[name].append(line.strip())
            continue
        field, colon, value = line.partition(":")
        if not colon or not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]*", field):
            raise UntrustedError(label, "malformed", f"line {number} is no field")
        name = field.lower()
        if name in fields:
            raise UntrustedError(label, "malformed", f"gives {field} twice")
        fields[name] = [value.strip()]
    return {name: "\n".join(lines) for name, lines in fields.items()}


def _indexes(sums: str, label: str) -> dict[str, Index]:
    indexes: dict[str, Index] = {}
    for line in sums.split("\n"):
        if not line:
            continue
        found = re.fullmatch(r"([0-9a-f]{64})[ \t]+([0-9]{1,15})[ \t]+(\S+)", line)
        if found is None or not _is_inside(found[3]):
            raise UntrustedError(label, "malformed", f"lists {line[:200]!r} among its SHA256 sums")
        index = Index(found[3], int(found[2]), found[1])
        if indexes.setdefault(index.path, index) != index:
            raise UntrustedError(label, "malformed", f"lists {index.path} twice, with different sums")
    if not indexes:
        raise UntrustedError(label, "malformed", "lists no SHA256 sums; MD5 and SHA-1 prove nothing")
    return indexes


def _is_inside(path: str) -> bool:
    return not any(part in {"", ".", ".."} for part in path.split("/")) and not re.search(r"[\\%?#]", path)


def _moment(text: str, field: str, label: str) -> int:
    """Return seconds since the epoch of a date in UTC, as Release files write it (RFC 5322, 3.3)."""
    found = DATE.fullmatch(text)
    if found is None or found[2] not in MONTHS:
        raise UntrustedError(label, "malformed", f"has the {field} {text[:80]!r}, which is no date in UTC")
    day, hour, minute, second = (int(found[group]) for group in (1, 4, 5, 6))
    if not (1 <= day <= 31 and hour < 24 and minute < 60 and second < 61):
        raise UntrustedError(label, "malformed", f"has the {field} {text[:80]!r}, which is no date in UTC")
    return calendar.timegm((int(found[3]), MONTHS[found[2]], day, hour, minute, second))
