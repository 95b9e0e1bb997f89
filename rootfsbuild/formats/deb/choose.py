"""apt's choice of packages from beginning to end: the walk, the repair where it left a conflict, and the sweep."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rootfsbuild.formats.deb.repair import repair
from rootfsbuild.formats.deb.walk import DEEPEST, Chosen, Walk

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rootfsbuild.formats.deb.metadata import Deb, Universe
    from rootfsbuild.formats.deb.options import Lookup

_FRAMES = 4 * DEEPEST + 1000


def choose(
    universe: Universe,
    requests: Sequence[Deb],
    candidate: Lookup,
    current: Mapping[str, Deb],
    *,
    recommends: bool,
) -> Chosen:
    """Choose what `requests` need, in their order, from the candidates that `candidate` names.

    `current` are packages that are installed already: they meet relations, are preferred and stay. When no way is
    found, the result has the walk's marks and the relations that they break.
    """
    walk = Walk(universe, candidate, current, recommends=recommends)
    with _deep_recursion():
        for deb in requests:
            walk.state(deb.name).protected = True
            walk.mark(deb.name, 0, follow=False, requested=True)
        for deb in requests:
            walk.mark(deb.name, 0, follow=True, requested=True)
        if any(walk.broken()):
            failed = walk.result()
            repair(walk, {deb.name for deb in requests})
            if any(walk.broken()):
                return failed
    walk.sweep()
    return walk.result()


@contextmanager
def _deep_recursion() -> Iterator[None]:
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, _FRAMES))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)
