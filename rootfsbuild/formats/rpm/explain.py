"""Explanations for people: why a package is in a plan, and why a request cannot be met."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from rootfsbuild.errors import UnsatisfiableError
from rootfsbuild.formats.rpm.links import split_rich
from rootfsbuild.plan import Why

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rootfsbuild.formats.rpm.metadata import Universe
    from rootfsbuild.formats.rpm.wanted import Wish
    from rootfsbuild.plan import Package, Reason

_CHAINS = 5
_LINES = 12
_NAMED = 4


def why(packages: Sequence[Package], name: str) -> list[str]:
    """Return lines that lead from a request down to `name`, a package's name or `name.arch`.

    Raises UnsatisfiableError, with the nearest names as its hint, for a package that the plan does not hold.
    """
    by_name: dict[str, Package] = {}
    for package in packages:
        by_name.setdefault(package.name, package)
        by_name[f"{package.name}.{package.architecture}"] = package
    if name not in by_name:
        raise UnsatisfiableError(
            name, (f"{name} is not in the plan",), hint=nearest(name, (package.name for package in packages))
        )
    chain = [by_name[name]]
    while (above := by_name.get(chain[0].reason.by)) is not None and above not in chain:
        chain.insert(0, above)
    first, *others = chain
    lines = [f"{first.name} {first.version}: {_root(first.reason)}"]
    return lines + [_step(package) for package in others]


def nearest(name: str, names: Iterable[str]) -> str:
    """Return a hint that names the packages whose names are closest to `name`, empty if there are none."""
    alike = sorted(known for known in set(names) if abs(len(known) - len(name)) <= max(2, len(name) // 3))
    close = difflib.get_close_matches(name, alike, n=_NAMED, cutoff=0.75)
    return f"did you mean {' or '.join(close)}?" if close else ""


def explain_missing(universe: Universe, text: str) -> UnsatisfiableError:
    """Return the error for an item of a request that no package can meet."""
    name, equals, _ = text.partition("=")
    item = name if equals and " " not in text else text
    lines = list(dict.fromkeys(_missing(universe, item)))
    left_out = any(line.endswith(" is excluded") for line in lines)
    if left_out:
        hint = f"take {item} out of exclude"
    elif equals and universe.named(name):
        hint = "name one of these versions"
    else:
        hint = nearest(item, universe.names())
    return UnsatisfiableError(text, tuple(lines[:_LINES]), hint=hint)


def explain_conflict(universe: Universe, problems: Sequence[Any], wishes: Sequence[Wish]) -> UnsatisfiableError:
    """Return the error that says what keeps `wishes` from being met, out of libsolv's proof that they cannot be."""
    lines: dict[str, None] = {}
    names: dict[str, None] = {}
    left_out: dict[str, None] = {}
    for problem in list(problems)[:_CHAINS]:
        story = _Story(universe, problem)
        told = list(story.tell(wishes))
        lines.update(dict.fromkeys(told[:_LINES]))
        names.update(dict.fromkeys(story.requests))
        left_out.update((line.removesuffix(" is excluded"), None) for line in told if line.endswith(" is excluded"))
    hint = f"take {' and '.join(sorted(left_out))} out of exclude" if left_out else ""
    return UnsatisfiableError(", ".join(names), tuple(lines), hint=hint)


class _Story:
    """What one of libsolv's problems comes to, told from the requests down to each obstacle."""

    def __init__(self, universe: Universe, problem: Any) -> None:
        self.universe = universe
        self.solv = universe.solv
        self.requests: dict[str, None] = {}
        infos = [info for rule in problem.findallproblemrules() for info in rule.allinfos()]
        self.by_source: dict[int, list[Any]] = {}
        self.others: list[Any] = []
        for info in infos:
            if info.solvable is None:
                self.others.append(info)
            else:
                self.by_source.setdefault(info.solvable.id, []).append(info)
        self.paths: dict[int, list[str]] = {}
        self.told: set[int] = set()

    def tell(self, wishes: Sequence[Wish]) -> Iterator[str]:
        """Yield the lines of every request that takes part."""
        concerned = self.by_source.keys() | {
            info.othersolvable.id for infos in self.by_source.values() for info in infos if info.othersolvable
        }
        starting = [wish for wish in wishes if concerned & set(wish.options)]
        for wish in starting:
            self.requests[wish.text] = None
            for option in wish.options:
                self.paths.setdefault(option, [])
        self._follow([option for wish in starting for option in wish.options])
        begun = [option for wish in starting for option in wish.options if option in self.by_source]
        for option in begun or list(self.by_source):
            yield from self._package(option)
        if not self.told:
            self.requests.update((wish.text, None) for wish in wishes)
            yield from (info.problemstr() for info in self.others)

    def _follow(self, waiting: list[int]) -> None:
        """Find the dependencies that lead to every package of the problem."""
        while waiting:
            source = waiting.pop(0)
            for info in self.by_source.get(source, ()):
                if info.type != self.solv.Solver.SOLVER_RULE_PKG_REQUIRES:
                    continue
                for provider in self.universe.pool.whatprovides(info.dep_id):
                    if provider.id not in self.paths:
                        self.paths[provider.id] = [*self.paths[source], self._relation(info, "Requires")]
                        waiting.append(provider.id)

    def _package(self, source: int) -> Iterator[str]:
        if source in self.told:
            return
        self.told.add(source)
        for info in sorted(self.by_source.get(source, ()), key=self._rank):
            yield from self._info(info)

    def _rank(self, info: Any) -> int:
        return int(info.type == self.solv.Solver.SOLVER_RULE_PKG_REQUIRES)

    def _info(self, info: Any) -> Iterator[str]:
        solver = self.solv.Solver
        match info.type:
            case solver.SOLVER_RULE_PKG_REQUIRES:
                yield self._relation(info, "Requires")
                for provider in self.universe.pool.whatprovides(info.dep_id):
                    yield from self._package(provider.id)
            case solver.SOLVER_RULE_PKG_NOTHING_PROVIDES_DEP:
                yield self._relation(info, "Requires")
                yield from _missing(self.universe, str(info.dep))
            case solver.SOLVER_RULE_PKG_CONFLICTS | solver.SOLVER_RULE_PKG_SELF_CONFLICT:
                yield self._relation(info, "Conflicts")
                yield from self._rival(info)
            case solver.SOLVER_RULE_PKG_OBSOLETES | solver.SOLVER_RULE_PKG_IMPLICIT_OBSOLETES:
                yield self._relation(info, "Obsoletes")
                yield from self._rival(info)
            case solver.SOLVER_RULE_PKG_SAME_NAME:
                yield f"only one of {_full(info.solvable)} and {_full(info.othersolvable)} can be installed"
                yield from self.paths.get(info.othersolvable.id, ())
            case solver.SOLVER_RULE_PKG_NOT_INSTALLABLE:
                yield f"{info.solvable.name} is {self.universe.obstacle(info.solvable) or 'not installable'}"
            case solver.SOLVER_RULE_BEST:
                yield f"{_version(self.universe, info.solvable)}, and a later one would have to be taken"
            case _:
                yield str(info.problemstr())

    def _rival(self, info: Any) -> Iterator[str]:
        other = info.othersolvable
        if other is None or other.id == info.solvable.id:
            return
        yield f"{other.name} {other.evr} is wanted as well"
        yield from self.paths.get(other.id, ())
        yield from self._package(other.id)

    def _relation(self, info: Any, kind: str) -> str:
        return f"{info.solvable.name} {kind}: {info.dep}"


def _missing(universe: Universe, text: str) -> Iterator[str]:
    """Say of a dependency that nothing meets what there is instead."""
    if text.startswith("("):
        first, *rest = split_rich(text)
        for part in (first, *(part for _, part in rest)):
            if not universe.providing(part):
                yield from _missing(universe, part)
        return
    name = text.split(" ", maxsplit=1)[0]
    found = universe.named(name, all_of_them=True) or universe.bearing(name)
    if not found:
        yield f"{name} is not in {universe.places()}"
    for solvable in found:
        obstacle = universe.obstacle(solvable)
        if obstacle:
            yield f"{solvable.name} is {obstacle}"
        elif solvable.name == name:
            yield _version(universe, solvable)
        else:
            provided = (str(one) for one in solvable.lookup_deparray(universe.solv.SOLVABLE_PROVIDES))
            yield f"{solvable.name} {solvable.evr} provides " + next(
                (one for one in provided if one.split(" ", maxsplit=1)[0] == name), name
            )


def _version(universe: Universe, solvable: Any) -> str:
    return f"{solvable.name} has version {solvable.evr} in {universe.place(solvable).archive}"


def _full(solvable: Any) -> str:
    return f"{solvable.name} {solvable.evr} ({solvable.arch})"


def _root(reason: Reason) -> str:
    if reason.why is Why.DEPENDENCY:
        return f"needed by {reason.by} ({reason.detail})" if reason.by else reason.detail
    return "selected by the distribution" if reason.why is Why.DISTRIBUTION else f"requested as {reason.detail}"


def _step(package: Package) -> str:
    reason = package.reason
    if reason.detail.startswith("Supplements: "):
        return f"{package.name} {package.version} {reason.detail}, which {reason.by} is part of"
    return f"{reason.by} {reason.detail} -> {package.name} {package.version}"
