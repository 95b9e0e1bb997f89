"""From parsed arguments to the values that the pipeline takes."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any

from rootfsbuild.cli.arguments import parse_mirrors
from rootfsbuild.cli.progress import Terminal
from rootfsbuild.events import Warned

if TYPE_CHECKING:
    from argparse import Namespace

    from rootfsbuild.recipe import Recipe
    from rootfsbuild.settings import Settings


def open_terminal(arguments: Namespace) -> Terminal:
    """Return what shows progress as the call wants it."""
    return Terminal(quiet=arguments.quiet, verbose=arguments.verbose)


def overrides_of(arguments: Namespace) -> dict[str, object]:
    """Return what the call says in place of the recipe."""
    return {"arch": arguments.arch} if arguments.arch else {}


def read_recipe(path: str, overrides: dict[str, object], terminal: Terminal) -> Recipe:
    """Read a recipe and pass its warnings on; raises RecipeError."""
    from rootfsbuild.recipe import load_recipe  # noqa: PLC0415 - each verb loads only what it needs

    recipe = load_recipe(path, overrides)
    for warning in recipe.warnings:
        terminal(Warned(warning))
    return recipe


def read_settings(arguments: Namespace, **given: object) -> Settings:
    """Return what the call decides; `given` stands in for options that the verb does not have."""
    from rootfsbuild.settings import Settings  # noqa: PLC0415 - each verb loads only what it needs

    values: dict[str, Any] = {
        "overrides": parse_mirrors(arguments.mirror),
        "environ": os.environ,
        "now": time.time,
        "cache_dir": arguments.cache_dir or "",
        "relax": frozenset(arguments.allow),
        "lock_file": getattr(arguments, "lock", None) or "",
        "script_timeout": getattr(arguments, "script_timeout", 0.0) or None,
        "bundle": getattr(arguments, "bundle", None) or "",
    }
    for name in ("locked", "offline", "force", "keep", "debug_shell", "script_network"):
        values[name] = getattr(arguments, name, False)
    return Settings(**{**values, **given})


def print_out(text: str) -> None:
    """Write data to standard output, also what is no UTF-8."""
    # A file name that is no UTF-8 must not end a program that only wants to show it.
    sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape") + b"\n")
    sys.stdout.flush()
