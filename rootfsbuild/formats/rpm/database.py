"""rpm's database: the file rpmdb.sqlite as rpm 4.16 and later would have left it, and the stream for other formats.

The tables beside Packages are what rpm looks things up by; without them `rpm -qa` works and `rpm -q NAME` does not.
"""

from __future__ import annotations

import itertools
import os
import shutil
import sqlite3
import struct
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing

from rootfsbuild.errors import StorageError
from rootfsbuild.formats.rpm.database_indexes import INDEXES, ByteOrder, Index, rows
from rootfsbuild.formats.rpm.header import MAGIC, Header
from rootfsbuild.formats.rpm.merge import Recorded, merge, merge_headers, pack
from rootfsbuild.rootfs.inside import Inside
from rootfsbuild.rootfs.openat2 import open_inside

FILE = "rpmdb.sqlite"

_PACKAGES = "CREATE TABLE 'Packages' (hnum INTEGER PRIMARY KEY AUTOINCREMENT,blob BLOB NOT NULL)"
_TABLE = (
    "CREATE TABLE '{name}' (key '{type}' NOT NULL, hnum INTEGER NOT NULL, idx INTEGER NOT NULL, "
    "FOREIGN KEY (hnum) REFERENCES 'Packages'(hnum))"
)
# rpm stores keys as they are, UTF-8 or not, which only a cast can do from here.
_TEXT_ROW = "INSERT INTO '{name}' VALUES (CAST(? AS TEXT), ?, ?)"
_BYTES_ROW = "INSERT INTO '{name}' VALUES (?, ?, ?)"
_INDEX = "CREATE INDEX '{name}_{column}_idx' ON '{name}'({column} ASC)"

_PAGE = 4096
_TREES = {2: 12, 5: 12, 10: 8, 13: 8}
"""First byte of the pages of trees -> length of their headers. Those that hold the rest of a long value begin with the
number of another page, which would take a file of 64 GB to look like one of these."""

# The settings that a library could have been built with otherwise, and nothing that makes it wait for the disk: what
# is left of a build that is interrupted is thrown away.
_SETTINGS = (
    f"PRAGMA page_size = {_PAGE}",
    "PRAGMA encoding = 'UTF-8'",
    "PRAGMA auto_vacuum = NONE",
    "PRAGMA legacy_file_format = OFF",
    "PRAGMA secure_delete = OFF",
    "PRAGMA foreign_keys = OFF",
    "PRAGMA journal_mode = OFF",
    "PRAGMA synchronous = OFF",
    "PRAGMA temp_store = MEMORY",
)


def write_database(root: Inside, folder: str, records: Sequence[Recorded], byteorder: ByteOrder = "little") -> None:
    """Write rpm's sqlite database into a folder of a root, packages in the order in which they were installed.

    The same records give the same bytes, whichever version of sqlite writes them. Raises PackageError for headers
    that the database cannot keep, and StorageError.
    """
    with tempfile.TemporaryDirectory(prefix="rootfsbuild-rpmdb-") as temporary:
        path = os.path.join(temporary, FILE)
        # Made outside of the root: sqlite finds its files by name, and would follow a link that a package has laid.
        try:
            with closing(sqlite3.connect(path, isolation_level=None)) as database:
                _fill(database, records, byteorder)
            _forget_writer(path)
            with closing(sqlite3.connect(path, isolation_level=None)) as database:
                _check(database, path)
            _place(root, f"{folder}/{FILE}", path)
        except sqlite3.Error as error:
            raise StorageError(path, f"sqlite: {error}", hint="set TMPDIR to where there is space") from None
        except OSError as error:
            raise StorageError(f"{folder}/{FILE}", error.strerror or str(error)) from error


def export(records: Iterable[Recorded]) -> Iterator[bytes]:
    """Yield packages as `rpmdb --importdb` reads them and `rpmdb --exportdb` writes them: whole headers."""
    for record in records:
        yield MAGIC + merge(record)


def _fill(database: sqlite3.Connection, records: Sequence[Recorded], byteorder: ByteOrder) -> None:
    for setting in _SETTINGS:
        database.execute(setting)
    headers = [merge_headers(record) for record in records]
    database.execute("BEGIN")
    database.execute(_PACKAGES)
    database.executemany("INSERT INTO Packages VALUES (?, ?)", enumerate(map(pack, headers), 1))
    for index in INDEXES:
        database.execute(_TABLE.format(name=index.name, type="TEXT" if index.is_text else "BLOB"))
        row = (_TEXT_ROW if index.is_text else _BYTES_ROW).format(name=index.name)
        database.executemany(row, _rows(index, headers, byteorder))
        for column in _indexed(index):
            database.execute(_INDEX.format(name=index.name, column=column))
    database.execute("COMMIT")


def _rows(index: Index, headers: Sequence[Header], byteorder: ByteOrder) -> Iterator[tuple[bytes, int, int]]:
    for number, header in enumerate(headers, 1):
        yield from ((key, number, place) for key, place in rows(index, header, byteorder))


def _indexed(index: Index) -> tuple[str, ...]:
    return (("key",) if index.is_text else ()) + (("hnum",) if index.is_many else ())


def _check(database: sqlite3.Connection, path: str) -> None:
    found = (
        database.execute("PRAGMA integrity_check").fetchall() + database.execute("PRAGMA foreign_key_check").fetchall()
    )
    if found != [("ok",)]:
        raise StorageError(path, f"the database that was written is damaged: {found[0]}")


def _forget_writer(path: str) -> None:
    """Overwrite what differs from one version of sqlite to another (SQLite's file format, 1.3 and 1.6).

    That is what the file says of the library that wrote it, and what its memory happened to hold where a page of a
    tree has room for more.
    """
    with open(path, "r+b") as file:
        for offset, number in ((24, 1), (92, 1), (96, 3_040_001)):
            file.seek(offset)
            file.write(number.to_bytes(4, "big"))
        file.seek(0)
        for place in itertools.count(0, _PAGE):
            page = file.read(_PAGE)
            if not page:
                break
            begin, end = _room(page, 0 if place else 100)
            if any(page[begin:end]):
                file.seek(place + begin)
                file.write(bytes(end - begin))
                file.seek(place + _PAGE)


def _room(page: bytes, at: int) -> tuple[int, int]:
    """Return from where to where nothing is in a page whose own header is `at` its beginning."""
    head = _TREES.get(page[at])
    if head is None:
        return 0, 0
    cells, end = struct.unpack_from(">HH", page, at + 3)
    return at + head + 2 * cells, end


def _place(root: Inside, path: str, source: str) -> None:
    root.make_directory(os.path.dirname(path))
    # A new file: what a package has laid there may be a link, also a hard one.
    root.remove(path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with open(source, "rb") as file, open(open_inside(root.descriptor, path, flags, 0o644), "wb") as target:
        os.fchmod(target.fileno(), 0o644)
        shutil.copyfileobj(file, target, 1 << 20)
