"""Packages files: decoded once, then kept as a database that is asked for single packages.

A file of Debian's main component is 50 MB of text, of which a resolution reads some hundred paragraphs. The text is
therefore only cut at blank lines here and kept compressed; what a paragraph says is read where it is used.
"""

from __future__ import annotations

import contextlib
import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from rootfsbuild.formats.deb.listing import Listing
from rootfsbuild.formats.deb.naming import Place, find_all_names, find_name, find_qualified
from rootfsbuild.formats.deb.paragraphs import unfold
from rootfsbuild.formats.deb.shelf import DamagedError, Shelf, Sought, extend_shelf, open_shelf, write_shelf

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rootfsbuild.formats.deb.listing import Span

# A search for one name takes about a hundredth of the time in which all can be listed.
_FEW = 60

T = TypeVar("T")


@dataclass(frozen=True)
class Paragraph:
    """One paragraph of an index."""

    number: int
    """Its place in the file, from 1."""
    name: str
    text: bytes
    """Its fields, each on one line, without those that describe."""


class Index:
    """A Packages file, ready to be asked; made by `load_index`, whose errors any of its methods may raise."""

    def __init__(self, blob: str, sha256: str, folder: str) -> None:
        self._blob, self._sha256, self._folder = blob, sha256, folder
        self._contents: Listing | Shelf = open_shelf(folder, sha256) or Listing(blob)
        self._sought = Sought()

    def paragraphs(self, name: str) -> list[Paragraph]:
        """Return the paragraphs of a package, in the file's order."""
        return self._ask(lambda contents: _read(contents.named(name), contents.pieces))

    def providers(self, name: str) -> list[Paragraph]:
        """Return the paragraphs whose Provides names `name` (with its qualifier, if it has one)."""
        return self._ask(lambda contents: _read(contents.providing(name), contents.pieces))

    def as_written(self, paragraph: Paragraph) -> bytes:
        """Return a paragraph as it stands in the file, every field and line of it, without its last newline."""
        return self._ask(lambda contents: _read_whole(contents, paragraph))

    def notable(self) -> list[Paragraph]:
        """Return the paragraphs that are Essential or of a priority above optional."""
        return self._ask(lambda contents: _read(contents.notable(), contents.pieces))

    def names(self) -> list[str]:
        """Return the names of all packages and of all that they provide, sorted."""
        return self._ask(lambda contents: contents.names())

    def first_named(self, name: str) -> Place | None:
        """Return a value that grows with the place where the file first names a package, be it as a dependency.

        `name:qualifier` is a name of its own, as in apt. None if the file never names it.
        """
        if name not in self._sought.places and not self._sought.complete:
            self._ask(lambda contents: self._seek_place(contents, name))
        return self._sought.places.get(name)

    def qualified(self, qualifier: str) -> frozenset[str]:
        """Return the words that the file anywhere writes with `:qualifier` behind them."""
        if qualifier not in self._sought.qualified:
            self._sought.qualified[qualifier] = self._ask(lambda contents: _find_qualified(contents, qualifier))
        return self._sought.qualified[qualifier]

    def keep(self) -> None:
        """Write down what was read and sought, so that the next build need not; a quarter of a second at most.

        A full or read-only disk costs the next build that time, never this one anything.
        """
        with contextlib.suppress(OSError, sqlite3.Error, DamagedError):
            if isinstance(self._contents, Listing):
                write_shelf(self._folder, self._sha256, self._contents, self._sought)
            elif not self._is_kept(self._contents):
                extend_shelf(self._folder, self._sha256, self._sought)

    def _is_kept(self, shelf: Shelf) -> bool:
        try:
            for name in self._sought.places if not shelf.complete else ():
                shelf.place(name)
            for qualifier in self._sought.qualified:
                shelf.qualified(qualifier)
        except KeyError:
            return False
        return shelf.complete or not self._sought.complete

    def _seek_place(self, contents: Listing | Shelf, name: str) -> None:
        sought = self._sought
        if isinstance(contents, Shelf):
            with contextlib.suppress(KeyError):
                sought.places[name] = contents.place(name)
                return
        if len(sought.places) < _FEW:
            sought.places[name] = find_name(contents.pieces, name)
        else:
            sought.places = dict(find_all_names(contents.pieces))
            sought.complete = True

    def _ask(self, question: Callable[[Listing | Shelf], T]) -> T:
        try:
            return question(self._contents)
        except DamagedError:
            # What a disk has damaged is made again from the verified file.
            if isinstance(self._contents, Shelf):
                self._contents.close()
            self._contents = Listing(self._blob)
            return question(self._contents)


def load_index(blob: str, sha256: str, folder: str) -> Index:
    """Return the index in the file `blob`, whose bytes the caller has verified to have the digest `sha256`.

    What an earlier build kept of it in `folder`, named by the digest, spares the reading. Raises UntrustedError
    (`malformed`) for what is not a Packages file, and for one that expands to too much.
    """
    return Index(blob, sha256, folder)


def _read(spans: Sequence[Span], pieces: Sequence[bytes]) -> list[Paragraph]:
    return [
        Paragraph(number, name, unfold(pieces[piece][start : start + length]))
        for number, name, piece, start, length in spans
    ]


def _read_whole(contents: Listing | Shelf, paragraph: Paragraph) -> bytes:
    spans = (span for span in contents.named(paragraph.name) if span[0] == paragraph.number)
    _, _, piece, start, length = next(spans)
    return contents.pieces[piece][start : start + length].strip(b"\n")


def _find_qualified(contents: Listing | Shelf, qualifier: str) -> frozenset[str]:
    if isinstance(contents, Shelf):
        with contextlib.suppress(KeyError):
            return contents.qualified(qualifier)
    return find_qualified(contents.pieces, qualifier)
