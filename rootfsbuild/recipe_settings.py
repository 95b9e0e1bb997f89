"""What a recipe comes to, said value by value with the place that each comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rootfsbuild.distro import Archive, Distro, Release, archive_origin, release_origin
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


def tell_recipe(merged: Merged, completed: Mapping[Path, object]) -> Iterator[Setting]:
    """Yield the fields of a recipe; `completed` holds those whose value is not simply what was written."""
    for path in _leaves(RECIPE):
        value = completed.get(path, look_up(merged.data, RECIPE, path))
        unsaid = _UNSAID.get(path, "default")
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
        for key in ARCHIVE.fields if name in in_use else ("enabled",):
            said = next(filter(None, (_said(merged, ("archive", index, key)) for index in changes)), None)
            if key == "enabled":
                yield dotted(("archive", name, key)), name in in_use, said or "default"
            elif key != "name":
                origin = said or archive_origin(distro, release, name, key) or "default"
                yield dotted(("archive", name, key)), _field(in_use[name], key), str(origin)


def tell_release(distro: Distro, release: Release) -> Iterator[Setting]:
    """Yield what the distribution says of a release and no recipe changes."""
    for key, value in (
        ("merged-usr", release.merged_usr),
        ("preselect", release.preselect),
        ("eol", release.eol),
    ):
        yield key, _plain(value), str(release_origin(distro, release, key) or "default")


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
