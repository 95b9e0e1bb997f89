"""updateinfo.xml: advisories, what they mend and in which packages (as Fedora's Bodhi, RHEL and SUSE write it)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rootfsbuild.formats.rpm.data import open_data
from rootfsbuild.formats.rpm.xml import Element, read_records

if TYPE_CHECKING:
    from collections.abc import Iterator

_LIMIT = 2 << 30
"""Bytes of a plain updateinfo.xml: those of EL 8 have 50 million."""
_CVE = re.compile(r"CVE-[0-9]{4}-[0-9]{4,}")


@dataclass(frozen=True)
class Fixed:
    """A package that an advisory brings."""

    name: str
    version: str
    """`[epoch:]version-release`, without an epoch that is 0."""
    architecture: str


@dataclass(frozen=True)
class Advisory:
    """One advisory."""

    id: str
    type: str
    """`security`, `bugfix`, `enhancement`, `newpackage`, or what the distribution writes."""
    severity: str
    """As written (`Critical`, `Important`, …); empty if it has none."""
    title: str
    issued: str
    """As written: `2023-04-18 20:52:22`, or seconds since the epoch."""
    cves: tuple[str, ...]
    bugs: tuple[str, ...]
    """Numbers in the distribution's own tracker, as written."""
    packages: tuple[Fixed, ...]


def parse_updateinfo(source: str | bytes, label: str = "updateinfo.xml", *, href: str = "") -> Iterator[Advisory]:
    """Yield the advisories of an updateinfo.xml, a path (compressed as the ending of `href` says) or plain bytes.

    Raises UntrustedError (rule `malformed`). Advisories without an id are passed over.
    """
    chunks = iter([source]) if isinstance(source, bytes) else open_data(source, href or source, label, limit=_LIMIT)
    for element in read_records(chunks, label, "updates"):
        if element.name == "update" and element.text_of("id"):
            yield _read_advisory(element)


def _read_advisory(element: Element) -> Advisory:
    references = [one for part in element.named("references") for one in part.named("reference")]
    issued = element.first("issued")
    title, severity = _plain(element.text_of("title")), _plain(element.text_of("severity"))
    return Advisory(
        id=_plain(element.text_of("id")),
        type=_plain(element.get("type")),
        severity="" if severity.lower() == "none" else severity,
        title=title,
        issued=_plain(issued.get("date") or issued.text) if issued else "",
        cves=tuple(dict.fromkeys(_cves(references, title))),
        bugs=tuple(dict.fromkeys(_plain(one.get("id")) for one in references if one.get("type") == "bugzilla")),
        packages=tuple(dict.fromkeys(_packages(element))),
    )


def _cves(references: list[Element], title: str) -> Iterator[str]:
    for one in references:
        if one.get("type") == "cve":
            # Some write the number in the id, some only in the address or in the title.
            yield from _CVE.findall(f"{one.get('id')} {one.get('href')} {one.get('title')}")[:1]
    yield from _CVE.findall(title)


def _packages(element: Element) -> Iterator[Fixed]:
    lists = (part for pkglist in element.named("pkglist") for part in pkglist.named("collection"))
    for package in (one for collection in lists for one in collection.named("package")):
        epoch = package.get("epoch")
        shown = f"{int(epoch)}:" if re.fullmatch(r"[0-9]{1,10}", epoch) and int(epoch) else ""
        version = f"{shown}{package.get('version')}-{package.get('release')}"
        if package.get("name") and package.get("version"):
            yield Fixed(package.get("name"), version, package.get("arch"))


def _plain(text: str) -> str:
    """Return text as one line that a terminal can show."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]+", " ", text).strip()
