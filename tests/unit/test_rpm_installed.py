from __future__ import annotations

import contextlib
import os
import sqlite3
import sys

import pytest
from making.headers import make_main, make_recorded, numbers, text

from rootfsbuild.errors import PackageError, UsageError
from rootfsbuild.formats.rpm.database import write_database
from rootfsbuild.formats.rpm.header import Type
from rootfsbuild.formats.rpm.installed import installed
from rootfsbuild.formats.rpm.merge import merge
from rootfsbuild.listed import Listed
from rootfsbuild.rootfs.inside import edit_root

NEW, OLD = "usr/lib/sysimage/rpm", "var/lib/rpm"
CREATE = "CREATE TABLE 'Packages' (hnum INTEGER PRIMARY KEY AUTOINCREMENT,blob BLOB NOT NULL)"
COMPUTED = "CREATE TABLE Packages (hnum INTEGER PRIMARY KEY, blob AS (zeroblob(1000000000)))"
ENDLESS = """
CREATE VIEW Packages AS WITH RECURSIVE more(hnum, blob) AS
(SELECT 1, x'00' UNION ALL SELECT hnum + 1, blob FROM more) SELECT * FROM more
"""


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "root"
    (root / OLD).mkdir(parents=True)
    return root


def write(root, *mains, folder=OLD):
    with edit_root(str(root)) as inside:
        write_database(inside, f"/{folder}", [make_recorded(main) for main in mains])


def write_raw(root, *statements, blobs=()):
    with sqlite3.connect(root / OLD / "rpmdb.sqlite") as database:
        for statement in statements:
            database.execute(statement)
        for blob in blobs:
            database.execute("INSERT INTO Packages (blob) VALUES (?)", (blob,))
    database.close()


def test_what_is_read_of_a_package(root):
    write(
        root,
        make_main(
            "bash-libs", "5.1", "2.el9", ARCH=text("x86_64"), SOURCERPM=text("bash-5.1-2.src.rpm"), SIZE=numbers(77)
        ),
    )
    assert installed(str(root)) == (Listed("bash-libs", "5.1-2.el9", "x86_64", "bash", "5.1-2", 77),)


def test_epoch_size_and_source_that_are_said_otherwise(root):
    write(
        root, make_main("a", EPOCH=numbers(2), SIZE=numbers(1), LONGSIZE=(Type.INT64, [1 << 33]), SOURCERPM=text("?"))
    )
    assert installed(str(root)) == (Listed("a", "2:1.0-1", "noarch", "a", "1.0-1", 1 << 33),)


def test_an_epoch_of_zero_is_not_written(root):
    write(root, make_main("a", EPOCH=numbers(0)))
    assert [package.version for package in installed(str(root))] == ["1.0-1"]


def test_packages_are_sorted_and_may_be_there_in_two_versions(root):
    write(root, make_main("kernel", "2"), make_main("b"), make_main("a"), make_main("kernel", "1"))
    found = [(package.name, package.version) for package in installed(str(root))]
    assert found == [("a", "1.0-1"), ("b", "1.0-1"), ("kernel", "1-1"), ("kernel", "2-1")]


def test_keys_are_no_packages(root):
    write(root, make_main("gpg-pubkey", ARCH=None), make_main("a"))
    assert [package.name for package in installed(str(root))] == ["a"]


def test_a_database_may_list_nothing(root):
    write(root)
    assert installed(str(root)) == ()


@pytest.mark.parametrize("folder", [NEW, OLD])
def test_both_places_are_known(root, folder):
    write(root, make_main("a"), folder=folder)
    assert len(installed(str(root))) == 1


def test_one_place_may_lead_to_the_other(root):
    write(root, make_main("a"), folder=NEW)
    (root / OLD).rmdir()
    os.symlink("../../usr/lib/sysimage/rpm", root / OLD)
    assert len(installed(str(root))) == 1


def test_what_is_still_in_the_journal_is_read(root):
    database = sqlite3.connect(root / OLD / "rpmdb.sqlite", isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute(CREATE)
    database.execute("INSERT INTO Packages (blob) VALUES (?)", (merge(make_recorded()),))
    before = {name: (root / OLD / name).read_bytes() for name in os.listdir(root / OLD)}
    assert len(before["rpmdb.sqlite-wal"]) > 0
    assert [package.name for package in installed(str(root))] == ["alpha"]
    assert {name: (root / OLD / name).read_bytes() for name in os.listdir(root / OLD)} == before
    database.close()


def test_a_root_without_a_database(root):
    with pytest.raises(PackageError, match="no root that rpm knows"):
        installed(str(root))
    with pytest.raises(UsageError, match="No such file"):
        installed(str(root / "nowhere"))


@pytest.mark.parametrize(("name", "format_"), [("Packages", "Berkeley DB"), ("Packages.db", "ndb")])
def test_other_formats_are_named(root, name, format_):
    (root / OLD / name).write_bytes(b"")
    with pytest.raises(PackageError, match=f"the format {format_} of rpm's database is not read here") as raised:
        installed(str(root))
    assert "rpm -qa" in raised.value.hint


def test_a_database_beside_an_older_one_is_read(root):
    (root / OLD / "Packages").write_bytes(b"")
    write(root, make_main("a"))
    assert len(installed(str(root))) == 1


def test_links_do_not_lead_out(root, tmp_path):
    (tmp_path / "outside").mkdir()
    write(tmp_path / "outside", make_main("a"))
    os.symlink(tmp_path / "outside" / OLD / "rpmdb.sqlite", root / OLD / "rpmdb.sqlite")
    with pytest.raises(PackageError):
        installed(str(root))


def test_links_that_lead_nowhere_are_refused(root):
    (root / OLD).rmdir()
    os.symlink("rpm", root / OLD)
    with pytest.raises(PackageError, match="Too many levels"):
        installed(str(root))


def test_only_files_are_read(root):
    os.mkfifo(root / OLD / "rpmdb.sqlite")
    with pytest.raises(PackageError, match="not a regular file"):
        installed(str(root))


def test_size_is_bounded(root, monkeypatch):
    write(root, make_main("a"))
    monkeypatch.setattr(sys.modules[installed.__module__], "_LIMIT", 1000)
    with pytest.raises(PackageError, match="larger than 1000 bytes"):
        installed(str(root))


@pytest.mark.parametrize("data", [b"", b"no database", b"SQLite format 3\0" + b"\xff" * 5000])
def test_what_is_no_database_is_refused(root, data):
    (root / OLD / "rpmdb.sqlite").write_bytes(data)
    with pytest.raises(PackageError, match="it is not rpm's database"):
        installed(str(root))


@pytest.mark.parametrize("flip", [3000, 8192 + 5, 8192 + 40])
def test_flipped_bytes_are_refused_or_harmless(root, flip):
    write(root, *(make_main(f"p{number}") for number in range(50)))
    path = root / OLD / "rpmdb.sqlite"
    data = bytearray(path.read_bytes())
    data[flip] ^= 0xFF
    path.write_bytes(data)
    with contextlib.suppress(PackageError):
        assert len(installed(str(root))) <= 50


@pytest.mark.parametrize(
    "statements",
    [
        # What would compute for ever or read something else.
        (ENDLESS,),
        (COMPUTED, "INSERT INTO Packages VALUES (1)"),
        ("CREATE TABLE other (hnum, blob)", "CREATE VIEW Packages AS SELECT hnum, blob FROM other"),
        ("CREATE TABLE Packages (hnum, blob)", "INSERT INTO Packages VALUES (2, x'00'), (2, x'00')"),
        ("CREATE TABLE Packages (hnum, blob)", "INSERT INTO Packages VALUES ('one', x'00')"),
        ("CREATE TABLE Packages (hnum, blob)", "INSERT INTO Packages VALUES (1, 'text')"),
        ("CREATE TABLE Packages (hnum INTEGER PRIMARY KEY)",),
        ("CREATE TABLE Something (hnum INTEGER PRIMARY KEY)",),
    ],
)
def test_what_rpm_would_not_have_made_is_refused(root, statements):
    write_raw(root, *statements)
    with pytest.raises(PackageError):
        installed(str(root))


def test_the_record_is_named_that_is_damaged(root):
    good = merge(make_recorded())
    write_raw(root, CREATE, blobs=[good, good[:-1]])
    with pytest.raises(PackageError, match=r"/var/lib/rpm/rpmdb\.sqlite: record 2: .*another length"):
        installed(str(root))


@pytest.mark.parametrize("name", ["", "a b", "a/b", "a\x1b[2J", "caf\udce9", "x" * 300])
def test_names_that_rpm_would_not_take_are_refused(root, name):
    write(root, make_main(name))
    with pytest.raises(PackageError, match="tag 1000 cannot be"):
        installed(str(root))
