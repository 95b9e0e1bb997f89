"""What a Packages file lists, in memory: made from the file itself once, and then kept by `shelf`."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

from rootfsbuild.formats.deb.paragraphs import Cut, cut, read_pieces

if TYPE_CHECKING:
    from collections.abc import Iterator

Span = tuple[int, str, int, int, int]
"""A paragraph: its number in the file (from 1), its package's name, number of the piece, start and length in it."""


class Listing:
    """A Packages file that has just been read; raises what `read_pieces` and `cut` raise."""

    def __init__(self, blob: str) -> None:
        self.pieces: list[bytes] = []
        """The text, cut between paragraphs."""
        self._cuts: list[Cut] = []
        self._firsts: list[int] = []
        self._named: dict[str, list[int]] = {}
        self._provided: dict[str, list[int]] = {}
        self._notable: list[int] = []
        for piece in read_pieces(blob):
            self._add(piece, cut(piece, blob))

    def _add(self, piece: bytes, seen: Cut) -> None:
        first = self._firsts[-1] + len(self._cuts[-1].names) if self._cuts else 1
        self.pieces.append(piece)
        self._cuts.append(seen)
        self._firsts.append(first)
        for number, name in enumerate(seen.names, first):
            self._named.setdefault(name, []).append(number)
        for name, at in seen.provided:
            self._provided.setdefault(name, []).append(first + at)
        self._notable += [first + at for at in seen.notable]

    def named(self, name: str) -> list[Span]:
        """Return the paragraphs of a package, in the file's order."""
        return [self._span(number) for number in self._named.get(name, ())]

    def providing(self, name: str) -> list[Span]:
        """Return the paragraphs whose Provides names `name` (with its qualifier, if it has one)."""
        return [self._span(number) for number in self._provided.get(name, ())]

    def notable(self) -> list[Span]:
        """Return the paragraphs that are Essential or of a priority above optional."""
        return [self._span(number) for number in self._notable]

    def names(self) -> list[str]:
        """Return the names of all packages and of all that they provide, sorted."""
        return sorted(self._named.keys() | self._provided.keys())

    def spans(self) -> Iterator[Span]:
        """Yield every paragraph."""
        for piece, (first, seen) in enumerate(zip(self._firsts, self._cuts, strict=True)):
            for at, name in enumerate(seen.names):
                yield first + at, name, piece, seen.starts[at], seen.lengths[at]

    def provided(self) -> Iterator[tuple[str, int]]:
        """Yield what is provided, with the number of the paragraph."""
        for first, seen in zip(self._firsts, self._cuts, strict=True):
            yield from ((name, first + at) for name, at in seen.provided)

    def _span(self, number: int) -> Span:
        piece = bisect_right(self._firsts, number) - 1
        seen, at = self._cuts[piece], number - self._firsts[piece]
        return number, seen.names[at], piece, seen.starts[at], seen.lengths[at]
