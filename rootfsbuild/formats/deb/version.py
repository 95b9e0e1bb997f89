"""Debian versions: how they are written and how they compare (deb-version(7), Debian Policy 5.6.12)."""

from __future__ import annotations

import re
from functools import lru_cache

Key = tuple[tuple[int, ...], ...]

_VALID = re.compile(r"(?:\d+:)?[0-9][A-Za-z0-9.+:~-]*")
_PARTS = re.compile(r"(\D*)(\d*)")

# A letter sorts before everything that is neither a letter nor "~", and "~" before even the end of the version.
_END, _TILDE, _OTHERS = 0, -1, 1 << 8


def is_valid(version: str) -> bool:
    """Tell whether `version` has the form `[epoch:]upstream[-revision]`; dpkg(1) wants a digit first."""
    return _VALID.fullmatch(version) is not None


@lru_cache(maxsize=1 << 16)
def sort_key(version: str) -> Key:
    """Return a value that compares as `version` does; equal keys mean versions that dpkg takes for the same."""
    head, colon, rest = version.partition(":")
    epoch, rest = (head, rest) if colon and head.isdigit() else ("0", version)
    upstream, _, revision = rest.rpartition("-")
    if not upstream:
        upstream, revision = revision, ""
    return ((int(epoch),), _part_key(upstream), _part_key(revision))


def compare(first: str, second: str) -> int:
    """Return -1, 0 or 1 as `first` is earlier than, the same as or later than `second`."""
    left, right = sort_key(first), sort_key(second)
    return (left > right) - (left < right)


def satisfies(version: str, operator: str, wanted: str) -> bool:
    """Tell whether `version` stands in a relation to `wanted` (Debian Policy 7.1).

    `operator` is `<<`, `<=`, `=`, `>=` or `>>`, or empty for any version.
    """
    if not operator:
        return True
    difference = compare(version, wanted)
    return {
        "<<": difference < 0,
        "<=": difference <= 0,
        "=": difference == 0,
        ">=": difference >= 0,
        ">>": difference > 0,
    }[operator]


def _part_key(part: str) -> tuple[int, ...]:
    # An absent revision is the same as revision 0.
    key: list[int] = []
    for text, digits in _PARTS.findall(part or "0"):
        key += [_weight(character) for character in text]
        key += [_END, int(digits or 0)]
    return tuple(key)


def _weight(character: str) -> int:
    if character == "~":
        return _TILDE
    return ord(character) if character.isalpha() else ord(character) + _OTHERS
