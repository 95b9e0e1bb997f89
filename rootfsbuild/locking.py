"""Making locks: from what the archives say now, or from an earlier lock with the least change."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace

from rootfsbuild.errors import StaleLockError, StorageError
from rootfsbuild.events import Report, StageEnded, StageStarted
from rootfsbuild.lock import Lock, check_fits, load_lock, without_mirrors, write_lock
from rootfsbuild.plan import Package, Plan, Snapshot
from rootfsbuild.planning import find_epoch, format_of, lock_of, open_sources, request_of, resolve
from rootfsbuild.recipe import Recipe
from rootfsbuild.recipe_identity import identify
from rootfsbuild.settings import Settings


def make_lock(recipe: Recipe, settings: Settings, report: Report) -> Lock:
    """Return the lock of what a recipe comes to now.

    Raises FetchError, UntrustedError, IntegrityError, UnsatisfiableError or RecipeError.
    """
    with open_sources(recipe, settings, report) as sources:
        planned = resolve(recipe, sources, settings, report)
        planned.keep()
    return lock_of(recipe, without_mirrors(planned.plan))


def upgrade_lock(recipe: Recipe, old: Lock, names: frozenset[str], settings: Settings, report: Report) -> Lock:
    """Return a lock in which the named packages are what the archives have now, and nothing else changed needlessly.

    An earlier snapshot stays listed as long as it proves a package that no current index has. Raises as `make_lock`.
    """
    format_ = format_of(recipe)
    with open_sources(recipe, settings, report) as sources:
        report(StageStarted("metadata"))
        metadata = format_.refresh(sources, report)
        report(StageEnded("metadata"))
        report(StageStarted("resolve"))
        same = identify(recipe) == old.recipe
        packages = format_.upgrade(request_of(recipe), old.plan.packages, names, metadata, same_recipe=same)
        kept = [package for package in packages if not format_.proves(metadata, package)]
        report(StageEnded("resolve"))
        metadata.keep()
    if packages == old.plan.packages:
        return replace(old, recipe=identify(recipe))
    snapshots = (*metadata.snapshots, *_still_needed(old.plan.snapshots, metadata.snapshots, kept))
    plan = Plan(
        format=format_.name,
        distro=recipe.distro,
        release=recipe.release,
        architecture=recipe.arch,
        packages=packages,
        snapshots=snapshots,
        epoch=find_epoch(settings, [snapshot.date for snapshot in snapshots]),
        weakened=old.plan.weakened,
    )
    return lock_of(recipe, without_mirrors(plan))


def _still_needed(old: Sequence[Snapshot], new: Sequence[Snapshot], kept: Sequence[Package]) -> list[Snapshot]:
    places = {(package.archive, package.component) for package in kept}
    return [
        snapshot
        for snapshot in old
        if snapshot.sha256 not in {other.sha256 for other in new}
        and any((snapshot.archive, component) in places for component in snapshot.components)
    ]


def check_lock(recipe: Recipe, file: str) -> Lock:
    """Return a recipe's lock if it fits; raises StaleLockError, RecipeError or IntegrityError."""
    if not os.path.lexists(file):
        raise StaleLockError(file, ("there is no such file",), hint=f"rootfsbuild lock {recipe.path}")
    lock = load_lock(file)
    check_fits(lock, file, recipe.name, recipe.arch, identify(recipe))
    return lock


def save_lock(lock: Lock, file: str) -> None:
    """Write a lock to its place, whole or not at all; raises StorageError."""
    text = write_lock(lock)
    folder = os.path.dirname(os.path.abspath(file))
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{os.path.basename(file)}.", dir=folder)
    except OSError as error:
        raise StorageError(file, error.strerror or str(error), hint="choose another place with -o") from error
    try:
        with open(handle, "w", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        # As any file of the user's, and unlike a temporary one, others may read it.
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, file)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise StorageError(file, error.strerror or str(error), hint="choose another place with -o") from error


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
