"""What was believed is kept, so that the same can be read again from the store alone."""

from __future__ import annotations

import hashlib
import shutil
import time

import pytest
from making.keys import make_key
from making.signed import DAY, write_repository

from rootfsbuild.distro import Archive, Key
from rootfsbuild.errors import FetchError, UntrustedError
from rootfsbuild.events import ignore
from rootfsbuild.formats.deb.refresh import refresh
from rootfsbuild.repository.mirrors import Mirror
from rootfsbuild.repository.network import open_network
from rootfsbuild.repository.offline import StoreFetch
from rootfsbuild.repository.signed import document_sets
from rootfsbuild.repository.sources import ANY_MOMENT, CARRIED, Sources
from rootfsbuild.repository.store import Store


@pytest.fixture(scope="module")
def key():
    return make_key()


class World:
    def __init__(self, folder, key):
        self.mirror, self.key = folder / "mirror", key
        self.store = Store(str(folder / "cache"))
        self.archive = Archive("mine", ("bookworm",), keys=(Key("", key.write(folder / "key"), ""),))

    def read(self, fetch, url, **named):
        sources = Sources(
            (self.archive,),
            "amd64",
            {"mine": (Mirror(url, "test"),)},
            self.store,
            fetch,
            time.time,
            named.pop("relax", frozenset()),
            **named,
        )
        (snapshot,) = refresh(sources, ignore).snapshots
        return snapshot

    def online(self, **named):
        with open_network(self.store) as fetch:
            return self.read(fetch, f"file://{self.mirror}", **named)

    def offline(self, url="latest:mine", **named):
        return self.read(StoreFetch(self.store), url, **named)

    def documents(self, snapshot):
        return [[self.store.signed(snapshot.sha256, path) for path in paths] for paths in document_sets(snapshot)]


@pytest.fixture
def world(tmp_path, key):
    return World(tmp_path, key)


@pytest.mark.parametrize("forms", [("InRelease",), ("Release",), ("InRelease", "Release")])
def test_what_was_read_online_is_read_offline(world, forms):
    write_repository(world.mirror, world.key, forms=forms)
    online = world.online()
    place = world.mirror / "dists/bookworm"
    pair = "InRelease" not in forms
    names = ["Release", "Release.gpg"] if pair else ["InRelease"]
    assert world.documents(online)[pair] == [(place / name).read_bytes() for name in names]
    assert online.sha256 == hashlib.sha256((place / names[0]).read_bytes()).hexdigest()
    shutil.rmtree(world.mirror)
    for url in ("latest:mine", f"signed:{online.sha256}"):
        offline = world.offline(url, past=CARRIED)
        assert offline.mirror == url
        assert (offline.sha256, offline.signers, offline.indexes) == (online.sha256, online.signers, online.indexes)


def test_the_newer_form_takes_the_place_of_the_other(world):
    write_repository(world.mirror, world.key, forms=("InRelease",), date=time.time() - 900)
    world.online()
    write_repository(world.mirror, world.key, forms=("Release",), date=time.time() - 500)
    pair = world.online()
    assert world.offline().sha256 == pair.sha256


def test_a_moment_of_the_past_is_not_what_the_archive_says_now(world):
    write_repository(world.mirror, world.key, date=time.time() - 100)
    now = world.online()
    write_repository(world.mirror, world.key, date=time.time() - 9 * DAY)
    past = world.online(past=ANY_MOMENT)
    assert past.sha256 != now.sha256
    assert world.offline().sha256 == now.sha256
    assert world.offline(f"signed:{past.sha256}", past=ANY_MOMENT).sha256 == past.sha256
    # Kept or not: older than what was seen is a rollback wherever it comes from.
    with pytest.raises(UntrustedError, match="rollback"):
        world.offline(f"signed:{past.sha256}", past=CARRIED)


def test_what_is_refused_is_not_kept(world):
    write_repository(world.mirror, make_key())
    with pytest.raises(UntrustedError):
        world.online()
    with pytest.raises(FetchError) as caught:
        world.offline()
    assert caught.value.subject == "InRelease of mine bookworm"
    # Let pass by name, it is kept: a lock of it can be carried like any other, under the same name.
    unsigned = world.online(relax=frozenset({"unsigned"}))
    assert unsigned.signers == ()
    assert world.offline(relax=frozenset({"unsigned"})).sha256 == unsigned.sha256
    with pytest.raises(UntrustedError):
        world.offline()
