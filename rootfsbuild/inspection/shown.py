"""Names that others chose, as they can be shown on a terminal."""

from __future__ import annotations

import os


def show(text: str) -> str:
    r"""Return `text` with what does not print, and the backslash, escaped: `a\nb`, `\xff` for a byte that is not UTF-8.

    Different texts stay different. No control sequence comes through, nor a mark that reverses the direction.
    """
    return text if text.isprintable() and "\\" not in text else "".join(map(_shown, text))


def _shown(char: str) -> str:
    if "\udc80" <= char <= "\udcff":
        return f"\\x{os.fsencode(char)[0]:02x}"
    # `\xff` is a byte here, so U+00FF and its neighbours are written in four digits.
    if "\x80" <= char <= "\xff" and not char.isprintable():
        return f"\\u{ord(char):04x}"
    return char if char.isprintable() and char != "\\" else char.encode("unicode_escape").decode()
