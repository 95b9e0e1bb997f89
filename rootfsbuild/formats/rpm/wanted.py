"""What a request asks for, in terms of the packages that are there: each item a choice, as dnf reads its arguments."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from rootfsbuild.errors import UnsatisfiableError
from rootfsbuild.formats.rpm.explain import explain_missing
from rootfsbuild.formats.rpm.metadata import Universe, is_glob
from rootfsbuild.formats.rpm.version import satisfies, split_evr
from rootfsbuild.plan import Request, Why

Groups = Callable[[str], tuple[str, ...]]
"""Name of a group or environment, without its `@` -> the names of its packages, or conditions `(name if other)`."""

_VERSION = r"(?:(?P<epoch>[0-9]+):)?(?P<version>[^-:\s]+)"
_RELEASE = r"(?P<release>[^-:\s]+)"
_ARCH = r"\.(?P<arch>[^-:.\s]+)"
_FORMS = tuple(
    re.compile(form)
    for form in (
        rf"(?P<name>.+)-{_VERSION}-{_RELEASE}{_ARCH}",
        rf"(?P<name>.+){_ARCH}",
        r"(?P<name>.+)",
        rf"(?P<name>.+)-{_VERSION}-{_RELEASE}",
        rf"(?P<name>.+)-{_VERSION}",
    )
)
"""What an argument can mean, in the order in which dnf tries it; the first that any package has is meant."""
_JUST_NAME = _FORMS[2]
_EXACTLY = re.compile(r"(?P<spec>[^\s=()/]+)=(?P<glob>[^\s=]+)")


@dataclass(frozen=True)
class Wish:
    """One thing that the solver has to install."""

    text: str
    """The item of the request as written."""
    why: Why
    options: tuple[int, ...]
    """libsolv's ids of the packages of which one has to be there."""
    condition: str = ""
    """A rich dependency to be met instead: `(name if other)`."""


@dataclass(frozen=True)
class Wanted:
    """All that a request asks for."""

    wishes: tuple[Wish, ...]
    skipped: tuple[str, ...] = ()
    """Packages that a group lists and no repository has: dnf goes on without them."""


def read_request(request: Request, universe: Universe, groups: Groups) -> Wanted:
    """Find what a request names. Raises UnsatisfiableError for an item that nothing meets."""
    wishes: list[Wish] = []
    skipped: dict[str, None] = {}
    preselect = request.preselect if request.variant != "custom" else ()
    asked = [*((text, Why.DISTRIBUTION) for text in preselect), *((text, Why.REQUESTED) for text in request.include)]
    for text, why in asked:
        if not text.startswith("@"):
            found = list(_wishes(universe, text, text, why))
            if not found:
                raise explain_missing(universe, text)
            wishes += found
            continue
        for name in groups(text[1:]):
            found = list(_wishes(universe, text, name, why))
            wishes += found
            skipped.update(() if found else {name: None})
    return Wanted(tuple(wishes), tuple(skipped))


def no_groups(name: str) -> tuple[str, ...]:
    """Refuse a group where the repositories describe none."""
    raise UnsatisfiableError(f"@{name}", (f"there is no group {name}: the repositories describe none",))


def _wishes(universe: Universe, text: str, item: str, why: Why) -> Iterator[Wish]:
    if item.startswith("("):
        if universe.dependency(item) is None:
            raise UnsatisfiableError(item, (f"{item} is not a dependency as rpm writes them",))
        yield Wish(text, why, (), item)
        return
    for options in _options(universe, item):
        yield Wish(text, why, tuple(solvable.id for solvable in options))


def _options(universe: Universe, item: str) -> Iterator[list[Any]]:
    """Yield, for each package that an item names, all that it may come to."""
    exactly = _EXACTLY.fullmatch(item)
    form, found = _named(universe, exactly["spec"] if exactly else item)
    if exactly:
        found = [solvable for solvable in found if _has_version(solvable, exactly["glob"])]
        form = None
    if not found and not exactly:
        found = universe.owning(item) if item.startswith("/") else universe.providing(item)
        form = None
    if not found:
        return
    for options in _by_name(found) if is_glob(item) and not item.startswith("/") and not exactly else [found]:
        yield [*options, *(_obsoleters(universe, options) if form is _JUST_NAME else ())]


def _named(universe: Universe, spec: str) -> tuple[re.Pattern[str] | None, list[Any]]:
    if any(character in spec for character in "/( "):
        return None, []
    for form in _FORMS:
        match = form.fullmatch(spec)
        if match is not None:
            found = [solvable for solvable in universe.named(match["name"]) if _fits(solvable, match.groupdict())]
            if found:
                return form, found
    return None, []


def _fits(solvable: Any, parts: dict[str, str | None]) -> bool:
    evr = split_evr(solvable.evr)
    have = {"epoch": str(evr.epoch), "version": evr.version, "release": evr.release, "arch": solvable.arch}
    return all(
        fnmatch.fnmatchcase(have[part], wanted)
        for part, wanted in parts.items()
        if part != "name" and wanted is not None
    )


def _has_version(solvable: Any, glob: str) -> bool:
    evr = split_evr(solvable.evr)
    written = (evr.version, f"{evr.version}-{evr.release}")
    return any(fnmatch.fnmatchcase(form, glob) for bare in written for form in (bare, f"{evr.epoch}:{bare}"))


def _by_name(found: list[Any]) -> list[list[Any]]:
    by_name: dict[str, list[Any]] = {}
    for solvable in found:
        by_name.setdefault(solvable.name, []).append(solvable)
    return list(by_name.values())


def _obsoleters(universe: Universe, options: list[Any]) -> Iterator[Any]:
    """Yield what replaces any of these under another name: dnf takes it for what was asked for."""
    pool, key = universe.pool, universe.solv.SOLVABLE_OBSOLETES
    seen = {solvable.id for solvable in options}
    for old in options:
        for solvable in pool.whatmatchessolvable(key, old):
            # libsolv also lists what obsoletes something that `old` provides, which for rpm replaces nothing.
            if solvable.id not in seen and not universe.obstacle(solvable) and replaces(solvable, old, key):
                seen.add(solvable.id)
                yield solvable


def replaces(solvable: Any, old: Any, key: int) -> bool:
    """Tell whether a package names another, by name and version, in the relations of one kind (libsolv's `key`)."""
    for dependency in solvable.lookup_deparray(key):
        name, *rest = str(dependency).split()
        if name == old.name and (not rest or satisfies(old.evr, rest[0], rest[-1])):
            return True
    return False
