"""The packages of a lock, as what they were chosen from: beside what the archives list now, or in its place."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rootfsbuild.formats.deb.index import Paragraph
from rootfsbuild.formats.deb.metadata import PRIORITIES, Deb, Universe

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rootfsbuild.formats.deb.relations import Alternative, Relation
    from rootfsbuild.plan import Package

_ORDINARY = PRIORITIES.index("optional")


def rebuild(packages: Iterable[Package], live: Universe) -> dict[str, Deb]:
    """Return the packages that can stay as they are, by name, with what the lock says of them.

    Their place is where `live` has the same file now, else where they came from. What came from an archive, suite or
    component that `live` does not have at all cannot stay, be it because the recipe is of another release by now.
    """
    places = {(placed.archive, placed.codename or placed.suite, placed.component): placed for placed in live.placed}
    found: dict[str, Deb] = {}
    for package in packages:
        twin = next((deb for deb in live.versions(package.name) if is_same(deb, package)), None)
        place = places.get((package.archive, package.suite, package.component))
        if package.architecture not in {live.architecture, "all"}:
            continue
        if twin is not None:
            # Its rank is the lock's: archives change a priority without touching the package.
            found[package.name] = Deb(_paragraph(replace(package, filename=twin.filename), live), twin.places)
        elif place is not None:
            found[package.name] = Deb(_paragraph(package, live), (place,))
    return found


def is_same(deb: Deb, package: Package) -> bool:
    """Tell whether an index lists the very file that a lock names."""
    return deb.version == package.version and deb.sha256 == package.sha256


def _paragraph(package: Package, live: Universe) -> Paragraph:
    fields = {
        **dict(package.control),
        "Package": package.name,
        "Version": package.version,
        "Architecture": package.architecture,
        "Source": f"{package.source} ({package.source_version})",
        "Filename": package.filename,
        "Size": str(package.size),
        "Installed-Size": str(package.installed_size // 1024),
        "SHA256": package.sha256,
    }
    text = "\n".join(f"{name}: {' '.join(value.splitlines())}" for name, value in fields.items())
    number = next((deb.paragraph.number for deb in live.versions(package.name)), 0)
    return Paragraph(number, package.name, text.encode())


class Both(Universe):
    """What the archives list and what is locked: asked once for all names that may meet a relation."""

    def __init__(self, live: Universe, locked: Mapping[str, Deb]) -> None:
        super().__init__(live.placed, live.architecture)
        self.live = live
        self.locked = locked
        self._providers = _list_provided(locked)

    def versions(self, name: str) -> tuple[Deb, ...]:
        """Return every version that is listed, the highest first, and then the locked one if it is none of them."""
        listed, locked = self.live.versions(name), self.locked.get(name)
        if locked is None or any(deb.version == locked.version for deb in listed):
            return listed
        return (*listed, locked)

    def providing(self, name: str) -> list[str]:
        """Return the names of packages of which some version says that it provides `name`."""
        return [*self.live.providing(name), *self._providers.get(name, ())]


class Held(Universe):
    """All packages of a resolution that keeps to a lock: of what is not free only the locked version is there.

    That is a pin above 1000 (apt_preferences(5)) which no relation is tempted to look past. Of what is free, the
    locked version counts only where there is no other.
    """

    def __init__(
        self,
        both: Both,
        free: frozenset[str],
        *,
        preferred: frozenset[str],
        closed: bool,
    ) -> None:
        """Hold all but `free`; `closed`: ranks and Recommends of what is held bring in only what `preferred` names."""
        super().__init__(both.placed, both.architecture)
        self.both = both
        self.live = both.live
        self.locked = both.locked
        self.held = {name: deb for name, deb in both.locked.items() if name not in free}
        self.preferred = preferred
        self.closed = closed

    def freeing(self, free: frozenset[str]) -> Held:
        """Return the same with others free."""
        return Held(self.both, free, preferred=self.preferred, closed=self.closed)

    def versions(self, name: str) -> tuple[Deb, ...]:
        """Return every version of a package that there is; the locked one of a free package is the last."""
        return (self.held[name],) if name in self.held else self.both.versions(name)

    def candidate(self, name: str) -> Deb | None:
        """Return what is installed unless told otherwise."""
        found = None if name in self.held else self.live.candidate(name)
        locked = self.locked.get(name)
        return locked if found is None and locked is not None and locked.pin > 0 else found

    def is_essential(self, name: str) -> bool:
        """Tell whether a version is Essential, among those that count."""
        return any(deb.essential for deb in self._counting(name))

    def is_important(self, name: str) -> bool:
        """Tell the same of Protected."""
        return any(deb.important for deb in self._counting(name))

    def _counting(self, name: str) -> tuple[Deb, ...]:
        # A locked version that is there for want of another says nothing of a package that has others.
        return self.versions(name) if name in self.held else self.live.versions(name) or self.versions(name)

    def is_open(self, owner: Deb, relation: Relation, option: Deb) -> bool:
        """Tell whether a relation may bring in an option: what stays as it is has lived without it."""
        return (
            not self.closed
            or relation.field != "Recommends"
            or option.name in self.preferred
            or self.held.get(owner.name) is not owner
        )

    def notable(self) -> tuple[str, ...]:
        """Return the packages of which some version is Essential or of a priority above optional, sorted."""
        listed = {name for name in self.live.notable() if not self.closed or name in self.preferred}
        locked = {name for name, deb in self.locked.items() if deb.essential or 0 <= deb.priority < _ORDINARY}
        gone = {name for name in locked - self.held.keys() if not self.live.versions(name)}
        return tuple(sorted((listed - self.held.keys()) | (locked & self.held.keys()) | gone))

    def meeting(self, alternative: Alternative) -> tuple[str, ...]:
        """Return the names of packages of which some version, be it free or not, may meet an alternative."""
        return self.both.meeting(alternative)

    def package_id(self, name: str) -> tuple[int, ...]:
        """Return a value that sorts as apt's package ids; what no archive names any more comes last."""
        return self.live.package_id(name)

    def names(self) -> list[str]:
        """Return nothing: a hint at names is for a request that fails against the archives themselves."""
        return []


class Only(Universe):
    """The packages of one selection, and no others."""

    def __init__(self, selected: Mapping[str, Deb], of: Held) -> None:
        super().__init__(of.placed, of.architecture)
        self.selected = selected
        self.of = of
        self.preferred = of.preferred

    def versions(self, name: str) -> tuple[Deb, ...]:
        """Return the version that is selected, if one is."""
        return (self.selected[name],) if name in self.selected else ()

    def notable(self) -> tuple[str, ...]:
        """Return the packages that are Essential or of a priority above optional, sorted."""
        return tuple(name for name in self.of.notable() if name in self.selected)

    def meeting(self, alternative: Alternative) -> tuple[str, ...]:
        """Return the names of packages that may meet an alternative, be they there or not."""
        return self.of.meeting(alternative)

    def package_id(self, name: str) -> tuple[int, ...]:
        """Return a value that sorts as apt's package ids."""
        return self.of.package_id(name)

    def names(self) -> list[str]:
        """Return nothing, as that class does."""
        return []


def _list_provided(debs: Mapping[str, Deb]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, deb in debs.items():
        for provided in deb.provides:
            spelling = f"{provided.name}:{provided.qualifier}" if provided.qualifier else provided.name
            found.setdefault(spelling, []).append(name)
    return found
