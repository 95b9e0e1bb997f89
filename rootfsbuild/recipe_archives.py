"""The archives of a recipe: the distribution's, changed and added to by its [[archive]] tables."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rootfsbuild.distro import (
    Archive,
    Distro,
    Key,
    Release,
    default_components,
    fill_archive,
    fill_suites,
    variable_names,
)
from rootfsbuild.documents.checks import did_you_mean, list_words, wrong
from rootfsbuild.documents.distro_checks import ARCHIVE_KEYS, check_urls
from rootfsbuild.documents.distro_fields import FINGERPRINT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rootfsbuild.documents.layers import Merged
    from rootfsbuild.documents.paths import Path


def read_archives(merged: Merged, distro: Distro, release: Release, architecture: str) -> tuple[Archive, ...]:
    """Return the enabled archives of a merged recipe, the distribution's first; their URLs are filled in.

    Raises RecipeError.
    """
    archives = {archive.name: archive for archive in release.archives}
    enabled = {archive.name: archive.enabled for archive in release.archives}
    written: set[tuple[str, str]] = set()
    for index, data in enumerate(merged.data.get("archive", ())):
        path: Path = ("archive", index)
        name: str = data["name"]
        file, _ = merged.place(path)
        if (file, name) in written:
            raise wrong(merged, path, f'"{name}" is there twice', "one [[archive]] for each name")
        written.add((file, name))
        _check_format(merged, path, data, distro)
        if name not in archives:
            _check_new(merged, path, data, [*archives], distro.format)
        if name in {archive.name for archive in release.archives}:
            _check_components(merged, path, data, release)
        own = Archive(name, (release.version or release.codename,), default_components(distro.format))
        base = archives.get(name, own)
        archives[name] = replace(base, **_changes(merged, path, data, distro, release))
        enabled[name] = data.get("enabled", True)
    if not any(enabled.values()):
        raise wrong(merged, ("archive",), "every archive is switched off", "at least one")
    used = (archive for name, archive in archives.items() if enabled[name])
    return tuple(fill_archive(archive, distro, release, architecture) for archive in used)


def _check_format(merged: Merged, path: Path, data: Mapping[str, Any], distro: Distro) -> None:
    for key in data:
        if ARCHIVE_KEYS.get(key, distro.format) != distro.format:
            problem = f"{distro.name} is a distribution of {distro.format} packages, whose archives have none"
            raise wrong(merged, (*path, key), problem)
    if distro.format == "rpm":
        check_urls(merged, path, data, variable_names(distro))
        if not 1 <= data.get("priority", 99) <= 99:
            raise wrong(merged, (*path, "priority"), f"{data['priority']} is out of range", "dnf's priority, 1 to 99")


def _check_new(merged: Merged, path: Path, data: Mapping[str, Any], names: list[str], kind: str) -> None:
    for key in ("keys",) if kind == "rpm" else ("suites", "keys"):
        if not data.get(key):
            problem = f'missing: "{data["name"]}" is not one of the distribution\'s archives ({", ".join(names)})'
            raise wrong(merged, (*path, key), problem, f"an array of {key}", did_you_mean(data["name"], names))


def _check_components(merged: Merged, path: Path, data: Mapping[str, Any], release: Release) -> None:
    for index, component in enumerate(data.get("components", ())):
        if component not in release.components:
            hint = did_you_mean(component, release.components)
            problem = f'{release.codename} has no component "{component}"'
            raise wrong(merged, (*path, "components", index), problem, list_words(release.components), hint)


def _changes(merged: Merged, path: Path, data: Mapping[str, Any], distro: Distro, release: Release) -> dict[str, Any]:
    if data.get("priority") == 0:
        raise wrong(merged, (*path, "priority"), "0 has no meaning", "a pin priority, -32768 to 32767 and not 0")
    plain = (
        "components",
        "mirrors",
        "metalink",
        "mirrorlist",
        "priority",
        "snapshot",
        "snapshot-file",
        "threshold",
        "check-valid-until",
        "max-age-days",
    )
    changes: dict[str, Any] = {key.replace("-", "_"): _frozen(data[key]) for key in plain if key in data}
    if "suites" in data:
        changes["suites"] = fill_suites(data["suites"], release.codename, release.version)
    if "keys" in data:
        keys = enumerate(data["keys"])
        changes["keys"] = tuple(_key(merged, (*path, "keys", index), text, distro) for index, text in keys)
    return changes


def _key(merged: Merged, path: Path, text: str, distro: Distro) -> Key:
    if re.fullmatch(FINGERPRINT.pattern, text):
        if key := distro.keys.get(text.upper()):
            return key
        raise wrong(
            merged,
            path,
            f"{distro.name} has no key {text}",
            "the path of a key file, or the fingerprint of one of the distribution's keys",
            did_you_mean(text.upper(), distro.keys),
        )
    file = os.path.abspath(merged.beside(path, text))
    if not os.path.isfile(file):
        raise wrong(merged, path, f"no such key file: {file}", "a file, armored or binary")
    return Key("", file, merged.place(path)[0])


def _frozen(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value
