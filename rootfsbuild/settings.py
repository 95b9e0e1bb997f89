"""What a call decides, as opposed to the recipe: nothing here changes the bytes of the result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """The options of one call."""

    overrides: Mapping[str, str]
    """Archive name -> URL, from the command line."""
    environ: Mapping[str, str]
    now: Callable[[], float]
    cache_dir: str = ""
    """Empty: the store's usual place."""
    relax: frozenset[str] = frozenset()
    lock_file: str = ""
    """A lock that must be used; empty: the one beside the recipe, if it fits."""
    locked: bool = False
    """Whether nothing may be built but what a lock says."""
    offline: bool = False
    """Whether only the store may be read."""
    bundle: str = ""
    """The one file that everything is read from."""
    force: bool = False
    keep: bool = False
    debug_shell: bool = False
    script_network: bool = False
    script_timeout: float | None = None
    """Seconds, None for no limit."""
