"""A tree whose modes and times depend on nothing but what is put into it."""

from __future__ import annotations

import hashlib
import os
from typing import BinaryIO

from rootfsbuild.errors import IntegrityError, UntrustedError
from rootfsbuild.events import Progress, Report

_CHUNK = 1 << 20


class Laying:
    """A directory that is being filled."""

    def __init__(self, root: str, epoch: int) -> None:
        self.root = root
        self.epoch = epoch
        """Seconds since the epoch: the time of everything that has none of its own."""

    def path(self, name: str) -> str:
        """Return where a file goes; its directory is made. Raises UntrustedError for a name that leads elsewhere."""
        if any(part in {"", ".", ".."} for part in name.split("/")):
            raise UntrustedError(name, "mismatch", "is no path below a repository")
        path = os.path.join(self.root, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return path

    def write(self, name: str, data: bytes, when: int | None = None) -> None:
        """Write a file; FileExistsError for what is written twice."""
        with open(self.path(name), "xb") as file:
            file.write(data)
            self._settle(file, when)

    def copy(self, name: str, source: str, sha256: str, report: Report, when: int | None = None) -> str:
        """Copy a file, see to it that its bytes are those that were verified, and return its place.

        Copied, not linked: a link would share its mode, its time and any later damage with the store. Raises
        IntegrityError: behind the gap it could not be fetched again.
        """
        digest = hashlib.sha256()
        path = self.path(name)
        with open(source, "rb") as given, open(path, "xb") as file:
            while chunk := given.read(_CHUNK):
                digest.update(chunk)
                file.write(chunk)
                report(Progress("publish", len(chunk)))
            self._settle(file, when)
        if digest.hexdigest() != sha256:
            raise IntegrityError(name, f"SHA-256 {sha256}", digest.hexdigest(), hint="rootfsbuild bundle --verify FILE")
        return path

    def finish(self) -> None:
        """Set modes and times of all directories, which change while files are put into them."""
        for folder, _, _ in os.walk(self.root, topdown=False):
            os.chmod(folder, 0o755)
            os.utime(folder, (self.epoch, self.epoch))

    def _settle(self, file: BinaryIO, when: int | None) -> None:
        # What is written after it would set the time again.
        file.flush()
        os.fchmod(file.fileno(), 0o644)
        os.utime(file.fileno(), (self.epoch, self.epoch) if when is None else (when, when))
