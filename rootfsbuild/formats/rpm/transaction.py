"""The order in which packages are installed into an empty root, script by script, as rpm's psm.c has it.

Every %pretrans; then for each package the triggers on it that run before it, %pre, its files, its record in the
database, file triggers of high priority, %post, triggers, file triggers of low priority; then every %posttrans; then
the transaction's file triggers. rpm's peculiarities are kept where a script could tell the difference, among them that
a package's own triggers run once as another's and once more as its own.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

from rootfsbuild.errors import PackageError
from rootfsbuild.formats.rpm import tags
from rootfsbuild.formats.rpm.header import Header
from rootfsbuild.formats.rpm.scriptlets import (
    FileTrigger,
    Scriptlet,
    Sense,
    Triggers,
    read_scriptlets,
    read_triggers,
)

Satisfies = Callable[[str, str, str], bool]
"""(version, operator, wanted version) -> whether the one stands in that relation to the other."""

EARLY = 10_000
"""The lowest priority of file triggers that run before the package's %post."""
_GHOST = 1 << 6


@dataclass(frozen=True)
class Member:
    """A package of the transaction."""

    header: Header
    skipped: frozenset[int] = frozenset()
    """Which of its files, by their number in the header, are not installed: documentation, languages, colours."""


@dataclass(frozen=True)
class Unpack:
    """A package's files are to be laid into the root."""

    number: int
    """Which of the packages, from 0."""


@dataclass(frozen=True)
class Record:
    """A package is to be added to the database."""

    number: int


@dataclass(frozen=True)
class Execute:
    """A scriptlet is to be run."""

    number: int
    """The package whose scriptlet it is."""
    scriptlet: Scriptlet
    arguments: tuple[int, ...]
    """What the interpreter gets behind the name of the script."""
    paths: tuple[bytes, ...] | None = None
    """Of a file trigger: the lines of its standard input; else None, and there is nothing to read."""
    cause: int | None = None
    """Of a trigger: the package that set it off, if one did."""


Step = Unpack | Record | Execute


def order(members: Sequence[Member], satisfies: Satisfies) -> Iterator[Step]:
    """Yield everything that installing `members`, in this order, consists of; raises PackageError before the first.

    What a root has or lacks decides nothing here, so that the steps depend on the headers alone.
    """
    return _Transaction(members, satisfies).steps()


class _Package:
    """What of a package the order depends on."""

    def __init__(self, number: int, member: Member) -> None:
        header = member.header
        self.number = number
        self.name = header.text(tags.NAME)
        self.version = _version(header)
        self.scriptlets = read_scriptlets(header)
        self.triggers: Triggers = read_triggers(header)
        self.directories, self.paths = _files(header)
        flags = header.numbers(tags.FILEFLAGS)
        self.ghosts = frozenset(index for index, flag in enumerate(flags) if flag & _GHOST)
        self.skipped = member.skipped
        self.shared: frozenset[int] = frozenset()
        """Files that a package before it has brought already."""

    @cached_property
    def _sorted(self) -> list[tuple[bytes, int]]:
        return sorted((path, index) for index, path in enumerate(self.paths))

    def below(self, prefix: bytes) -> list[int]:
        """Return the numbers of the files whose paths begin with `prefix`."""
        found = []
        for at in range(bisect_left(self._sorted, (prefix, -1)), len(self._sorted)):
            path, index = self._sorted[at]
            if not path.startswith(prefix):
                break
            found.append(index)
        return sorted(found)

    def has_directory(self, prefix: bytes) -> bool:
        """Tell whether one of its files is in a directory whose path, with its slash, begins with `prefix`."""
        return any(directory.startswith(prefix) for directory in self.directories)


class _Transaction:
    def __init__(self, members: Sequence[Member], satisfies: Satisfies) -> None:
        self._packages = [_Package(number, member) for number, member in enumerate(members)]
        self._satisfies = satisfies
        self._counts: Counter[str] = Counter()
        self._recorded: list[_Package] = []
        self._waiting: dict[str, list[_Package]] = {}
        """Name of a package -> recorded packages with triggers on it."""
        self._file_triggers: list[tuple[_Package, FileTrigger]] = []
        """Of recorded packages, in the order in which they run."""
        _find_shared(self._packages)

    def steps(self) -> Iterator[Step]:
        for package in self._packages:
            yield from self._scriptlet(package, package.scriptlets.pretrans, 1)
        for package in self._packages:
            yield from self._install(package)
        for package in self._packages:
            yield from self._scriptlet(package, package.scriptlets.posttrans, self._counts[package.name])
        for package in self._packages:
            for trigger in _by_priority(package.triggers.transaction_files):
                yield from self._file_trigger(package, trigger, self._of_root(trigger, None))

    def _install(self, package: _Package) -> Iterator[Step]:
        yield from self._triggers(package, Sense.TRIGGERPREIN)
        instance = self._counts[package.name] + 1
        yield from self._scriptlet(package, package.scriptlets.pre, instance)
        yield Unpack(package.number)
        yield Record(package.number)
        self._record(package)
        yield from self._files(package, early=True)
        yield from self._scriptlet(package, package.scriptlets.post, instance)
        yield from self._triggers(package, Sense.TRIGGERIN)
        yield from self._files(package, early=False)

    def _record(self, package: _Package) -> None:
        self._recorded.append(package)
        self._counts[package.name] += 1
        for name in dict.fromkeys(condition.name for condition in package.triggers.conditions):
            self._waiting.setdefault(name, []).append(package)
        self._file_triggers += [(package, trigger) for trigger in package.triggers.files]
        self._file_triggers.sort(key=lambda found: -found[1].priority)

    def _scriptlet(self, package: _Package, scriptlet: Scriptlet | None, count: int) -> Iterator[Execute]:
        if scriptlet is not None:
            yield Execute(package.number, scriptlet, (count,))

    def _triggers(self, package: _Package, sense: Sense) -> Iterator[Execute]:
        """Yield the triggers that `package` sets off in packages that are there, then those of its own."""
        for owner in self._waiting.get(package.name, ()):
            found = self._first(owner, package, sense)
            if found is not None:
                yield self._trigger(owner, found, package)
        done: set[int] = set()
        for condition in package.triggers.conditions:
            if condition.trigger in done:
                continue
            for cause in self._recorded:
                if cause.name != condition.name:
                    continue
                found = self._first(package, cause, sense)
                if found is not None and found not in done:
                    done.add(found)
                    yield self._trigger(package, found, cause)

    def _trigger(self, owner: _Package, which: int, cause: _Package) -> Execute:
        counts = (self._counts[owner.name], self._counts[cause.name])
        return Execute(owner.number, owner.triggers.scripts[which], counts, cause=cause.number)

    def _first(self, owner: _Package, cause: _Package, sense: Sense) -> int | None:
        """Return the first trigger of `owner` that `cause` sets off: there is at most one for two packages."""
        for condition in owner.triggers.conditions:
            if condition.name != cause.name or not condition.sense & sense:
                continue
            if not condition.operator or self._satisfies(cause.version, condition.operator, condition.version):
                return condition.trigger
        return None

    def _files(self, package: _Package, *, early: bool) -> Iterator[Execute]:
        """Yield the file triggers that a package's files set off, then its own on the files of those before it."""
        for owner, trigger in self._file_triggers:
            if (trigger.priority >= EARLY) is early:
                yield from self._file_trigger(owner, trigger, self._of_package(trigger, package), package.number)
        for trigger in _by_priority(package.triggers.files):
            if (trigger.priority >= EARLY) is early:
                yield from self._file_trigger(package, trigger, self._of_root(trigger, package))

    def _file_trigger(
        self, owner: _Package, trigger: FileTrigger, paths: Iterable[bytes], cause: int | None = None
    ) -> Iterator[Execute]:
        lines = tuple(paths)
        if lines:
            yield Execute(owner.number, trigger.scriptlet, (0,), lines, cause)

    def _of_package(self, trigger: FileTrigger, package: _Package) -> Iterator[bytes]:
        absent = package.skipped | package.shared
        for index in chain.from_iterable(package.below(prefix) for prefix in trigger.prefixes):
            if index not in absent:
                yield package.paths[index]

    def _of_root(self, trigger: FileTrigger, but: _Package | None) -> Iterator[bytes]:
        """Yield what is installed; unlike above, rpm looks for the prefix in the directories of a package first."""
        for prefix in trigger.prefixes:
            for package in self._recorded:
                if package is not but and package.has_directory(prefix):
                    for index in package.below(prefix):
                        if index not in package.skipped:
                            yield package.paths[index]


def _by_priority(triggers: Iterable[FileTrigger]) -> list[FileTrigger]:
    return sorted(triggers, key=lambda trigger: -trigger.priority)


def _find_shared(packages: Sequence[_Package]) -> None:
    """Note which files rpm leaves alone since another package brings them: each that the one before it does bring.

    So of three packages with a path the second one leaves it alone, and the third does not. A ghost is not brought.
    """
    brought: dict[bytes, bool] = {}
    for package in packages:
        shared = set()
        for index, path in enumerate(package.paths):
            if index in package.skipped:
                brought[path] = False
            elif brought.get(path, False):
                shared.add(index)
                brought[path] = False
            else:
                brought[path] = index not in package.ghosts
        package.shared = frozenset(shared)


def _version(header: Header) -> str:
    epoch = header.number(tags.EPOCH)
    version = f"{header.text(tags.VERSION)}-{header.text(tags.RELEASE)}"
    return f"{epoch}:{version}" if epoch else version


def _files(header: Header) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """Return the directories, each with its slash, and the paths of a package's files."""
    names, directories = header.strings(tags.BASENAMES), header.strings(tags.DIRNAMES)
    if not names:
        old = header.strings(tags.OLDFILENAMES)
        return tuple(dict.fromkeys(path[: path.rfind(b"/") + 1] for path in old)), old
    indexes = header.numbers(tags.DIRINDEXES)
    if len(indexes) != len(names) or any(index >= len(directories) for index in indexes):
        raise PackageError(header.label, "the header's files and directories do not fit together")
    return directories, tuple(directories[index] + name for index, name in zip(indexes, names, strict=True))
