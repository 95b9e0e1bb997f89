"""The file that a bundle is: plain files in one uncompressed tar (ustar, POSIX.1-2017, pax(1p)), listed in its first.

There is one way to write a bundle, and only what was written in that way is read: every header is compared with the
one that stands for its name and size, the list of contents with its own layout.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rootfsbuild import __version__
from rootfsbuild.errors import BundleError
from rootfsbuild.repository.signed import DIGEST, confined

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from _typeshed import WriteableBuffer

SCHEMA = 1
INDEX = "bundle.json"
MAX_INDEX = 16_000_000
"""Bytes of the list: some 80,000 members."""
AGAIN = "copy it again from where it was made, or make it again with rootfsbuild bundle"
_BLOCK = 512
_RECORD = 20 * _BLOCK
_ZEROS = bytes(_BLOCK)
_LARGEST = 0o77777777777
_LOCK = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+@~-]{0,79}")
_KEY = re.compile(r"([0-9A-F]{40}|[0-9A-F]{64}|[0-9a-f]{64})\.pgp")
_KINDS = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"5": "a directory",
    b"6": "a fifo",
    b"S": "a sparse file",
    b"x": "an extended header",
    b"g": "an extended header",
    b"L": "an extended header",
    b"K": "an extended header",
}


@dataclass(frozen=True)
class Member:
    """One file in a bundle."""

    path: str
    size: int
    """Bytes."""
    sha256: str
    offset: int = 0
    """Where its bytes begin in the bundle."""


def blob_path(sha256: str) -> str:
    """Return the name of a package or index in a bundle."""
    return f"blobs/sha256/{sha256}"


def signed_path(sha256: str, path: str) -> str:
    """Return the name of a signed document in a bundle; ValueError for a path that could lead elsewhere."""
    return f"signed/{sha256}/{confined(path)}"


def is_name(path: str) -> bool:
    """Tell whether a bundle can have a member of this name."""
    folder, _, rest = path.partition("/")
    if folder == "locks":
        return _LOCK.fullmatch(rest) is not None
    if folder == "keys":
        return _KEY.fullmatch(rest) is not None
    digest, _, rest = rest.partition("/")
    if folder == "blobs":
        return digest == "sha256" and DIGEST.fullmatch(rest) is not None
    try:
        return folder == "signed" and DIGEST.fullmatch(digest) is not None and rest == confined(rest)
    except ValueError:
        return False


def tell_index(members: Iterable[Member]) -> bytes:
    """Return the list of a bundle's contents."""
    listed = [
        {"path": member.path, "size": member.size, "sha256": member.sha256}
        for member in sorted(members, key=lambda member: member.path)
    ]
    return _layout({"schema": SCHEMA, "tool": f"rootfsbuild {__version__}", "members": listed})


def _layout(data: Any) -> bytes:
    return json.dumps(data, indent=1).encode() + b"\n"


def tell_header(path: str, size: int) -> bytes:
    """Return a member's header; ValueError for a name or a size that ustar has no room for."""
    name, prefix = path.encode("ascii"), b""
    if len(name) > 100:
        slash = name.find(b"/", len(name) - 101, 156)
        if slash < 0:
            raise ValueError("has a name that is too long for a bundle")
        prefix, name = name[:slash], name[slash + 1 :]
    if size > _LARGEST:
        raise ValueError("has more than 8 GiB")
    fields = (
        name.ljust(100, b"\0"),
        b"0000644\0" + b"0000000\0" * 2,  # mode, owner, group
        b"%011o\0" % size,
        b"00000000000\0",  # 1970
        b" " * 8,
        b"0",
        bytes(100),
        b"ustar\x0000",
        bytes(64),
        b"0000000\0" * 2,
        prefix.ljust(167, b"\0"),
    )
    header = b"".join(fields)
    return header[:148] + b"%06o\0 " % sum(header) + header[156:]


def tell_end(written: int) -> bytes:
    """Return what ends an archive of `written` bytes."""
    return bytes(2 * _BLOCK + -(written + 2 * _BLOCK) % _RECORD)


def padding(size: int) -> bytes:
    """Return what fills a content's last block."""
    return bytes(-size % _BLOCK)


def read_index(raw: bytes, file: str) -> dict[str, Member]:
    """Read a bundle's list of contents: name -> member, whose place is not known yet; raise BundleError."""
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BundleError(file, f"is not JSON: {error}", INDEX, hint=AGAIN) from None
    schema = data.get("schema") if isinstance(data, dict) else None
    if type(schema) is not int or schema < 1:
        raise BundleError(file, "gives no version of the format", INDEX, hint=AGAIN)
    if schema > SCHEMA:
        problem = f"is written in version {schema} of the format, by a later rootfsbuild"
        raise BundleError(file, problem, INDEX, hint=f"this rootfsbuild reads version {SCHEMA}: install a later one")
    listed = data.get("members")
    if not isinstance(data.get("tool"), str) or not isinstance(listed, list):
        raise BundleError(file, "has no list of members", INDEX, hint=AGAIN)
    members: dict[str, Member] = {}
    for item in listed:
        member = _read_item(item, file)
        if member.path in members:
            raise BundleError(file, f"lists {member.path} twice", INDEX, hint=AGAIN)
        members[member.path] = member
    if _layout(data) != raw or set(data) != {"schema", "tool", "members"} or list(members) != sorted(members):
        raise BundleError(file, "is not laid out as rootfsbuild lays it out", INDEX, hint=AGAIN)
    return members


def _read_item(item: object, file: str) -> Member:
    match item:
        case {"path": str(path), "size": int(size), "sha256": str(sha256), **rest} if not rest:
            pass
        case _:
            raise BundleError(file, f"lists {str(item)[:80]!r}, which is no member", INDEX, hint=AGAIN)
    if not is_name(path):
        raise BundleError(file, f"lists {path[:160]!r}, a name that no bundle has", INDEX, hint=AGAIN)
    if isinstance(size, bool) or not 0 <= size <= _LARGEST or not DIGEST.fullmatch(sha256):
        raise BundleError(file, f"gives {path} a size or a digest that is none", INDEX, hint=AGAIN)
    named = path.rpartition("/")[2].removesuffix(".pgp")
    if not path.startswith(("locks/", "signed/")) and DIGEST.fullmatch(named) and named != sha256:
        raise BundleError(file, f"gives {path} the SHA-256 {sha256}", INDEX, hint=AGAIN)
    return Member(path, size, sha256)


def scan(descriptor: int, file: str) -> dict[str, Member]:
    """Find every member of a bundle; raise BundleError unless they are those that its first one lists."""
    total = os.fstat(descriptor).st_size
    found: dict[str, Member] = {}
    listed: Mapping[str, Member] | None = None
    for path, size, offset in _headers(descriptor, total, file):
        if listed is None:
            listed = _listed(descriptor, path, size, offset, file)
            continue
        _check_member(path, size, listed, found, file)
        found[path] = Member(path, size, listed[path].sha256, offset)
    if listed is None:
        raise BundleError(file, "is empty", hint=AGAIN)
    absent = sorted(listed.keys() - found.keys())
    if absent:
        more = f" (and {len(absent) - 1} more)" if len(absent) > 1 else ""
        raise BundleError(file, f"is missing{more}", absent[0], hint=AGAIN)
    return found


def _listed(descriptor: int, path: str, size: int, offset: int, file: str) -> Mapping[str, Member]:
    if path != INDEX:
        raise BundleError(file, f"is no bundle: it begins with {path}, not with {INDEX}")
    if size > MAX_INDEX:
        raise BundleError(file, f"has {size} bytes, more than {MAX_INDEX}", INDEX)
    return read_index(os.pread(descriptor, size, offset), file)


def _check_member(path: str, size: int, listed: Mapping[str, Member], found: Mapping[str, Member], file: str) -> None:
    if path in found or path == INDEX:
        raise BundleError(file, "is there twice", path, hint=AGAIN)
    if path not in listed:
        raise BundleError(file, f"is not listed in {INDEX}", path, hint=AGAIN)
    if size != listed[path].size:
        raise BundleError(file, f"has {size} bytes, but {INDEX} says {listed[path].size}", path, hint=AGAIN)


def _headers(descriptor: int, total: int, file: str) -> Iterator[tuple[str, int, int]]:
    """Yield (name, bytes, where they begin) of each member in the archive's order."""
    at, fill = 0, 0
    while True:
        block = os.pread(descriptor, fill + _BLOCK, at)
        if len(block) < fill + _BLOCK:
            raise BundleError(file, f"is truncated: it ends after {total} bytes, in the middle", hint=AGAIN)
        if block.count(0, 0, fill) != fill:
            raise BundleError(file, f"holds bytes between its members, before byte {at + fill}", hint=AGAIN)
        at, header = at + fill + _BLOCK, block[fill:]
        if header == _ZEROS:
            _check_end(descriptor, at, total, file)
            return
        path, size = _read_header(header, at - _BLOCK, file)
        if at + size > total:
            raise BundleError(file, f"is truncated: it ends after {total} bytes, in {path}", hint=AGAIN)
        yield path, size, at
        at, fill = at + size, -size % _BLOCK


def _check_end(descriptor: int, at: int, total: int, file: str) -> None:
    """Refuse what does not end as `tell_end` ends it; `at` is behind the first block of zeros."""
    end = at - _BLOCK + len(tell_end(at - _BLOCK))
    if total < end:
        raise BundleError(file, f"is truncated: it ends after {total} of {end} bytes", hint=AGAIN)
    rest = os.pread(descriptor, end - at, at)
    if total > end or rest.count(0) != len(rest):
        raise BundleError(file, "goes on behind its end", hint=AGAIN)


def _read_header(header: bytes, at: int, file: str) -> tuple[str, int]:
    blank = header[:148] + b" " * 8 + header[156:]
    if header[148:156] != b"%06o\0 " % sum(blank):
        problem = (
            f"is damaged: at byte {at} there should be a tar header" if at else "is no bundle: it is no tar archive"
        )
        raise BundleError(file, problem, hint=AGAIN)
    name, prefix = (field.partition(b"\0")[0] for field in (header[:100], header[345:500]))
    path = (prefix + b"/" + name if prefix else name).decode("ascii", "backslashreplace")
    if header[156:157] != b"0":
        kind = _KINDS.get(header[156:157], "of an unknown kind")
        raise BundleError(file, f"is {kind}: a bundle holds nothing but plain files", path)
    if path.startswith("/") or ".." in path.split("/"):
        raise BundleError(file, "has a name that leads out of the bundle", path)
    if not re.fullmatch(rb"[0-7]{11}", header[124:135]):
        raise BundleError(file, "has a size that is no number", path)
    size = int(header[124:135], 8)
    if not path.isascii() or not path.isprintable() or _expected(path, size) != header:
        raise BundleError(file, "has a header that rootfsbuild does not write", path, hint=AGAIN)
    return path, size


def _expected(path: str, size: int) -> bytes:
    try:
        return tell_header(path, size)
    except ValueError:
        return b""


class Part(io.RawIOBase):
    """The bytes of one member, read where they lie; several threads may read one bundle in this way."""

    def __init__(self, descriptor: int, member: Member) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._at, self._end = member.offset, member.offset + member.size

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Read into a buffer; fewer bytes than a member has mean that its file was cut meanwhile."""
        view = memoryview(buffer).cast("B")[: self._end - self._at]
        count = os.preadv(self._descriptor, [view], self._at) if view else 0
        self._at += count
        return count


def digest_of(descriptor: int, member: Member) -> str:
    """Return the SHA-256 of a member as it is in the file."""
    with io.BufferedReader(Part(descriptor, member), 1 << 20) as part:
        return hashlib.file_digest(part, "sha256").hexdigest()
