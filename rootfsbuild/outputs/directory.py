"""The root itself, as a directory."""

from __future__ import annotations

import os


def write_directory(root: str, path: str, epoch: int) -> None:
    """Make the tree `root` be `path`, on the same file system; its times are left as they are."""
    del epoch
    os.rename(root, path)
