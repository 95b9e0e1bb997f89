"""Signed repositories: Release texts, and trees of files that a mirror would serve."""

from __future__ import annotations

import email.utils
import hashlib
import time
from dataclasses import dataclass
from pathlib import Path

DAY = 86400


def moment(seconds):
    """Return a date as Release files write it."""
    return email.utils.formatdate(seconds, usegmt=True).replace("GMT", "UTC")


def release_text(files=None, *, date=None, valid_until=None, drop=(), extra="", **fields):
    """Return a Release that lists `files` (path to bytes); times in seconds, `drop` names fields to omit."""
    listed = {"main/binary-amd64/Packages": b""} if files is None else files
    values = {
        "Origin": "Example",
        "Label": "Example",
        "Suite": "stable",
        "Codename": "bookworm",
        "Date": moment(time.time() - 60 if date is None else date),
        "Valid-Until": None if valid_until is None else moment(valid_until),
        "Acquire-By-Hash": "yes",
        "Architectures": "amd64 arm64",
        "Components": "main",
        **{name.replace("_", "-").title(): value for name, value in fields.items()},
    }
    lines = [f"{name}: {value}" for name, value in values.items() if value is not None and name not in drop]
    sums = [f" {hashlib.sha256(data).hexdigest()} {len(data):8} {path}" for path, data in listed.items()]
    return "\n".join([*lines, "SHA256:", *sums, ""]).encode() + extra.encode()


def write_repository(folder, key, files=None, *, suite="bookworm", forms=("InRelease", "Release"), **fields):
    """Write a suite below `folder` (a mirror's root) and return its Release text.

    `forms` says which signed documents there are: InRelease, Release (with its Release.gpg).
    """
    listed = {"main/binary-amd64/Packages": b""} if files is None else files
    text = release_text(listed, **fields)
    place = Path(folder) / "dists" / suite
    place.mkdir(parents=True, exist_ok=True)
    for path, data in listed.items():
        file = place / path
        by_hash = file.parent / "by-hash/SHA256" / hashlib.sha256(data).hexdigest()
        by_hash.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        by_hash.write_bytes(data)
    for name in ("InRelease", "Release", "Release.gpg"):
        (place / name).unlink(missing_ok=True)
    if "InRelease" in forms:
        (place / "InRelease").write_bytes(key.sign(text))
    if "Release" in forms:
        (place / "Release").write_bytes(text)
        (place / "Release.gpg").write_bytes(key.detach(text))
    return text


@dataclass(frozen=True)
class Archive:
    """What rootfsbuild.distro.Archive is to the code under test."""

    name: str = "example"
    threshold: int = 1
    check_valid_until: bool = True
    max_age_days: int | None = None
