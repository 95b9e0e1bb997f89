"""rpm's database, against rpm's own one: of packages that rpm installs here, and of a real distribution."""

from __future__ import annotations

import os
import pathlib
import shutil
import sqlite3
import subprocess

import pytest
from making.headers import take_apart

from rootfsbuild.formats.rpm import tags
from rootfsbuild.formats.rpm.database import export, write_database
from rootfsbuild.formats.rpm.database_indexes import INDEXES
from rootfsbuild.formats.rpm.header import SIGNATURE, parse_header
from rootfsbuild.formats.rpm.installed import installed
from rootfsbuild.formats.rpm.merge import Recorded, merge
from rootfsbuild.rootfs.inside import edit_root

pytestmark = pytest.mark.oracle
MARINER = pathlib.Path(__file__).parents[3] / "shared/data/mariner2-rpmdb.sqlite"
FOLDER = "/var/lib/rpm"
EPOCH = 1_600_000_000
DOC = 2

needs_rpm = [
    pytest.mark.skipif(shutil.which("rpmbuild") is None, reason="rpmbuild is not here: install rpm"),
    pytest.mark.skipif(os.geteuid() != 0, reason="rpm --root needs to be root"),
]

HEAD = """
Version: 1.0
Release: 1
Summary: a package made by a test
License: MIT
BuildArch: noarch
"""
TAIL = "%description\nA package made by a test.\n"
SPECS = {
    "plain": """
Name: plain
Group: System/Base
Epoch: 3
Provides: virtual = 2, virtual(x)
Obsoletes: forebear < 2
Conflicts: foe
%install
mkdir -p %{buildroot}/etc/plain.d %{buildroot}/usr/share/doc/plain %{buildroot}/var/log
echo one > %{buildroot}/etc/plain.conf
echo two > %{buildroot}/usr/share/doc/plain/README
echo log > %{buildroot}/var/log/plain.log
ln -s plain.conf %{buildroot}/etc/plain.link
%files
%dir /etc/plain.d
%config(noreplace) /etc/plain.conf
/etc/plain.link
%doc /usr/share/doc/plain/README
%ghost /var/log/plain.log
""",
    "empty": "Name: empty\n%files\n",
    "needy": """
Name: needy
Requires: plain >= 3:1.0
Requires(pre): empty
Requires(post): virtual
Requires(post,preun): virtual(x)
Requires(meta): empty
Requires: (plain or missing), (missing if (absent or lost) else virtual), (empty and (plain if (gone and lost)))
Recommends: (fine if plain), better
Suggests: best
Supplements: (plain and lost)
Enhances: empty
Conflicts: (foe or enemy < 2), (foe unless (plain or gone))
%pre -p <lua>
io.stdout:write("")
%files
""",
    "trigger": """
Name: trigger
Requires: plain
%files
%triggerin -p <lua> -- plain, empty
io.stdout:write("")
%triggerun -p <lua> -- plain
io.stdout:write("")
%triggerin -p <lua> -- needy
io.stdout:write("")
%filetriggerin -p <lua> -- /usr/share, /etc
io.stdout:write("")
%filetriggerin -P 1 -p <lua> -- /etc
io.stdout:write("")
%transfiletriggerin -p <lua> -- /usr, /opt
io.stdout:write("")
%transfiletriggerpostun -p <lua> -- /var
io.stdout:write("")
""",
    "moving": """
Name: moving
Prefix: /opt/moving
Prefix: /srv
%install
mkdir -p %{buildroot}/opt/moving
echo three > %{buildroot}/opt/moving/file
%files
%attr(4755,root,root) /opt/moving/file
""",
}
LATER = "Name: later\nRequires: plain\n%files\n"


@pytest.fixture(scope="module")
def rpm(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    (home / ".rpmmacros").write_text(f"%_dbpath {FOLDER}\n%_topdir {home}/build\n%_buildshell /bin/bash\n")
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "LC_ALL": "C", "SOURCE_DATE_EPOCH": str(EPOCH)}

    def run(*arguments, **options):
        done = subprocess.run(list(map(str, arguments)), env=environment, capture_output=True, check=False, **options)
        assert done.returncode == 0, (arguments, done.stderr.decode())
        return done.stdout

    return run


@pytest.fixture(scope="module")
def build(rpm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("specs")

    def build(name, spec):
        body = spec.replace(f"Name: {name}\n", f"Name: {name}\n{HEAD}", 1)
        cut = min(at for at in map(body.find, ("%install", "%pre", "%files")) if at >= 0)
        (folder / f"{name}.spec").write_text(body[:cut] + TAIL + body[cut:])
        rpm("rpmbuild", "-bb", "--define", f"_rpmdir {folder}", folder / f"{name}.spec")
        return folder / f"noarch/{name}-1.0-1.noarch.rpm"

    return build


@pytest.fixture(scope="module")
def packages(build):
    return {name: build(name, spec) for name, spec in SPECS.items()}


@pytest.fixture(scope="module")
def theirs(rpm, packages, tmp_path_factory):
    """A root into which rpm installed the packages, documentation left out."""
    root = tmp_path_factory.mktemp("theirs")
    rpm("rpm", "--root", root, "-i", "--excludedocs", "--nodeps", *packages.values())
    return root


@pytest.fixture
def ours(rpm, packages, theirs, tmp_path):
    """The same root with our database instead."""
    root = tmp_path / "ours"
    shutil.copytree(theirs, root, symlinks=True)
    shutil.rmtree(root / FOLDER.lstrip("/"))
    color = int(rpm("rpm", "--eval", "%{?_transaction_color}%{!?_transaction_color:0}"))
    order = [name for _, name in rows(theirs, "SELECT hnum, key FROM Name ORDER BY hnum")]
    with edit_root(str(root)) as inside:
        records = [record(packages[name.decode()], color, place) for place, name in enumerate(order)]
        write_database(inside, FOLDER, records)
    return root


def record(path, color, place):
    data = path.read_bytes()
    signature, length = parse_header(data[96:], path.name, SIGNATURE, region=tags.HEADERSIGNATURES)
    main, _ = parse_header(data[96 + length + -length % 8 :], path.name)
    states = bytes(2 if flags & DOC else 0 for flags in main.numbers(tags.FILEFLAGS))
    # With SOURCE_DATE_EPOCH rpm lets a second pass with each package, so that their order can be told afterwards.
    return Recorded(signature, main, states, color, EPOCH + place, EPOCH)


def rows(root, query):
    database = sqlite3.connect(f"file:{root / FOLDER.lstrip('/') / 'rpmdb.sqlite'}?mode=ro", uri=True)
    database.text_factory = bytes
    try:
        return database.execute(query).fetchall()
    finally:
        database.close()


def dump(root):
    """All of a database: how its tables were made, and their rows in the order in which they were written."""
    # sqlite_stat1 is what sqlite remembers of its own planning: rpm asks for that when it closes the database.
    created = rows(root, "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE name != 'sqlite_stat1'")
    tables = {
        index.name: rows(root, f"SELECT rowid, key, typeof(key), hnum, idx FROM '{index.name}' ORDER BY rowid")
        for index in INDEXES
    }
    tables["Packages"] = rows(root, "SELECT hnum, blob FROM Packages ORDER BY hnum")
    tables["sqlite_sequence"] = rows(root, "SELECT * FROM sqlite_sequence")
    return created, tables


class TestOfPackagesThatRpmInstalls:
    pytestmark = needs_rpm

    def test_every_table_is_the_same(self, ours, theirs):
        assert len(INDEXES) == 18
        (our_schema, our_tables), (their_schema, their_tables) = dump(ours), dump(theirs)
        assert our_schema == their_schema
        assert our_tables == their_tables
        # Sigmd5 and the like hold something for each, the others what the packages were made for.
        assert {name for name, found in our_tables.items() if not found} == set()

    def test_what_rpm_says_is_the_same(self, rpm, ours, theirs):
        for query in (
            ["-qa"],
            ["-qi", "plain"],
            ["-q", "needy", "--requires", "--recommends", "--suggests", "--supplements", "--enhances", "--conflicts"],
            ["-q", "trigger", "--triggers", "--filetriggers"],
            ["-qf", "/etc/plain.conf", "/opt/moving/file"],
            ["-q", "--whatrequires", "plain"],
            ["-q", "--whatprovides", "virtual"],
            ["-q", "--whatrecommends", "better"],
            ["-q", "--whatconflicts", "enemy"],
            ["-q", "--whatobsoletes", "forebear"],
            ["-q", "--triggeredby", "plain"],
            ["-qsl", "plain"],
            ["-q", "--group", "System/Base"],
            ["-qa", "--xml"],
            ["-V", "plain", "moving", "empty"],
            ["-Va", "--nodeps"],
        ):
            said = [rpm("rpm", "--root", root, *query) for root in (ours, theirs)]
            assert said[0] == said[1], query
            assert said[0] or "-V" in query[0], query

    def test_rpm_goes_on_from_there(self, rpm, build, ours, theirs, tmp_path):
        twin = tmp_path / "theirs"
        shutil.copytree(theirs, twin, symlinks=True)
        later = build("later", LATER)
        for root in (ours, twin):
            rpm("rpm", "--root", root, "-e", "moving")
            rpm("rpm", "--root", root, "-i", later)
            rpm("rpm", "--root", root, "-e", "plain", "--nodeps")
            rpm("rpmdb", "--root", root, "--verifydb")
        assert not (ours / "opt/moving/file").exists()
        assert not (ours / "etc/plain.link").exists()
        assert dump(ours) == dump(twin)
        assert b"later-1.0-1.noarch\n" in rpm("rpm", "--root", ours, "-qa")

    def test_rpm_rebuilds_the_same(self, rpm, ours):
        before = dump(ours)
        rpm("rpmdb", "--root", ours, "--rebuilddb")
        after = dump(ours)
        assert after[1] == before[1]

    def test_what_we_read_of_it(self, theirs, packages):
        assert {(package.name, package.version) for package in installed(str(theirs))} == {
            (name, "3:1.0-1" if name == "plain" else "1.0-1") for name in packages
        }

    def test_exported_packages(self, rpm, ours, theirs, tmp_path):
        stream = rpm("rpmdb", "--root", theirs, "--exportdb")
        records = [take_apart(blob) for _, blob in rows(ours, "SELECT hnum, blob FROM Packages ORDER BY hnum")]
        assert b"".join(export(records)) == stream
        (tmp_path / "imported").mkdir()
        rpm("rpmdb", "--root", tmp_path / "imported", "--importdb", input=b"".join(export(records)))
        assert dump(tmp_path / "imported")[1] == dump(ours)[1]


@pytest.mark.skipif(not MARINER.exists(), reason="the database of a real Mariner 2.0 is not here")
class TestOfARealDistribution:
    @pytest.fixture
    def real(self, tmp_path):
        root = tmp_path / "real"
        (root / "var/lib/rpm").mkdir(parents=True)
        # A copy: sqlite would write beside it.
        shutil.copy(MARINER, root / "var/lib/rpm/rpmdb.sqlite")
        return root

    def test_every_header_and_every_table_is_given_back(self, real, tmp_path):
        blobs = [blob for _, blob in rows(real, "SELECT hnum, blob FROM Packages ORDER BY hnum")]
        records = [take_apart(blob) for blob in blobs]
        assert len(blobs) == 129
        assert [merge(record) for record in records] == blobs
        (tmp_path / "ours").mkdir()
        with edit_root(str(tmp_path / "ours")) as root:
            write_database(root, FOLDER, records)
        assert dump(tmp_path / "ours") == dump(real)
        assert sum(len(dump(real)[1][index.name]) for index in INDEXES) == 12_786

    def test_its_packages(self, real):
        found = {package.name: package for package in installed(str(real))}
        assert len(found) == 129
        assert found["audit-libs"].source == "audit"
        assert found["glibc"].architecture == "x86_64"
