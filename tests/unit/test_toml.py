from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootfsbuild.documents.paths import dotted
from rootfsbuild.documents.toml import parse_toml, read_toml
from rootfsbuild.errors import RecipeError

EVERY_KIND = '''\
# a comment with "quotes" and [brackets]
plain = 1
"quoted key" = 'literal # no comment'
a.b."c.d" = true   # dotted
when = 1979-05-27 07:32:00Z
text = """
line [one]
"" two \\"""
""""
raw = \'\'\'
 = not a key
\'\'\'
list = [ 1, # one
  "]", [2,
  3], { x = 4 },
]
inline = { p = 1, q = { r = [
  5] } }

[table]
key = 1
[table.sub."odd.name"]
key = "a\\"b#"

[[array]]
name = "first"
[array.sub]
deep = 1
[[array]]
name = "second"
[[array.inner]]
x = 1
[[array.inner]]
x = 2
'''


def line_of(text, needle, occurrence=1):
    lines = [number for number, line in enumerate(text.splitlines(), start=1) if needle in line]
    return lines[occurrence - 1]


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("plain",), 2),
        (("quoted key",), 3),
        (("a",), 4),
        (("a", "b", "c.d"), 4),
        (("when",), 5),
        (("text",), 6),
        (("raw",), 10),
        (("list",), 13),
        (("list", 0), 13),
        (("list", 1), 14),
        (("list", 2), 14),
        (("list", 2, 1), 15),
        (("list", 3, "x"), 15),
        (("inline", "p"), 17),
        (("inline", "q", "r", 0), 18),
        (("table",), 20),
        (("table", "key"), 21),
        (("table", "sub", "odd.name"), 22),
        (("table", "sub", "odd.name", "key"), 23),
        (("array", 0), 25),
        (("array", 0, "name"), 26),
        (("array", 0, "sub", "deep"), 28),
        (("array", 1), 29),
        (("array", 1, "name"), 30),
        (("array", 1, "inner", 0, "x"), 32),
        (("array", 1, "inner", 1, "x"), 34),
    ],
)
def test_every_kind_of_value_has_its_line(path, line, ends):
    document = parse_toml(EVERY_KIND.replace("\n", ends), "x.toml")
    assert document.lines[path] == line


def paths(value, path=()):
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from paths(item, (*path, key))


def test_every_value_has_a_line_and_nothing_else_has():
    document = parse_toml(EVERY_KIND, "x.toml")
    assert set(document.lines) == set(paths(document.data))


keys = st.text(st.characters(codec="utf-8", exclude_characters="\x7f", min_codepoint=32), max_size=6)
leaves = st.one_of(st.integers(-9, 9), st.booleans(), keys)
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=8
)


def quote(text):
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def write(value):
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return quote(value) if "'" in value or len(value) % 2 else f"'''{value}'''"
    if isinstance(value, list):
        return "[\n" + "".join(f"{write(item)}, # ] }}\n" for item in value) + "]"
    return "{ " + ", ".join(f"{quote(key)} = {write(item)}" for key, item in value.items()) + " }"


@given(st.dictionaries(keys, values, max_size=4))
def test_any_document_is_scanned_to_its_end(data):
    text = "".join(f"{quote(key)} = {write(value)}\n" for key, value in data.items())
    assert tomllib.loads(text) == data
    document = parse_toml(text, "x.toml")
    assert set(document.lines) == set(paths(data))
    assert [document.lines[key,] for key in data] == sorted(document.lines[key,] for key in data)


@pytest.mark.parametrize(
    ("text", "line", "word"),
    [
        ("a = 1\nb = \n", 2, "invalid value"),
        ("a = 1\na = 2\n", 2, "overwrite"),
        ('a = "x\n', 1, ""),
        ("a = [1,\n2\n", 3, ""),
        ("[a\n", 1, ""),
        ("a = " + "[" * 100_000, None, "nested too deeply"),
    ],
)
def test_a_syntax_error_names_its_line(text, line, word):
    with pytest.raises(RecipeError) as caught:
        parse_toml(text, "x.toml")
    assert caught.value.line == line
    assert caught.value.problem.startswith("not valid TOML")
    assert word in caught.value.problem


def test_bytes_that_are_not_utf8_are_refused_with_their_line(tmp_path):
    file = tmp_path / "x.toml"
    file.write_bytes(b"# fine\na = '\xff'\n")
    with pytest.raises(RecipeError, match=r"x\.toml:2: not UTF-8"):
        read_toml(str(file))


def test_a_missing_file_names_the_nearest(tmp_path):
    (tmp_path / "debian12.toml").touch()
    with pytest.raises(RecipeError, match="No such file") as caught:
        read_toml(str(tmp_path / "debain12.toml"))
    assert str(tmp_path / "debian12.toml") in caught.value.hint


def test_a_folder_is_no_recipe(tmp_path):
    with pytest.raises(RecipeError, match="Is a directory"):
        read_toml(str(tmp_path))


def test_a_path_is_written_as_people_write_it():
    assert dotted(("packages", "include", 2)) == "packages.include[2]"
    assert dotted(("files", "/etc/motd")) == 'files."/etc/motd"'
    assert dotted(()) == ""
