"""What a distribution is, read from a file: releases, archives, keys. A new one is a file, not code."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rootfsbuild.documents.checks import check, did_you_mean, list_words, nearest, require, wrong
from rootfsbuild.documents.distro_fields import DISTRO
from rootfsbuild.documents.layers import Origin
from rootfsbuild.documents.moments import as_time
from rootfsbuild.documents.toml import Document, read_toml
from rootfsbuild.errors import RecipeError

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping, Sequence

SHIPPED = os.path.join(os.path.dirname(os.path.abspath(__file__)), "distros")
"""The folder of the distribution files that come with the package."""


@dataclass(frozen=True)
class Key:
    """A certificate that may sign an archive's Release files."""

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
    components: tuple[str, ...] = ("main",)
    mirrors: tuple[str, ...] = ()
    """Official URLs, tried in turn after everything that the user and the host name."""
    keys: tuple[Key, ...] = ()
    priority: int | None = None
    """An explicit pin (apt_preferences(5)); None if the Release decides."""
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


@dataclass(frozen=True)
class Release:
    """One release of a distribution."""

    version: str
    """Its number; empty for one that is never released."""
    codename: str
    eol: dt.date | None
    """The last day of security updates, None while it is not known."""
    archives: tuple[Archive, ...]
    architectures: tuple[str, ...]
    components: tuple[str, ...]
    """Every component it knows, used or not."""
    merged_usr: bool = True
    preselect: tuple[str, ...] = ()
    """Packages chosen before anything else."""
    aliases: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Everything a recipe may call it."""
        return tuple(filter(None, (self.version, self.codename, *self.aliases)))


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


def release_origin(distro: Distro, release: Release, key: str) -> Origin | None:
    """Return where the distribution file says something of a release, None if it says nothing."""
    path = ("release", distro.releases.index(release), key)
    line = distro.document.lines.get(path)
    return Origin(distro.document.file, line) if line else None


def _read(path: str) -> Distro:
    document = read_toml(path)
    check(document, DISTRO)
    require(document, document.data, DISTRO)
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
    data = document.data["release"][number]
    for index, name in enumerate(data["architectures"]):
        _known(document, ("release", number, "architectures", index), name, document.data["architectures"])
    return Release(
        version=data.get("version", ""),
        codename=data["codename"],
        eol=as_time(data["eol"]).date() if "eol" in data else None,
        archives=tuple(_read_archive(document, number, name, keys) for name in data["archives"]),
        architectures=tuple(data["architectures"]),
        components=tuple(data["components"]),
        merged_usr=data.get("merged-usr", True),
        preselect=tuple(data.get("preselect", ())),
        aliases=tuple(data.get("aliases", ())),
    )


def _read_archive(document: Document, number: int, name: str, keys: Mapping[str, Key]) -> Archive:
    release = document.data["release"][number]
    own = release["archives"][name]
    data = {**document.data.get("archives", {}).get(name, {}), **own}
    place = ("release", number, "archives", name) if "keys" in own else ("archives", name)
    for index, key in enumerate(data.get("keys", ())):
        _known(document, (*place, "keys", index), key, keys)
    if "suites" not in data:
        raise wrong(document, ("release", number, "archives", name, "suites"), "missing", "an array of suites")
    return Archive(
        name=name,
        suites=tuple(fill(suite, release["codename"], release.get("version", "")) for suite in data["suites"]),
        components=tuple(data.get("components", ("main",))),
        mirrors=tuple(data.get("mirrors", ())),
        keys=tuple(keys[key] for key in data.get("keys", ())),
        snapshot=data.get("snapshot", ""),
        snapshot_file=data.get("snapshot-file", ""),
        threshold=data.get("threshold", 1),
        check_valid_until=data.get("check-valid-until", True),
        max_age_days=data.get("max-age-days"),
        architectures=tuple(data.get("architectures", ())),
    )


def fill(template: str, codename: str, version: str) -> str:
    """Return a suite with {codename} and {version} filled in."""
    return template.replace("{codename}", codename).replace("{version}", version)


def _known(document: Document, path: tuple[str | int, ...], word: str, words: Mapping[str, object]) -> None:
    if word not in words:
        raise wrong(document, path, f'unknown name "{word}"', list_words(words), did_you_mean(word, words))
