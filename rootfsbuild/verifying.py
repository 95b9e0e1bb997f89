"""Whether a result is what its lock builds: build it again, and compare path by path."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import replace

from rootfsbuild.errors import RecipeError
from rootfsbuild.events import Notice, Report
from rootfsbuild.inspection.compare import PathDifference, compare_trees
from rootfsbuild.inspection.dump import WHOLE, dump_archive, dump_tree
from rootfsbuild.pipeline import build
from rootfsbuild.recipe import Recipe
from rootfsbuild.rootfs.remove import remove_tree
from rootfsbuild.settings import Settings


def verify(
    recipe: Recipe, lock_file: str, result: str, settings: Settings, report: Report
) -> tuple[PathDifference, ...]:
    """Build a lock again and return how a root or a tar differs from that, path by path.

    The second build lies beside the result for as long as it takes. Raises RecipeError for a result that cannot be
    read, and what `build` raises.
    """
    actual = dump_result(result)
    beside = os.path.dirname(os.path.abspath(result))
    place = tempfile.mkdtemp(prefix=f".{os.path.basename(result)}.verify-", dir=beside)
    try:
        again = os.path.join(place, "root")
        build(recipe, again, replace(settings, lock_file=lock_file, locked=True), _unless_notice(report))
        return compare_trees(dump_tree(again, times=True, digits=WHOLE), actual)
    finally:
        remove_tree(place)


def _unless_notice(report: Report) -> Report:
    # That the second root is there is nobody's news: it is gone before anyone could look.
    return lambda event: None if isinstance(event, Notice) else report(event)


def dump_result(path: str) -> Mapping[str, str]:
    """Return what a result holds, whether it is a directory or a tar."""
    try:
        is_directory = stat.S_ISDIR(os.stat(path).st_mode)
    except OSError as error:
        expected = "a root or a .tar that rootfsbuild made"
        raise RecipeError(path, error.strerror or str(error), expected=expected) from None
    dump = dump_tree if is_directory else dump_archive
    return dump(path, times=True, digits=WHOLE)
