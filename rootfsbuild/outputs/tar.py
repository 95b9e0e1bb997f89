"""The root as one uncompressed tar archive."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING

from rootfsbuild.errors import StorageError
from rootfsbuild.rootfs.tar_writer import write_tar
from rootfsbuild.rootfs.tree import read_tree

if TYPE_CHECKING:
    from rootfsbuild.rootfs.entries import Entries

_SECOND = 1_000_000_000


def write_tar_file(root: str, path: str, epoch: int) -> None:
    """Write the tree `root` to the new file `path`: sorted, pax, numeric owners, no time after `epoch`.

    The file is on disk when this returns. Raises StorageError.
    """
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        with os.fdopen(fd, "wb", buffering=1 << 16) as file:
            write_tar(_clamped(read_tree(root), epoch * _SECOND), file)
            file.flush()
            os.fsync(fd)
    except OSError as error:
        raise StorageError(path, error.strerror or str(error)) from error


def _clamped(entries: Entries, latest: int) -> Entries:
    for entry, content in entries:
        yield (dataclasses.replace(entry, mtime=latest) if entry.mtime > latest else entry), content
