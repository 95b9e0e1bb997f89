"""Tar archives made byte by byte, so that every field can be wrong."""

from __future__ import annotations

from dataclasses import dataclass

END = bytes(1024)
MTIME = 1_700_000_000


@dataclass(frozen=True)
class File:
    data: bytes = b""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = MTIME
    xattrs: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True)
class Directory:
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    mtime: int = MTIME


@dataclass(frozen=True)
class Link:
    target: str | bytes


@dataclass(frozen=True)
class Hard:
    target: str | bytes
    mode: int = 0o644


@dataclass(frozen=True)
class Node:
    kind: bytes
    device: tuple[int, int] = (0, 0)
    mode: int = 0o600


def header(
    name,
    kind=b"0",
    *,
    size=0,
    mode=0o644,
    uid=0,
    gid=0,
    mtime=MTIME,
    link=b"",
    device=(0, 0),
    prefix=b"",
    magic=b"ustar\x0000",
    raw_size=None,
    checksum=None,
):
    """One header block; `raw_size` puts 12 bytes of any kind into the size field."""
    name, link = _bytes(name), _bytes(link)
    block = b"".join(
        (
            name[:100].ljust(100, b"\0"),
            b"%07o\0" % mode,
            b"%07o\0" % uid,
            b"%07o\0" % gid,
            (b"%011o\0" % size) if raw_size is None else raw_size.ljust(12, b"\0"),
            b"%011o\0" % mtime,
            b" " * 8,
            kind,
            link[:100].ljust(100, b"\0"),
            magic,
            bytes(64),
            b"%07o\0%07o\0" % device,
            prefix.ljust(155, b"\0"),
        )
    ).ljust(512, b"\0")
    total = sum(block) if checksum is None else checksum
    return block[:148] + b"%06o\0 " % total + block[156:]


def padded(data):
    return data + bytes(-len(data) % 512)


def pax(records, kind=b"x"):
    """A pax header; `records` is a mapping of bytes, or bytes to be used as they are."""
    if not isinstance(records, bytes):
        records = b"".join(pax_record(key, value) for key, value in records.items())
    return header("PaxHeader", kind, size=len(records)) + padded(records)


def pax_record(key, value):
    body = b" " + key + b"=" + value + b"\n"
    length = len(body) + 1
    while len(str(length)) + len(body) != length:
        length += 1
    return b"%d" % length + body


def gnu_long(name, kind=b"L"):
    data = _bytes(name) + b"\0"
    return header("././@LongLink", kind, size=len(data)) + padded(data)


def member(name, what):
    """The blocks of one member; a name longer than the field gets GNU's extension."""
    name = _bytes(name)
    before = gnu_long(name) if len(name) > 100 else b""
    if isinstance(what, bytes):
        what = File(what)
    if isinstance(what, File):
        if what.xattrs:
            before += pax({b"SCHILY.xattr." + key.encode(): value for key, value in what.xattrs})
        fields = {"mode": what.mode, "uid": what.uid, "gid": what.gid, "mtime": what.mtime}
        return before + header(name, size=len(what.data), **fields) + padded(what.data)
    if isinstance(what, Directory):
        fields = {"mode": what.mode, "uid": what.uid, "gid": what.gid, "mtime": what.mtime}
        return before + header(name, b"5", **fields)
    if isinstance(what, Node):
        return before + header(name, what.kind, mode=what.mode, device=what.device)
    target = _bytes(what.target)
    before += gnu_long(target, b"K") if len(target) > 100 else b""
    if isinstance(what, Hard):
        return before + header(name, b"1", mode=what.mode, link=target)
    return before + header(name, b"2", mode=0o777, link=target)


def make_tar(members):
    """The archive of (name, what) pairs or ready blocks, exactly as given."""
    return b"".join(one if isinstance(one, bytes) else member(*one) for one in members) + END


def tree_members(files):
    """(name, what) pairs as dpkg-deb orders them: `./`, every directory before what it holds."""
    members = {"./": Directory()}
    for path in sorted(files):
        parts = path.strip("/").split("/")
        for depth in range(1, len(parts)):
            members.setdefault("./" + "/".join(parts[:depth]) + "/", Directory())
        what = files[path]
        if isinstance(what, Hard):
            what = Hard(f"./{what.target}")
        members["./" + path.strip("/") + ("/" if isinstance(what, Directory) else "")] = what
    hard = [(name, what) for name, what in members.items() if isinstance(what, Hard)]
    return [(name, what) for name, what in members.items() if not isinstance(what, Hard)] + hard


def _bytes(text):
    return text.encode() if isinstance(text, str) else text
