"""A suite of our own making: Packages files of exactly what is carried, and the Release that a key signs."""

from __future__ import annotations

import hashlib
import lzma
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from rootfsbuild.errors import UntrustedError
from rootfsbuild.formats.deb.carried import Listed, Suite
from rootfsbuild.formats.deb.cleartext import split_inrelease
from rootfsbuild.formats.deb.release import NAMES
from rootfsbuild.formats.deb.version import sort_key
from rootfsbuild.repository.sign import Signer
from rootfsbuild.repository.trust import load_keyring, verify_detached, verify_inline

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


@dataclass(frozen=True)
class OwnSuite:
    """Files to be written, by path below the suite's folder."""

    indexes: Mapping[str, bytes]
    release: bytes

    def documents(self, signer: Signer) -> dict[str, bytes]:
        """Return the Release in all the forms in which apt asks for it.

        Raises UsageError for a key that cannot sign after all.
        """
        inline = signer.sign_inline(self.release)
        if split_inrelease(inline).strip() != self.release.strip():
            raise UntrustedError("InRelease", "mismatch", "does not say what Release says")
        return {"InRelease": inline, "Release": self.release, "Release.gpg": signer.sign_detached(self.release)}


def write_suite(suite: Suite) -> OwnSuite:
    """Return a suite that lists the carried packages with their paragraphs as they were signed, and nothing else.

    What the Release says of itself is what the newest signed one says, as the image's pins may depend on it
    (apt_preferences(5)); the same packages give the same bytes.
    """
    indexes = {
        f"{folder}/{name}": data
        for folder, listed in _places(suite).items()
        for name, data in _write_packages(listed).items()
    }
    return OwnSuite(indexes, _write_release(suite, indexes))


def check_documents(documents: Mapping[str, bytes], key: str, now: float, subject: str) -> None:
    """Verify InRelease, or Release with Release.gpg, or all of them, with the key file that is laid beside them.

    Raises UntrustedError: what apt will refuse has to be noticed before it is behind a gap.
    """
    keyring = load_keyring([("", key)])
    if "Release.gpg" in documents:
        verify_detached(documents["Release"], documents["Release.gpg"], keyring, now, subject=f"Release of {subject}")
    if "InRelease" in documents:
        verify_inline(documents["InRelease"], keyring, now, subject=f"InRelease of {subject}")


def _places(suite: Suite) -> dict[str, list[Listed]]:
    found: dict[str, dict[str, Listed]] = {}
    for carried in suite.carried:
        place = found.setdefault(f"{carried.component}/binary-{carried.architecture}", {})
        for listed in carried.packages:
            # What a newer index says of the same file is what its archive means now.
            place.setdefault(listed.blob[0].sha256, listed)
    return {folder: sorted(found[folder].values(), key=_rank) for folder in sorted(found)}


def _rank(listed: Listed) -> tuple[object, ...]:
    package = listed.blob[0]
    return package.name, sort_key(package.version), package.architecture, package.sha256


def _write_packages(listed: list[Listed]) -> dict[str, bytes]:
    text = b"".join(one.text + b"\n\n" for one in listed)
    # gzip.compress writes another header from one Python to the next.
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return {
        "Packages": text,
        "Packages.gz": packer.compress(text) + packer.flush(),
        "Packages.xz": lzma.compress(text),
    }


def _write_release(suite: Suite, indexes: Mapping[str, bytes]) -> bytes:
    release = suite.release
    fields = {
        "Origin": release.origin,
        "Label": release.label,
        "Suite": release.suite or suite.name,
        "Version": release.version,
        "Codename": release.codename,
        "Date": _write_date(release.date),
        "Acquire-By-Hash": "yes",
        "NotAutomatic": "yes" if release.not_automatic else "",
        "ButAutomaticUpgrades": "yes" if release.but_automatic_upgrades else "",
        "Architectures": " ".join(sorted({one.architecture for one in suite.carried})),
        "Components": " ".join(sorted({one.component for one in suite.carried})),
        "Description": "Chosen packages, as their archive signed them",
    }
    lines = [f"{name}: {' '.join(value.split())}" for name, value in fields.items() if value]
    return "\n".join([*lines, "SHA256:", *_sums(indexes), ""]).encode()


def _sums(indexes: Mapping[str, bytes]) -> Iterator[str]:
    for path in sorted(indexes):
        yield f" {hashlib.sha256(indexes[path]).hexdigest()} {len(indexes[path]):8} {path}"


def _write_date(seconds: int) -> str:
    """Return a moment as Release files write it (RFC 5322, 3.3), whatever the locale."""
    moment = time.gmtime(seconds)
    clock = f"{moment.tm_hour:02}:{moment.tm_min:02}:{moment.tm_sec:02}"
    day = f"{moment.tm_mday:02} {NAMES[moment.tm_mon - 1]} {moment.tm_year}"
    return f"{_DAYS[moment.tm_wday]}, {day} {clock} UTC"
