"""Small worlds of RPM packages, written the short way."""

from __future__ import annotations

import gzip
import hashlib
import os
import re
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from rootfsbuild.formats.rpm.metadata import Placed, Universe, in_primary, load_universe
from rootfsbuild.formats.rpm.solvcache import Document

_METADATA = (
    '<metadata xmlns="http://linux.duke.edu/metadata/common" xmlns:rpm="http://linux.duke.edu/metadata/rpm" '
    'packages="{count}">{packages}</metadata>'
)
_RELATIONS = ("provides", "requires", "conflicts", "obsoletes", "recommends", "supplements")
_FLAGS = {"=": "EQ", "<": "LT", ">": "GT", "<=": "LE", ">=": "GE"}


def write_primary(short: str) -> str:
    """Return a primary.xml for paragraphs whose first line is `name [epoch:]version-release [architecture]`.

    The other lines are `Requires: a, b >= 1`, the like for Provides, Conflicts, Obsoletes, Recommends, Supplements and
    Requires(pre); `Files: /bin/a /etc/b`, `Source: name`, `Checksum: type value` and `Location: path`.
    """
    packages = [_package(head, fields) for head, fields in _read(short)]
    return _METADATA.format(count=len(packages), packages="".join(packages))


def write_filelists(short: str) -> str:
    """Return the filelists.xml of the same packages."""
    packages = []
    for head, fields in _read(short):
        name, evr, architecture = _head(head)
        files = "".join(f"<file>{escape(path)}</file>" for path in fields.get("Files", "").split())
        packages.append(
            f"<package pkgid={quoteattr(_checksum(head))} name={quoteattr(name)} arch={quoteattr(architecture)}>"
            f"<version {_evr(evr)}/>{files}</package>"
        )
    return f'<filelists xmlns="http://linux.duke.edu/metadata/filelists">{"".join(packages)}</filelists>'


def write_document(folder, text, name="primary.xml"):
    """Return a document of a repository, compressed as its name says (.gz or not at all)."""
    data = text.encode()
    data = gzip.compress(data, mtime=0) if name.endswith(".gz") else data
    digest = hashlib.sha256(data).hexdigest()
    path = Path(folder) / f"{digest[:12]}-{name}"
    path.write_bytes(data)
    return Document(str(path), digest)


def place(folder, short, archive="base", **settings) -> Placed:
    """Return a repository of a world, with its files in `folder`."""
    primary = write_document(folder, write_primary(short), "primary.xml.gz")
    filelists = write_document(folder, write_filelists(short), "filelists.xml.gz")
    return Placed(archive, "9", primary, **{"filelists": filelists, **settings})


def write_repository(folder, primary, filelists) -> dict[str, Document]:
    """Write a repository that dnf can read; return its documents by type."""
    repodata = Path(folder) / "repodata"
    repodata.mkdir(parents=True)
    documents = {
        "primary": write_document(repodata, primary, "primary.xml.gz"),
        "filelists": write_document(repodata, filelists, "filelists.xml.gz"),
    }
    data = "".join(
        f'<data type="{kind}"><checksum type="sha256">{document.sha256}</checksum>'
        f'<location href="repodata/{os.path.basename(document.path)}"/><timestamp>1</timestamp></data>'
        for kind, document in documents.items()
    )
    (repodata / "repomd.xml").write_text(
        f'<repomd xmlns="http://linux.duke.edu/metadata/repo"><revision>1</revision>{data}</repomd>'
    )
    return documents


def make_universe(folder, *worlds, architecture="x86_64") -> Universe:
    """Return a universe of `worlds`, each the short text or a repository."""
    placed = [place(folder, world) if isinstance(world, str) else world for world in worlds]
    return load_universe(placed, architecture, os.path.join(folder, "cache"))


def _read(short):
    for block in re.split(r"\n\s*\n", short.strip()):
        head, *rest = [line.strip() for line in block.strip().splitlines()]
        yield head, dict(line.split(": ", 1) for line in rest)


def _head(head):
    return [*head.split(), "x86_64"][:3]


def _checksum(head):
    return hashlib.sha256(head.encode()).hexdigest()


def _evr(evr):
    epoch, _, rest = evr.rpartition(":")
    version, _, release = rest.rpartition("-") if "-" in rest else (rest, "", "")
    return f"epoch={quoteattr(epoch or '0')} ver={quoteattr(version)}" + (
        f" rel={quoteattr(release)}" if release else ""
    )


def _package(head, fields):
    name, evr, architecture = _head(head)
    kind, value = fields.get("Checksum", f"sha256 {_checksum(head)}").split()
    file = f"{name}-{evr.rpartition(':')[2]}"
    relations = {kind: _entries(fields.get(kind.capitalize(), "")) for kind in _RELATIONS}
    relations["provides"] = _entries(f"{name} = {evr}") + relations["provides"]
    relations["requires"] += _entries(fields.get("Requires(pre)", ""), ' pre="1"')
    files = "".join(f"<file>{escape(path)}</file>" for path in fields.get("Files", "").split() if in_primary(path))
    return (
        f'<package type="rpm"><name>{escape(name)}</name><arch>{architecture}</arch><version {_evr(evr)}/>'
        f'<checksum type="{kind}" pkgid="YES">{value}</checksum><summary/><description/><packager/><url/>'
        f'<time file="1" build="1"/><size package="1000" installed="2000" archive="3000"/>'
        f"<location href={quoteattr(fields.get('Location', f'Packages/{file}.{architecture}.rpm'))}/>"
        f"<format><rpm:license/><rpm:vendor>Test</rpm:vendor><rpm:group/><rpm:buildhost/>"
        f"<rpm:sourcerpm>{escape(fields.get('Source', file))}.src.rpm</rpm:sourcerpm>"
        + "".join(f"<rpm:{kind}>{entries}</rpm:{kind}>" for kind, entries in relations.items() if entries)
        + f"{files}</format></package>"
    )


def _entries(text, more=""):
    return "".join(_entry(item.strip(), more) for item in text.split(", ") if item.strip())


def _entry(item, more):
    name, *rest = [item] if item.startswith("(") else item.split()
    relation = f' flags="{_FLAGS[rest[0]]}" {_evr(rest[1])}' if rest else ""
    return f"<rpm:entry name={quoteattr(name)}{relation}{more}/>"
