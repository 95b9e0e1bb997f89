"""Entries as a tar archive: pax (pax(1p)), numeric owners, the same bytes for the same entries."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, BinaryIO

from rootfsbuild.rootfs.entries import Content, Entries, Entry, Kind
from rootfsbuild.rootfs.tar import BLOCK, RECORD
from rootfsbuild.rootfs.tree import FileContent

if TYPE_CHECKING:
    from collections.abc import Sequence

_TYPES = {
    Kind.FILE: b"0",
    Kind.HARDLINK: b"1",
    Kind.SYMLINK: b"2",
    Kind.CHARACTER: b"3",
    Kind.BLOCK: b"4",
    Kind.DIRECTORY: b"5",
    Kind.FIFO: b"6",
}
_SECOND = 1_000_000_000
_LARGEST_SIZE = 0o77777777777
_LARGEST_ID = 0o7777777
_SEND = 1 << 30


def write_tar(entries: Entries, file: BinaryIO) -> None:
    """Write `entries` in the order given to `file`, which must be open for writing, unbuffered or flushed.

    Names begin with `./`; owners are numbers only; extended attributes are `SCHILY.xattr.` records. Raises
    ValueError when a content is not as long as its entry says, OSError when writing fails.
    """
    written = 0
    for entry, content in entries:
        header = _header(entry)
        file.write(header)
        written += len(header)
        if entry.size:
            _copy(content, entry, file)
            padding = -entry.size % BLOCK
            file.write(bytes(padding))
            written += entry.size + padding
    file.write(bytes(2 * BLOCK + -(written + 2 * BLOCK) % RECORD))


def _copy(content: Content, entry: Entry, file: BinaryIO) -> None:
    done = 0
    if isinstance(content, FileContent) and _has_descriptor(file):
        file.flush()
        while done < entry.size and (
            sent := os.sendfile(file.fileno(), content.fd, None, min(_SEND, entry.size - done))
        ):
            done += sent
    for piece in content:
        done += len(piece)
        if done > entry.size:
            break
        file.write(piece)
    if done != entry.size:
        raise ValueError(f"{os.fsdecode(entry.path)} changed while it was read")


def _has_descriptor(file: BinaryIO) -> bool:
    try:
        file.fileno()
    except OSError:
        return False
    return True


def _header(entry: Entry) -> bytes:
    name = b"./" + entry.path + (b"/" if entry.kind is Kind.DIRECTORY and entry.path else b"")
    target = b"./" + entry.target if entry.kind is Kind.HARDLINK else entry.target
    prefix, short = _split(name)
    records: list[tuple[bytes, bytes]] = []
    if short is None:
        records.append((b"path", name))
    if len(target) > 100:
        records.append((b"linkpath", target))
    records += [(key, b"%d" % value) for key, value, most in _numbers(entry) if value > most]
    if entry.mtime % _SECOND or not 0 <= entry.mtime // _SECOND <= _LARGEST_SIZE:
        records.append((b"mtime", _pax_time(entry.mtime)))
    records += [(b"SCHILY.xattr." + os.fsencode(key), value) for key, value in entry.xattrs]
    plain = _ustar(entry, name[:100] if short is None else short, prefix, target[:100])
    return _extended(entry, records) + plain if records else plain


def _numbers(entry: Entry) -> tuple[tuple[bytes, int, int], ...]:
    return (
        (b"size", entry.size, _LARGEST_SIZE),
        (b"uid", entry.uid, _LARGEST_ID),
        (b"gid", entry.gid, _LARGEST_ID),
    )


def _split(name: bytes) -> tuple[bytes, bytes | None]:
    """Return ustar's prefix and name fields; the name is None if it fits in neither way."""
    if len(name) <= 100:
        return b"", name
    slash = name.find(b"/", max(0, len(name) - 101), min(156, len(name) - 1))
    return (name[:slash], name[slash + 1 :]) if slash > 0 else (b"", None)


def _pax_time(nanoseconds: int) -> bytes:
    sign = b"-" if nanoseconds < 0 else b""
    whole, fraction = divmod(abs(nanoseconds), _SECOND)
    return sign + (b"%d.%09d" % (whole, fraction)).rstrip(b"0").rstrip(b".")


def _extended(entry: Entry, records: Sequence[tuple[bytes, bytes]]) -> bytes:
    data = b"".join(_record(key, value) for key, value in records)
    name = b"./PaxHeaders/" + entry.path.rpartition(b"/")[2][:80]
    carrier = Entry(b"", Kind.FILE, 0o644, 0, 0, 0, len(data))
    return _ustar(carrier, name, b"", b"", b"x") + data + bytes(-len(data) % BLOCK)


def _record(key: bytes, value: bytes) -> bytes:
    """Return `LENGTH KEY=VALUE newline`, where the length counts its own digits."""
    body = b" " + key + b"=" + value + b"\n"
    length = len(body) + len(str(len(body)))
    length = len(body) + len(str(length))
    return b"%d" % length + body


def _ustar(entry: Entry, name: bytes, prefix: bytes, target: bytes, kind: bytes = b"") -> bytes:
    seconds = min(max(entry.mtime // _SECOND, 0), _LARGEST_SIZE)
    size, uid, gid = (value if value <= most else 0 for _, value, most in _numbers(entry))
    header = b"%s%07o\0%07o\0%07o\0%011o\0%011o\0        %s%s%s%s%07o\0%07o\0%s" % (
        name.ljust(100, b"\0"),
        entry.mode,
        uid,
        gid,
        size,
        seconds,
        kind or _TYPES[entry.kind],
        target.ljust(100, b"\0"),
        b"ustar\x0000",
        bytes(64),
        *entry.device,
        prefix.ljust(155, b"\0"),
    )
    header = header.ljust(BLOCK, b"\0")
    return header[:148] + b"%06o\0 " % sum(header) + header[156:]
