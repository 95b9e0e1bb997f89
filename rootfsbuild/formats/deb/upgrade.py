"""The least change of a lock: what is named moves, what stands in its way moves with it, and nothing else.

There is one resolver; what it may choose from decides what stays (`locked`). Packages are set free in rounds until
it finds a way, and then put back one after the other wherever it finds one without them. The result is minimal in
that no single package of it could stay as it was; there may be a smaller change that frees quite other packages.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rootfsbuild.errors import UnsatisfiableError, UsageError
from rootfsbuild.formats.deb.explain import nearest
from rootfsbuild.formats.deb.locked import Both, Held, Only, is_same, rebuild
from rootfsbuild.formats.deb.obstacles import Selected, agrees, find_lost, find_obstacles, still_reached
from rootfsbuild.formats.deb.options import HARD
from rootfsbuild.formats.deb.resolve import resolve
from rootfsbuild.formats.deb.wanted import Wanted, is_right
from rootfsbuild.plan import Why

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootfsbuild.formats.deb.metadata import Deb, Universe
    from rootfsbuild.formats.deb.refresh import Metadata
    from rootfsbuild.formats.deb.resolve import Step
    from rootfsbuild.formats.deb.walk import Chosen
    from rootfsbuild.plan import Package, Request

# So many attempts may be made at one question before the next is asked.
_FEW = 32


def upgrade(
    request: Request,
    locked: Sequence[Package],
    names: frozenset[str],
    metadata: Metadata,
    *,
    same_recipe: bool = False,
) -> tuple[Package, ...]:
    """Return the packages that meet `request`, in install order, with as few changes to `locked` as can be found.

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


@dataclass(frozen=True)
class _Found:
    """One solution."""

    free: frozenset[str]
    """Locked packages that were free to change."""
    packages: tuple[Package, ...]
    selected: Selected


class _Upgrade:
    """One search; what it holds does not change while it goes on."""

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

    def run(self) -> tuple[Package, ...]:
        """Search a solution, then one that loses nothing, then the least of that."""
        found = self._search(self._at_least()) or self._attempt(frozenset(self.held.locked)) or self._anew()
        return self._shrink(self._regain(found)).packages

    def _at_least(self) -> frozenset[str]:
        """Return what cannot stay: it is named, or the request asks for another version."""
        asked = {
            name
            for name, deb in self.held.locked.items()
            if not all(is_right(self.held, text, deb) for text in self.request.include)
        }
        return frozenset(self.names.intersection(self.held.locked) | asked)

    def _search(self, free: frozenset[str]) -> _Found | None:
        """Free what stands in the way until there is a solution, or nothing more that does."""
        least = free
        while (found := self._attempt(free)) is None:
            obstacles = find_obstacles(self.request, self.held.freeing(free))
            if obstacles <= free:
                return self._search_below(free, least)
            free |= obstacles
        return found

    def _search_below(self, free: frozenset[str], least: frozenset[str]) -> _Found | None:
        """Hold one again: of two packages that are in the way of each other's new version, one may have to stay."""
        again = sorted(free - least)
        attempts = (self._attempt(free - {name}) for name in again[:_FEW])
        return next((found for found in attempts if found is not None), None)

    def _regain(self, found: _Found) -> _Found:
        """Rather change a package than lose it to one that is free or new."""
        while lost := self._lost(found):
            better = self._search(found.free | lost)
            if better is None or len(self._lost(better)) >= len(lost):
                break
            found = better
        return found

    def _shrink(self, found: _Found) -> _Found:
        """Put back what need not have changed."""
        changed = self._changed(found)
        found = self._put_back_all(replace(found, free=found.free & {*changed, *self.names}), changed)
        while True:
            swaps = (self._swap(found, [name]) for name in self._changed(found))
            better = next((swap for swap in swaps if swap is not None), None)
            if better is None:
                return found
            found = better

    def _put_back_all(self, found: _Found, names: Sequence[str]) -> _Found:
        """Put back as many as possible, the first first: those that others build on."""
        names = [name for name in names if name in self._changed(found)]
        if not names:
            return found
        better = self._attempt(found.free.difference(names))
        if better is None or len(self._lost(better)) > len(self._lost(found)):
            better = self._swap(found, names)
        if better is not None or len(names) == 1:
            return better or found
        half = len(names) // 2
        return self._put_back_all(self._put_back_all(found, names[:half]), names[half:])

    # One solution.

    def _attempt(self, free: frozenset[str]) -> _Found | None:
        return self._resolve(self.held.freeing(free), free)

    def _swap(self, found: _Found, names: Sequence[str]) -> _Found | None:
        """Put packages back without a change to any other."""
        selected = {**found.selected, **{name: self.held.locked[name] for name in names}}
        if not agrees(self.held, selected):
            return None
        return self._resolve(Only(selected, self.held), found.free.difference(names))

    def _anew(self) -> _Found:
        resolution = resolve(self.request, self.held.live)
        return _Found(frozenset(self.held.locked), resolution.packages, resolution.selected)

    def _resolve(self, universe: Universe, free: frozenset[str]) -> _Found | None:
        try:
            resolution = resolve(self.request, universe, _fail, self._retain)
        except UnsatisfiableError:
            return None
        return _Found(free, resolution.packages, resolution.selected)

    def _retain(self, wanted: Wanted, chosen: Chosen) -> Chosen:
        """Keep the dependencies that still meet a relation, though the walk has met that with others by now."""
        spare: dict[str, Deb] = {}
        for name in self.dependencies:
            deb = wanted.candidate(name)
            if deb is not None and name not in chosen.selected:
                spare[name] = deb
        kept = still_reached(wanted.universe, chosen.selected, spare, self.fields)
        return replace(chosen, selected={**chosen.selected, **kept}, automatic=chosen.automatic.union(kept))

    def _changed(self, found: _Found) -> list[str]:
        """Return what has another version although nobody named it, in the lock's order."""
        return [
            name
            for name in self.held.locked
            if name not in self.names
            and name in found.selected
            and not is_same(found.selected[name], self.packages[name])
        ]

    def _lost(self, found: _Found) -> frozenset[str]:
        return find_lost(self.held, found.selected, self.fields) - frozenset(self.request.exclude)


def _fail(step: Step, chosen: Chosen) -> Chosen:
    # Nobody reads why a step of the search has failed.
    del step, chosen
    raise UnsatisfiableError("")
