"""The forms that a result can have, and which one a file name asks for."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rootfsbuild.errors import UsageError
from rootfsbuild.outputs.directory import write_directory
from rootfsbuild.outputs.tar import write_tar_file

if TYPE_CHECKING:
    from collections.abc import Callable

_LATER = (
    ".tar.gz",
    ".tgz",
    ".tar.xz",
    ".txz",
    ".tar.zst",
    ".tzst",
    ".tar.bz2",
    ".tbz2",
    ".tar.lz4",
    ".tar.lzma",
    ".gz",
    ".xz",
    ".zst",
    ".bz2",
    ".oci",
    ".wsl",
    ".squashfs",
    ".sqfs",
    ".ext2",
    ".ext3",
    ".ext4",
    ".img",
    ".raw",
    ".iso",
    ".qcow2",
    ".cpio",
    ".erofs",
    ".zip",
    ".7z",
)


@dataclass(frozen=True)
class Output:
    """One form of a result."""

    name: str
    suffixes: tuple[str, ...]
    """Endings of file names that ask for it, in lower case; empty: whatever no other form claims."""
    write: Callable[[str, str, int], None]
    """(root, path, epoch in seconds): makes `path`, which is free and lies beside `root`; may use `root`
    up."""


DIRECTORY = Output("directory", (), write_directory)
OUTPUTS = (Output("tar", (".tar",), write_tar_file), DIRECTORY)


def choose_output(path: str) -> Output:
    """Return the form that a path's ending asks for: a directory, unless it names an archive.

    Raises UsageError for the ending of an archive or image that is not offered.
    """
    name = os.path.basename(path.rstrip("/")).lower()
    for output in OUTPUTS:
        if output.suffixes and name.endswith(output.suffixes):
            return output
    later = [suffix for suffix in _LATER if name.endswith(suffix)]
    if later and not path.endswith("/"):
        raise UsageError(
            f"{path}: {max(later, key=len)} files cannot be written yet; there are: {offered()}",
            hint="name a directory or a .tar and convert that; a final / makes any name a directory",
        )
    return DIRECTORY


def offered() -> str:
    """Return the forms and their endings, for a message."""
    return ", ".join(
        f"{output.name} ({' '.join(output.suffixes)})" if output.suffixes else output.name for output in OUTPUTS
    )
