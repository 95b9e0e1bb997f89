"""The ar(5) container as deb(5) uses it: a list of members, every number checked."""

from __future__ import annotations

import os
from dataclasses import dataclass

from rootfsbuild.errors import PackageError

MAGIC = b"!<arch>\n"
_HEADER = 60
_MOST_MEMBERS = 64


@dataclass(frozen=True, slots=True)
class Member:
    """One member: a span of the file."""

    name: str
    offset: int
    """Bytes from the file's start to the member's first byte."""
    size: int
    """Bytes."""


def read_members(fd: int, label: str) -> tuple[Member, ...]:
    """Return the members of the archive open as `fd`, in order.

    Raises PackageError for anything but a well-formed archive: wrong magic, a number that is not plain
    decimal digits, a member that reaches past the end of the file, bytes between members.
    """
    end = os.fstat(fd).st_size
    _check_magic(os.pread(fd, len(MAGIC), 0), label)
    members: list[Member] = []
    at = len(MAGIC)
    while at < end:
        member = _read_header(os.pread(fd, _HEADER, at), at + _HEADER, label)
        at = member.offset + member.size
        if at > end:
            raise PackageError(label, f"the member claims {member.size} bytes, past the end", member.name)
        members.append(member)
        if len(members) > _MOST_MEMBERS:
            raise PackageError(label, f"more than {_MOST_MEMBERS} members")
        if at % 2 and at < end:
            at = _skip_padding(fd, at, member, label)
    return tuple(members)


def _check_magic(magic: bytes, label: str) -> None:
    if magic.startswith(b"0.9"):
        raise PackageError(label, "the old .deb format of before 1995 is not supported")
    if magic != MAGIC:
        raise PackageError(label, "not a .deb: it does not begin as an ar archive")


def _read_header(header: bytes, offset: int, label: str) -> Member:
    if len(header) != _HEADER:
        raise PackageError(label, "truncated in a member's header")
    if header[58:] != b"`\n":
        raise PackageError(label, "a member's header does not end as it must")
    name = header[:16].rstrip(b" ")
    # GNU ar ends names in a slash; dpkg drops one.
    name = name.removesuffix(b"/")
    if not name or b"/" in name or not name.isascii() or not name.decode().isprintable():
        raise PackageError(label, f"a member is named {header[:16]!r}")
    size = header[48:58].rstrip(b" ")
    # int() would take a sign, an underscore and leading blanks.
    if not size.isdigit():
        raise PackageError(label, f"a size of {header[48:58]!r}", name.decode())
    return Member(name.decode(), offset, int(size))


def _skip_padding(fd: int, at: int, member: Member, label: str) -> int:
    if os.pread(fd, 1, at) != b"\n":
        raise PackageError(label, "bytes that belong to no member follow", member.name)
    return at + 1
