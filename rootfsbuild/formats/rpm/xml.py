"""XML as repositories use it, read record by record: no DTD, no entities, everything bounded.

expat alone decides what is well-formed. Names are read without their prefixes, as libsolv reads them: prefixes differ
between the tools that write repositories, names do not. The encoding is UTF-8, whatever a document says of itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from xml.parsers import expat

from rootfsbuild.errors import UntrustedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_STEP = 1 << 16
_LONGEST_TOKEN = 1 << 20
"""Bytes that expat may hold without having understood them: it looks at them again with every step."""


@dataclass(frozen=True)
class Bounds:
    """The most that one record may take; a document may have any number of records."""

    depth: int = 16
    """Elements inside each other, the root counted."""
    elements: int = 250_000
    characters: int = 32 << 20
    """Characters of text and attributes together."""


@dataclass(frozen=True, slots=True)
class Element:
    """One element with all that is in it."""

    name: str
    """Without a prefix."""
    attributes: Mapping[str, str]
    """By name without a prefix; declarations of prefixes are left out."""
    text: str
    """Its own text, stripped; what stands around and between its children is joined."""
    children: tuple[Element, ...]
    line: int
    """Where it begins, from 1."""

    def get(self, name: str) -> str:
        """Return an attribute, empty if it is absent."""
        return self.attributes.get(name, "")

    def named(self, name: str) -> tuple[Element, ...]:
        """Return the children of a name, in the document's order."""
        return tuple(child for child in self.children if child.name == name)

    def first(self, name: str) -> Element | None:
        """Return the first child of a name."""
        return next((child for child in self.children if child.name == name), None)

    def text_of(self, name: str) -> str:
        """Return the text of the first child of a name, empty if there is none."""
        child = self.first(name)
        return "" if child is None else child.text


_NO_BOUNDS = Bounds()


def read_document(body: bytes, label: str, root: str, bounds: Bounds = _NO_BOUNDS) -> Element:
    """Return a small document as its root element; raises UntrustedError (rule `malformed`) as `read_records`."""
    steps = (body[at : at + _STEP] for at in range(0, len(body), _STEP))
    return next(_read(steps, label, root, 1, "", bounds))


def read_records(
    chunks: Iterable[bytes], label: str, root: str, *, doctype: str = "", bounds: Bounds = _NO_BOUNDS
) -> Iterator[Element]:
    """Yield each child of the root as soon as it is whole.

    `label` names the document in errors. `doctype` is the document type whose name alone is let pass (comps files
    name one, and nobody ever reads it). Raises UntrustedError (rule `malformed`) that names the line, for whatever is
    not well-formed, has another root, declares or uses entities or goes beyond the bounds; a document that ends
    too early is noticed only at its end.
    """
    return _read(chunks, label, root, 2, doctype, bounds)


def _read(
    chunks: Iterable[bytes], label: str, root: str, level: int, doctype: str, bounds: Bounds
) -> Iterator[Element]:
    reader = _Reader(label, root, level, doctype, bounds)
    fed = 0
    for chunk in chunks:
        for at in range(0, len(chunk), _STEP):
            piece = chunk[at : at + _STEP]
            fed += len(piece)
            yield from reader.feed(piece, fed)
    yield from reader.end()


@dataclass
class _Open:
    """An element whose end has not come yet."""

    name: str
    attributes: dict[str, str]
    line: int
    text: list[str] = field(default_factory=list)
    children: list[Element] = field(default_factory=list)


class _Reader:
    """expat with a memory of the record under way; `level` is the depth at which records stand (the root has 1)."""

    def __init__(self, label: str, root: str, level: int, doctype: str, bounds: Bounds) -> None:
        self._label, self._root, self._level, self._doctype, self._bounds = label, root, level, doctype, bounds
        self._stack: list[_Open] = []
        self._whole: list[Element] = []
        self._elements = self._characters = 0
        parser = expat.ParserCreate("utf-8")
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        parser.StartDoctypeDeclHandler = self._declare
        parser.EntityDeclHandler = self._refuse_entity
        parser.SkippedEntityHandler = self._refuse_entity
        self._parser = parser

    def feed(self, chunk: bytes, fed: int) -> list[Element]:
        """Take bytes, of which `fed` have come now; return the records that have become whole."""
        self._parse(chunk, last=False)
        if fed - max(self._parser.CurrentByteIndex, 0) > _LONGEST_TOKEN:
            raise self._wrong(f"a tag or comment is longer than {_LONGEST_TOKEN} bytes")
        return self._taken()

    def end(self) -> list[Element]:
        """Return the last records; raise if the document is not at its end."""
        self._parse(b"", last=True)
        return self._taken()

    def _taken(self) -> list[Element]:
        whole, self._whole = self._whole, []
        return whole

    def _parse(self, chunk: bytes, *, last: bool) -> None:
        try:
            self._parser.Parse(chunk, last)
        except expat.ExpatError as error:
            problem = f"line {error.lineno}: {expat.ErrorString(error.code)}"
            raise UntrustedError(self._label, "malformed", problem) from None

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if not self._stack and _local(name) != self._root:
            raise self._wrong(f"the document is a <{name[:80]}>, not a <{self._root}>")
        if len(self._stack) == self._bounds.depth:
            raise self._wrong(f"more than {self._bounds.depth} elements inside each other")
        self._elements += 1
        if self._elements > self._bounds.elements:
            raise self._wrong(f"more than {self._bounds.elements} elements in one record")
        self._count(sum(len(key) + len(value) for key, value in attributes.items()))
        own = {_local(key): value for key, value in attributes.items() if not _declares_prefix(key)}
        self._stack.append(_Open(_local(name), own, self._parser.CurrentLineNumber))

    def _end(self, _: str) -> None:
        depth, ended = len(self._stack), self._stack.pop()
        if depth < self._level:
            return
        text = "".join(ended.text).strip()
        element = Element(ended.name, ended.attributes, text, tuple(ended.children), ended.line)
        if depth > self._level:
            self._stack[-1].children.append(element)
        else:
            self._whole.append(element)
            self._elements = self._characters = 0

    def _text(self, text: str) -> None:
        if len(self._stack) >= self._level:
            self._count(len(text))
            self._stack[-1].text.append(text)

    def _count(self, characters: int) -> None:
        self._characters += characters
        if self._characters > self._bounds.characters:
            raise self._wrong(f"more than {self._bounds.characters} characters in one record")

    def _declare(self, name: str, _system: str | None, _public: str | None, internal: int) -> None:
        if internal or name != self._doctype:
            raise self._wrong("a document type declaration, which could declare entities")

    def _refuse_entity(self, name: str, *_: object) -> None:
        raise self._wrong(f"the entity {name[:80]}")

    def _wrong(self, problem: str) -> UntrustedError:
        return UntrustedError(self._label, "malformed", f"line {self._parser.CurrentLineNumber}: {problem}")


def _local(name: str) -> str:
    return name.rpartition(":")[2]


def _declares_prefix(name: str) -> bool:
    return name == "xmlns" or name.startswith("xmlns:")
