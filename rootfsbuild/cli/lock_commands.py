"""The verbs about locks: `lock`, `diff` and `verify`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from rootfsbuild.cli.inputs import open_terminal, overrides_of, print_out, read_recipe, read_settings
from rootfsbuild.cli.render import to_json
from rootfsbuild.events import Notice

if TYPE_CHECKING:
    from argparse import Namespace

    from rootfsbuild.inspection.compare import PathDifference
    from rootfsbuild.inspection.diff import Difference

DIFFERS = 8
"""Exit status of `verify` for a result that is not what its lock builds."""


def lock(arguments: Namespace) -> int:
    """Carry out the verb `lock`."""
    from rootfsbuild import locking  # noqa: PLC0415 - each verb loads only what it needs
    from rootfsbuild.comparing import compare_plans  # noqa: PLC0415 - the same
    from rootfsbuild.inspection.differences import summarise  # noqa: PLC0415 - the same
    from rootfsbuild.lock import load_lock  # noqa: PLC0415 - the same
    from rootfsbuild.planning import standing_lock  # noqa: PLC0415 - the same

    terminal = open_terminal(arguments)
    recipe = read_recipe(arguments.recipe, overrides_of(arguments), terminal)
    file = arguments.output or standing_lock(recipe)
    if arguments.check:
        found = locking.check_lock(recipe, file)
        terminal(Notice(f"{file} fits: {len(found.plan.packages)} packages"))
        return 0
    old = load_lock(file) if os.path.lexists(file) or arguments.diff or arguments.upgrade else None
    settings = read_settings(arguments)
    if old is not None and arguments.upgrade:
        new = locking.upgrade_lock(recipe, old, frozenset(arguments.upgrade), settings, terminal)
    else:
        new = locking.make_lock(recipe, settings, terminal)
    if not arguments.diff:
        locking.save_lock(new, file)
    if old is None and not (arguments.json or arguments.markdown):
        terminal(Notice(f"{file}: {len(new.plan.packages)} packages"))
        return 0
    difference = compare_plans(old.plan if old is not None else replace(new.plan, packages=()), new.plan)
    if arguments.diff or arguments.json or arguments.markdown:
        _show(difference, arguments, os.path.basename(file))
    else:
        terminal(Notice(f"{file}: {len(new.plan.packages)} packages; {summarise(difference)}"))
    return 0


def diff(arguments: Namespace) -> int:
    """Carry out the verb `diff`."""
    from rootfsbuild.comparing import compare_results, compare_roots  # noqa: PLC0415 - each verb loads only what it needs
    from rootfsbuild.inspection.paths import render_files, summarise_files  # noqa: PLC0415 - the same

    difference = compare_results(arguments.before, arguments.after)
    files = None if arguments.markdown else compare_roots(arguments.before, arguments.after)
    _show(difference, arguments, f"{arguments.before} to {arguments.after}", files)
    if files is not None and not arguments.json:
        if arguments.verbose and files:
            print_out(render_files(files))
        print_out(summarise_files(files))
    return 0


def verify(arguments: Namespace) -> int:
    """Carry out the verb `verify`."""
    from rootfsbuild import verifying  # noqa: PLC0415 - each verb loads only what it needs
    from rootfsbuild.bundling import recipe_beside  # noqa: PLC0415 - the same
    from rootfsbuild.inspection.paths import paths_document, render_paths  # noqa: PLC0415 - the same
    from rootfsbuild.lock import load_lock  # noqa: PLC0415 - the same

    terminal = open_terminal(arguments)
    found = load_lock(arguments.lock)
    path = arguments.recipe or recipe_beside(arguments.lock, found)
    recipe = read_recipe(path, {"arch": found.plan.architecture}, terminal)
    result = arguments.result or os.path.join("out", found.name)
    differences = verifying.verify(recipe, arguments.lock, result, read_settings(arguments), terminal)
    if arguments.json:
        print_out(to_json({"result": result, "same": not differences, "paths": paths_document(differences)}))
    elif differences:
        print_out(render_paths(differences))
    else:
        terminal(Notice(f"{result} is what {arguments.lock} builds"))
    return DIFFERS if differences else 0


def _show(
    difference: Difference, arguments: Namespace, title: str, files: Sequence[PathDifference] | None = None
) -> None:
    from rootfsbuild.inspection.differences import difference_document, render_difference  # noqa: PLC0415 - the same
    from rootfsbuild.inspection.markdown import render_markdown  # noqa: PLC0415 - the same
    from rootfsbuild.inspection.paths import paths_document  # noqa: PLC0415 - the same

    if arguments.json:
        listed = {} if files is None else {"files": paths_document(files)}
        print_out(to_json({**difference_document(difference), **listed}))
    elif arguments.markdown:
        print_out(render_markdown(difference, title))
    else:
        print_out(render_difference(difference))
