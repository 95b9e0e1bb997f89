"""What of a lock is still needed: kept where nothing is in its way, and lost where something else has its place."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rootfsbuild.formats.deb.metadata import Deb, Universe
from rootfsbuild.formats.deb.options import HARD, NEGATIVE
from rootfsbuild.formats.deb.resolve import meeting_in

if TYPE_CHECKING:
    from rootfsbuild.formats.deb.locked import Held
    from rootfsbuild.formats.deb.relations import Relation

Selected = Mapping[str, Deb]
"""Packages by name."""

Choices = Callable[[str], tuple[Deb, ...]]
"""The versions that a package may have; the same objects for the same name."""


@dataclass(frozen=True)
class Missed:
    """A locked package that is not there, and a relation that it could meet."""

    name: str
    relation: Relation


def still_reached(universe: Universe, selected: Selected, spare: Selected, fields: Sequence[str]) -> dict[str, Deb]:
    """Return the part of `spare` that relations of `selected` lead to, as far as all can be installed together.

    What is Essential or Protected counts as led to, as it does when apt looks for what nothing needs.
    """
    left = dict(spare)
    while left:
        reached = _reach(universe, selected, left, fields)
        together = {**selected, **reached}
        rules_out = [relation for deb in selected.values() for relation in _relations(deb, NEGATIVE)]
        bad = [
            name
            for name, deb in reached.items()
            if not _fits(universe, deb, together) or _is_hit(universe, deb, rules_out)
        ]
        if not bad:
            return reached
        # What lies farther from the requests goes first: others may fit without it.
        del left[bad[-1]]
    return {}


def find_missed(
    held: Held, choices: Choices, roots: Collection[str], selected: Selected, fields: Sequence[str]
) -> frozenset[Missed]:
    """Return where locked packages are missing: a relation that they could meet is left to what comes for it alone.

    What stays as it is needs them as they are; what is new or moves could have them in another version too. `roots`
    are the names that are there for nobody else's sake.
    """
    missed: set[Missed] = set()
    for deb in selected.values():
        stays = held.locked.get(deb.name) is deb
        for relation in _relations(deb, fields):
            meeting = meeting_in(held, selected, relation)
            if not held.preferred.isdisjoint(meeting):
                continue
            able = {
                other.name
                for other in _able(held, choices, relation)
                if other.name not in selected and (not stays or other is held.locked[other.name])
            }
            if able and _lead_to(held, selected, roots, fields, without=(deb, relation)).isdisjoint(meeting):
                missed |= {Missed(name, relation) for name in able}
    return frozenset(missed)


def _lead_to(
    held: Held, selected: Selected, roots: Collection[str], fields: Sequence[str], *, without: tuple[Deb, Relation]
) -> set[str]:
    """Return what the roots lead to, but for one relation."""
    reached = {name for name in roots if name in selected}
    waiting = [selected[name] for name in reached]
    while waiting:
        deb = waiting.pop()
        for relation in _relations(deb, fields):
            if (deb, relation) != without:
                new = set(meeting_in(held, selected, relation)) - reached
                reached |= new
                waiting += [selected[name] for name in new]
    return reached


def _able(held: Held, choices: Choices, relation: Relation) -> Iterator[Deb]:
    """Yield the versions of locked packages that can meet a relation."""
    for alternative in relation.alternatives:
        for name in held.meeting(alternative):
            if name in held.locked:
                yield from (deb for deb in choices(name) if held.meets(deb, alternative))


def _fits(universe: Universe, deb: Deb, selected: Selected) -> bool:
    return all(meeting_in(universe, selected, relation) for relation in _relations(deb, HARD)) and not any(
        _others(universe, selected, relation, deb) for relation in _relations(deb, NEGATIVE)
    )


def _others(universe: Universe, selected: Selected, relation: Relation, owner: Deb) -> list[str]:
    # Nobody conflicts with itself (Debian Policy 7.6.2).
    return [name for name in meeting_in(universe, selected, relation) if name != owner.name]


def _is_hit(universe: Universe, deb: Deb, rules_out: Iterable[Relation]) -> bool:
    return any(universe.meets(deb, alternative) for relation in rules_out for alternative in relation.alternatives)


def _reach(universe: Universe, selected: Selected, spare: Selected, fields: Sequence[str]) -> dict[str, Deb]:
    reached = {name: deb for name, deb in spare.items() if universe.is_essential(name) or universe.is_important(name)}
    waiting = [*selected.values(), *reached.values()]
    while waiting:
        for relation in _relations(waiting.pop(), fields):
            for name in meeting_in(universe, spare, relation):
                if name not in reached:
                    reached[name] = spare[name]
                    waiting.append(spare[name])
    return reached


def _relations(deb: Deb, fields: Collection[str]) -> Iterator[Relation]:
    for field in fields:
        yield from deb.relations(field)
