"""The first currency: what will be installed, from where, and why, as frozen values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Why(StrEnum):
    """The kinds of reason for which a package is in a plan."""

    REQUESTED = "requested"
    ESSENTIAL = "essential"
    PRIORITY = "priority"
    DISTRIBUTION = "distribution"
    DEPENDENCY = "dependency"


@dataclass(frozen=True)
class Reason:
    """Why one package was chosen, and what lost against it."""

    why: Why
    detail: str = ""
    """The request as written, the priority's name, or the relation (`Depends: libc6 (>= 2.36)`)."""
    by: str = ""
    """The package whose relation brought it in, for dependencies."""
    rejected: tuple[tuple[str, str], ...] = ()
    """Options of the same relation that lost: (package name, rule by which it lost)."""

    def __str__(self) -> str:
        """Return the reason in a few words."""
        match self.why:
            case Why.REQUESTED:
                return f"requested: {self.detail}"
            case Why.ESSENTIAL:
                return "essential"
            case Why.PRIORITY:
                return f"priority {self.detail}"
            case Why.DISTRIBUTION:
                return "the distribution's choice"
            case Why.DEPENDENCY:
                return f"{self.by} {self.detail}"


@dataclass(frozen=True)
class Package:
    """One package of a plan."""

    name: str
    version: str
    architecture: str
    """As in its control data: `amd64` or `all`."""
    source: str
    source_version: str
    archive: str
    """The name of the archive it comes from, as in the distribution file or recipe; never a URL."""
    suite: str
    component: str
    filename: str
    """Relative to the archive's root, as in the index."""
    size: int
    """Bytes of the package file."""
    installed_size: int
    """Bytes on disk as the index estimates them (deb: Installed-Size x 1024)."""
    sha256: str
    """Lower-case hexadecimal."""
    reason: Reason
    automatic: bool
    """Whether apt would mark it auto-installed."""
    depends: tuple[str, ...] = ()
    """Names of packages of this plan that it depends on (Pre-Depends and Depends), sorted."""
    pre_depends: tuple[str, ...] = ()
    """The part of `depends` that must be configured before it is unpacked, sorted."""
    wave: int = 0
    """0: the essential set, laid down before any script can run; 1: everything added to it."""
    control: tuple[tuple[str, str], ...] = ()
    """(field, value as written) of what its index says about its relations to others and its rank."""

    def field(self, name: str) -> str:
        """Return one field of `control`, empty if it is absent."""
        return dict(self.control).get(name, "")


@dataclass(frozen=True)
class Index:
    """One index file of a snapshot, as the signed document lists it."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Snapshot:
    """One signed document that was trusted, and what it said of itself."""

    archive: str
    suite: str
    codename: str
    components: tuple[str, ...]
    architecture: str
    date: int
    """Seconds since the epoch."""
    valid_until: int | None
    sha256: str
    """Digest of the signed document as fetched."""
    signers: tuple[str, ...]
    """Fingerprints (upper-case) of the certificates whose signatures were good."""
    keyring: str
    """SHA-256 over the certificates that were allowed to sign, in fingerprint order."""
    indexes: tuple[Index, ...] = ()
    mirror: str = ""
    """The URL that served it: recorded in the result's manifest, never part of a plan's identity."""


@dataclass(frozen=True)
class Plan:
    """What to install, in install order, and what was trusted to say so."""

    format: str
    distro: str
    release: str
    """The codename."""
    architecture: str
    packages: tuple[Package, ...]
    snapshots: tuple[Snapshot, ...]
    epoch: int
    """Seconds: SOURCE_DATE_EPOCH, else the latest Date among the snapshots; every time in the root is at most this."""
    weakened: tuple[str, ...] = ()
    """Checks that were switched off by name."""


@dataclass(frozen=True)
class Request:
    """What a recipe asks of a resolver."""

    architecture: str
    variant: str
    """`custom`, `essential`, `required`, `important` or `standard`."""
    include: tuple[str, ...] = ()
    """As written: `name`, `name:arch`, `name=1.22.*`, `name/suite`."""
    exclude: tuple[str, ...] = ()
    """Names that must not be chosen."""
    recommends: bool = False
    preselect: tuple[str, ...] = ()
    """Packages that the distribution selects before anything else (`usr-is-merged`), not marked automatic."""
