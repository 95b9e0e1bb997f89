"""Times in a finished tree: none later than the plan's own, so that no build leaves its hour in the image."""

from __future__ import annotations

import os

_SECOND = 1_000_000_000


def clamp_times(root: str, epoch: int) -> None:
    """Set every modification time later than `epoch` (seconds) to it, its access time with it."""
    limit = epoch * _SECOND
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        device = os.fstat(descriptor).st_dev
        _clamp_directory(descriptor, limit, device)
        _clamp(".", os.fstat(descriptor), limit, descriptor)
    finally:
        os.close(descriptor)


def _clamp_directory(descriptor: int, limit: int, device: int) -> None:
    with os.scandir(descriptor) as entries:
        found = list(entries)
    for entry in found:
        status = entry.stat(follow_symlinks=False)
        if entry.is_dir(follow_symlinks=False) and status.st_dev == device:
            child = os.open(entry.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=descriptor)
            try:
                _clamp_directory(child, limit, device)
            finally:
                os.close(child)
        _clamp(entry.name, status, limit, descriptor)


def _clamp(name: str, status: os.stat_result, limit: int, directory: int) -> None:
    if status.st_mtime_ns > limit:
        os.utime(name, ns=(limit, limit), dir_fd=directory, follow_symlinks=False)
