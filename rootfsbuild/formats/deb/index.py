"""Packages files: decoded once, then kept as a database that is asked for single packages.

A file of Debian's main component is 50 MB of text, of which a resolution reads some hundred paragraphs. The text is
therefore only cut at blank lines here and kept compressed; what a paragraph says is read where it is used.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import sqlite3
import tempfile
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rootfsbuild.errors import PackageError, UntrustedError
from rootfsbuild.rootfs.decompress import decompress

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence

LIMIT = 1 << 30
"""Most bytes that one Packages file may expand to; Debian's largest is 60 MB."""

_SCHEMA = 2
_READ = 1 << 18
_BATCH = 1 << 20
_LONGEST = 8 << 20

# A search for one name takes about a hundredth of the time in which all can be listed.
_FEW = 60
_MAGIC = ((b"\xfd7zXZ\0", "xz"), (b"\x1f\x8b", "gz"), (b"\x28\xb5\x2f\xfd", "zst"), (b"BZh", "bz2"))

_TABLES = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
CREATE TABLE piece (number INTEGER PRIMARY KEY, size INTEGER, packed BLOB);
CREATE TABLE paragraph (number INTEGER PRIMARY KEY, name TEXT, piece INTEGER, start INTEGER, length INTEGER);
CREATE TABLE provided (name TEXT, number INTEGER);
CREATE TABLE notable (number INTEGER PRIMARY KEY);
CREATE TABLE about (sha256 TEXT, paragraphs INTEGER, pieces INTEGER);
"""
_INDEXES = """
CREATE INDEX by_name ON paragraph (name);
CREATE INDEX by_provided ON provided (name);
"""
_BY_NAME = "name = ?"
_BY_PROVIDED = "number IN (SELECT number FROM provided WHERE provided.name = ?)"
_NOTABLE = "number IN (SELECT number FROM notable)"

# The order in which apt reads a paragraph: a name that it meets first gets the smaller package id.
_NAMING = (
    b"\nPackage:",
    b"\nPre-Depends:",
    b"\nDepends:",
    b"\nConflicts:",
    b"\nBreaks:",
    b"\nRecommends:",
    b"\nSuggests:",
    b"\nReplaces:",
    b"\nEnhances:",
    b"\nProvides:",
)
_OWN, _PROVIDES = _NAMING[0], _NAMING[-1]
_RANK = re.compile(rb"\n(?:Essential: *yes|Priority: *(?:required|important|standard)) *(?=\n|\Z)")
_PROSE = re.compile(
    rb"\n(?:Description|Homepage|Description-md5|Tag|Task|Maintainer|MD5sum|SHA1|Bugs|Ruby-Versions):[^\n]*"
)

# What may stand around a name in a field of relations.
_BEFORE = frozenset({b" ", b",", b"|", b":", b"\t"})
_BEHIND = frozenset({b" ", b",", b"|", b"(", b"\t", b"\n", b""})


@dataclass(frozen=True)
class Paragraph:
    """One paragraph of an index."""

    number: int
    """Its place in the file, from 1."""
    name: str
    text: bytes
    """Its fields, each on one line, without those that describe."""


@dataclass(eq=False)
class Index:
    """A Packages file, ready to be asked; made by `load_index`."""

    blob: str
    sha256: str
    cache: str
    _database: sqlite3.Connection | None = field(default=None, repr=False)
    _text: list[bytes] | None = field(default=None, repr=False)
    _sought: int = field(default=0, repr=False)
    _named: dict[bytes, tuple[int, int, int]] | None = field(default=None, repr=False)

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

    def first_named(self, name: str) -> tuple[int, int, int] | None:
        """Return a value that grows with the place where the file first names a package, be it as a dependency.

        `name:qualifier` is a name of its own, as in apt. None if the file never names it.
        """
        if self._named is None and self._sought < _FEW:
            self._sought += 1
            token = name.encode()
            found = ((number, _find_name(piece, token)) for number, piece in enumerate(self._pieces()))
            return next(((number, *place) for number, place in found if place is not None), None)
        if self._named is None:
            self._named = _find_all_names(self._pieces())
        return self._named.get(name.encode())

    def qualified(self, qualifier: str) -> frozenset[str]:
        """Return the words that the file anywhere writes with `:qualifier` behind them."""
        ending = f":{qualifier}".encode()
        return frozenset(word.decode("utf-8", "replace") for piece in self._pieces() for word in _words(piece, ending))

    def _paragraphs(self, condition: str, values: Sequence[str]) -> list[Paragraph]:
        pieces = self._pieces()
        query = f"SELECT number, name, piece, start, length FROM paragraph WHERE {condition} ORDER BY number"  # noqa: S608 - the conditions are this module's constants
        return [
            Paragraph(number, name, _unfold(pieces[piece][start : start + length]))
            for number, name, piece, start, length in self._ask(query, values)
        ]

    def _pieces(self) -> list[bytes]:
        if self._text is None:
            self._text = self._unpack()
        return self._text

    def _unpack(self) -> list[bytes]:
        import zstandard  # noqa: PLC0415 - costs 30 ms where no index is read

        query = "SELECT size, packed FROM piece ORDER BY number"
        decoder = zstandard.ZstdDecompressor()
        try:
            return [decoder.decompress(packed, max_output_size=size) for size, packed in self._ask(query, ())]
        except zstandard.ZstdError:
            rows = self._ask_anew(query, ())
            return [decoder.decompress(packed, max_output_size=size) for size, packed in rows]

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
            database, self._text = _build_file(self.blob, self.sha256, self.cache)
        except (OSError, sqlite3.Error):
            # A full or read-only disk costs memory and time, never the build.
            database = sqlite3.connect(":memory:", check_same_thread=False)
            self._text = _fill(database, self.blob, self.sha256)
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
        found = database.execute("SELECT * FROM about").fetchall()
        paragraphs = database.execute("SELECT max(number) FROM paragraph").fetchone()[0] or 0
        pieces = database.execute("SELECT count(*) FROM piece").fetchone()[0]
    except sqlite3.Error:
        return None
    return database if found == [(sha256, paragraphs, pieces)] else None


def _build_file(blob: str, sha256: str, cache: str) -> tuple[sqlite3.Connection, list[bytes]]:
    os.makedirs(cache, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f"{sha256}.", suffix=".part", dir=cache)
    os.close(handle)
    try:
        with contextlib.closing(sqlite3.connect(temporary)) as database:
            text = _fill(database, blob, sha256)
        path = _path(cache, sha256)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    opened = _open(path, sha256)
    if opened is None:
        raise OSError(f"{path} cannot be read back")
    return opened, text


def _fill(database: sqlite3.Connection, blob: str, sha256: str) -> list[bytes]:
    """Write everything about the file `blob`, and return its text in pieces."""
    import zstandard  # noqa: PLC0415 - not needed where the index is made already

    database.executescript(_TABLES)
    # With a checksum: a paragraph that a disk damaged must not be taken for what the archive says.
    encoder = zstandard.ZstdCompressor(level=1, write_checksum=True)
    pieces: list[bytes] = []
    packed: list[Future[bytes]] = []
    paragraphs = 0
    # Decoder and encoder work outside Python's lock, beside the cutting.
    with ThreadPoolExecutor(1) as beside, contextlib.closing(_ahead(_read(blob))) as text:
        for piece in _batches(text, blob):
            packed.append(beside.submit(encoder.compress, piece))
            rows = _cut(piece, paragraphs, len(pieces), blob)
            database.executemany("INSERT INTO paragraph VALUES (?, ?, ?, ?, ?)", rows.paragraphs)
            database.executemany("INSERT INTO provided VALUES (?, ?)", rows.provided)
            database.executemany("INSERT INTO notable VALUES (?)", rows.notable)
            paragraphs += len(rows.paragraphs)
            pieces.append(piece)
        database.executescript(_INDEXES)
        sizes = enumerate(map(len, pieces))
        rows_of_text = ((number, size, packed[number].result()) for number, size in sizes)
        database.executemany("INSERT INTO piece VALUES (?, ?, ?)", rows_of_text)
    database.execute("INSERT INTO about VALUES (?, ?, ?)", (sha256, paragraphs, len(pieces)))
    database.commit()
    return pieces


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


def _batches(pieces: Iterable[bytes], blob: str) -> Iterator[bytes]:
    """Yield the text about _BATCH bytes at a time, cut between paragraphs."""
    held: list[bytes] = []
    size = 0
    for piece in pieces:
        held.append(piece.replace(b"\r\n", b"\n") if b"\r" in piece else piece)
        size += len(piece)
        if size < _BATCH:
            continue
        text, found, rest = b"".join(held).rpartition(b"\n\n")
        if found:
            yield text
        elif len(rest) > _LONGEST:
            raise _malformed(blob, f"a paragraph is longer than {_LONGEST} bytes")
        held, size = [rest], len(rest)
    yield b"".join(held)


@dataclass
class _Rows:
    """What is written of one piece, a list for each table."""

    paragraphs: list[tuple[int, str, int, int, int]] = field(default_factory=list)
    provided: list[tuple[str, int]] = field(default_factory=list)
    notable: list[tuple[int]] = field(default_factory=list)


def _cut(piece: bytes, number: int, piece_number: int, blob: str) -> _Rows:
    """Return the rows for the paragraphs of one piece, which follow the first `number` ones."""
    rows = _Rows()
    start = 0
    for text in piece.split(b"\n\n"):
        length = len(text)
        if text.strip(b"\n"):
            number += 1
            rows.paragraphs.append((number, _own_name(text, blob), piece_number, start, length))
            if _PROVIDES in text:
                rows.provided += [(item, number) for item in _provided(text)]
            # Most are optional, and a search for the rest costs ten times as much as to see that.
            if (b"\nPriority: optional\n" not in text or b"\nEssential:" in text) and _RANK.search(text):
                rows.notable.append((number,))
        start += length + 2
    return rows


def _own_name(text: bytes, blob: str) -> str:
    start = 8 if text.startswith(_OWN[1:]) else text.find(_OWN) + 9
    name = text[start : text.find(b"\n", start)].strip() if start > 8 or text.startswith(_OWN[1:]) else b""
    if not name:
        raise _malformed(blob, "a paragraph has no Package field")
    return name.decode("utf-8", "replace")


def _unfold(text: bytes) -> bytes:
    """Return a paragraph with each field on one line, without those that only describe."""
    return _PROSE.sub(b"", text.strip(b"\n").replace(b"\n ", b" ").replace(b"\n\t", b" "))


def _provided(text: bytes) -> list[str]:
    return [name.decode("utf-8", "replace") for name in dict.fromkeys(_names(_unfold(text), _PROVIDES))]


def _names(text: bytes, head: bytes) -> Iterator[bytes]:
    """Yield the names in a field of an unfolded paragraph, in order."""
    for value in _values(b"\n" + text, (head,)):
        yield from _split_names(value)


def _values(text: bytes, heads: Sequence[bytes] = _NAMING) -> Iterator[bytes]:
    """Yield the values of fields, in the order of `heads`; `text` begins with a line break."""
    for head in heads:
        start = text.find(head)
        if start >= 0:
            end = text.find(b"\n", start + 1)
            yield text[start + len(head) : end if end >= 0 else len(text)]


def _split_names(value: bytes) -> Iterator[bytes]:
    for item in value.replace(b"|", b",").split(b","):
        name = item.strip().partition(b" ")[0].partition(b"(")[0]
        if name:
            yield name


def _words(piece: bytes, ending: bytes) -> Iterator[bytes]:
    """Yield what stands before each `ending`, back to a blank or a comma."""
    at = piece.find(ending)
    while at >= 0:
        line = piece[piece.rfind(b"\n", 0, at) + 1 : at]
        yield line.replace(b",", b" ").replace(b"|", b" ").rpartition(b" ")[2]
        at = piece.find(ending, at + 1)


def _find_all_names(pieces: Iterable[bytes]) -> dict[bytes, tuple[int, int, int]]:
    """Return for every name what `_find_name` finds, with the piece's number before it."""
    places: dict[bytes, tuple[int, int, int]] = {}
    for number, piece in enumerate(pieces):
        start = 0
        for text in piece.split(b"\n\n"):
            unfolded = b"\n" + text.replace(b"\n ", b" ").replace(b"\n\t", b" ")
            for at, name in enumerate(_split_names(b",".join(_values(unfolded)))):
                if name not in places:
                    places[name] = (number, max(0, start - 1), at)
            start += len(text) + 2
    return places


def _find_name(piece: bytes, token: bytes) -> tuple[int, int] | None:
    """Return where a piece first names `token`: its paragraph's start, and how many names stand there before it."""
    at = piece.find(token)
    while at >= 0:
        behind = at + len(token)
        # Most hits are parts of longer words; only for one that stands alone the paragraph is worth reading.
        if piece[at - 1 : at] in _BEFORE and piece[behind : behind + 1] in _BEHIND:
            start = piece.rfind(b"\n\n", 0, at) + 1
            end = piece.find(b"\n\n", at)
            end = end if end >= 0 else len(piece)
            text = _unfold(piece[start:end])
            names = [name for head in _NAMING for name in _names(text, head)]
            if token in names:
                return start, names.index(token)
            behind = end
        at = piece.find(token, behind)
    return None


def _malformed(blob: str, problem: str) -> UntrustedError:
    return UntrustedError(f"the index {os.path.basename(blob)}", "malformed", problem)
