"""Where the image's own dnf will look for packages beside its distribution's repositories: dnf.conf(5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rootfsbuild.distro import Archive
from rootfsbuild.rootfs.inside import Inside

SOURCE_LIST = "/etc/yum.repos.d/rootfsbuild.repo"


def source_list(archives: Sequence[Archive], urls: Mapping[str, str]) -> str:
    """Return a section for each archive that has a URL: the distribution's own packages bring those of its own."""
    return "\n".join(_section(archive, urls[archive.name]) for archive in archives if archive.name in urls)


def _section(archive: Archive, url: str) -> str:
    priority = "" if archive.priority is None else f"priority={archive.priority}\n"
    return f"[{archive.name}]\nname={archive.name}\nbaseurl={url}\nenabled=1\ngpgcheck=1\n{priority}"


def localise_sources(root: Inside, urls: Mapping[str, str]) -> dict[str, tuple[bytes, int]]:
    """Return the file above with some URLs exchanged, as path -> (content, mode); empty if none occurs."""
    text = (root.read(SOURCE_LIST) or b"").decode("utf-8", "surrogateescape")
    lines = [_exchange(line, urls) for line in text.split("\n")]
    changed = "\n".join(lines)
    return {SOURCE_LIST: (changed.encode("utf-8", "surrogateescape"), 0o644)} if changed != text else {}


def _exchange(line: str, urls: Mapping[str, str]) -> str:
    key, sign, value = line.partition("=")
    return f"{key}={urls.get(value.rstrip('/'), value)}" if sign and key == "baseurl" else line
