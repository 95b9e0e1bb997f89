"""The archive in a package's payload, read strictly: cpio(5)'s "new ASCII" formats, and rpm's stripped one.

In the stripped form (magic `07070X`) a member is only a number into the package's list of files, which says the
rest (rpm's format documentation, "Payload").
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from rootfsbuild.errors import PackageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_NEWC, _CRC, _STRIPPED = b"070701", b"070702", b"07070X"
_FIELDS = re.compile(rb"[0-9a-fA-F]{104}")
_INDEX = re.compile(rb"[0-9a-fA-F]{8}")
_LONGEST_NAME = 4096
"""Bytes of a name with the `./` before it or the NUL behind it: Linux's limit for a path."""
_END = b"TRAILER!!!"


@dataclass(frozen=True, slots=True)
class Member:
    """One member of the archive, as the archive describes it."""

    name: bytes | None
    """As written, without its NUL; None if stripped."""
    index: int | None
    """Which of the package's files it is; None unless stripped."""
    size: int
    """Bytes."""
    mode: int = 0
    """Type and permission bits; like all that follows 0 if stripped."""
    nlink: int = 0
    ino: int = 0
    device: tuple[int, int] = (0, 0)


def read_members(
    chunks: Iterable[bytes], label: str, size_of: Callable[[int], int] | None = None
) -> Iterator[tuple[Member, Iterator[bytes]]]:
    """Yield the members of an archive whose plain bytes arrive in `chunks`, each with its content.

    `size_of` tells the bytes of a stripped member by its number, and may raise; without it there must be none.
    A content left unread is skipped. Raises PackageError, naming `label` and the member, for everything that two
    readers could understand differently: a number that is not eight hexadecimal digits, a name that does not end
    where it should, a wrong checksum, padding or anything behind the end mark that is not zeros, a missing end
    mark, and a mixture of the stripped form with others.
    """
    source = _Source(iter(chunks), label)
    stripped: bool | None = None
    while True:
        magic = source.take(6)
        if magic == _STRIPPED:
            member, checksum = _read_stripped(source, size_of, label), None
        elif magic in {_NEWC, _CRC}:
            member, checksum = _read_newc(source, label, summed=magic == _CRC)
        else:
            raise PackageError(label, "something that is no member of a cpio archive lies between its members")
        if member.name == _END:
            source.check_end()
            return
        if stripped is not (member.name is None) and stripped is not None:
            raise PackageError(label, "stripped members of a cpio archive stand among others")
        stripped = member.name is None
        source.begin(member, checksum)
        yield member, source.content()
        source.finish()


class _Source:
    """The archive's bytes, consumed exactly."""

    def __init__(self, chunks: Iterator[bytes], label: str) -> None:
        self._chunks = chunks
        self._label = label
        self._data = b""
        self._at = 0
        self._taken = 0
        self._left = 0
        self._name = ""
        self._checksum: int | None = None
        self._sum = 0

    def take(self, count: int) -> bytes:
        """Return exactly `count` bytes; for small counts only."""
        while len(self._data) - self._at < count:
            more = next(self._chunks, b"")
            if not more:
                raise PackageError(self._label, "the cpio archive is truncated")
            self._data = self._data[self._at :] + more
            self._at = 0
        self._at += count
        self._taken += count
        return self._data[self._at - count : self._at]

    def pad(self) -> None:
        """Pass over the zeros up to the next multiple of four bytes."""
        if self.take(-self._taken % 4).strip(b"\0"):
            raise PackageError(self._label, "the padding in the cpio archive is not zeros", self._name)

    def begin(self, member: Member, checksum: int | None) -> None:
        """Announce a content."""
        self._left = member.size
        self._name = os.fsdecode(member.name or b"") or f"number {member.index}"
        self._checksum, self._sum = checksum, 0

    def content(self) -> Iterator[bytes]:
        """Yield the announced bytes as they lie in the chunks."""
        while self._left:
            if self._at == len(self._data):
                self._more()
            piece = self._data[self._at : self._at + self._left]
            self._at += len(piece)
            self._taken += len(piece)
            self._left -= len(piece)
            if self._checksum is not None:
                self._sum += sum(piece)
            yield piece

    def finish(self) -> None:
        """Pass over what nobody read of the content, and its padding."""
        for _ in self.content():
            pass
        if self._checksum is not None and self._checksum != self._sum & 0xFFFFFFFF:
            raise PackageError(self._label, "its checksum in the cpio archive is wrong", self._name)
        self.pad()

    def check_end(self) -> None:
        """Read what follows the end mark: nothing but zeros may."""
        for rest in chain((self._data[self._at :],), self._chunks):
            if rest.count(0) != len(rest):
                raise PackageError(self._label, "bytes follow the end of the cpio archive")

    def _more(self) -> None:
        self._data = next(self._chunks, b"")
        self._at = 0
        if not self._data:
            raise PackageError(self._label, "the cpio archive is truncated", self._name)


def _read_stripped(source: _Source, size_of: Callable[[int], int] | None, label: str) -> Member:
    digits = source.take(8)
    if _INDEX.fullmatch(digits) is None:
        raise PackageError(label, f"{digits!r} in the cpio archive is not a hexadecimal number")
    if size_of is None:
        raise PackageError(label, "a member of the cpio archive is stripped, and must not be")
    index = int(digits, 16)
    source.pad()
    return Member(None, index, size_of(index))


def _read_newc(source: _Source, label: str, *, summed: bool) -> tuple[Member, int | None]:
    digits = source.take(104)
    if _FIELDS.fullmatch(digits) is None:
        raise PackageError(label, f"{digits!r} in the cpio archive are not hexadecimal numbers")
    numbers = [int(digits[at : at + 8], 16) for at in range(0, 104, 8)]
    ino, mode, _uid, _gid, nlink, _mtime, size, major, minor, _rmajor, _rminor, length, checksum = numbers
    if not 2 <= length <= _LONGEST_NAME:
        raise PackageError(label, f"a name of {length} bytes in the cpio archive")
    name = source.take(length)
    if name.find(b"\0") != length - 1:
        raise PackageError(label, "a name in the cpio archive does not end where it should", os.fsdecode(name[:64]))
    source.pad()
    name = name[:-1]
    if (name == _END and size) or (checksum and not summed):
        raise PackageError(label, "a member of the cpio archive says what it cannot be", os.fsdecode(name))
    return Member(name, None, size, mode, nlink, ino, (major, minor)), checksum if summed else None
