"""A repository's metadata of our own making: what the headers of its packages say, as createrepo_c writes it.

Written here, as that is two hundred lines; createrepo_c's wheel has eleven megabytes and one build for each Python.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

from rootfsbuild.formats.rpm import tags
from rootfsbuild.formats.rpm.archive import open_rpm
from rootfsbuild.formats.rpm.files import File
from rootfsbuild.formats.rpm.header import Header
from rootfsbuild.formats.rpm.identity import check_identity
from rootfsbuild.formats.rpm.metadata import in_primary
from rootfsbuild.formats.rpm.signature import Head
from rootfsbuild.formats.rpm.version import split_evr
from rootfsbuild.plan import Package

_HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'
_SPACE = "http://linux.duke.edu/metadata"
_DESCRIPTION, _BUILDHOST, _PACKAGER, _URL = 1005, 1007, 1015, 1020
_CHANGELOGTIME, _CHANGELOGNAME, _CHANGELOGTEXT = 1080, 1081, 1082
_CHANGES = 10
"""How many entries of a changelog createrepo_c takes over."""
_FLAGS = {2: "LT", 4: "GT", 8: "EQ", 10: "LE", 12: "GE"}
_COMPARISON = 0xF
_PREREQUISITE = 1 << 6 | 1 << 9 | 1 << 10
"""RPMSENSE_PREREQ, _SCRIPT_PRE and _SCRIPT_POST."""
_RELATIONS = (
    ("provides", tags.PROVIDENAME, tags.PROVIDEFLAGS, tags.PROVIDEVERSION),
    ("requires", tags.REQUIRENAME, tags.REQUIREFLAGS, tags.REQUIREVERSION),
    ("conflicts", tags.CONFLICTNAME, tags.CONFLICTFLAGS, tags.CONFLICTVERSION),
    ("obsoletes", tags.OBSOLETENAME, tags.OBSOLETEFLAGS, tags.OBSOLETEVERSION),
    ("suggests", tags.SUGGESTNAME, tags.SUGGESTFLAGS, tags.SUGGESTVERSION),
    ("enhances", tags.ENHANCENAME, tags.ENHANCEFLAGS, tags.ENHANCEVERSION),
    ("recommends", tags.RECOMMENDNAME, tags.RECOMMENDFLAGS, tags.RECOMMENDVERSION),
    ("supplements", tags.SUPPLEMENTNAME, tags.SUPPLEMENTFLAGS, tags.SUPPLEMENTVERSION),
)
_NO_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")


@dataclass(frozen=True)
class Described:
    """One package, in the words of each of the three files."""

    primary: str
    filelists: str
    other: str


@dataclass(frozen=True)
class Listed:
    """One file that a repomd.xml is to list."""

    type: str
    name: str
    """What stands behind its digest in the file's name: `primary.xml.gz`."""
    data: bytes
    plain: bytes | None
    """Without its compression, None if it is not known."""

    @property
    def path(self) -> str:
        """Return where it lies, below the repository's base: its name tells its content, so that caches cannot mix."""
        return f"repodata/{hashlib.sha256(self.data).hexdigest()}-{self.name}"


def describe_package(package: Package, file: str, date: int) -> Described:
    """Read a package and say what metadata say of it; `date` is the time of its file, in seconds since the epoch.

    Raises PackageError, and UntrustedError for a package that is not the one that the plan means.
    """
    rpm = open_rpm(file, package.name)
    try:
        check_identity(rpm.header, rpm.files, package)
        head, files = rpm.head, rpm.files
    finally:
        os.close(rpm.fd)
    evr = split_evr(package.version)
    version = f"<version epoch={_quoted(str(evr.epoch))} ver={_quoted(evr.version)} rel={_quoted(evr.release)}/>"
    lead = (
        f"<package pkgid={_quoted(package.sha256)} name={_quoted(package.name)} arch={_quoted(package.architecture)}>"
    )
    return Described(
        _describe_primary(package, version, head, files, date),
        "\n".join([lead, f"  {version}", *map(_write_file, files), "</package>\n"]),
        "\n".join([lead, f"  {version}", *_write_changes(head.header), "</package>\n"]),
    )


def write_metadata(described: Sequence[Described]) -> tuple[Listed, ...]:
    """Return primary, filelists and other of some packages, in their order."""
    count = len(described)
    primary = "".join(one.primary for one in described)
    spaces = f'xmlns="{_SPACE}/common" xmlns:rpm="{_SPACE}/rpm"'
    texts = {
        "primary": f'<metadata {spaces} packages="{count}">\n{primary}</metadata>\n',
        "filelists": _wrap("filelists", "filelists", count, (one.filelists for one in described)),
        "other": _wrap("otherdata", "other", count, (one.other for one in described)),
    }
    return tuple(_pack(kind, (_HEAD + text).encode()) for kind, text in texts.items())


def write_repomd(listed: Sequence[Listed], date: int) -> bytes:
    """Return the document that proves all others."""
    data = "".join(_write_data(one, date) for one in listed)
    spaces = f'xmlns="{_SPACE}/repo" xmlns:rpm="{_SPACE}/rpm"'
    return f"{_HEAD}<repomd {spaces}>\n  <revision>{date}</revision>\n{data}</repomd>\n".encode()


def _wrap(element: str, space: str, count: int, packages: Iterable[str]) -> str:
    return f'<{element} xmlns="{_SPACE}/{space}" packages="{count}">\n{"".join(packages)}</{element}>\n'


def _pack(kind: str, plain: bytes) -> Listed:
    # gzip.compress writes another header from one Python to the next.
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return Listed(kind, f"{kind}.xml.gz", packer.compress(plain) + packer.flush(), plain)


def _write_data(one: Listed, date: int) -> str:
    digest = hashlib.sha256(one.data).hexdigest()
    lines = [f'  <data type={_quoted(one.type)}>\n    <checksum type="sha256">{digest}</checksum>']
    if one.plain is not None:
        lines.append(f'    <open-checksum type="sha256">{hashlib.sha256(one.plain).hexdigest()}</open-checksum>')
    lines.append(f"    <location href={_quoted(one.path)}/>\n    <timestamp>{date}</timestamp>")
    lines.append(f"    <size>{len(one.data)}</size>")
    if one.plain is not None:
        lines.append(f"    <open-size>{len(one.plain)}</open-size>")
    return "\n".join([*lines, "  </data>\n"])


def _describe_primary(package: Package, version: str, head: Head, files: Sequence[File], date: int) -> str:
    header = head.header
    installed = header.number(tags.LONGSIZE) or header.number(tags.SIZE)
    payload = (
        head.signature.number(tags.LONGARCHIVESIZE)
        or head.signature.number(tags.SIG_PAYLOADSIZE)
        or header.number(tags.ARCHIVESIZE)
    )
    start = head.start - len(head.signed)
    listed = [file for file in files if in_primary(_path(file))]
    return "\n".join(
        [
            '<package type="rpm">',
            f"  <name>{_text(package.name)}</name>",
            f"  <arch>{_text(package.architecture)}</arch>",
            f"  {version}",
            f'  <checksum type="sha256" pkgid="YES">{package.sha256}</checksum>',
            *(_write_text(name, header, tag) for name, tag in _WORDS),
            f'  <time file="{date}" build="{header.number(tags.BUILDTIME)}"/>',
            f'  <size package="{package.size}" installed="{installed}" archive="{payload}"/>',
            f"  <location href={_quoted(package.filename)}/>",
            "  <format>",
            *(_write_text(f"rpm:{name}", header, tag) for name, tag in _FORMAT),
            f'    <rpm:header-range start="{start}" end="{head.start}"/>',
            *(line for relation in _RELATIONS for line in _write_relations(header, *relation)),
            *map(_write_file, listed),
            "  </format>",
            "</package>\n",
        ]
    )


_WORDS = (("summary", tags.SUMMARY), ("description", _DESCRIPTION), ("packager", _PACKAGER), ("url", _URL))
_FORMAT = (
    ("license", tags.LICENSE),
    ("vendor", tags.VENDOR),
    ("group", tags.GROUP),
    ("buildhost", _BUILDHOST),
    ("sourcerpm", tags.SOURCERPM),
)


def _write_text(name: str, header: Header, tag: int) -> str:
    found = header.strings(tag)
    text = _text(_decode(found[0])) if found else ""
    return f"  <{name}>{text}</{name}>" if text else f"  <{name}/>"


def _write_relations(header: Header, kind: str, names: int, flags: int, versions: int) -> Iterator[str]:
    columns = zip(header.strings(names), header.numbers(flags), header.strings(versions), strict=True)
    entries = dict.fromkeys(
        _write_entry(_decode(name), flag, _decode(version), prerequisite=kind == "requires" and flag & _PREREQUISITE)
        for name, flag, version in columns
        # What rpm itself must be able to do is no package.
        if not name.startswith(b"rpmlib(")
    )
    if entries:
        yield from (f"    <rpm:{kind}>", *entries, f"    </rpm:{kind}>")


def _write_entry(name: str, flags: int, version: str, *, prerequisite: int | bool) -> str:
    words = f"      <rpm:entry name={_quoted(name)}"
    operator = _FLAGS.get(flags & _COMPARISON)
    if operator and version:
        evr = split_evr(version)
        words += f" flags={_quoted(operator)} epoch={_quoted(str(evr.epoch))} ver={_quoted(evr.version)}"
        words += f" rel={_quoted(evr.release)}" if evr.release else ""
    return words + (' pre="1"/>' if prerequisite else "/>")


def _write_file(file: File) -> str:
    kind = ' type="ghost"' if file.ghost else ' type="dir"' if stat.S_ISDIR(file.mode) else ""
    return f"    <file{kind}>{_text(_path(file))}</file>"


def _write_changes(header: Header) -> Iterator[str]:
    columns = (header.numbers(_CHANGELOGTIME), header.strings(_CHANGELOGNAME), header.strings(_CHANGELOGTEXT))
    changes = list(zip(*columns, strict=True))[:_CHANGES]
    for when, author, text in reversed(changes):
        told = _text(_decode(text))
        yield f'  <changelog author={_quoted(_decode(author))} date="{when}">{told}</changelog>'


def _path(file: File) -> str:
    return "/" + _decode(file.path)


def _decode(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _text(text: str) -> str:
    return escape(_NO_XML.sub("", text))


def _quoted(text: str) -> str:
    return quoteattr(_NO_XML.sub("", text))
