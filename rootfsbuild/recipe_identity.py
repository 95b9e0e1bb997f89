"""What of a recipe decides an image's bytes, value by value: a lock keeps it, and is stale when it changes."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from rootfsbuild.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rootfsbuild.distro import Archive, Key
    from rootfsbuild.lock import Setting
    from rootfsbuild.recipe import FileToCopy, Recipe


def identify(recipe: Recipe) -> dict[str, Setting]:
    """Return by dotted path what a recipe, with its distribution, says of the image.

    Mirrors are not in it, nor any path of this machine: files and keys are named by the SHA-256 of their content.
    Raises RecipeError for a file that cannot be read.
    """
    said: dict[str, Setting] = {
        "distro": recipe.distro,
        "release": recipe.release,
        "packages.variant": recipe.variant,
        "packages.include": recipe.include,
        "packages.exclude": recipe.exclude,
        "packages.recommends": recipe.recommends,
        "packages.preselect": recipe.preselect,
        "paths.exclude": recipe.path_exclude,
        "paths.keep": recipe.path_keep,
        "hostname": recipe.hostname or "",
        "snapshot": recipe.snapshot or "",
        "merged-usr": recipe.usr_links if recipe.merged_usr else (),
    }
    for archive in recipe.archives:
        said |= {f"archive.{archive.name}.{key}": value for key, value in _tell_archive(archive)}
    # By its digest, since the image's own apt may be told of mirrors, which are no part of a lock.
    sources = "".join(f"{name}={url}\n" for name, url in sorted(recipe.apt_sources.items()))
    said["apt.sources"] = f"sha256:{hashlib.sha256(sources.encode()).hexdigest()}" if sources else ""
    said |= {f"files.{item.target}": _tell_file(recipe, item) for item in recipe.files}
    for number, hook in enumerate(recipe.hooks, 1):
        said[f"hook.{number}"] = (hook.stage, "inside" if hook.inside else "outside", hook.run)
    said |= dict(_tell_rpm(recipe))
    # An image without a setting is one whose setting is empty: a recipe that spells that out is no other recipe.
    return {key: value for key, value in said.items() if value not in ("", ())}


def _tell_rpm(recipe: Recipe) -> Iterator[tuple[str, Setting]]:
    yield "packages.modules", recipe.modules
    yield "packages.languages", recipe.languages
    yield "module-platform", recipe.module_platform
    if not recipe.docs:
        yield "packages.docs", recipe.docs
    if recipe.database:
        yield "database", (recipe.database.path, recipe.database.format)


def _tell_archive(archive: Archive) -> Iterator[tuple[str, Setting]]:
    yield "suites", archive.suites
    yield "components", archive.components
    yield "keys", tuple(_tell_key(key) for key in archive.keys)
    if archive.priority is not None:
        yield "priority", archive.priority
    if archive.threshold != 1:
        yield "threshold", archive.threshold


def _tell_key(key: Key) -> str:
    return key.fingerprint or f"sha256:{_digest_file(key.path, key.path)}"


def _tell_file(recipe: Recipe, item: FileToCopy) -> tuple[str, ...]:
    mode = "" if item.mode is None else f"{item.mode:04o}"
    owner = ":".join(map(str, item.owner))
    return (f"sha256:{_digest_tree(recipe.path, item)}", *(["mode", mode] if mode else []), "owner", owner)


def _digest_tree(file: str, item: FileToCopy) -> str:
    """Return a digest of what would be copied: names, contents, and what may be executed."""
    digest = hashlib.sha256()
    for name, path in _walk(item.source, ""):
        if os.path.isdir(path):
            digest.update(b"d %s\n" % os.fsencode(name))
            continue
        content = _digest_file(path, file).encode()
        kind = b"x" if os.stat(path).st_mode & 0o100 else b"f"
        digest.update(b"%s %s %s\n" % (kind, content, os.fsencode(name)))
    return digest.hexdigest()


def _walk(path: str, name: str) -> Iterator[tuple[str, str]]:
    yield name, path
    if os.path.isdir(path):
        for entry in sorted(os.listdir(path)):
            yield from _walk(os.path.join(path, entry), f"{name}/{entry}")


def _digest_file(path: str, said_in: str) -> str:
    try:
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise RecipeError(said_in, f"{path} cannot be read: {error.strerror}") from None
