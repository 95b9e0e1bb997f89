"""The walk by which apt 2.x chooses packages, with the same result in every case it can bring to an end.

apt marks packages depth-first and takes the first option that works; what it takes depends on the order of requests,
of relations in a field and of names in the index (which option comes first, `options` tells). The rules were read in
apt 2.6 (depcache.cc, cacheset.cc) and are checked against apt itself in tests/oracle. Nothing is ever upgraded or
removed here, which leaves out half of what apt considers; `current` is what an earlier walk of the same resolution
has installed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from rootfsbuild.formats.deb.metadata import Deb, Universe
from rootfsbuild.formats.deb.options import HARD, NEGATIVE, Lookup, Options, State
from rootfsbuild.formats.deb.relations import Relation

DEEPEST = 3000
"""How deep apt follows dependencies before it gives up."""


@dataclass(frozen=True)
class Choice:
    """Why the walk took a package: whose relation it was, and what else would have met that."""

    by: Deb
    relation: Relation
    options: tuple[Deb, ...]
    """All that could have been taken, in the order in which apt tries them."""


@dataclass(frozen=True)
class Refusal:
    """Why the walk could not take a package."""

    deb: Deb
    relation: Relation
    """What it needs and cannot have; or, of the package `by`, what rules this one out."""
    by: Deb | None = None


@dataclass(frozen=True)
class Chosen:
    """What a walk ends with."""

    selected: Mapping[str, Deb]
    """By name, in the order in which they were marked; includes what was installed before."""
    automatic: frozenset[str]
    choices: Mapping[str, Choice]
    refusals: Mapping[str, Refusal]
    broken: tuple[tuple[Deb, Relation], ...]
    """Selected packages with a relation that the selection does not keep; empty when the walk came to an end."""


class Walk:
    """apt's marks while they change; lives as long as one call of `choose`."""

    def __init__(self, universe: Universe, candidate: Lookup, current: Mapping[str, Deb], *, recommends: bool) -> None:
        self.universe = universe
        self.options = Options(universe, candidate, current)
        self.fields = (*HARD, *NEGATIVE, *(("Recommends",) if recommends else ()))
        self.selected = dict(current)
        self.choices: dict[str, Choice] = {}
        self.refusals: dict[str, Refusal] = {}
        self.unmarked = False

    def state(self, name: str) -> State:
        """Return the marks of a package."""
        return self.options.state(name)

    def _relations(self, deb: Deb) -> Iterator[Relation]:
        for name in self.fields:
            yield from deb.relations(name)

    # Marks.

    def mark(self, name: str, depth: int, *, follow: bool, requested: bool = False) -> bool:
        """Mark a package's candidate for installation; `follow`: with all that it needs. Tell whether that works."""
        state = self.state(name)
        deb = state.candidate
        if deb is None or depth > DEEPEST or not self._may_mark(state, requested=requested):
            return False
        if self._is_done(state, deb):
            return True
        if follow and not self._has_solutions(state, deb):
            return False
        if requested or not follow:
            self._select(state, deb, automatic=not requested)
        return not follow or self._mark_with_needs(state, deb, depth, requested=requested)

    def _mark_with_needs(self, state: State, deb: Deb, depth: int, *, requested: bool) -> bool:
        lenient = state.protected or requested
        needed, unwanted = self._collect(deb, protected=state.protected)
        works = self._clear_away(deb, unwanted, protected=state.protected, requested=requested)
        if not works and not lenient:
            return False
        if not requested:
            self._select(state, deb, automatic=True)
        spread = state.protected
        state.protected = True  # for as long as its own relations are walked, nobody may unmark it
        fetched = self._fetch(deb, needed, depth, spread=spread, requested=requested)
        state.protected = spread
        if not fetched and not lenient:
            self._unselect(state, deb)
        return works and fetched

    def _is_done(self, state: State, deb: Deb) -> bool:
        return not state.protected and (state.marked or deb is state.current) and not self._is_broken(state)

    def _may_mark(self, state: State, *, requested: bool) -> bool:
        if requested or state.marked or not state.protected:
            return True
        return state.candidate is not None and state.candidate is state.current

    def _is_broken(self, state: State) -> bool:
        deb = state.install
        return deb is not None and not all(self.options.is_kept(deb, relation) for relation in self._relations(deb))

    def _has_solutions(self, state: State, deb: Deb) -> bool:
        """Tell whether every hard relation has some option; without one, the package is no candidate any more."""
        for name in HARD:
            for relation in deb.relations(name):
                if not self.options.is_kept(deb, relation) and not self.options.had_option(deb, relation):
                    self.refusals.setdefault(deb.name, Refusal(deb, relation))
                    if not state.protected:
                        self.options.discard(state, state.current)
                        state.marked = False
                    return False
        return True

    def _collect(self, deb: Deb, *, protected: bool) -> tuple[list[Relation], list[Relation]]:
        """Return the relations that need packages and those that rule packages out, as far as they want work."""
        wanted = [relation for relation in self._relations(deb) if protected or not self.options.is_kept(deb, relation)]
        needed = [relation for relation in wanted if relation.field not in NEGATIVE]
        return needed, [relation for relation in wanted if relation.field in NEGATIVE]

    def _clear_away(self, deb: Deb, unwanted: list[Relation], *, protected: bool, requested: bool) -> bool:
        """Unmark what `deb` rules out; a protected package rules it out for good."""
        works = True
        for relation in unwanted:
            for other in self.options.solutions(deb, relation):
                state = self.state(other.name)
                if state.candidate is not other:
                    continue
                self.refusals.setdefault(other.name, Refusal(other, relation, deb))
                if state.current is other or (state.marked and not self.keep(state, other)):
                    works = False
                    if not protected and not requested:
                        return False
                elif protected:
                    self.options.discard(state, state.install)
                    state.protected = True
        return works

    def _fetch(self, deb: Deb, needed: list[Relation], depth: int, *, spread: bool, requested: bool) -> bool:
        """Mark what meets each relation; `spread`: a package without which there is no solution stays for good."""
        works = True
        for relation in needed:
            if self.options.is_kept(deb, relation):
                if spread and relation.field in HARD and not self._spread(deb, relation, depth):
                    works = False
                continue
            hard = relation.field in HARD
            if not hard and self.state(deb.name).current is not None:
                continue  # what is installed already has lived without it
            if not self._fetch_one(deb, relation, depth, spread=spread) and hard:
                self.refusals.setdefault(deb.name, Refusal(deb, relation))
                works = False
                if not spread and not requested:
                    break
        return works

    def _spread(self, deb: Deb, relation: Relation, depth: int) -> bool:
        only = self.options.only_solution(deb, relation)
        if only is None or self.state(only.name).protected:
            return True
        self.state(only.name).protected = True
        return self.mark(only.name, depth + 1, follow=True)

    def _fetch_one(self, deb: Deb, relation: Relation, depth: int, *, spread: bool) -> bool:
        options = self.options.solutions(deb, relation)
        for option in options:
            state = self.state(option.name)
            if state.candidate is not option:
                continue
            if state.install is None:
                self.choices[option.name] = Choice(deb, relation, tuple(options))
            if spread and relation.field in HARD and len(options) == 1:
                if not self.mark(option.name, depth + 1, follow=False):
                    continue
                state.protected = True
            if self.mark(option.name, depth + 1, follow=True):
                return True
        return False

    def _select(self, state: State, deb: Deb, *, automatic: bool) -> None:
        if state.protected and state.install is deb:
            return
        state.install = deb
        state.marked = deb is not state.current
        if state.current is None:
            state.automatic = automatic
        self.selected[deb.name] = deb
        self.options.look(deb.name, deb)

    def keep(self, state: State, deb: Deb) -> bool:
        """Unmark a package, unless it is protected."""
        if state.protected:
            return False
        self.forget(state, deb)
        return True

    def _unselect(self, state: State, deb: Deb) -> None:
        self.forget(state, deb)
        self.options.discard(state, state.install)

    def forget(self, state: State, deb: Deb) -> None:
        """Unmark a package, which may be marked again."""
        self.unmarked = True
        state.install = state.current
        state.marked = False
        if state.current is None:
            self.selected.pop(deb.name, None)
            self.choices.pop(deb.name, None)
        self.options.look(deb.name, deb)

    # The end.

    def sweep(self) -> None:
        """Drop what only serves options that were given up."""
        if not self.unmarked:
            return
        reachable = self._reachable()
        dropped = {name: deb for name, deb in self.selected.items() if name not in reachable}
        self.selected = {name: deb for name, deb in self.selected.items() if name in reachable}
        for name in self.options.states.keys() - self.selected.keys():
            self.state(name).install = None
        if any(self._is_broken(self.state(name)) for name in self.selected):
            self._save(dropped)

    def _save(self, dropped: dict[str, Deb]) -> None:
        # Where Recommends are left unmet, apt takes back whatever a relation names, in any version.
        fields = [field for field in self.fields if field not in NEGATIVE]
        waiting = list(self.selected.values())
        while waiting:
            deb = waiting.pop()
            relations = (relation for field in fields for relation in deb.relations(field))
            for name in {name for r in relations for a in r.alternatives for name in self.universe.meeting(a)}:
                if name in dropped:
                    self.state(name).install = self.selected[name] = dropped.pop(name)
                    waiting.append(self.selected[name])

    def result(self) -> Chosen:
        """Return the marks as they stand."""
        automatic = frozenset(name for name in self.selected if self.state(name).automatic)
        return Chosen(dict(self.selected), automatic, dict(self.choices), dict(self.refusals), tuple(self.broken()))

    def broken(self) -> Iterator[tuple[Deb, Relation]]:
        """Yield the relations of selected packages that the selection does not keep."""
        for deb in self.selected.values():
            for name in (*HARD, *NEGATIVE):
                for relation in deb.relations(name):
                    if not self.options.is_kept(deb, relation):
                        yield deb, relation

    def _reachable(self) -> set[str]:
        # apt's own sweep follows Recommends and Suggests whether or not they were wanted for the installation.
        reached = {name for name in self.selected if self._is_root(name)}
        waiting = list(reached)
        while waiting:
            deb = self.selected[waiting.pop()]
            for name in (*HARD, "Recommends", "Suggests"):
                for relation in deb.relations(name):
                    new = {other.name for other in self.options.met_by(deb, relation)} - reached
                    reached |= new
                    waiting += new
        return reached

    def _is_root(self, name: str) -> bool:
        state = self.state(name)
        return (
            not state.automatic
            or state.protected
            or self.universe.is_essential(name)
            or self.universe.is_important(name)
        )
