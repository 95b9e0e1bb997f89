"""What differs between two lists of packages, as values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby

from rootfsbuild.listed import Listed
from rootfsbuild.plan import Plan

Order = Callable[[str, str], int]
"""(version, version) -> less than, equal to or more than 0 as the first is earlier, the same or later."""


class Kind(StrEnum):
    """What happened to a package, in the order in which it is told."""

    UPGRADED = "upgraded"
    DOWNGRADED = "downgraded"
    CHANGED = "changed"
    """Another architecture or another file of the same version, or a version of which none knows the order."""
    ADDED = "added"
    REMOVED = "removed"


@dataclass(frozen=True)
class Change:
    """What happened to one package; only one side is there for what was added or removed."""

    kind: Kind
    before: Listed | None
    after: Listed | None
    qualified: bool = False
    """Whether its name alone does not tell which package it is."""

    @property
    def package(self) -> Listed:
        """The package as it is, or as it was when it is gone."""
        found = self.after or self.before
        assert found is not None
        return found

    @property
    def moved(self) -> bool:
        """Whether it is of another architecture than before."""
        return bool(self.before and self.after and self.before.architecture != self.after.architecture)

    @property
    def rebuilt(self) -> bool:
        """Whether it is another file with the version and the architecture that it had before."""
        return bool(self.before and self.after and self.before.version == self.after.version and not self.moved)

    @property
    def suite(self) -> str:
        """The suite that it comes from, if that is known and another than before."""
        after = self.after.suite if self.after else ""
        return after if self.before is None or self.before.suite != after else ""

    @property
    def delta(self) -> int:
        """Bytes that the installed packages grow by."""
        return _size(self.after) - _size(self.before)


@dataclass(frozen=True)
class Group:
    """Packages of one source that changed together: the same kind, from the same version, to the same."""

    changes: tuple[Change, ...]
    """Sorted by name; at least one."""

    @property
    def kind(self) -> Kind:
        """What happened to each of them."""
        return self.changes[0].kind

    @property
    def name(self) -> str:
        """What to call them: the package if it is one, else their source package."""
        return tell_name(self.changes[0]) if len(self.changes) == 1 else self.changes[0].package.source

    @property
    def delta(self) -> int:
        """Bytes that they grow by in all."""
        return sum(change.delta for change in self.changes)


@dataclass(frozen=True)
class Difference:
    """Two lists of packages, compared; every tuple is sorted by package name."""

    added: tuple[Change, ...]
    removed: tuple[Change, ...]
    changed: tuple[Change, ...]
    count_before: int
    count_after: int
    size_before: int
    """Bytes that all packages take when installed."""
    size_after: int

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)

    @property
    def delta(self) -> int:
        """Bytes that the installed packages grow by."""
        return self.size_after - self.size_before

    @property
    def counts(self) -> Mapping[Kind, int]:
        """How many packages each kind has, all kinds in their order."""
        found = Counter(change.kind for change in (*self.changed, *self.added, *self.removed))
        return {kind: found[kind] for kind in Kind}


def from_plan(plan: Plan) -> tuple[Listed, ...]:
    """Return the packages of a plan, for comparing."""
    return tuple(
        Listed(
            package.name,
            package.version,
            package.architecture,
            package.source,
            package.source_version,
            package.installed_size,
            package.archive,
            package.suite,
            package.sha256,
        )
        for package in plan.packages
    )


def compare_packages(before: Iterable[Listed], after: Iterable[Listed], order: Order | None = None) -> Difference:
    """Compare two lists of packages; a package is known by its name, and by its architecture where a name is twice.

    `order` is the format's order of versions; without it every other version is only `changed`.
    """
    before, after = tuple(before), tuple(after)
    several = _several(before) | _several(after)
    old, new = _keyed(before, several), _keyed(after, several)
    changes = [
        Change(kind, old.get(key), new.get(key), qualified=bool(key[1]))
        for key in sorted(old.keys() | new.keys())
        if (kind := _kind(old.get(key), new.get(key), order))
    ]
    return Difference(
        added=tuple(change for change in changes if change.kind is Kind.ADDED),
        removed=tuple(change for change in changes if change.kind is Kind.REMOVED),
        changed=tuple(change for change in changes if change.before and change.after),
        count_before=len(before),
        count_after=len(after),
        size_before=sum(map(_size, before)),
        size_after=sum(map(_size, after)),
    )


def tell_version(change: Change, package: Listed | None) -> str:
    """Return one side's version, with the architecture where that is what changed; empty if it is not there."""
    if package is None:
        return ""
    return f"{package.version} [{package.architecture}]" if change.moved else package.version


def tell_name(change: Change) -> str:
    """Return a package's name, with its architecture where only that tells it from another one."""
    package = change.package
    return f"{package.name}:{package.architecture}" if change.qualified else package.name


def group_changes(changes: Iterable[Change]) -> tuple[Group, ...]:
    """Gather the packages of each source that changed together; sorted by kind, and then by name."""
    ordered = sorted(changes, key=lambda change: (_together(change), change.package.name, change.package.architecture))
    groups = [Group(tuple(members)) for _, members in groupby(ordered, _together)]
    return tuple(sorted(groups, key=lambda group: (list(Kind).index(group.kind), group.name)))


def _together(change: Change) -> tuple[int, str, str, str]:
    sides = (tell_version(change, change.before), tell_version(change, change.after))
    return list(Kind).index(change.kind), change.package.source, *sides


def _several(packages: Iterable[Listed]) -> set[str]:
    return {name for name, count in Counter(package.name for package in packages).items() if count > 1}


def _keyed(packages: Iterable[Listed], several: set[str]) -> dict[tuple[str, str], Listed]:
    # One that became `all` or ceased to be is the same package, unless the name alone does not tell.
    return {(package.name, package.architecture if package.name in several else ""): package for package in packages}


def _kind(before: Listed | None, after: Listed | None, order: Order | None) -> Kind | None:
    if before is None or after is None:
        return Kind.ADDED if before is None else Kind.REMOVED
    if before.version != after.version:
        step = order(before.version, after.version) if order else 0
        return Kind.UPGRADED if step < 0 else Kind.DOWNGRADED if step > 0 else Kind.CHANGED
    rebuilt = before.sha256 and after.sha256 and before.sha256 != after.sha256
    return Kind.CHANGED if rebuilt or before.architecture != after.architecture else None


def _size(package: Listed | None) -> int:
    return package.installed_size if package else 0
