"""The verbs: each turns parsed arguments into a call of the pipeline, and its result into output."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from rootfsbuild.cli.arguments import parse_mirrors
from rootfsbuild.cli.progress import Terminal
from rootfsbuild.cli.render import render_plan, render_settings, settings_document, to_json
from rootfsbuild.cli.stopping import until_published
from rootfsbuild.events import Notice, Warned
from rootfsbuild.manifest import describe_plan

if TYPE_CHECKING:
    from argparse import Namespace

    from rootfsbuild.recipe import Recipe
    from rootfsbuild.settings import Settings


def _build(arguments: Namespace) -> int:
    from rootfsbuild import pipeline  # noqa: PLC0415 - each verb loads only what it needs

    terminal = _terminal(arguments)
    recipe = _load(arguments, terminal)
    settings = _settings(arguments)
    if arguments.dry_run:
        plan = pipeline.make_plan(recipe, settings, terminal)
        _print(to_json(describe_plan(plan)) if arguments.json else render_plan(plan))
        return 0
    target = arguments.output or os.path.join("out", recipe.name)
    result = pipeline.build(recipe, target, settings, until_published(terminal))
    if arguments.json:
        _print(to_json({"output": result.target, "manifest": result.manifest, **describe_plan(result.plan)}))
    return 0


def _lock(arguments: Namespace) -> int:
    from rootfsbuild import locking  # noqa: PLC0415 - each verb loads only what it needs
    from rootfsbuild.planning import standing_lock  # noqa: PLC0415 - the same

    terminal = _terminal(arguments)
    recipe = _load(arguments, terminal)
    file = arguments.output or standing_lock(recipe)
    if arguments.check:
        lock = locking.check_lock(recipe, file)
        terminal(Notice(f"{file} fits: {len(lock.plan.packages)} packages"))
        return 0
    lock = locking.make_lock(recipe, _settings(arguments), terminal)
    locking.save_lock(lock, file)
    terminal(Notice(f"{file}: {len(lock.plan.packages)} packages"))
    return 0


def _config(arguments: Namespace) -> int:
    from rootfsbuild.recipe import effective  # noqa: PLC0415 - each verb loads only what it needs

    settings = effective(arguments.recipe, _overrides(arguments))
    _print(to_json(settings_document(settings)) if arguments.json else render_settings(settings))
    return 0


def _why(arguments: Namespace) -> int:
    from rootfsbuild import pipeline  # noqa: PLC0415 - each verb loads only what it needs

    terminal = _terminal(arguments)
    recipe = _load(arguments, terminal)
    lines = pipeline.explain(recipe, arguments.package, _settings(arguments), terminal)
    _print(to_json({"package": arguments.package, "chain": list(lines)}) if arguments.json else "\n".join(lines))
    return 0


def _run(arguments: Namespace) -> int:
    from rootfsbuild.rootfs.chroot import parse_bind  # noqa: PLC0415 - each verb loads only what it needs
    from rootfsbuild.running import run  # noqa: PLC0415 - the same

    binds = [parse_bind(word) for word in arguments.bind]
    return run(arguments.root, arguments.command, binds, os.environ, network=arguments.network)


def _cache(arguments: Namespace) -> int:
    from rootfsbuild.repository.store import Store, default_cache_dir  # noqa: PLC0415 - the same

    directory = arguments.cache_dir or default_cache_dir(os.environ)
    if arguments.action == "dir":
        _print(directory)
        return 0
    removed = Store(directory).prune(days=arguments.days)
    if not arguments.quiet:
        print(f"removed {removed.count} files, {removed.size / 1e6:.1f} MB", file=sys.stderr)  # noqa: T201
    return 0


def _schema(arguments: Namespace) -> int:
    from rootfsbuild.documents.schema import recipe_schema  # noqa: PLC0415 - the same

    del arguments
    _print(to_json(recipe_schema()))
    return 0


COMMANDS: Mapping[str, Callable[[Namespace], int]] = {
    "build": _build,
    "lock": _lock,
    "config": _config,
    "why": _why,
    "run": _run,
    "cache": _cache,
    "schema": _schema,
}


def _terminal(arguments: Namespace) -> Terminal:
    return Terminal(quiet=arguments.quiet, verbose=arguments.verbose)


def _overrides(arguments: Namespace) -> dict[str, object]:
    return {"arch": arguments.arch} if arguments.arch else {}


def _load(arguments: Namespace, terminal: Terminal) -> Recipe:
    from rootfsbuild.recipe import load_recipe  # noqa: PLC0415 - each verb loads only what it needs

    recipe = load_recipe(arguments.recipe, _overrides(arguments))
    for warning in recipe.warnings:
        terminal(Warned(warning))
    return recipe


def _settings(arguments: Namespace) -> Settings:
    from rootfsbuild.settings import Settings  # noqa: PLC0415 - each verb loads only what it needs

    return Settings(
        overrides=parse_mirrors(arguments.mirror),
        environ=os.environ,
        now=time.time,
        cache_dir=arguments.cache_dir or "",
        relax=frozenset(arguments.allow),
        lock_file=getattr(arguments, "lock", None) or "",
        locked=getattr(arguments, "locked", False),
        force=getattr(arguments, "force", False),
        keep=getattr(arguments, "keep", False),
        debug_shell=getattr(arguments, "debug_shell", False),
        script_network=getattr(arguments, "script_network", False),
        script_timeout=getattr(arguments, "script_timeout", 0.0) or None,
    )


def _print(text: str) -> None:
    # A file name that is no UTF-8 must not end a program that only wants to show it.
    sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape") + b"\n")
    sys.stdout.flush()
