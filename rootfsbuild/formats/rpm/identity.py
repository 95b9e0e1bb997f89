"""Whether a package is the one that the metadata spoke of: a good signature alone does not say which it is."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from rootfsbuild.errors import UntrustedError
from rootfsbuild.formats.rpm import tags
from rootfsbuild.formats.rpm.version import join_evr

if TYPE_CHECKING:
    from rootfsbuild.formats.rpm.files import File
    from rootfsbuild.formats.rpm.header import Header
    from rootfsbuild.plan import Package

_REQUIRED = ("Requires", "Requires(pre)")
_SHOWN = 5


def check_identity(header: Header, files: Iterable[File], package: Package) -> None:
    """Compare a package with what the metadata promised; UntrustedError (rule `mismatch`) names what differs.

    Name, epoch, version, release and architecture must be equal. The names in Provides and Requires must be the
    same, but for what createrepo leaves out of the metadata: rpm's own features (`rpmlib(…)`), what the package
    provides itself, and all but the latest version of glibc. A plan that says nothing of a package's relations
    (every package provides itself) promises nothing of them.
    """
    said = (header.text(tags.NAME), evr_of(header), header.text(tags.ARCH))
    promised = (package.name, package.version, package.architecture)
    for what, here, there in zip(("name", "version", "architecture"), said, promised, strict=True):
        if here != there:
            raise _mismatch(package, f"its header says {what} {here!r}, the metadata {there!r}")
    if package.control:
        _check_relations(header, files, package)


def evr_of(header: Header) -> str:
    """Return `[epoch:]version-release` as a plan has it."""
    return join_evr(header.number(tags.EPOCH), header.text(tags.VERSION), header.text(tags.RELEASE))


def _check_relations(header: Header, files: Iterable[File], package: Package) -> None:
    provided, required = _names(header, tags.PROVIDENAME), _names(header, tags.REQUIRENAME)
    # libsolv adds the name where a package does not provide it.
    _compare(package, "provides", provided | {package.name}, _promised(package, "Provides") | {package.name})
    wanted = {name for field in _REQUIRED for name in _promised(package, field)}
    own = provided | {f"/{file.path.decode('utf-8', 'surrogateescape')}" for file in files}
    omitted = {name for name in required if name.startswith("rpmlib(") or name in own}
    if any(name.startswith("libc.so.6") for name in wanted):
        omitted |= {name for name in required if name.startswith("libc.so.6")}
    _compare(package, "requires", required - (omitted - wanted), wanted)


def _compare(package: Package, verb: str, here: set[str], there: set[str]) -> None:
    for names, known, unknown in ((here - there, "header", "metadata"), (there - here, "metadata", "header")):
        if names:
            some = ", ".join(sorted(names)[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
            raise _mismatch(package, f"by its {known}, but not by its {unknown}, it {verb} {some}")


def _names(header: Header, tag: int) -> set[str]:
    return {_plain(name.decode("utf-8", "surrogateescape")) for name in header.strings(tag)}


def _promised(package: Package, field: str) -> set[str]:
    return {_plain(relation) for relation in package.field(field).split(", ") if relation}


def _plain(relation: str) -> str:
    """Return the name in a relation, or the words of a rich one, whose parentheses libsolv writes in its own way."""
    if relation.startswith("("):
        return " ".join(re.sub(r"[()]", " ", relation).split())
    return relation.partition(" ")[0]


def _mismatch(package: Package, problem: str) -> UntrustedError:
    hint = "the repository's metadata may have been made from other packages than it serves"
    return UntrustedError(package.name, "mismatch", problem, hint=hint)
