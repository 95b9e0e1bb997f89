"""The files that a package's header lists: what they are, without their bytes (rpm's rpmtag.h, rpmfiles.h)."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntFlag
from itertools import repeat, starmap
from typing import TypeVar

from rootfsbuild.errors import PackageError
from rootfsbuild.formats.rpm import tags
from rootfsbuild.formats.rpm.header import Header, Type
from rootfsbuild.rootfs.entries import Kind

ALGORITHMS = {
    1: "md5",
    2: "sha1",
    8: "sha256",
    9: "sha384",
    10: "sha512",
    11: "sha224",
    12: "sha3_256",
    14: "sha3_512",
}
"""hashlib's names of OpenPGP's digests (RFC 9580, 9.5)."""

KINDS = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFCHR: Kind.CHARACTER,
    stat.S_IFBLK: Kind.BLOCK,
    stat.S_IFIFO: Kind.FIFO,
}
T = TypeVar("T")

_TYPES = {tags.FILEMODES: Type.INT16, tags.FILERDEVS: Type.INT16, tags.LONGFILESIZES: Type.INT64}
"""Of the arrays of numbers; the others are INT32."""
_DIGEST = re.compile(r"[0-9a-f]+")
_LENGTHS = {name: hashlib.new(name, usedforsecurity=False).digest_size * 2 for name in ALGORITHMS.values()}
_LONGEST_PATH = 4095
_LONGEST_NAME = 255


class Flag(IntFlag):
    """What a spec file says of a file (rpmfileAttrs)."""

    NONE = 0
    CONFIG = 1 << 0
    DOC = 1 << 1
    ICON = 1 << 2
    MISSINGOK = 1 << 3
    NOREPLACE = 1 << 4
    SPECFILE = 1 << 5
    GHOST = 1 << 6
    LICENSE = 1 << 7
    README = 1 << 8
    PUBKEY = 1 << 11
    ARTIFACT = 1 << 12


@dataclass(frozen=True, slots=True)
class File:
    """One file of a package."""

    index: int
    """Its place in the header's arrays."""
    path: bytes
    """As in Entry: relative and normalised; `b""` is the root itself."""
    mode: int
    """Type and permission bits, 0 to 0xFFFF."""
    user: bytes
    group: bytes
    mtime: int
    """Seconds since the epoch."""
    size: int
    """Bytes."""
    digest: str
    """Of the content, lower-case hexadecimal; empty for what has none."""
    algorithm: str
    """hashlib's name of the digest's algorithm."""
    target: bytes
    """A symlink's text."""
    flags: int
    """The bits of Flag, and perhaps others."""
    rdev: int
    """Of a device node, as the 16 bits of an old dev_t."""
    device: int
    inode: int
    """Regular files of the same device and inode are hard links to each other."""
    colour: int
    """1: 32-bit ELF, 2: 64-bit ELF, 0: neither."""
    caps: bytes
    """File capabilities as text (cap_from_text(3)), empty for none."""
    langs: bytes
    """The languages that it is for, `|` between them; empty for all."""

    @property
    def kind(self) -> Kind:
        """Return its type; not to be asked of ghosts, which may be anything."""
        return KINDS[stat.S_IFMT(self.mode)]

    @property
    def ghost(self) -> bool:
        """Tell whether the package only owns the name, and has no file."""
        return bool(self.flags & Flag.GHOST)

    @property
    def is_regular(self) -> bool:
        """Tell whether it is a regular file that the package brings."""
        return stat.S_ISREG(self.mode) and not self.flags & Flag.GHOST


def read_files(header: Header) -> tuple[File, ...]:
    """Return the files of a package in the header's order, ghosts among them.

    Raises PackageError for arrays of unequal lengths, paths that are not absolute and plain (`..`, `.`, empty
    parts, NUL), paths that are there twice, unknown types, digests that are none.
    """
    paths = _read_paths(header)
    if not paths:
        return ()
    count = len(paths)
    algorithm = _algorithm(header)
    sizes = tags.LONGFILESIZES if tags.LONGFILESIZES in header else tags.FILESIZES

    def numbers(tag: int, *, needed: bool = False) -> Iterable[int]:
        if tag in header and header.by_tag[tag].type is not _TYPES.get(tag, Type.INT32):
            raise PackageError(header.label, f"the header's tag {tag} holds numbers of another size than it should")
        return _of_all(header, tag, header.numbers(tag), count, needed=needed) or repeat(0, count)

    def strings(tag: int, *, needed: bool = False) -> Iterable[bytes]:
        return _of_all(header, tag, header.strings(tag), count, needed=needed) or repeat(b"", count)

    columns = zip(
        range(count),
        paths,
        numbers(tags.FILEMODES, needed=True),
        strings(tags.FILEUSERNAME, needed=True),
        strings(tags.FILEGROUPNAME, needed=True),
        numbers(tags.FILEMTIMES, needed=True),
        numbers(sizes, needed=True),
        [digest.decode("ascii", "replace").lower() for digest in strings(tags.FILEDIGESTS)],
        repeat(algorithm, count),
        strings(tags.FILELINKTOS),
        numbers(tags.FILEFLAGS),
        numbers(tags.FILERDEVS),
        numbers(tags.FILEDEVICES),
        numbers(tags.FILEINODES),
        numbers(tags.FILECOLORS),
        strings(tags.FILECAPS),
        strings(tags.FILELANGS),
        strict=True,
    )
    files = tuple(starmap(File, columns))
    for file in files:
        _check(file, header.label)
    return files


def _of_all(header: Header, tag: int, found: Sequence[T], count: int, *, needed: bool) -> Sequence[T]:
    if len(found) != count and (found or needed):
        raise PackageError(header.label, f"the header's tag {tag} tells of {len(found)} files, of {count} that it has")
    return found


def _algorithm(header: Header) -> str:
    number = header.number(tags.FILEDIGESTALGO, 1)
    if number not in ALGORITHMS:
        raise PackageError(header.label, f"its files' digests are of the unknown algorithm {number}")
    return ALGORITHMS[number]


def _read_paths(header: Header) -> list[bytes]:
    if tags.OLDFILENAMES in header and tags.BASENAMES not in header:
        split = map(_split, header.strings(tags.OLDFILENAMES))
        paths = [_join(header.label, _check_folder(folder, header.label), name) for folder, name in split]
    else:
        folders, names = header.strings(tags.DIRNAMES), header.strings(tags.BASENAMES)
        numbers = header.numbers(tags.DIRINDEXES)
        if len(numbers) != len(names) or any(number >= len(folders) for number in numbers):
            raise PackageError(header.label, "the directories of its files do not fit their names")
        plain = [_check_folder(folder, header.label) for folder in folders]
        paths = [_join(header.label, plain[number], name) for number, name in zip(numbers, names, strict=True)]
    if len(set(paths)) != len(paths):
        twice = Counter(paths).most_common(1)[0][0]
        raise PackageError(header.label, "the header lists it twice", os.fsdecode(twice))
    return paths


def _split(path: bytes) -> tuple[bytes, bytes]:
    folder, slash, name = path.rpartition(b"/")
    return folder + slash, name


def _check_folder(folder: bytes, label: str) -> bytes:
    """Return a directory's name without its first slash; it ends in one, but for the root."""
    parts = folder.split(b"/")
    if len(parts) < 2 or parts[0] or parts[-1] or any(part in {b"", b".", b".."} for part in parts[1:-1]):
        raise PackageError(label, "a name that could lead outside of the root", os.fsdecode(folder))
    if len(folder) > _LONGEST_PATH or any(len(part) > _LONGEST_NAME for part in parts):
        raise PackageError(label, "a name that is longer than Linux allows", os.fsdecode(folder[:64]) + "…")
    return folder[1:]


def _join(label: str, folder: bytes, name: bytes) -> bytes:
    if name in {b".", b".."} or b"/" in name or (folder and not name):
        raise PackageError(label, "a name that could lead outside of the root", os.fsdecode(folder + name))
    if len(name) > _LONGEST_NAME or len(folder) + len(name) > _LONGEST_PATH:
        raise PackageError(label, "a name that is longer than Linux allows", os.fsdecode(name[:64]) + "…")
    return folder + name


def _check(file: File, label: str) -> None:
    problem = ""
    if not file.flags & Flag.GHOST:
        kind = KINDS.get(stat.S_IFMT(file.mode))
        if kind is None:
            problem = f"has the unknown type {stat.S_IFMT(file.mode):o}"
        elif kind is Kind.SYMLINK and not file.target:
            problem = "is a symlink that leads nowhere"
        elif kind is Kind.FILE and file.size and not file.digest:
            problem = "has no digest"
    if file.digest and (_DIGEST.fullmatch(file.digest) is None or len(file.digest) != _LENGTHS[file.algorithm]):
        problem = f"has the digest {file.digest[:128]!r}, which is none of {file.algorithm}"
    if problem:
        raise PackageError(label, problem, os.fsdecode(file.path))
