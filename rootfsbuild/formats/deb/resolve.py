"""From what a recipe asks to the packages of a plan: apt's choices, in two steps as mmdebstrap takes them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from rootfsbuild.formats.deb.choose import choose
from rootfsbuild.formats.deb.explain import explain_conflict
from rootfsbuild.formats.deb.metadata import PRIORITIES, Deb, Universe
from rootfsbuild.formats.deb.options import HARD, Lookup
from rootfsbuild.formats.deb.order import Graph, install_order
from rootfsbuild.formats.deb.reasons import dependency_reason
from rootfsbuild.formats.deb.relations import Relation
from rootfsbuild.formats.deb.walk import Chosen
from rootfsbuild.formats.deb.wanted import Wanted, read_request
from rootfsbuild.plan import Package, Reason, Request, Why

CONTROL = (
    "Essential",
    "Protected",
    "Important",
    "Priority",
    "Multi-Arch",
    "Pre-Depends",
    "Depends",
    "Recommends",
    "Conflicts",
    "Breaks",
    "Replaces",
    "Provides",
)
"""The fields that a choice can depend on; a plan keeps them, so that it can be changed without its index."""


@dataclass(frozen=True)
class Resolution:
    """What a request comes to."""

    packages: tuple[Package, ...]
    """In install order."""
    selected: Mapping[str, Deb] = field(compare=False)
    """The same by name, as their indexes have them."""


@dataclass(frozen=True)
class Step:
    """One run of apt: what it is asked for, and what is there before it."""

    universe: Universe
    requests: tuple[Deb, ...]
    candidate: Lookup
    current: Mapping[str, Deb]
    recommends: bool
    excluded: frozenset[str]


Complete = Callable[[Step, Chosen], Chosen]
"""Called where apt's walk ends in a conflict: returns a selection that keeps every relation, or raises."""


Retain = Callable[[Wanted, Chosen], Chosen]
"""Called with the last selection: returns it with what shall stay beside it, relations being kept."""


def give_up(step: Step, chosen: Chosen) -> Chosen:
    """Raise UnsatisfiableError with the chains that lead to each obstacle."""
    raise explain_conflict(step.universe, chosen, [deb.name for deb in step.requests], step.excluded)


def nothing_more(wanted: Wanted, chosen: Chosen) -> Chosen:
    """Return the selection as it is."""
    del wanted
    return chosen


def resolve(
    request: Request, universe: Universe, complete: Complete = give_up, retain: Retain = nothing_more
) -> Resolution:
    """Choose the packages that meet `request`, exactly as apt does where apt's walk finds a solution.

    `complete` decides where it does not; `retain` adds what nothing needs any more. Raises UnsatisfiableError, and
    UntrustedError when a paragraph that is looked at is malformed.
    """
    wanted = read_request(request, universe)
    excluded = frozenset(request.exclude)

    def run(requests: Iterable[Deb], current: Mapping[str, Deb]) -> Chosen:
        step = Step(universe, tuple(requests), wanted.candidate, current, request.recommends, excluded)
        chosen = choose(universe, step.requests, step.candidate, current, recommends=step.recommends)
        return complete(step, chosen) if chosen.broken else chosen

    first = run((*wanted.preselected.values(), *wanted.essential()), wanted.preselected)
    second = run((*wanted.included.values(), *wanted.by_priority()), first.selected)
    second = retain(wanted, second)
    selected = dict(second.selected)
    if wanted.variant == "custom":
        selected = _without_unused(universe, selected, wanted)
    return Resolution(_plan(wanted, first, second, selected), selected)


def _plan(wanted: Wanted, first: Chosen, second: Chosen, selected: Mapping[str, Deb]) -> tuple[Package, ...]:
    universe = wanted.universe
    depends = _graph(universe, selected, first.selected, HARD)
    pre_depends = _graph(universe, selected, first.selected, HARD[:1])
    base = _base(wanted, selected, first.selected, depends)
    reasons = _reasons(wanted, first, second)
    return tuple(
        _package(
            selected[name],
            reasons.get(name) or _any_reason(universe, selected, name),
            automatic=name in second.automatic,
            depends=depends[name],
            pre_depends=pre_depends[name],
            wave=0 if name in base else 1,
        )
        for name in install_order(depends, pre_depends, base)
    )


def _without_unused(universe: Universe, selected: Mapping[str, Deb], wanted: Wanted) -> dict[str, Deb]:
    """Leave out what the distribution selects and nothing here needs: a custom variant has only what it names."""
    asked = {deb.name for deb in wanted.included.values()}
    spare = wanted.preselected.keys() - asked
    others = {name: deb for name, deb in selected.items() if name not in spare}
    needed = {to for names in _graph(universe, selected, wanted.preselected, HARD).values() for to in names}
    return others | {name: deb for name, deb in selected.items() if name in spare & needed}


def _graph(
    universe: Universe, selected: Mapping[str, Deb], earlier: Collection[str], fields: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """Return, by package, the selected packages that meet its relations.

    One for each relation; for what an earlier step chose only of that step, so that the step stands on its own.
    """
    graph: dict[str, tuple[str, ...]] = {}
    for name, deb in selected.items():
        found: set[str] = set()
        for relation in (relation for kind in fields for relation in deb.relations(kind)):
            meeting = meeting_in(universe, selected, relation)
            found.add(next((other for other in meeting if other in earlier), meeting[0] if meeting else name))
        graph[name] = tuple(sorted(found - {name}))
    return graph


def meeting_in(universe: Universe, selected: Mapping[str, Deb], relation: Relation) -> list[str]:
    """Return what of a selection meets a relation, or is ruled out by it, in the order of its alternatives."""
    return [
        name
        for alternative in relation.alternatives
        for name in universe.meeting(alternative)
        if name in selected and universe.meets(selected[name], alternative)
    ]


def _base(wanted: Wanted, selected: Mapping[str, Deb], first: Collection[str], depends: Graph) -> frozenset[str]:
    """Return what is laid down before any script can run: what the variant itself brings, up to `required`."""
    required = {name for name, deb in selected.items() if deb.priority == 0}
    if wanted.variant == "custom":
        begin = required | {name for name in selected if wanted.universe.is_essential(name)}
    elif wanted.variant == "essential":
        begin = set(first)
    else:
        begin = {*first, *(deb.name for deb in wanted.by_priority() if deb.priority == 0)}
    reached = begin & selected.keys()
    waiting = list(reached)
    while waiting:
        new = set(depends[waiting.pop()]) - reached
        reached |= new
        waiting += new
    return frozenset(reached)


def _reasons(wanted: Wanted, first: Chosen, second: Chosen) -> dict[str, Reason]:
    reasons: dict[str, Reason] = {}
    for chosen, before in ((second, first.selected), (first, wanted.preselected)):
        for name, choice in chosen.choices.items():
            deb = chosen.selected.get(name)
            if deb is not None and name not in before:
                reasons[name] = dependency_reason(wanted.universe, deb, choice, chosen.refusals, before)
    for deb in wanted.by_priority():
        if deb.name not in first.selected:
            reasons[deb.name] = Reason(Why.PRIORITY, PRIORITIES[deb.priority])
    for text, deb in wanted.included.items():
        reasons[deb.name] = Reason(Why.REQUESTED, text)
    reasons.update({deb.name: Reason(Why.ESSENTIAL) for deb in wanted.essential()})
    reasons.update({name: Reason(Why.DISTRIBUTION) for name in wanted.preselected})
    return reasons


def _any_reason(universe: Universe, selected: Mapping[str, Deb], name: str) -> Reason:
    """Return a reason for a package that `complete` chose without the walk."""
    for deb in selected.values():
        for kind in (*HARD, "Recommends"):
            for relation in deb.relations(kind):
                if deb.name != name and name in meeting_in(universe, selected, relation):
                    return Reason(Why.DEPENDENCY, str(relation), deb.name)
    return Reason(Why.DEPENDENCY)


def _package(
    deb: Deb,
    reason: Reason,
    *,
    automatic: bool,
    depends: tuple[str, ...],
    pre_depends: tuple[str, ...],
    wave: int,
) -> Package:
    source, source_version = deb.source
    return Package(
        name=deb.name,
        version=deb.version,
        architecture=deb.architecture,
        source=source,
        source_version=source_version,
        archive=deb.placed.archive,
        suite=deb.placed.codename or deb.placed.suite,
        component=deb.placed.component,
        filename=deb.filename,
        size=deb.size,
        installed_size=deb.installed_size,
        sha256=deb.sha256,
        reason=reason,
        automatic=automatic,
        depends=depends,
        pre_depends=pre_depends,
        wave=wave,
        control=tuple((field, deb.fields[field.lower()]) for field in CONTROL if deb.fields.get(field.lower())),
    )
