"""Debian packages made in process, honest and otherwise (deb(5))."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma

from making.tars import File, make_tar, tree_members

_DEFAULTS = {
    "Package": "example",
    "Version": "1.0-1",
    "Architecture": "all",
    "Maintainer": "Nobody <nobody@example.org>",
    "Description": "a package made by a test",
}


def make_deb(path, control=None, files=None, scripts=None, conffiles=(), *, compression="xz", control_files=None):
    """Write a package to `path` and return its bytes.

    `control`: fields over the defaults; `files`: path → bytes or a value of making.tars; `scripts`: name → text;
    `control_files`: further members of the control archive, name → bytes.
    """
    fields = {**_DEFAULTS, **(control or {})}
    data = make_tar(tree_members(files or {}))
    blob = make_raw_deb(data, make_control(fields, scripts, conffiles, control_files), compression)
    with open(path, "wb") as file:
        file.write(blob)
    return blob


def make_control(fields, scripts=None, conffiles=(), others=None):
    """The bytes of a control.tar."""
    members = {"control": "".join(f"{key}: {value}\n" for key, value in fields.items()).encode()}
    if conffiles:
        members["conffiles"] = "".join(f"{line}\n" for line in conffiles).encode()
    members |= {name: File(text.encode(), 0o755) for name, text in (scripts or {}).items()}
    members |= others or {}
    return make_tar(tree_members(members))


def make_raw_deb(data, control=None, compression="xz"):
    """A package around the bytes of a data.tar."""
    control = make_control(_DEFAULTS) if control is None else control
    suffix = f".{compression}" if compression else ""
    control_suffix = suffix if compression in {"gz", "xz", "zst", ""} else ".gz"
    return make_ar(
        [
            ("debian-binary", b"2.0\n"),
            ("control.tar" + control_suffix, compress(control, control_suffix.lstrip("."))),
            ("data.tar" + suffix, compress(data, compression)),
        ]
    )


def make_ar(members, *, sizes=None):
    """An ar archive; `sizes` maps a member's name to the ten bytes that its size field shall hold."""
    out = [b"!<arch>\n"]
    for name, data in members:
        size = (sizes or {}).get(name, b"%d" % len(data)).ljust(10)
        out.append(b"%-16s%-12d%-6d%-6d%-8o" % (name.encode(), 0, 0, 0, 0o100644) + size + b"`\n" + data)
        out.append(b"\n" * (len(data) % 2))
    return b"".join(out)


def compress(data, compression):
    if compression == "gz":
        return gzip.compress(data, mtime=0)
    if compression == "xz":
        return lzma.compress(data, preset=0)
    if compression == "lzma":
        return lzma.compress(data, format=lzma.FORMAT_ALONE, preset=0)
    if compression == "bz2":
        return bz2.compress(data)
    if compression == "zst":
        import zstandard

        return zstandard.ZstdCompressor(write_checksum=True).compress(data)
    return data


def sha256(blob):
    return hashlib.sha256(blob).hexdigest()
