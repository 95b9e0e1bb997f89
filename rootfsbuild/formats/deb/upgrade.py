"""The least change of a lock: what is named moves, what stands in its way moves with it, and nothing else.

`search` finds out which packages have to move, and there is no smaller set of them; the one resolver then chooses as
it always does, from what moves in the archives' version and of the rest only what is locked.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache, cached_property
from typing import TYPE_CHECKING

from rootfsbuild.errors import UnsatisfiableError, UsageError
from rootfsbuild.formats.deb.explain import nearest
from rootfsbuild.formats.deb.locked import Both, Held, Only, is_same, rebuild
from rootfsbuild.formats.deb.needed import Missed, Selected, find_missed, still_reached
from rootfsbuild.formats.deb.options import HARD
from rootfsbuild.formats.deb.resolve import Resolution, resolve
from rootfsbuild.formats.deb.search import Question, Search
from rootfsbuild.formats.deb.wanted import Wanted, find_options, fix_versions, is_right, preselected_by
from rootfsbuild.plan import Why

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rootfsbuild.formats.deb.metadata import Deb, Universe
    from rootfsbuild.formats.deb.refresh import Metadata
    from rootfsbuild.formats.deb.resolve import Step
    from rootfsbuild.formats.deb.walk import Chosen
    from rootfsbuild.plan import Package, Request


def upgrade(
    request: Request,
    locked: Sequence[Package],
    names: frozenset[str],
    metadata: Metadata,
    *,
    same_recipe: bool = False,
) -> tuple[Package, ...]:
    """Return the packages that meet `request`, in install order, with the fewest changes to `locked`.

    What `names` names is chosen as if there were no lock; all other locked packages keep their version, listed or
    not, unless that stands in the way, and go when nothing needs them. With all of them named, that is `resolve`.
    `same_recipe`: the request is the one that the lock was made for, so that a package which the archives rank
    higher or recommend since then is not asked for.

    Raises UnsatisfiableError as `resolve` does, UntrustedError for a malformed paragraph, and UsageError for a name
    that is neither in the lock nor in the result.
    """
    live = metadata.universe
    known = {package.name for package in locked}
    for name in sorted(names - known):
        if not live.versions(name):
            raise _unknown(name, known)
    if names >= known:
        packages = resolve(request, live).packages
    else:
        packages = _Upgrade(request, locked, names, live, same_recipe=same_recipe).run()
    for name in sorted(names - known - {package.name for package in packages}):
        raise _unknown(name, known)
    return packages


def _unknown(name: str, known: set[str]) -> UsageError:
    return UsageError(f"{name}: not in the lock", hint=nearest(name, sorted(known)))


class _Upgrade:
    """One upgrade; what it holds does not change."""

    def __init__(
        self, request: Request, locked: Sequence[Package], names: frozenset[str], live: Universe, *, same_recipe: bool
    ) -> None:
        self.request = request
        self.names = names
        self.packages = {package.name: package for package in locked}
        both = Both(live, rebuild(locked, live))
        self.held = Held(both, frozenset(), preferred=names.union(self.packages), closed=same_recipe)
        self.fields = (*HARD, "Recommends") if request.recommends else HARD
        self.dependencies = [package.name for package in locked if package.reason.why is Why.DEPENDENCY]
        self.choices = cache(self._list_choices)

    def run(self) -> tuple[Package, ...]:
        """Find the least change; where there is none, the archives alone are asked, for their explanation."""
        found = self._find_least() or resolve(self.request, self.held.live)
        return found.packages

    def _find_least(self) -> Resolution | None:
        try:
            question = self._question()
        except UnsatisfiableError:
            return None
        wanted, vain = frozenset[Missed](), frozenset[str]()
        while True:
            search = Search(replace(question, wanted=wanted))
            best = search.find()
            if best is None:
                return None
            # Rather change a package than lose it to another, but not for one that nothing needs in the end.
            missed = self._missed(best)
            vain |= _names(wanted - missed) - best.keys()
            if wanted == (more := _without(wanted | missed, vain)):
                found = self._realise(search, best)
                if found is None:
                    return None
                vain |= _names(wanted - self._missed(found.selected)) - found.selected.keys()
                if wanted == (more := _without(wanted, vain)):
                    return found
            wanted = more

    def _realise(self, search: Search, best: Selected) -> Resolution | None:
        """Let the resolver choose as it always does; the search's own choice is for where that does not succeed."""
        free = self.names.union(self._lost(best), self._changed(best))
        found = self._resolve(self.held.freeing(free))
        if found is None or self._cost(found.selected) > self._cost(best):
            found = self._resolve(Only(search.settle(), self.held))
        return found

    # The question.

    def _question(self) -> Question:
        return Question(
            self.held,
            self.choices,
            self._demands,
            tuple(self._brought.values()),
            self.names,
            self.fields,
            frozenset(),
        )

    @cached_property
    def _free(self) -> Wanted:
        return fix_versions(self.request, self.held.freeing(frozenset(self.held.locked)))

    def _list_choices(self, name: str) -> tuple[Deb, ...]:
        """Return the versions that a package may have: the locked one, what it would be without, and no others."""
        if name in self.request.exclude:
            return ()
        locked = self.held.locked.get(name)
        found = [self._free.candidate(name)]
        if name not in self.names:
            found.append(self.held.live.candidate(name))
            if locked is not None and locked.pin > 0:
                found = [locked, *(deb for deb in found if deb is None or not is_same(deb, self.packages[name]))]
        return tuple(deb for deb in dict.fromkeys(found) if deb is not None and self._is_asked(deb))

    @cached_property
    def _roots(self) -> frozenset[str]:
        return frozenset(deb.name for demand in self._demands for deb in demand).union(self._brought)

    @cached_property
    def _demands(self) -> list[tuple[Deb, ...]]:
        """Return what must be there: what the request names, and what its variant brings in any case."""
        asked = (*self.request.include, *preselected_by(self.request, self.held))
        return [
            *(find_options(self.held, text, self.choices) for text in asked),
            *(self.choices(name) for name in _bring(self._staying) if name not in self._brought),
        ]

    @cached_property
    def _brought(self) -> dict[str, Deb]:
        """Return what the variant brings as long as it stays as it is: archives rank it lower or lack it by now."""
        anyway = {name for name in _bring(self._free) if self.held.live.versions(name)}
        brought = [name for name in _bring(self._staying) if name not in anyway]
        return {name: deb for name in brought for deb in self.choices(name) if deb is self.held.locked.get(name)}

    @cached_property
    def _staying(self) -> Wanted:
        leaving = {name for name, deb in self.held.locked.items() if name in self.names or not self._is_asked(deb)}
        return fix_versions(self.request, self.held.freeing(frozenset(leaving)))

    def _is_asked(self, deb: Deb) -> bool:
        return all(is_right(self.held, text, deb) for text in self.request.include)

    # One solution.

    def _resolve(self, universe: Universe) -> Resolution | None:
        try:
            return resolve(self.request, universe, _fail, self._retain)
        except UnsatisfiableError:
            return None

    def _retain(self, wanted: Wanted, chosen: Chosen) -> Chosen:
        """Keep the dependencies that still meet a relation, though the walk has met that with others by now."""
        spare: dict[str, Deb] = {}
        for name in self.dependencies:
            deb = wanted.candidate(name)
            if deb is not None and name not in chosen.selected and self._may_stay(deb):
                spare[name] = deb
        # apt's sweep spares what is only recommended, be that asked for or not.
        kept = still_reached(wanted.universe, chosen.selected, spare, (*HARD, "Recommends"))
        return replace(chosen, selected={**chosen.selected, **kept}, automatic=chosen.automatic.union(kept))

    def _cost(self, selected: Selected) -> tuple[int, int]:
        return len(self._lost(selected)), len(self._changed(selected))

    def _may_stay(self, deb: Deb) -> bool:
        return deb.name in self.names or is_same(deb, self.packages[deb.name])

    def _changed(self, selected: Selected) -> list[str]:
        """Return what has another version although nobody named it."""
        return [name for name in self.held.locked if name in selected and not self._may_stay(selected[name])]

    def _lost(self, selected: Selected) -> frozenset[str]:
        return _names(self._missed(selected)) | (self._brought.keys() - selected.keys())

    def _missed(self, selected: Selected) -> frozenset[Missed]:
        return find_missed(self.held, self.choices, self._roots, selected, self.fields)


def _names(missed: Iterable[Missed]) -> frozenset[str]:
    return frozenset(each.name for each in missed)


def _without(missed: Iterable[Missed], names: frozenset[str]) -> frozenset[Missed]:
    return frozenset(each for each in missed if each.name not in names)


def _bring(wanted: Wanted) -> list[str]:
    return [deb.name for deb in (*wanted.essential(), *wanted.by_priority())]


def _fail(step: Step, chosen: Chosen) -> Chosen:
    # Nobody reads why a step has failed.
    del step, chosen
    raise UnsatisfiableError("")
