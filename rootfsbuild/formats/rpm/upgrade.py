"""The least change of a lock: what is named moves, what stands in its way moves with it, and nothing else.

libsolv is asked as `dnf upgrade NAME` asks it on a system that has the lock installed; of what it changes beyond need,
each package is then offered its old place again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rootfsbuild.errors import UsageError
from rootfsbuild.formats.rpm.explain import explain_conflict, nearest
from rootfsbuild.formats.rpm.links import Links
from rootfsbuild.formats.rpm.locked import Both, relations
from rootfsbuild.formats.rpm.resolve import INSTALL_ONLY, find_reasons, make_package, paths_matter, resolve
from rootfsbuild.formats.rpm.wanted import Wanted, Wish, read_request, replaces
from rootfsbuild.plan import Package, Reason, Request, Why

if TYPE_CHECKING:
    from rootfsbuild.formats.rpm.refresh import Metadata

_FLAGS = (
    "SOLVER_FLAG_ALLOW_DOWNGRADE",
    "SOLVER_FLAG_ALLOW_UNINSTALL",
    "SOLVER_FLAG_ALLOW_VENDORCHANGE",
    "SOLVER_FLAG_BEST_OBEY_POLICY",
    "SOLVER_FLAG_KEEP_ORPHANS",
    "SOLVER_FLAG_YUM_OBSOLETES",
)
"""dnf's, and leave to remove what is in the way: a lock's dependencies are nobody's own."""
_STRICT = ("SOLVABLE_REQUIRES",)
_WEAK = ("SOLVABLE_REQUIRES", "SOLVABLE_RECOMMENDS")
_TRIES = 200
"""How many packages at most are offered their old place, 3 ms each."""
_SYSTEM = 1


def upgrade(
    request: Request,
    locked: Sequence[Package],
    names: frozenset[str],
    metadata: Metadata,
    *,
    same_recipe: bool = False,
) -> tuple[Package, ...]:
    """Return the packages that meet `request`, in install order, with few changes to `locked`.

    What `names` names is as a fresh resolution would have it, the newest that may be; all other locked packages stay,
    listed or not, unless that stands in the way, and go when nothing needs them. With all of them named, that is
    `resolve`. `same_recipe`: the request is the one that the lock was made for, so that what a group has gained since
    then is not asked for, nor what is recommended since then.

    Raises UnsatisfiableError as `resolve` does, UntrustedError for metadata that cannot be believed, and UsageError
    for a name that is neither in the lock nor in the result.
    """
    live = metadata.universe
    known = {package.name for package in locked}
    for name in sorted(names - known):
        if not live.named(name):
            raise _unknown(name, known)
    if same_recipe and not names:
        return tuple(locked)
    if names >= known:
        packages = resolve(request, live, metadata.packages_of).packages
    else:
        packages = _find_least(request, locked, names, metadata, same_recipe=same_recipe)
    for name in sorted(names - known - {package.name for package in packages}):
        raise _unknown(name, known)
    return packages


def _unknown(name: str, known: set[str]) -> UsageError:
    return UsageError(f"{name}: not in the lock", hint=nearest(name, sorted(known)))


def _find_least(
    request: Request, locked: Sequence[Package], names: frozenset[str], metadata: Metadata, *, same_recipe: bool
) -> tuple[Package, ...]:
    found = _Upgrade(request, locked, names, metadata, same_recipe=same_recipe, filelists=False)
    if paths_matter(found.both, *found.first, recommends=request.recommends):
        found = _Upgrade(request, locked, names, metadata, same_recipe=same_recipe, filelists=True)
    return found.run()


@dataclass(frozen=True)
class _Selection:
    """One solution."""

    solver: Any
    chosen: Mapping[int, Any]
    """All that the solver has decided to have, by libsolv's number."""
    needed: frozenset[int]
    """The part of it that the request leads to."""


class _Upgrade:
    """One upgrade."""

    def __init__(
        self,
        request: Request,
        locked: Sequence[Package],
        names: frozenset[str],
        metadata: Metadata,
        *,
        same_recipe: bool,
        filelists: bool,
    ) -> None:
        self.request = request
        self.names = names
        self.idle: frozenset[str] = frozenset()
        self.metadata = metadata
        self.same_recipe = same_recipe
        self.locked = locked
        renewed = {package for package in locked if package.name in names and _is_renewed(metadata, package)}
        self.both = Both(metadata.universe, [one for one in locked if one not in renewed], filelists=filelists)
        self.renewed = {package.name for package in renewed}
        self.both.consider(request.exclude)
        self.wanted, self.memories = self._read()
        self.first = self._solve(())

    def run(self) -> tuple[Package, ...]:
        """Find the change; where there is none, the repositories alone are asked, for their explanation."""
        solver, problems = self.first
        if problems:
            resolve(self.request, self.metadata.universe, self.metadata.packages_of)
            error = explain_conflict(self.both, problems, self.wanted.wishes)
            error.request = error.request or ", ".join(sorted(self.names))
            raise error
        return self._plan(self._improve(self._without_idle(self._selection(solver))))

    # The question.

    def _read(self) -> tuple[Wanted, tuple[Wish, ...]]:
        """Return what is asked for, and what the lock alone remembers to have been asked for."""
        wanted = read_request(self.request, self.both, self.metadata.packages_of)
        wanted = replace(wanted, wishes=tuple(map(self._as_listed, wanted.wishes)))
        if not self.same_recipe:
            return wanted, ()
        wishes = tuple(wish for wish in wanted.wishes if not wish.text.startswith("@") or self._was_met(wish))
        covered = {one for wish in wishes for one in wish.options}
        memories = tuple(
            Wish(package.reason.detail, package.reason.why, (one,))
            for one, package in self.both.locked.items()
            if package.reason.why is not Why.DEPENDENCY and one not in covered
        )
        return replace(wanted, wishes=wishes), memories

    def _as_listed(self, wish: Wish) -> Wish:
        """Leave out what replaces only the locked version of what is asked for, and not a listed one."""
        pool, key = self.both.pool, self.both.solv.SOLVABLE_OBSOLETES
        listed = [one for one in wish.options if one not in self.both.locked and self._named(one) == wish.text]
        if not listed:
            return wish
        same = [one for one in wish.options if self._named(one) == wish.text]
        others = (one for one in wish.options if self._named(one) != wish.text)
        able = [
            one for one in others if any(replaces(pool.id2solvable(one), pool.id2solvable(old), key) for old in listed)
        ]
        return replace(wish, options=(*same, *able))

    def _was_met(self, wish: Wish) -> bool:
        return bool(wish.condition) or any(
            one in self.both.locked or self._named(one) in self.renewed for one in wish.options
        )

    def _named(self, one: int) -> str:
        return str(self.both.pool.id2solvable(one).name)

    def _jobs(self, keep: Iterable[int]) -> Iterator[Any]:
        solv, pool = self.both.solv, self.both.pool
        job = solv.Job
        for wish in self.wanted.wishes:
            if wish.condition:
                dependency = self.both.dependency(wish.condition)
                yield pool.Job(job.SOLVER_INSTALL | job.SOLVER_SOLVABLE_PROVIDES, dependency)
            else:
                yield self._install(*self._options(wish))
        yield from self._memory_jobs()
        yield from self._named_jobs()
        for one, package in self.both.locked.items():
            if package.name in self.idle or self.both.obstacle(pool.id2solvable(one)):
                yield pool.Job(job.SOLVER_ERASE | job.SOLVER_SOLVABLE, one)
        for one in keep:
            yield pool.Job(job.SOLVER_INSTALL | job.SOLVER_SOLVABLE, one)
        several = job.SOLVER_MULTIVERSION | job.SOLVER_SOLVABLE_PROVIDES
        for capability in INSTALL_ONLY:
            yield pool.Job(several, pool.str2id(capability))

    def _memory_jobs(self) -> Iterator[Any]:
        for wish in self.memories:
            options = [*wish.options, *(one.id for one in self.both.named(self._named(wish.options[0])))]
            yield self._install(options, self.both.solv.Job.SOLVER_WEAK)

    def _named_jobs(self) -> Iterator[Any]:
        pool, job = self.both.pool, self.both.solv.Job
        for name in sorted(self.names - self.idle):
            if name in self.renewed:
                best = pool.best_solvables(self._listed(name))
                yield self._install([one.id for one in best], job.SOLVER_WEAK)
            elif not any(self._narrows(wish, name) for wish in self.wanted.wishes):
                how = job.SOLVER_UPDATE | job.SOLVER_FORCEBEST | job.SOLVER_SOLVABLE_NAME
                yield pool.Job(how, pool.str2id(name))

    def _install(self, options: Iterable[int], more: int = 0) -> Any:
        job = self.both.solv.Job
        how = job.SOLVER_INSTALL | job.SOLVER_SOLVABLE_ONE_OF | job.SOLVER_SETARCH | job.SOLVER_SETEVR | more
        return self.both.pool.Job(how, self.both.pool.towhatprovides(list(dict.fromkeys(options))))

    def _options(self, wish: Wish) -> tuple[Sequence[int], int]:
        """Return of what one has to be there, and whether it has to be the best of it."""
        held = [one for one in wish.options if one in self.both.locked]
        names = {
            self._named(one) for one in wish.options if one in self.both.locked or self._named(one) in self.renewed
        }
        if held and not names <= self.names:
            return wish.options, 0
        live = [one for one in wish.options if one not in self.both.locked]
        if wish.text not in names:
            # What provides it stays the one that does, as long as it is there at all.
            live = [one for one in live if self._named(one) in names] or live
        return (live, self.both.solv.Job.SOLVER_FORCEBEST) if live else (wish.options, 0)

    def _narrows(self, wish: Wish, name: str) -> bool:
        """Tell whether a wish is for some versions of a package alone, so that the newest may not be asked for."""
        options = set(wish.options)
        listed = {one.id for one in self._listed(name)}
        return bool(options & listed) and not options >= listed

    def _listed(self, name: str) -> list[Any]:
        return [one for one in self.both.named(name) if one.id not in self.both.locked]

    # One solution.

    def _solve(self, keep: Iterable[int]) -> tuple[Any, list[Any]]:
        flags = self.both.solv.Solver
        solver = self.both.pool.Solver()
        for flag in _FLAGS:
            solver.set_flag(getattr(flags, flag), 1)
        recommends = self.request.recommends
        solver.set_flag(flags.SOLVER_FLAG_IGNORE_RECOMMENDED, int(not recommends))
        solver.set_flag(flags.SOLVER_FLAG_ADD_ALREADY_RECOMMENDED, int(recommends and not self.same_recipe))
        return solver, list(solver.solve(list(self._jobs(keep))))

    def _selection(self, solver: Any) -> _Selection:
        pool = self.both.pool
        chosen = {one: pool.id2solvable(one) for one in sorted(solver.raw_decisions()) if one > _SYSTEM}
        return _Selection(solver, chosen, self._needed(chosen))

    def _needed(self, chosen: Mapping[int, Any]) -> frozenset[int]:
        """Return what the request leads to, by all that meets a relation: nothing that is of use goes."""
        links = Links(self.both, list(chosen.values()))
        solv = self.both.solv
        keys = [getattr(solv, key) for key in (_WEAK if self.request.recommends else _STRICT)]
        found: dict[int, None] = {}
        waiting = [one for wish in (*self.wanted.wishes, *self.memories) for one in self._granted(wish, chosen, links)]
        while waiting:
            while waiting:
                one = waiting.pop()
                if one not in found:
                    found[one] = None
                    texts = (text for key in keys for text in links.relations(chosen[one], key, 0))
                    waiting.extend(other for text in texts for other in links.meeting(text))
            if self.request.recommends:
                waiting.extend(
                    one for one in chosen if one not in found and self._supplements(chosen[one], found, links)
                )
        return frozenset(found)

    def _granted(self, wish: Wish, chosen: Mapping[int, Any], links: Links) -> Iterable[int]:
        return links.meeting(wish.condition) if wish.condition else [one for one in wish.options if one in chosen]

    def _supplements(self, solvable: Any, found: Collection[int], links: Links) -> bool:
        texts = links.relations(solvable, self.both.solv.SOLVABLE_SUPPLEMENTS)
        return any(one in found for text in texts for one in links.meeting(text))

    # The least of them.

    def _without_idle(self, first: _Selection) -> _Selection:
        """Let nothing move for the sake of what is named and goes in the end."""
        self.idle = self.names - {first.chosen[one].name for one in first.needed}
        if not self.idle:
            return first
        solver, problems = self._solve(())
        second = first if problems else self._selection(solver)
        if self._cost(second) <= self._cost(first):
            return second
        self.idle = frozenset()
        return first

    def _improve(self, best: _Selection) -> _Selection:
        """Offer what has changed without being named its old place, and take what that makes better."""
        keep: tuple[int, ...] = ()
        for one in [one for one in sorted(self.both.locked) if one not in best.needed][:_TRIES]:
            name = self.both.locked[one].name
            others = [other for other in best.needed if self._named(other) != name]
            # First whatever else that leads to; then with all others as they are.
            for attempt in ((*keep, one), (*others, one)):
                if one in best.needed or name in self.names:
                    break
                solver, problems = self._solve(attempt)
                found = None if problems else self._selection(solver)
                if found is not None and self._cost(found) < self._cost(best):
                    best, keep = found, (*keep, one)
        return best

    def _cost(self, selection: _Selection) -> tuple[int, int, int]:
        """Return how many packages are lost, how many changed, and how many new: none of them named."""
        there = [selection.chosen[one] for one in selection.needed]
        held = {(package.name, package.architecture) for package in self.locked}
        files = {self._identity(one) for one in there}
        names = {one.name for one in there}
        gone = [p for p in self.locked if p.name not in self.names and _identity(p) not in files]
        lost = sum(package.name not in names for package in gone)
        new = sum((one.name, one.arch) not in held for one in there)
        return lost, len(gone) - lost, new

    def _identity(self, solvable: Any) -> tuple[str, ...]:
        locked = self.both.locked.get(solvable.id)
        if locked is not None:
            return _identity(locked)
        checksum = solvable.lookup_checksum(self.both.solv.SOLVABLE_CHECKSUM)
        return solvable.name, solvable.evr, solvable.arch, checksum.hex() if checksum else ""

    # The plan.

    def _plan(self, selection: _Selection) -> tuple[Package, ...]:
        needed = {one: selection.chosen[one] for one in sorted(selection.needed)}
        # A condition may have counted on what is about to go.
        ordered = self._order(needed) or self._order(selection.chosen) or list(needed.values())
        links = Links(self.both, ordered)
        wishes = Wanted((*self.wanted.wishes, *self.memories))
        reasons = find_reasons(self.both, wishes, selection.solver, ordered, links)
        old = {_identity(package): package for package in self.locked}
        stays = {one.id: locked for one in ordered if (locked := old.get(self._identity(one))) is not None}
        kept = self._keep_reasons(ordered, stays, reasons, links)
        names = {one.id: one.name for one in ordered}
        return tuple(
            self._stay(one, stays[one.id], kept[one.id], links, names)
            if one.id in stays
            else make_package(self.both, one, kept[one.id], links, names)
            for one in ordered
        )

    def _order(self, chosen: Mapping[int, Any]) -> list[Any] | None:
        """Return packages in the order in which they are installed where nothing is; None if they do not fit."""
        pool, job = self.both.pool, self.both.solv.Job
        self.both.uninstall()
        solver = pool.Solver()
        for flag in (*_FLAGS, "SOLVER_FLAG_IGNORE_RECOMMENDED"):
            solver.set_flag(getattr(self.both.solv.Solver, flag), 1)
        jobs = [pool.Job(job.SOLVER_INSTALL | job.SOLVER_SOLVABLE, one) for one in chosen]
        several = job.SOLVER_MULTIVERSION | job.SOLVER_SOLVABLE_PROVIDES
        jobs += [pool.Job(several, pool.str2id(capability)) for capability in INSTALL_ONLY]
        if solver.solve(jobs):
            return None
        transaction = solver.transaction()
        transaction.order()
        steps = list(transaction.steps())
        return steps if {one.id for one in steps} == chosen.keys() else None

    def _keep_reasons(
        self, ordered: Sequence[Any], stays: Mapping[int, Package], reasons: Mapping[int, Reason], links: Links
    ) -> Mapping[int, Reason]:
        """Return reasons, those of the lock wherever they still hold."""
        ids = {one.name: one for one in reversed(ordered)}
        kept = dict(reasons)
        for one, locked in stays.items():
            if self._holds(locked.reason, one, reasons[one], ids, links):
                kept[one] = locked.reason
        by_name = {one.name: kept[one.id] for one in reversed(ordered)}
        # Old and new reasons together could go round in a circle.
        return kept if all(_is_rooted(name, by_name) for name in by_name) else reasons

    def _holds(self, old: Reason, one: int, new: Reason, ids: Mapping[str, Any], links: Links) -> bool:
        if old.why is not Why.DEPENDENCY or new.why is not Why.DEPENDENCY:
            return old == new
        kind, _, text = old.detail.partition(": ")
        key = getattr(self.both.solv, f"SOLVABLE_{kind.upper()}", None) if kind in {"Requires", "Recommends"} else None
        by = ids.get(old.by)
        if key is None or by is None:
            return False
        return text in links.relations(by, key, 0) and one in links.meeting(text)

    def _stay(self, solvable: Any, locked: Package, reason: Reason, links: Links, names: Mapping[int, str]) -> Package:
        def needed(*fields: str) -> tuple[str, ...]:
            texts = (text for field in fields for text in relations(locked, field))
            met = [one for text in texts if solvable.id not in (found := links.meeting(text)) for one in found]
            return tuple(sorted({names[one] for one in met} - {locked.name}))

        twin = self.both.twins.get(locked, None if solvable.id in self.both.locked else solvable)
        if twin is not None:
            listed = make_package(self.both, twin, reason, links, {**names, twin.id: locked.name})
            locked = replace(locked, archive=listed.archive, suite=listed.suite, filename=listed.filename)
        return replace(
            locked,
            reason=reason,
            automatic=reason.why is Why.DEPENDENCY,
            depends=needed("Requires", "Requires(pre)"),
            pre_depends=needed("Requires(pre)"),
        )


def _identity(package: Package) -> tuple[str, ...]:
    return package.name, package.version, package.architecture, package.sha256


def _is_renewed(metadata: Metadata, package: Package) -> bool:
    """Tell whether a package is not to be had as an installed one that is upgraded.

    It is one of which several versions can be installed, so that its upgrade would leave the old one there, or has
    the same version as another file in the repositories, so that libsolv sees nothing to be upgraded.
    """
    solv = metadata.universe.solv
    listed = metadata.universe.named(package.name)
    same = [one for one in listed if (one.evr, one.arch) == (package.version, package.architecture)]
    sums = [str(one.lookup_checksum(solv.SOLVABLE_CHECKSUM)) for one in same]
    provided = {text.split(" ", 1)[0] for text in relations(package, "Provides")}
    return bool(listed) and (
        not provided.isdisjoint(INSTALL_ONLY) or bool(same and f"sha256:{package.sha256}" not in sums)
    )


def _is_rooted(name: str, reasons: Mapping[str, Reason]) -> bool:
    """Tell whether a chain of reasons ends."""
    seen: set[str] = set()
    while name in reasons and reasons[name].why is Why.DEPENDENCY:
        if name in seen:
            return False
        seen.add(name)
        name = reasons[name].by
    return True
