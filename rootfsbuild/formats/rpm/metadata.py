"""The universe of an RPM resolution: repositories loaded into libsolv, and what of them may be chosen.

libsolv's objects have no types; what they are is known here, in solvcache, in resolve and what it is made of.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from rootfsbuild.formats.rpm.solvcache import Document, load_solv, read_filelists, read_primary

Filelists = Document | Callable[[], Document | None] | None

_IN_PRIMARY = re.compile(r"/etc/.*|.*bin/.*|/usr/lib/sendmail")
_HIDDEN, _LEFT_OUT = "hidden by module filtering", "excluded"


@dataclass(frozen=True)
class Placed:
    """One repository as it stands in a resolution."""

    archive: str
    """The repository's name in the distribution file."""
    suite: str
    """The release's version."""
    primary: Document
    filelists: Filelists = None
    """All paths of its packages, or what fetches them when they turn out to be needed."""
    hidden: frozenset[str] = frozenset()
    """`name-[epoch:]version-release.arch` of the packages that module filtering keeps out."""
    claimed: frozenset[str] = frozenset()
    """Names of packages of active module streams: what else has or provides such a name is kept out too."""
    shown: frozenset[str] = frozenset()
    """`name-[epoch:]version-release.arch` of the packages of these streams, which stay."""
    priority: int = 99
    """As in dnf: the lower number wins."""
    cost: int = 1000
    """As in dnf: the lower one is preferred where all else is equal."""
    excludes: tuple[str, ...] = ()
    """Globs of names, `name.arch` or `name-version-release.arch`."""


class Universe:
    """Packages to choose from. It belongs to one thread: libsolv's pool changes as it is asked."""

    def __init__(self, placed: Sequence[Placed], architecture: str, folder: str) -> None:
        """Load every repository; see load_universe."""
        solv = self.solv = load_solv()
        # dnf loads them in this order, and libsolv takes the first where all else is equal.
        self.placed = tuple(sorted(placed, key=lambda one: (one.priority, one.cost)))
        self.architecture = architecture
        self.pool: Any = solv.Pool()
        self.pool.setdisttype(solv.Pool.DISTTYPE_RPM)
        self.pool.setarch(architecture)
        # As dnf has it: what may not be chosen is seen, and refused, wherever it would do.
        self.pool.set_flag(solv.Pool.POOL_FLAG_WHATPROVIDESWITHDISABLED, 1)
        # As the libsolv of RPM distributions is built: glibc.i686 and glibc.x86_64 can be there side by side.
        self.pool.set_flag(solv.Pool.POOL_FLAG_IMPLICITOBSOLETEUSESCOLORS, 1)
        self.folder = folder
        self._repos: list[Any] = []
        for one in self.placed:
            repo = self.pool.add_repo(one.archive)
            repo.priority, repo.subpriority = -one.priority, -one.cost
            read_primary(repo, one.primary, folder)
            self._repos.append(repo)
        self._places = {repo.id: one for repo, one in zip(self._repos, self.placed, strict=True)}
        self._waiting = {repo.id: repo for repo, one in zip(self._repos, self.placed, strict=True) if one.filelists}
        self._barred: dict[int, str] = {}
        self._beyond_primary: dict[int, bool] = {}
        self._excluded: frozenset[int] = frozenset()
        self._prepare()
        self._barred = self._bar()
        if self._barred:
            self._prepare()

    def consider(self, exclude: Collection[str]) -> None:
        """Keep the packages that match these globs out of what is chosen next, and no others of earlier calls."""
        globs = tuple(exclude)
        excluded = frozenset(solvable.id for solvable in self.matching(globs))
        if excluded != self._excluded:
            self._excluded = excluded
            self._prepare()

    def place(self, solvable: Any) -> Placed:
        """Return the repository that a package is in."""
        return self._places[solvable.repo.id]

    def places(self) -> str:
        """Return the names of all repositories."""
        return ", ".join(dict.fromkeys(one.archive for one in self.placed)) or "any repository"

    def named(self, name: str, *, all_of_them: bool = False) -> list[Any]:
        """Return the packages whose name matches a glob; with `all_of_them` also those that may not be chosen."""
        kind = self.solv.Selection
        flags = kind.SELECTION_NAME | (kind.SELECTION_GLOB if is_glob(name) else 0)
        if all_of_them:
            flags |= kind.SELECTION_WITH_DISABLED | kind.SELECTION_WITH_BADARCH
        found = self.pool.select(name, flags).solvables()
        return [solvable for solvable in found if all_of_them or not self.obstacle(solvable)]

    def matching(self, globs: Iterable[str]) -> Iterator[Any]:
        """Yield the packages that any of these globs leaves out, as dnf reads `excludepkgs`."""
        for glob in globs:
            found = [s for s in self.named(glob, all_of_them=True) if s.name]
            yield from found or self._by_more_than_name(glob)

    def providing(self, capability: str) -> list[Any]:
        """Return what provides a capability (`name`, `name >= 1`, `(a or b)`) and may be chosen."""
        dependency = self.dependency(capability)
        if dependency is None:
            return []
        return [solvable for solvable in self.pool.whatprovides(dependency) if not self.obstacle(solvable)]

    def bearing(self, name: str) -> list[Any]:
        """Return what has or provides a name in whatever version, and even if it may not be chosen."""
        kind = self.solv.Selection
        flags = kind.SELECTION_PROVIDES | kind.SELECTION_WITH_DISABLED | kind.SELECTION_WITH_BADARCH
        return self.named(name, all_of_them=True) + list(self.pool.select(name, flags).solvables())

    def dependency(self, text: str) -> Any:
        """Return libsolv's form of a dependency, None if no package could meet it."""
        if text.startswith("("):
            rich = self.pool.parserpmrichdep(text)
            return rich.id if rich is not None and rich.id else None
        name, *rest = text.split()
        if len(rest) == 2 and rest[0] in _RELATIONS:
            flags = sum(getattr(self.solv, flag) for flag in _RELATIONS[rest[0]])
            return self.pool.rel2id(self.pool.str2id(name), self.pool.str2id(rest[1]), flags)
        return self.pool.str2id(text, 0) or None

    def owning(self, path: str) -> list[Any]:
        """Return what provides a path or has it among its files, and may be chosen; loads file lists if need be."""
        found = self._owning(path)
        if not found and not in_primary(path) and self.load_filelists():
            found = self._owning(path)
        return found

    def obstacle(self, solvable: Any) -> str:
        """Return in a few words why a package may not be chosen, empty if it may."""
        if solvable.id in self._excluded:
            return _LEFT_OUT
        if solvable.id in self._barred:
            return self._barred[solvable.id]
        if solvable.arch in {"src", "nosrc"}:
            return "a source package"
        return "" if solvable.installable() else f"for {solvable.arch}, and this root is {self.architecture}"

    def need_filelists(self, solvables: Iterable[Any], *, weak: bool) -> bool:
        """Tell whether any of these packages names a path that only file lists hold, and these are not loaded yet.

        With `weak` also of what is not among them: a package that Supplements such a path.
        """
        if not self._waiting:
            return False
        solv = self.solv
        keys = [solv.SOLVABLE_REQUIRES, solv.SOLVABLE_CONFLICTS]
        keys += [solv.SOLVABLE_RECOMMENDS, solv.SOLVABLE_SUPPLEMENTS] if weak else []
        if weak:
            flags = solv.Selection.SELECTION_MATCH_DEPSTR | solv.Selection.SELECTION_GLOB
            supplementing = self.pool.matchdeps("*/*", flags, solv.SOLVABLE_SUPPLEMENTS).solvables()
            solvables = chain(supplementing, solvables)
        return any(self._is_beyond_primary(one) for s in solvables for key in keys for one in s.lookup_idarray(key))

    def load_filelists(self) -> bool:
        """Make every path of every package known; return whether that was news."""
        news = False
        for key, repo in list(self._waiting.items()):
            one = self._places[key]
            del self._waiting[key]
            filelists = one.filelists() if callable(one.filelists) else one.filelists
            if filelists is not None:
                read_filelists(repo, one.primary, filelists, self.folder)
                news = True
        if news:
            self._prepare()
        return news

    def names(self) -> set[str]:
        """Return the names of all packages that may be chosen."""
        return {solvable.name for repo in self._repos for solvable in repo.solvables if not self.obstacle(solvable)}

    def _is_beyond_primary(self, dependency: int) -> bool:
        """Tell whether a dependency names, anywhere in it, a path that primary.xml need not list."""
        known = self._beyond_primary.get(dependency)
        if known is None:
            words = self.pool.dep2str(dependency).replace("(", " ").split() if dependency else []
            known = any(word.startswith("/") and not in_primary(word.rstrip(")")) for word in words)
            self._beyond_primary[dependency] = known
        return known

    def _prepare(self) -> None:
        self.pool.set_disabled_list(sorted(self._barred.keys() | self._excluded))
        self.pool.addfileprovides()
        self.pool.createwhatprovides()

    def _bar(self) -> dict[int, str]:
        barred: dict[int, str] = {}
        for repo, one in zip(self._repos, self.placed, strict=True):
            hidden, shown = _without_zero(one.hidden), _without_zero(one.shown)
            if hidden:
                barred.update((s.id, _HIDDEN) for s in repo.solvables if str(s) in hidden)
            claimed = chain.from_iterable(self.bearing(name) for name in sorted(one.claimed))
            barred.update((s.id, _HIDDEN) for s in claimed if s.repo.id == repo.id and str(s) not in shown)
            if one.excludes:
                barred.update((s.id, _LEFT_OUT) for s in self.matching(one.excludes) if s.repo.id == repo.id)
        return barred

    def _by_more_than_name(self, glob: str) -> Iterator[Any]:
        match = re.compile(fnmatch.translate(glob.replace("-0:", "-"))).match
        for repo in self._repos:
            for solvable in repo.solvables:
                full = str(solvable)
                bare = full.removesuffix(f".{solvable.arch}")
                if match(f"{solvable.name}.{solvable.arch}") or match(full) or match(bare):
                    yield solvable

    def _owning(self, path: str) -> list[Any]:
        providers = self.providing(path)
        if providers:
            return providers
        kind = self.solv.Selection
        flags = kind.SELECTION_FILELIST | (kind.SELECTION_GLOB if is_glob(path) else 0)
        found = self.pool.select(path, flags).solvables()
        return [solvable for solvable in found if not self.obstacle(solvable)]


_RELATIONS = {
    "=": ("REL_EQ",),
    "<": ("REL_LT",),
    ">": ("REL_GT",),
    "<=": ("REL_LT", "REL_EQ"),
    ">=": ("REL_GT", "REL_EQ"),
}


def load_universe(placed: Sequence[Placed], architecture: str, indexes_folder: str) -> Universe:
    """Load verified metadata for a root of `architecture` (rpm's name: `x86_64`).

    What libsolv makes of each file is kept in `indexes_folder`. Raises UntrustedError for a malformed document.
    """
    return Universe(placed, architecture, indexes_folder)


def in_primary(path: str) -> bool:
    """Tell whether primary.xml lists a path wherever a package has it (createrepo's rule for it)."""
    return _IN_PRIMARY.fullmatch(path) is not None


def _without_zero(nevras: Iterable[str]) -> set[str]:
    """Return names of packages as libsolv writes them, without an epoch of 0."""
    return {nevra.replace("-0:", "-") for nevra in nevras}


def is_glob(text: str) -> bool:
    """Tell whether a name has wildcards."""
    return any(character in text for character in "*?[")
