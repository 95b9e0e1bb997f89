"""comps.xml: groups of packages and environments of groups, expanded as dnf does (libcomps, dnf's comps.py)."""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from rootfsbuild.documents.checks import did_you_mean
from rootfsbuild.errors import UnsatisfiableError
from rootfsbuild.formats.rpm.data import open_data
from rootfsbuild.formats.rpm.xml import Element, read_records

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

KINDS = ("mandatory", "default", "optional", "conditional")
_USUAL = frozenset({"mandatory", "default", "conditional"})
"""dnf's `group_package_types`."""
_LIMIT = 200 << 20
"""Bytes of a plain comps.xml: Fedora's has 2 million."""


@dataclass(frozen=True)
class Member:
    """A package of a group."""

    name: str
    kind: str
    """One of KINDS."""
    requires: str = ""
    """The package that must be there for this one to come along; empty if none must."""


@dataclass(frozen=True)
class Group:
    """A group of packages."""

    id: str
    name: str
    """In English."""
    members: Mapping[str, Member]
    """By name, in the document's order."""

    def names(self, kind: str) -> tuple[str, ...]:
        """Return the names of the packages of a kind."""
        return tuple(member.name for member in self.members.values() if member.kind == kind)


@dataclass(frozen=True)
class Environment:
    """A group of groups."""

    id: str
    name: str
    groups: tuple[str, ...]
    """Ids of the groups that it consists of."""
    optional: tuple[str, ...] = ()
    """Ids of the groups that it offers; dnf installs none of them."""


@dataclass(frozen=True)
class Comps:
    """What comps.xml files say, by id, in the documents' order."""

    groups: Mapping[str, Group]
    environments: Mapping[str, Environment]


EMPTY = Comps({}, {})


def parse_comps(source: str | bytes, label: str = "comps.xml", *, href: str = "", architecture: str = "") -> Comps:
    """Read a comps.xml from a path (compressed as the ending of `href`, else of the path, says) or from plain bytes.

    `architecture` leaves out what is marked for others. Raises UntrustedError (rule `malformed`).
    """
    chunks = iter([source]) if isinstance(source, bytes) else open_data(source, href or source, label, limit=_LIMIT)
    records = read_records(chunks, label, "comps", doctype="comps")
    groups: dict[str, Group] = {}
    environments: dict[str, Environment] = {}
    for element in records:
        if not element.text_of("id") or not _is_for(element, architecture):
            continue
        # A second one of the same id adds to the first, as where several repositories are read.
        if element.name == "group":
            group = _read_group(element, architecture)
            groups[group.id] = _join_groups(groups.get(group.id), group)
        elif element.name == "environment":
            environment = _read_environment(element, architecture)
            environments[environment.id] = _join_environments(environments.get(environment.id), environment)
    return Comps(groups, environments)


def join(several: Iterable[Comps]) -> Comps:
    """Return the groups and environments of several repositories as one: what has the same id is united."""
    groups: dict[str, Group] = {}
    environments: dict[str, Environment] = {}
    for comps in several:
        for group in comps.groups.values():
            groups[group.id] = _join_groups(groups.get(group.id), group)
        for environment in comps.environments.values():
            environments[environment.id] = _join_environments(environments.get(environment.id), environment)
    return Comps(groups, environments)


def expand(comps: Comps, spec: str, weak: bool = True) -> tuple[str, ...]:  # noqa: FBT001, FBT002 - agreed with its callers
    """Return the names of the packages of a group or an environment, in the documents' order.

    `@core` is a group or an environment by its id or its name, or several by a glob; `@^minimal-environment` is an
    environment only. What is taken of them is `mandatory` and `default` and, with what it belongs to, `conditional`;
    `@core:optional` adds the optional packages, `@core:mandatory` takes only those, and `@core/default,optional` names
    kinds exactly, as dnf does. `weak`: whether `default` counts where nothing is named; dnf's install_weak_deps does
    not change that. Raises UnsatisfiableError with the nearest id.
    """
    members = _members(comps, spec, weak=weak)
    found = dict.fromkeys(member.name for member in members if not member.requires)
    waiting = [member for member in members if member.requires]
    while come := [one.name for one in waiting if one.requires in found and one.name not in found]:
        found.update(dict.fromkeys(come))
    return tuple(found)


def conditions(comps: Comps, spec: str) -> tuple[tuple[str, str], ...]:
    """Return (package, the package with which it comes along) of what `expand` cannot decide by itself.

    dnf installs `(package if other)` for each. Raises UnsatisfiableError.
    """
    sure = expand(comps, spec)
    waiting = (member for member in _members(comps, spec, weak=True) if member.requires)
    return tuple(dict.fromkeys((one.name, one.requires) for one in waiting if one.name not in sure))


def _members(comps: Comps, spec: str, *, weak: bool) -> list[Member]:
    """Return the packages that a specification means, those of one kind after those of the other in each group."""
    groups, kinds = _selected(comps, spec, weak=weak)
    taken = sorted(kinds, key=KINDS.index)
    return [member for group in groups for kind in taken for member in group.members.values() if member.kind == kind]


def _selected(comps: Comps, spec: str, *, weak: bool) -> tuple[list[Group], frozenset[str]]:
    name, kinds = _read_spec(spec, weak=weak)
    environments = _matching(name.removeprefix("^"), comps.environments.values())
    groups = [] if name.startswith("^") else _matching(name, comps.groups.values())
    if not environments and not groups:
        raise UnsatisfiableError(spec, ("no repository has such a group",), hint=_nearest(comps, name))
    # An environment may name groups that this repository does not have; dnf passes them over.
    ids = [group for environment in environments for group in environment.groups if group in comps.groups]
    return [comps.groups[one] for one in dict.fromkeys([*(group.id for group in groups), *ids])], kinds


def _read_spec(spec: str, *, weak: bool) -> tuple[str, frozenset[str]]:
    """Return the name in a specification and the kinds of packages it means."""
    usual = _USUAL if weak else _USUAL - {"default"}
    found = re.fullmatch(r"@?([^@:/][^:/]*)(?:([:/])([a-z,]+))?", spec.strip())
    words = frozenset((found[3] or "").split(",")) - {""} if found else frozenset()
    if found is None or words - frozenset(KINDS):
        hint = "write it as @group, @^environment or @group:optional"
        raise UnsatisfiableError(spec, ("is no name of a group",), hint=hint)
    name = found[1].strip()
    if found[2] != ":":
        return name, words or usual
    return name, usual | words if "optional" in words else words


_Named = TypeVar("_Named", Group, Environment)


def _matching(pattern: str, items: Iterable[_Named]) -> list[_Named]:
    """Return what has this id or name, else what a glob matches without regard to case, as dnf."""
    known = list(items)
    exact = [item for item in known if pattern in {item.id, item.name}]
    match = re.compile(fnmatch.translate(pattern), re.IGNORECASE).match
    return exact or [item for item in known if match(item.id) or match(item.name)]


def _nearest(comps: Comps, name: str) -> str:
    environments = [f"^{one}" for one in comps.environments]
    near = did_you_mean(name, environments if name.startswith("^") else [*comps.groups, *comps.environments])
    known = sorted(environments if name.startswith("^") else comps.groups)
    if near or not known:
        return near.replace('"', '"@', 1)
    return "there are " + ", ".join(f"@{one}" for one in known[:12]) + (", …" if len(known) > 12 else "")


def _read_group(element: Element, architecture: str) -> Group:
    members: dict[str, Member] = {}
    for written in (one for part in element.named("packagelist") for one in part.named("packagereq")):
        kind = written.get("type") or "mandatory"
        # dnf takes no package of a kind that it does not know.
        if written.text and kind in KINDS and _is_for(written, architecture):
            members[written.text] = Member(written.text, kind, written.get("requires"))
    return Group(element.text_of("id"), _name(element), members)


def _read_environment(element: Element, architecture: str) -> Environment:
    def ids(part: str) -> tuple[str, ...]:
        written = (one for listed in element.named(part) for one in listed.named("groupid"))
        return tuple(dict.fromkeys(one.text for one in written if one.text and _is_for(one, architecture)))

    return Environment(element.text_of("id"), _name(element), ids("grouplist"), ids("optionlist"))


def _name(element: Element) -> str:
    plain = (one.text for one in element.named("name") if not one.get("lang"))
    return next(plain, element.text_of("id"))


def _is_for(element: Element, architecture: str) -> bool:
    words = re.split(r"[,\s]+", element.get("arch").strip())
    return not architecture or words == [""] or architecture in words


def _join_groups(first: Group | None, second: Group) -> Group:
    # As libcomps unites them: what comes later decides the name and the kind of a package.
    return second if first is None else replace(second, members={**first.members, **second.members})


def _join_environments(first: Environment | None, second: Environment) -> Environment:
    if first is None:
        return second
    groups, optional = _unite(first.groups, second.groups), _unite(first.optional, second.optional)
    return replace(second, groups=groups, optional=optional)


def _unite(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(first + second))
