"""Which packages cannot be together, and which of a lock therefore stand in the way of a change."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rootfsbuild.errors import UnsatisfiableError
from rootfsbuild.formats.deb.metadata import Deb, Universe
from rootfsbuild.formats.deb.options import HARD, NEGATIVE, Lookup
from rootfsbuild.formats.deb.resolve import meeting_in
from rootfsbuild.formats.deb.wanted import Wanted, read_request

if TYPE_CHECKING:
    from rootfsbuild.formats.deb.locked import Held
    from rootfsbuild.formats.deb.relations import Relation
    from rootfsbuild.plan import Request

Selected = Mapping[str, Deb]
"""Packages by name."""


def agrees(universe: Universe, selected: Selected) -> bool:
    """Tell whether packages can be installed together: every hard relation is met among them, nothing is ruled out."""
    return all(_fits(universe, deb, selected) for deb in selected.values())


def still_reached(universe: Universe, selected: Selected, spare: Selected, fields: Sequence[str]) -> dict[str, Deb]:
    """Return the part of `spare` that relations of `selected` lead to, as far as all can be installed together."""
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


def find_lost(held: Held, selected: Selected, fields: Sequence[str]) -> frozenset[str]:
    """Return the locked packages that are missing where nothing of the lock meets a relation that they could meet."""
    lost: set[str] = set()
    for relation in (relation for deb in selected.values() for relation in _relations(deb, fields)):
        names = {name for alternative in relation.alternatives for name in held.meeting(alternative)}
        missing = (names & held.locked.keys()) - selected.keys() - lost
        if missing and held.preferred.isdisjoint(meeting_in(held, selected, relation)):
            lost |= {name for name in missing if _can_meet(held, name, relation)}
    return frozenset(lost)


def find_obstacles(request: Request, held: Held) -> frozenset[str]:
    """Return held packages that cannot stay beside what is free or new; empty when none is seen to be in the way.

    More than need be: what could stay after all is seen later.
    """
    try:
        wanted = read_request(request, held)
    except UnsatisfiableError:
        return frozenset()
    moving, found = _find_moving(wanted, held)
    staying = {name: deb for name, deb in held.held.items() if wanted.candidate(name) is deb}
    rules_out = [relation for deb in moving.values() for relation in _relations(deb, NEGATIVE)]
    found |= {name for name, deb in staying.items() if _is_hit(held, deb, rules_out)}
    everything = {**staying, **moving}
    found |= {
        name
        for name, deb in staying.items()
        if not all(meeting_in(held, everything, relation) for relation in _relations(deb, HARD))
        or any(_others(held, moving, relation, deb) for relation in _relations(deb, NEGATIVE))
    }
    return frozenset(found & held.held.keys())


def _find_moving(wanted: Wanted, held: Held) -> tuple[dict[str, Deb], set[str]]:
    """Return what is free or new, with all that it may bring in, and what is held although that needs it otherwise."""
    roots = [*wanted.included.values(), *wanted.preselected.values(), *wanted.essential(), *wanted.by_priority()]
    free = [deb for name in held.locked if name in held.free and (deb := wanted.candidate(name)) is not None]
    moving = {deb.name: deb for deb in (*free, *roots) if deb.name not in held.held}
    found: set[str] = set()
    waiting = list(moving.values())
    while waiting:
        for relation in _relations(waiting.pop(), HARD):
            options = list(_candidates(held, wanted.candidate, relation))
            if any(deb.name in held.locked for deb in options):
                continue
            new = {deb.name: deb for deb in options if deb.name not in moving}
            moving |= new
            waiting += new.values()
            names = {name for alternative in relation.alternatives for name in held.meeting(alternative)}
            found |= {name for name in names & held.held.keys() if _can_meet(held, name, relation)}
    return moving, found


def _candidates(universe: Universe, candidate: Lookup, relation: Relation) -> Iterator[Deb]:
    for alternative in relation.alternatives:
        for name in universe.meeting(alternative):
            deb = candidate(name)
            if deb is not None and universe.meets(deb, alternative):
                yield deb


def _can_meet(held: Held, name: str, relation: Relation) -> bool:
    """Tell whether some version of a package, be it held or not, meets a relation."""
    return any(
        held.meets(deb, alternative) for deb in held.both.versions(name) for alternative in relation.alternatives
    )


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
    reached: dict[str, Deb] = {}
    waiting = list(selected.values())
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
