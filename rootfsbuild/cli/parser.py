"""The argument parser, with errors of the project's family, and what every verb has."""

from __future__ import annotations

import argparse
import difflib
import re
from typing import NoReturn

from rootfsbuild.errors import UsageError


class Parser(argparse.ArgumentParser):
    """A parser whose errors are the project's and name the nearest option."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError."""
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


Verbs = argparse._SubParsersAction  # noqa: SLF001 - argparse gives its type no public name


def add_verb(verbs: Verbs[Parser], name: str, summary: str, example: str) -> Parser:
    """Add a verb with the options that all of them have."""
    parser = verbs.add_parser(
        name,
        help=summary,
        description=f"example:\n  {example}\n\n{summary[0].upper()}{summary[1:]}.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="show errors only")
    parser.add_argument("-v", "--verbose", action="store_true", help="show details, and scripts' output as it comes")
    return parser
