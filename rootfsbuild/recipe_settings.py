"""What a recipe comes to, said value by value with the place that each comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rootfsbuild.distro import Archive, Distro, Release, archive_origin, release_origin
from rootfsbuild.documents.distro_checks import ARCHIVE_KEYS
from rootfsbuild.documents.layers import Merged, look_up
from rootfsbuild.documents.paths import Path, dotted
from rootfsbuild.documents.recipe_fields import ARCHIVE, RECIPE
from rootfsbuild.documents.shapes import Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Setting = tuple[str, object, str]
"""A dotted path, its value, and where the value comes from: `file:line`, or words."""

_UNSAID = {
    ("name",): "the recipe's file name",
    ("arch",): "this machine",
    ("apt", "sources"): "the archive's mirrors",
}


_RPM_ONLY = {("packages", key) for key in ("modules", "docs", "languages", "strict")}


def tell_recipe(merged: Merged, completed: Mapping[Path, object], kind: str) -> Iterator[Setting]:
    """Yield the fields of a recipe of packages of a format; `completed` holds values that nobody simply wrote."""
    for path in _leaves(RECIPE):
        if kind != "rpm" and path in _RPM_ONLY:
            continue
        value = completed.get(path, look_up(merged.data, RECIPE, path))
        unsaid = _UNSAID.get(path, "default") if kind != "rpm" or path != ("apt", "sources") else "default"
        items = _items(value)
        for key, item in items:
            yield dotted((*path, key)), item, _said(merged, (*path, key)) or unsaid
        if not items:
            yield dotted(path), _plain(value), _said(merged, path) or unsaid


def tell_archives(merged: Merged, distro: Distro, release: Release, archives: Sequence[Archive]) -> Iterator[Setting]:
    """Yield the fields of every archive, by the archive's name."""
    tables: Sequence[Mapping[str, object]] = merged.data.get("archive", ())
    in_use = {archive.name: archive for archive in archives}
    for name in dict.fromkeys([*(item.name for item in release.archives), *(str(table["name"]) for table in tables)]):
        changes = [index for index in reversed(range(len(tables))) if tables[index]["name"] == name]
        for key in _fields(distro.format) if name in in_use else ("enabled",):
            said = next(filter(None, (_said(merged, ("archive", index, key)) for index in changes)), None)
            if key == "enabled":
                origin = said or archive_origin(distro, release, name, key) or "default"
                yield dotted(("archive", name, key)), name in in_use, str(origin)
            elif key != "name":
                origin = said or archive_origin(distro, release, name, key) or "default"
                yield dotted(("archive", name, key)), _field(in_use[name], key), str(origin)


def tell_release(distro: Distro, release: Release, arch: str) -> Iterator[Setting]:
    """Yield what the distribution says of a release on an architecture and no recipe changes."""
    said: dict[str, object] = {
        "merged-usr": release.merged_usr,
        "preselect": release.preselect,
        "eol": release.eol,
    }
    if distro.format == "rpm":
        said |= {"isa": release.isa.get(arch, ""), "module-platform": release.module_platform}
        said |= {f"variants.{name}": packages for name, packages in release.variants.items()}
    if release.database:
        said |= {"database.path": release.database.path, "database.format": release.database.format}
    for key, value in said.items():
        yield key, _plain(value), str(release_origin(distro, release, *key.split(".")) or "default")


def _fields(kind: str) -> list[str]:
    return [key for key in ARCHIVE.fields if ARCHIVE_KEYS.get(key, kind) == kind]


def _field(archive: Archive, key: str) -> object:
    if key == "keys":
        return [item.fingerprint or item.path for item in archive.keys]
    return _plain(getattr(archive, key.replace("-", "_")))


def _leaves(table: Table, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, item in table.fields.items():
        if isinstance(item.shape, Table):
            yield from _leaves(item.shape, (*path, name))
        elif name not in {"extends", "archive"}:
            yield (*path, name)


def _items(value: object) -> Sequence[tuple[str | int, object]]:
    if isinstance(value, dict):
        return list(value.items())
    return list(enumerate(value)) if isinstance(value, list | tuple) else ()


def _said(merged: Merged, path: Path) -> str:
    origin = merged.origins.get(path)
    return str(origin) if origin else ""


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
