"""A tree as text, a line for each path, for comparing trees."""

from __future__ import annotations

import hashlib
import os

from rootfsbuild.rootfs.entries import Content, Entry, Kind
from rootfsbuild.rootfs.tree import read_tree


def dump_tree(root: str, *, times: bool = False) -> dict[str, str]:
    """Return what each path of a tree is: `{"/etc/passwd": "file 0644 0:0 cc55e2ec"}`, in path order.

    Files have the first 8 digits of their SHA-256, symlinks `-> target`, the later names of an inode
    `hardlink /first`, nodes `major:minor`; extended attributes follow as `name=hex`, and with `times` the
    modification time as `@seconds` (with `.nanoseconds` if not whole). Raises OSError.
    """
    return {"/" + os.fsdecode(entry.path): _line(entry, content, times) for entry, content in read_tree(root)}


def _line(entry: Entry, content: Content, times: bool) -> str:  # noqa: FBT001 - passed on from a keyword
    if entry.kind is Kind.HARDLINK:
        return f"hardlink /{os.fsdecode(entry.target)}"
    parts = [entry.kind.value, f"{entry.mode:04o}", f"{entry.uid}:{entry.gid}", *_own(entry, content)]
    parts += [f"{name}={value.hex()}" for name, value in entry.xattrs]
    if times:
        seconds, rest = divmod(entry.mtime, 1_000_000_000)
        parts.append(f"@{seconds}.{rest:09d}" if rest else f"@{seconds}")
    return " ".join(parts)


def _own(entry: Entry, content: Content) -> list[str]:
    if entry.kind is Kind.FILE:
        digest = hashlib.sha256()
        for piece in content:
            digest.update(piece)
        return [digest.hexdigest()[:8]]
    if entry.kind is Kind.SYMLINK:
        return ["->", os.fsdecode(entry.target)]
    if entry.kind in {Kind.CHARACTER, Kind.BLOCK}:
        return [f"{entry.device[0]}:{entry.device[1]}"]
    return []
