"""Headers of rpm packages, made in process and taken apart again."""

from __future__ import annotations

import struct

from rootfsbuild.formats.rpm import tags
from rootfsbuild.formats.rpm.header import ENTRY, Type, read_items
from rootfsbuild.formats.rpm.merge import _MERGED, Recorded, installed_header

_LETTERS = {Type.CHAR: "B", Type.INT8: "B", Type.INT16: "H", Type.INT32: "I", Type.INT64: "Q"}
_OTHER = {"PREFIXES": 1098}
"""Tags that the product does not read."""


def make_header(values, *, region=tags.HEADERIMMUTABLE, label="made"):
    """A header of `values`: tag → (type, list of numbers, bytes, string or list of strings); no region if it is 0."""
    index, store = b"", b""
    for tag, (type_, value) in sorted(values.items()):
        data, count, width = _encode(type_, value)
        store += bytes(-len(store) % width)
        index += struct.pack(">IIiI", tag, type_, len(store), count)
        store += data
    count = len(values)
    if region:
        count += 1
        index = struct.pack(">IIiI", region, Type.BIN, len(store), ENTRY) + index
        store += struct.pack(">IIiI", region, Type.BIN, -count * ENTRY, ENTRY)
    return read_items(index + store, count, label, region=region)


def _encode(type_, value):
    if type_ in _LETTERS:
        data = struct.pack(f">{len(value)}{_LETTERS[type_]}", *value)
        return data, len(value), len(data) // len(value)
    if type_ is Type.BIN:
        return value, len(value), 1
    strings = [value] if isinstance(value, str) else value
    return b"".join(text.encode("utf-8", "surrogateescape") + b"\0" for text in strings), len(strings), 1


def text(value):
    return Type.STRING, value


def texts(*values):
    return Type.STRING_ARRAY, list(values)


def numbers(*values):
    return Type.INT32, list(values)


def make_main(name="alpha", version="1.0", release="1", **more):
    """The header of a package; `more` are further values by the names of their tags, None to leave one out."""
    values = {
        "NAME": text(name),
        "VERSION": text(version),
        "RELEASE": text(release),
        "ARCH": text("noarch"),
        "SOURCERPM": text(f"{name}-{version}-{release}.src.rpm"),
        **more,
    }
    numbered = {_OTHER.get(key) or getattr(tags, key): value for key, value in values.items() if value is not None}
    return make_header(numbered, label=name)


def make_signature(**more):
    values = {"SHA1HEADER": text("ab" * 20), "SIG_MD5": (Type.BIN, b"m" * 16), **more}
    values = {getattr(tags, key): value for key, value in values.items()}
    return make_header(values, region=tags.HEADERSIGNATURES, label="signature")


def make_recorded(main=None, signature=None, states=b""):
    return Recorded(signature or make_signature(), main or make_main(), states, color=3, time=1_700_000_000, tid=7)


def take_apart(blob):
    """The record of a database as it must have been before it was merged."""
    whole = installed_header(blob, "database")
    end = whole.items[0].offset + ENTRY
    main = read_items(whole.data[: whole.region * ENTRY] + whole.store[:end], whole.region, whole.text(tags.NAME))
    old = {new: tag for tag, (new, _) in _MERGED.items()}
    index, store = b"", b""
    for item in whole.items[whole.region :]:
        if item.tag in old:
            store += bytes(-len(store) % 8)
            index += struct.pack(">IIiI", old[item.tag], item.type, len(store), item.count)
            store += whole.raw(item)
    signature = read_items(index + store, len(index) // ENTRY, "signature")
    states = whole.raw(whole.by_tag[tags.FILESTATES]) if tags.FILESTATES in whole else b""
    installed = (whole.number(tag) for tag in (tags.INSTALLCOLOR, tags.INSTALLTIME, tags.INSTALLTID))
    return Recorded(signature, main, states, *installed)
