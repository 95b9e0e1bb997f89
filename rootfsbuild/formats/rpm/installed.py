"""What is installed in a root, read from rpm's database.

A root is not trusted: its database is copied out through the root's own links only, within bounds, and read with
everything forbidden but reading the one table that holds the packages.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Iterator
from contextlib import closing

from rootfsbuild.errors import PackageError, StorageError, UsageError
from rootfsbuild.formats.rpm import tags
from rootfsbuild.formats.rpm.database import FILE
from rootfsbuild.formats.rpm.header import Header
from rootfsbuild.formats.rpm.merge import installed_header
from rootfsbuild.listed import Listed
from rootfsbuild.rootfs.inside import Inside
from rootfsbuild.rootfs.openat2 import open_inside

FOLDERS = ("/usr/lib/sysimage/rpm", "/var/lib/rpm")
"""Where rpm's database may be; one is often a link to the other."""

_LIMIT = 1 << 30
"""Most bytes of the database; a desktop of 3,000 packages has 300 MB."""
_OTHERS = {"Packages.db": "ndb", "Packages": "Berkeley DB"}
"""Names of the files of the formats that are not read here."""
_WORD = re.compile(r"[!-.0-~]{1,255}")
_SOURCE = re.compile(r"(?P<name>[!-.0-~]+)-(?P<version>[!-,.0-~]+-[!-,.0-~]+)\.(?:no)?src\.rpm")


def installed(root: str) -> tuple[Listed, ...]:
    """Return the packages that a root directory has installed, sorted by name, architecture and version.

    The keys that rpm keeps among them as `gpg-pubkey` are left out. Raises UsageError for what is no directory,
    PackageError for a root without rpm's database or with a malformed one or one of another format than sqlite.
    """
    try:
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(f"{root}: {error.strerror}") from None
    try:
        found = list(_installed(Inside(descriptor), root))
    finally:
        os.close(descriptor)
    return tuple(sorted(found, key=lambda package: (package.name, package.architecture, package.version)))


def _installed(inside: Inside, root: str) -> Iterator[Listed]:
    folder = _find(inside, root)
    path = f"{folder}/{FILE}"
    with tempfile.TemporaryDirectory(prefix="rootfsbuild-rpmdb-") as temporary:
        copy = os.path.join(temporary, FILE)
        _copy(inside, root, path, copy)
        # What the last transaction wrote may still be there.
        _copy(inside, root, f"{path}-wal", f"{copy}-wal")
        try:
            with closing(sqlite3.connect(copy, isolation_level=None)) as database:
                for number, blob in _blobs(database, root, path):
                    header = installed_header(blob, f"{root}: {path}: record {number}")
                    if header.text(tags.NAME) != "gpg-pubkey":
                        yield _listed(header)
        except sqlite3.Error as error:
            raise PackageError(root, f"it is not rpm's database: {error}", path) from None


def _find(inside: Inside, root: str) -> str:
    """Return the folder that has a database which can be read."""
    other: PackageError | None = None
    for folder in FOLDERS:
        if _exists(inside, root, f"{folder}/{FILE}"):
            return folder
        for name, format_ in _OTHERS.items():
            path = f"{folder}/{name}"
            if other is None and _exists(inside, root, path):
                hint = "compare the locks that the roots were built from, or ask the root's own rpm: rpm -qa"
                other = PackageError(root, f"the format {format_} of rpm's database is not read here", path, hint=hint)
    raise other or PackageError(root, "there is no such file, so it is no root that rpm knows", f"{FOLDERS[-1]}/{FILE}")


def _exists(inside: Inside, root: str, path: str) -> bool:
    try:
        return inside.exists(path)
    except OSError as error:
        raise PackageError(root, error.strerror or str(error), path) from None


def _copy(inside: Inside, root: str, path: str, target: str) -> None:
    """Copy a regular file out of the root; one that does not exist is no error."""
    try:
        descriptor = open_inside(inside.descriptor, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ENOTDIR}:
            return
        raise PackageError(root, error.strerror or str(error), path) from None
    with open(descriptor, "rb") as file, open(target, "wb") as copy:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise PackageError(root, "it is not a regular file", path)
        if status.st_size > _LIMIT:
            raise PackageError(root, f"rpm's database is larger than {_LIMIT} bytes", path)
        try:
            shutil.copyfileobj(file, copy, 1 << 20)
        except OSError as error:
            raise StorageError(target, error.strerror or str(error)) from None


def _blobs(database: sqlite3.Connection, root: str, path: str) -> Iterator[tuple[int, bytes]]:
    database.execute("PRAGMA trusted_schema = OFF")
    database.execute("PRAGMA cell_size_check = ON")
    # Views, generated columns and the like can compute without end: reading a table is all that is needed.
    database.set_authorizer(_authorize)
    last = 0
    for number, blob in database.execute("SELECT hnum, blob FROM Packages ORDER BY hnum"):
        # Pages that lead back to each other would be read for ever.
        if not isinstance(number, int) or not isinstance(blob, bytes) or number <= last:
            raise PackageError(root, "the table Packages of rpm's database is damaged", path)
        last = number
        yield number, blob


def _authorize(action: int, first: str | None, _second: str | None, _database: str | None, inner: str | None) -> int:
    if inner is None and (action == sqlite3.SQLITE_SELECT or (action == sqlite3.SQLITE_READ and first == "Packages")):
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY


def _listed(header: Header) -> Listed:
    name, version, release, architecture = (
        _word(header, tag) for tag in (tags.NAME, tags.VERSION, tags.RELEASE, tags.ARCH)
    )
    epoch = header.number(tags.EPOCH)
    source = _SOURCE.fullmatch(header.text(tags.SOURCERPM))
    return Listed(
        name,
        f"{epoch}:{version}-{release}" if epoch else f"{version}-{release}",
        architecture,
        source["name"] if source else name,
        source["version"] if source else f"{version}-{release}",
        header.number(tags.LONGSIZE) or header.number(tags.SIZE),
    )


def _word(header: Header, tag: int) -> str:
    text = header.text(tag)
    if _WORD.fullmatch(text) is None:
        raise PackageError(header.label, f"the header's tag {tag} cannot be {text!r}")
    return text
