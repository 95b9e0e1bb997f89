from __future__ import annotations

import os
import threading

import pytest
from making.fetching import content, want

from rootfsbuild import events
from rootfsbuild.errors import FetchError, UntrustedError
from rootfsbuild.repository.offline import StoreFetch, arrivals
from rootfsbuild.repository.store import Store


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "cache"))


def test_blobs_of_the_store(store):
    bodies = [b"one", b"two, longer", b""]
    for body in bodies:
        store.put(body)
    heard = []
    fetch = StoreFetch(store, heard.append)
    wanted = [want(body, label=str(len(body))) for body in bodies]
    fetch.require(wanted)
    assert [(content(path), one.label) for one, path in fetch.blobs(wanted)] == [
        (b"two, longer", "11"),
        (b"one", "3"),
        (b"", "0"),
    ]
    assert [event.amount for event in heard] == [11, 3, 0]
    assert content(fetch.blob(wanted[0])) == b"one"
    assert heard[-1] == events.Progress("fetch", 3, "3")
    assert list(fetch.blobs([])) == []


def test_what_is_missing_is_listed_whole_and_in_its_order(store):
    store.put(b"here")
    wanted = [want(b"a" * 1_500_000, label="libc6 2.36"), want(b"here"), want(b"b", label="bash 5.2")]
    fetch = StoreFetch(store)
    for ask in (fetch.require, lambda all_: list(fetch.blobs(all_))):
        with pytest.raises(FetchError) as caught:
            ask(wanted)
        assert str(caught.value).splitlines() == [
            "cannot fetch 2 files (1.5 MB) that are not in the store:",
            "  libc6 2.36: not in the store",
            "  bash 5.2: not in the store",
        ]
        assert "--bundle" in caught.value.hint
    with pytest.raises(FetchError, match=r"1 file \(0.0 MB\) that is not"):
        fetch.blob(wanted[2])


def test_a_damaged_blob_is_missing_and_set_aside(tmp_path):
    heard = []
    store = Store(str(tmp_path / "cache"), heard.append)
    path = store.put(b"right")
    os.chmod(path, 0o644)
    with open(path, "r+b") as file:
        file.write(b"w")
    with pytest.raises(FetchError, match="not in the store"):
        StoreFetch(Store(store.root, heard.append)).require([want(b"right")])
    assert ["was damaged" in event.text for event in heard] == [True]


def test_documents_by_their_addresses(store):
    data = b"a document"
    sha256 = want(data).sha256
    store.keep_signed("debian", sha256, {"dists/sid/InRelease": data})
    fetch = StoreFetch(store)
    good = [f"signed:{sha256}/dists/sid/InRelease", "latest:debian/dists/sid/InRelease"]
    for url in good:
        assert fetch.document([url], limit=100, label="it", accept=bytes) == (data, url)
    bad = ["http://mirror.example/dists/sid/InRelease", "latest:other/dists/sid/InRelease", f"signed:{'1' * 64}/x", "x"]
    assert fetch.document([*bad, *good], limit=100, label="it", accept=len) == (10, good[0])
    with pytest.raises(FetchError) as caught:
        fetch.document(bad, limit=100, label="InRelease of debian sid", accept=len)
    assert caught.value.subject == "InRelease of debian sid"
    assert list(caught.value.absent) == bad
    assert [reason for _, reason in caught.value.attempts] == ["offline", *["not in the store"] * 2, "offline"]
    with pytest.raises(FetchError, match="has 10 bytes, more than 9") as caught:
        fetch.document(good[:1], limit=9, label="it", accept=len)
    assert list(caught.value.absent) == []


def test_a_document_that_is_refused_leads_to_the_next(store):
    for data in (b"bad", b"good"):
        store.keep_signed("debian", want(data).sha256, {"x/InRelease": data})

    def accept(data):
        if data == b"bad":
            raise UntrustedError("it", "signature", "is bad")
        return data

    urls = [f"signed:{want(data).sha256}/x/InRelease" for data in (b"bad", b"good")]
    fetch = StoreFetch(store)
    assert fetch.document(urls, limit=10, label="it", accept=accept) == (b"good", urls[1])
    with pytest.raises(UntrustedError, match="is bad"):
        fetch.document([urls[0], "http://mirror.example/x"], limit=10, label="it", accept=accept)


def test_arrivals_are_told_in_the_callers_thread_and_got_in_others():
    here, threads = threading.get_ident(), set()

    def get(one, _):
        threads.add(threading.get_ident())
        return one.label

    wanted = [want(bytes(size), label=str(size)) for size in range(20)]
    heard = []
    got = [path for _, path in arrivals(get, wanted, lambda _: heard.append(threading.get_ident()))]
    assert got == [str(size) for size in range(19, -1, -1)]
    assert set(heard) == {here}
    assert here not in threads


def test_whoever_stops_taking_stops_those_that_wait():
    waiting, waited = threading.Event(), []

    def get(one, pause):
        if one.size == 9:
            return "first"
        waiting.set()
        pause(5)
        waited.append(one)
        return "never"

    started = arrivals(get, [want(bytes(size)) for size in range(10)], events.ignore)
    assert next(started)[1] == "first"
    assert waiting.wait(10)
    started.close()
    assert waited == []
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("fetch_")]


def test_an_error_ends_it():
    def get(one, _):
        if one.size == 5:
            raise FetchError("it")
        return "path"

    seen = []
    with pytest.raises(FetchError):
        seen.extend(one.size for one, _ in arrivals(get, [want(bytes(size)) for size in range(10)], events.ignore))
    assert not seen or min(seen) > 5
