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
        """Return a hint that names the option most like one that is not known, or the verbs that have it."""
        verbs = self._verbs()
        known = [*self._option_string_actions, *(option for parser in verbs.values() for option in _options(parser))]
        for word in re.findall(r"(?<=unrecognized arguments: )--[\w-]+", message):
            having = [verb for verb, parser in verbs.items() if word in _options(parser)]
            if having:
                return f"{word} is an option of {', '.join(having)}; {self.prog} --help lists the verbs"
            if near := difflib.get_close_matches(word, known, 1):
                return f"did you mean {near[0]}? {self.prog} --help lists them"
        return ""

    def _verbs(self) -> dict[str, Parser]:
        # Only the parser of all verbs hears of words that none of them took.
        actions = [action for action in self._actions if isinstance(action, argparse._SubParsersAction)]  # noqa: SLF001 - argparse gives its type no public name
        return {verb: parser for action in actions for verb, parser in action.choices.items()}


def _options(parser: argparse.ArgumentParser) -> list[str]:
    return list(parser._option_string_actions)  # noqa: SLF001 - argparse has no public list of them


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
