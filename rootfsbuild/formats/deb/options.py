"""What could meet a relation as apt's marks stand, and which of it apt tries first.

Which packages to take is `walk`'s business; nothing here marks any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from rootfsbuild.formats.deb.metadata import Deb, Universe
from rootfsbuild.formats.deb.relations import Alternative, Relation

HARD = ("Pre-Depends", "Depends")
NEGATIVE = ("Conflicts", "Breaks")

Lookup = Callable[[str], Deb | None]


@dataclass(eq=False)
class State:
    """apt's marks on one package."""

    candidate: Deb | None
    current: Deb | None
    install: Deb | None
    marked: bool = False
    """Whether its mode is "install", as opposed to "keep"."""
    protected: bool = False
    automatic: bool = False
    past: list[tuple[int, Deb | None]] = field(default_factory=list)
    """Candidates it had, each with the moment from which it had the next."""


class Options:
    """The marks on all packages, and what they make of a relation; one for each walk."""

    def __init__(self, universe: Universe, candidate: Lookup, current: Mapping[str, Deb]) -> None:
        self.universe = universe
        self.states = {name: State(deb, deb, deb) for name, deb in current.items()}
        self._candidate = candidate
        self._moment = 0
        self._looked: dict[str, int] = {}

    def state(self, name: str) -> State:
        """Return the marks of a package."""
        found = self.states.get(name)
        if found is None:
            found = self.states[name] = State(self._candidate(name), None, None)
        return found

    def discard(self, state: State, candidate: Deb | None) -> None:
        """Give a package another candidate than it had."""
        if state.candidate is not candidate:
            self._moment += 1
            state.past.append((self._moment, state.candidate))
            state.candidate = candidate

    def look(self, name: str, deb: Deb | None) -> None:
        """Forget the candidates that were discarded, for relations that `deb` meets."""
        self._looked[name] = self._moment
        for provided in deb.provides if deb is not None else ():
            self._looked[provided.name] = self._moment

    # What a name stands for.

    def _installed(self, name: str) -> Deb | None:
        found = self.states.get(name)
        return found.install if found is not None else None

    def _before(self, name: str) -> Deb | None:
        found = self.states.get(name)
        return found.current if found is not None else None

    def _now(self, name: str) -> Deb | None:
        return self.state(name).candidate

    def _remembered(self, target: str) -> Lookup:
        # apt keeps what it found about candidates with each relation, and looks again only when a package that
        # meets the relation is marked: a discarded candidate goes on counting until then.
        since = self._looked.get(target, 0)

        def candidate(name: str) -> Deb | None:
            state = self.state(name)
            return next((deb for moment, deb in state.past if moment > since), state.candidate)

        return candidate

    # What meets a relation.

    def _meeting(self, owner: Deb, relation: Relation, alternative: Alternative, lookup: Lookup) -> Iterator[Deb]:
        negative = relation.field in NEGATIVE
        for name in self.universe.meeting(alternative):
            if negative and name == owner.name:
                continue  # nobody conflicts with itself (Debian Policy 7.6.2)
            deb = lookup(name)
            if deb is not None and self.universe.meets(deb, alternative):
                yield deb

    def is_kept(self, owner: Deb, relation: Relation) -> bool:
        """Tell whether the selection meets a relation, or stays clear of what it rules out."""
        return (next(self.met_by(owner, relation), None) is not None) != (relation.field in NEGATIVE)

    def met_by(self, owner: Deb, relation: Relation) -> Iterator[Deb]:
        """Yield what of the selection meets a relation, or is ruled out by it."""
        for alternative in relation.alternatives:
            yield from self._meeting(owner, relation, alternative, self._installed)

    def had_option(self, owner: Deb, relation: Relation, only: Alternative | None = None) -> bool:
        """Tell whether apt remembers a candidate that meets a relation, or one alternative of it."""
        return any(
            next(self._meeting(owner, relation, alternative, self._remembered(alternative.name)), None) is not None
            for alternative in relation.alternatives
            if only is None or alternative is only
        )

    def is_met_before(self, owner: Deb, relation: Relation, alternative: Alternative) -> bool:
        """Tell whether what was installed before meets an alternative."""
        return next(self._meeting(owner, relation, alternative, self._before), None) is not None

    # What apt tries, and in which order.

    def solutions(self, owner: Deb, relation: Relation) -> list[Deb]:
        """Return the candidates that meet a relation, in the order in which apt tries them."""
        found: list[Deb] = []
        for alternative in relation.alternatives:
            found += self._in_order(alternative, list(self._meeting(owner, relation, alternative, self._now)))
        preferred = self.universe.preferred
        found.sort(key=lambda deb: (self.state(deb.name).current is None, deb.name not in preferred))
        distinct = [deb for at, deb in enumerate(found) if at == 0 or found[at - 1] is not deb]
        if relation.field in NEGATIVE:
            return distinct
        return [deb for deb in distinct if not self._is_barred(deb) and self.universe.is_open(owner, relation, deb)]

    def only_solution(self, owner: Deb, relation: Relation) -> Deb | None:
        """Return what alone can meet a relation, be it a candidate or installed before."""
        found = {
            deb
            for lookup in (self._now, self._before)
            for alternative in relation.alternatives
            for deb in self._meeting(owner, relation, alternative, lookup)
            if not self._is_barred(deb)
        }
        return found.pop() if len(found) == 1 else None

    def _is_barred(self, deb: Deb) -> bool:
        state = self.state(deb.name)
        return state.protected and not state.marked and state.current is None

    def _in_order(self, alternative: Alternative, options: list[Deb]) -> list[Deb]:
        """Return options in the order in which apt tries them."""
        if len(options) < 2:
            return options
        ranked: dict[tuple[bool | int, ...], list[Deb]] = {}
        for deb in options:
            ranked.setdefault(self._rank(alternative, deb), []).append(deb)
        return [deb for rank in sorted(ranked) for deb in self._newest_name_first(ranked[rank])]

    def _newest_name_first(self, equals: list[Deb]) -> list[Deb]:
        # Where a name is first met is dear to find, and asked for only where nothing else decides.
        if len(equals) < 2:
            return equals
        return sorted(equals, key=lambda deb: self.universe.package_id(deb.name), reverse=True)

    def _rank(self, alternative: Alternative, deb: Deb) -> tuple[bool | int, ...]:
        """Return what apt compares providers by before it comes to their names; the smallest is tried first."""
        state = self.state(deb.name)
        return (
            not state.protected,
            not (deb.multi_arch == "same" and state.current is not None),
            state.current is None,
            bool(alternative.qualifier) or deb.name != alternative.name,
            not self.universe.is_essential(deb.name),
            not self.universe.is_important(deb.name),
            deb.priority,
        )
