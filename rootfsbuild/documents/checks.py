"""Checks a document against its table of fields; errors name place, expectation and nearest word."""

from __future__ import annotations

import datetime as dt
import difflib
import re
from typing import TYPE_CHECKING, Any, Protocol

from rootfsbuild.documents.moments import as_time
from rootfsbuild.documents.paths import Path, dotted
from rootfsbuild.documents.shapes import Either, Flag, Moment, Named, Several, Shape, Table, Text, Whole
from rootfsbuild.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from rootfsbuild.documents.toml import Document

_TYPES: Mapping[type, type | tuple[type, ...]] = {
    Text: str,
    Whole: int,
    Flag: bool,
    Moment: (str, dt.date),
    Several: list,
    Table: dict,
    Named: dict,
}


def check(document: Document, table: Table) -> None:
    """Check the types, keys and values of a document.

    Raises RecipeError with line and dotted path. Missing keys are not its business: an extended document may
    hold them.
    """
    _check(document, document.data, table, table, ())


def require(written: Written, data: Mapping[str, Any], table: Table, path: Path = ()) -> None:
    """Check that every required key is there, in this table and in those below it; raises RecipeError."""
    for name, field in table.fields.items():
        here = (*path, name)
        if name not in data:
            if field.required:
                raise wrong(written, here, "missing", field.shape.expected, _example(path, name, field.example))
            continue
        for below, value, shape in _tables(here, data[name], field.shape):
            require(written, value, shape, below)


class Written(Protocol):
    """Anything that knows where its values were written: a Document, or several merged."""

    def place(self, path: Path) -> tuple[str, int | None]:
        """Return file and line."""


def wrong(written: Written, path: Path, problem: str, expected: str = "", hint: str = "") -> RecipeError:
    """Return the error for one value."""
    file, line = written.place(path)
    return RecipeError(file, problem, dotted(path), line, expected, hint=hint)


def nearest(word: str, words: Iterable[str]) -> str:
    """Return the word that was probably meant, or an empty string."""
    known = {candidate.casefold(): candidate for candidate in words}
    close = difflib.get_close_matches(word.casefold(), known, 1)
    if not close and len(word) > 2:
        close = [candidate for candidate in known if candidate.startswith(word.casefold())][:1]
    return known[close[0]] if close else ""


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """Return a hint that names the nearest word, or an empty string."""
    near = nearest(word, words)
    return f'did you mean "{near}"?' if near else ""


def list_words(words: Iterable[str]) -> str:
    """Return words as a list of alternatives for an error."""
    return "one of " + ", ".join(words)


def _check(document: Document, value: object, shape: Shape, whole: Table, path: Path) -> None:
    if not _is_type(value, shape):
        raise wrong(document, path, f"{_call(value)} cannot stand here", shape.expected)
    match shape:
        case Text() | Whole() | Moment() | Flag():
            _check_value(document, value, shape, path)
        case Several() if isinstance(value, list):
            for index, item in enumerate(value):
                _check(document, item, shape.item, whole, (*path, index))
        case Named() if isinstance(value, dict):
            for key, item in value.items():
                _check_value(document, key, shape.key, (*path, key))
                _check(document, item, shape.value, whole, (*path, key))
        case Table() if isinstance(value, dict):
            _check_table(document, value, shape, whole, path)
        case Either():
            _check(document, value, next(s for s in shape.options if _is_type(value, s)), whole, path)


def _check_value(document: Document, value: object, shape: Text | Whole | Moment | Flag, path: Path) -> None:
    if isinstance(shape, Text):
        _check_text(document, str(value), shape, path)
    elif isinstance(shape, Whole) and isinstance(value, int) and not shape.least <= value <= shape.most:
        raise wrong(document, path, f"{value} is out of range", shape.expected)
    elif isinstance(shape, Moment):
        try:
            as_time(value)
        except ValueError:
            raise wrong(document, path, f'"{value}" is no date or time', shape.expected) from None


def _check_table(document: Document, value: Mapping[str, object], table: Table, whole: Table, path: Path) -> None:
    for key, item in value.items():
        if key not in table.fields:
            hint = _hint_at_key(key, table, whole)
            raise wrong(document, (*path, key), "unknown key", list_words(table.fields), hint)
        _check(document, item, table.fields[key].shape, whole, (*path, key))


def _hint_at_key(key: str, table: Table, whole: Table) -> str:
    # A right word in the wrong table is likelier than a misspelt one in the right table.
    elsewhere = {str(place[-1]): dotted(place) for place in reversed([*_places(whole)])}
    meant = elsewhere.get(key) or nearest(key, table.fields) or elsewhere.get(nearest(key, elsewhere))
    return f'did you mean "{meant}"?' if meant else ""


def _check_text(document: Document, value: str, shape: Text, path: Path) -> None:
    if shape.choices and value not in shape.choices and value not in shape.aliases:
        hint = did_you_mean(value, [*shape.choices, *shape.aliases])
        raise wrong(document, path, f'unknown value "{value}"', list_words(shape.choices), hint)
    if shape.pattern and not re.fullmatch(shape.pattern, value):
        raise wrong(document, path, f'"{value}" cannot stand here', shape.expected)


def _is_type(value: object, shape: Shape) -> bool:
    if isinstance(shape, Either):
        return any(_is_type(value, option) for option in shape.options)
    # Python's bool is an int; TOML's is not.
    return isinstance(value, _TYPES[type(shape)]) and isinstance(value, bool) == isinstance(shape, Flag)


def _call(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return f'the string "{value}"'
        case int() | float():
            return f"the number {value}"
        case list():
            return "an array"
        case dict():
            return "a table"
        case _:
            return "a date or time"


def _tables(path: Path, value: object, shape: Shape) -> Iterator[tuple[Path, Mapping[str, Any], Table]]:
    match shape:
        case Table() if isinstance(value, dict):
            yield path, value, shape
        case Several() if isinstance(value, list):
            for index, item in enumerate(value):
                yield from _tables((*path, index), item, shape.item)
        case Named() if isinstance(value, dict):
            for key, item in value.items():
                yield from _tables((*path, key), item, shape.value)
        case Either():
            yield from _tables(path, value, next(s for s in shape.options if _is_type(value, s)))


def _places(table: Table, path: Path = ()) -> Iterator[Path]:
    for name, field in table.fields.items():
        yield (*path, name)
        shape = field.shape.item if isinstance(field.shape, Several) else field.shape
        if isinstance(shape, Table):
            yield from _places(shape, (*path, name))


def _example(path: Path, name: str, example: object) -> str:
    if example is None:
        return ""
    written = str(example).lower() if isinstance(example, bool | int) else f'"{example}"'
    return f"add {name} = {written}" + (f" to {dotted(path)}" if path else "")
