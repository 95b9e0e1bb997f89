"""repomd.xml: what a repository consists of, and the checksums that prove it (createrepo_c, libsolv's rpmmd)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rootfsbuild.errors import UntrustedError
from rootfsbuild.formats.rpm.xml import Bounds, read_document

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rootfsbuild.formats.rpm.xml import Element

STRONG = {"sha256": 64, "sha384": 96, "sha512": 128}
"""Checksum types that prove something, with the number of their hexadecimal digits; md5 and sha (SHA-1) do not."""
READABLE = (".xz", ".gz", ".zst", ".bz2", ".xml", ".yaml")
"""Endings of what can be read; zchunk (`primary_zck`) and SQLite (`primary_db`) always stand beside one of these."""
MOST = 1 << 30
"""Bytes that one data file may have: Fedora's filelists, the largest known, have 60 million."""

_COMPRESSIONS = ("xz", "gz", "zst", "bz2")
_BOUNDS = Bounds(depth=8, elements=20_000, characters=1 << 20)
_ALIASES = {"sha": "sha1"}


@dataclass(frozen=True)
class Checksum:
    """A digest as repository metadata writes it."""

    type: str
    """`sha256`, `sha384`, `sha512`, or one that proves nothing; `sha` is written `sha1` here."""
    value: str
    """Lower-case hexadecimal."""

    @property
    def strong(self) -> bool:
        """Whether it proves anything."""
        return self.type in STRONG


@dataclass(frozen=True)
class Data:
    """One file of a repository's metadata."""

    type: str
    """`primary`, `filelists`, `group_gz`, `modules`, …"""
    href: str
    """Relative to the repository's base; without `..`, empty parts and anything that a URL reads otherwise."""
    size: int | None
    """Bytes, None if the document does not say."""
    open_size: int | None
    """Bytes when decompressed, None if the document does not say."""
    checksum: Checksum
    open_checksum: Checksum | None
    timestamp: int
    """Seconds since the epoch; 0 if the document does not say."""

    @property
    def sha256(self) -> str:
        """Its SHA-256, empty if another digest proves it."""
        return self.checksum.value if self.checksum.type == "sha256" else ""


@dataclass(frozen=True)
class Repomd:
    """What a repomd.xml says."""

    revision: str
    """As written: seconds since the epoch, a counter, or any word."""
    timestamp: int
    """Seconds: the newest of the data's timestamps, else the revision if it is a number, else 0."""
    tags: tuple[tuple[str, str], ...]
    """(`content`, `repo` or `distro`, text), in the document's order; a distro's CPE comes as (`cpe`, text)."""
    data: Mapping[str, Data]
    """By type, all that are listed, also those that nothing here can read or prove."""

    def choose(self, kind: str) -> Data | None:
        """Return the best file of a kind (`primary`, `group`), None if the repository offers none that can be used.

        `group` may come as `group_gz` or `group_xz` too: the smallest that can be read and proven is the best.
        """
        names = (kind, *(f"{kind}_{compression}" for compression in _COMPRESSIONS))
        found = [self.data[name] for name in names if name in self.data and not unusable(self.data[name])]
        return min(found, key=lambda data: (data.size or 0, data.type), default=None)


def parse_repomd(body: bytes, label: str) -> Repomd:
    """Read a repomd.xml; `label` names it in errors.

    Raises UntrustedError (rule `malformed`), also for a path that leads out of the repository, for a type that is
    listed twice with different contents, and where no file is proven by SHA-256 or better.
    """
    root = read_document(body, label, "repomd", _BOUNDS)
    data: dict[str, Data] = {}
    for element in root.named("data"):
        one = _read_data(element, label)
        if data.setdefault(one.type, one) != one:
            raise _wrong(label, element, f"lists {one.type} twice, with different contents")
    if not any(one.checksum.strong for one in data.values()):
        raise UntrustedError(label, "malformed", "lists nothing with a SHA-256 or better; MD5 and SHA-1 prove nothing")
    revision = root.text_of("revision")
    newest = max((one.timestamp for one in data.values()), default=0)
    return Repomd(revision, newest or _seconds(revision), _read_tags(root), data)


def unusable(data: Data) -> str:
    """Return why a file cannot be used, empty if it can."""
    if not data.checksum.strong:
        return f"has only the checksum type {data.checksum.type}, which proves nothing"
    if not data.href.endswith(READABLE):
        return "has an encoding that cannot be read"
    if data.size is None:
        return "is listed without its size"
    if data.size > MOST or (data.open_size or 0) > 16 * MOST:
        return f"has {max(data.size, data.open_size or 0)} bytes, more than is sensible"
    return ""


def is_inside(path: str) -> bool:
    """Tell whether a location stays below the repository's base in every reading of it, as a path and in a URL."""
    if re.search(r"[\x00-\x20\x7f-\xa0\\%?#]", path):
        return False
    return not any(part in {"", ".", ".."} for part in path.split("/")) and ":" not in path.partition("/")[0]


def read_checksum(kind: str, value: str) -> Checksum | None:
    """Return a checksum, None for a strong one that has not the digits of its type."""
    name = _ALIASES.get(kind.strip().lower().replace("-", ""), kind.strip().lower().replace("-", ""))
    digits = value.strip().lower()
    if name in STRONG and not re.fullmatch(f"[0-9a-f]{{{STRONG[name]}}}", digits):
        return None
    return Checksum(name, digits)


def _read_data(element: Element, label: str) -> Data:
    kind = element.get("type")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", kind):
        raise _wrong(label, element, f"lists data of the type {kind[:80]!r}")
    location = element.first("location")
    href = location.get("href") if location else ""
    if not is_inside(href):
        raise _wrong(label, element, f"lists {kind} at {href[:200]!r}, which is no path in the repository")
    checksum = _checksum(element, "checksum", label)
    if checksum is None:
        raise _wrong(label, element, f"lists {kind} without a checksum")
    return Data(
        type=kind,
        href=href,
        size=_number(element, "size", label),
        open_size=_number(element, "open-size", label),
        checksum=checksum,
        open_checksum=_checksum(element, "open-checksum", label),
        timestamp=_timestamp(element, label),
    )


def _checksum(element: Element, name: str, label: str) -> Checksum | None:
    found = element.first(name)
    if found is None:
        return None
    checksum = read_checksum(found.get("type"), found.text)
    if checksum is None:
        raise _wrong(label, found, f"gives a {found.get('type')[:20]} that has not its digits")
    return checksum


def _number(element: Element, name: str, label: str) -> int | None:
    text = element.text_of(name)
    if not text:
        return None
    if not re.fullmatch(r"[0-9]{1,15}", text):
        raise _wrong(label, element, f"gives the {name} {text[:40]!r}")
    return int(text)


def _timestamp(element: Element, label: str) -> int:
    text = element.text_of("timestamp")
    if not text:
        return 0
    # The createrepo of yum's time wrote fractions.
    found = re.fullmatch(r"([0-9]{1,12})(\.[0-9]{1,9})?", text)
    if found is None:
        raise _wrong(label, element, f"gives the timestamp {text[:40]!r}")
    return int(found[1])


def _seconds(revision: str) -> int:
    return int(revision) if re.fullmatch(r"[0-9]{1,12}", revision) else 0


def _read_tags(root: Element) -> tuple[tuple[str, str], ...]:
    tags: list[tuple[str, str]] = []
    for element in root.named("tags"):
        for tag in element.children:
            tags += [("cpe", tag.get("cpeid"))] if tag.get("cpeid") else []
            tags += [(tag.name, tag.text)] if tag.name in {"content", "repo", "distro"} else []
    return tuple(tags)


def _wrong(label: str, element: Element, problem: str) -> UntrustedError:
    return UntrustedError(label, "malformed", f"line {element.line}: {problem}")
