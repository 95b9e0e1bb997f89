"""Read and write single files of a root from outside it, never through a link that leads out.

Every look-up is openat2(2) with RESOLVE_IN_ROOT: absolute links and `..` are resolved as a process chrooted
there would resolve them, by the kernel and without a race.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from rootfsbuild.rootfs.openat2 import open_inside


@dataclass(frozen=True)
class Inside:
    """A root opened for editing; paths are absolute as seen from inside it."""

    descriptor: int

    def read(self, path: str) -> bytes | None:
        """Return a regular file's bytes, or None when there is no such file."""
        try:
            descriptor = open_inside(self.descriptor, path, os.O_RDONLY | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            return None
        with open(descriptor, "rb") as file:
            return file.read()

    def write(self, path: str, data: bytes, mode: int = 0o644, *, append: bool = False) -> None:
        """Create or replace a file and the directories above it; an existing file keeps its owner, not its mode."""
        self.make_directory(os.path.dirname(path))
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | (os.O_APPEND if append else os.O_TRUNC)
        with open(open_inside(self.descriptor, path, flags, mode), "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)

    def make_directory(self, path: str, mode: int = 0o755) -> None:
        """Create a directory and those above it; one that exists stays as it is."""
        parts = [part for part in path.split("/") if part]
        for depth in range(1, len(parts) + 1):
            with (
                self.parent("/".join(parts[:depth])) as (directory, name),
                contextlib.suppress(FileExistsError),
            ):
                os.mkdir(name, mode if depth == len(parts) else 0o755, dir_fd=directory)
                os.chmod(name, mode if depth == len(parts) else 0o755, dir_fd=directory)

    def link(self, path: str, target: str) -> None:
        """Create a symlink whose text is `target`."""
        self.make_directory(os.path.dirname(path))
        with self.parent(path) as (directory, name):
            os.symlink(target, name, dir_fd=directory)

    def exists(self, path: str) -> bool:
        """Say whether `path` names anything, a dangling link included."""
        return self.status(path) is not None

    def status(self, path: str) -> os.stat_result | None:
        """Return lstat(2) of `path`, or None when it does not exist."""
        try:
            with self.parent(path) as (directory, name):
                return os.stat(name, dir_fd=directory, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def names(self, path: str) -> list[str]:
        """Return the sorted names in a directory; empty when it does not exist."""
        try:
            descriptor = open_inside(self.descriptor, path, os.O_RDONLY | os.O_DIRECTORY)
        except (FileNotFoundError, NotADirectoryError):
            return []
        try:
            return sorted(os.listdir(descriptor))
        finally:
            os.close(descriptor)

    def remove(self, path: str) -> None:
        """Remove one file or link; a path that does not exist is no error."""
        with (
            contextlib.suppress(FileNotFoundError, NotADirectoryError),
            self.parent(path) as (directory, name),
        ):
            os.unlink(name, dir_fd=directory)

    def remove_directory(self, path: str) -> None:
        """Remove a directory if it exists and is empty."""
        try:
            with self.parent(path) as (directory, name):
                os.rmdir(name, dir_fd=directory)
        except OSError as error:
            if error.errno not in {errno.ENOENT, errno.ENOTEMPTY, errno.ENOTDIR}:
                raise

    @contextlib.contextmanager
    def parent(self, path: str) -> Iterator[tuple[int, str]]:
        """Open the directory that holds `path`, for the calls that take `dir_fd`; yields it and the last name."""
        above, name = os.path.split(path.rstrip("/"))
        directory = open_inside(self.descriptor, above or ".", os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield directory, name or "."
        finally:
            os.close(directory)


@contextlib.contextmanager
def edit_root(root: str) -> Iterator[Inside]:
    """Open the directory `root` for editing."""
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        yield Inside(descriptor)
    finally:
        os.close(descriptor)
