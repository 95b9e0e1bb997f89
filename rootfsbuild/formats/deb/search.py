"""Which packages can be together with the fewest changes to a lock: an exact search, by SAT.

A package's relations become clauses only when a solution has come to need the package. What is not known yet can
make a solution look better than it is and never worse, so that the first one without anything unknown is a best one.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, count
from typing import TYPE_CHECKING

from rootfsbuild.formats.deb.needed import Choices, Missed
from rootfsbuild.formats.deb.options import HARD, NEGATIVE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rootfsbuild.formats.deb.locked import Held
    from rootfsbuild.formats.deb.metadata import Deb
    from rootfsbuild.formats.deb.relations import Relation

# What it costs that a package is lost, or moves; and where these are equal, that one is new, or goes.
_LOST, _MOVED, _NEW, _GONE = 1 << 40, 1 << 20, 2, 1


@dataclass(frozen=True)
class Question:
    """What is asked of a search."""

    held: Held
    choices: Choices
    demands: Sequence[tuple[Deb, ...]]
    """Of each, at least one is to be there."""
    kept: Sequence[Deb]
    """Locked packages that had better be there as they are."""
    named: frozenset[str]
    """Locked packages that may move at no cost."""
    fields: Sequence[str]
    """The relations that lead from one package to others, HARD among them."""
    wanted: frozenset[Missed]
    """Locked packages that had better be there, and meet a relation rather than leave it to what is new."""


class Search:
    """One search: what is known of the packages grows from one solution to the next."""

    def __init__(self, question: Question) -> None:
        # It takes longer to import than most commands take, and one of them needs it.
        from pysat.examples.rc2 import RC2  # noqa: PLC0415
        from pysat.formula import WCNF  # noqa: PLC0415

        self._question = question
        self._held = question.held
        self._solver = RC2(WCNF())
        self._numbers = count(1)
        self._variables: dict[str, dict[Deb, int]] = {}
        self._lost: dict[str, int] = {}
        self._leads_to: dict[Deb, list[Deb]] = {}
        """Of each package whose relations are known: what meets them."""
        self._is_settling = False

    def find(self) -> Mapping[str, Deb] | None:
        """Return packages by name that lose the fewest of those wanted, and move the fewest; None if there are none.

        Only what the demands lead to is among them.
        """
        for demand in self._question.demands:
            if not demand:
                return None
            self._solver.add_clause([self._variable(deb) for deb in demand])
        for deb in self._question.kept:
            self._solver.add_clause([self._variable(deb)], weight=_LOST)
        for name in sorted({missed.name for missed in self._question.wanted}):
            self._lost[name] = next(self._numbers)
            self._solver.add_clause([-self._lost[name]], weight=_LOST)
            self._solver.add_clause([*self._choices(name).values(), self._lost[name]])
        for name in self._held.locked:
            for deb in self._choices(name):
                self._read(deb)
            if choices := list(self._choices(name).values()):
                self._solver.add_clause(choices, weight=_GONE)
        found = self._solve()
        return None if found is None else self._reach(found)

    def settle(self) -> Mapping[str, Deb]:
        """Return, after `find`, of the best solutions one with few new packages; what is unneeded may stay."""
        self._is_settling = True
        for name in list(self._variables):
            self._prefer_old(name)
        found = self._solve()
        assert found is not None, "a preference rules nothing out"
        return {deb.name: deb for deb in self._all(found)}

    def _solve(self) -> frozenset[int] | None:
        while (model := self._solver.compute()) is not None:
            found = frozenset(literal for literal in model if literal > 0)
            selected = self._all(found) if self._is_settling else self._reach(found).values()
            unknown = [deb for deb in selected if deb not in self._leads_to]
            if not unknown:
                return found
            for deb in unknown:
                self._read(deb)
        return None

    def _all(self, found: frozenset[int]) -> list[Deb]:
        return [deb for debs in self._variables.values() for deb, number in debs.items() if number in found]

    def _reach(self, found: frozenset[int]) -> dict[str, Deb]:
        """Return the part of a solution that the demands lead to."""
        reached: dict[str, Deb] = {}
        waiting = [deb for demand in self._question.demands for deb in demand]
        waiting += self._question.kept
        while waiting:
            deb = waiting.pop()
            if deb.name not in reached and self._variable(deb) in found:
                reached[deb.name] = deb
                waiting += self._leads_to.get(deb, ())
        return reached

    # Variables.

    def _variable(self, deb: Deb) -> int:
        return self._choices(deb.name)[deb]

    def _choices(self, name: str) -> dict[Deb, int]:
        """Return the versions of a package, of which there is one at most, each with its variable."""
        found = self._variables.get(name)
        if found is None:
            found = {deb: next(self._numbers) for deb in self._question.choices(name)}
            self._variables[name] = found
            for one, other in combinations(found.values(), 2):
                self._solver.add_clause([-one, -other])
            self._prefer_locked(name)
            if self._is_settling:
                self._prefer_old(name)
        return found

    def _prefer_locked(self, name: str) -> None:
        locked = self._held.locked.get(name)
        for deb, number in self._variables[name].items():
            if locked not in {None, deb} and name not in self._question.named:
                self._solver.add_clause([-number], weight=_MOVED)

    def _prefer_old(self, name: str) -> None:
        if name not in self._held.locked:
            for number in self._variables[name].values():
                self._solver.add_clause([-number], weight=_NEW)

    # Clauses.

    def _read(self, deb: Deb) -> None:
        """Enter what a package needs and what it rules out."""
        if deb in self._leads_to:
            return
        self._leads_to[deb] = []
        number = self._variable(deb)
        for relation in _relations(deb, NEGATIVE):
            for other in self._meeting(relation):
                if other.name != deb.name:  # nobody conflicts with itself (Debian Policy 7.6.2)
                    self._solver.add_clause([-number, -self._variable(other)])
        for relation in _relations(deb, self._question.fields):
            options = self._meeting(relation)
            self._leads_to[deb] += options
            if relation.field in HARD:
                self._solver.add_clause([-number, *map(self._variable, options)])
            if self._lost and self._held.locked.get(deb.name) is not deb:
                self._count_lost(number, relation, options)

    def _count_lost(self, number: int, relation: Relation, options: Iterable[Deb]) -> None:
        """Let something of the lock meet a relation that what is wanted could meet, or let that count as lost."""
        old = [self._variable(deb) for deb in options if deb.name in self._held.preferred]
        for name, lost in self._lost.items():
            if Missed(name, relation) in self._question.wanted:
                self._solver.add_clause([-number, *old, lost])

    def _meeting(self, relation: Relation) -> list[Deb]:
        found = {
            deb: None
            for alternative in relation.alternatives
            for name in self._held.meeting(alternative)
            for deb in self._choices(name)
            if self._held.meets(deb, alternative)
        }
        return list(found)


def _relations(deb: Deb, fields: Iterable[str]) -> list[Relation]:
    return [relation for field in fields for relation in deb.relations(field)]
