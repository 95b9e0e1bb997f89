from __future__ import annotations

import gzip
import hashlib
import itertools
import lzma
import time
from dataclasses import replace

import pytest
from making.keys import make_key
from making.server import instead, serve, status
from making.signed import DAY, write_repository

from rootfsbuild.distro import Archive, Key
from rootfsbuild.errors import FetchError, IntegrityError, UntrustedError
from rootfsbuild.events import Warned, ignore
from rootfsbuild.formats.deb.refresh import refresh, resolve_metadata
from rootfsbuild.plan import Request
from rootfsbuild.repository.mirrors import Mirror
from rootfsbuild.repository.network import open_network
from rootfsbuild.repository.sources import ANY_MOMENT, Sources
from rootfsbuild.repository.store import Store

NAME = "main/binary-amd64/Packages"


@pytest.fixture(scope="module")
def key():
    return make_key()


def packages(*names, version="1.0"):
    stanza = "Package: {}\nVersion: {}\nArchitecture: all\nFilename: pool/{}\nSize: 1\nSHA256: {}\nDescription: x\n"
    return "\n".join(stanza.format(name, version, name, "0" * 64) for name in names).encode()


class World:
    """A mirror on disk, and what it takes to read it."""

    def __init__(self, folder, key):
        self.folder, self.key = folder, key
        self.mirror = folder / "mirror"
        self.mirror.mkdir()
        self.archive = Archive("mine", ("bookworm",), keys=(Key("", key.write(folder / "key"), ""),))
        self.urls = [f"file://{self.mirror}"]
        self.relax = frozenset()
        self.past = frozenset()
        self.architecture = "amd64"

    def publish(self, files, suite="bookworm", **fields):
        fields.setdefault("Codename", suite)
        write_repository(self.mirror, self.key, files, suite=suite, **fields)
        return self

    def read(self, *archives, report=ignore):
        archives = archives or (self.archive,)
        store = Store(str(self.folder / "cache"))
        mirrors = {archive.name: tuple(Mirror(url, "test") for url in self.urls) for archive in archives}
        with store.in_use(), open_network(store, report) as fetch:
            sources = Sources(archives, self.architecture, mirrors, store, fetch, time.time, self.relax, past=self.past)
            return refresh(sources, report)


@pytest.fixture
def world(tmp_path, key):
    return World(tmp_path, key)


def names(metadata):
    request = Request("amd64", "custom", ("a",))
    return [package.name for package in resolve_metadata(request, metadata)]


def test_a_suite_becomes_packages_and_a_record_of_what_was_trusted(world, key):
    date = int(time.time()) - 100
    world.publish({NAME: packages("a", "b")}, date=date, valid_until=date + DAY)
    metadata = world.read()
    assert names(metadata) == ["a"]
    (snapshot,) = metadata.snapshots
    assert (snapshot.archive, snapshot.suite, snapshot.codename, snapshot.components) == (
        "mine",
        "bookworm",
        "bookworm",
        ("main",),
    )
    assert (snapshot.date, snapshot.valid_until, snapshot.signers) == (date, date + DAY, (key.fingerprint,))
    assert snapshot.mirror == world.urls[0]
    document = (world.mirror / "dists/bookworm/InRelease").read_bytes()
    assert snapshot.sha256 == hashlib.sha256(document).hexdigest()
    data = packages("a", "b")
    assert [(index.path, index.size, index.sha256) for index in snapshot.indexes] == [
        (NAME, len(data), hashlib.sha256(data).hexdigest())
    ]


# Which index


def test_the_smaller_of_the_compressions_is_read(world):
    data = packages("a")
    with serve(folder=world.mirror) as server:
        world.urls = [server.url]
        world.publish({NAME: data, f"{NAME}.gz": gzip.compress(data), f"{NAME}.xz": lzma.compress(data)})
        assert names(world.read()) == ["a"]
        assert {asked.path.split("/by-hash")[0] for asked in server.asked if "binary" in asked.path} == {
            "/dists/bookworm/main/binary-amd64"
        }
        xz = hashlib.sha256((world.mirror / "dists/bookworm" / f"{NAME}.xz").read_bytes()).hexdigest()
        assert [asked.path.rpartition("/")[2] for asked in server.asked if "binary" in asked.path] == [xz]


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
def test_any_compression_alone_will_do(world, suffix):
    compress = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress}[suffix]
    assert names(world.publish({NAME + suffix: compress(packages("a"))}).read()) == ["a"]


def test_without_by_hash_the_plain_name_is_asked_for(world):
    world.publish({NAME: packages("a")}, Acquire_By_Hash="no")
    with serve(folder=world.mirror) as server:
        world.urls = [server.url]
        assert names(world.read()) == ["a"]
        assert not any("by-hash" in asked.path for asked in server.asked)


def test_a_mirror_that_promises_by_hash_and_has_it_not_is_asked_for_the_plain_name(world):
    data = packages("a")
    world.publish({NAME: data})
    path = f"/dists/bookworm/main/binary-amd64/by-hash/SHA256/{hashlib.sha256(data).hexdigest()}"
    with serve(folder=world.mirror, faults={path: itertools.repeat(status(404))}) as server:
        world.urls = [server.url]
        assert names(world.read()) == ["a"]


def test_several_components_are_read_in_the_archives_order(world):
    files = {f"{component}/binary-amd64/Packages": packages(name) for component, name in (("main", "a"), ("x", "b"))}
    world.publish(files, Components="x main")
    metadata = world.read(replace(world.archive, components=("main", "x")))
    assert [index.path.split("/")[0] for index in metadata.snapshots[0].indexes] == ["main", "x"]
    assert metadata.universe.candidate("b").version == "1.0"


def test_two_components_without_packages_have_one_empty_index_between_them(world):
    files = {f"{component}/binary-amd64/Packages": b"" for component in ("contrib", "non-free")}
    world.publish({NAME: packages("a"), **files}, Components="main contrib non-free")
    metadata = world.read(replace(world.archive, components=("main", "contrib", "non-free")))
    assert len(metadata.snapshots[0].indexes) == 3
    assert names(metadata) == ["a"]


@pytest.mark.parametrize(
    ("component", "hint"),
    [("nonfree", 'did you mean "non-free"?'), ("zzz", "take zzz out of the archive's components")],
)
def test_a_component_that_the_suite_does_not_have(world, component, hint):
    world.publish({NAME: packages("a")}, Components="main contrib non-free")
    with pytest.raises(UntrustedError) as caught:
        world.read(replace(world.archive, components=("main", component)))
    assert str(caught.value) == f"mine bookworm: the suite has no component {component} (have: main, contrib, non-free)"
    assert (caught.value.rule, caught.value.hint) == ("mismatch", hint)


@pytest.mark.parametrize(("architecture", "hint"), [("arm46", 'did you mean "arm64"?'), ("s390x", "--arch")])
def test_an_architecture_that_the_suite_does_not_have(world, architecture, hint):
    world.publish({NAME: packages("a")}, Architectures="all amd64 arm64")
    world.architecture = architecture
    with pytest.raises(UntrustedError) as caught:
        world.read()
    assert str(caught.value) == f"mine bookworm: the suite has no architecture {architecture} (have: amd64, arm64)"
    assert caught.value.rule == "mismatch"
    assert hint in caught.value.hint


@pytest.mark.parametrize("drop", [(), ("Architectures", "Components")])
def test_a_release_that_lists_no_packages_file_of_what_it_claims(world, drop):
    world.publish({NAME: packages("a")}, Components="main contrib", drop=drop)
    with pytest.raises(UntrustedError, match="lists no Packages file with a SHA-256 for contrib/amd64") as caught:
        world.read(replace(world.archive, components=("main", "contrib")))
    assert caught.value.rule == "mismatch"


# Several suites


def test_the_newest_version_of_all_suites_is_the_candidate(world):
    world.publish({NAME: packages("a", version="1.0")})
    world.publish({NAME: packages("a", version="1.1")}, suite="bookworm-updates")
    metadata = world.read(replace(world.archive, suites=("bookworm", "bookworm-updates")))
    assert metadata.universe.candidate("a").version == "1.1"
    assert [snapshot.suite for snapshot in metadata.snapshots] == ["bookworm", "bookworm-updates"]


@pytest.mark.parametrize(
    ("fields", "priority", "pin"),
    [
        ({}, None, 500),
        ({"NotAutomatic": "yes"}, None, 1),
        ({"NotAutomatic": "yes", "ButAutomaticUpgrades": "yes"}, None, 100),
        ({"ButAutomaticUpgrades": "yes"}, None, 500),
        ({"NotAutomatic": "yes"}, 990, 990),
        ({}, 50, 50),
    ],
)
def test_pins_are_those_of_apt_preferences(world, fields, priority, pin):
    text = "".join(f"{name}: {value}\n" for name, value in fields.items())
    world.publish({NAME: packages("a")}, extra=text)
    metadata = world.read(replace(world.archive, priority=priority))
    assert [placed.pin for placed in metadata.universe.placed] == [pin]


# What is not believed


def test_an_index_that_is_not_the_promised_one(world):
    world.publish({NAME: packages("a")})
    suite = world.mirror / "dists/bookworm"
    for path in (suite / NAME, *suite.glob("main/binary-amd64/by-hash/SHA256/*")):
        path.write_bytes(packages("evil"))
    with pytest.raises((IntegrityError, FetchError)) as caught:
        world.read()
    assert NAME in str(caught.value)


def test_a_mirror_in_the_middle_of_a_push_is_looked_at_again(world):
    old = packages("a", version="1.0")
    world.publish({NAME: old}, date=time.time() - 500, Acquire_By_Hash="no")
    before = (world.mirror / "dists/bookworm/InRelease").read_bytes()
    world.publish({NAME: packages("a", version="1.1")}, Acquire_By_Hash="no")
    with serve(folder=world.mirror, faults={"/dists/bookworm/InRelease": iter([instead(before)])}) as server:
        world.urls = [server.url]
        assert world.read().universe.candidate("a").version == "1.1"
        assert server.count("/dists/bookworm/InRelease") == 2


def test_a_mirror_that_stays_broken_is_given_up_after_the_second_look(world):
    world.publish({NAME: packages("a")})
    with serve(folder=world.mirror) as server:
        for path in world.mirror.glob("dists/bookworm/main/**/*"):
            if path.is_file():
                path.unlink()
        world.urls = [server.url]
        with pytest.raises(FetchError):
            world.read()
        assert server.count("/dists/bookworm/InRelease") == 2


def test_the_next_mirror_serves_what_the_first_lacks(world):
    world.publish({NAME: packages("a")})
    (world.folder / "empty").mkdir()
    world.urls = [f"file://{world.folder / 'empty'}", *world.urls]
    metadata = world.read()
    assert metadata.snapshots[0].mirror == world.urls[1]


def test_a_password_of_a_mirror_is_not_recorded(world):
    world.publish({NAME: packages("a")})
    with serve(folder=world.mirror) as server:
        world.urls = [server.url.replace("http://", "http://me:secret@")]
        (snapshot,) = world.read().snapshots
    assert "secret" not in snapshot.mirror
    assert snapshot.mirror == server.url


def test_what_a_past_moment_asks_for_may_be_old(world):
    world.publish({NAME: packages("a")}, date=time.time() - 50 * DAY, valid_until=time.time() - 40 * DAY)
    with pytest.raises(UntrustedError, match="was valid until"):
        world.read()
    world.past = ANY_MOMENT
    said = []
    assert names(world.read(report=said.append)) == ["a"]
    assert [event for event in said if isinstance(event, Warned) and event.weakens] == []


def test_a_check_that_is_switched_off_is_told(world):
    world.publish({NAME: packages("a")}, date=time.time() - 50 * DAY, valid_until=time.time() - 40 * DAY)
    world.relax = frozenset({"expired"})
    said = []
    world.read(report=said.append)
    assert [event.weakens for event in said if isinstance(event, Warned)] == ["expired"]


def test_an_unchanged_index_is_not_fetched_again(world):
    world.publish({NAME: packages("a")})
    with serve(folder=world.mirror) as server:
        world.urls = [server.url]
        world.read()
        world.read()
        assert sum("binary-amd64" in asked.path for asked in server.asked) == 1
