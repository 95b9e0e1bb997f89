"""RPM versions: how they are written and how they compare (rpm-version(7), lib/rpmvercmp.c's rules)."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

Key = tuple[tuple[int, int, str], ...]

_SEGMENT = re.compile(r"[~^]|[0-9]+|[A-Za-z]+")

# What comes next, from the earliest to the latest: "~" precedes even the end, "^" follows it but precedes all else.
_TILDE, _END, _CARET, _LETTERS, _NUMBER = range(5)


class Evr(NamedTuple):
    """Epoch, version and release."""

    epoch: int
    version: str
    release: str
    """Empty where a dependency names none."""


def split_evr(text: str) -> Evr:
    """Split `[epoch:]version[-release]`; an epoch that is not written is 0."""
    head, colon, rest = text.partition(":")
    epoch, rest = (int(head or "0"), rest) if colon and (head.isdecimal() or not head) else (0, text)
    version, _, release = rest.rpartition("-") if "-" in rest else (rest, "", "")
    return Evr(epoch, version, release)


def join_evr(epoch: int, version: str, release: str = "") -> str:
    """Return `[epoch:]version[-release]`, an epoch of 0 left out."""
    return f"{f'{epoch}:' if epoch else ''}{version}{f'-{release}' if release else ''}"


def compare(first: str, second: str) -> int:
    """Return -1, 0 or 1 as `first` is earlier than, the same as or later than `second`.

    A version without a release is earlier than the same one with any, so that this is a total order.
    """
    left, right = sort_key(first), sort_key(second)
    return (left > right) - (left < right)


@lru_cache(maxsize=1 << 14)
def sort_key(text: str) -> tuple[int, Key, bool, Key]:
    """Return a value that compares as the version does; equal keys mean versions that rpm takes for the same."""
    epoch, version, release = split_evr(text)
    return epoch, _part_key(version), bool(release), _part_key(release)


def satisfies(version: str, operator: str, wanted: str) -> bool:
    """Tell whether a version stands in a relation to `wanted`, releases counting only where both have one.

    `operator` is `<`, `<=`, `=`, `>=` or `>`, or empty for any version.
    """
    have, want = split_evr(version), split_evr(wanted)
    both = bool(have.release and want.release)
    difference = compare(*(join_evr(evr.epoch, evr.version, evr.release if both else "") for evr in (have, want)))
    if not operator:
        return True
    return (
        (difference < 0 and "<" in operator)
        or (difference > 0 and ">" in operator)
        or (difference == 0 and "=" in operator)
    )


def _part_key(part: str) -> Key:
    # Whatever is neither letter, digit, "~" nor "^" only separates, whichever and however many they are.
    return (*(_segment_key(segment) for segment in _SEGMENT.findall(part)), (_END, 0, ""))


def _segment_key(segment: str) -> tuple[int, int, str]:
    if segment == "~":
        return _TILDE, 0, ""
    if segment == "^":
        return _CARET, 0, ""
    if segment.isdecimal():
        return _NUMBER, int(segment), ""
    return _LETTERS, 0, segment
