"""Explanations for people: why a package is in a plan, and why a request cannot be met."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from rootfsbuild.errors import UnsatisfiableError
from rootfsbuild.formats.deb.options import NEGATIVE
from rootfsbuild.plan import Why

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from rootfsbuild.formats.deb.metadata import Deb, Universe
    from rootfsbuild.formats.deb.relations import Alternative, Relation
    from rootfsbuild.formats.deb.walk import Chosen
    from rootfsbuild.plan import Package, Reason

_CHAINS = 5
_LINES = 12


def why(packages: Sequence[Package], name: str) -> list[str]:
    """Return lines that lead from a request down to `name`, and under them what else could have been taken.

    Raises UnsatisfiableError, with the nearest names as its hint, for a package that the plan does not hold.
    """
    by_name = {package.name: package for package in packages}
    if name not in by_name:
        raise UnsatisfiableError(
            name, (f"{name} is not in the plan", *_lost(packages, name)), hint=nearest(name, by_name)
        )
    chain = [by_name[name]]
    while chain[0].reason.by in by_name and by_name[chain[0].reason.by] not in chain:
        chain.insert(0, by_name[chain[0].reason.by])
    lines = [f"{chain[0].name} {chain[0].version}: {_root(chain[0].reason)}"]
    lines += [
        f"{package.reason.by} {package.reason.detail} -> {package.name} {package.version}" for package in chain[1:]
    ]
    lines += [f"  not {other}: {rule}" for other, rule in chain[-1].reason.rejected]
    return lines


def nearest(name: str, names: Iterable[str]) -> str:
    """Return a hint that names the packages whose names are closest to `name`, empty if there are none."""
    alike = [known for known in names if abs(len(known) - len(name)) <= max(2, len(name) // 3)]
    close = difflib.get_close_matches(name, alike, n=4, cutoff=0.75)
    return f"did you mean {' or '.join(close)}?" if close else ""


def explain_conflict(
    universe: Universe, chosen: Chosen, requests: Sequence[str], excluded: Collection[str]
) -> UnsatisfiableError:
    """Return the error that says what keeps `requests` from being met.

    `requests` are names; the chains lead from them over the relations that the walk followed to each obstacle.
    """
    obstacles = sorted(chosen.broken, key=lambda pair: pair[0].name not in requests)
    decisive = [(deb, relation) for deb, relation in obstacles if _is_refusal(chosen, deb, relation)]
    wanted = decisive or [pair for pair in obstacles if pair[0].name in requests] or obstacles
    story = _Story(universe, chosen, excluded)
    lines: dict[str, None] = {}
    for deb, relation in wanted[:_CHAINS]:
        lines.update(dict.fromkeys([*story.path(deb), *story.relation(deb, relation)]))
    names = list(dict.fromkeys(story.request(deb) for deb, _ in wanted))
    more = [f"{len(names) - _CHAINS} more"] if len(names) > _CHAINS else []
    left_out = [name for name in excluded if f"{name} is excluded" in lines]
    return UnsatisfiableError(
        ", ".join([*names[:_CHAINS], *more]),
        tuple(lines)[: _CHAINS * _LINES],
        hint=f"take {' and '.join(sorted(left_out))} out of exclude" if left_out else "",
    )


def _is_refusal(chosen: Chosen, deb: Deb, relation: Relation) -> bool:
    # The walk stops at the first relation without a solution: those after it are broken only because of that.
    refusal = chosen.refusals.get(deb.name)
    return refusal is not None and refusal.by is None and refusal.relation is relation


class _Story:
    """One walk down from a request to what cannot be had; remembers what it has told."""

    def __init__(self, universe: Universe, chosen: Chosen, excluded: Collection[str]) -> None:
        self.universe = universe
        self.chosen = chosen
        self.excluded = excluded
        self.told: set[str] = set()

    def path(self, deb: Deb) -> list[str]:
        """Return the relations that led from a request to a package, outermost first."""
        lines: list[str] = []
        seen = {deb.name}
        while (choice := self.chosen.choices.get(deb.name)) is not None:
            lines.insert(0, f"{choice.by.name} {choice.relation}")
            deb = choice.by
            if deb.name in seen:
                break
            seen.add(deb.name)
        return lines

    def request(self, deb: Deb) -> str:
        """Return the name of the request that a package was chosen for."""
        seen: set[str] = set()
        while (choice := self.chosen.choices.get(deb.name)) is not None and deb.name not in seen:
            seen.add(deb.name)
            deb = choice.by
        return deb.name

    def relation(self, deb: Deb, relation: Relation) -> Iterator[str]:
        """Tell of a relation that cannot be kept, and of what each of its alternatives fails."""
        yield f"{deb.name} {relation}"
        if relation.field in NEGATIVE:
            yield from self._rivals(deb, relation)
            return
        for alternative in relation.alternatives:
            yield from self._alternative(alternative)

    def _rivals(self, deb: Deb, relation: Relation) -> Iterator[str]:
        for alternative in relation.alternatives:
            for name in self.universe.meeting(alternative):
                other = self.chosen.selected.get(name)
                if other is not None and name != deb.name and self.universe.meets(other, alternative):
                    yield f"{name} {other.version} is wanted as well"
                    yield from self.path(other)

    def _alternative(self, alternative: Alternative) -> Iterator[str]:
        debs = [deb for name in self.universe.meeting(alternative) for deb in self.universe.versions(name)]
        named = [deb for deb in debs if deb.name == alternative.name]
        able = [deb for deb in debs if self.universe.meets(deb, alternative)]
        if not debs:
            yield f"{alternative.name} is not in {self._everywhere()}"
        elif not able:
            yield from dict.fromkeys(self._shortfall(deb, alternative) for deb in named or debs)
        for deb in able:
            yield from self._refusal(deb)

    def _refusal(self, deb: Deb) -> Iterator[str]:
        if deb.name in self.told:
            return
        self.told.add(deb.name)
        refusal = self.chosen.refusals.get(deb.name)
        if deb.name in self.excluded:
            yield f"{deb.name} is excluded"
        elif refusal is not None and refusal.by is not None:
            yield f"{deb.name} {deb.version} is ruled out: {refusal.by.name} {refusal.relation}"
            yield from self.path(refusal.by)
        elif refusal is not None:
            yield from self.relation(refusal.deb, refusal.relation)
        elif deb is not self.universe.candidate(deb.name):
            yield f"{self._version(deb)}, which is not the version that would be installed"

    def _shortfall(self, deb: Deb, alternative: Alternative) -> str:
        provided = [item for item in deb.provides if item.name == alternative.name]
        if deb.name == alternative.name or not provided:
            return self._version(deb)
        return f"{deb.name} {deb.version} provides {provided[0]}" + (
            "" if provided[0].version else " without a version"
        )

    def _version(self, deb: Deb) -> str:
        return f"{deb.name} has version {deb.version} in {deb.placed.place}"

    def _everywhere(self) -> str:
        return ", ".join(dict.fromkeys(placed.place for placed in self.universe.placed)) or "any archive"


def _root(reason: Reason) -> str:
    return {
        Why.REQUESTED: f"requested as {reason.detail}",
        Why.ESSENTIAL: "Essential",
        Why.PRIORITY: f"priority {reason.detail}",
        Why.DISTRIBUTION: "selected by the distribution",
        Why.DEPENDENCY: f"needed by {reason.by} ({reason.detail})",
    }[reason.why]


def _lost(packages: Sequence[Package], name: str) -> Iterator[str]:
    for package in packages:
        for other, rule in package.reason.rejected:
            if other == name:
                reason = package.reason
                yield f"{reason.by} {reason.detail} took {package.name} instead: {name} is {rule}"
