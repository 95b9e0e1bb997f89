"""YAML as modules.yaml uses it: tables, lists and text; no tags, no references, everything bounded.

libyaml finds the structure. Every scalar stays the text that it is: `stream: 5.30` and `stream: 10` are names, which a
YAML schema would turn into the numbers 5.3 and 10.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rootfsbuild.errors import UntrustedError

Value = str | Sequence["Value"] | Mapping[str, "Value"]
_Stack = list[tuple[Any, list[str]]]

DEPTH = 24
NODES = 2_000_000
"""The most values in one document: Fedora's largest module has 20,000."""

_PLAIN_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "seq", "map")}
_NOTHING = {"", "~", "null", "Null", "NULL"}


@dataclass(frozen=True)
class Written:
    """One document of a stream."""

    value: Value
    line: int
    """Where it begins, from 1."""


def read_documents(chunks: Iterable[bytes], label: str) -> Iterator[Written]:
    """Yield every document of a stream as soon as it is whole; nothing at all comes as empty text.

    Raises UntrustedError (rule `malformed`) with the line, for whatever is no YAML, uses tags or aliases, has a key
    twice or one that is no text, or goes beyond the bounds.
    """
    import yaml  # noqa: PLC0415 - 12 ms that only repositories with modules pay

    reader = _Reader(label)
    try:
        for event in yaml.parse(_Stream(chunks), Loader=yaml.CSafeLoader):
            if isinstance(event, yaml.DocumentEndEvent):
                yield reader.take()
            elif isinstance(event, yaml.NodeEvent):
                reader.node(event, yaml)
            elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
                reader.close()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark else ""
        raise UntrustedError(label, "malformed", f"{line}is no YAML: {error.problem or error.context}") from None
    except yaml.reader.ReaderError as error:
        problem = f"is no YAML: {error.reason} (the byte {error.position})"
        raise UntrustedError(label, "malformed", problem) from None


class _Stream:
    """Chunks as what libyaml reads from."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._chunk = b""
        self._at = 0

    def read(self, size: int = 1 << 14, /) -> bytes:
        """Return at most `size` bytes, none at the end."""
        while self._at >= len(self._chunk):
            try:
                self._chunk, self._at = next(self._chunks), 0
            except StopIteration:
                return b""
        taken = self._chunk[self._at : self._at + size]
        self._at += len(taken)
        return taken


class _Reader:
    """Builds the value of one document after the other from libyaml's events."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._forget()

    def _forget(self) -> None:
        self._root: Value = ""
        self._line = self._nodes = 0
        self._open: list[list[Value] | dict[str, Value]] = []
        self._keys: list[str | None] = []
        """For every open value the key that waits for its value."""

    def node(self, event: Any, yaml: Any) -> None:
        """Take a scalar, or the beginning of a table or a list."""
        line = event.start_mark.line + 1
        self._line = self._line or line
        self._nodes += 1
        if isinstance(event, yaml.AliasEvent):
            raise self._wrong(line, "a reference (*name)")
        if event.tag and event.tag not in _PLAIN_TAGS | {"!"}:
            raise self._wrong(line, f"the tag {event.tag[:80]}")
        if self._nodes > NODES or len(self._open) >= DEPTH:
            raise self._wrong(line, f"more than {NODES} values, or {DEPTH} of them inside each other")
        if isinstance(event, yaml.ScalarEvent):
            nothing = event.implicit[0] and event.value in _NOTHING
            self._place("" if nothing else event.value, line)
            return
        value: list[Value] | dict[str, Value] = {} if isinstance(event, yaml.MappingStartEvent) else []
        self._place(value, line)
        self._open.append(value)
        self._keys.append(None)

    def close(self) -> None:
        """End the innermost table or list."""
        self._open.pop()
        self._keys.pop()

    def take(self) -> Written:
        """Return the document that has ended, and begin another."""
        written = Written(self._root, self._line)
        self._forget()
        return written

    def _place(self, value: Any, line: int) -> None:
        if not self._open:
            self._root = value
            return
        inner, key = self._open[-1], self._keys[-1]
        if isinstance(inner, list):
            inner.append(value)
        elif key is not None:
            inner[key] = value
            self._keys[-1] = None
        elif not isinstance(value, str):
            raise self._wrong(line, "a key that is no text")
        elif value in inner:
            raise self._wrong(line, f"the key {value[:80]!r} twice")
        else:
            self._keys[-1] = value

    def _wrong(self, line: int, problem: str) -> UntrustedError:
        return UntrustedError(self._label, "malformed", f"line {line}: {problem}")
