"""What the file layer sees of an opened package, whatever its format."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rootfsbuild.rootfs.entries import Entries


@dataclass(frozen=True)
class ControlArchive:
    """What a package carries beside its files."""

    fields: bytes
    """Its own metadata, as written (deb: the bytes of `control`)."""
    files: Mapping[str, tuple[bytes, int]] = field(default_factory=dict)
    """The rest by name: bytes and permission bits (deb: preinst, conffiles, md5sums, triggers, …)."""


class Opened(Protocol):
    """A package open for reading, once."""

    @property
    def control(self) -> ControlArchive:
        """What the package carries beside its files."""
        ...

    @property
    def digested(self) -> frozenset[bytes]:
        """Paths (as in Entry) whose MD5 the package database wants (deb: the conffiles)."""
        ...

    def entries(self, limit: int) -> Entries:
        """Stream the files; PackageError as soon as more than `limit` bytes come out."""
        ...
