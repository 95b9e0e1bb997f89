"""A .rpm, read strictly: what its files are comes from the header, only their bytes from the payload."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rootfsbuild.errors import PackageError
from rootfsbuild.formats.rpm import tags
from rootfsbuild.formats.rpm.capability import encode_capabilities
from rootfsbuild.formats.rpm.cpio import Member, read_members
from rootfsbuild.formats.rpm.files import File, read_files
from rootfsbuild.formats.rpm.signature import Head, read_head, read_payload
from rootfsbuild.rootfs.decompress import decompress
from rootfsbuild.rootfs.entries import Content, Entries, Entry, Kind
from rootfsbuild.rootfs.package import ControlArchive

if TYPE_CHECKING:
    from rootfsbuild.formats.rpm.header import Header

Owners = Callable[[bytes, bytes], tuple[int, int]]
"""(user, group) -> their numbers inside the root."""

_SECOND = 10**9
_ENDINGS = {"gzip": "gz", "xz": "xz", "zstd": "zst", "bzip2": "bz2", "lzma": "lzma", "none": "tar"}
"""PAYLOADCOMPRESSOR -> the ending by which `decompress` knows it."""
_EMPTY: Content = iter(())


def root_only(user: bytes, group: bytes) -> tuple[int, int]:
    """Give everything to root."""
    del user, group
    return 0, 0


def take_all(file: File) -> bool:
    """Skip nothing."""
    del file
    return False


@dataclass(frozen=True)
class Rpm:
    """A .rpm whose header has been read, but not verified: `signature.check` and `check_identity` do that."""

    fd: int
    """Open for reading; the caller closes it, and not before the last entry was read."""
    label: str
    head: Head
    files: tuple[File, ...]
    """In the header's order, ghosts and skipped ones among them."""
    owners: Owners = field(default=root_only, compare=False)
    skip: Callable[[File], bool] = field(default=take_all, compare=False)
    """Whether a file is to be left out (documentation, languages)."""

    @property
    def header(self) -> Header:
        """The header."""
        return self.head.header

    @property
    def control(self) -> ControlArchive:
        """The header's bytes, magic first; the scriptlets are in it."""
        return ControlArchive(self.head.signed)

    @property
    def digested(self) -> frozenset[bytes]:
        """Nothing: the header has the digests."""
        return frozenset()

    def entries(self, limit: int) -> Entries:
        """Stream the files; PackageError if more than `limit` bytes of cpio come out.

        Directories come first, parents before what is in them, then everything else as it lies in the payload. Of
        hard links the first in the header's order is the file and the others follow it at once, all with the
        attributes of the one that has the data, as in rpm. Ghosts and what `skip` names are left out. Raises
        PackageError, naming the path: a member that the header does not list, that comes twice, has another size
        or another digest (at the end of its content) than it says, and a file without a member.
        """
        chunks = decompress(read_payload(self.fd, self.head), f"payload.{_ending(self)}", self.label, limit)
        return _Reading(self).entries(_measured(chunks, self.head))


def open_rpm(
    path_or_fd: str | int, label: str, *, owners: Owners = root_only, skip: Callable[[File], bool] = take_all
) -> Rpm:
    """Return the package in a file, its header read; `label` names it in errors.

    A path given is opened and stays open as long as the result's `fd` is. Raises PackageError.
    """
    if isinstance(path_or_fd, str):
        fd = os.open(path_or_fd, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return open_rpm(fd, label, owners=owners, skip=skip)
        except BaseException:
            os.close(fd)
            raise
    head = read_head(path_or_fd, label)
    form = head.header.text(tags.PAYLOADFORMAT, "cpio")
    if form != "cpio":
        raise PackageError(label, f"its payload is a {form!r} archive, which is not supported")
    return Rpm(path_or_fd, label, head, read_files(head.header), owners, skip)


def _ending(rpm: Rpm) -> str:
    """Return the ending that tells how the payload is compressed.

    Without the tag it is not, or with gzip: rpm leaves it out for the one and did not know it before the other.
    """
    name = rpm.header.text(tags.PAYLOADCOMPRESSOR)
    if not name:
        name = "gzip" if os.pread(rpm.fd, 2, rpm.head.start) == b"\x1f\x8b" else "none"
    if name not in _ENDINGS:
        raise PackageError(rpm.label, f"its payload is compressed with {name!r}, which is not supported")
    return _ENDINGS[name]


def _measured(chunks: Iterator[bytes], head: Head) -> Iterator[bytes]:
    """Pass the plain payload on; PackageError at its end if it has another size than the signature header says."""
    size = 0
    for chunk in chunks:
        size += len(chunk)
        yield chunk
    for tag in (tags.SIG_PAYLOADSIZE, tags.LONGARCHIVESIZE):
        promised = head.signature.number(tag, size)
        if promised != size:
            raise PackageError(head.label, f"the payload expands to {size} bytes, not to {promised}")


class _Reading:
    """The state of reading one payload."""

    def __init__(self, rpm: Rpm) -> None:
        self.rpm = rpm
        self.label = rpm.label
        self.by_path = {file.path: file for file in rpm.files}
        self.groups = _group(rpm.files)
        self.owners: dict[tuple[bytes, bytes], tuple[int, int]] = {}
        self.seen = bytearray(len(rpm.files))
        self.filled: set[int] = set()

    def entries(self, chunks: Iterator[bytes]) -> Entries:
        """Yield every entry."""
        for file in sorted((file for file in self.rpm.files if stat.S_ISDIR(file.mode)), key=lambda file: file.path):
            if not file.ghost and not self.rpm.skip(file):
                yield self.entry(file, file.path), _EMPTY
        for member, content in read_members(chunks, self.label, self.size_of):
            file = self.file_of(member)
            if file.kind is Kind.FILE:
                yield from self.regular(file, member.size, content)
            elif file.kind is not Kind.DIRECTORY:
                self.check_special(file, member.size, content)
                if not self.rpm.skip(file):
                    yield self.entry(file, file.path), _EMPTY
            elif member.size:
                raise self.refused(file, "is a directory, and has data in the payload")
        self.check_all_there()

    def size_of(self, index: int) -> int:
        """Return the bytes of a stripped member."""
        if index >= len(self.rpm.files):
            raise PackageError(self.label, f"the payload has a file number {index}, which the header does not list")
        file = self.rpm.files[index]
        if file.is_regular:
            return file.size if self.groups.get(index, (file,))[-1] is file else 0
        return len(file.target) if stat.S_ISLNK(file.mode) else 0

    def file_of(self, member: Member) -> File:
        """Return the header's file that a member is."""
        if member.index is not None:
            file = self.rpm.files[member.index]
        else:
            name = member.name or b""
            found = self.by_path.get(name[2:] if name[:2] == b"./" else name.removeprefix(b"/"))
            if found is None:
                raise PackageError(self.label, "is in the payload, but not in the header", os.fsdecode(name))
            file = found
        if file.ghost:
            raise self.refused(file, "is in the payload, and must not be")
        if self.seen[file.index]:
            raise self.refused(file, "is in the payload twice")
        self.seen[file.index] = 1
        return file

    def regular(self, file: File, size: int, content: Content) -> Iterator[tuple[Entry, Content]]:
        """Yield the regular file of a member, with all links to it, once its data is there."""
        group = self.groups.get(file.index, (file,))
        first = group[0].index
        if size == 0 and (file.size or first in self.filled):
            if len(group) == 1:
                raise self.refused(file, f"has no bytes in the payload, and {file.size} in the header")
            return  # of hard links one alone has the data
        if first in self.filled:
            raise self.refused(file, "has its data in the payload twice")
        if size != file.size:
            raise self.refused(file, f"has {size} bytes in the payload, and {file.size} in the header")
        self.filled.add(first)
        checked = self.checked(file, content)
        wanted = [link for link in group if not self.rpm.skip(link)]
        for link in wanted[:1]:
            yield self.entry(file, link.path), checked
        for _ in checked:  # what nobody read
            pass
        for link in wanted[1:]:
            yield self.entry(file, link.path, link_to=wanted[0].path), _EMPTY

    def checked(self, file: File, content: Content) -> Content:
        """Pass a content on; PackageError at its end if the digest is wrong."""
        digest = hashlib.new(file.algorithm, usedforsecurity=False)
        for piece in content:
            digest.update(piece)
            yield piece
        if file.digest and digest.hexdigest() != file.digest:
            raise self.refused(file, f"does not have the {file.algorithm} digest that the header promises")

    def check_special(self, file: File, size: int, content: Content) -> None:
        """Compare what the payload says of a file without data with the header."""
        expected = file.target if file.kind is Kind.SYMLINK else b""
        if size != len(expected) or b"".join(content) != expected:
            raise self.refused(file, f"is a {file.kind}, and is something else in the payload")

    def check_all_there(self) -> None:
        """Refuse a payload without some of the header's files; of hard links one suffices."""
        for file in self.rpm.files:
            group = self.groups.get(file.index, (file,))
            if file.is_regular and group[0].index not in self.filled:
                raise self.refused(file, "has no data in the payload")
            if not self.seen[file.index] and not file.ghost and not file.is_regular:
                raise self.refused(file, "is not in the payload")

    def entry(self, file: File, path: bytes, link_to: bytes | None = None) -> Entry:
        """Return a file as an entry under `path`."""
        kind = file.kind if link_to is None else Kind.HARDLINK
        uid, gid = self.owner(file)
        return Entry(
            path=path,
            kind=kind,
            mode=file.mode & 0o7777,
            uid=uid,
            gid=gid,
            mtime=file.mtime * _SECOND,
            size=file.size if kind is Kind.FILE else 0,
            target=file.target if kind is Kind.SYMLINK else link_to or b"",
            device=(file.rdev >> 8, file.rdev & 0xFF) if kind in {Kind.CHARACTER, Kind.BLOCK} else (0, 0),
            xattrs=self.xattrs(file) if file.caps and kind is Kind.FILE else (),
        )

    def owner(self, file: File) -> tuple[int, int]:
        """Return the numbers of a file's owners, which are asked for once."""
        names = (file.user, file.group)
        known = self.owners.get(names)
        if known is None:
            known = self.owners[names] = self.rpm.owners(*names)
        return known

    def xattrs(self, file: File) -> tuple[tuple[str, bytes], ...]:
        """Return a file's capabilities as Linux stores them."""
        try:
            return (("security.capability", encode_capabilities(file.caps.decode("utf-8", "replace"))),)
        except ValueError as error:
            raise self.refused(file, f"has impossible capabilities: {error}") from None

    def refused(self, file: File, problem: str) -> PackageError:
        """Return the error for a file."""
        return PackageError(self.label, problem, os.fsdecode(file.path))


def _group(files: Sequence[File]) -> Mapping[int, Sequence[File]]:
    """Return the hard links of each file that has any, itself among them, in the header's order."""
    groups: dict[tuple[int, int, int, str], list[File]] = {}
    for file in files:
        if file.is_regular and file.inode:
            # Older packages have the build machine's inodes, of which the field holds the lower half only.
            groups.setdefault((file.device, file.inode, file.size, file.digest), []).append(file)
    return {file.index: group for group in groups.values() if len(group) > 1 for file in group}
