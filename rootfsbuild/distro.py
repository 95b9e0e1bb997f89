"""What a distribution is, read from a file: releases, archives, keys. A new one is a file, not code."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from rootfsbuild.documents.checks import check, did_you_mean, list_words, nearest, require, wrong
from rootfsbuild.documents.distro_checks import VARIABLES, check_distro
from rootfsbuild.documents.distro_fields import DISTRO, VARIANTS
from rootfsbuild.documents.layers import Origin
from rootfsbuild.documents.moments import as_time
from rootfsbuild.documents.templates import fill
from rootfsbuild.documents.toml import Document, read_toml
from rootfsbuild.errors import RecipeError

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping, Sequence

    from rootfsbuild.documents.paths import Path

SHIPPED = os.path.join(os.path.dirname(os.path.abspath(__file__)), "distros")
"""The folder of the distribution files that come with the package."""


@dataclass(frozen=True)
class Key:
    """A certificate that may sign an archive's documents (deb: Release; rpm: repomd.xml and packages)."""

    fingerprint: str
    """Upper-case hexadecimal; empty if every certificate in the file may sign."""
    path: str
    """Absolute path of the file, armored or binary (RFC 9580)."""
    origin: str
    """Package and version it was taken from, or the recipe that names it."""


@dataclass(frozen=True)
class Archive:
    """One repository under one set of keys, wherever it is served."""

    name: str
    suites: tuple[str, ...]
    """deb: its suites; rpm: the release's number, or its codename if it has none."""
    components: tuple[str, ...] = ("main",)
    """Empty for rpm."""
    mirrors: tuple[str, ...] = ()
    """Official URLs, tried in turn after everything that the user and the host name; rpm: base URLs.

    In a distribution those of rpm repositories are templates, in a recipe they are filled in.
    """
    keys: tuple[Key, ...] = ()
    priority: int | None = None
    """deb: an explicit pin (apt_preferences(5)), None if the Release decides; rpm: as in dnf.conf(5), None for 99."""
    snapshot: str = ""
    """URL of past states with {archive} and {timestamp} (YYYYMMDDTHHMMSSZ); empty if nobody keeps them."""
    snapshot_file: str = ""
    """URL of any file that it ever had, with {sha256}; empty if nobody keeps them."""
    threshold: int = 1
    """How many different keys must have made a good signature."""
    check_valid_until: bool = True
    max_age_days: int | None = None
    architectures: tuple[str, ...] = ()
    """Architectures that it serves; empty if it serves all of the release's."""
    metalink: str = ""
    """URL of a Metalink document that names mirrors and the digests of repomd.xml; empty if there is none. rpm only."""
    mirrorlist: str = ""
    """URL of a text with base URLs, one to a line; empty if there is none. rpm only."""
    enabled: bool = True
    """Whether it is used by a recipe that does not name it."""


@dataclass(frozen=True)
class Database:
    """Where the root's own rpm keeps what is installed."""

    path: str
    """Relative to the root: `usr/lib/sysimage/rpm`."""
    format: str
    """`sqlite`, `ndb` or `bdb`."""


@dataclass(frozen=True)
class Release:
    """One release of a distribution."""

    version: str
    """Its number; empty for one that is never released."""
    codename: str
    """Its number once more if it has no name."""
    eol: dt.date | None
    """The last day of security updates, None while it is not known."""
    archives: tuple[Archive, ...]
    architectures: tuple[str, ...]
    components: tuple[str, ...]
    """Every component it knows, used or not; empty for rpm."""
    merged_usr: bool = True
    preselect: tuple[str, ...] = ()
    """Packages chosen before anything else."""
    aliases: tuple[str, ...] = ()
    database: Database | None = None
    """rpm only, and always there."""
    isa: Mapping[str, str] = field(default_factory=dict)
    """Architecture -> the least level its programs run on (`x86-64-v2`), where that is not the architecture's first."""
    module_platform: str = ""
    """The stream of the module `platform` that it is (`el9`); empty if it has no modules."""
    variants: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Variant of a recipe -> all packages and groups (`@core`) that make it up. rpm only; all but custom."""

    @property
    def names(self) -> tuple[str, ...]:
        """Everything a recipe may call it."""
        return tuple(dict.fromkeys(filter(None, (self.version, self.codename, *self.aliases))))


@dataclass(frozen=True)
class Distro:
    """A distribution."""

    id: str
    """As in os-release(5)."""
    name: str
    format: str
    architectures: tuple[str, ...]
    releases: tuple[Release, ...]
    machines: Mapping[str, str]
    """uname(2) machine -> architecture."""
    usr_links: Mapping[str, tuple[str, ...]]
    """Architecture -> names at the top that are links into usr in a merged root; empty ones are dropped."""
    keys: Mapping[str, Key]
    """Fingerprint -> key."""
    moving: tuple[str, ...]
    """Suite names such as `stable`, which mean another release from time to time."""
    variables: Mapping[str, Mapping[str, str]]
    """Name -> architecture, or `all` for those that are not named -> what {name} stands for in URLs."""
    document: Document = field(repr=False, compare=False)


def distro_names(directory: str = SHIPPED) -> tuple[str, ...]:
    """Return the names of the distributions that a folder describes."""
    return tuple(sorted(name.removesuffix(".toml") for name in os.listdir(directory) if name.endswith(".toml")))


def is_distro_file(name: str) -> bool:
    """Say whether a recipe's `distro` is the path of a file and not a name."""
    return "/" in name or name.endswith(".toml")


def load_distro(name: str, directory: str | None = None) -> Distro:
    """Read a distribution by its name, or from the path of its file (one that has a `/` or ends in `.toml`).

    Raises RecipeError, also for a name that no file has.
    """
    if is_distro_file(name):
        return _read(name)
    folder = directory or SHIPPED
    names = distro_names(folder)
    if name not in names:
        raise RecipeError(
            name,
            f'unknown distribution "{name}"',
            "distro",
            None,
            list_words(names),
            hint=did_you_mean(name, names),
        )
    return _read(os.path.join(folder, f"{name}.toml"))


def find_release(distro: Distro, selector: str) -> Release:
    """Return the release with a number, codename or fixed alias.

    Raises RecipeError with the nearest right name; names that move from release to release are refused.
    """
    wanted = selector.strip().casefold()
    for release in distro.releases:
        if wanted in release.names:
            return release
    names = [name for release in distro.releases for name in release.names]
    expected = list_words(" = ".join(release.names) for release in distro.releases)
    if wanted in distro.moving:
        problem = f'"{selector}" means another release from time to time'
        raise RecipeError(distro.document.file, problem, "release", None, expected, hint="name the release itself")
    hint = did_you_mean(wanted, names)
    raise RecipeError(distro.document.file, f'unknown release "{selector}"', "release", None, expected, hint=hint)


def find_architecture(distro: Distro, release: Release, name: str) -> str:
    """Return an architecture of the release by the distribution's name for it.

    Raises RecipeError; the kernel's names (`x86_64`) lead to a hint.
    """
    if name in release.architectures:
        return name
    known = name in distro.architectures
    problem = f"{distro.name} {release.codename} has no {name}" if known else f'unknown architecture "{name}"'
    near = "" if known else distro.machines.get(name) or nearest(name, release.architectures)
    hint = f'did you mean "{near}"?' if near else ""
    raise RecipeError(distro.document.file, problem, "arch", None, list_words(release.architectures), hint=hint)


def archive_origin(distro: Distro, release: Release, archive: str, key: str) -> Origin | None:
    """Return where the distribution file says something of an archive, None if it says nothing."""
    document = distro.document
    number = distro.releases.index(release)
    for path in (("release", number, "archives", archive, key), ("archives", archive, key)):
        if path in document.lines:
            return Origin(document.file, document.lines[path])
    return None


def release_origin(distro: Distro, release: Release, *key: str) -> Origin | None:
    """Return where the distribution file says something of a release, None if it says nothing."""
    document = distro.document
    paths: tuple[Path, ...] = (("release", distro.releases.index(release), *key), key)
    for path in paths:
        if path in document.lines:
            return Origin(document.file, document.lines[path])
    return None


def variable_names(distro: Distro) -> tuple[str, ...]:
    """Return what may stand in braces in the URLs of an rpm repository."""
    return (*VARIABLES, *distro.variables)


def fill_archive(archive: Archive, distro: Distro, release: Release, architecture: str) -> Archive:
    """Return an archive whose URLs are those of a release and an architecture."""
    if distro.format != "rpm":
        return archive
    version = release.version or release.codename
    own = {name: values.get(architecture, values.get("all", "")) for name, values in distro.variables.items()}
    values = {
        "version": version,
        "releasever": version,
        "codename": release.codename,
        "arch": architecture,
        "basearch": architecture,
        **own,
    }
    return replace(
        archive,
        mirrors=tuple(fill(url, values) for url in archive.mirrors),
        metalink=fill(archive.metalink, values),
        mirrorlist=fill(archive.mirrorlist, values),
    )


def _read(path: str) -> Distro:
    document = read_toml(path)
    check(document, DISTRO)
    require(document, document.data, DISTRO)
    check_distro(document)
    data = document.data
    architectures: Mapping[str, Sequence[str]] = data["architectures"]
    keys = _read_keys(document)
    return Distro(
        id=data["id"],
        name=data["name"],
        format=data["format"],
        architectures=tuple(architectures),
        releases=tuple(_read_release(document, number, keys) for number in range(len(data["release"]))),
        machines={machine: name for name, machines in architectures.items() for machine in machines},
        usr_links=_read_links(data),
        keys={key.fingerprint: key for key in keys.values()},
        moving=tuple(data.get("moving", ())),
        variables=data.get("variables", {}),
        document=document,
    )


def _read_links(data: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    links: Mapping[str, Sequence[str]] = data.get("usr-links", {})
    return {name: (*links.get("all", ()), *links.get(name, ())) for name in data["architectures"]}


def _read_keys(document: Document) -> dict[str, Key]:
    folder = os.path.dirname(os.path.abspath(document.file))
    keys = {}
    for name, key in document.data.get("keys", {}).items():
        path = os.path.normpath(os.path.join(folder, key["file"]))
        if not os.path.isfile(path):
            raise wrong(document, ("keys", name, "file"), f"no such file: {path}")
        keys[name] = Key(key["fingerprint"].upper(), path, key["origin"])
    return keys


def _read_release(document: Document, number: int, keys: Mapping[str, Key]) -> Release:
    everywhere, data = document.data, document.data["release"][number]
    database = data.get("database", everywhere.get("database"))
    variants = {**everywhere.get("variants", {}), **data.get("variants", {})}
    return Release(
        version=data.get("version", ""),
        codename=_codename(data),
        eol=as_time(data["eol"]).date() if "eol" in data else None,
        archives=tuple(_read_archive(document, number, name, keys) for name in data["archives"]),
        architectures=tuple(data["architectures"]),
        components=tuple(data.get("components", ())),
        merged_usr=data.get("merged-usr", True),
        preselect=tuple(data.get("preselect", ())),
        aliases=tuple(data.get("aliases", ())),
        database=Database(database["path"], database["format"]) if database else None,
        isa=dict(data.get("isa", everywhere.get("isa", {}))),
        module_platform=data.get("module-platform", everywhere.get("module-platform", "")),
        variants={name: tuple(variants[name]) for name in VARIANTS if name in variants},
    )


def _codename(release: Mapping[str, Any]) -> str:
    return str(release.get("codename") or release["version"])


def _read_archive(document: Document, number: int, name: str, keys: Mapping[str, Key]) -> Archive:
    release = document.data["release"][number]
    data = {**document.data.get("archives", {}).get(name, {}), **release["archives"][name]}
    version, codename = release.get("version", ""), _codename(release)
    return Archive(
        name=name,
        suites=fill_suites(data.get("suites", (version or codename,)), codename, version),
        components=tuple(data.get("components", default_components(document.data["format"]))),
        mirrors=tuple(data.get("mirrors", ())),
        keys=tuple(keys[key] for key in data.get("keys", ())),
        priority=data.get("priority"),
        snapshot=data.get("snapshot", ""),
        snapshot_file=data.get("snapshot-file", ""),
        threshold=data.get("threshold", 1),
        check_valid_until=data.get("check-valid-until", True),
        max_age_days=data.get("max-age-days"),
        architectures=tuple(data.get("architectures", ())),
        metalink=data.get("metalink", ""),
        mirrorlist=data.get("mirrorlist", ""),
        enabled=data.get("enabled", True),
    )


def default_components(kind: str) -> tuple[str, ...]:
    """Return the components of an archive of a package format that says nothing of them."""
    return () if kind == "rpm" else ("main",)


def fill_suites(suites: Sequence[str], codename: str, version: str) -> tuple[str, ...]:
    """Return suites with {codename} and {version} filled in."""
    return tuple(fill(suite, {"codename": codename, "version": version}) for suite in suites)
