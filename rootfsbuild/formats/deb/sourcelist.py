"""Where the image's own apt will look for packages: sources.list(5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rootfsbuild.distro import Archive
from rootfsbuild.rootfs.inside import Inside

SOURCE_LIST = "/etc/apt/sources.list"


def source_list(archives: Sequence[Archive], urls: Mapping[str, str]) -> str:
    """Return the image's source list: one line a suite, in the recipe's order."""
    return "".join(
        f"deb {urls[archive.name]} {suite} {' '.join(archive.components)}\n"
        for archive in archives
        if archive.name in urls
        for suite in archive.suites
    )


def localise_sources(root: Inside, urls: Mapping[str, str]) -> dict[str, tuple[bytes, int]]:
    """Return the root's source list with some URLs exchanged, as path -> (content, mode); empty if none occurs."""
    text = (root.read(SOURCE_LIST) or b"").decode("utf-8", "surrogateescape")
    lines = [" ".join(urls.get(word.rstrip("/"), word) for word in line.split(" ")) for line in text.split("\n")]
    changed = "\n".join(lines)
    return {SOURCE_LIST: (changed.encode("utf-8", "surrogateescape"), 0o644)} if changed != text else {}
