"""What a field of a document may hold, as values: checking, merging and the JSON Schema all read these."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Text:
    """A string."""

    expected: str = "a string"
    """What it must be, as a noun phrase for errors."""
    pattern: str = ""
    """A regular expression that matches the whole of it; within what Python and ECMA-262 have in common."""
    choices: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Other words for some choices -> the choice."""


@dataclass(frozen=True)
class Whole:
    """An integer within bounds."""

    least: int
    most: int
    expected: str = "a whole number"


@dataclass(frozen=True)
class Flag:
    """True or false."""

    expected: str = "true or false"


@dataclass(frozen=True)
class Moment:
    """A date or a time, as TOML writes them or as a string."""

    expected: str = "a date such as 2026-10-01 or a time such as 20261001T000000Z"
    pattern: str = (
        r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
        r"([Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})?)?"
        r"|[0-9]{8}(T[0-9]{6}Z)?"
    )


@dataclass(frozen=True)
class Several:
    """An array."""

    item: Shape
    expected: str = "an array"


@dataclass(frozen=True)
class Table:
    """A table whose keys are known."""

    fields: Mapping[str, Field]
    expected: str = "a table"


@dataclass(frozen=True)
class Named:
    """A table whose keys are the user's."""

    key: Text
    value: Shape
    expected: str = "a table"


@dataclass(frozen=True)
class Either:
    """One of several shapes, told apart by their TOML types."""

    options: tuple[Shape, ...]

    @property
    def expected(self) -> str:
        """The expectations of the options."""
        return " or ".join(dict.fromkeys(option.expected for option in self.options))


Shape = Text | Whole | Flag | Moment | Several | Table | Named | Either


@dataclass(frozen=True)
class Field:
    """One key of a table."""

    shape: Shape
    about: str
    """One sentence for people who write the document."""
    default: object = None
    """The value when nothing is said; None when there is none, or when it depends on the rest."""
    required: bool = False
    joins: bool = False
    """Whether an array continues the array of an extended document instead of taking its place."""
    example: object = None
