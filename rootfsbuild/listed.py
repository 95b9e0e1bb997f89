"""A package as far as comparing goes: what a lock says of it and what an installed root still knows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Listed:
    """One package of a lock or of a root."""

    name: str
    version: str
    architecture: str
    """As in its control data: `amd64` or `all`."""
    source: str
    source_version: str
    installed_size: int
    """Bytes on disk as the package itself estimates them; 0 if it does not say."""
    archive: str = ""
    """The archive that it comes from; empty if unknown, as in a root."""
    suite: str = ""
    sha256: str = ""
    """Digest of its file, lower-case hexadecimal; empty if unknown."""
