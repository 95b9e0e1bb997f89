"""Packages files: decoded once, then kept as a database that is asked for single packages.

A file of Debian's main component is 50 MB of text, of which a resolution reads some hundred paragraphs. Paragraphs
are therefore only cut out here, and parsed where they are used.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import sqlite3
import tempfile
import threading
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rootfsbuild.errors import PackageError, UntrustedError
from rootfsbuild.rootfs.decompress import decompress

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence

LIMIT = 1 << 30
"""Most bytes that one Packages file may expand to; Debian's largest is 60 MB."""

_SCHEMA = 1
_READ = 1 << 18
_BATCH = 1 << 20
_LONGEST = 8 << 20
_MAGIC = ((b"\xfd7zXZ\0", "xz"), (b"\x1f\x8b", "gz"), (b"\x28\xb5\x2f\xfd", "zst"), (b"BZh", "bz2"))

_TABLES = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
CREATE TABLE paragraph (number INTEGER PRIMARY KEY, name TEXT, named INTEGER, text BLOB, sum INTEGER);
CREATE TABLE provided (name TEXT, number INTEGER);
CREATE TABLE notable (number INTEGER PRIMARY KEY);
CREATE TABLE qualified (name TEXT, named INTEGER);
CREATE TABLE about (sha256 TEXT, paragraphs INTEGER, strangers BLOB);
"""
_INDEXES = """
CREATE INDEX by_name ON paragraph (name);
CREATE INDEX by_provided ON provided (name);
"""
_BY_NAME = "name = ?"
_BY_PROVIDED = "number IN (SELECT number FROM provided WHERE provided.name = ?)"
_NOTABLE = "number IN (SELECT number FROM notable)"

# The order in which apt reads a paragraph: a name that it meets first gets the smaller package id.
_NAMING = {
    name: at
    for at, name in enumerate(
        (
            b"Package",
            b"Pre-Depends",
            b"Depends",
            b"Conflicts",
            b"Breaks",
            b"Recommends",
            b"Suggests",
            b"Replaces",
            b"Enhances",
            b"Provides",
        )
    )
}
_OWN, _PROVIDES = _NAMING[b"Package"], _NAMING[b"Provides"]

# Matches the fields above, what makes a paragraph notable, and the empty lines between paragraphs.
_FIELD = re.compile(
    rb"\n(?:(?=\n)|("
    + b"|".join(_NAMING)
    + rb"): *([^\n]*)|(?:(Essential): *yes|(Priority): *(?:required|important|standard)) *(?=\n|\Z))"
)

# A quarter of the text only describes, and stands together in what dak and apt-ftparchive write.
_PROSE = re.compile(
    rb"\nDescription:[^\n]*"
    rb"(?:\n(?: |Homepage:|Description-md5:|Tag:|Task:|Maintainer:|MD5sum:|SHA1:|Bugs:|Ruby-Versions:)[^\n]*)*"
)


@dataclass(frozen=True)
class Paragraph:
    """One paragraph of an index."""

    number: int
    """Its place in the file, from 1."""
    name: str
    named: int
    """Grows with the place where the file names this package first, be it only as a dependency."""
    text: bytes
    """Its fields, each on one line, without those that describe."""


@dataclass(eq=False)
class Index:
    """A Packages file, ready to be asked; made by `load_index`."""

    blob: str
    sha256: str
    cache: str
    _database: sqlite3.Connection | None = field(default=None, repr=False)

    def paragraphs(self, name: str) -> list[Paragraph]:
        """Return the paragraphs of a package, in the file's order."""
        return self._paragraphs(_BY_NAME, (name,))

    def providers(self, name: str) -> list[Paragraph]:
        """Return the paragraphs whose Provides names `name` (with its qualifier, if it has one)."""
        return self._paragraphs(_BY_PROVIDED, (name,))

    def notable(self) -> list[Paragraph]:
        """Return the paragraphs that are Essential or of a priority above optional."""
        return self._paragraphs(_NOTABLE, ())

    def names(self) -> list[str]:
        """Return the names of all packages and of all that they provide, sorted."""
        return [name for (name,) in self._ask("SELECT name FROM paragraph UNION SELECT name FROM provided", ())]

    def named_elsewhere(self) -> dict[str, int]:
        """Return what `Paragraph.named` would be for the names that have no paragraph here."""
        ((packed,),) = self._ask("SELECT strangers FROM about", ())
        lines = zlib.decompress(packed).decode("utf-8", "replace").splitlines()
        return {name: int(place) for name, _, place in (line.partition(" ") for line in lines)}

    def named_for(self, architecture: str) -> dict[str, int]:
        """Return what `Paragraph.named` would be for `name:architecture`, by name: apt then knows the name as well."""
        rows = self._ask("SELECT name, named FROM qualified WHERE name LIKE '%:' || ?", (architecture,))
        return {name.rpartition(":")[0]: named for name, named in rows}

    def _paragraphs(self, condition: str, values: Sequence[str]) -> list[Paragraph]:
        query = f"SELECT number, name, named, text, sum FROM paragraph WHERE {condition} ORDER BY number"  # noqa: S608 - the conditions are this module's constants
        found = self._ask(query, values)
        if any(zlib.crc32(text) != checksum for *_, text, checksum in found):
            found = self._ask_anew(query, values)
        return [Paragraph(*row[:4]) for row in found]

    def _ask(self, query: str, values: Sequence[str]) -> list[tuple[Any, ...]]:
        if self._database is None:
            self._database = _open(_path(self.cache, self.sha256), self.sha256) or self._build()
        try:
            return self._database.execute(query, values).fetchall()
        except sqlite3.DatabaseError:
            return self._ask_anew(query, values)

    def _ask_anew(self, query: str, values: Sequence[str]) -> list[tuple[Any, ...]]:
        # What a disk has damaged is made again from the verified file.
        if self._database is not None:
            self._database.close()
        self._database = self._build()
        return self._database.execute(query, values).fetchall()

    def _build(self) -> sqlite3.Connection:
        try:
            return _build_file(self.blob, self.sha256, self.cache)
        except (OSError, sqlite3.Error):
            # A full or read-only disk costs memory and time, never the build.
            database = sqlite3.connect(":memory:", check_same_thread=False)
            _fill(database, self.blob, self.sha256)
            return database


def load_index(blob: str, sha256: str, cache: str) -> Index:
    """Return the index in the file `blob`, whose bytes the caller has verified to have the digest `sha256`.

    `cache` is a directory; what is kept there is named by the digest, written to a temporary name and renamed, and
    made again when it is missing or damaged. Raises UntrustedError (`malformed`) for what is not a Packages file,
    and for one that expands to more than LIMIT.
    """
    database = _open(_path(cache, sha256), sha256)
    index = Index(blob, sha256, cache, database)
    if database is None:
        index._database = index._build()  # noqa: SLF001 - its own maker
    return index


def _path(cache: str, sha256: str) -> str:
    return os.path.join(cache, f"{sha256}.{_SCHEMA}.sqlite")


def _open(path: str, sha256: str) -> sqlite3.Connection | None:
    if not os.path.isfile(path):
        return None
    try:
        # Immutable: nobody writes to the file after its renaming, so that no lock is wanted.
        name = path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
        database = sqlite3.connect(f"file:{name}?mode=ro&immutable=1", uri=True, check_same_thread=False)
        found = database.execute("SELECT sha256, paragraphs FROM about").fetchall()
        last = database.execute("SELECT max(number) FROM paragraph").fetchone()
    except sqlite3.Error:
        return None
    return database if found == [(sha256, last[0] or 0)] else None


def _build_file(blob: str, sha256: str, cache: str) -> sqlite3.Connection:
    os.makedirs(cache, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f"{sha256}.", suffix=".part", dir=cache)
    os.close(handle)
    try:
        with contextlib.closing(sqlite3.connect(temporary)) as database:
            _fill(database, blob, sha256)
        path = _path(cache, sha256)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    opened = _open(path, sha256)
    if opened is None:
        raise OSError(f"{path} cannot be read back")
    return opened


def _fill(database: sqlite3.Connection, blob: str, sha256: str) -> None:
    database.executescript(_TABLES)
    places: dict[bytes, int] = {}
    own: set[str] = set()
    number = 0
    with contextlib.closing(_ahead(_read(blob))) as pieces:
        for paragraphs in _batches(pieces, blob):
            rows = _cut(paragraphs, number, places, blob)
            number += len(paragraphs)
            own.update(name for _, name, *_ in rows.paragraphs)
            database.executemany("INSERT INTO paragraph VALUES (?, ?, ?, ?, ?)", rows.paragraphs)
            database.executemany("INSERT INTO provided VALUES (?, ?)", rows.provided)
            database.executemany("INSERT OR IGNORE INTO notable VALUES (?)", rows.notable)
    database.executescript(_INDEXES)
    others = [
        (name, at)
        for name, at in ((key.decode("utf-8", "replace"), at) for key, at in places.items())
        if name not in own
    ]
    database.executemany("INSERT INTO qualified VALUES (?, ?)", [item for item in others if ":" in item[0]])
    strangers = "\n".join(f"{name} {at}" for name, at in others).encode()
    database.execute("INSERT INTO about VALUES (?, ?, ?)", (sha256, number, zlib.compress(strangers, 1)))
    database.commit()


def _read(blob: str) -> Iterator[bytes]:
    with open(blob, "rb") as stream:
        chunks = iter(lambda: stream.read(_READ), b"")
        first = next(chunks, b"")
        ending = next((ending for magic, ending in _MAGIC if first.startswith(magic)), "tar")
        label = f"the index {os.path.basename(blob)}"
        try:
            yield from decompress(_chain(first, chunks), f"Packages.{ending}", label, LIMIT)
        except PackageError as error:
            raise UntrustedError(label, "malformed", error.problem) from None


def _chain(first: bytes, rest: Iterable[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _ahead(pieces: Iterator[bytes]) -> Generator[bytes]:
    """Run `pieces` in a thread of its own: decoders work outside Python's lock."""
    ready: queue.Queue[bytes | BaseException | None] = queue.Queue(8)
    stopped = threading.Event()

    def run() -> None:
        last: BaseException | None = None
        try:
            for piece in pieces:
                ready.put(piece)
                if stopped.is_set():
                    break
        except BaseException as error:  # noqa: BLE001 - raised again by the reader
            last = error
        ready.put(last)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        while isinstance(item := ready.get(), bytes):
            yield item
        if item is not None:
            raise item
    finally:
        stopped.set()
        while thread.is_alive():
            with contextlib.suppress(queue.Empty):
                ready.get(timeout=0.01)


def _batches(pieces: Iterable[bytes], blob: str) -> Iterator[list[bytes]]:
    """Yield lists of paragraphs, about _BATCH bytes at a time."""
    held: list[bytes] = []
    size = 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size < _BATCH:
            continue
        text, found, rest = b"".join(held).rpartition(b"\n\n")
        if found:
            yield _split(text)
        elif len(rest) > _LONGEST:
            raise _malformed(blob, f"a paragraph is longer than {_LONGEST} bytes")
        held, size = [rest], len(rest)
    yield _split(b"".join(held))


def _split(text: bytes) -> list[bytes]:
    if b"\r" in text:
        text = text.replace(b"\r\n", b"\n")
    text = _PROSE.sub(b"", text)
    for fold in (b"\n ", b"\n\t"):
        if fold in text:
            text = text.replace(fold, b" ")
    return [paragraph for piece in text.split(b"\n\n") if (paragraph := piece.strip(b"\n"))]


@dataclass
class _Rows:
    """What is written of one batch, a list for each table."""

    paragraphs: list[tuple[int, str, int, bytes, int]] = field(default_factory=list)
    provided: list[tuple[str, int]] = field(default_factory=list)
    notable: list[tuple[int]] = field(default_factory=list)


def _cut(paragraphs: Sequence[bytes], number: int, places: dict[bytes, int], blob: str) -> _Rows:
    """Return the rows for some paragraphs, and enter in `places` the names that are met for the first time."""
    rows = _Rows()
    if not paragraphs:
        return rows
    names: list[bytes] = []
    named: list[bytes] = []
    found: list[tuple[int, bytes]] = []
    at = number + 1
    fields = _FIELD.findall(b"\n" + b"\n\n".join(paragraphs) + b"\n\n")
    for name, value, essential, priority in fields:
        if name:
            found.append((_NAMING[name], value))
        elif essential or priority:
            rows.notable.append((at,))
        else:
            found.sort()
            if not found or found[0][0] != _OWN or not found[0][1].strip():
                raise _malformed(blob, "a paragraph has no Package field")
            names.append(found[0][1].strip())
            named += [value for _, value in found]
            if found[-1][0] == _PROVIDES:
                rows.provided += [(item, at) for item in _provided(found[-1][1])]
            found = []
            at += 1
    _place(named, places)
    rows.paragraphs = [
        (at, name.decode("utf-8", "replace"), places[name], text, zlib.crc32(text))
        for at, (name, text) in enumerate(zip(names, paragraphs, strict=True), number + 1)
    ]
    return rows


def _place(named: Sequence[bytes], places: dict[bytes, int]) -> None:
    # Equal pieces are dropped before anything is done in Python for them: of five, four are repetitions.
    for piece in dict.fromkeys(b",".join(named).replace(b"|", b",").split(b",")):
        name = piece.strip().partition(b" ")[0].partition(b"(")[0]
        if name not in places:
            places[name] = len(places)


def _provided(value: bytes) -> list[str]:
    pieces = (piece.strip().partition(b" ")[0].partition(b"(")[0] for piece in value.split(b","))
    return [name.decode("utf-8", "replace") for name in dict.fromkeys(pieces) if name]


def _malformed(blob: str, problem: str) -> UntrustedError:
    return UntrustedError(f"the index {os.path.basename(blob)}", "malformed", problem)
