"""The verb `bundle`: making one, looking into one, laying one out."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from rootfsbuild.cli.inputs import open_terminal, overrides_of, print_out, read_recipe, read_settings
from rootfsbuild.cli.render import render_bundle, to_json
from rootfsbuild.errors import UsageError
from rootfsbuild.events import Notice

if TYPE_CHECKING:
    from argparse import Namespace

    from rootfsbuild.cli.progress import Terminal
    from rootfsbuild.recipe import Recipe
    from rootfsbuild.settings import Settings


def bundle(arguments: Namespace) -> int:
    """Carry out the verb."""
    asked = [name for name in ("list", "verify", "as_repository") if getattr(arguments, name)]
    if len(asked) > 1:
        raise UsageError("--list, --verify and --as-repository exclude each other")
    if asked:
        return _look_into(arguments, asked[0])
    if not arguments.output:
        raise UsageError("no file to write", hint="rootfsbuild bundle RECIPE -o FILE")
    return _make(arguments)


def _make(arguments: Namespace) -> int:
    from rootfsbuild.bundling import make_bundle  # noqa: PLC0415 - each verb loads only what it needs

    terminal = open_terminal(arguments)
    recipes = [_read(word, arguments, terminal) for word in arguments.what]
    made = make_bundle(recipes, arguments.output, terminal, update=arguments.update or "")
    size = f"{made.size / 1e6:.1f} MB"
    locks = f"{made.locks} locks" if made.locks > 1 else "1 lock"
    terminal(Notice(f"{arguments.output}: {made.packages} packages for {locks}, {size}"))
    return 0


def _read(word: str, arguments: Namespace, terminal: Terminal) -> tuple[Recipe, Settings]:
    from rootfsbuild.bundling import is_lock, recipe_beside  # noqa: PLC0415 - the same
    from rootfsbuild.lock import load_lock  # noqa: PLC0415 - the same

    if not is_lock(word):
        return read_recipe(word, overrides_of(arguments), terminal), read_settings(arguments)
    lock = load_lock(word)
    recipe = read_recipe(recipe_beside(word, lock), {"arch": lock.plan.architecture}, terminal)
    return recipe, read_settings(arguments, lock_file=word)


def _look_into(arguments: Namespace, asked: str) -> int:
    from rootfsbuild.bundling import lay_repository  # noqa: PLC0415 - the same
    from rootfsbuild.repository.bundle import check_bundle, open_bundle  # noqa: PLC0415 - the same
    from rootfsbuild.repository.sign import load_signer  # noqa: PLC0415 - the same

    terminal = open_terminal(arguments)
    if len(arguments.what) != 1:
        raise UsageError("one bundle at a time", hint=f"rootfsbuild bundle FILE --{asked.replace('_', '-')}")
    file = arguments.what[0]
    if asked == "as_repository":
        signer = load_signer(arguments.sign_key) if arguments.sign_key else None
        lay_repository(file, arguments.as_repository, read_settings(arguments), signer, terminal)
        return 0
    with open_bundle(file) as opened:
        if asked == "verify":
            check_bundle(opened, terminal)
            terminal(Notice(f"{file}: everything is what its locks name"))
        else:
            listing = opened.list()
            print_out(to_json(asdict(listing)) if arguments.json else render_bundle(listing))
    return 0
