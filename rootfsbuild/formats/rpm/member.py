"""A package of a transaction: verified, its header read, and decided which of its files are laid."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rootfsbuild.formats.format import Ground
from rootfsbuild.formats.rpm.archive import open_rpm
from rootfsbuild.formats.rpm.files import File, Flag
from rootfsbuild.formats.rpm.identity import check_identity
from rootfsbuild.formats.rpm.signature import Head, check
from rootfsbuild.plan import Package
from rootfsbuild.repository.trust import Keyring, load_keyring
from rootfsbuild.rootfs.excluded import make_excluder

Skip = Callable[[File], bool]

NORMAL, SKIPPED, WRONG_COLOUR = 0, 2, 4
"""What became of a file (rpm's rpmfileState)."""


@dataclass(frozen=True)
class Member:
    """One package of a transaction."""

    label: str
    """What it is called among the others: its name, with more where several have that."""
    package: Package
    path: str
    """Its verified file on this machine."""
    head: Head
    files: tuple[File, ...]
    skipped: frozenset[int]
    """Which of its files, by their number in the header, are left out: documentation, languages, excluded paths."""


def load_keyrings(ground: Ground) -> dict[str, Keyring]:
    """Return the certificates of each archive; raises UntrustedError."""
    return {
        archive.name: load_keyring([(key.fingerprint, key.path) for key in archive.keys]) for archive in ground.archives
    }


def label_packages(packages: Sequence[Package]) -> dict[Package, str]:
    """Return what to call each package: of one name there may be one of each architecture, and several kernels."""
    count = Counter(package.name for package in packages)
    return {
        package: package.name
        if count[package.name] == 1
        else f"{package.name}-{package.version}.{package.architecture}"
        for package in packages
    }


def read_member(
    ground: Ground, label: str, package: Package, path: str, keyrings: Mapping[str, Keyring], skip: Skip
) -> Member:
    """Verify a package's signature, digests and identity; raises UntrustedError or PackageError."""
    rpm = open_rpm(path, label)
    try:
        check(
            rpm.fd,
            rpm.head,
            keyring=keyrings[package.archive],
            now=ground.now(),
            relax=ground.relax,
            report=ground.report,
        )
        check_identity(rpm.header, rpm.files, package)
    finally:
        os.close(rpm.fd)
    return Member(label, package, path, rpm.head, rpm.files, _skipped(rpm.files, skip))


def _skipped(files: Sequence[File], skip: Skip) -> frozenset[int]:
    """Return the numbers of the files that are left out, and of the directories that are empty for that (rpm's rule).

    A directory in a directory keeps that one, whether it is left out itself or not.
    """
    skipped = {file.index for file in files if skip(file)}
    emptied = {os.path.dirname(file.path) for file in files if file.index in skipped}
    emptied -= {os.path.dirname(file.path) for file in files if file.index not in skipped}
    return frozenset(skipped | {file.index for file in files if stat.S_ISDIR(file.mode) and file.path in emptied})


def choose_skipped(ground: Ground) -> Skip:
    """Return what tells of a file whether the recipe leaves it out."""
    excluded = make_excluder(ground.image.path_exclude, ground.image.path_keep)
    languages = [language.encode() for language in ground.image.languages]

    def skip(file: File) -> bool:
        if file.flags & Flag.DOC and not ground.image.docs:
            return True
        # As in rpm, for somebody who asks for de_CH what is in German as such (de) is installed.
        parts = tuple(file.langs.split(b"|")) if file.langs else ()
        if languages and parts and not any(language.startswith(parts) for language in languages):
            return True
        return excluded is not None and excluded(file.path)

    return skip
