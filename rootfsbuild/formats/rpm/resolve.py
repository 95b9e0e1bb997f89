"""From what a recipe asks to the packages of a plan: the choices of `dnf --installroot install`, made by libsolv."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rootfsbuild.errors import UntrustedError
from rootfsbuild.formats.rpm.explain import explain_conflict
from rootfsbuild.formats.rpm.links import Links
from rootfsbuild.formats.rpm.metadata import Universe
from rootfsbuild.formats.rpm.version import join_evr, split_evr
from rootfsbuild.formats.rpm.wanted import Groups, Wanted, Wish, no_groups, read_request
from rootfsbuild.plan import Package, Reason, Request, Why

INSTALL_ONLY = (
    "kernel",
    "kernel-PAE",
    "installonlypkg(kernel)",
    "installonlypkg(kernel-module)",
    "installonlypkg(vm)",
    "multiversion(kernel)",
)
"""What provides one of these may be there in several versions (dnf.conf(5), installonlypkgs)."""

_FLAGS = (
    "SOLVER_FLAG_ALLOW_DOWNGRADE",
    "SOLVER_FLAG_ALLOW_VENDORCHANGE",
    "SOLVER_FLAG_BEST_OBEY_POLICY",
    "SOLVER_FLAG_KEEP_ORPHANS",
    "SOLVER_FLAG_YUM_OBSOLETES",
)
_RELATIONS = (
    ("Requires", "SOLVABLE_REQUIRES", -1),
    ("Requires(pre)", "SOLVABLE_REQUIRES", 1),
    ("Provides", "SOLVABLE_PROVIDES", -1),
    ("Conflicts", "SOLVABLE_CONFLICTS", 0),
    ("Obsoletes", "SOLVABLE_OBSOLETES", 0),
    ("Recommends", "SOLVABLE_RECOMMENDS", 0),
    ("Supplements", "SOLVABLE_SUPPLEMENTS", 0),
)
"""(field of a plan, libsolv's name for it, which side of its marker for prerequisites or files)."""
_SOURCE = re.compile(r"(?P<name>.+)-(?P<version>[^-]+-[^-]+)\.(?:no)?src\.rpm")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+%{}-]*")
_VERSION = re.compile(r"[A-Za-z0-9._+%{}~^:-]+")


@dataclass(frozen=True)
class Resolution:
    """What a request comes to."""

    packages: tuple[Package, ...]
    """In install order."""
    skipped: tuple[str, ...] = ()
    """Packages that a requested group lists and no repository has, which dnf only warns of."""


def resolve(request: Request, universe: Universe, groups: Groups = no_groups) -> Resolution:
    """Choose the packages that meet `request`, as dnf does with `best` set, which every RPM distribution ships.

    `groups` turns the name of a group (without its `@`) into names of packages. Raises UnsatisfiableError, and
    UntrustedError when what the metadata says of a chosen package cannot be believed.
    """
    universe.consider(request.exclude)
    wanted = read_request(request, universe, groups)
    solver, problems = _solve(universe, wanted, recommends=request.recommends)
    if paths_matter(universe, solver, problems, recommends=request.recommends) and universe.load_filelists():
        solver, problems = _solve(universe, wanted, recommends=request.recommends)
    if problems:
        error = explain_conflict(universe, problems, wanted.wishes)
        error.hint = error.hint or _older(universe, wanted, recommends=request.recommends)
        raise error
    transaction = solver.transaction()
    transaction.order()
    chosen = [step for step in transaction.steps() if step.isinstalled() is False]
    return Resolution(_plan(universe, wanted, solver, chosen), wanted.skipped)


def _solve(universe: Universe, wanted: Wanted, *, recommends: bool, best: bool = True) -> tuple[Any, list[Any]]:
    """Return the solver with what it decided, and the problems that are left."""
    solv, pool = universe.solv, universe.pool
    install = solv.Job.SOLVER_INSTALL | (solv.Job.SOLVER_FORCEBEST if best else 0)
    one_of = solv.Job.SOLVER_SOLVABLE_ONE_OF | solv.Job.SOLVER_SETARCH | solv.Job.SOLVER_SETEVR
    jobs = []
    for wish in wanted.wishes:
        if wish.condition:
            what = universe.dependency(wish.condition)
            jobs.append(pool.Job(install | solv.Job.SOLVER_SOLVABLE_PROVIDES, what))
        else:
            jobs.append(pool.Job(install | one_of, pool.towhatprovides(list(wish.options))))
    several = solv.Job.SOLVER_MULTIVERSION | solv.Job.SOLVER_SOLVABLE_PROVIDES
    jobs += [pool.Job(several, pool.str2id(capability)) for capability in INSTALL_ONLY]
    solver = pool.Solver()
    for flag in _FLAGS:
        solver.set_flag(getattr(solv.Solver, flag), 1)
    solver.set_flag(solv.Solver.SOLVER_FLAG_IGNORE_RECOMMENDED, int(not recommends))
    return solver, list(solver.solve(jobs))


def _older(universe: Universe, wanted: Wanted, *, recommends: bool) -> str:
    """Return a hint when older versions of what was asked for could be installed."""
    solver, problems = _solve(universe, wanted, recommends=recommends, best=False)
    if problems:
        return ""
    chosen = {solvable.id: solvable for solvable in solver.transaction().newsolvables()}
    granted = [one for wish in wanted.wishes for one in wish.options if one in chosen]
    newest = {solvable.id for solvable in _newest(universe, wanted)}
    older = sorted({f"{chosen[one].name}={chosen[one].evr}" for one in granted if one not in newest})
    return f"an older version can be installed: include {' and '.join(older)}" if older else ""


def _newest(universe: Universe, wanted: Wanted) -> Iterator[Any]:
    for wish in wanted.wishes:
        yield from universe.pool.best_solvables([universe.pool.id2solvable(one) for one in wish.options])


def paths_matter(universe: Universe, solver: Any, problems: Sequence[Any], *, recommends: bool) -> bool:
    """Tell whether a path that only file lists hold could have changed what was decided.

    A package whose path nothing provides was either turned down for it, which is a decision, or never looked at; and
    the proof that there is no solution stands if none of its packages names such a path.
    """
    if problems:
        infos = (info for problem in problems for rule in problem.findallproblemrules() for info in rule.allinfos())
        return universe.need_filelists((info.solvable for info in infos if info.solvable is not None), weak=recommends)
    decided = (universe.pool.id2solvable(abs(one)) for one in solver.raw_decisions())
    return universe.need_filelists(decided, weak=recommends)


def _plan(universe: Universe, wanted: Wanted, solver: Any, chosen: Sequence[Any]) -> tuple[Package, ...]:
    links = Links(universe, chosen)
    reasons = find_reasons(universe, wanted, solver, chosen, links)
    names = {solvable.id: solvable.name for solvable in chosen}
    return tuple(make_package(universe, solvable, reasons[solvable.id], links, names) for solvable in chosen)


def find_reasons(
    universe: Universe, wanted: Wanted, solver: Any, chosen: Sequence[Any], links: Links
) -> Mapping[int, Reason]:
    """Return why each package was chosen: the shortest way from a request, strict dependencies before weak ones."""
    solv = universe.solv
    by_id = {solvable.id: solvable for solvable in chosen}
    reasons: dict[int, Reason] = {}
    for wish in wanted.wishes:
        for one in _granted(universe, wish, solver, by_id, links):
            reasons.setdefault(one, Reason(wish.why, "" if wish.why is Why.DISTRIBUTION else wish.text))
    fresh = deque(reasons)
    weak: deque[int] = deque()
    while fresh or weak:
        strict = bool(fresh)
        source = by_id[(fresh if strict else weak).popleft()]
        kind, key = ("Requires", solv.SOLVABLE_REQUIRES) if strict else ("Recommends", solv.SOLVABLE_RECOMMENDS)
        for text in links.relations(source, key):
            for one in links.meeting(text):
                if one not in reasons:
                    reasons[one] = Reason(Why.DEPENDENCY, f"{kind}: {text}", source.name)
                    fresh.append(one)
        if strict:
            weak.append(source.id)
        if not fresh and not weak:
            fresh.extend(_supplementing(universe, by_id, reasons, links))
    return {one: reasons.get(one) or Reason(Why.DEPENDENCY) for one in by_id}


def _granted(universe: Universe, wish: Wish, solver: Any, by_id: Mapping[int, Any], links: Links) -> tuple[int, ...]:
    """Return what was chosen to meet a wish."""
    if wish.condition:
        return links.meeting(wish.condition)
    found = [one for one in wish.options if one in by_id]
    rules = (universe.solv.Solver.SOLVER_RULE_JOB, universe.solv.Solver.SOLVER_RULE_BEST)
    decided = []
    for one in found if len(found) > 1 else ():
        rule = solver.get_decision(by_id[one]).rule
        if rule is not None and rule.type in rules:
            decided.append(one)
    return tuple((decided or found)[:1])


def _supplementing(
    universe: Universe, by_id: Mapping[int, Any], reasons: dict[int, Reason], links: Links
) -> Iterator[int]:
    """Give a reason to what is there because it Supplements something that has one."""
    for one, solvable in by_id.items():
        if one in reasons:
            continue
        for text in links.relations(solvable, universe.solv.SOLVABLE_SUPPLEMENTS):
            by = next((other for other in links.meeting(text) if other in reasons), None)
            if by is not None:
                reasons[one] = Reason(Why.DEPENDENCY, f"Supplements: {text}", by_id[by].name)
                yield one
                break


def make_package(universe: Universe, solvable: Any, reason: Reason, links: Links, names: Mapping[int, str]) -> Package:
    """Return a package as a plan has it; `names` are those of all that is chosen, by libsolv's ids."""
    solv = universe.solv
    placed = universe.place(solvable)
    source = _SOURCE.fullmatch(solvable.lookup_sourcepkg() or "")
    evr = split_evr(solvable.evr)
    version = join_evr(*evr)
    relations = {field: links.relations(solvable, getattr(solv, key), side) for field, key, side in _RELATIONS}

    def needed(*fields: str) -> tuple[str, ...]:
        texts = (text for field in fields for text in relations[field])
        met = [one for text in texts if solvable.id not in (found := links.meeting(text)) for one in found]
        return tuple(sorted({names[one] for one in met} - {solvable.name}))

    return Package(
        name=_checked(_NAME, solvable.name, "name", placed.archive),
        version=_checked(_VERSION, version, f"version of {solvable.name}", placed.archive),
        architecture=_checked(_NAME, solvable.arch, f"architecture of {solvable.name}", placed.archive),
        source=source["name"] if source else solvable.name,
        source_version=source["version"] if source else version,
        archive=placed.archive,
        suite=placed.suite,
        component="",
        filename=_location(solvable, placed.archive),
        size=solvable.lookup_num(solv.SOLVABLE_DOWNLOADSIZE),
        installed_size=solvable.lookup_num(solv.SOLVABLE_INSTALLSIZE),
        sha256=_sha256(universe, solvable, placed.archive),
        reason=reason,
        automatic=reason.why is Why.DEPENDENCY,
        depends=needed("Requires", "Requires(pre)"),
        pre_depends=needed("Requires(pre)"),
        control=tuple((field, ", ".join(texts)) for field, texts in relations.items() if texts),
    )


def _checked(pattern: re.Pattern[str], value: str, what: str, archive: str) -> str:
    if pattern.fullmatch(value) is None:
        raise UntrustedError(archive, "malformed", f"{value!r} is not the {what} of any package")
    return value


def _location(solvable: Any, archive: str) -> str:
    """Return where a package lies below its repository."""
    location, *_ = solvable.lookup_location() or ("",)
    parts = (location or "").split("/")
    if "" in parts or ".." in parts or "." in parts or ":" in parts[0] or not (location or "").isprintable():
        raise UntrustedError(archive, "malformed", f"{solvable.name} is said to be at {location!r}")
    return str(location)


def _sha256(universe: Universe, solvable: Any, archive: str) -> str:
    checksum = solvable.lookup_checksum(universe.solv.SOLVABLE_CHECKSUM)
    if checksum is None or checksum.typestr() != "sha256":
        there = "no checksum" if checksum is None else f"only a checksum of type {checksum.typestr()}"
        raise UntrustedError(
            archive, "hash", f"it gives {there} for {solvable.name}, and nothing but sha256 is accepted"
        )
    return str(checksum.hex())
