"""Making locks: from what the archives say now, or from an earlier lock with the least change."""

from __future__ import annotations

import contextlib
import os
import tempfile

from rootfsbuild.errors import StorageError
from rootfsbuild.events import Report
from rootfsbuild.lock import Lock, check_fits, load_lock, without_mirrors, write_lock
from rootfsbuild.planning import lock_of, open_sources, resolve
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


def check_lock(recipe: Recipe, file: str) -> Lock:
    """Return a recipe's lock if it fits; raises StaleLockError, RecipeError or IntegrityError."""
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
