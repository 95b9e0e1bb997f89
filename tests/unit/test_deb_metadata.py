from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import os
import sqlite3
import threading

import pytest
import zstandard
from making.universe import make_index, make_universe, write_packages

from rootfsbuild.errors import UntrustedError
from rootfsbuild.formats.deb import index as index_module
from rootfsbuild.formats.deb import naming as naming_module
from rootfsbuild.formats.deb import paragraphs as paragraphs_module
from rootfsbuild.formats.deb.metadata import load_index
from rootfsbuild.formats.deb.relations import Alternative, parse_relations

WORLD = """
    mawk 1.3
    Provides: awk
    Priority: required
    Pre-Depends: libc6 (>= 2.34)

    libc6 2.36
    Source: glibc (2.36-9)
    Installed-Size: 12986
    Multi-Arch: same

    tool 1 all
    Essential: yes
    Depends: libc6, awk | perl:any
"""


def store(folder, content):
    path = os.path.join(folder, "blob")
    with open(path, "wb") as stream:
        stream.write(content)
    return path, hashlib.sha256(content).hexdigest(), os.path.join(folder, "cache")


@pytest.mark.parametrize(
    "pack",
    [
        lzma.compress,
        gzip.compress,
        bz2.compress,
        lambda data: zstandard.ZstdCompressor().compress(data),
        bytes,
    ],
    ids=["xz", "gz", "bz2", "zst", "plain"],
)
def test_compression_is_told_by_content(tmp_path, pack):
    index = load_index(*store(tmp_path, pack(write_packages(WORLD).encode())))
    assert index.names() == ["awk", "libc6", "mawk", "tool"]
    assert [paragraph.name for paragraph in index.providers("awk")] == ["mawk"]
    assert [paragraph.name for paragraph in index.notable()] == ["mawk", "tool"]


def test_fields(tmp_path):
    universe = make_universe(tmp_path, WORLD)
    libc, tool, mawk = (universe.candidate(name) for name in ("libc6", "tool", "mawk"))
    assert libc.source == ("glibc", "2.36-9")
    assert mawk.source == ("mawk", "1.3")
    assert libc.installed_size == 12986 * 1024
    assert mawk.installed_size == 0
    assert (libc.multi_arch, mawk.multi_arch) == ("same", "no")
    assert (tool.architecture, tool.essential, libc.essential) == ("all", True, False)
    assert [str(relation) for relation in tool.relations("Depends")] == ["Depends: libc6", "Depends: awk | perl:any"]
    assert libc.size == 1000
    assert libc.filename == "pool/libc6_2.36_amd64.deb"


def test_names_are_numbered_as_apt_meets_them(tmp_path):
    # Within a paragraph Pre-Depends come before Depends, whatever order they are written in.
    universe = make_universe(tmp_path, "z 1\nDepends: d\nPre-Depends: p (>= 1) | q\nProvides: v\n\nd 1\n\nq 1\n\np 1")
    assert sorted("dpqz", key=universe.package_id) == ["z", "p", "q", "d"]


def test_a_name_first_met_in_an_earlier_index(tmp_path):
    universe = make_universe(tmp_path, "a 1\nDepends: late\n\nb 1", "late 1")
    assert sorted(["late", "a", "b"], key=universe.package_id) == ["a", "late", "b"]


def test_folded_fields_and_carriage_returns(tmp_path):
    text = (
        write_packages("a 1\nDepends: b").replace("Depends: b\n", "Depends: b,\n c | d,\n\te\n").replace("\n", "\r\n")
    )
    index = load_index(*store(tmp_path, text.encode()))
    (paragraph,) = index.paragraphs("a")
    assert b"Depends: b, c | d, e" in paragraph.text
    assert len(index.paragraphs("a")) == 1


def test_prose_is_dropped_and_nothing_else(tmp_path):
    text = write_packages("a 1").replace(
        "Description: a package\n",
        "Description: one\n more\n Depends: not-this\nHomepage: http://a\nTag: x, y,\n z\nDepends: b\nProvides: v\n",
    )
    index = load_index(*store(tmp_path, text.encode()))
    (paragraph,) = index.paragraphs("a")
    assert b"\nDepends: b\nProvides: v\n" in paragraph.text
    assert b"not-this" not in paragraph.text
    assert [found.name for found in index.providers("v")] == ["a"]


def test_paragraphs_across_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(paragraphs_module, "_BATCH", 300)
    world = "\n\n".join(f"p{number} 1\nProvides: v" for number in range(40))
    index = make_index(tmp_path, world)
    assert [paragraph.number for paragraph in index.providers("v")] == list(range(1, 41))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"<html>\n<body>no such file</body>\n</html>\n", "no Package field"),
        (b"Package: a\nVersion: 1\n\nVersion: 2\n", "no Package field"),
        (b"Package:\nVersion: 1\n", "no Package field"),
        (lzma.compress(b"Package: a\n" * 1000)[:-30], "truncated"),
        (b"\xfd7zXZ\0" + b"garbage" * 20, "corrupt"),
        (b"\x1f\x8b" + b"garbage" * 20, "corrupt"),
    ],
    ids=["html", "unnamed", "empty name", "truncated", "broken xz", "broken gz"],
)
def test_garbage_is_refused_and_leaves_nothing(tmp_path, content, problem):
    path, digest, cache = store(tmp_path, content)
    with pytest.raises(UntrustedError, match=problem) as caught:
        load_index(path, digest, cache)
    assert caught.value.rule == "malformed"
    assert not os.path.exists(cache)


def test_an_index_that_expands_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(paragraphs_module, "LIMIT", 1 << 20)
    content = lzma.compress(write_packages(WORLD).encode() + b"\n" * (4 << 20))
    before = threading.active_count()
    with pytest.raises(UntrustedError, match="expands to more"):
        load_index(*store(tmp_path, content))
    assert threading.active_count() == before


def test_an_endless_paragraph_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(paragraphs_module, "_LONGEST", 1 << 20)
    before = threading.active_count()
    with pytest.raises(UntrustedError, match="longer than"):
        load_index(*store(tmp_path, b"Package: a\n" + b"X: y\n" * (1 << 20)))
    assert threading.active_count() == before


@pytest.mark.parametrize("content", [b"", b"\n", b"\n\n\n"])
def test_an_empty_index_is_an_index(tmp_path, content):
    assert load_index(*store(tmp_path, content)).names() == []


def test_several_empty_lines_are_one(tmp_path):
    text = "\n\n\n" + write_packages("a 1\n\nb 1").replace("\n\n", "\n\n\n\n") + "\n\n\n"
    universe = make_universe(tmp_path, "c 1")
    index = load_index(*store(tmp_path, text.encode()))
    assert index.names() == ["a", "b"]
    deb = type(universe.candidate("c"))(index.paragraphs("b")[0], universe.placed)
    assert deb.version == "1"


def test_the_cache_is_used(tmp_path):
    path, digest, cache = store(tmp_path, write_packages(WORLD).encode())
    load_index(path, digest, cache).keep()
    os.unlink(path)
    assert load_index(path, digest, cache).names() == ["awk", "libc6", "mawk", "tool"]


def test_what_was_sought_is_kept_too(tmp_path, monkeypatch):
    path, digest, cache = store(tmp_path, write_packages(WORLD).encode())
    index = load_index(path, digest, cache)
    found = [index.first_named("awk"), index.first_named("nowhere"), index.qualified("any")]
    assert found == [(0, 0, 2), None, {"perl"}]
    index.keep()
    again = load_index(path, digest, cache)
    more = again.first_named("libc6")
    assert more is not None
    again.keep()
    # From here on the text is not read any more.
    monkeypatch.setattr(index_module, "find_name", None)
    monkeypatch.setattr(index_module, "find_qualified", None)
    third = load_index(path, digest, cache)
    assert [third.first_named("awk"), third.first_named("nowhere"), third.qualified("any")] == found
    assert third.first_named("libc6") == more
    assert third.paragraphs("libc6") == index.paragraphs("libc6")


@pytest.mark.parametrize("first", [0, 3])
def test_when_many_names_are_sought_all_are_found_and_kept(tmp_path, monkeypatch, first):
    monkeypatch.setattr(index_module, "_FEW", 2)
    path, digest, cache = store(tmp_path, write_packages(WORLD).encode())
    names = ["tool", "libc6", "perl", "nowhere", "awk", "perl:any", "mawk"]
    one_by_one = [naming_module.find_name([write_packages(WORLD).encode()], name) for name in names]
    index = load_index(path, digest, cache)
    assert [index.first_named(name) for name in names[:first]] == one_by_one[:first]
    index.keep()
    index = load_index(path, digest, cache)
    assert [index.first_named(name) for name in names] == one_by_one
    index.keep()
    monkeypatch.setattr(index_module, "find_all_names", None)
    index = load_index(path, digest, cache)
    assert [index.first_named(name) for name in names] == one_by_one
    assert len(os.listdir(cache)) == 1


def test_nothing_new_is_nothing_to_write(tmp_path):
    path, digest, cache = store(tmp_path, write_packages(WORLD).encode())
    load_index(path, digest, cache).keep()
    (name,) = os.listdir(cache)
    before = os.stat(os.path.join(cache, name))
    load_index(path, digest, cache).keep()
    after = os.stat(os.path.join(cache, name))
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def damage_nothing_left(path):
    os.truncate(path, 0)


def damage_half(path):
    os.truncate(path, os.path.getsize(path) // 2)


def damage_text(path):
    # Where sqlite itself cannot see it: inside a value.
    with open(path, "r+b") as stream:
        content = stream.read()
        at = content.index(b"\x28\xb5\x2f\xfd") + 40
        stream.seek(at)
        stream.write(bytes([content[at] ^ 0xFF]))


def damage_digest(path):
    with sqlite3.connect(path) as database:
        database.execute("UPDATE about SET sha256 = 'other'")


def damage_kind(path):
    os.unlink(path)
    os.mkdir(path)


@pytest.mark.parametrize("damage", [damage_nothing_left, damage_half, damage_text, damage_digest, damage_kind])
def test_a_damaged_cache_is_made_again(tmp_path, damage):
    path, digest, cache = store(tmp_path, write_packages(WORLD).encode())
    load_index(path, digest, cache).keep()
    (name,) = os.listdir(cache)
    damage(os.path.join(cache, name))
    index = load_index(path, digest, cache)
    (paragraph,) = index.paragraphs("libc6")
    assert b"Version: 2.36" in paragraph.text
    assert len(index.notable()) == 2
    index.keep()
    if damage is not damage_kind:
        os.unlink(path)
        assert len(load_index(path, digest, cache).notable()) == 2


def test_without_a_place_for_the_cache(tmp_path):
    path, digest, _ = store(tmp_path, write_packages(WORLD).encode())
    index = load_index(path, digest, os.path.join(path, "under-a-file"))
    assert [paragraph.name for paragraph in index.paragraphs("tool")] == ["tool"]
    index.keep()


def test_many_writers_at_once(tmp_path):
    path, digest, cache = store(tmp_path, write_packages(WORLD).encode())
    found = []

    def read():
        index = load_index(path, digest, cache)
        found.append(index.names())
        index.keep()

    threads = [threading.Thread(target=read) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [["awk", "libc6", "mawk", "tool"]] * 6
    assert len(os.listdir(cache)) == 1


def test_the_candidate_is_of_the_highest_pin(tmp_path):
    universe = make_universe(
        tmp_path, ("a 1", "bookworm", 500), ("a 3", "backports", 100), ("a 2", "updates", 500), ("b 1", "never", -1)
    )
    assert universe.candidate("a").version == "2"
    assert [deb.version for deb in universe.versions("a")] == ["3", "2", "1"]
    assert universe.candidate("b") is None
    assert universe.candidate("c") is None


def test_a_version_in_several_indexes_is_of_the_first_with_the_best_pin(tmp_path):
    universe = make_universe(tmp_path, ("a 2", "backports", 100), ("a 2", "updates", 500), ("a 1", "bookworm", 500))
    assert (universe.candidate("a").placed.codename, universe.candidate("a").pin) == ("backports", 500)


def test_other_architectures_do_not_exist(tmp_path):
    universe = make_universe(tmp_path, "a 2 i386\n\na 1 amd64\n\nb 1 all")
    assert [deb.version for deb in universe.versions("a")] == ["1"]
    assert universe.candidate("b").architecture == "all"


PROVIDERS = """
    real 2

    plain 1
    Provides: real, virtual

    versioned 1
    Provides: virtual (= 5), wrong (>= 2)

    allowed 1
    Multi-Arch: allowed
    Provides: virtual

    foreign 1
    Multi-Arch: foreign

    explicit 1
    Provides: virtual:any, other:i386
"""


@pytest.mark.parametrize(
    ("written", "names"),
    [
        ("real", ["real", "plain"]),
        ("real (>= 2)", ["real"]),
        ("real (>= 3)", []),
        ("virtual", ["plain", "versioned", "allowed"]),
        ("virtual (>= 4)", ["versioned"]),
        ("virtual (>= 6)", []),
        ("virtual:any", ["allowed", "explicit"]),
        ("allowed:any", ["allowed"]),
        ("allowed:any (>= 1)", ["allowed"]),
        ("foreign:any", []),
        ("foreign", ["foreign"]),
        ("real:amd64", ["real", "plain"]),
        ("real:native", ["real", "plain"]),
        ("real:i386", []),
        ("other:i386", ["explicit"]),
        ("wrong", []),
        ("none", []),
    ],
)
def test_what_meets_a_relation(tmp_path, written, names):
    universe = make_universe(tmp_path, PROVIDERS)
    ((relation,),) = (parse_relations("Depends", written),)
    (alternative,) = relation.alternatives
    found = [name for name in universe.meeting(alternative) if universe.versions(name)]
    assert [name for name in found if universe.meets(universe.candidate(name), alternative)] == names


@pytest.mark.parametrize(
    ("line", "read"),
    [
        ("Version: 1/../../etc", lambda deb: deb.version),
        ("Filename: ../../etc/passwd", lambda deb: deb.filename),
        ("Filename: /etc/passwd", lambda deb: deb.filename),
        ("Filename: pool/..", lambda deb: deb.filename),
        ("SHA256: 1234", lambda deb: deb.sha256),
        ("Size: -1", lambda deb: deb.size),
        ("Size: 10_000", lambda deb: deb.size),
        ("Architecture: ../x", lambda deb: deb.architecture),
        ("Depends: a (>= ", lambda deb: deb.relations("Depends")),
        ("no field", lambda deb: deb.fields),
    ],
)
def test_a_bad_field_is_refused_where_it_is_read(tmp_path, line, read):
    key = line.partition(":")[0]
    lines = [found for found in write_packages("a 1").splitlines() if not found.startswith(f"{key}:")]
    path, digest, cache = store(tmp_path, "\n".join([*lines, line, ""]).encode())
    (paragraph,) = load_index(path, digest, cache).paragraphs("a")
    deb = make_universe(tmp_path, "b 1").candidate("b")
    broken = type(deb)(paragraph, deb.places)
    with pytest.raises(UntrustedError, match="a in bookworm/main"):
        read(broken)


def test_a_hostile_name_is_refused(tmp_path):
    universe = make_universe(tmp_path, "../../x 1")
    with pytest.raises(UntrustedError, match="no package name"):
        universe.candidate("../../x").name  # noqa: B018 - reading it is the test


def test_leading_dots_of_a_flat_archive(tmp_path):
    universe = make_universe(tmp_path, "a 1\nFilename: ./a_1_all.deb")
    assert universe.candidate("a").filename == "a_1_all.deb"


def test_meeting_knows_the_name_first(tmp_path):
    universe = make_universe(tmp_path, "p 1\nProvides: real\n\nreal 1")
    assert universe.meeting(Alternative("real")) == ("real", "p")


def test_names_sought_one_by_one_and_all_at_once_are_in_the_same_places(tmp_path, monkeypatch):
    monkeypatch.setattr(paragraphs_module, "_BATCH", 400)
    world = "\n\n".join(
        f"p{at} 1\nSuggests: p{at * 7 % 40}, only-here-{at}\n"
        f"Depends: p{at * 3 % 40}:any | v{at % 5} (>= 1)\nProvides: v{at % 5}"
        for at in range(40)
    )
    index = make_index(tmp_path, world)
    names = [*index.names(), *(f"only-here-{at}" for at in range(40)), "p3:any", "nobody"]
    monkeypatch.setattr(index_module, "_FEW", len(names))
    one_by_one = [index.first_named(name) for name in names]
    monkeypatch.setattr(index_module, "_FEW", 0)
    assert [index.first_named(name) for name in names] == one_by_one
    assert one_by_one[-1] is None
    assert len({place for place in one_by_one if place}) == len(names) - 1
