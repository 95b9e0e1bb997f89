"""Cleartext-signed documents (RFC 9580, 7), split as strictly as apt splits an InRelease."""

from __future__ import annotations

import re

from rootfsbuild.errors import UntrustedError
from rootfsbuild.repository.trust import CLEARTEXT, SIGNATURE

END = b"-----END PGP SIGNATURE-----"


def split_inrelease(data: bytes, subject: str = "InRelease") -> bytes:
    """Return the text of a cleartext-signed document, without its last newline.

    As strict as apt: the first line, only `Hash` headers, dash-escaping, one signature, nothing around it; no
    NUL. Trailing space, tab and CR are no part of a line (RFC 9580, 7.2). Raises UntrustedError (rule
    `malformed`).
    """
    lines = [line.rstrip(b" \t\r") for line in data.split(b"\n")]
    unfinished = lines.pop() != b""
    start = _after(lines, b"", 0)
    stop = _after(lines, SIGNATURE, start)
    end = _after(lines, END, stop)
    headers, body, signature, rest = lines[1:start], lines[start:stop], lines[stop:end], lines[end:]
    problems = {
        "holds a NUL byte": b"\0" in data,
        f"does not begin with {CLEARTEXT.decode()}": lines[:1] != [CLEARTEXT],
        "ends in the middle of a line": unfinished,
        "its armor headers do not end": not start,
        "carries no signature": not stop,
        "its signature does not end": not end,
        "has an armor header other than Hash": not all(map(_is_hash_header, headers[:-1])),
        "has a line in its text that begins with an unescaped dash": any(map(_is_unescaped, body[:-1])),
        "has a second block inside its signature": any(line.startswith(b"-") for line in signature[:-1]),
        "goes on after its signature": any(rest),
    }
    for problem, found in problems.items():
        if found:
            raise UntrustedError(subject, "malformed", problem)
    return b"\n".join(line.removeprefix(b"- ") for line in body[:-1])


def _after(lines: list[bytes], wanted: bytes, start: int) -> int:
    """Return the number of the line after the first one that is `wanted`, 0 if there is none."""
    try:
        return lines.index(wanted, start) + 1
    except ValueError:
        return 0


def _is_hash_header(line: bytes) -> bool:
    return re.fullmatch(rb"Hash: [A-Za-z0-9, -]+", line) is not None


def _is_unescaped(line: bytes) -> bool:
    return line.startswith(b"-") and not line.startswith(b"- ")
