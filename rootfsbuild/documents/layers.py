"""Several documents become one: the later ones win, and every value remembers where it was written."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rootfsbuild.documents.shapes import Several, Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rootfsbuild.documents.paths import Path
    from rootfsbuild.documents.toml import Document


@dataclass(frozen=True)
class Origin:
    """Where a value was written."""

    file: str
    line: int | None = None

    def __str__(self) -> str:
        """Return `file:line`, or the file's name alone for a value without a line."""
        return self.file if self.line is None else f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Merged:
    """The values of several documents, with the origin of each key and array element."""

    file: str
    """The document that extends the others: named in errors about what none of them says."""
    data: Mapping[str, Any]
    origins: Mapping[Path, Origin]

    def place(self, path: Path) -> tuple[str, int | None]:
        """Return file and line of a value, or of the nearest table around it."""
        for length in range(len(path), 0, -1):
            if origin := self.origins.get(path[:length]):
                return origin.file, origin.line
        return self.file, None

    def beside(self, path: Path, name: str) -> str:
        """Return the path of a file that the value at `path` names relative to its document."""
        return os.path.normpath(os.path.join(os.path.dirname(self.place(path)[0]), name))


def merge(file: str, documents: Sequence[Document], table: Table) -> Merged:
    """Merge documents, the first being the one that the others build on.

    Tables merge key by key. An array replaces the earlier one, unless its field joins: then it continues it.
    """
    data: dict[str, Any] = {}
    origins: dict[Path, Origin] = {}
    joining = frozenset(_joining(table, ()))
    for document in documents:
        _merge_table(data, document.data, (), _Pen(document, origins, joining))
    return Merged(file, data, origins)


@dataclass(frozen=True)
class _Pen:
    """What stays the same while one document is written into the merged one."""

    document: Document
    origins: dict[Path, Origin]
    joining: frozenset[Path]

    def note(self, value: object, written: Path, path: Path) -> None:
        self.origins[path] = Origin(*self.document.place(written))
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, item in items:
            self.note(item, (*written, key), (*path, key))

    def forget(self, path: Path) -> None:
        for stale in [known for known in self.origins if known[: len(path)] == path]:
            del self.origins[stale]


def look_up(data: Mapping[str, Any], table: Table, path: Sequence[str]) -> Any:
    """Return a value of a document, or the default of its field."""
    for name in path[:-1]:
        shape = table.fields[name].shape
        assert isinstance(shape, Table)
        data, table = data.get(name, {}), shape
    return data.get(path[-1], table.fields[path[-1]].default)


def _joining(table: Table, path: Path) -> list[Path]:
    paths: list[Path] = []
    for name, field in table.fields.items():
        if field.joins and isinstance(field.shape, Several):
            paths.append((*path, name))
        elif isinstance(field.shape, Table):
            paths += _joining(field.shape, (*path, name))
    return paths


def _merge_table(into: dict[str, Any], table: Mapping[str, Any], path: Path, pen: _Pen) -> None:
    for key, value in table.items():
        here = (*path, key)
        old = into.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            _merge_table(old, value, here, pen)
        elif here in pen.joining and isinstance(old, list):
            into[key] = old + value
            for index, item in enumerate(value):
                pen.note(item, (*here, index), (*here, len(old) + index))
        else:
            pen.forget(here)
            into[key] = _copy(value)
            pen.note(value, here, here)


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value
