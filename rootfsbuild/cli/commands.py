"""The verbs: each turns parsed arguments into a call of the pipeline, and its result into output."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from rootfsbuild.cli.bundle_commands import bundle
from rootfsbuild.cli.inputs import open_terminal, overrides_of, print_out, read_recipe, read_settings
from rootfsbuild.cli.lock_commands import diff, lock, verify
from rootfsbuild.cli.render import render_plan, render_settings, settings_document, to_json
from rootfsbuild.cli.stopping import until_published
from rootfsbuild.manifest import describe_plan

if TYPE_CHECKING:
    from argparse import Namespace


def _build(arguments: Namespace) -> int:
    from rootfsbuild import pipeline  # noqa: PLC0415 - each verb loads only what it needs

    terminal = open_terminal(arguments)
    recipe = read_recipe(arguments.recipe, overrides_of(arguments), terminal)
    settings = read_settings(arguments)
    if arguments.dry_run:
        plan = pipeline.make_plan(recipe, settings, terminal)
        print_out(to_json(describe_plan(plan)) if arguments.json else render_plan(plan))
        return 0
    target = arguments.output or os.path.join("out", recipe.name)
    result = pipeline.build(recipe, target, settings, until_published(terminal))
    if arguments.json:
        print_out(to_json({"output": result.target, "manifest": result.manifest, **describe_plan(result.plan)}))
    return 0


def _config(arguments: Namespace) -> int:
    from rootfsbuild.recipe import effective  # noqa: PLC0415 - each verb loads only what it needs

    settings = effective(arguments.recipe, overrides_of(arguments))
    print_out(to_json(settings_document(settings)) if arguments.json else render_settings(settings))
    return 0


def _why(arguments: Namespace) -> int:
    from rootfsbuild import pipeline  # noqa: PLC0415 - each verb loads only what it needs

    terminal = open_terminal(arguments)
    recipe = read_recipe(arguments.recipe, overrides_of(arguments), terminal)
    lines = pipeline.explain(recipe, arguments.package, read_settings(arguments), terminal)
    print_out(to_json({"package": arguments.package, "chain": list(lines)}) if arguments.json else "\n".join(lines))
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
        print_out(directory)
        return 0
    removed = Store(directory).prune(days=arguments.days)
    if not arguments.quiet:
        print(f"removed {removed.count} files, {removed.size / 1e6:.1f} MB", file=sys.stderr)  # noqa: T201
    return 0


def _schema(arguments: Namespace) -> int:
    from rootfsbuild.documents.schema import recipe_schema  # noqa: PLC0415 - the same

    del arguments
    print_out(to_json(recipe_schema()))
    return 0


COMMANDS: Mapping[str, Callable[[Namespace], int]] = {
    "build": _build,
    "lock": lock,
    "diff": diff,
    "verify": verify,
    "bundle": bundle,
    "config": _config,
    "why": _why,
    "run": _run,
    "cache": _cache,
    "schema": _schema,
}
