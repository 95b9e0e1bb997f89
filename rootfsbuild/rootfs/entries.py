"""The second currency: a stream of files, the same whether it comes from a package, a tree or goes to an archive."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """The types of a file."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    HARDLINK = "hardlink"
    CHARACTER = "character"
    BLOCK = "block"
    FIFO = "fifo"


@dataclass(frozen=True, slots=True)
class Entry:
    """One file: where it is and what it is, without its bytes."""

    path: bytes
    """Relative and normalised: no leading `/`, no `.`, no `..`, no empty part; `b""` is the root itself."""
    kind: Kind
    mode: int
    """Permission bits, 0 to 0o7777."""
    uid: int
    gid: int
    mtime: int
    """Nanoseconds since the epoch."""
    size: int = 0
    target: bytes = b""
    """A symlink's text, or the path of the earlier entry that a hard link shares its inode with."""
    device: tuple[int, int] = (0, 0)
    xattrs: tuple[tuple[str, bytes], ...] = ()


Content = Iterator[bytes]
"""Chunks of a file's bytes, valid only until the next entry is asked for; empty unless the kind is FILE."""

Entries = Iterable[tuple[Entry, Content]]
