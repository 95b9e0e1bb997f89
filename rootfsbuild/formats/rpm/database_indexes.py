"""What the tables beside the packages list in rpm's sqlite database (rpm's tag2index, rpm 4.16 to 6.0)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from rootfsbuild.errors import PackageError
from rootfsbuild.formats.rpm import tags
from rootfsbuild.formats.rpm.header import Header
from rootfsbuild.formats.rpm.richnames import rich_names

ByteOrder = Literal["little", "big"]
"""How the root's processor keeps numbers."""

_PRETRANS, _PRE, _POST, _POSTTRANS = 1 << 7, 1 << 9, 1 << 10, 1 << 5
_PREUN, _POSTUN, _PREUNTRANS, _POSTUNTRANS = 1 << 11, 1 << 12, 1 << 20, 1 << 21
_RPMLIB, _KEYRING, _META = 1 << 24, 1 << 26, 1 << 29
_FOR_INSTALLING = _PRETRANS | _PRE | _POST | _POSTTRANS | _RPMLIB | _KEYRING
_FOR_KEEPING = _PREUN | _POSTUN | _PREUNTRANS | _POSTUNTRANS | _META


@dataclass(frozen=True)
class Index:
    """One table: which packages have what."""

    name: str
    tag: int
    """Of the strings, or of the number or bytes, that its keys are."""
    is_text: bool = True
    is_many: bool = False
    """Whether one package can be there under several keys."""
    rich: bool = False
    """Whether rich dependencies are taken apart in it."""
    numbers: int = 0
    """The tag of the numbers that are listed instead of places in the array; 0 if there is none."""


INDEXES = (
    Index("Name", tags.NAME),
    Index("Basenames", tags.BASENAMES, is_many=True),
    Index("Group", tags.GROUP),
    Index("Requirename", tags.REQUIRENAME, is_many=True, rich=True),
    Index("Providename", tags.PROVIDENAME, is_many=True),
    Index("Conflictname", tags.CONFLICTNAME, is_many=True, rich=True),
    Index("Obsoletename", tags.OBSOLETENAME, is_many=True),
    Index("Triggername", tags.TRIGGERNAME, is_many=True),
    Index("Dirnames", tags.DIRNAMES, is_many=True),
    Index("Installtid", tags.INSTALLTID, is_text=False),
    Index("Sigmd5", tags.SIGMD5, is_text=False),
    Index("Sha1header", tags.SHA1HEADER),
    Index("Filetriggername", tags.FILETRIGGERNAME, is_many=True, numbers=tags.FILETRIGGERINDEX),
    Index("Transfiletriggername", tags.TRANSFILETRIGGERNAME, is_many=True, numbers=tags.TRANSFILETRIGGERINDEX),
    Index("Recommendname", tags.RECOMMENDNAME, is_many=True, rich=True),
    Index("Suggestname", tags.SUGGESTNAME, is_many=True, rich=True),
    Index("Supplementname", tags.SUPPLEMENTNAME, is_many=True, rich=True),
    Index("Enhancename", tags.ENHANCENAME, is_many=True, rich=True),
)
"""In the order in which rpm creates them."""


def rows(index: Index, header: Header, byteorder: ByteOrder) -> Iterator[tuple[bytes, int]]:
    """Yield what a table lists of an installed package: keys and places, in rpm's order.

    `header` is the merged one. Raises PackageError for one whose arrays do not fit together.
    """
    if not index.is_text:
        yield from ((key, 0) for key in _bytes(index, header, byteorder))
        return
    for place, key in _strings(index, header):
        yield key, place
        if index.rich and key.startswith(b"("):
            yield from ((name, place) for name in rich_names(key))


def _bytes(index: Index, header: Header, byteorder: ByteOrder) -> Iterator[bytes]:
    if index.tag == tags.INSTALLTID:
        order = "<" if byteorder == "little" else ">"
        yield from (struct.pack(f"{order}I", number) for number in header.numbers(index.tag))
    elif index.tag in header:
        yield header.binary(index.tag)


def _strings(index: Index, header: Header) -> Iterator[tuple[int, bytes]]:
    found = header.strings(index.tag)
    match index.tag:
        case tags.GROUP:
            # The first of its translations is the untranslated one.
            yield 0, found[0] if found else b"Unknown"
        case tags.REQUIRENAME:
            yield from _requirements(header, found)
        case tags.TRIGGERNAME:
            places = {key: place for place, key in reversed([*enumerate(found)])}
            yield from sorted((place, key) for key, place in places.items())
        case _:
            numbers = header.numbers(index.numbers) if index.numbers else range(len(found))
            if len(numbers) != len(found):
                raise _misfit(header, index.tag, index.numbers)
            yield from zip(numbers, found, strict=True)


def _requirements(header: Header, names: tuple[bytes, ...]) -> Iterator[tuple[int, bytes]]:
    """Yield those that hold as long as the package is installed, not for installing it only."""
    flags = header.numbers(tags.REQUIREFLAGS) or (0,) * len(names)
    if len(flags) != len(names):
        raise _misfit(header, tags.REQUIRENAME, tags.REQUIREFLAGS)
    for place, (name, flag) in enumerate(zip(names, flags, strict=True)):
        if flag & _FOR_KEEPING or not flag & _FOR_INSTALLING:
            yield place, name


def _misfit(header: Header, first: int, second: int) -> PackageError:
    return PackageError(header.label, f"the header's tags {first} and {second} do not have as many entries")
