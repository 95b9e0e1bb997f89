"""Metalinks and mirror lists: where a repository is served, and what its repomd.xml must be (Metalink 3.0).

MirrorManager, which serves them, lists under `alternates` the repomd.xml of the last days as well, because mirrors
follow at their own pace.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rootfsbuild.errors import UntrustedError
from rootfsbuild.formats.rpm.repomd import STRONG, read_checksum
from rootfsbuild.formats.rpm.xml import Bounds, read_document
from rootfsbuild.repository.mirrors import address

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rootfsbuild.formats.rpm.xml import Element

MAX_LIST = 4_000_000
"""Bytes of a metalink or mirror list: Fedora's have 100,000."""
MOST_MIRRORS = 500

_BOUNDS = Bounds(depth=10, elements=50_000, characters=8_000_000)
_REPOMD = "repodata/repomd.xml"
_PLAIN = ("http", "https")


@dataclass(frozen=True)
class Listed:
    """A repomd.xml as a metalink describes it."""

    timestamp: int
    """Seconds since the epoch; 0 if the metalink does not say."""
    size: int | None
    """Bytes, None if the metalink does not say."""
    hashes: Mapping[str, str]
    """Lower-case digests by type, `sha256` or better only; never empty."""

    def proves(self, body: bytes) -> bool:
        """Tell whether these bytes are what is described, by the strongest of its hashes."""
        kind = max(self.hashes, key=lambda name: STRONG[name])
        digest = hashlib.new(kind, body).hexdigest()
        return self.size in {None, len(body)} and digest == self.hashes[kind]


@dataclass(frozen=True)
class Metalink:
    """What a metalink says of a repository's repomd.xml."""

    mirrors: tuple[str, ...]
    """Base URLs (http or https, no slash at the end), the preferred ones first."""
    accepted: tuple[Listed, ...]
    """The current repomd.xml, then older ones that mirrors may still have."""

    def prove(self, body: bytes) -> Listed | None:
        """Return what describes these bytes, None if they are none of the repomd.xml listed."""
        return next((listed for listed in self.accepted if listed.proves(body)), None)


def parse_metalink(body: bytes, label: str) -> Metalink:
    """Read a metalink of a repomd.xml; raises UntrustedError (rule `malformed`).

    A metalink without a SHA-256 or better is refused: its mirrors could serve anything. Addresses that are of no use
    (rsync, ftp, not of a repomd.xml) are passed over.
    """
    root = read_document(body, label, "metalink", _BOUNDS)
    files = [file for group in root.named("files") for file in group.named("file")]
    found = [file for file in files if file.get("name").rpartition("/")[2] == "repomd.xml"]
    if len(found) != 1:
        raise UntrustedError(label, "malformed", f"describes {len(found)} files repomd.xml")
    current = _listed(found[0], label)
    older = [_listed(one, label) for group in found[0].named("alternates") for one in group.named("alternate")]
    accepted = tuple(listed for listed in (current, *older) if listed is not None)
    if not accepted:
        raise UntrustedError(label, "malformed", "lists no SHA-256 of repomd.xml; MD5 and SHA-1 prove nothing")
    return Metalink(_mirrors(found[0]), accepted)


def parse_mirrorlist(body: bytes, label: str) -> tuple[str, ...]:
    """Return the base URLs of a plain mirror list, one a line, in its order; `#` begins a comment.

    Raises UntrustedError (rule `malformed`) for a list without any: servers answer a wrong question with a comment.
    """
    text = body[:MAX_LIST].decode("utf-8", "replace")
    found = _addresses(line.partition("#")[0].strip() for line in text.splitlines())
    if not found:
        first = re.sub(r"[^\x20-\x7e]", "?", text.strip().partition("\n")[0])[:120]
        hint = "it is a metalink, which is configured as such" if "<metalink" in text[:2000] else ""
        raise UntrustedError(label, "malformed", f"names no mirror: {first!r}", hint=hint)
    return found


def _listed(element: Element, label: str) -> Listed | None:
    hashes: dict[str, str] = {}
    for written in (one for group in element.named("verification") for one in group.named("hash")):
        checksum = read_checksum(written.get("type"), written.text)
        if checksum is None:
            problem = f"line {written.line}: gives a {written.get('type')[:20]} that has not its digits"
            raise UntrustedError(label, "malformed", problem)
        if checksum.strong and hashes.setdefault(checksum.type, checksum.value) != checksum.value:
            raise UntrustedError(label, "malformed", f"line {written.line}: gives two different {checksum.type}")
    size, timestamp = element.text_of("size"), element.text_of("timestamp")
    if not hashes:
        return None
    if not re.fullmatch(r"[0-9]{0,15}", size) or not re.fullmatch(r"[0-9]{0,12}", timestamp):
        problem = f"line {element.line}: gives the size {size[:40]!r} and the timestamp {timestamp[:40]!r}"
        raise UntrustedError(label, "malformed", problem)
    return Listed(int(timestamp or 0), int(size) if size else None, hashes)


def _mirrors(file: Element) -> tuple[str, ...]:
    urls = [url for group in file.named("resources") for url in group.named("url")]
    # sorted() keeps the document's order among equals, in which MirrorManager has put the nearest first.
    preferred = sorted(urls, key=_preference, reverse=True)
    return _addresses(url.text.removesuffix(_REPOMD) for url in preferred if url.text.endswith(f"/{_REPOMD}"))


def _preference(url: Element) -> int:
    text = url.get("preference")
    return int(text) if re.fullmatch(r"[0-9]{1,6}", text) else 0


def _addresses(texts: Iterable[str]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for text in texts:
        if text.partition("://")[0].lower() not in _PLAIN:
            continue
        try:
            found[address(text)] = None
        except ValueError:
            continue
    return tuple(found)[:MOST_MIRRORS]
