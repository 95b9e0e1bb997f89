"""What is installed in a root, read from dpkg's database (dpkg(1) FILES, deb-control(5), dpkg-query(1)).

Images without dpkg keep a file for each package in status.d instead. A root is not trusted: it is read through its
own links only, within bounds, and what dpkg would not have written is refused.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator

from rootfsbuild.errors import PackageError, UsageError
from rootfsbuild.formats.deb.database import ADMIN
from rootfsbuild.formats.deb.version import is_valid
from rootfsbuild.listed import Listed
from rootfsbuild.rootfs.inside import Inside
from rootfsbuild.rootfs.openat2 import open_inside

_STATUS = f"{ADMIN}/status"
_PARTS = f"{ADMIN}/status.d"
_LIMIT = 64 << 20
"""Most bytes of all files together; a desktop of 3,000 packages has 4 MB."""

_FIELD = re.compile(r"([!-,.-9;-~][!-9;-~]*):[ \t]*(.*)")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._-]*")
_ARCHITECTURE = re.compile(r"[a-z0-9][a-z0-9-]*")
_SOURCE = re.compile(r"([A-Za-z0-9][A-Za-z0-9+._-]*)(?: +\(([^() ]+)\))?")
# Triggers are work that remains to be done for a package that is configured.
_INSTALLED = frozenset({"installed", "triggers-awaited", "triggers-pending"})

Fields = dict[str, tuple[int, str]]
"""Field name in lower case -> (line, from 1; first line of its value)."""


def installed(root: str) -> tuple[Listed, ...]:
    """Return the packages that a root directory has installed, sorted by name and architecture.

    Those that are only configuration files or half installed are not among them; one on hold is. Raises UsageError
    for what is no directory, PackageError for a root without dpkg's database and, with the line, for a malformed one.
    """
    try:
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(f"{root}: {error.strerror}") from None
    try:
        return _installed(Inside(descriptor), root)
    finally:
        os.close(descriptor)


def _installed(inside: Inside, root: str) -> tuple[Listed, ...]:
    found: dict[tuple[str, str], Listed] = {}
    for path, text in _files(inside, root):
        lone = path != _STATUS
        for fields in _paragraphs(text, root, path):
            package = _listed(fields, root, path, lone=lone)
            if package is None:
                continue
            key = package.name, package.architecture
            if key in found:
                raise _malformed(root, path, fields["package"][0], f"{package.name} is there twice")
            found[key] = package
    return tuple(found[key] for key in sorted(found))


def _files(inside: Inside, root: str) -> Iterator[tuple[str, str]]:
    """Yield the path and the text of each file that describes packages."""
    left = _LIMIT
    is_there = False
    for path in (_STATUS, *_parts(inside, root)):
        data = _read(inside, root, path, left)
        if data is None:
            continue
        left -= len(data)
        is_there = True
        yield path, data.decode("utf-8", "surrogateescape")
    if not is_there:
        raise PackageError(root, "there is no such file, so it is no root that dpkg knows", _STATUS)


def _parts(inside: Inside, root: str) -> list[str]:
    try:
        return [f"{_PARTS}/{name}" for name in inside.names(_PARTS) if not name.endswith(".md5sums")]
    except OSError as error:
        raise PackageError(root, error.strerror or str(error), _PARTS) from None


def _read(inside: Inside, root: str, path: str, limit: int) -> bytes | None:
    """Return the bytes of a regular file, None if there is none; never more than `limit`."""
    try:
        descriptor = open_inside(inside.descriptor, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ENOTDIR}:
            return None
        raise PackageError(root, error.strerror or str(error), path) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise PackageError(root, "it is not a regular file", path)
    with open(descriptor, "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise PackageError(root, f"dpkg's database is larger than {_LIMIT} bytes", path)
    return data


def _paragraphs(text: str, root: str, path: str) -> Iterator[Fields]:
    fields: Fields = {}
    name = ""
    for number, line in enumerate(text.split("\n"), 1):
        if not line:
            if fields:
                yield fields
            fields, name = {}, ""
        elif line[0] in " \t":
            if not name:
                raise _malformed(root, path, number, "it continues a field, and there is none")
        else:
            match = _FIELD.fullmatch(line)
            name = match[1].lower() if match else ""
            if match is None or name in fields:
                problem = "it is no field" if match is None else f"the field {match[1]} is there twice"
                raise _malformed(root, path, number, problem)
            fields[name] = number, match[2].rstrip()
    if fields:
        yield fields


def _listed(fields: Fields, root: str, path: str, *, lone: bool) -> Listed | None:
    """Return the package of a paragraph, None if it is not installed; in status.d all are that have no Status."""
    if not lone or "status" in fields:
        words = _value(fields, "status", root, path).split()
        if len(words) != 3:
            raise _malformed(root, path, fields["status"][0], "a Status is three words")
        if words[1] != "ok" or words[2] not in _INSTALLED:
            return None
    name = _value(fields, "package", root, path, _NAME)
    version = _value(fields, "version", root, path)
    if not is_valid(version):
        raise _malformed(root, path, fields["version"][0], f"{version!r} is no version")
    architecture = _value(fields, "architecture", root, path, _ARCHITECTURE)
    source = _SOURCE.fullmatch(_value(fields, "source", root, path, _SOURCE)) if "source" in fields else None
    size = (
        _value(fields, "installed-size", root, path, re.compile(r"[0-9]{1,15}")) if "installed-size" in fields else "0"
    )
    return Listed(
        name,
        version,
        architecture,
        source[1] if source else name,
        (source[2] if source else None) or version,
        int(size) * 1024,
    )


def _value(fields: Fields, name: str, root: str, path: str, form: re.Pattern[str] | None = None) -> str:
    if name not in fields:
        line = min(line for line, _ in fields.values())
        raise _malformed(root, path, line, f"the paragraph has no field {name.title()}")
    line, value = fields[name]
    if form is not None and form.fullmatch(value) is None:
        raise _malformed(root, path, line, f"{name.title()} cannot be {value!r}")
    return value


def _malformed(root: str, path: str, line: int, problem: str) -> PackageError:
    return PackageError(root, f"line {line}: {problem}", path)
