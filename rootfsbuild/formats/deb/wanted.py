"""What a request asks for, in terms of the packages that are there."""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rootfsbuild.errors import UnsatisfiableError
from rootfsbuild.formats.deb.explain import nearest
from rootfsbuild.formats.deb.metadata import PRIORITIES, Deb, Placed, Universe
from rootfsbuild.formats.deb.relations import Alternative

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from rootfsbuild.plan import Request

_INCLUDE = re.compile(r"(?P<name>[^\s:=/]+)(?::(?P<architecture>[a-z0-9-]+))?(?:=(?P<version>\S+)|/(?P<suite>\S+))?")


@dataclass(frozen=True)
class Wanted:
    """The packages that a request names, and the version that each name stands for."""

    universe: Universe
    included: Mapping[str, Deb]
    """By the request as written, in its order."""
    preselected: Mapping[str, Deb]
    """By name."""
    fixed: Mapping[str, Deb | None]
    """By name: the version that was asked for, or None for what must not be chosen."""
    variant: str

    def candidate(self, name: str) -> Deb | None:
        """Return the version of a package that may be chosen."""
        return self.fixed[name] if name in self.fixed else self.universe.candidate(name)

    def essential(self) -> tuple[Deb, ...]:
        """Return the Essential packages, in the order in which apt goes through them."""
        if self.variant == "custom":
            return ()
        return self._in_order(
            deb
            for name in self.universe.notable()
            if self.universe.is_essential(name) and (deb := self.candidate(name)) is not None
        )

    def by_priority(self) -> tuple[Deb, ...]:
        """Return the other packages that the variant brings for their priority."""
        if self.variant not in PRIORITIES:
            return ()
        worst = PRIORITIES.index(self.variant)
        return self._in_order(
            deb
            for name in self.universe.notable()
            if not self.universe.is_essential(name)
            and (deb := self.candidate(name)) is not None
            and 0 <= deb.priority <= worst
        )

    def _in_order(self, debs: Iterable[Deb]) -> tuple[Deb, ...]:
        return tuple(sorted(debs, key=lambda deb: self.universe.package_id(deb.name)))


def read_request(request: Request, universe: Universe) -> Wanted:
    """Find what a request names. Raises UnsatisfiableError for a name, version or suite that is not there."""
    wanted = fix_versions(request, universe)
    included = {text: _find(wanted, text) for text in request.include}
    preselected = [_find(wanted, text) for text in preselected_by(request, universe)]
    return replace(wanted, included=included, preselected={deb.name: deb for deb in preselected})


def fix_versions(request: Request, universe: Universe) -> Wanted:
    """Find the versions that a request asks for, without the packages; raises for a version that is not there."""
    fixed: dict[str, Deb | None] = dict.fromkeys(request.exclude)
    for text in request.include:
        _fix(universe, text, fixed, recommends=request.recommends)
    return Wanted(universe, {}, {}, fixed, request.variant)


def preselected_by(request: Request, universe: Universe) -> tuple[str, ...]:
    """Return what the distribution prefers; a recipe that names archives of its own only need not have it there."""
    return tuple(text for text in request.preselect if universe.versions(text))


def find_options(universe: Universe, text: str, choices: Callable[[str], Collection[Deb]]) -> tuple[Deb, ...]:
    """Return, of the versions that each name has, those that an include may come to; raises as `read_request`."""
    name, *_ = _parts(universe, text)
    return tuple(choices(name)) or _providers(universe, name, choices)


def is_right(universe: Universe, text: str, deb: Deb) -> bool:
    """Tell whether an include, whatever it names, leaves a version as a choice; raises as `read_request`."""
    name, version, suite = _parts(universe, text)
    return name != deb.name or _is_asked(deb, version, suite)


def _parts(universe: Universe, text: str) -> tuple[str, str, str]:
    """Return name, version pattern and suite of an include."""
    match = _INCLUDE.fullmatch(text)
    if match is None:
        raise UnsatisfiableError(
            text, (f"{text!r} names no package",), hint="write name, name:arch, name=version or name/suite"
        )
    architecture = match["architecture"]
    if architecture not in {None, "native", "all", "any", universe.architecture}:
        raise UnsatisfiableError(
            text, (f"{match['name']} is asked for {architecture}, and this root is {universe.architecture}",)
        )
    return match["name"], match["version"] or "", match["suite"] or ""


def _fix(universe: Universe, text: str, fixed: dict[str, Deb | None], *, recommends: bool) -> None:
    """Enter the version that an include asks for, before anything is chosen: nothing is upgraded later."""
    name, version, suite = _parts(universe, text)
    if name in fixed or not (version or suite) or not universe.versions(name):
        return
    found = [deb for deb in universe.versions(name) if _is_asked(deb, version, suite)]
    if not found:
        have = [f"{name} has version {deb.version} in {deb.placed.place}" for deb in universe.versions(name)]
        raise UnsatisfiableError(text, have, hint="name one of these versions, or add the suite to the recipe")
    fixed[name] = found[0]
    if suite:
        _follow(universe, found[0], suite, fixed, ("Pre-Depends", "Depends", *(["Recommends"] * recommends)))


def _is_asked(deb: Deb, version: str, suite: str) -> bool:
    if version:
        return fnmatch.fnmatchcase(deb.version, version)
    return not suite or _is_in(deb, suite)


def _follow(universe: Universe, deb: Deb, suite: str, fixed: dict[str, Deb | None], fields: tuple[str, ...]) -> None:
    """Take from the same suite what a package needs in a version that its usual candidate does not have.

    As apt's SetCandidateRelease, but on what could be installed instead of what is installed already: on an empty
    system apt would find no dependency met, and give up at the first.
    """
    for relation in (relation for field in fields for relation in deb.relations(field)):
        if any(_has_candidate(universe, alternative, fixed) for alternative in relation.alternatives):
            continue
        for alternative in relation.alternatives:
            better = [
                other
                for other in universe.versions(alternative.name)
                if _is_in(other, suite) and universe.meets(other, alternative)
            ]
            if better and alternative.name not in fixed:
                fixed[alternative.name] = better[0]
                _follow(universe, better[0], suite, fixed, fields)
                break


def _has_candidate(universe: Universe, alternative: Alternative, fixed: Mapping[str, Deb | None]) -> bool:
    candidates = (fixed[name] if name in fixed else universe.candidate(name) for name in universe.meeting(alternative))
    return any(deb is not None and universe.meets(deb, alternative) for deb in candidates)


def _is_in(deb: Deb, suite: str) -> bool:
    return any(suite in {placed.suite, placed.codename} for placed in deb.places)


def _find(wanted: Wanted, text: str) -> Deb:
    name, *_ = _parts(wanted.universe, text)
    deb = wanted.candidate(name)
    return deb if deb is not None else _only_provider(wanted, text, name)


def _only_provider(wanted: Wanted, text: str, name: str) -> Deb:
    """Return the one candidate that provides `name`, as apt-get does for a virtual package."""
    universe = wanted.universe

    def choices(other: str) -> tuple[Deb, ...]:
        deb = wanted.candidate(other)
        return () if deb is None else (deb,)

    providers = _providers(universe, name, choices)
    if len(providers) == 1:
        return providers[0]
    if providers:
        names = ", ".join(sorted(deb.name for deb in providers))
        raise UnsatisfiableError(
            text, (f"{name} is a virtual package with several providers",), hint=f"include one of {names}"
        )
    if name in wanted.fixed:
        raise UnsatisfiableError(text, (f"{name} is excluded",), hint=f"take {name} out of exclude")
    if universe.versions(name):
        have = (f"{name} has version {deb.version} in {_named(deb.placed)}" for deb in universe.versions(name))
        raise UnsatisfiableError(text, tuple(have))
    places = ", ".join(dict.fromkeys(placed.place for placed in universe.placed)) or "any archive"
    raise UnsatisfiableError(text, (f"{name} is not in {places}",), hint=nearest(name, universe.names()))


def _providers(universe: Universe, name: str, choices: Callable[[str], Collection[Deb]]) -> tuple[Deb, ...]:
    """Return what provides a name; where there are preferred ones, only these."""
    providers = tuple(
        deb
        for other in universe.meeting(Alternative(name))
        for deb in choices(other)
        if universe.meets(deb, Alternative(name))
    )
    return tuple(deb for deb in providers if deb.name in universe.preferred) or providers


def _named(placed: Placed) -> str:
    return f"{placed.place}, whose pin of {placed.pin} forbids it"
