"""Where a Packages file first names a package: what apt's package ids are numbered by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rootfsbuild.formats.deb.paragraphs import split_names, unfold, values_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

Place = tuple[int, int, int]
"""Number of the piece, start of the paragraph in it, names that stand before in the paragraph: it sorts."""

# What may stand around a name in a field of relations.
_BEFORE = frozenset({b" ", b",", b"|", b":", b"\t"})
_BEHIND = frozenset({b" ", b",", b"|", b"(", b"\t", b"\n", b""})


def find_name(pieces: Sequence[bytes], name: str) -> Place | None:
    """Return where the pieces first name `name`, be it as a dependency; None if they never do."""
    token = name.encode()
    found = ((number, _find_in(piece, token)) for number, piece in enumerate(pieces))
    return next(((number, *place) for number, place in found if place is not None), None)


def find_all_names(pieces: Iterable[bytes]) -> dict[str, Place]:
    """Return for every name what `find_name` finds."""
    places: dict[bytes, Place] = {}
    for number, piece in enumerate(pieces):
        start = 0
        for text in piece.split(b"\n\n"):
            unfolded = b"\n" + text.replace(b"\n ", b" ").replace(b"\n\t", b" ")
            for at, name in enumerate(split_names(b",".join(values_of(unfolded)))):
                if name not in places:
                    places[name] = (number, max(0, start - 1), at)
            start += len(text) + 2
    return {name.decode("utf-8", "replace"): place for name, place in places.items()}


def find_qualified(pieces: Iterable[bytes], qualifier: str) -> frozenset[str]:
    """Return the words that the pieces anywhere write with `:qualifier` behind them."""
    ending = f":{qualifier}".encode()
    return frozenset(word.decode("utf-8", "replace") for piece in pieces for word in _words(piece, ending))


def _find_in(piece: bytes, token: bytes) -> tuple[int, int] | None:
    at = piece.find(token)
    while at >= 0:
        behind = at + len(token)
        # Most hits are parts of longer words; only for one that stands alone the paragraph is worth reading.
        if piece[at - 1 : at] in _BEFORE and piece[behind : behind + 1] in _BEHIND:
            start = piece.rfind(b"\n\n", 0, at) + 1
            end = piece.find(b"\n\n", at)
            end = end if end >= 0 else len(piece)
            unfolded = b"\n" + unfold(piece[start:end])
            names = [name for value in values_of(unfolded) for name in split_names(value)]
            if token in names:
                return start, names.index(token)
            behind = end
        at = piece.find(token, behind)
    return None


def _words(piece: bytes, ending: bytes) -> Iterator[bytes]:
    """Yield what stands before each `ending`, back to a blank or a comma."""
    at = piece.find(ending)
    while at >= 0:
        line = piece[piece.rfind(b"\n", 0, at) + 1 : at]
        yield line.replace(b",", b" ").replace(b"|", b" ").rpartition(b" ")[2]
        at = piece.find(ending, at + 1)
