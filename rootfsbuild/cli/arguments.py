"""The command line as a whole: where the verb stands, and what all verbs share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from rootfsbuild import __version__
from rootfsbuild.cli.parser import Parser
from rootfsbuild.cli.verbs import ADD, VERBS
from rootfsbuild.errors import UsageError

_EXAMPLES = """\
examples:
  rootfsbuild recipes/debian12.toml                 build out/debian12/
  rootfsbuild recipes/debian12.toml -o base.tar     build a tar archive
  rootfsbuild --dry-run recipes/debian12.toml       show what would be installed
  rootfsbuild lock recipes/debian12.toml            pin every package in a file to commit
  rootfsbuild --locked recipes/debian12.toml        build what the lock says, bit for bit
  rootfsbuild bundle recipes/debian12.toml -o b.tar carry a build over an air gap
  rootfsbuild --bundle b.tar recipes/debian12.toml  build from it, without network
  rootfsbuild why recipes/debian12.toml libgcc-s1   show what brought a package in
  rootfsbuild config recipes/debian12.toml          show every setting and where it came from
  rootfsbuild run out/debian12 -- cat /etc/os-release
"""

_EXITS = """\
exit status:
  0 done              1 build failed       2 usage or recipe      3 no solution
  4 lock is stale     5 network, offline   6 signature or hash    7 privilege or host
  8 verify: differs   130, 143 interrupted
"""

_GLOBAL_FLAGS = frozenset({"-q", "--quiet", "-v", "--verbose", "--json"})
_GLOBAL_VALUES = frozenset({"--cache-dir"})


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


def _build_parser() -> Parser:
    parser = Parser(
        prog="rootfsbuild",
        usage="rootfsbuild [VERB] [OPTION]… RECIPE",
        description=_EXAMPLES + "\nBuild a minimal root filesystem from a distribution's own packages.",
        epilog=_EXITS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"rootfsbuild {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB", prog="rootfsbuild", parser_class=Parser)
    for add in ADD.values():
        add(verbs)
    return parser


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
