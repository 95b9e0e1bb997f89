"""Small rpm-md repositories, made in process: every kind of metadata, any compression, signed by a throw-away key."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import re
import time
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

import zstandard

DAY = 86400
COMPRESSORS = {
    "": bytes,
    ".gz": lambda data: gzip.compress(data, mtime=0),
    ".xz": lzma.compress,
    ".zst": lambda data: zstandard.ZstdCompressor().compress(data),
    ".bz2": bz2.compress,
}
HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'
SPACES = 'xmlns="http://linux.duke.edu/metadata/{}" xmlns:rpm="http://linux.duke.edu/metadata/rpm"'
FLAGS = {"<": "LT", "<=": "LE", "=": "EQ", ">=": "GE", ">": "GT"}


@dataclass(frozen=True)
class Rpm:
    """A package as metadata describes it; relations are written `name`, `name >= 1:2-3` or `(a if b)`."""

    name: str
    version: str = "1.0"
    release: str = "1"
    epoch: str = "0"
    arch: str = "x86_64"
    provides: tuple = ()
    requires: tuple = ()
    recommends: tuple = ()
    suggests: tuple = ()
    supplements: tuple = ()
    conflicts: tuple = ()
    obsoletes: tuple = ()
    files: tuple = ()
    """Paths; a directory ends in a slash."""
    data: bytes = b""
    """The package file itself."""

    @property
    def nevra(self):
        epoch = "" if self.epoch == "0" else f"{self.epoch}:"
        return f"{self.name}-{epoch}{self.version}-{self.release}.{self.arch}"

    @property
    def href(self):
        return f"Packages/{self.name}-{self.version}-{self.release}.{self.arch}.rpm"

    @property
    def sha256(self):
        return hashlib.sha256(self.data or self.nevra.encode()).hexdigest()


def primary(packages):
    body = "".join(_primary(one) for one in packages)
    return f'{HEAD}<metadata {SPACES.format("common")} packages="{len(packages)}">\n{body}</metadata>\n'.encode()


def filelists(packages):
    body = "".join(f"{_package(one)}{_files(one.files)}</package>\n" for one in packages)
    return f'{HEAD}<filelists {SPACES.format("filelists")} packages="{len(packages)}">\n{body}</filelists>\n'.encode()


def other(packages):
    body = "".join(f"{_package(one)}</package>\n" for one in packages)
    return f'{HEAD}<otherdata {SPACES.format("other")} packages="{len(packages)}">\n{body}</otherdata>\n'.encode()


def group(id_, *, name="", mandatory=(), default=(), optional=(), conditional=()):
    """Return a group of a comps.xml; `conditional` are pairs (name, the package that it comes with)."""
    kinds = {"mandatory": mandatory, "default": default, "optional": optional}
    wanted = [f'<packagereq type="{kind}">{one}</packagereq>' for kind, names in kinds.items() for one in names]
    wanted += [f'<packagereq type="conditional" requires="{with_}">{one}</packagereq>' for one, with_ in conditional]
    return (
        f"<group><id>{id_}</id><name>{escape(name or id_)}</name><packagelist>{''.join(wanted)}</packagelist></group>"
    )


def environment(id_, *groups, name="", optional=()):
    def listed(ids):
        return "".join(f"<groupid>{one}</groupid>" for one in ids)

    lists = f"<grouplist>{listed(groups)}</grouplist><optionlist>{listed(optional)}</optionlist>"
    return f"<environment><id>{id_}</id><name>{escape(name or id_)}</name>{lists}</environment>"


def comps(*parts):
    doctype = "<!DOCTYPE comps PUBLIC '-//Red Hat, Inc.//DTD Comps info//EN' 'comps.dtd'>\n"
    return f"{HEAD}{doctype}<comps>\n{''.join(parts)}\n</comps>\n".encode()


def module(name, stream, artifacts=(), *, version=1, context="c0ffee", requires=None, arch="x86_64", profiles=None):
    """Return a modulemd document; `requires` are modules with their streams."""
    needs = "".join(f"      {one}: [{', '.join(streams)}]\n" for one, streams in (requires or {}).items())
    listed = "".join(f"    - {one}\n" for one in artifacts)
    offered = "".join(f"    {one}:\n      rpms: [{', '.join(names)}]\n" for one, names in (profiles or {}).items())
    return (
        "---\ndocument: modulemd\nversion: 2\ndata:\n"
        f"  name: {name}\n  stream: {stream}\n  version: {version}\n  context: {context}\n  arch: {arch}\n"
        "  summary: Example\n  description: Example\n  license:\n    module: [MIT]\n"
        + (f"  dependencies:\n  - requires:\n{needs}" if needs else "")
        + (f"  profiles:\n{offered}" if offered else "")
        + (f"  artifacts:\n    rpms:\n{listed}" if listed else "")
        + "...\n"
    )


def default(name, stream, *, modified=0):
    return (
        f"---\ndocument: modulemd-defaults\nversion: 1\ndata:\n  module: {name}\n  stream: {stream}\n"
        f"  modified: {modified}\n  profiles:\n    {stream}: [common]\n...\n"
    )


def update(id_, packages=(), *, kind="security", severity="Important", title="", cves=(), bugs=()):
    references = "".join(f'<reference href="https://x.example/{one}" id="{one}" type="cve"/>' for one in cves)
    references += "".join(f'<reference id="{one}" type="bugzilla" title="bug"/>' for one in bugs)
    listed = "".join(
        f"<package name={quoteattr(one.name)} epoch={quoteattr(one.epoch)} version={quoteattr(one.version)} "
        f"release={quoteattr(one.release)} arch={quoteattr(one.arch)}><filename>{one.href}</filename></package>"
        for one in packages
    )
    return (
        f'<update from="x" status="final" type="{kind}" version="1"><id>{id_}</id><title>{escape(title or id_)}</title>'
        f'<issued date="2026-01-02 03:04:05"/><severity>{severity}</severity><references>{references}</references>'
        f"<pkglist><collection><name>x</name>{listed}</collection></pkglist></update>"
    )


def updateinfo(*updates):
    return f"{HEAD}<updates>{''.join(updates)}</updates>\n".encode()


def repomd(files, *, date=None, revision=None, algorithm="sha256", compression=".gz", tags=(), extra=""):
    """Return a repomd.xml and the files it lists, by their paths; `files` are kind to plain bytes.

    `algorithm` is that of the checksums, `date` (seconds) the timestamp of every file, None for a minute ago.
    """
    stamp = int(time.time() - 60 if date is None else date)
    listed, made = "", {}
    for kind, plain in files.items():
        packed = COMPRESSORS[compression](plain)
        ending = "yaml" if kind == "modules" else "xml"
        path = f"repodata/{_digest(algorithm, packed)}-{'comps' if kind == 'group' else kind}.{ending}{compression}"
        made[path] = packed
        listed += (
            f'<data type="{kind}"><checksum type="{algorithm}">{_digest(algorithm, packed)}</checksum>'
            f'<open-checksum type="{algorithm}">{_digest(algorithm, plain)}</open-checksum>'
            f'<location href="{path}"/><timestamp>{stamp}</timestamp>'
            f"<size>{len(packed)}</size><open-size>{len(plain)}</open-size></data>\n"
        )
    told = "".join(f"<content>{one}</content>" for one in tags)
    words = f"<revision>{stamp if revision is None else revision}</revision><tags>{told}</tags>"
    text = f"{HEAD}<repomd {SPACES.format('repo')}>\n{words}\n{listed}{extra}</repomd>\n".encode()
    return text, made


def write_repository(
    folder, key=None, packages=(), *, groups=b"", modules=b"", updates=b"", signed=True, sign=None, **fields
):
    """Write a repository below `folder` (its base) and return its repomd.xml.

    `sign` makes the signature of the repomd.xml's bytes; the key's own by default.
    """
    listed = [*packages]
    files = {"primary": primary(listed), "filelists": filelists(listed), "other": other(listed)}
    files |= {kind: body for kind, body in (("group", groups), ("modules", modules), ("updateinfo", updates)) if body}
    text, made = repomd(files, **fields)
    base = Path(folder)
    made |= {one.href: one.data for one in listed if one.data}
    for path, data in made.items():
        (base / path).parent.mkdir(parents=True, exist_ok=True)
        (base / path).write_bytes(data)
    (base / "repodata/repomd.xml").write_bytes(text)
    (base / "repodata/repomd.xml.asc").unlink(missing_ok=True)
    if key is not None and signed:
        (base / "repodata/repomd.xml.asc").write_bytes((sign or key.detach)(text))
    return text


def metalink(body, bases, *, alternates=(), date=None, hashes=("md5", "sha1", "sha256", "sha512"), preferences=None):
    """Return a metalink of a repomd.xml (`body`) as MirrorManager writes it; `alternates` are older ones."""
    stamp = int(time.time() - 60 if date is None else date)

    def described(data):
        listed = "".join(f'<hash type="{kind}">{_digest(kind, data)}</hash>' for kind in hashes)
        return f"<mm0:timestamp>{stamp}</mm0:timestamp><size>{len(data)}</size><verification>{listed}</verification>"

    older = "".join(f"<mm0:alternate>{described(one)}</mm0:alternate>" for one in alternates)
    values = preferences or [100 - number for number in range(len(bases))]
    urls = "".join(
        f'<url protocol="{base.partition(":")[0]}" location="DE" preference="{value}">{base}/repodata/repomd.xml</url>'
        for base, value in zip(bases, values, strict=True)
    )
    return (
        f'{HEAD}<metalink version="3.0" xmlns="http://www.metalinker.org/" type="dynamic" generator="mirrormanager" '
        f'xmlns:mm0="http://fedorahosted.org/mirrormanager"><files><file name="repomd.xml">{described(body)}'
        f"{'<mm0:alternates>' + older + '</mm0:alternates>' if older else ''}"
        f'<resources maxconnections="1">{urls}</resources></file></files></metalink>\n'
    ).encode()


def _digest(algorithm, data):
    return hashlib.new({"sha": "sha1"}.get(algorithm, algorithm), data).hexdigest()


def _package(one):
    return (
        f'<package pkgid="{one.sha256}" name={quoteattr(one.name)} arch="{one.arch}">'
        f'<version epoch="{one.epoch}" ver="{one.version}" rel="{one.release}"/>'
    )


def _files(paths):
    return "".join(
        f'<file type="dir">{escape(path.rstrip("/"))}</file>' if path.endswith("/") else f"<file>{escape(path)}</file>"
        for path in paths
    )


def _primary(one):
    itself = f"{one.name} = {'' if one.epoch == '0' else one.epoch + ':'}{one.version}-{one.release}"
    relations = {
        "provides": (*one.provides, itself),
        "requires": one.requires,
        "conflicts": one.conflicts,
        "obsoletes": one.obsoletes,
        "recommends": one.recommends,
        "suggests": one.suggests,
        "supplements": one.supplements,
    }
    written = "".join(
        f"<rpm:{kind}>{''.join(map(_entry, listed))}</rpm:{kind}>" for kind, listed in relations.items() if listed
    )
    seen = [path for path in one.files if re.match(r"/etc/|.*bin/|/usr/lib/sendmail$", path)]
    return (
        f'<package type="rpm"><name>{escape(one.name)}</name><arch>{one.arch}</arch>'
        f'<version epoch="{one.epoch}" ver="{one.version}" rel="{one.release}"/>'
        f'<checksum type="sha256" pkgid="YES">{one.sha256}</checksum><summary>x</summary><description>x</description>'
        f'<packager/><url/><time file="1" build="1"/><size package="{len(one.data)}" installed="1000" archive="1100"/>'
        f"<location href={quoteattr(one.href)}/><format><rpm:license>MIT</rpm:license><rpm:group>x</rpm:group>"
        f"<rpm:sourcerpm>{one.name}-{one.version}-{one.release}.src.rpm</rpm:sourcerpm>"
        f'<rpm:header-range start="4504" end="9000"/>{written}{_files(seen)}</format></package>\n'
    )


def _entry(relation):
    found = re.fullmatch(r"(\S+) (<|<=|=|>=|>) (?:(\d+):)?([^-\s]+)(?:-(\S+))?", relation)
    if found is None:
        return f"<rpm:entry name={quoteattr(relation)}/>"
    release = f' rel="{found[5]}"' if found[5] else ""
    return (
        f'<rpm:entry name={quoteattr(found[1])} flags="{FLAGS[found[2]]}" epoch="{found[3] or 0}" '
        f'ver="{found[4]}"{release}/>'
    )
