"""Texts in which `{name}` stands for something that only a release and an architecture make known."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rootfsbuild.documents.checks import did_you_mean, list_words, wrong

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from rootfsbuild.documents.checks import Written
    from rootfsbuild.documents.paths import Path

_VARIABLE = re.compile(r"\{([^{}]*)\}")
_OF_DNF = re.compile(r"\$\{?(\w+)\}?")


def fill(template: str, values: Mapping[str, str]) -> str:
    """Return a template with every `{name}` that has a value filled in."""
    return _VARIABLE.sub(lambda match: values.get(match[1], match[0]), template)


def check_variables(written: Written, path: Path, template: str, names: Collection[str]) -> None:
    """Raise RecipeError for a `{name}` that nothing will be filled in for, and for a `$name` as dnf writes it."""
    braced = list_words(f"{{{name}}}" for name in names)
    for name in _VARIABLE.findall(template):
        if name not in names:
            raise wrong(written, path, f"unknown variable {{{name}}}", braced, did_you_mean(name, names))
    for name in _OF_DNF.findall(template):
        raise wrong(written, path, f"unknown variable ${name}", braced, f"write {{{name}}}" if name in names else "")
