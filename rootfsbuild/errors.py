"""Every way in which a build can fail, as values with fields.

The family is flat. Code that fails names *what* failed, *where* and *why*; the text is derived here, so that
the command line, the log and the tests all see the same facts. Only `cli` catches these.
A build that is stopped has not failed: InterruptedBuildError has the same form, but stands apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class RootfsbuildError(Exception):
    """The base of the family; `hint` says what the user can do, as a sentence or a command."""

    hint: str = field(default="", kw_only=True)

    def __str__(self) -> str:
        """Return the message without its hint."""
        return self.describe()

    def describe(self) -> str:
        """Return what failed and why, in one or more lines."""
        return type(self).__name__


@dataclass
class UsageError(RootfsbuildError):
    """A command line that cannot be carried out as given."""

    problem: str

    def describe(self) -> str:
        """Return what is wrong with the command line."""
        return self.problem


@dataclass
class RecipeError(RootfsbuildError):
    """A recipe, distribution file or mirrors file that says something impossible.

    `where` is the dotted path of the value (`packages.include[2]`), `line` its line if known (from 1).
    """

    file: str
    problem: str
    where: str = ""
    line: int | None = None
    expected: str = ""

    def describe(self) -> str:
        """Return file, line, dotted path, problem and what was expected."""
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        path = f"{self.where}: " if self.where else ""
        expected = f" (expected {self.expected})" if self.expected else ""
        return f"{place}: {path}{self.problem}{expected}"


@dataclass
class StaleLockError(RootfsbuildError):
    """A lock that is not that of the recipe as it is now; `changes` are lines that name each difference."""

    file: str
    changes: Sequence[str] = ()

    def describe(self) -> str:
        """Return the lock and what changed."""
        return "\n".join([f"the lock {self.file} does not fit:", *(f"  {line}" for line in self.changes)])


@dataclass
class FetchError(RootfsbuildError):
    """Bytes that no mirror could deliver; `attempts` pairs every URL tried with the reason it failed."""

    subject: str
    attempts: Sequence[tuple[str, str]] = ()
    absent: Sequence[str] = ()
    """Those of the URLs of which the server said that there is nothing."""

    def describe(self) -> str:
        """Return what could not be fetched and every URL tried."""
        tried = "".join(f"\n  {url}: {reason}" for url, reason in self.attempts)
        return f"cannot fetch {self.subject}{':' if tried else ''}{tried}"


@dataclass
class UntrustedError(RootfsbuildError):
    """Repository metadata that must not be believed.

    `rule` is a stable word for the check that failed: `signature`, `key`, `expired`, `future`, `rollback`,
    `age`, `suite`, `malformed`, `size`, `hash`, `mismatch`.
    """

    subject: str
    rule: str
    problem: str

    def describe(self) -> str:
        """Return which document was refused and why."""
        return f"{self.subject}: {self.problem}"


@dataclass
class IntegrityError(RootfsbuildError):
    """Bytes that are not the bytes the signed metadata promised."""

    subject: str
    expected: str
    actual: str

    def describe(self) -> str:
        """Return the expected and the actual digest or size."""
        return f"{self.subject}: expected {self.expected}, got {self.actual}"


@dataclass
class BundleError(RootfsbuildError):
    """A bundle that is not what it says it is, or does not hold what its locks ask for."""

    file: str
    problem: str
    member: str = ""

    def describe(self) -> str:
        """Return the bundle, the member and what is wrong with it."""
        member = f": {self.member}" if self.member else ""
        return f"{self.file}{member}: {self.problem}"


@dataclass
class PackageError(RootfsbuildError):
    """A package whose container or payload is malformed or hostile."""

    package: str
    problem: str
    path: str = ""

    def describe(self) -> str:
        """Return the package, the member and what is wrong with it."""
        member = f": {self.path}" if self.path else ""
        return f"{self.package}{member}: {self.problem}"


@dataclass
class FileConflictError(RootfsbuildError):
    """One path that two packages claim without Replaces or a diversion (Debian Policy 7.6, 3.9)."""

    path: str
    first: str
    second: str

    def describe(self) -> str:
        """Return the path and both packages."""
        return f"{self.path} is in both {self.first} and {self.second}, and neither Replaces the other"


@dataclass
class UnsatisfiableError(RootfsbuildError):
    """A request that the archives cannot meet; `chains` are lines from the request to the cause."""

    request: str
    chains: Sequence[str] = ()

    def describe(self) -> str:
        """Return the request and the chains of dependencies that lead to each obstacle."""
        return "\n".join([f"cannot install {self.request}", *(f"  {line}" for line in self.chains)])


@dataclass
class ScriptError(RootfsbuildError):
    """A maintainer script, hook or tool in the root that failed; `status` is its exit status, negative if a signal."""

    package: str
    script: str
    status: int
    tail: Sequence[str] = ()

    def describe(self) -> str:
        """Return the script, how it ended and its last lines."""
        ended = f"was ended by signal {-self.status}" if self.status < 0 else f"exited with status {self.status}"
        owner = f"{self.package}: " if self.package else ""
        return "\n".join([f"{owner}{self.script} {ended}", *(f"  | {line}" for line in self.tail)])


@dataclass
class HostError(RootfsbuildError):
    """A privilege or a facility that this host does not give; `without` says what works all the same."""

    missing: str
    why: str
    without: str = ""

    def describe(self) -> str:
        """Return what is missing, why it is needed and what works without it."""
        rest = f"; {self.without}" if self.without else ""
        return f"{self.missing}: {self.why}{rest}"


@dataclass
class TargetError(RootfsbuildError):
    """An output path that must not be written, or a tree that must not be deleted."""

    path: str
    problem: str

    def describe(self) -> str:
        """Return the path and why it is refused."""
        return f"{self.path}: {self.problem}"


@dataclass
class StorageError(RootfsbuildError):
    """A write that the file system refused (full, read-only, out of inodes)."""

    path: str
    problem: str

    def describe(self) -> str:
        """Return the path and what the file system said."""
        return f"{self.path}: {self.problem}"


@dataclass
class InterruptedBuildError(BaseException):
    """A signal that asked the build to stop; everything made so far is taken down again.

    Like KeyboardInterrupt no Exception, and so none of the family: it is raised wherever Python happens to be, and
    a library's `except Exception` there must not swallow it.
    """

    signal: int
    hint: str = field(default="", kw_only=True)

    def __str__(self) -> str:
        """Return the message without its hint."""
        return self.describe()

    def describe(self) -> str:
        """Return the number of the signal."""
        return f"stopped by signal {self.signal}"
