"""A .deb, read strictly: deb(5), deb-control(5), deb-conffiles(5)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rootfsbuild.errors import PackageError
from rootfsbuild.formats.deb.ar import Member, read_members
from rootfsbuild.rootfs.decompress import CHUNK, decompress
from rootfsbuild.rootfs.entries import Entries, Kind
from rootfsbuild.rootfs.package import ControlArchive
from rootfsbuild.rootfs.tar import read_tar

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["ControlArchive", "Deb", "open_deb"]

_CONTROL = ("control.tar", "control.tar.gz", "control.tar.xz", "control.tar.zst")
_DATA = ("data.tar", "data.tar.gz", "data.tar.xz", "data.tar.zst", "data.tar.bz2", "data.tar.lzma")
_MOST_CONTROL = 64 << 20
"""Bytes of an unpacked control.tar; the largest md5sums files of Debian are a few MiB."""


@dataclass(frozen=True)
class Deb:
    """A .deb whose container is sound and whose control archive has been read."""

    fd: int
    """Open for reading; the caller closes it, and not before the last entry was read."""
    label: str
    control: ControlArchive
    data: Member

    @property
    def digested(self) -> frozenset[bytes]:
        """The conffiles' paths, as in Entry."""
        return frozenset(parse_conffiles(self.control.files.get("conffiles", (b"", 0))[0]))

    def entries(self, limit: int) -> Entries:
        """Stream the files of data.tar; PackageError if more than `limit` bytes of tar come out."""
        chunks = decompress(_read_span(self.fd, self.data), self.data.name, self.label, limit)
        return read_tar(chunks, self.label)


def open_deb(path_or_fd: str | int, label: str) -> Deb:
    """Return the package in a file, its control archive read; `label` names it in errors.

    The members must be `debian-binary` (version 2.x), a control archive and a data archive, in this order,
    each once; members whose names begin with `_` are skipped, and so is what follows the data archive
    (deb(5)). A path given is opened and stays open as long as the result's `fd` is. Raises PackageError
    otherwise.
    """
    if isinstance(path_or_fd, str):
        fd = os.open(path_or_fd, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return open_deb(fd, label)
        except BaseException:
            os.close(fd)
            raise
    members = read_members(path_or_fd, label)
    control, data = _choose(members, label)
    _check_version(path_or_fd, members[0], label)
    return Deb(path_or_fd, label, _read_control(path_or_fd, control, label), data)


def parse_conffiles(text: bytes) -> Iterator[bytes]:
    """Yield the paths in a conffiles file, as in Entry, without those that are flagged (deb-conffiles(5))."""
    for line in text.splitlines():
        if line.startswith(b"/"):
            yield line.strip().lstrip(b"/")


def _choose(members: Sequence[Member], label: str) -> tuple[Member, Member]:
    names = [member.name for member in members]
    if not names or names[0] != "debian-binary":
        raise PackageError(label, "the first member must be debian-binary", names[0] if names else "")
    for stem in ("debian-binary", "control.tar", "data.tar"):
        if sum(name.startswith(stem) for name in names) > 1:
            raise PackageError(label, f"more than one {stem}")
    rest = [member for member in members[1:] if not member.name.startswith("_")]
    if not rest or rest[0].name not in _CONTROL:
        raise PackageError(label, "a control archive must follow debian-binary", rest[0].name if rest else "")
    if len(rest) < 2 or rest[1].name not in _DATA:
        raise PackageError(label, "a data archive must follow the control archive", "".join(m.name for m in rest[1:2]))
    return rest[0], rest[1]


def _check_version(fd: int, member: Member, label: str) -> None:
    text = os.pread(fd, min(member.size, 64), member.offset)
    major, _, minor = text.partition(b"\n")[0].partition(b".")
    if major != b"2" or not minor.isdigit() or b"\n" not in text:
        raise PackageError(label, f"version {text[:16]!r} of the format is not supported", "debian-binary")


def _read_control(fd: int, member: Member, label: str) -> ControlArchive:
    files: dict[str, tuple[bytes, int]] = {}
    chunks = decompress(_read_span(fd, member), member.name, label, _MOST_CONTROL)
    for entry, content in read_tar(chunks, label):
        name = os.fsdecode(entry.path)
        if entry.kind is Kind.DIRECTORY and not entry.path:
            continue
        if entry.kind is not Kind.FILE:
            raise PackageError(label, f"a {entry.kind} in the control archive", name)
        # dpkg's own file list would be overwritten by a "list" from the package.
        if (
            "/" in name
            or not name.isascii()
            or not name.isprintable()
            or " " in name
            or name in files
            or name == "list"
        ):
            raise PackageError(label, "a name that the control archive cannot have", name)
        files[name] = (b"".join(content), entry.mode)
    if "control" not in files:
        raise PackageError(label, "the control archive has no control file")
    fields = files.pop("control")[0]
    return ControlArchive(fields, files)


def _read_span(fd: int, member: Member) -> Iterator[bytes]:
    at, end = member.offset, member.offset + member.size
    while at < end:
        data = os.pread(fd, min(CHUNK, end - at), at)
        if not data:
            raise EOFError
        yield data
        at += len(data)
