"""The command line: verbs, options and their help."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Sequence
from typing import NoReturn

from rootfsbuild import __version__
from rootfsbuild.errors import UsageError

VERBS = ("build", "lock", "config", "why", "run", "cache", "schema")

# What `--allow` can switch off, and what that means.
RELAXATIONS = {
    "expired": "accept a Release whose Valid-Until has passed",
    "old": "accept a Release older than the archive's maximum age",
    "rollback": "accept a Release older than one seen before",
    "unsigned": "accept a Release without a signature by a known key",
}

_EXAMPLES = """\
examples:
  rootfsbuild recipes/debian12.toml                 build out/debian12/
  rootfsbuild recipes/debian12.toml -o base.tar     build a tar archive
  rootfsbuild --dry-run recipes/debian12.toml       show what would be installed
  rootfsbuild lock recipes/debian12.toml            pin every package in a file to commit
  rootfsbuild --locked recipes/debian12.toml        build what the lock says, bit for bit
  rootfsbuild why recipes/debian12.toml libgcc-s1   show what brought a package in
  rootfsbuild config recipes/debian12.toml          show every setting and where it came from
  rootfsbuild run out/debian12 -- cat /etc/os-release
"""

_EXITS = """\
exit status:
  0 done              1 build failed       2 usage or recipe      3 no solution
  4 lock is stale     5 network           6 signature or hash  7 privilege or host    130, 143 interrupted
"""

_GLOBAL_FLAGS = frozenset({"-q", "--quiet", "-v", "--verbose", "--json"})
_GLOBAL_VALUES = frozenset({"--cache-dir"})


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint=self._nearest(message) or f"{self.prog} --help")

    def _nearest(self, message: str) -> str:
        """Return a hint that names the options most like the ones that are not known."""
        unknown = re.findall(r"(?<=unrecognized arguments: )--[\w-]+", message)
        known = [*self._option_string_actions, *self._verb_options()]
        near = [match for word in unknown for match in difflib.get_close_matches(word, known, 1)]
        return f"did you mean {near[0]}? {self.prog} --help lists them" if near else ""

    def _verb_options(self) -> list[str]:
        # Only the parser of all verbs hears of words that none of them took.
        verbs = [action for action in self._actions if isinstance(action, argparse._SubParsersAction)]  # noqa: SLF001 - argparse gives its type no public name
        parsers = [parser for action in verbs for parser in action.choices.values()]
        return [option for parser in parsers for option in parser._option_string_actions]  # noqa: SLF001 - the same


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse a command line without the program's name; raises UsageError."""
    words, command = _split_command(_insert_verb(list(argv)))
    arguments = _build_parser().parse_args(words)
    if arguments.verb == "run":
        arguments.command = command
    elif command:
        raise UsageError(f"unexpected {command[0]!r} behind --", hint="only `run` takes a command there")
    return arguments


def _split_command(argv: list[str]) -> tuple[list[str], list[str]]:
    # argparse gives the words behind `--` to the wrong positional when options stand between the two.
    if "--" not in argv:
        return argv, []
    at = argv.index("--")
    return argv[:at], argv[at + 1 :]


def _insert_verb(argv: list[str]) -> list[str]:
    """Put the verb first: `build` when none is named, and behind options that every verb knows."""
    position = 0
    while position < len(argv):
        word = argv[position]
        if word in _GLOBAL_VALUES:
            position += 2
        elif word.partition("=")[0] in _GLOBAL_FLAGS | _GLOBAL_VALUES:
            position += 1
        else:
            break
    if position < len(argv) and argv[position] in VERBS:
        return [argv[position], *argv[:position], *argv[position + 1 :]]
    if not argv or argv[0] in {"-h", "--help", "--version"}:
        return argv or ["--help"]
    return ["build", *argv]


def _build_parser() -> _Parser:
    parser = _Parser(
        prog="rootfsbuild",
        usage="rootfsbuild [VERB] [OPTION]… RECIPE",
        description=_EXAMPLES + "\nBuild a minimal root filesystem from a distribution's own packages.",
        epilog=_EXITS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"rootfsbuild {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB", prog="rootfsbuild", parser_class=_Parser)
    _add_build(verbs)
    _add_lock(verbs)
    _add_config(verbs)
    _add_why(verbs)
    _add_run(verbs)
    _add_cache(verbs)
    _add_schema(verbs)
    return parser


Verbs = argparse._SubParsersAction  # noqa: SLF001 - argparse gives its type no public name


def _verb(verbs: Verbs[_Parser], name: str, summary: str, example: str) -> _Parser:
    parser = verbs.add_parser(
        name,
        help=summary,
        description=f"example:\n  {example}\n\n{summary[0].upper()}{summary[1:]}.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="show errors only")
    parser.add_argument("-v", "--verbose", action="store_true", help="show details, and scripts' output as it comes")
    return parser


def _add_sources(parser: _Parser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", help="the recipe, a TOML file")
    parser.add_argument("--arch", metavar="A", help="Debian architecture (default: the recipe's, else this machine's)")
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


def _add_locks(parser: _Parser) -> None:
    parser.add_argument("--lock", metavar="FILE", help="use this lock (default: NAME.ARCH.lock beside the recipe)")
    parser.add_argument("--locked", action="store_true", help="demand a lock, and read no index")


def _add_build(verbs: Verbs[_Parser]) -> None:
    parser = _verb(verbs, "build", "build a root (the default verb)", "rootfsbuild recipes/debian12.toml -o base.tar")
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


def _add_lock(verbs: Verbs[_Parser]) -> None:
    parser = _verb(
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
    parser.add_argument("--markdown", action="store_true", help="show changes as Markdown, for a pull request")


def _add_config(verbs: Verbs[_Parser]) -> None:
    parser = _verb(
        verbs,
        "config",
        "print the effective recipe and where each value came from",
        "rootfsbuild config recipes/debian12.toml",
    )
    parser.add_argument("recipe", metavar="RECIPE", help="the recipe, a TOML file")
    parser.add_argument("--arch", metavar="A", help="Debian architecture")
    parser.add_argument("--json", action="store_true", help="print data as JSON")


def _add_why(verbs: Verbs[_Parser]) -> None:
    parser = _verb(
        verbs,
        "why",
        "show the chain that brings a package in",
        "rootfsbuild why recipes/debian12.toml libgcc-s1",
    )
    _add_sources(parser)
    _add_locks(parser)
    parser.add_argument("package", metavar="PACKAGE", help="the package to explain")


def _add_run(verbs: Verbs[_Parser]) -> None:
    parser = _verb(
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


def _add_cache(verbs: Verbs[_Parser]) -> None:
    parser = _verb(verbs, "cache", "show or shrink the store", "rootfsbuild cache prune --days 30")
    parser.add_argument("action", choices=("dir", "prune"), help="print the store's path, or remove what is not used")
    parser.add_argument("--cache-dir", metavar="DIR", help="the store (default: $XDG_CACHE_HOME/rootfsbuild)")
    parser.add_argument(
        "--days", metavar="N", type=_seconds, default=30.0, help="keep what was used in N days (default: 30)"
    )


def _add_schema(verbs: Verbs[_Parser]) -> None:
    _verb(verbs, "schema", "print the JSON Schema of recipes", "rootfsbuild schema > recipe.schema.json")


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of zero or more")
    return value


def parse_mirrors(words: Sequence[str]) -> dict[str, str]:
    """Turn `NAME=URL` words into a mapping; raises UsageError."""
    mirrors = {}
    for word in words:
        name, equals, url = word.partition("=")
        if not (name and equals and url):
            raise UsageError(
                f"--mirror {word}: not of the form NAME=URL",
                hint="--mirror debian=http://mirror.example/debian",
            )
        mirrors[name] = url
    return mirrors
