"""The header structure of rpm packages and databases, read strictly (rpm's format documentation, "Header").

A header is an index of entries (tag, type, offset, count) and a store of data, all numbers big-endian. Its first
entry may name a *region*: the entries and data that were there when the package was made, as opposed to those that
an installation adds behind them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import TYPE_CHECKING

from rootfsbuild.errors import PackageError
from rootfsbuild.formats.rpm.tags import HEADERIMMUTABLE, HEADERSIGNATURES

if TYPE_CHECKING:
    from collections.abc import Mapping

MAGIC = b"\x8e\xad\xe8\x01\0\0\0\0"
INTRO = 16
"""Bytes before the index: the magic, and the lengths of index and store."""
ENTRY = 16
"""Bytes of an index entry."""


class Type(IntEnum):
    """The types of a header's data."""

    NULL = 0
    CHAR = 1
    INT8 = 2
    INT16 = 3
    INT32 = 4
    INT64 = 5
    STRING = 6
    BIN = 7
    STRING_ARRAY = 8
    I18NSTRING = 9


_WIDTHS = {Type.CHAR: 1, Type.INT8: 1, Type.INT16: 2, Type.INT32: 4, Type.INT64: 8, Type.BIN: 1}
_LETTERS = {Type.CHAR: "B", Type.INT8: "B", Type.INT16: "H", Type.INT32: "I", Type.INT64: "Q"}
_STRINGS = (Type.STRING, Type.STRING_ARRAY, Type.I18NSTRING)
_KINDS = {int(kind): kind for kind in Type if kind}
_MOST_STRINGS = 4_000_000
"""Of one entry: the largest packages have some 200,000 files, and each string becomes an object here."""
_LOWEST = 100
"""The lowest tag that is not a region."""
_STRIDE = 1 << 14
_TRAILER = 61
"""HEADERIMAGE, which rpm once wrote where a signature header's region ends."""


@dataclass(frozen=True)
class Limits:
    """The most that a header may hold."""

    entries: int
    store: int
    """Bytes."""


MAIN = Limits(65535, 256 << 20)
"""rpm's own limits for a package's header."""
SIGNATURE = Limits(32, 64 << 20)
"""rpm's own limits for the signatures before it."""


@dataclass(frozen=True, slots=True)
class Item:
    """One entry of a header's index."""

    tag: int
    type: Type
    offset: int
    """Where its data begins in the store, bytes."""
    count: int
    length: int
    """Bytes of its data, without what aligns it."""


@dataclass(frozen=True)
class Header:
    """One header whose index and store agree with each other."""

    label: str
    """Names it in errors."""
    data: bytes
    """All of it as read, from the index on: without magic and lengths."""
    items: tuple[Item, ...]
    """As in the index; the region's own entry, if there is one, is the first."""
    region: int
    """How many of them are in the region; 0 if there is none."""

    @property
    def store(self) -> bytes:
        """Return the data of all entries."""
        return self.data[len(self.items) * ENTRY :]

    @property
    def intro(self) -> bytes:
        """Return magic and lengths; what digests and signatures cover is `intro + data`."""
        return MAGIC + struct.pack(">II", len(self.items), len(self.data) - len(self.items) * ENTRY)

    @cached_property
    def by_tag(self) -> Mapping[int, Item]:
        """Return the entries by their tags."""
        return {item.tag: item for item in self.items}

    def __contains__(self, tag: int) -> bool:
        """Tell whether there is an entry of a tag."""
        return tag in self.by_tag

    def raw(self, item: Item) -> bytes:
        """Return the data of one entry."""
        at = len(self.items) * ENTRY + item.offset
        return self.data[at : at + item.length]

    def numbers(self, tag: int) -> tuple[int, ...]:
        """Return the numbers of an entry, empty if it is absent; PackageError if it holds something else."""
        item = self.by_tag.get(tag)
        if item is None:
            return ()
        if item.type not in _LETTERS:
            raise self._wrong(item, "numbers")
        return struct.unpack(f">{item.count}{_LETTERS[item.type]}", self.raw(item))

    def strings(self, tag: int) -> tuple[bytes, ...]:
        """Return the strings of an entry, empty if it is absent; of translations, all. PackageError as above."""
        item = self.by_tag.get(tag)
        if item is None:
            return ()
        if item.type not in _STRINGS:
            raise self._wrong(item, "strings")
        return tuple(self.raw(item).split(b"\0")[:-1])

    def binary(self, tag: int) -> bytes:
        """Return the bytes of an entry, empty if it is absent; PackageError as above."""
        item = self.by_tag.get(tag)
        if item is None:
            return b""
        if item.type is not Type.BIN:
            raise self._wrong(item, "bytes")
        return self.raw(item)

    def number(self, tag: int, default: int = 0) -> int:
        """Return the only number of an entry, or `default`; PackageError as above, also for several."""
        found = self.numbers(tag)
        if len(found) > 1:
            raise self._wrong(self.by_tag[tag], "one number")
        return found[0] if found else default

    def text(self, tag: int, default: str = "") -> str:
        """Return the first string of an entry, or `default`; bytes that are no UTF-8 become surrogates."""
        found = self.strings(tag)
        return found[0].decode("utf-8", "surrogateescape") if found else default

    def _wrong(self, item: Item, wanted: str) -> PackageError:
        return PackageError(self.label, f"the header's tag {item.tag} does not hold {wanted}")


def parse_header(
    data: bytes, label: str, limits: Limits = MAIN, *, region: int = HEADERIMMUTABLE
) -> tuple[Header, int]:
    """Read the header at the beginning of `data`, magic first; return it and the bytes that it takes.

    `region` is the tag that its region must have. Raises PackageError.
    """
    if data[: len(MAGIC)] != MAGIC:
        raise PackageError(label, "the header does not begin with its magic number")
    length = measure(data[:INTRO], label, limits)
    if len(data) < length:
        raise PackageError(label, "the header is truncated")
    count = struct.unpack_from(">I", data, len(MAGIC))[0]
    return read_items(data[INTRO:length], count, label, region=region), length


def measure(intro: bytes, label: str, limits: Limits) -> int:
    """Return the bytes of the header that the 16 bytes of `intro` announce, with these."""
    if len(intro) < INTRO or intro[: len(MAGIC)] != MAGIC:
        raise PackageError(label, "the header does not begin with its magic number")
    count, size = struct.unpack_from(">II", intro, len(MAGIC))
    if not 0 < count <= limits.entries or not 0 < size <= limits.store:
        raise PackageError(label, f"the header announces {count} entries and {size} bytes, which is not allowed")
    return INTRO + int(count) * ENTRY + int(size)


def read_items(data: bytes, count: int, label: str, *, region: int = HEADERIMMUTABLE) -> Header:
    """Return the header of `count` entries in `data`, which begins with the index; raises PackageError.

    As in rpm's hdrblobVerifyInfo(), data lies in the order of the index and nothing overlaps; what no entry
    covers is padding, or what a region's end left over.
    """
    store = len(data) - count * ENTRY
    if count <= 0 or store <= 0:
        raise PackageError(label, "the header is empty")
    items: list[Item] = []
    end = 0
    for found in struct.iter_unpack(">IIiI", memoryview(data)[: count * ENTRY]):
        item = _check_item(data, store, found, label)
        if item.tag in {HEADERSIGNATURES, HEADERIMMUTABLE}:
            if items:  # its data lies behind that of what it covers, so that only the first place is sure
                raise PackageError(label, "the header's region is not its first entry")
        elif item.offset < end:
            raise PackageError(label, f"the data of the header's tag {item.tag} overlaps what is before it")
        else:
            end = item.offset + item.length
        items.append(item)
    if len({item.tag for item in items}) != len(items):
        raise PackageError(label, "the header has a tag twice")
    return Header(label, data, tuple(items), _measure_region(data, items, store, label, region))


def _check_item(data: bytes, store: int, found: tuple[int, int, int, int], label: str) -> Item:
    tag, kind, offset, count = found
    type_ = _KINDS.get(kind)
    if type_ is None:
        raise PackageError(label, f"the header's tag {tag} is of the unknown type {kind}")
    if not _LOWEST <= tag < 1 << 31 and tag not in {HEADERSIGNATURES, HEADERIMMUTABLE}:
        raise PackageError(label, f"the header has an entry with the number {tag}, which is no tag")
    if not 0 <= offset < store or not 0 < count <= store:
        raise PackageError(label, f"the header's tag {tag} points outside of the header")
    if type_ in _STRINGS:
        if count > (1 if type_ is Type.STRING else _MOST_STRINGS):
            raise PackageError(label, f"the header's tag {tag} holds {count} strings")
        length = _measure_strings(data, len(data) - store + offset, count)
        if length < 0:
            raise PackageError(label, f"the header's tag {tag} holds strings that do not end")
    else:
        width = _WIDTHS[type_]
        length = count * width
        if offset + length > store or offset % width:
            raise PackageError(label, f"the header's tag {tag} points outside of the header")
    return Item(tag, type_, offset, count, length)


def _measure_strings(data: bytes, begin: int, count: int) -> int:
    """Return the bytes of `count` strings with their NULs, or -1 if there are fewer."""
    at, left = begin, count
    # Most of them by counting NULs, which is a hundred times faster than finding each.
    while left and at < len(data):
        inside = data.count(b"\0", at, at + _STRIDE)
        if inside >= left:
            break
        left -= inside
        at += _STRIDE
    for _ in range(left):
        at = data.find(b"\0", at) + 1
        if at == 0:
            return -1
    return at - begin


def _measure_region(data: bytes, items: list[Item], store: int, label: str, wanted: int) -> int:
    """Return how many entries the region covers, by the copy of its entry that ends its data."""
    first = items[0]
    if first.tag not in {HEADERSIGNATURES, HEADERIMMUTABLE}:
        return 0
    if first.tag != wanted or first.type is not Type.BIN or first.count != ENTRY:
        raise PackageError(label, "the header's region is malformed")
    tag, kind, offset, count = struct.unpack_from(">IIiI", data, len(data) - store + first.offset)
    if tag not in {wanted, _TRAILER} or (kind, count) != (Type.BIN, ENTRY) or offset >= 0 or offset % ENTRY:
        raise PackageError(label, "the header's region is malformed")
    covered = -int(offset) // ENTRY
    if covered > len(items) or _crosses(items, covered, first.offset):
        raise PackageError(label, "the header's region is malformed")
    return covered


def _crosses(items: list[Item], covered: int, end: int) -> bool:
    """Tell whether the data of an entry lies on the wrong side of where its region ends."""
    inside = any(item.offset + item.length > end for item in items[1:covered])
    return inside or any(item.offset < end + ENTRY for item in items[covered:])
