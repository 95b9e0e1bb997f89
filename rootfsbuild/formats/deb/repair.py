"""What apt does where its walk leaves a conflict: packages with low scores give way to those with high ones.

Follows pkgProblemResolver of apt 2.6 (algorithms.cc) for installations; nothing that an earlier step installed is
given up. Packages of equal score are taken in the order of apt's cache, which its own sort does not promise to
keep: in a tie of two broken packages the outcome may differ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rootfsbuild.formats.deb.options import HARD, NEGATIVE, State
from rootfsbuild.formats.deb.walk import Walk

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from rootfsbuild.formats.deb.metadata import Deb
    from rootfsbuild.formats.deb.relations import Alternative, Relation

_ROUNDS = 20
_BUCKETS = 196613
_BY_PRIORITY = (3, 2, 1, -1, -2, 0)  # the last for a paragraph without a priority
_ESSENTIAL, _REQUESTED, _ESSENTIAL_AGAIN = 100, 10000, 5000
_BY_FIELD = {"Pre-Depends": 1, "Depends": 1, "Recommends": 1, "Conflicts": -1, "Breaks": -1}

Key = tuple[int, tuple[int, str]]


def repair(walk: Walk, requested: Collection[str]) -> None:
    """Unmark packages of a walk until no relation is broken, or until nothing changes any more."""
    _Repair(walk, requested).run()


class _Repair:
    """The scores of one repair, and the packages it may still try."""

    def __init__(self, walk: Walk, requested: Collection[str]) -> None:
        self.walk = walk
        self.options = walk.options
        self.universe = walk.universe
        self.requested = frozenset(requested)
        self.tried: set[str] = set()
        self.scores = self._make_scores()
        self.places = dict(self.scores)
        """The scores as they were when the packages were put in order."""
        self.changed = True

    def run(self) -> None:
        """Go through the broken packages, highest score first, in rounds."""
        before = set(self.walk.selected)
        for number in range(_ROUNDS):
            if not self.changed:
                break
            self.changed = False
            last: Key | None = None
            while (name := self._next_broken(last)) is not None:
                last = self._key(name)
                self._investigate(name, number)
        for name in self.walk.selected.keys() - before:
            self.walk.state(name).automatic = True

    def _key(self, name: str) -> Key:
        return -self.places.get(name, self._unscored(name)), _bucket(name)

    def _next_broken(self, last: Key | None) -> str | None:
        keys = ((self._key(name), name) for name in self.walk.selected)
        later = sorted(pair for pair in keys if last is None or pair[0] > last)
        return next((name for _, name in later if self._is_broken(name)), None)

    def _is_broken(self, name: str) -> bool:
        deb = self.walk.state(name).install
        return deb is not None and not all(self.options.is_kept(deb, relation) for relation in _critical(deb))

    # One broken package.

    def _investigate(self, name: str, number: int) -> None:
        deb = self.walk.state(name).install
        if deb is None:
            return
        doomed: list[str] = []
        for relation in _critical(deb):
            if not self._mend(deb, relation, doomed):
                break
        if self.walk.state(name).install is not None:
            self._give_up(deb, doomed, number)

    def _mend(self, deb: Deb, relation: Relation, doomed: list[str]) -> bool:
        """Try to mend one relation, entering in `doomed` what must go for it; tell whether to look at the next."""
        state = self.walk.state(deb.name)
        several = len(relation.alternatives) > 1
        known = len(doomed)
        restored = False
        for alternative in relation.alternatives:
            if self.options.is_kept(deb, relation):
                return True
            targets = list(self._targets(deb, relation, alternative))
            if not targets and not state.protected and relation.field not in NEGATIVE:
                if several:
                    continue
                self.changed = True
                self._keep(state, deb)
                return False
            done = self._weigh(deb, relation, alternative, targets, doomed, several=several)
            restored = restored or done
            if done and not several:
                return False
        if several and len(doomed) == known and (restored or not state.protected):
            self.changed = True
            if restored:
                self._keep(state, deb)
            else:
                self._delete(state, deb)
        return True

    def _weigh(
        self,
        deb: Deb,
        relation: Relation,
        alternative: Alternative,
        targets: list[Deb],
        doomed: list[str],
        *,
        several: bool,
    ) -> bool:
        """Decide between a package and what stands against it; tell whether the package itself gave way."""
        negative = relation.field in NEGATIVE
        state = self.walk.state(deb.name)
        for target in targets:
            other = self.walk.state(target.name)
            if negative and other.install is not target:
                continue
            if self._is_weaker(deb, target) or not (negative or self._was_met(deb, relation, alternative)):
                if not state.protected:
                    self._step_back(state, deb, several=several)
                    return True
                if self._try(target.name):
                    self.scores[target.name] = min(self._score(target.name), self._score(deb.name))
                    return False
            elif relation.field == "Breaks" and not self.options.had_option(deb, relation):
                self.walk.mark(target.name, 0, follow=False)
            elif not other.protected:
                doomed.append(target.name)
                if not negative:
                    return False
        return False

    def _step_back(self, state: State, deb: Deb, *, several: bool) -> None:
        marked = state.marked
        self._keep(state, deb)
        if several and marked:
            # Another alternative may still do: the package comes back until all have been looked at.
            self.walk.mark(deb.name, 0, follow=False)
        self.changed = True

    def _give_up(self, deb: Deb, doomed: list[str], number: int) -> None:
        for name in doomed:
            other = self.walk.state(name)
            kept = self._keep(other, other.install or deb)
            if (not kept or number > 1) and self._score(deb.name) > self._score(name):
                self.scores[name] = self._score(deb.name)
                self.changed = True
            self.changed = self.changed or kept

    def _try(self, name: str) -> bool:
        """Mark a package and, one by one, what it needs; undo only the package itself when that fails."""
        state = self.walk.state(name)
        if name in self.tried or state.current is not None or state.candidate is None or name in self.requested:
            return False
        self.tried.add(name)
        was_kept = not state.marked
        if not self.walk.mark(name, 0, follow=False) or state.install is None:
            return False
        deb = state.install
        if all(self._try_relation(deb, relation) for relation in _critical(deb)):
            return True
        if was_kept:
            self._keep(state, deb)
        else:
            self._delete(state, deb)
        return False

    def _try_relation(self, deb: Deb, relation: Relation) -> bool:
        works = True
        for alternative in relation.alternatives:
            if self.options.is_kept(deb, relation):
                return works
            name = self._target(deb, alternative)
            had = self.options.had_option(deb, relation, alternative)
            if self.walk.state(name).protected:
                works = False
            elif had != (relation.field in NEGATIVE):
                if self._try(name):
                    return True
                works = False
            elif relation.field in NEGATIVE:
                return works
            else:
                works = False
        return works

    # Marks.

    def _keep(self, state: State, deb: Deb) -> bool:
        return not state.marked or self.walk.keep(state, deb)

    def _delete(self, state: State, deb: Deb) -> bool:
        name = deb.name
        if state.protected or self.universe.is_essential(name) or self.universe.is_important(name):
            return False
        if state.install is None:
            return True
        if state.current is not None or not state.automatic:
            return False
        self.walk.forget(state, deb)
        return True

    # Targets.

    def _targets(self, deb: Deb, relation: Relation, alternative: Alternative) -> Iterator[Deb]:
        """Return every version that meets an alternative: of the name itself, then of providers, the last first."""
        own = () if alternative.qualifier else (alternative.name,)
        for name in (*own, *self._providers(alternative)):
            if relation.field in NEGATIVE and name == deb.name:
                continue
            for version in self.universe.versions(name):
                if self.universe.meets(version, alternative):
                    yield version

    def _providers(self, alternative: Alternative) -> list[str]:
        own = "" if alternative.qualifier else alternative.name
        names = [name for name in self.universe.meeting(alternative) if name != own]
        names = [name for name in names if self.universe.versions(name)]
        return sorted(names, key=lambda name: self.universe.versions(name)[-1].paragraph.number, reverse=True)

    def _target(self, deb: Deb, alternative: Alternative) -> str:
        if self.universe.versions(alternative.name) and not alternative.qualifier:
            return alternative.name
        providers = [name for name in self._providers(alternative) if name != deb.name]
        return providers[0] if providers else alternative.name

    def _was_met(self, deb: Deb, relation: Relation, alternative: Alternative) -> bool:
        return self.options.is_met_before(deb, relation, alternative)

    # Scores.

    def _score(self, name: str) -> int:
        return self.scores.get(name, self._unscored(name))

    def _unscored(self, name: str) -> int:
        special = self.universe.is_essential(name) or self.universe.is_important(name)
        return _ESSENTIAL_AGAIN if special else 0

    def _is_weaker(self, deb: Deb, other: Deb) -> bool:
        return self._score(deb.name) <= self._score(other.name)

    def _make_scores(self) -> dict[str, int]:
        selected = self.walk.selected
        scores = {name: self._own_score(deb) for name, deb in selected.items()}
        needed_by: dict[str, list[str]] = {}
        for deb in selected.values():
            for field, points in _BY_FIELD.items():
                for relation in deb.relations(field):
                    self._add_points(scores, deb, relation, points)
                    if points > 0:
                        for alternative in relation.alternatives:
                            if not alternative.qualifier:
                                needed_by.setdefault(alternative.name, []).append(deb.name)
        old = dict(scores)
        for name in selected:
            scores[name] += sum(max(0, old[parent]) for parent in needed_by.get(name, ()))
        self._spread_to_providers(scores, old)
        for name in {*scores, *self.requested}:
            scores[name] = scores.get(name, 0) + self._unscored(name) + (_REQUESTED if name in self.requested else 0)
        return scores

    def _own_score(self, deb: Deb) -> int:
        special = self.universe.is_essential(deb.name) or self.universe.is_important(deb.name)
        installed = self.walk.state(deb.name).current is not None
        return (_ESSENTIAL if special else 0) + _BY_PRIORITY[deb.priority] + (1 if installed else 0)

    def _add_points(self, scores: dict[str, int], deb: Deb, relation: Relation, points: int) -> None:
        negative = relation.field in NEGATIVE
        for alternative in relation.alternatives:
            name = alternative.name
            real = self.walk.selected.get(name) if not alternative.qualifier else None
            if not (negative and name == deb.name):
                if alternative.operator and (real is None or not self.universe.meets(real, alternative)):
                    continue
                if not alternative.qualifier:
                    scores[name] = scores.get(name, 0) + points
            itself = [name] if real is not None and _provides_itself(real) else []
            for other in [*self._providers(alternative), *itself]:
                found = self.walk.selected.get(other)
                if found is None or (negative and other == deb.name) or not self.universe.meets(found, alternative):
                    continue
                scores[other] = scores.get(other, 0) + points

    def _spread_to_providers(self, scores: dict[str, int], old: dict[str, int]) -> None:
        for name in sorted(self.walk.selected, key=_bucket):
            moved = abs(scores[name] - old[name])
            for other in self._providers_of(name) if moved else ():
                scores[other] += moved

    def _providers_of(self, name: str) -> list[str]:
        return [
            other
            for other, deb in self.walk.selected.items()
            if (_provides_itself(deb) if other == name else _provides(deb, name))
        ]


def _provides(deb: Deb, name: str) -> bool:
    return any(item.name == name and not item.qualifier for item in deb.provides)


def _provides_itself(deb: Deb) -> bool:
    # apt leaves out that a package provides itself, but forgets to when it is Multi-Arch: foreign.
    return deb.multi_arch == "foreign" and _provides(deb, deb.name)


def _critical(deb: Deb) -> Iterator[Relation]:
    for field in (*HARD, *NEGATIVE):
        yield from deb.relations(field)


def _bucket(name: str) -> tuple[int, str]:
    place = 5381
    for byte in name.lower().encode():
        place = (place * 33 + byte) & 0xFFFFFFFF
    return place % _BUCKETS, name
