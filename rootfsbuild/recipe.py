"""A recipe: read, merged with what it extends, completed by its distribution, and said back with origins."""

from __future__ import annotations

import datetime as dt
import os
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from rootfsbuild.distro import (
    Archive,
    Database,
    Distro,
    Release,
    distro_names,
    find_architecture,
    find_release,
    is_distro_file,
    load_distro,
)
from rootfsbuild.documents.checks import check, did_you_mean, list_words, require, wrong
from rootfsbuild.documents.extends import read_extending
from rootfsbuild.documents.layers import Merged, look_up, merge
from rootfsbuild.documents.moments import as_time
from rootfsbuild.documents.recipe_fields import EXCLUDES, NAME, RECIPE, REQUESTS, VARIANT
from rootfsbuild.documents.toml import Document
from rootfsbuild.errors import RecipeError
from rootfsbuild.recipe_archives import read_archives
from rootfsbuild.recipe_settings import tell_archives, tell_recipe, tell_release

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rootfsbuild.documents.paths import Path

_Found = TypeVar("_Found")

COMMAND_LINE = "command line"
"""Origin of values that were given with the call."""


@dataclass(frozen=True)
class FileToCopy:
    """A file or directory that is copied into the root."""

    source: str
    """Absolute path on this machine."""
    target: str
    """Absolute path in the root."""
    mode: int | None = None
    """Permission bits; None: 0755 for what its owner may execute, else 0644."""
    owner: tuple[int, int] = (0, 0)
    """User and group id in the root."""


@dataclass(frozen=True)
class Hook:
    """A command that is run at a stage of the build."""

    stage: str
    """`extracted`, `configured` or `finished`."""
    run: str
    """For `sh -e -c`."""
    inside: bool
    """In the root's sandbox, else on this machine."""
    folder: str
    """The folder of the recipe that holds it: working directory of a command outside."""


@dataclass(frozen=True)
class Recipe:
    """What is to be built, with nothing left open but the versions."""

    path: str
    name: str
    distro: str
    """The distribution's id, as in os-release(5)."""
    format: str
    release: str
    """The codename."""
    arch: str
    variant: str
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    recommends: bool
    archives: tuple[Archive, ...]
    path_exclude: tuple[str, ...]
    path_keep: tuple[str, ...]
    files: tuple[FileToCopy, ...]
    hostname: str | None
    hooks: tuple[Hook, ...]
    snapshot: str | None
    """UTC as YYYYMMDDTHHMMSSZ."""
    apt_sources: Mapping[str, str]
    """Archive name -> URL that the image's own apt will use; archives without any are not in it."""
    merged_usr: bool
    preselect: tuple[str, ...]
    """rpm: with everything that makes up the variant, groups (`@core`) among it."""
    usr_links: tuple[str, ...]
    """Names at the top that are links into usr; those that no package fills are dropped in the end."""
    eol: dt.date | None
    warnings: tuple[str, ...] = ()
    version: str = ""
    """The release's number, empty if it has none."""
    database: Database | None = None
    """Where the root's own rpm keeps what is installed; None for deb."""
    isa: str = ""
    """The least level of processor the release's programs run on (`x86-64-v3`); empty: the architecture's first."""
    module_platform: str = ""
    """The release's stream of the module `platform` (`el9`); empty if it has no modules."""
    modules: tuple[str, ...] = ()
    """Streams that are switched on in place of the defaults: `nodejs:20`."""
    docs: bool = True
    """Whether files that packages mark as documentation are installed."""
    languages: tuple[str, ...] = ()
    """Of files that packages mark as of one language, those to install; empty: all."""
    strict: bool = False
    """Whether a script ends the build even where rpm only warns."""


@dataclass(frozen=True)
class _Read:
    """A recipe's merged document together with the distribution that it names."""

    merged: Merged
    distro: Distro
    release: Release
    arch: str
    archives: tuple[Archive, ...]

    def get(self, *path: str) -> Any:
        """Return a value as written, or its default."""
        return look_up(self.merged.data, RECIPE, path)


def load_recipe(path: str, overrides: Mapping[str, object] | None = None, today: dt.date | None = None) -> Recipe:
    """Read a recipe; `overrides` maps dotted paths (`arch`, `packages.variant`) to the command line's values.

    Raises RecipeError for whatever cannot be built as it is written.
    """
    return _complete(_read(path, overrides or {}), today or dt.datetime.now(dt.UTC).date())


def effective(path: str, overrides: Mapping[str, object] | None = None) -> list[tuple[str, object, str]]:
    """Return every setting of a recipe as (dotted path, value, where it came from).

    An array that several files fill is told element by element, an archive by its name. Raises RecipeError.
    """
    read = _read(path, overrides or {})
    recipe = _complete(read, dt.date.min)
    completed: dict[Path, object] = {
        ("name",): recipe.name,
        ("arch",): recipe.arch,
        ("release",): recipe.release,
        ("snapshot",): recipe.snapshot,
        ("packages", "variant"): recipe.variant,
        ("apt", "sources"): dict(recipe.apt_sources),
    }
    return [
        *tell_recipe(read.merged, completed, read.distro.format),
        *tell_archives(read.merged, read.distro, read.release, read.archives),
        *tell_release(read.distro, read.release, read.arch),
    ]


def _read(path: str, overrides: Mapping[str, object]) -> _Read:
    documents = read_extending(path, RECIPE)
    if overrides:
        documents.append(Document(COMMAND_LINE, _nest(overrides)))
        check(documents[-1], RECIPE)
    merged = merge(path, documents, RECIPE)
    require(merged, merged.data, RECIPE)
    distro = _find_distro(merged)
    release = _put(merged, "release", lambda: find_release(distro, str(merged.data["release"])))
    arch = _find_arch(merged, distro, release)
    _check_format(merged, distro)
    return _Read(merged, distro, release, arch, read_archives(merged, distro, release, arch))


def _check_format(merged: Merged, distro: Distro) -> None:
    """Refuse what the distribution's package format does not have; raises RecipeError."""
    packages: Mapping[str, Any] = merged.data.get("packages", {})
    for key, shapes in (("include", REQUESTS), ("exclude", EXCLUDES)):
        for index, item in enumerate(packages.get(key, ())):
            shape = shapes.get(distro.format)
            if shape and not re.fullmatch(shape.pattern, item):
                raise wrong(merged, ("packages", key, index), f'"{item}" cannot stand here', shape.expected)
    for key in ("modules", "docs", "languages", "strict"):
        if distro.format != "rpm" and key in packages:
            problem = f"{distro.name} is a distribution of {distro.format} packages, which know nothing of it"
            raise wrong(merged, ("packages", key), problem)


def _nest(overrides: Mapping[str, object]) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for path, value in overrides.items():
        *tables, name = path.split(".")
        table = data
        for part in tables:
            table = table.setdefault(part, {})
        table[name] = value
    return data


def _put(merged: Merged, name: str, find: Callable[[], _Found]) -> _Found:
    # The distribution knows what is wrong with a word, the recipe knows where the word stands.
    try:
        return find()
    except RecipeError as error:
        file, line = merged.place((name,))
        raise replace(error, file=file, line=line, where=name) from None


def _find_distro(merged: Merged) -> Distro:
    name = merged.data["distro"]
    if not is_distro_file(name):
        if name not in distro_names():
            return _put(merged, "distro", lambda: load_distro(name))
        return load_distro(name)
    file = merged.beside(("distro",), name)
    if not os.path.isfile(file):
        raise wrong(merged, ("distro",), f"no such file: {file}", "a distribution file")
    return load_distro(file)


def _find_arch(merged: Merged, distro: Distro, release: Release) -> str:
    machine = os.uname().machine
    arch = merged.data.get("arch") or distro.machines.get(machine)
    if arch is None:
        raise wrong(
            merged,
            ("arch",),
            "missing",
            f"{distro.name}'s name for an architecture, as this machine is {machine}",
        )
    return _put(merged, "arch", lambda: find_architecture(distro, release, arch))


def _complete(read: _Read, today: dt.date) -> Recipe:
    distro, release = read.distro, read.release
    served = tuple(item for item in read.archives if not item.architectures or read.arch in item.architectures)
    return Recipe(
        path=read.merged.file,
        name=_name(read),
        distro=distro.id,
        format=distro.format,
        release=release.codename,
        version=release.version,
        arch=read.arch,
        variant=_variant(read),
        include=_include(read),
        exclude=_unique(read.get("packages", "exclude")),
        recommends=read.get("packages", "recommends"),
        archives=served,
        path_exclude=_unique(read.get("paths", "exclude")),
        path_keep=_unique(read.get("paths", "keep")),
        files=tuple(_file(read.merged, target, value) for target, value in read.get("files").items()),
        hostname=read.get("hostname"),
        hooks=tuple(_hook(read.merged, index, item) for index, item in enumerate(read.get("hook"))),
        snapshot=f"{as_time(read.get('snapshot')):%Y%m%dT%H%M%SZ}" if read.get("snapshot") else None,
        apt_sources=_apt_sources(read, served),
        merged_usr=release.merged_usr,
        preselect=_preselect(read),
        usr_links=distro.usr_links[read.arch] if release.merged_usr else (),
        eol=release.eol,
        warnings=_warnings(read, today),
        database=release.database,
        isa=release.isa.get(read.arch, ""),
        module_platform=release.module_platform,
        modules=_unique(read.get("packages", "modules")),
        docs=read.get("packages", "docs"),
        languages=_unique(read.get("packages", "languages")),
        strict=read.get("packages", "strict"),
    )


def _preselect(read: _Read) -> tuple[str, ...]:
    """Return what comes before the recipe's own packages: an excluded part of a variant is no contradiction."""
    chosen = read.release.variants.get(_variant(read), ())
    excluded = read.get("packages", "exclude")
    return _unique([*read.release.preselect, *(name for name in chosen if name not in excluded)])


def _warnings(read: _Read, today: dt.date) -> tuple[str, ...]:
    distro, release = read.distro, read.release
    named = release.version and release.version != release.codename
    called = f"{distro.name} {release.version} ({release.codename})" if named else f"{distro.name} {release.codename}"
    left = (
        [f"{called} has had no security updates since its end of life on {release.eol}"]
        if (release.eol and release.eol < today)
        else []
    )
    unserved = [item for item in read.archives if item.architectures and read.arch not in item.architectures]
    return (*left, *(f"{item.name} has nothing for {read.arch} and is left out" for item in unserved))


def _name(read: _Read) -> str:
    if name := read.get("name"):
        return str(name)
    stem = os.path.basename(read.merged.file).removesuffix(".toml")
    if not re.fullmatch(NAME.pattern, stem):
        raise wrong(read.merged, ("name",), f"the file's name, \"{stem}\", cannot be the result's", NAME.expected)
    return stem


def _variant(read: _Read) -> str:
    variant = read.get("packages", "variant")
    return VARIANT.aliases.get(variant, variant)


def _unique(words: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(words))


def _include(read: _Read) -> tuple[str, ...]:
    chosen: dict[str, str] = {}
    for index, request in enumerate(read.get("packages", "include")):
        place = ("packages", "include", index)
        name = request if request[0] in "@/(" else re.split(r"[=/]", request)[0]
        other = chosen.get(name, name)
        if name.partition(":")[0] in read.get("packages", "exclude"):
            raise wrong(read.merged, place, f'"{name}" is both included and excluded')
        if request != name and other not in {name, request}:
            raise wrong(read.merged, place, f'"{request}" contradicts "{other}"', "one version of a package")
        # Of "nginx" and "nginx=1.22.*" the second says all that the first does.
        chosen[name] = request if request != name else other
    return tuple(chosen.values())


def _file(merged: Merged, target: str, value: str | Mapping[str, Any]) -> FileToCopy:
    path: Path = ("files", target)
    data = {"source": value} if isinstance(value, str) else value
    source = os.path.abspath(merged.beside(path, data["source"]))
    if not os.path.lexists(source):
        raise wrong(merged, path, f"no such file: {source}", "a file or directory relative to the recipe")
    mode = data.get("mode")
    user, _, group = data.get("owner", "0:0").partition(":")
    return FileToCopy(
        source, target.rstrip("/"), int(mode, 8) if isinstance(mode, str) else mode, (int(user), int(group))
    )


def _hook(merged: Merged, index: int, data: Mapping[str, Any]) -> Hook:
    stage = data["stage"]
    inside = data.get("where", "inside" if stage == "configured" else "outside") == "inside"
    if stage == "extracted" and inside:
        hint = 'use stage = "configured", or where = "outside"'
        raise wrong(
            merged,
            ("hook", index, "where"),
            "nothing can run inside before the packages are configured",
            hint=hint,
        )
    return Hook(stage, data["run"], inside, os.path.abspath(merged.beside(("hook", index), ".")))


def _apt_sources(read: _Read, archives: Sequence[Archive]) -> dict[str, str]:
    written: Mapping[str, str] = read.get("apt", "sources")
    names = [archive.name for archive in read.archives]
    for name in written:
        if name not in names:
            place = ("apt", "sources", name)
            raise wrong(read.merged, place, f'unknown archive "{name}"', list_words(names), did_you_mean(name, names))
    # An rpm distribution's own packages set up its own archives in the image.
    own = {archive.name for archive in read.release.archives} if read.distro.format == "rpm" else ()
    unsaid = {item.name: "" if item.name in own else next(iter(item.mirrors), "") for item in archives}
    sources = {name: written.get(name, url) for name, url in unsaid.items()}
    return {name: url for name, url in sources.items() if url}
