"""What a package format is: a record of functions, filled in by `formats/deb` and any format after it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from rootfsbuild.distro import Archive, Database
from rootfsbuild.events import Report
from rootfsbuild.listed import Listed
from rootfsbuild.plan import Package, Plan, Request, Snapshot
from rootfsbuild.repository.sign import Signer
from rootfsbuild.repository.sources import Sources
from rootfsbuild.rootfs.extract import Laid
from rootfsbuild.rootfs.inside import Inside
from rootfsbuild.rootfs.runner import Run
from rootfsbuild.rootfs.supervisor import Builtin

Blob = tuple[Package, str]
"""A package and the path of its verified file."""


@dataclass(frozen=True)
class Image:
    """What a recipe says of the tree itself, beyond its packages."""

    architecture: str
    usr_links: tuple[str, ...]
    """Top-level names that are links into /usr; empty when the distribution has not merged /usr."""
    sources: str
    """The text of the package manager's source list."""
    hostname: str
    """Empty: the tree has no /etc/hostname."""
    path_exclude: tuple[str, ...] = ()
    path_keep: tuple[str, ...] = ()
    database: Database | None = None
    """Where the package manager keeps what is installed, if that is not the same in every release."""
    docs: bool = True
    """Whether files that packages mark as documentation are installed."""
    languages: tuple[str, ...] = ()
    """Of files that packages mark as of one language, those to install; empty: all."""


@dataclass(frozen=True)
class Ground:
    """Where and how packages are installed."""

    root: str
    plan: Plan
    image: Image
    run: Run
    report: Report
    extracted: Callable[[], None]
    """Called once, when the base's files lie in the root and before any script runs."""
    archives: Sequence[Archive]
    """Those of the recipe: a package must be signed by a key of its archive, where packages are signed at all."""
    relax: frozenset[str]
    """Names of the checks that are switched off."""
    now: Callable[[], float]
    """Seconds since the epoch, by the real clock."""
    strict: bool
    """Whether a script ends the build even where the package manager would only warn."""
    idle: Callable[[], None]
    """Called whenever a core has nothing to do for a second: scripts run one at a time."""


@dataclass(frozen=True)
class Proof:
    """One signed document with what it proves."""

    snapshot: Snapshot
    documents: Mapping[str, bytes]
    """Path below the archive's root -> bytes: `dists/bookworm/InRelease`, or Release and Release.gpg, or all three."""
    indexes: Mapping[str, str]
    """Path as the Release lists it (`main/binary-amd64/Packages.xz`) -> verified file on disk."""


@dataclass(frozen=True)
class Contents:
    """What is to be laid out."""

    proofs: Sequence[Proof]
    packages: Sequence[Blob]
    """A package that several locks share may come several times."""


class Metadata(Protocol):
    """Verified metadata of every archive; what else it holds is the format's own affair."""

    @property
    def snapshots(self) -> tuple[Snapshot, ...]:
        """What was trusted to say so."""

    def keep(self) -> None:
        """Write down what was read, for the next build: work for a core that is idle; failing costs nothing."""


M = TypeVar("M", bound=Metadata)
M_contra = TypeVar("M_contra", contravariant=True)


class Upgrade(Protocol[M_contra]):
    """Changes a locked plan as little as can be found."""

    def __call__(
        self,
        request: Request,
        locked: Sequence[Package],
        names: frozenset[str],
        metadata: M_contra,
        *,
        same_recipe: bool = False,
    ) -> tuple[Package, ...]:
        """Return a plan in which `names` are as the archives have them now; raises UnsatisfiableError, UsageError."""


@dataclass(frozen=True)
class Format(Generic[M]):
    """The functions that one package format contributes to the pipeline, in the order in which they are called."""

    name: str
    refresh: Callable[[Sources, Report], M]
    """Fetch and verify the signed documents and the indexes they prove."""
    resolve: Callable[[Request, M], tuple[Package, ...]]
    """Choose packages, in install order; raises UnsatisfiableError with its explanation."""
    upgrade: Upgrade[M]
    """Return the plan that changes least of what is locked."""
    proves: Callable[[M, Package], bool]
    """Tell whether an index of the metadata lists exactly this package."""
    prove: Callable[[Plan, Sources, Report], None]
    """Verify the documents that a plan names, and that they list its packages; raises UntrustedError."""
    why: Callable[[Sequence[Package], str], Sequence[str]]
    """Return the chain that brought a package in, a line each."""
    source_list: Callable[[Sequence[Archive], Mapping[str, str]], str]
    """(archives, archive name -> URL) -> the package manager's source list for the image."""
    localise_sources: Callable[[Inside, Mapping[str, str]], Mapping[str, tuple[bytes, int]]]
    """(root, URL in its source list -> URL to use) -> what a command in the root sees in place of its source list."""
    prepare: Callable[[str, Image], None]
    """Make an empty directory ready to take packages."""
    split_waves: Callable[[Plan, Mapping[str, str]], Sequence[Sequence[Package]]]
    """(plan, package name -> blob for those already fetched) -> what is installed after the base, in groups."""
    environment: Callable[[int], Mapping[str, str]]
    """Build time -> the whole environment of maintainer scripts."""
    builtins: Mapping[str, Callable[[], Builtin]]
    """Commands of the sandbox that are functions of this program (see Sandbox)."""
    stand_ins: Mapping[str, tuple[bytes, int]]
    """Path -> (content, mode) of what maintainer scripts see in place of the root's own file."""
    policy: Mapping[str, tuple[bytes, int]]
    """The part of it that recipes' hooks see too, in a root that is otherwise as it will be."""
    install_base: Callable[[Ground, Iterable[Blob]], Mapping[str, Laid]]
    """Install the base, whose packages may still be arriving, into the prepared root; package name -> what it left."""
    install_more: Callable[[Ground, Iterable[Blob], Mapping[str, Laid]], Mapping[str, Laid]]
    """Install one more group into a root whose base works; takes and returns what all packages left so far."""
    lay_repository: Callable[[str, Contents, Mapping[str, bytes], Signer | None, Report], None]
    """(directory, contents of a bundle, archive -> certificates, own key) -> repositories for the image's own tools."""
    installed: Callable[[str], tuple[Listed, ...]]
    """Return what the native database of a root lists; empty if it has none."""
    order: Callable[[str, str], int]
    """(version, version) -> less than, equal to or more than 0, as the first is earlier, the same or later."""
    clean: Callable[[Inside, Plan], None]
    """Remove what installing leaves behind and an image must not carry."""
