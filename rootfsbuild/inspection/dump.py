"""A tree as text, a line for each path, for comparing trees; the same whether it lies in a directory or an archive."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator

from rootfsbuild.errors import PackageError
from rootfsbuild.rootfs.decompress import decompress
from rootfsbuild.rootfs.entries import Content, Entries, Entry, Kind
from rootfsbuild.rootfs.tar import read_tar
from rootfsbuild.rootfs.tree import read_tree

WHOLE = 64
"""All digits of a SHA-256: what a comparison needs that is to withstand somebody who searches for another file with
the same first ones."""

_READ = 1 << 20
_LIMIT = 1 << 40


def dump_tree(root: str, *, times: bool = False, digits: int = 8) -> dict[str, str]:
    """Return what each path of a tree is: `{"/etc/passwd": "file 0644 0:0 cc55e2ec"}`, in path order.

    Files have the first `digits` digits of their SHA-256, symlinks `-> target`, the later names of an inode
    `hardlink /first`, nodes `major:minor`; extended attributes follow as `name=hex`, with blanks, `%` and `=` in a
    name as `%20`, and with `times` the modification time as `@seconds` (with `.nanoseconds` if not whole). Raises
    OSError.
    """
    return _dump(read_tree(root), root, times, digits)


def dump_archive(path: str, *, times: bool = False, digits: int = 8) -> dict[str, str]:
    """Return the dump of a tar archive: that of the directory it was made from, in the archive's order.

    It may be compressed as the ending of its name says (.gz, .xz, .zst, .bz2). Nothing is unpacked. Raises OSError,
    and PackageError for what is no tar archive, one that can be understood in two ways, or one that lists a path twice.
    """
    with open(path, "rb") as file:
        chunks = iter(lambda: file.read(_READ), b"")
        plain = decompress(chunks, os.path.basename(path), path, _LIMIT)
        return _dump(read_tar(plain, path), path, times, digits)


def _dump(entries: Entries, label: str, times: bool, digits: int) -> dict[str, str]:  # noqa: FBT001 - passed on from a keyword
    found: dict[str, str] = {}
    for entry, content in entries:
        path = "/" + os.fsdecode(entry.path)
        if path in found:
            raise PackageError(label, "it is listed twice", path)
        found[path] = " ".join(_words(entry, content, times, digits))
    return found


def _words(entry: Entry, content: Content, times: bool, digits: int) -> Iterator[str]:  # noqa: FBT001 - the same
    if entry.kind is Kind.HARDLINK:
        yield f"hardlink /{os.fsdecode(entry.target)}"
        return
    yield f"{entry.kind.value} {entry.mode:04o} {entry.uid}:{entry.gid}"
    if entry.kind is Kind.FILE:
        yield _digest(content)[:digits]
    elif entry.kind is Kind.SYMLINK:
        yield f"-> {os.fsdecode(entry.target)}"
    elif entry.kind in {Kind.CHARACTER, Kind.BLOCK}:
        yield f"{entry.device[0]}:{entry.device[1]}"
    for name, value in entry.xattrs:
        # Otherwise two attributes could read as one with a strange name.
        yield f"{re.sub('[ %=]', _escape, name)}={value.hex()}"
    if times:
        seconds, rest = divmod(entry.mtime, 1_000_000_000)
        yield f"@{seconds}.{rest:09d}" if rest else f"@{seconds}"


def _digest(content: Content) -> str:
    digest = hashlib.sha256()
    for piece in content:
        digest.update(piece)
    return digest.hexdigest()


def _escape(match: re.Match[str]) -> str:
    return f"%{ord(match[0]):02x}"
