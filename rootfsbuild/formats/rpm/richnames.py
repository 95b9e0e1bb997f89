"""The names that a rich dependency speaks of, as rpm's database lists them.

See rpm's documentation, "Boolean Dependencies", and rpm's updateRichDep. By these names rpm finds what a package that
comes or goes may break. What stands behind `if` or `unless` is listed with a `!` before it, since there it is the
coming that breaks; with an `else`, in both ways.
"""

from __future__ import annotations

from dataclasses import dataclass, field

_SPACE = b" \t\n\r\f\v,"
_OPERATORS = frozenset({b"and", b"or", b"if", b"unless", b"else", b"with", b"without"})
_CONDITIONS = frozenset({b"if", b"unless"})
_RELATIONS = frozenset({b"<", b"<=", b"=<", b"=", b"==", b">", b">=", b"=>"})


@dataclass
class _Level:
    """One pair of parentheses that is still open."""

    condition: int
    """Where in the list of names its condition begins."""
    operator: bytes = b""


@dataclass
class _Reading:
    """How far the reading of a dependency has come."""

    text: bytes
    at: int = 0
    names: list[tuple[bool, bytes]] = field(default_factory=list)
    negative: bool = False
    levels: list[_Level] = field(default_factory=list)


def rich_names(text: bytes) -> tuple[bytes, ...]:
    """Return the names of a dependency that begins with `(`, each once and in rpm's order.

    What is malformed has none, as for rpm; what follows the last parenthesis does not matter.
    """
    reading = _Reading(text)
    try:
        _read(reading)
    except ValueError:
        return ()
    return tuple((b"!" if negative else b"") + name for negative, name in sorted(set(reading.names)))


def _read(reading: _Reading) -> None:
    """Read up to the last parenthesis; a loop, since packages of strangers may nest as deeply as they like."""
    if not reading.text.startswith(b"("):
        raise ValueError("it is not rich")
    wants_operand = True
    while True:
        _skip_space(reading)
        sign = reading.text[reading.at : reading.at + 1]
        if not sign:
            raise ValueError("it does not end")
        if wants_operand and sign == b"(":
            reading.at += 1
            reading.levels.append(_Level(len(reading.names)))
        elif wants_operand:
            _read_name(reading)
            wants_operand = False
        elif sign == b")":
            reading.at += 1
            if reading.levels.pop().operator in _CONDITIONS:
                reading.negative = not reading.negative
            if not reading.levels:
                return
        else:
            _read_operator(reading)
            wants_operand = True


def _read_name(reading: _Reading) -> None:
    name = _word(reading)
    if not name:
        raise ValueError("a name is missing")
    _skip_space(reading)
    before = reading.at
    if _word(reading) in _RELATIONS:
        _skip_space(reading)
        if not _word(reading):
            raise ValueError("a version is missing")
    else:
        reading.at = before
    if not name.startswith(b"rpmlib("):
        reading.names.append((reading.negative, name))


def _read_operator(reading: _Reading) -> None:
    end = reading.at
    while end < len(reading.text) and reading.text[end] not in b" \t\n\r\f\v)":
        end += 1
    operator = reading.text[reading.at : end]
    if operator not in _OPERATORS:
        raise ValueError("it is no operator")
    reading.at = end
    level = reading.levels[-1]
    level.operator = operator
    if operator in _CONDITIONS:
        level.condition = len(reading.names)
        reading.negative = not reading.negative
    elif operator == b"else":
        reading.names += [(not negative, name) for negative, name in reading.names[level.condition :]]
        reading.negative = not reading.negative


def _skip_space(reading: _Reading) -> None:
    while reading.at < len(reading.text) and reading.text[reading.at] in _SPACE:
        reading.at += 1


def _word(reading: _Reading) -> bytes:
    """Take what ends at a space or at a parenthesis that was not opened in it, as in `libc.so.6()(64bit)`."""
    begin, depth = reading.at, 0
    while reading.at < len(reading.text):
        sign = reading.text[reading.at]
        if sign in _SPACE or (sign == 0x29 and depth <= 0):
            break
        depth += (sign == 0x28) - (sign == 0x29)
        reading.at += 1
    return reading.text[begin : reading.at]
