"""TOML with a line number for every value, which `tomllib` reads but does not tell (TOML 1.0)."""

from __future__ import annotations

import bisect
import difflib
import os
import re
import tomllib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rootfsbuild.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rootfsbuild.documents.paths import Path

_MULTILINE = re.compile(r'"""(?:[^\\]|\\.)*?"""(?:"{0,2})|\'\'\'.*?\'\'\'(?:\'{0,2})', re.DOTALL)
_STRING = re.compile(r'"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'')
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_SCALAR = re.compile(r"[^,\]}\n#]+")
_BLANK = re.compile(r"[ \t]*")
_FILLER = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_SYNTAX_PLACE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


@dataclass(frozen=True)
class Document:
    """One parsed file and where each of its values stands."""

    file: str
    """The path as it was given: errors and origins show this one."""
    data: Mapping[str, Any]
    lines: Mapping[Path, int] = field(default_factory=dict)
    """Path of a key or array element -> line, from 1; empty for values that come from no file."""

    def place(self, path: Path) -> tuple[str, int | None]:
        """Return the file and the line of a path, or of the nearest table around it that has a line."""
        lines = (self.lines.get(path[:length]) for length in range(len(path), 0, -1))
        return self.file, next((line for line in lines if line is not None), None)


def read_toml(file: str) -> Document:
    """Read a TOML file.

    Raises RecipeError if it is missing, unreadable, not UTF-8 or not TOML.
    """
    try:
        with open(file, "rb") as stream:
            raw = stream.read()
    except OSError as error:
        raise RecipeError(file, error.strerror or str(error), hint=_nearest_file(file)) from None
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise RecipeError(file, "not UTF-8", line=line, expected="a TOML file in UTF-8") from None
    return parse_toml(text, file)


def parse_toml(text: str, file: str) -> Document:
    """Parse TOML text; `file` is only named in errors, which are RecipeErrors."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = _SYNTAX_PLACE.search(str(error))
        problem = str(error)[: found.start()] if found else str(error)
        line = int(found[1]) if found and found[1] else text.count("\n") + 1
        raise RecipeError(file, f"not valid TOML: {problem[:1].lower()}{problem[1:]}", line=line) from None
    except RecursionError:
        raise RecipeError(file, "not valid TOML: nested too deeply") from None
    # tomllib normalises line ends before it parses; positions must be counted in the same text.
    return Document(file, data, _Scanner(text.replace("\r\n", "\n")).scan())


def _nearest_file(file: str) -> str:
    folder = os.path.dirname(file)
    try:
        names = [name for name in os.listdir(folder or ".") if name.endswith(".toml")]
    except OSError:
        return ""
    near = difflib.get_close_matches(os.path.basename(file), names, 1)
    return f"did you mean {os.path.join(folder, near[0])}?" if near else ""


class _Scanner:
    """Finds the line of every key and array element of text that is already known to be valid TOML."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.breaks = [index for index, character in enumerate(text) if character == "\n"]
        self.lines: dict[Path, int] = {}
        self.arrays: dict[Path, int] = {}

    def scan(self) -> dict[Path, int]:
        table: Path = ()
        while self.skip(_FILLER) < len(self.text):
            if self.text[self.at] == "[":
                table = self.header()
            else:
                self.pair(table)
        return self.lines

    def skip(self, pattern: re.Pattern[str]) -> int:
        if found := pattern.match(self.text, self.at):
            self.at = found.end()
        return self.at

    def take(self, character: str) -> bool:
        taken = self.text.startswith(character, self.at)
        self.at += len(character) * taken
        return taken

    def note(self, path: Path) -> None:
        self.lines.setdefault(path, bisect.bisect_left(self.breaks, self.at) + 1)

    def header(self) -> Path:
        brackets = 2 if self.text.startswith("[[", self.at) else 1
        start, self.at = self.at, self.at + brackets
        keys = self.keys()
        self.at, end = start, self.at
        path: Path = ()
        for number, key in enumerate(keys, start=1):
            path = (*path, key)
            self.note(path)
            if brackets == 2 and number == len(keys):
                self.arrays[path] = self.arrays.get(path, -1) + 1
            if path in self.arrays:
                path = (*path, self.arrays[path])
                self.note(path)
        # A header may be written after a dotted header made its table: this is the better line.
        self.lines[path] = bisect.bisect_left(self.breaks, self.at) + 1
        self.at = end + brackets
        return path

    def keys(self) -> list[str]:
        keys = []
        while True:
            self.skip(_BLANK)
            found = _STRING.match(self.text, self.at) or _BARE.match(self.text, self.at)
            if found is None:
                raise AssertionError(f"tomllib read a key at {self.at} that the scanner cannot")
            self.at = found.end()
            quoted = found[0][0] in "\"'"
            keys.append(str(tomllib.loads(f"key = {found[0]}")["key"]) if quoted else found[0])
            self.skip(_BLANK)
            if not self.take("."):
                return keys

    def pair(self, table: Path) -> None:
        start = self.at
        keys = self.keys()
        self.at, after = start, self.at
        for length in range(1, len(keys) + 1):
            self.note((*table, *keys[:length]))
        self.at = after
        self.take("=")
        self.skip(_BLANK)
        self.value((*table, *keys))

    def value(self, path: Path) -> None:
        self.note(path)
        if self.take("["):
            self.array(path)
        elif self.take("{"):
            self.inline_table(path)
        elif self.text[self.at] in "\"'":
            self.skip(_MULTILINE if self.text[self.at : self.at + 3] in {'"""', "'''"} else _STRING)
        else:
            self.skip(_SCALAR)

    def array(self, path: Path) -> None:
        index = 0
        self.skip(_FILLER)
        while not self.take("]"):
            self.value((*path, index))
            index += 1
            self.skip(_FILLER)
            self.take(",")
            self.skip(_FILLER)

    def inline_table(self, path: Path) -> None:
        self.skip(_FILLER)
        while not self.take("}"):
            self.pair(path)
            self.skip(_FILLER)
            self.take(",")
            self.skip(_FILLER)
