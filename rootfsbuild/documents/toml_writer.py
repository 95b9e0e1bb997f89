"""TOML as text, in one fixed layout: equal values are equal bytes, and a changed value is a changed line."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_WIDTH = 100


def write_table(header: str, values: Mapping[str, object]) -> str:
    """Return `[header]` or `[[header]]`, as given, and a line for each value; empty without a header's line."""
    head = f"{header}\n" if header else ""
    return head + "".join(f"{_key(name)} = {_value(value)}\n" for name, value in values.items())


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _string(name)


def _value(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case str():
            return _string(value)
        case list() | tuple():
            return _array([_value(item) for item in value])
        case dict():
            return "{" + ", ".join(f"{_key(name)} = {_value(item)}" for name, item in value.items()) + "}"
    raise TypeError(f"a {type(value).__name__} has no place in TOML")


def _array(items: list[str]) -> str:
    # An element a line where there are many, so that a difference shows the one that changed.
    line = f"[{', '.join(items)}]"
    return line if len(line) <= _WIDTH else "[\n" + "".join(f"  {item},\n" for item in items) + "]"


def _string(text: str) -> str:
    return '"' + "".join(_character(character) for character in text) + '"'


def _character(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    # Basic strings take everything but control characters (TOML 1.0); TOML has no surrogates at all.
    code = ord(character)
    if code < 0x20 or code == 0x7F:
        return f"\\u{code:04X}"
    return "\N{REPLACEMENT CHARACTER}" if 0xD800 <= code < 0xE000 else character
