"""Every verb with its options and their help."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping

from rootfsbuild.cli.parser import Parser, Verbs, add_verb

# What `--allow` can switch off, and what that means.
RELAXATIONS = {
    "expired": "accept a Release whose Valid-Until has passed",
    "old": "accept a Release older than the archive's maximum age",
    "rollback": "accept a Release older than one seen before",
    "unsigned": "accept a Release without a signature by a known key",
}


def _add_sources(parser: Parser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", help="the recipe, a TOML file")
    parser.add_argument("--arch", metavar="A", help="Debian architecture (default: the recipe's, else this machine's)")
    _add_mirrors(parser)


def _add_mirrors(parser: Parser) -> None:
    parser.add_argument(
        "--mirror",
        metavar="NAME=URL",
        action="append",
        default=[],
        help="where archive NAME is served: http, https, file or a path; may be repeated",
    )
    parser.add_argument("--cache-dir", metavar="DIR", help="the store (default: $XDG_CACHE_HOME/rootfsbuild)")
    parser.add_argument(
        "--allow",
        metavar="CHECK",
        action="append",
        default=[],
        choices=sorted(RELAXATIONS),
        help="switch a check off and record it in the result: "
        + "; ".join(f"{name}: {meaning}" for name, meaning in RELAXATIONS.items()),
    )
    parser.add_argument("--json", action="store_true", help="print data as JSON")


def _add_locks(parser: Parser) -> None:
    parser.add_argument("--lock", metavar="FILE", help="use this lock (default: NAME.ARCH.lock beside the recipe)")
    parser.add_argument("--locked", action="store_true", help="demand a lock, and read no index")
    _add_places(parser)


def _add_places(parser: Parser) -> None:
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--offline", action="store_true", help="ask no network: take everything from the store")
    where.add_argument("--bundle", metavar="FILE", help="take everything from this bundle, verified like a mirror's")


def _add_changes(parser: Parser) -> None:
    parser.add_argument("--markdown", action="store_true", help="show changes as Markdown, for a pull request")


def _add_build(verbs: Verbs[Parser]) -> None:
    parser = add_verb(
        verbs, "build", "build a root (the default verb)", "rootfsbuild recipes/debian12.toml -o base.tar"
    )
    _add_sources(parser)
    _add_locks(parser)
    parser.add_argument(
        "-o", "--output", metavar="PATH", help="a directory, or a file that ends in .tar (default: out/NAME)"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the plan and build nothing")
    parser.add_argument("--force", action="store_true", help="replace what an earlier build made at PATH")
    parser.add_argument("--keep", action="store_true", help="keep the half-made root when a build fails")
    parser.add_argument("--debug-shell", action="store_true", help="open a shell in the root when a script fails")
    parser.add_argument("--script-network", action="store_true", help="give maintainer scripts the host's network")
    parser.add_argument(
        "--script-timeout",
        metavar="SECONDS",
        type=_seconds,
        default=1800.0,
        help="end a script that runs longer (default: 1800; 0: never)",
    )


def _add_lock(verbs: Verbs[Parser]) -> None:
    parser = add_verb(
        verbs,
        "lock",
        "write down what a recipe comes to now, for building the same again",
        "rootfsbuild lock recipes/debian12.toml",
    )
    _add_sources(parser)
    parser.add_argument("-o", "--output", metavar="FILE", help="the lock (default: NAME.ARCH.lock beside the recipe)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="only say whether the lock fits the recipe; no network")
    what.add_argument("--diff", action="store_true", help="only show what would change")
    what.add_argument(
        "--upgrade",
        metavar="PACKAGE",
        nargs="*",
        help="upgrade these packages and only what must change with them; without a name, everything",
    )
    parser.add_argument("--offline", action="store_true", help="ask no network: take everything from the store")
    _add_changes(parser)


def _add_diff(verbs: Verbs[Parser]) -> None:
    parser = add_verb(
        verbs,
        "diff",
        "show which packages differ between two locks, two roots, or a lock and a root",
        "rootfsbuild diff old.lock out/debian12",
    )
    parser.add_argument("before", metavar="A", help="a lock, or a directory that holds a root")
    parser.add_argument("after", metavar="B", help="the same")
    parser.add_argument("--json", action="store_true", help="print data as JSON")
    _add_changes(parser)


def _add_verify(verbs: Verbs[Parser]) -> None:
    parser = add_verb(
        verbs,
        "verify",
        "build a lock again and compare a root or an archive with it, path by path",
        "rootfsbuild verify recipes/debian12.amd64.lock out/debian12",
    )
    parser.add_argument("lock", metavar="LOCK", help="the lock; the recipe stands beside it, or is named by --recipe")
    parser.add_argument("result", metavar="ROOT|ARCHIVE", nargs="?", help="what to compare (default: out/NAME)")
    parser.add_argument("--recipe", metavar="FILE", help="the recipe (default: NAME.toml beside the lock)")
    _add_mirrors(parser)
    _add_places(parser)


def _add_bundle(verbs: Verbs[Parser]) -> None:
    parser = add_verb(
        verbs,
        "bundle",
        "carry what recipes or locks need, with all that proves it, in one file",
        "rootfsbuild bundle recipes/debian12.toml recipes/web.arm64.lock -o carry.tar",
    )
    parser.usage = (
        "rootfsbuild bundle RECIPE|LOCK… -o FILE [--update OLD]\n"
        "       rootfsbuild bundle FILE --list | --verify | --as-repository DIR [--sign-key KEYFILE]"
    )
    parser.add_argument("what", metavar="RECIPE|LOCK|FILE", nargs="+", help="what goes into a bundle, or a bundle")
    parser.add_argument("-o", "--output", metavar="FILE", help="the bundle to write")
    parser.add_argument("--arch", metavar="A", help="architecture of the recipes (default: each recipe's)")
    parser.add_argument("--update", metavar="OLD", help="take from this earlier bundle what it has, and fetch the rest")
    parser.add_argument("--list", action="store_true", help="show what a bundle holds")
    parser.add_argument("--verify", action="store_true", help="check every hash in a bundle")
    parser.add_argument("--as-repository", metavar="DIR", help="lay a bundle out as repositories for the image's apt")
    parser.add_argument(
        "--sign-key", metavar="KEYFILE", help="sign these with an own OpenPGP key, listing only what is there"
    )
    parser.add_argument("--offline", action="store_true", help="ask no network: take everything from the store")
    _add_mirrors(parser)


def _add_config(verbs: Verbs[Parser]) -> None:
    parser = add_verb(
        verbs,
        "config",
        "print the effective recipe and where each value came from",
        "rootfsbuild config recipes/debian12.toml",
    )
    parser.add_argument("recipe", metavar="RECIPE", help="the recipe, a TOML file")
    parser.add_argument("--arch", metavar="A", help="Debian architecture")
    parser.add_argument("--json", action="store_true", help="print data as JSON")


def _add_why(verbs: Verbs[Parser]) -> None:
    parser = add_verb(
        verbs,
        "why",
        "show the chain that brings a package in",
        "rootfsbuild why recipes/debian12.toml libgcc-s1",
    )
    _add_sources(parser)
    _add_locks(parser)
    parser.add_argument("package", metavar="PACKAGE", help="the package to explain")


def _add_run(verbs: Verbs[Parser]) -> None:
    parser = add_verb(
        verbs,
        "run",
        "run a command in a root, in the sandbox that builds use",
        "rootfsbuild run out/debian12 -- cat /etc/os-release",
    )
    parser.usage = "rootfsbuild run ROOT [--bind SRC[:DST]]… [--network] [-- CMD [ARG]…]"
    parser.add_argument("root", metavar="ROOT", help="a directory that holds a root")
    parser.add_argument(
        "--bind", metavar="SRC[:DST]", action="append", default=[], help="make a host path visible inside"
    )
    parser.add_argument("--network", action="store_true", help="give the command the host's network and resolver")
    parser.epilog = "CMD is the command to run, with its own options (default: a shell)."


def _add_cache(verbs: Verbs[Parser]) -> None:
    parser = add_verb(verbs, "cache", "show or shrink the store", "rootfsbuild cache prune --days 30")
    parser.add_argument("action", choices=("dir", "prune"), help="print the store's path, or remove what is not used")
    parser.add_argument("--cache-dir", metavar="DIR", help="the store (default: $XDG_CACHE_HOME/rootfsbuild)")
    parser.add_argument(
        "--days", metavar="N", type=_seconds, default=30.0, help="keep what was used in N days (default: 30)"
    )


def _add_schema(verbs: Verbs[Parser]) -> None:
    add_verb(verbs, "schema", "print the JSON Schema of recipes", "rootfsbuild schema > recipe.schema.json")


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of zero or more")
    return value


ADD: Mapping[str, Callable[[Verbs[Parser]], None]] = {
    "build": _add_build,
    "lock": _add_lock,
    "diff": _add_diff,
    "verify": _add_verify,
    "bundle": _add_bundle,
    "config": _add_config,
    "why": _add_why,
    "run": _add_run,
    "cache": _add_cache,
    "schema": _add_schema,
}
VERBS = tuple(ADD)
