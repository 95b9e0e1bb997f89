"""Which files of packages a recipe leaves out."""

from __future__ import annotations

import fnmatch
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def make_excluder(exclude: Sequence[str], keep: Sequence[str]) -> Callable[[bytes], bool] | None:
    """Return what tells of a path, as in Entry, whether it is left out; None if nothing is.

    Patterns are those of a shell in which `*` also matches a slash, as in dpkg(1), --path-exclude; kept paths win.
    """
    if not exclude:
        return None
    left_out = [re.compile(fnmatch.translate(pattern)) for pattern in exclude]
    kept = [re.compile(fnmatch.translate(pattern)) for pattern in keep]

    def excluded(path: bytes) -> bool:
        text = "/" + path.decode("utf-8", "surrogateescape")
        return any(rule.match(text) for rule in left_out) and not any(rule.match(text) for rule in kept)

    return excluded
