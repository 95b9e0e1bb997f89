"""What a Packages file lists, on disk: a database that is asked for single packages, and the text, compressed.

Files are written to a temporary name and renamed, and never written again; a damaged one is told by its checksums.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from rootfsbuild.formats.deb.listing import Listing, Span
    from rootfsbuild.formats.deb.naming import Place

_SCHEMA = 3
_TABLES = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
CREATE TABLE piece (number INTEGER PRIMARY KEY, size INTEGER, packed BLOB);
CREATE TABLE paragraph (number INTEGER PRIMARY KEY, name TEXT, piece INTEGER, start INTEGER, length INTEGER);
CREATE TABLE provided (name TEXT, number INTEGER);
CREATE TABLE notable (number INTEGER PRIMARY KEY);
CREATE TABLE place (name TEXT PRIMARY KEY, piece INTEGER, start INTEGER, before INTEGER) WITHOUT ROWID;
CREATE TABLE qualified (qualifier TEXT PRIMARY KEY, words TEXT);
CREATE TABLE about (sha256 TEXT, paragraphs INTEGER, pieces INTEGER, complete INTEGER);
"""
_INDEXES = """
CREATE INDEX by_name ON paragraph (name);
CREATE INDEX by_provided ON provided (name);
"""
_NAMED = "SELECT number, name, piece, start, length FROM paragraph WHERE name = ? ORDER BY number"
_PROVIDING = """
SELECT number, name, piece, start, length FROM paragraph
WHERE number IN (SELECT number FROM provided WHERE provided.name = ?) ORDER BY number
"""
_NOTABLE = """
SELECT number, name, piece, start, length FROM paragraph
WHERE number IN (SELECT number FROM notable) ORDER BY number
"""


class DamagedError(Exception):
    """A shelf that cannot be read: what it held has to be made again."""


@dataclass
class Sought:
    """What was looked for in the text of a Packages file, each time at the price of reading much of it."""

    places: dict[str, Place | None] = field(default_factory=dict)
    """Name -> where it is first named; None if nowhere."""
    qualified: dict[str, frozenset[str]] = field(default_factory=dict)
    """Qualifier -> the words that are written with it."""
    complete: bool = False
    """Whether `places` holds every name that there is."""


class Shelf:
    """A Packages file as an earlier build kept it; every method raises DamagedError."""

    def __init__(self, database: sqlite3.Connection, *, complete: bool) -> None:
        self._database = database
        self.complete = complete
        """Whether it knows of every name where it is first named."""
        self._pieces: list[bytes] | None = None

    @property
    def pieces(self) -> list[bytes]:
        """Return the text, cut between paragraphs."""
        if self._pieces is None:
            self._pieces = self._unpack()
        return self._pieces

    def named(self, name: str) -> list[Span]:
        """Return the paragraphs of a package, in the file's order."""
        return self._ask(_NAMED, name)

    def providing(self, name: str) -> list[Span]:
        """Return the paragraphs whose Provides names `name` (with its qualifier, if it has one)."""
        return self._ask(_PROVIDING, name)

    def notable(self) -> list[Span]:
        """Return the paragraphs that are Essential or of a priority above optional."""
        return self._ask(_NOTABLE)

    def names(self) -> list[str]:
        """Return the names of all packages and of all that they provide, sorted."""
        return sorted(name for (name,) in self._ask("SELECT name FROM paragraph UNION SELECT name FROM provided"))

    def place(self, name: str) -> Place | None:
        """Return where the text first names `name`; raises KeyError if nobody has looked for it yet."""
        found = self._ask("SELECT piece, start, before FROM place WHERE name = ?", name)
        if not found and not self.complete:
            raise KeyError(name)
        return found[0] if found and found[0][0] is not None else None

    def qualified(self, qualifier: str) -> frozenset[str]:
        """Return the words that the text writes with a qualifier; raises KeyError if nobody has looked yet."""
        found = self._ask("SELECT words FROM qualified WHERE qualifier = ?", qualifier)
        if not found:
            raise KeyError(qualifier)
        return frozenset(found[0][0].split())

    def close(self) -> None:
        """Give the file up."""
        self._database.close()

    def _ask(self, query: str, *values: str) -> list[Any]:
        try:
            return self._database.execute(query, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise DamagedError(str(error)) from error

    def _unpack(self) -> list[bytes]:
        import zstandard  # noqa: PLC0415 - costs 30 ms where no index is read

        decoder = zstandard.ZstdDecompressor()
        rows = self._ask("SELECT size, packed FROM piece ORDER BY number")
        try:
            return [decoder.decompress(packed, max_output_size=size) for size, packed in rows]
        except zstandard.ZstdError as error:
            raise DamagedError(str(error)) from error


def open_shelf(folder: str, sha256: str) -> Shelf | None:
    """Return what is kept of the Packages file with this digest, None if that is nothing or damaged."""
    path = _path(folder, sha256)
    if not os.path.isfile(path):
        return None
    try:
        # Immutable: nobody writes to the file after its renaming, so that no lock is wanted.
        name = path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
        database = sqlite3.connect(f"file:{name}?mode=ro&immutable=1", uri=True, check_same_thread=False)
        found = database.execute("SELECT * FROM about").fetchall()
        paragraphs = database.execute("SELECT max(number) FROM paragraph").fetchone()[0] or 0
        pieces = database.execute("SELECT count(*) FROM piece").fetchone()[0]
    except sqlite3.Error:
        return None
    whole = len(found) == 1 and found[0][:3] == (sha256, paragraphs, pieces)
    return Shelf(database, complete=bool(found[0][3])) if whole else None


def write_shelf(folder: str, sha256: str, listing: Listing, sought: Sought) -> None:
    """Keep a listing and what was sought in it; raises OSError or sqlite3.Error."""

    def fill(database: sqlite3.Connection) -> None:
        database.executescript(_TABLES)
        database.executemany("INSERT INTO paragraph VALUES (?, ?, ?, ?, ?)", listing.spans())
        (paragraphs,) = database.execute("SELECT count(*) FROM paragraph").fetchone()
        database.executemany("INSERT INTO provided VALUES (?, ?)", listing.provided())
        database.executemany("INSERT INTO notable VALUES (?)", ((span[0],) for span in listing.notable()))
        database.executescript(_INDEXES)
        database.executemany("INSERT INTO piece VALUES (?, ?, ?)", _packed(listing.pieces))
        about = (sha256, paragraphs, len(listing.pieces), sought.complete)
        database.execute("INSERT INTO about VALUES (?, ?, ?, ?)", about)
        _insert_sought(database, sought)

    _write(folder, sha256, fill)


def extend_shelf(folder: str, sha256: str, sought: Sought) -> None:
    """Write what is kept anew with more that was sought in it; raises OSError or sqlite3.Error."""

    def fill(database: sqlite3.Connection) -> None:
        _insert_sought(database, sought)
        if sought.complete:
            database.execute("UPDATE about SET complete = 1")

    _write(folder, sha256, fill, base=_path(folder, sha256))


def _path(folder: str, sha256: str) -> str:
    return os.path.join(folder, f"{sha256}.{_SCHEMA}.sqlite")


def _write(folder: str, sha256: str, fill: Callable[[sqlite3.Connection], None], base: str = os.devnull) -> None:
    os.makedirs(folder, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f"{sha256}.", suffix=".part", dir=folder)
    try:
        with open(handle, "wb") as file, open(base, "rb") as kept:
            shutil.copyfileobj(kept, file)
        with contextlib.closing(sqlite3.connect(temporary)) as database:
            fill(database)
            database.commit()
        os.replace(temporary, _path(folder, sha256))
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _packed(pieces: Sequence[bytes]) -> Iterator[tuple[int, int, bytes]]:
    import zstandard  # noqa: PLC0415 - not needed where everything is kept already

    # With a checksum: a paragraph that a disk damaged must not be taken for what the archive says.
    encoder = zstandard.ZstdCompressor(level=1, write_checksum=True)
    for number, piece in enumerate(pieces):
        yield number, len(piece), encoder.compress(piece)


def _insert_sought(database: sqlite3.Connection, sought: Sought) -> None:
    places: Mapping[str, Place | None] = sought.places
    rows = ((name, *(place or (None, None, None))) for name, place in places.items())
    database.executemany("INSERT OR IGNORE INTO place VALUES (?, ?, ?, ?)", rows)
    words = ((qualifier, " ".join(sorted(found))) for qualifier, found in sought.qualified.items())
    database.executemany("INSERT OR IGNORE INTO qualified VALUES (?, ?)", words)
