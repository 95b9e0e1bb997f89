"""Lay one package's files down in the root that this process is confined to.

Nothing that exists is ever opened, truncated or removed here: an entry is created or, where its path is
taken, created aside for `settle` to judge when every package has been laid.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rootfsbuild.errors import PackageError
from rootfsbuild.rootfs.entries import Content, Entry, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rootfsbuild.rootfs.package import Opened

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NODES = {Kind.CHARACTER: stat.S_IFCHR, Kind.BLOCK: stat.S_IFBLK, Kind.FIFO: stat.S_IFIFO}
_KEPT_XATTRS = ("security.capability", "user.")
"""What a package may attach to a file; labels of a security module belong to the machine that runs the
root."""


@dataclass(frozen=True)
class Rules:
    """What decides where an entry goes, besides its own path."""

    diverted: Mapping[bytes, tuple[str, bytes]] = field(default_factory=dict)
    """Canonical path → (package that diverts it, where other packages' files go), as in Entry."""
    excluded: Callable[[bytes], bool] | None = None
    """Whether a path must not be created."""
    devices: bool = False
    """Whether device nodes and fifos are allowed; Debian Policy 10.6 forbids them in packages."""


@dataclass
class Traces:
    """What laying one package did; paths are as in Entry, canonical ones free of symlinks on the way."""

    paths: list[bytes] = field(default_factory=list)
    """Each entry in archive order, directories with a `/` at the end."""
    directories: list[bytes] = field(default_factory=list)
    """`mode:uid:gid:mtime` of each directory entry, in the same order; mode octal, mtime in ns."""
    aliases: dict[bytes, bytes] = field(default_factory=dict)
    """Directory as written → canonical, where they differ."""
    moved: dict[bytes, bytes] = field(default_factory=dict)
    """Path → canonical path it was diverted to."""
    absent: list[bytes] = field(default_factory=list)
    """Paths that were excluded, or links that gave way to a directory."""
    links: list[bytes] = field(default_factory=list)
    """Canonical paths of the symlinks laid in their place."""
    followed: list[bytes] = field(default_factory=list)
    """Canonical paths of symlinks that directories of this package were led through."""
    yielded: list[bytes] = field(default_factory=list)
    """Canonical paths of symlinks that gave way to a directory (dpkg never replaces one by a link)."""
    collisions: list[tuple[bytes, bytes, bytes]] = field(default_factory=list)
    """(path, canonical path that was taken, where the entry lies instead)."""
    digests: dict[bytes, str] = field(default_factory=dict)
    """Path → MD5 in hexadecimal, for the paths whose digest was asked for."""
    made: list[bytes] = field(default_factory=list)
    """Canonical paths of the directories that were not there before."""
    clash: bytes = b""
    """Canonical path where a directory was wanted and something else was, which ended the laying there."""


class _ClashError(Exception):
    """A directory is wanted where something else is; the argument is the canonical path."""


class Ground:
    """The directories that are known to exist, by every name under which they were met.

    A directory, once there, is never replaced while packages are laid, so what is known stays true.
    """

    def __init__(self) -> None:
        self.real: dict[bytes, bytes] = {b"": b""}
        self.links: dict[bytes, bytes] = {}
        self.made: list[bytes] = []

    def directory(self, path: bytes, mode: int = 0o755) -> bytes:
        """Return the canonical path of a directory, made with its parents if it is missing."""
        known = self.real.get(path)
        if known is not None:
            return known
        head, _, name = path.rpartition(b"/")
        parent = self.directory(head)
        where = parent + b"/" + name if parent else name
        try:
            os.mkdir(where, mode & 0o777)
        except FileExistsError:
            where = self._existing(path, where)
        else:
            self.made.append(where)
        self.real[path] = where
        return where

    def _existing(self, path: bytes, where: bytes) -> bytes:
        kind = os.lstat(where).st_mode
        if stat.S_ISDIR(kind):
            return where
        try:
            leads_to_directory = stat.S_ISLNK(kind) and stat.S_ISDIR(os.stat(where).st_mode)
        except FileNotFoundError:
            leads_to_directory = False
        if not leads_to_directory:
            raise _ClashError(where)
        self.links[path] = where
        return os.path.realpath(b"/" + where, strict=True)[1:]


class _Laying:
    """The state of laying one package."""

    def __init__(self, package: str, rank: int, ground: Ground, rules: Rules, digested: frozenset[bytes]) -> None:
        self.package = package
        self.rank = rank
        self.ground = ground
        self.rules = rules
        self.digested = digested
        self.traces = Traces()
        self.own: dict[bytes, bytes] = {}
        self.path = b""

    def entry(self, entry: Entry, content: Content) -> None:
        """Create one entry."""
        self.path = entry.path
        if entry.kind is Kind.DIRECTORY:
            self._directory(entry)
        elif self.rules.excluded is not None and self.rules.excluded(entry.path):
            self.traces.paths.append(entry.path)
            self.traces.absent.append(entry.path)
        else:
            self.traces.paths.append(entry.path)
            self._other(entry, content)

    def give_up(self, clash: bytes) -> None:
        """Take the last entry back, which was not laid, and note why."""
        if self.traces.paths.pop().endswith(b"/"):
            self.traces.directories.pop()
        self.traces.clash = clash

    def _directory(self, entry: Entry) -> None:
        path, traces = entry.path, self.traces
        traces.paths.append(path + b"/")
        traces.directories.append(b"%o:%d:%d:%d" % (entry.mode, entry.uid, entry.gid, entry.mtime))
        if path in self.ground.real:
            pass
        elif self.rules.excluded is not None and self.rules.excluded(path):
            return  # made all the same when something below it is wanted
        else:
            self.ground.directory(path, entry.mode)
        self._note(path)

    def _note(self, path: bytes) -> None:
        real = self.ground.real[path]
        if real != path:
            self.traces.aliases[path] = real
        if path in self.ground.links:
            self.traces.followed.append(self.ground.links[path])

    def _where(self, path: bytes) -> bytes:
        head, _, name = path.rpartition(b"/")
        parent = self.ground.real.get(head)
        if parent is None:
            parent = self.ground.directory(head)
            self._note(head)
        elif parent != head:
            self._note(head)
        where = parent + b"/" + name if parent else name
        diversion = self.rules.diverted.get(where)
        if diversion is not None and diversion[0] != self.package:
            head, _, name = diversion[1].rpartition(b"/")
            where = self.ground.directory(head) + b"/" + name if head else name
            self.traces.moved[path] = where
        return where

    def _other(self, entry: Entry, content: Content) -> None:
        if entry.path in self.own:
            raise PackageError(self.package, "the same path twice")
        where = self._where(entry.path)
        kind = entry.kind
        if kind is Kind.FILE:
            self._file(entry, where, content)
        elif kind is Kind.SYMLINK:
            self._symlink(entry, where)
        elif kind is Kind.HARDLINK:
            self._hardlink(entry, where)
        else:
            self._node(entry, where)

    def _file(self, entry: Entry, where: bytes, content: Content) -> None:
        try:
            fd = os.open(where, _CREATE, entry.mode & 0o777)
        except FileExistsError:
            where = self._aside(where)
            fd = os.open(where, _CREATE, entry.mode & 0o777)
        self.own[entry.path] = where
        try:
            if entry.path in self.digested:
                self.traces.digests[entry.path] = _write_digested(fd, content)
            else:
                _write(fd, content)
            if entry.uid or entry.gid:
                os.fchown(fd, entry.uid, entry.gid)
            # After the owner, whose change clears these bits.
            if entry.mode & 0o7000:
                os.fchmod(fd, entry.mode)
            for name, value in entry.xattrs:
                if name.startswith(_KEPT_XATTRS):
                    os.setxattr(fd, name, value)
            os.utime(fd, ns=(entry.mtime, entry.mtime))
        finally:
            os.close(fd)

    def _symlink(self, entry: Entry, where: bytes) -> None:
        try:
            os.symlink(entry.target, where)
        except FileExistsError:
            if stat.S_ISDIR(os.lstat(where).st_mode):
                self.traces.absent.append(entry.path)
                self.traces.yielded.append(where)
                return
            where = self._aside(where)
            os.symlink(entry.target, where)
        else:
            self.traces.links.append(where)
        self.own[entry.path] = where
        _own_and_date(entry, where)

    def _hardlink(self, entry: Entry, where: bytes) -> None:
        source = self.own.get(entry.target)
        if source is None:
            if entry.target in self.traces.absent:
                self.traces.absent.append(entry.path)
                return
            raise PackageError(
                self.package,
                f"a hard link to {os.fsdecode(entry.target)}, not an earlier file of this package",
            )
        try:
            os.link(source, where, follow_symlinks=False)
        except FileExistsError:
            where = self._aside(where)
            os.link(source, where, follow_symlinks=False)
        self.own[entry.path] = where
        if entry.path in self.digested and entry.target in self.traces.digests:
            self.traces.digests[entry.path] = self.traces.digests[entry.target]

    def _node(self, entry: Entry, where: bytes) -> None:
        if not self.rules.devices:
            raise PackageError(self.package, f"a {entry.kind} in a package (Debian Policy 10.6)")
        kind = _NODES[entry.kind] | (entry.mode & 0o777)
        device = os.makedev(*entry.device)
        try:
            os.mknod(where, kind, device)
        except FileExistsError:
            where = self._aside(where)
            os.mknod(where, kind, device)
        self.own[entry.path] = where
        _own_and_date(entry, where)
        os.chmod(where, entry.mode)

    def _aside(self, where: bytes) -> bytes:
        """Return a free name beside `where`, and note that the two collide."""
        head, slash, _ = where.rpartition(b"/")
        aside = head + slash + b".rootfsbuild-%d-%d" % (self.rank, len(self.traces.collisions))
        self.traces.collisions.append((self.path, where, aside))
        return aside


def lay_package(package: str, rank: int, opened: Opened, limit: int, *, ground: Ground, rules: Rules) -> Traces:
    """Create every file of a package below the current directory, which must be the confined root; umask 0.

    `rank` is unlike that of every other package. As in dpkg, symlinks come after everything else. Raises
    PackageError with the path, or OSError (`storage_failed` tells whose fault it is).
    """
    laying = _Laying(package, rank, ground, rules, opened.digested)
    put = laying.entry
    links = []
    try:
        for entry, content in opened.entries(limit):
            if entry.kind is Kind.SYMLINK:
                links.append(entry)
            else:
                put(entry, content)
        for entry in links:
            put(entry, iter(()))
    except _ClashError as clash:
        laying.give_up(clash.args[0])
    except PackageError as error:
        if not error.path:
            error.path = os.fsdecode(laying.path)
        raise
    except OSError as error:
        if error.filename is None:
            error.filename = laying.path
        raise
    laying.traces.made, ground.made = ground.made, []
    return laying.traces


def _write(fd: int, content: Content) -> None:
    write = os.write
    for piece in content:
        done = write(fd, piece)
        while done < len(piece):
            done += write(fd, piece[done:])


def _write_digested(fd: int, content: Content) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    for piece in content:
        digest.update(piece)
        _write(fd, iter((piece,)))
    return digest.hexdigest()


def _own_and_date(entry: Entry, where: bytes) -> None:
    if entry.uid or entry.gid:
        os.chown(where, entry.uid, entry.gid, follow_symlinks=False)
    os.utime(where, ns=(entry.mtime, entry.mtime), follow_symlinks=False)
