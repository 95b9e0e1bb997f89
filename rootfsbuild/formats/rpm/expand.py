"""What stands for something else in a scriptlet's text: macros, and a query format's names of tags.

Of macros only those are known that name the usual directories (rpm's own `macros` file) and those that a Lua
scriptlet has defined itself: `%(shell)`, `%[expression]` and `%{lua:}` stay as they are, as does every unknown name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from itertools import takewhile

from rootfsbuild.errors import PackageError
from rootfsbuild.formats.rpm import tags
from rootfsbuild.formats.rpm.header import Header
from rootfsbuild.formats.rpm.scriptlets import Flag, Scriptlet

_DEPTH = 16
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DIRECTORIES = {
    "_prefix": "/usr",
    "_usr": "/usr",
    "_var": "/var",
    "_exec_prefix": "%{_prefix}",
    "_bindir": "%{_exec_prefix}/bin",
    "_sbindir": "%{_exec_prefix}/sbin",
    "_libexecdir": "%{_exec_prefix}/libexec",
    "_libdir": "%{_exec_prefix}/%{_lib}",
    "_datadir": "%{_prefix}/share",
    "_includedir": "%{_prefix}/include",
    "_mandir": "%{_datadir}/man",
    "_infodir": "%{_datadir}/info",
    "_defaultdocdir": "%{_datadir}/doc",
    "_sysconfdir": "/etc",
    "_localstatedir": "/var",
    "_sharedstatedir": "/var/lib",
    "_rundir": "/run",
    "_tmppath": "%{_var}/tmp",
    "nil": "",
}
_WIDE = frozenset({"x86_64", "aarch64", "ppc64le", "ppc64", "s390x", "sparc64", "mips64el"})


def default_macros(architecture: str) -> dict[str, str]:
    """Return the macros that are known from the start."""
    return {**_DIRECTORIES, "_lib": "lib64" if architecture in _WIDE else "lib", "_arch": architecture}


def expand_macros(text: str, macros: Mapping[str, str], depth: int = 0) -> str:
    """Replace `%name`, `%{name}`, `%{?name:text}` and `%{!?name:text}`; what is not known stays as it is."""
    if "%" not in text or depth > _DEPTH:
        return text
    result: list[str] = []
    at = 0
    while (found := text.find("%", at)) >= 0:
        result.append(text[at:found])
        value, at = _expand_one(text, found, macros, depth)
        result.append(value)
    return "".join(result) + text[at:]


def _expand_one(text: str, at: int, macros: Mapping[str, str], depth: int) -> tuple[str, int]:
    """Return what the percent sign at `at` begins, and where it ends."""
    if text.startswith("%%", at):
        return "%", at + 2
    if text.startswith("%{", at):
        end = _closing(text, at + 2)
        if end < 0:
            return text[at:], len(text)
        known = _expand_braced(text[at + 2 : end], macros, depth)
        return (text[at : end + 1] if known is None else known), end + 1
    name = _NAME.match(text, at + 1)
    if name and name[0] in macros:
        return expand_macros(macros[name[0]], macros, depth + 1), name.end()
    return "%", at + 1


def _closing(text: str, at: int) -> int:
    depth = 1
    for place in range(at, len(text)):
        depth += (text[place] == "{") - (text[place] == "}")
        if not depth:
            return place
    return -1


def _expand_braced(inner: str, macros: Mapping[str, str], depth: int) -> str | None:
    marks = "".join(takewhile(lambda letter: letter in "!?", inner))
    name, colon, rest = inner[len(marks) :].partition(":")
    if not _NAME.fullmatch(name) or (colon and "?" not in marks):
        return None
    known = name in macros
    if "?" not in marks:
        return expand_macros(macros[name], macros, depth + 1) if known else None
    if known == (marks.count("!") % 2 == 1):
        return ""
    return expand_macros(rest if colon else macros.get(name, ""), macros, depth + 1)


def expand_scriptlet(scriptlet: Scriptlet, header: Header, architecture: str) -> bytes | None:
    """Return a scriptlet's text as it is to run: macros first, then the query format, where its flags ask for them.

    `architecture` is that of the root, which a package for all architectures does not know.
    Raises PackageError for a query format that is malformed or asks for what is not known here.
    """
    body = scriptlet.body
    if body is None or not scriptlet.flags & (Flag.EXPAND | Flag.QFORMAT):
        return body
    text = body.decode("utf-8", "surrogateescape")
    if Flag.EXPAND in scriptlet.flags:
        text = expand_macros(text, default_macros(architecture))
    if Flag.QFORMAT in scriptlet.flags:
        text = format_query(text, header)
    return text.encode("utf-8", "surrogateescape")


# What a query format can name; the values of one package, each as rpm prints it.
_STRINGS = {
    "name": tags.NAME,
    "version": tags.VERSION,
    "release": tags.RELEASE,
    "arch": tags.ARCH,
    "os": tags.OS,
    "summary": tags.SUMMARY,
    "vendor": tags.VENDOR,
    "license": tags.LICENSE,
    "group": tags.GROUP,
    "sourcerpm": tags.SOURCERPM,
    "basenames": tags.BASENAMES,
    "dirnames": tags.DIRNAMES,
    "providename": tags.PROVIDENAME,
    "requirename": tags.REQUIRENAME,
}
_NUMBERS = {"epoch": tags.EPOCH, "size": tags.SIZE, "longsize": tags.LONGSIZE, "buildtime": tags.BUILDTIME}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_PIECE = re.compile(r"\\(?P<escape>.)|%%|%(?P<width>-?\d*)\{(?P<name>[^{}:]*)(?P<format>:[a-z]*)?\}|[\[\]]", re.DOTALL)


def format_query(text: str, header: Header) -> str:
    """Return `text` with its `%{TAG}` and `[%{TAGS}...]` filled in from a header, `(none)` where it has no such tag.

    Other formats than a width, conditions and most tags are not known here: PackageError.
    """
    found = re.search(r"(?<!\\)\[", text)
    if found is None:
        return _fill(text, header, 0)
    end = text.find("]", found.end())
    if end < 0:
        raise PackageError(header.label, "a scriptlet's query format has a bracket that is not closed")
    inner = text[found.end() : end]
    names = [piece["name"] for piece in _PIECE.finditer(inner) if piece["name"]]
    rounds = max((len(_values(name, header)) for name in names), default=0)
    filled = "".join(_fill(inner, header, number) for number in range(rounds))
    return _fill(text[: found.start()], header, 0) + filled + format_query(text[end + 1 :], header)


def _fill(text: str, header: Header, number: int) -> str:
    return _PIECE.sub(_replacer(header, number), text)


def _replacer(header: Header, number: int) -> Callable[[re.Match[str]], str]:
    def replace(piece: re.Match[str]) -> str:
        if piece["escape"]:
            return _ESCAPES.get(piece["escape"], piece["escape"])
        if not piece["name"]:
            if piece[0] == "%%":
                return "%"
            raise PackageError(header.label, f"a scriptlet's query format has a {piece[0]} that belongs to nothing")
        if piece["format"] not in {None, ":", ":string"}:
            raise PackageError(header.label, f"a scriptlet's query format asks for {piece[0]}, which is not known here")
        values = _values(piece["name"], header) or ("(none)",)
        value = values[min(number, len(values) - 1)]
        width = int(piece["width"]) if piece["width"].lstrip("-") else 0
        return value.ljust(-width) if width < 0 else value.rjust(width)

    return replace


def _values(name: str, header: Header) -> tuple[str, ...]:
    key = name.lower().removeprefix("rpmtag_").lstrip("=")
    if key in _STRINGS:
        return tuple(value.decode("utf-8", "surrogateescape") for value in header.strings(_STRINGS[key]))
    if key in _NUMBERS:
        return tuple(str(value) for value in header.numbers(_NUMBERS[key]))
    joined = {"evr": "", "nvr": "{name}-", "nevr": "{name}-", "nvra": "{name}-", "nevra": "{name}-"}
    if key in joined:
        epoch = f"{header.number(tags.EPOCH)}:" if tags.EPOCH in header and "e" in key else ""
        version = f"{header.text(tags.VERSION)}-{header.text(tags.RELEASE)}"
        architecture = f".{header.text(tags.ARCH)}" if key.endswith("a") else ""
        return (joined[key].format(name=header.text(tags.NAME)) + epoch + version + architecture,)
    raise PackageError(header.label, f"a scriptlet's query format asks for {name}, which is not known here")
