"""Relations between packages as control fields write them (Debian Policy 7.1, deb-control(5))."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

_ALTERNATIVE = re.compile(
    r"\s*(?P<name>[^\s,|()\[\]<>:]+)(?::(?P<qualifier>[A-Za-z0-9-]+))?\s*"
    r"(?:\(\s*(?P<operator><<|<=|>=|>>|=|<|>)?\s*(?P<version>[^\s()]+)\s*\))?\s*"
)
# Debian Policy 7.1: the two deprecated forms meant the non-strict order.
_OPERATORS = {"<": "<=", ">": ">=", None: "="}


@dataclass(frozen=True)
class Alternative:
    """One member of a relation: a name, for which architecture, in which versions."""

    name: str
    qualifier: str = ""
    """After the colon: `any`, `native`, an architecture, or empty."""
    operator: str = ""
    """`<<`, `<=`, `=`, `>=`, `>>`, or empty when any version will do."""
    version: str = ""

    def __str__(self) -> str:
        """Return the alternative as a control field writes it."""
        qualifier = f":{self.qualifier}" if self.qualifier else ""
        return f"{self.name}{qualifier}" + (f" ({self.operator} {self.version})" if self.operator else "")


@dataclass(frozen=True)
class Relation:
    """A group of alternatives in one field, any of which will do."""

    field: str
    """As control files spell it: `Pre-Depends`, `Breaks`."""
    alternatives: tuple[Alternative, ...]

    def __str__(self) -> str:
        """Return the relation with its field: `Depends: debconf (>= 0.5) | debconf-2.0`."""
        return f"{self.field}: {' | '.join(map(str, self.alternatives))}"


@lru_cache(maxsize=1 << 14)
def parse_relations(field: str, value: str) -> tuple[Relation, ...]:
    """Read a field's value. Raises ValueError, naming what cannot be read."""
    return tuple(
        Relation(field, tuple(map(_parse_alternative, group.split("|")))) for group in value.split(",") if group.strip()
    )


def _parse_alternative(text: str) -> Alternative:
    match = _ALTERNATIVE.fullmatch(text)
    if match is None:
        raise ValueError(f"cannot read the relation {text.strip()!r}")
    name, qualifier, operator, version = match.group("name", "qualifier", "operator", "version")
    if not version:
        return Alternative(name, qualifier or "")
    return Alternative(name, qualifier or "", _OPERATORS.get(operator, operator), version)
