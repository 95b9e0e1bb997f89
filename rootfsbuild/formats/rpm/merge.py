"""The header that rpm's database keeps of a package: its own one, the signatures, and what the installation adds.

What came with the package stays one region, byte for byte, so that its signature can still be verified. The rest
follows as single entries in the order of their tags (rpm's format documentation, "Header"; rpm's xlateTags and
headerExport).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from rootfsbuild.errors import PackageError
from rootfsbuild.formats.rpm import tags
from rootfsbuild.formats.rpm.header import ENTRY, MAGIC, Header, Item, Type, read_items

_FILESIGNATURES, _FILESIGNATURELENGTH, _VERITYSIGNATUREALGO, _SHA3_256HEADER = 274, 275, 277, 279
_PREFIXES, _PACKAGEDIGESTS, _PACKAGEDIGESTALGOS = 1098, 5118, 5119

_MERGED: Mapping[int, tuple[int, Type]] = {
    tags.DSAHEADER: (tags.DSAHEADER, Type.BIN),
    tags.RSAHEADER: (tags.RSAHEADER, Type.BIN),
    tags.SHA1HEADER: (tags.SHA1HEADER, Type.STRING),
    tags.LONGSIGSIZE: (tags.LONGSIGSIZE, Type.INT64),
    tags.LONGARCHIVESIZE: (tags.LONGARCHIVESIZE, Type.INT64),
    tags.SHA256HEADER: (tags.SHA256HEADER, Type.STRING),
    _FILESIGNATURES: (_FILESIGNATURES, Type.STRING_ARRAY),
    _FILESIGNATURELENGTH: (_FILESIGNATURELENGTH, Type.INT32),
    tags.VERITYSIGNATURES: (tags.VERITYSIGNATURES, Type.STRING_ARRAY),
    _VERITYSIGNATUREALGO: (_VERITYSIGNATUREALGO, Type.INT32),
    tags.OPENPGP: (tags.OPENPGP, Type.STRING_ARRAY),
    _SHA3_256HEADER: (_SHA3_256HEADER, Type.STRING),
    tags.SIG_SIZE: (tags.SIGSIZE, Type.INT32),
    tags.SIG_PGP: (tags.SIGPGP, Type.BIN),
    tags.SIG_MD5: (tags.SIGMD5, Type.BIN),
    tags.SIG_GPG: (tags.SIGGPG, Type.BIN),
    tags.SIG_PAYLOADSIZE: (tags.ARCHIVESIZE, Type.INT32),
}
"""Tag in the signature header -> tag in the database's header and its type. Others are dropped: the space that is
reserved for signatures (1008) would even be taken for the time of installation."""
_IN_EITHER = frozenset({tags.ARCHIVESIZE, _FILESIGNATURES, _FILESIGNATURELENGTH})
"""Those that the package's own header may have instead."""

_ALIGNMENTS = {Type.INT16: 2, Type.INT32: 4, Type.INT64: 8}


@dataclass(frozen=True)
class Recorded:
    """One package as it was installed."""

    signature: Header
    """The header of its signatures and digests."""
    main: Header
    """Its own header."""
    states: bytes
    """A byte for each file: 0 normal, 1 replaced, 2 not installed, 3 on a shared file system, 4 of the wrong colour."""
    color: int
    """The ELF colours that the root's architecture knows: 3 on x86_64, 0 where there is but one."""
    time: int
    """When it was installed, seconds since 1970.

    With SOURCE_DATE_EPOCH rpm takes that for the first package of a transaction and a second more for each other.
    """
    tid: int
    """Which transaction it was installed by: when that began, seconds since 1970."""
    digests: Sequence[tuple[int, str]] = ()
    """Digests of its whole file: OpenPGP's number of the algorithm (8: SHA-256), lower-case hexadecimal.

    rpm keeps them from version 6 on, with the algorithms that its macro _pkgverify_digests names.
    """


@dataclass(frozen=True)
class _Value:
    """One entry behind the region."""

    tag: int
    type: Type
    count: int
    data: bytes


def merge(recorded: Recorded) -> bytes:
    """Return what rpm's database keeps of a package: number of entries, length of the store, index, store.

    Raises PackageError for headers that rpm would not have installed either.
    """
    return pack(merge_headers(recorded))


def merge_headers(recorded: Recorded) -> Header:
    """Return the header that rpm's database keeps of a package; raises PackageError as `merge` does."""
    main = recorded.main
    _check_main(main)
    if len(recorded.states) != len(main.strings(tags.BASENAMES)):
        raise PackageError(main.label, f"{len(recorded.states)} file states do not fit its files")
    values = sorted((*_signatures(recorded), *_added(recorded)), key=lambda value: value.tag)
    for value in values:
        if value.tag in main:
            raise PackageError(main.label, f"tag {value.tag} is in the header, where an installation puts its own")
    return _join(main, values)


def pack(header: Header) -> bytes:
    """Return a header as rpm's database keeps it: without magic."""
    return header.intro[len(MAGIC) :] + header.data


def installed_header(blob: bytes, label: str) -> Header:
    """Return the header that is kept in a record of rpm's database; raises PackageError."""
    if len(blob) < 8:
        raise PackageError(label, "the record in rpm's database is truncated")
    count, size = struct.unpack_from(">II", blob)
    if not count or len(blob) != 8 + count * ENTRY + size:
        raise PackageError(label, "the record in rpm's database has another length than it says")
    return read_items(blob[8:], count, label)


def _check_main(main: Header) -> None:
    if main.region != len(main.items) or main.items[0].offset + ENTRY != len(main.store):
        raise PackageError(main.label, "the header is not one region, so rpm's database cannot keep it")
    for tag in (tags.NAME, tags.VERSION, tags.RELEASE):
        if tag not in main:
            raise PackageError(main.label, f"the header has no tag {tag}, so rpm's database cannot keep it")
    for tag, _ in _MERGED.values():
        # Whoever reads the database would take it for what was verified.
        if tag in main and tag not in _IN_EITHER:
            raise PackageError(main.label, f"the header has the tag {tag}, which belongs to its signatures")


def _signatures(recorded: Recorded) -> Iterator[_Value]:
    signature = recorded.signature
    for item in signature.items:
        tag, type_ = _MERGED.get(item.tag, (0, item.type))
        if item.type is not type_:
            raise PackageError(signature.label, f"the signature header's tag {item.tag} is of type {item.type}")
        if tag:
            yield _Value(tag, item.type, item.count, signature.raw(item))


def _added(recorded: Recorded) -> Iterator[_Value]:
    main = recorded.main
    for tag, number in (
        (tags.INSTALLTIME, recorded.time),
        (tags.INSTALLCOLOR, recorded.color),
        (tags.INSTALLTID, recorded.tid),
    ):
        yield _Value(tag, Type.INT32, 1, struct.pack(">I", number))
    if recorded.states:
        yield _Value(tags.FILESTATES, Type.CHAR, len(recorded.states), recorded.states)
    if recorded.digests:
        count = len(recorded.digests)
        algorithms, digests = zip(*recorded.digests, strict=True)
        yield _Value(_PACKAGEDIGESTS, Type.STRING_ARRAY, count, "".join(f"{digest}\0" for digest in digests).encode())
        yield _Value(_PACKAGEDIGESTALGOS, Type.INT32, count, struct.pack(f">{count}I", *algorithms))
    prefixes = main.by_tag.get(_PREFIXES)
    if prefixes is not None:
        # Nothing is relocated here, so a package is installed below the prefixes that it was built for.
        yield _Value(tags.INSTPREFIXES, prefixes.type, prefixes.count, main.raw(prefixes))
    if tags.SOURCERPM not in main and tags.SOURCEPACKAGE not in main:
        # By one of the two rpm tells binary packages from source ones.
        yield _Value(tags.SOURCERPM, Type.STRING, 1, b"(none)\0")


def _join(main: Header, values: Iterable[_Value]) -> Header:
    items = list(main.items)
    store = bytearray(main.store)
    for value in values:
        store += bytes(-len(store) % _ALIGNMENTS.get(value.type, 1))
        items.append(Item(value.tag, value.type, len(store), value.count, len(value.data)))
        store += value.data
    index = b"".join(struct.pack(">IIiI", item.tag, item.type, item.offset, item.count) for item in items)
    return Header(main.label, index + bytes(store), tuple(items), main.region)
