"""A package of a transaction: verified, its header read, and decided which of its files are laid."""

from __future__ import annotations

import os
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
    skipped = frozenset(file.index for file in rpm.files if not file.ghost and skip(file))
    return Member(label, package, path, rpm.head, rpm.files, skipped)


def choose_skipped(ground: Ground) -> Skip:
    """Return what tells of a file whether the recipe leaves it out."""
    excluded = make_excluder(ground.image.path_exclude, ground.image.path_keep)
    languages = {language.encode() for language in ground.image.languages}

    def skip(file: File) -> bool:
        if file.flags & Flag.DOC and not ground.image.docs:
            return True
        # rpm matches a language, or its first part (`de` for `de_CH`), with those of the file.
        if languages and file.langs and languages.isdisjoint(file.langs.split(b"|")):
            return True
        return excluded is not None and excluded(file.path)

    return skip
