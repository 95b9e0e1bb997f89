"""What a lock holds, beside the repositories: as a system looks to libsolv that has it installed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rootfsbuild.formats.rpm.metadata import Placed, Universe
from rootfsbuild.formats.rpm.solvcache import Document
from rootfsbuild.plan import Package

NAME = "the lock"
_RELATIONS = (
    ("Provides", "SOLVABLE_PROVIDES"),
    ("Requires", "SOLVABLE_REQUIRES"),
    ("Conflicts", "SOLVABLE_CONFLICTS"),
    ("Obsoletes", "SOLVABLE_OBSOLETES"),
    ("Recommends", "SOLVABLE_RECOMMENDS"),
    ("Supplements", "SOLVABLE_SUPPLEMENTS"),
)
_PREREQUISITES = "Requires(pre)"


class Both(Universe):
    """The repositories, and as one more, which is libsolv's installed one, locked packages.

    A locked package that a repository still lists is what the repository says of it, its files among that; of any
    other the lock has kept the relations.
    """

    def __init__(self, live: Universe, locked: Sequence[Package], *, filelists: bool) -> None:
        """Load all repositories of `live` again: it is left as it is. `filelists`: with every path of every package."""
        super().__init__(live.placed, live.architecture, live.folder)
        if filelists:
            self.load_filelists()
        self.locked: dict[int, Package] = {}
        """By libsolv's numbers."""
        self.twins: dict[Package, Any] = {
            package: twin for package in locked if (twin := self._find_twin(package)) is not None
        }
        """What a repository lists as this very file."""
        self._repo: Any = self.pool.add_repo(NAME)
        self._own = Placed(NAME, "", Document("", ""))
        added = [(package, self._add(package)) for package in locked]
        # Paths that only the lock names have to be known before it can be asked who has them.
        self._prepare()
        for package, solvable in added:
            self._relate_paths(package, solvable)
        self.pool.installed = self._repo
        self._prepare()
        self._heal(added)

    def place(self, solvable: Any) -> Placed:
        """Return the repository that a package is in."""
        return self._own if solvable.id in self.locked else super().place(solvable)

    def uninstall(self) -> None:
        """Have nothing installed any more: what is locked is one repository of several then."""
        self.pool.installed = None
        self._prepare()  # libsolv forgets who provides what whenever this changes

    def relation(self, text: str) -> Any:
        """Return libsolv's form of a relation as a plan writes it, known to any package or not."""
        if not text.startswith("("):
            self.pool.str2id(text.split(" ", 1)[0])
        return self.dependency(text)

    def _find_twin(self, package: Package) -> Any:
        """Return what a repository lists as a locked file, where the lock has it from if it is still there."""
        wanted = (package.version, package.architecture, f"sha256:{package.sha256}")
        found = [
            one
            for one in self.named(package.name, all_of_them=True)
            if (one.evr, one.arch, str(one.lookup_checksum(self.solv.SOLVABLE_CHECKSUM))) == wanted
        ]
        where = (package.archive, package.filename)
        same = [one for one in found if (self.place(one).archive, (one.lookup_location() or ("",))[0]) == where]
        return next(iter(same or found), None)

    def _add(self, package: Package) -> Any:
        solvable = self._repo.add_solvable()
        solvable.name, solvable.evr, solvable.arch = package.name, package.version, package.architecture
        self.locked[solvable.id] = package
        for field, key in _RELATIONS:
            for text in relations(package, field):
                self._relate(solvable, getattr(self.solv, key), text)
        for text in relations(package, _PREREQUISITES):
            self._relate(solvable, self.solv.SOLVABLE_REQUIRES, text, 1)
        if f"{package.name} = {package.version}" not in relations(package, "Provides"):
            self._relate(solvable, self.solv.SOLVABLE_PROVIDES, f"{package.name} = {package.version}")
        return solvable

    def _relate(self, solvable: Any, key: int, text: str, marker: int = -1) -> None:
        dependency = self.relation(text)
        if dependency is not None:
            solvable.add_deparray(key, dependency, marker)

    def _relate_paths(self, package: Package, solvable: Any) -> None:
        """Let a package provide the paths that another version of it has, or its twin if there is one."""
        twin = self.twins.get(package)
        others = self.named(package.name) if twin is None else [twin]
        for other in others:
            # Behind the marker stand the paths that something in the pool asks for.
            for path in other.lookup_deparray(self.solv.SOLVABLE_PROVIDES, 1):
                solvable.add_provides(path)

    def _heal(self, added: Iterable[tuple[Package, Any]]) -> None:
        """Let packages provide to themselves the paths that nobody knows to have: a lock was complete when made."""
        healed = False
        for package, solvable in added:
            for text in self._lacking(package):
                solvable.add_provides(self.relation(text))
                healed = True
        if healed:
            self._prepare()

    def _lacking(self, package: Package) -> Iterator[str]:
        for text in (*relations(package, "Requires"), *relations(package, _PREREQUISITES)):
            if text.startswith("/"):
                dependency = self.relation(text)
                if not any(one.id in self.locked for one in self.pool.whatprovides(dependency)):
                    yield text


def relations(package: Package, field: str) -> list[str]:
    """Return one kind of relations of a planned package, as rpm writes them."""
    return [text for text in package.field(field).split(", ") if text]
