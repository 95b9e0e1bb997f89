"""Why each package of a plan is in it, and why its rivals are not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rootfsbuild.formats.deb.metadata import Deb, Universe
from rootfsbuild.plan import Reason, Why

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from rootfsbuild.formats.deb.relations import Alternative, Relation
    from rootfsbuild.formats.deb.walk import Choice, Refusal


def dependency_reason(
    universe: Universe, deb: Deb, choice: Choice, refusals: Mapping[str, Refusal], installed: Collection[str]
) -> Reason:
    """Return the reason of a package that a relation of another brought in.

    `installed` are the names that were there before the walk that chose it.
    """
    rejected = [
        (option.name, _rule(universe, choice.relation, deb, option, refusals, installed))
        for option in dict.fromkeys(choice.options)
        if option.name != deb.name
    ]
    known = {deb.name, *(option.name for option in choice.options)}
    rejected += [
        (alternative.name, _absence(universe, alternative))
        for alternative in dict.fromkeys(choice.relation.alternatives)
        if alternative.name not in known and deb.name not in universe.meeting(alternative)
    ]
    return Reason(Why.DEPENDENCY, str(choice.relation), choice.by.name, tuple(rejected))


def _rule(
    universe: Universe,
    relation: Relation,
    chosen: Deb,
    other: Deb,
    refusals: Mapping[str, Refusal],
    installed: Collection[str],
) -> str:
    refusal = refusals.get(other.name)
    if refusal is not None and refusal.deb is other:
        return f"{(refusal.by or refusal.deb).name} {refusal.relation}"
    at, chosen_at = (_place(universe, relation, deb) for deb in (other, chosen))
    if at < chosen_at and _is_preferred(universe, chosen, other):
        return f"{chosen.name} is in the lock"
    if at != chosen_at:
        return "right of the chosen alternative" if at > chosen_at else "could not be installed"
    return _lesser(universe, relation.alternatives[at], chosen, other, installed)


def _place(universe: Universe, relation: Relation, deb: Deb) -> int:
    return next(
        (at for at, alternative in enumerate(relation.alternatives) if universe.meets(deb, alternative)),
        len(relation.alternatives),
    )


def _lesser(universe: Universe, alternative: Alternative, chosen: Deb, other: Deb, installed: Collection[str]) -> str:
    """Return the first of apt's comparisons in which `other` loses against `chosen`."""
    real = not alternative.qualifier and chosen.name == alternative.name
    rules = (
        (chosen.name in installed and other.name not in installed, f"{chosen.name} is there already"),
        (real, f"only provides {alternative.name}"),
        (_only_first(universe.is_essential, chosen, other), "not Essential"),
        (_only_first(universe.is_important, chosen, other), "not Protected"),
        (
            chosen.priority < other.priority,
            f"lower priority ({_priority(other)} < {_priority(chosen)})",
        ),
        (
            _is_preferred(universe, chosen, other)
            and (-chosen.priority, universe.package_id(chosen.name))
            < (-other.priority, universe.package_id(other.name)),
            f"{chosen.name} is in the lock",
        ),
        (chosen.priority > other.priority, f"{chosen.name} is asked for itself"),
    )
    # Nothing else being different, the order of names in the index has decided.
    return next((text for holds, text in rules if holds), "mentioned earlier in the index")


def _priority(deb: Deb) -> str:
    return deb.fields.get("priority", "none")


def _is_preferred(universe: Universe, chosen: Deb, other: Deb) -> bool:
    return chosen.name in universe.preferred and other.name not in universe.preferred


def _only_first(test: Callable[[str], bool], first: Deb, second: Deb) -> bool:
    return test(first.name) and not test(second.name)


def _absence(universe: Universe, alternative: Alternative) -> str:
    versions = universe.versions(alternative.name)
    if not versions:
        return "not available"
    return f"only version {versions[0].version} is available"
