"""Who of a selection meets whose dependencies, rich ones included (rpm's manual, "Boolean Dependencies")."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rootfsbuild.formats.rpm.metadata import Universe

_OPERATORS = {"and", "or", "if", "unless", "else", "with", "without"}


class Links:
    """The packages that were chosen, and the dependencies between them."""

    def __init__(self, universe: Universe, chosen: Sequence[Any]) -> None:
        self._universe = universe
        self._chosen = {solvable.id for solvable in chosen}
        self._meeting: dict[str, tuple[int, ...]] = {}

    def relations(self, solvable: Any, key: int, marker: int = 0) -> list[str]:
        """Return one kind of dependency of a package, as rpm writes it, sorted; `marker` is lookup_deparray's."""
        return sorted(
            text
            for text in map(str, solvable.lookup_deparray(key, marker))
            if not text.startswith("solvable:")  # libsolv's own marks between kinds of entries
        )

    def meeting(self, text: str) -> tuple[int, ...]:
        """Return what of the selection meets a dependency, or is what a condition in it asks for."""
        if text not in self._meeting:
            self._meeting[text] = tuple(dict.fromkeys(self._rich(text) if text.startswith("(") else self._plain(text)))
        return self._meeting[text]

    def _plain(self, text: str) -> Iterator[int]:
        dependency = self._universe.dependency(text)
        if dependency is not None:
            yield from (one.id for one in self._universe.pool.whatprovides(dependency) if one.id in self._chosen)

    def _rich(self, text: str) -> Iterator[int]:
        first, *rest = split_rich(text)
        parts = dict(rest)
        if "if" in parts or "unless" in parts:
            met = self._holds(parts.get("if") or parts["unless"])
            wanted = first if met == ("if" in parts) else parts.get("else", "")
            yield from self.meeting(wanted) if wanted else ()
        elif "with" in parts or "without" in parts:
            found = self.meeting(first)
            for operator, part in rest:
                found = tuple(one for one in found if (one in self.meeting(part)) == (operator == "with"))
            yield from found
        else:
            for part in (first, *(part for _, part in rest)):
                yield from self.meeting(part)

    def _holds(self, text: str) -> bool:
        if not text.startswith("("):
            return bool(self.meeting(text))
        first, *rest = split_rich(text)
        if rest and rest[0][0] == "and":
            return all(self._holds(part) for part in (first, *(part for _, part in rest)))
        return bool(self.meeting(text))


def split_rich(text: str) -> tuple[Any, ...]:
    """Split `(a or b)` into its first operand and (operator, operand) pairs; operands may be rich themselves."""
    operands: list[list[str]] = [[]]
    operators: list[str] = []
    depth = 0
    for word in text[1:-1].split(" "):
        if not depth and word in _OPERATORS:
            operators.append(word)
            operands.append([])
            continue
        operands[-1].append(word)
        depth += word.count("(") - word.count(")")
    first, *others = [" ".join(words) for words in operands]
    return (first, *zip(operators, others, strict=True))
