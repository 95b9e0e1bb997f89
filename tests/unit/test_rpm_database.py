from __future__ import annotations

import os
import sqlite3
import struct
import subprocess
import sys
from dataclasses import replace

import pytest
from making.headers import make_header, make_main, make_recorded, make_signature, numbers, take_apart, text, texts

from rootfsbuild.errors import PackageError, StorageError
from rootfsbuild.formats.rpm import tags
from rootfsbuild.formats.rpm.database import export, write_database
from rootfsbuild.formats.rpm.database_indexes import INDEXES, rows
from rootfsbuild.formats.rpm.header import MAGIC, Type
from rootfsbuild.formats.rpm.merge import installed_header, merge, merge_headers
from rootfsbuild.formats.rpm.richnames import rich_names
from rootfsbuild.rootfs.inside import edit_root

FOLDER = "/usr/lib/sysimage/rpm"
FILES = {
    "BASENAMES": texts("a", "b"),
    "DIRNAMES": texts("/etc/", "/usr/"),
    "DIRINDEXES": numbers(0, 1),
}


@pytest.fixture
def written(tmp_path):
    def write(*records, **options):
        with edit_root(str(tmp_path)) as root:
            write_database(root, FOLDER, records, **options)
        return tmp_path / FOLDER.lstrip("/") / "rpmdb.sqlite"

    return write


def listed(name, main, byteorder="little"):
    header = installed_header(merge(make_recorded(main, states=bytes(len(main.strings(tags.BASENAMES))))), "merged")
    index = next(index for index in INDEXES if index.name == name)
    return list(rows(index, header, byteorder))


# The header in the database


def test_what_came_with_the_package_stays_as_it_was():
    main = make_main(**FILES)
    blob = merge(make_recorded(main, states=b"\0\2"))
    merged = installed_header(blob, "merged")
    index = len(merged.items) * 16
    assert blob[8 : 8 + len(main.items) * 16] == main.data[: len(main.items) * 16]
    assert blob[8 + index :].startswith(main.store)
    assert merged.region == len(main.items)


def test_entries_behind_the_region_are_sorted_aligned_and_numbered_anew():
    signature = make_signature(
        SIG_SIZE=numbers(4096),
        SIG_PAYLOADSIZE=numbers(8192),
        SHA256HEADER=text("c" * 64),
        LONGSIGSIZE=(Type.INT64, [1]),
    )
    merged = installed_header(merge(make_recorded(make_main(**FILES), signature, b"\0\4")), "merged")
    behind = merged.items[merged.region :]
    assert [item.tag for item in behind] == [257, 261, 269, 270, 273, 1008, 1029, 1046, 1127, 1128]
    assert all(item.offset % {Type.INT32: 4, Type.INT64: 8}.get(item.type, 1) == 0 for item in behind)
    assert merged.number(tags.SIGSIZE) == 4096
    assert merged.number(tags.ARCHIVESIZE) == 8192
    assert merged.binary(tags.SIGMD5) == b"m" * 16
    assert merged.number(tags.INSTALLTIME) == 1_700_000_000
    assert merged.number(tags.INSTALLCOLOR) == 3
    assert merged.number(tags.INSTALLTID) == 7
    assert merged.numbers(tags.FILESTATES) == (0, 4)
    assert merged.by_tag[tags.FILESTATES].type is Type.CHAR


def test_space_reserved_for_signatures_does_not_become_the_time_of_installation():
    signature = make_signature(SIG_RESERVEDSPACE=(Type.BIN, bytes(64)))
    merged = installed_header(merge(make_recorded(signature=signature)), "merged")
    assert merged.numbers(tags.INSTALLTIME) == (1_700_000_000,)


def test_a_package_without_files_has_no_states():
    assert tags.FILESTATES not in installed_header(merge(make_recorded()), "merged")


def test_a_relocatable_package_is_where_it_was_built_for():
    merged = installed_header(merge(make_recorded(make_main(PREFIXES=texts("/usr", "/opt")))), "merged")
    assert merged.strings(tags.INSTPREFIXES) == (b"/usr", b"/opt")


def test_digests_of_the_file_are_kept_if_given():
    merged = merge_headers(replace(make_recorded(), digests=[(8, "ab" * 32), (10, "cd" * 64)]))
    assert merged.strings(5118) == (b"ab" * 32, b"cd" * 64)
    assert merged.numbers(5119) == (8, 10)
    assert 5118 not in merge_headers(make_recorded())


def test_a_header_that_names_no_source_is_marked_as_a_binary_package():
    merged = installed_header(merge(make_recorded(make_main(SOURCERPM=None))), "merged")
    assert merged.text(tags.SOURCERPM) == "(none)"


def test_a_merged_header_is_what_is_read_of_it():
    recorded = make_recorded(make_main(**FILES), make_signature(LONGSIGSIZE=(Type.INT64, [1])), b"\0\1")
    read = installed_header(merge(recorded), "alpha")
    assert read == merge_headers(recorded)


def test_merging_can_be_undone():
    recorded = make_recorded(make_main(**FILES), states=b"\0\1")
    assert merge(take_apart(merge(recorded))) == merge(recorded)


@pytest.mark.parametrize("tag", ["SHA1HEADER", "SIGMD5", "RSAHEADER"])
def test_a_header_cannot_bring_its_own_signatures(tag):
    with pytest.raises(PackageError, match=f"tag {getattr(tags, tag)}, which belongs to its signatures"):
        merge(make_recorded(make_main(**{tag: (Type.BIN, b"forged")})))


@pytest.mark.parametrize("tag", ["INSTALLTIME", "INSTALLTID", "INSTALLCOLOR"])
def test_a_header_cannot_say_when_it_was_installed(tag):
    with pytest.raises(PackageError, match=f"tag {getattr(tags, tag)} is in the header"):
        merge(make_recorded(make_main(**{tag: numbers(5)})))


def test_archive_size_may_be_in_one_header_only():
    main = make_main(ARCHIVESIZE=numbers(9))
    assert installed_header(merge(make_recorded(main)), "merged").number(tags.ARCHIVESIZE) == 9
    with pytest.raises(PackageError, match="tag 1046"):
        merge(make_recorded(main, make_signature(SIG_PAYLOADSIZE=numbers(9))))


def test_signatures_of_another_type_are_refused():
    with pytest.raises(PackageError, match="signature header's tag 269"):
        merge(make_recorded(signature=make_signature(SHA1HEADER=(Type.BIN, b"x" * 20))))


def test_headers_that_rpm_could_not_have_installed_are_refused():
    bare = make_header({tags.NAME: text("bare")}, region=0)
    with pytest.raises(PackageError, match="not one region"):
        merge(make_recorded(bare))
    with pytest.raises(PackageError, match="no tag 1002"):
        merge(make_recorded(make_main(RELEASE=None)))


def test_states_must_fit_the_files():
    with pytest.raises(PackageError, match="1 file states"):
        merge(make_recorded(make_main(**FILES), states=b"\0"))


@pytest.mark.parametrize("blob", [b"", b"\0\0\0\1\0\0\0", struct.pack(">II", 0, 0), struct.pack(">II", 9, 9) + b"x"])
def test_damaged_records_are_refused(blob):
    with pytest.raises(PackageError, match="the record in rpm's database"):
        installed_header(blob, "made")


def test_exported_packages_are_whole_headers():
    record = make_recorded()
    assert list(export([record, record])) == [MAGIC + merge(record)] * 2


# What the tables list


def test_a_missing_group_is_unknown():
    assert listed("Group", make_main()) == [(b"Unknown", 0)]
    group = (Type.I18NSTRING, ["System/Base", "System/Grundlage"])
    assert listed("Group", make_main(GROUP=group)) == [(b"System/Base", 0)]


def test_requirements_of_the_installation_are_not_kept():
    pre, post, preun, meta, rpmlib, interpreter = 1 << 9, 1 << 10, 1 << 11, 1 << 29, 1 << 24, 1 << 8
    flags = (pre, 0, pre | preun, post | meta, rpmlib, interpreter | post, interpreter)
    main = make_main(REQUIRENAME=texts(*"abcdefg"), REQUIREFLAGS=numbers(*flags))
    assert listed("Requirename", main) == [(b"b", 1), (b"c", 2), (b"d", 3), (b"g", 6)]


def test_triggers_are_listed_once_and_in_place():
    assert listed("Triggername", make_main(TRIGGERNAME=texts("x", "y", "x", "z"))) == [
        (b"x", 0),
        (b"y", 1),
        (b"z", 3),
    ]


@pytest.mark.parametrize("name", ["FILETRIGGER", "TRANSFILETRIGGER"])
def test_file_triggers_are_listed_with_their_numbers(name):
    main = make_main(**{f"{name}NAME": texts("/usr", "/etc", "/opt"), f"{name}INDEX": numbers(0, 0, 1)})
    assert listed(f"{name}NAME".capitalize(), main) == [(b"/usr", 0), (b"/etc", 0), (b"/opt", 1)]


def test_arrays_that_do_not_fit_are_refused():
    with pytest.raises(PackageError, match="5069 and 5070 do not have as many"):
        listed("Filetriggername", make_main(FILETRIGGERNAME=texts("/usr"), FILETRIGGERINDEX=numbers(0, 0)))
    with pytest.raises(PackageError, match="1049 and 1048 do not have as many"):
        listed("Requirename", make_main(REQUIRENAME=texts("a", "b"), REQUIREFLAGS=numbers(0)))


def test_the_transaction_is_listed_as_the_processor_keeps_numbers():
    assert listed("Installtid", make_main()) == [(b"\7\0\0\0", 0)]
    assert listed("Installtid", make_main(), "big") == [(b"\0\0\0\7", 0)]


def test_rich_dependencies_are_listed_whole_and_in_parts():
    main = make_main(RECOMMENDNAME=texts("plain", "(b or a >= 2)"), PROVIDENAME=texts("(no rich one)"))
    assert listed("Recommendname", main) == [(b"plain", 0), (b"(b or a >= 2)", 1), (b"a", 1), (b"b", 1)]
    assert listed("Providename", main) == [(b"(no rich one)", 0)]


@pytest.mark.parametrize(
    ("dependency", "names"),
    [
        ("(a)", "a"),
        ("(a and b and a)", "a b"),
        ("(a if b)", "a !b"),
        ("(a if b else c)", "a b c !b"),
        ("(a unless (b or c))", "a !b !c"),
        ("((a if b) or c)", "a c !b"),
        ("(a if (b if c))", "a c !b"),
        ("(libx.so.1()(64bit) >= 1 with config(x) = 2-3)", "config(x) libx.so.1()(64bit)"),
        ("(rpmlib(X) <= 1 or a)", "a"),
        ("(a without b < 2) trailing", "a b"),
        ("(a or)", ""),
        ("(a b)", ""),
        ("(a >=)", ""),
        ("(a or b", ""),
        ("()", ""),
        ("a or b", ""),
        ("", ""),
        ("(" * 100_000 + "a" + ")" * 100_000, "a"),
    ],
)
def test_names_of_a_rich_dependency(dependency, names):
    assert rich_names(dependency.encode()) == tuple(names.encode().split())


# The file


def test_packages_are_numbered_in_order(written):
    database = sqlite3.connect(written(make_recorded(make_main("b")), make_recorded(make_main("a"))))
    assert database.execute("SELECT * FROM Name").fetchall() == [("b", 1, 0), ("a", 2, 0)]
    assert database.execute("SELECT * FROM sqlite_sequence").fetchall() == [("Packages", 2)]
    assert [row[0] for row in database.execute("SELECT blob FROM Packages")] == [
        merge(make_recorded(make_main(name))) for name in ("b", "a")
    ]


def test_a_database_may_be_empty(written):
    database = sqlite3.connect(written())
    assert database.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table'").fetchall() == [(20,)]


def test_keys_are_kept_that_are_no_utf8(written):
    path = written(make_recorded(make_main(BASENAMES=texts("caf\udce9"), DIRNAMES=texts("/")), states=b"\0"))
    database = sqlite3.connect(path)
    database.text_factory = bytes
    assert database.execute("SELECT key, typeof(key) FROM Basenames").fetchall() == [(b"caf\xe9", b"text")]


def test_the_same_records_give_the_same_bytes(written, tmp_path):
    records = [make_recorded(make_main(f"p{number}", **FILES), states=b"\0\0") for number in range(300)]
    first = written(*records).read_bytes()
    assert written(*records).read_bytes() == first
    for place in range(4096, len(first), 4096):
        page = first[place : place + 4096]
        if page[0] in {2, 5, 10, 13}:
            # Between the pages' index and their contents lies what sqlite's memory happened to hold.
            head = 12 if page[0] in {2, 5} else 8
            count, begin = struct.unpack_from(">HH", page, 3)
            assert not any(page[head + 2 * count : begin])
    # The numbers that differ from one version of sqlite to another, or from one way of writing to another.
    assert (first[18:20], first[24:28], first[92:100]) == (b"\1\1", b"\0\0\0\1", b"\0\0\0\1\0\x2e\x63\x01")
    assert sqlite3.connect(tmp_path / FOLDER.lstrip("/") / "rpmdb.sqlite").execute(
        "PRAGMA integrity_check"
    ).fetchall() == [("ok",)]


def test_another_process_writes_the_same_bytes(written, tmp_path):
    mine = written(make_recorded()).read_bytes()
    (tmp_path / "other").mkdir()
    program = (
        "import sys; from making.headers import make_recorded; from rootfsbuild.rootfs.inside import edit_root\n"
        "from rootfsbuild.formats.rpm.database import write_database\n"
        "with edit_root(sys.argv[1]) as root: write_database(root, '/db', [make_recorded()])"
    )
    path = os.pathsep.join(filter(None, sys.path))
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"}
    subprocess.run([sys.executable, "-c", program, tmp_path / "other"], check=True, env=environment)
    assert (tmp_path / "other/db/rpmdb.sqlite").read_bytes() == mine


def test_nothing_else_is_left(written, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "temporary").mkdir()
    path = written(make_recorded())
    assert os.listdir(path.parent) == ["rpmdb.sqlite"]
    assert os.listdir(tmp_path / "temporary") == []
    assert path.stat().st_mode & 0o7777 == 0o644


@pytest.mark.parametrize("make", [os.symlink, os.link])
def test_what_a_package_laid_there_is_replaced_not_followed(written, tmp_path, make):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    folder = tmp_path / FOLDER.lstrip("/")
    folder.mkdir(parents=True)
    make(victim, folder / "rpmdb.sqlite")
    path = written(make_recorded())
    assert victim.read_text() == "precious"
    assert not path.is_symlink()
    assert path.read_bytes().startswith(b"SQLite format 3\0")


def test_links_of_the_folder_stay_in_the_root(written, tmp_path):
    (tmp_path / "usr/lib/sysimage").mkdir(parents=True)
    os.symlink("/var/db", tmp_path / "usr/lib/sysimage/rpm")
    (tmp_path / "var/db").mkdir(parents=True)
    written(make_recorded())
    assert os.listdir(tmp_path / "var/db") == ["rpmdb.sqlite"]


def test_a_failing_sqlite_is_a_failing_write(written, monkeypatch):
    def fail(*_):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr("rootfsbuild.formats.rpm.database._check", fail)
    with pytest.raises(StorageError, match="disk is full"):
        written(make_recorded())
