from __future__ import annotations

import dataclasses
import hashlib
import os
import subprocess
import sys
import threading
import time

import pytest
from making import server as bad
from making.fetching import content, fetch_threads, make_fixtures, want
from making.server import serve, wait_until

from rootfsbuild import events
from rootfsbuild.errors import FetchError, IntegrityError, UntrustedError
from rootfsbuild.repository.mirrors import address
from rootfsbuild.repository.network import NetworkFetch, open_network
from rootfsbuild.repository.transfer import Limits

BODY = bytes(range(256)) * 400

store, pauses, fetch = make_fixtures()


def bodies(count, size=1000):
    return {f"/{number}": bytes([number]) * (size + number) for number in range(count)}


def test_document_and_the_url_that_gave_it(fetch):
    with serve({"/a": b"text"}) as server:
        assert fetch.document([f"{server.url}/a"], limit=10, label="a", accept=bytes.upper) == (
            b"TEXT",
            f"{server.url}/a",
        )


def test_document_that_one_mirror_lacks(fetch, pauses):
    with serve({"/b": b"text"}) as server:
        found = fetch.document([f"{server.url}/a", f"{server.url}/b"], limit=10, label="a", accept=bytes)
    assert found == (b"text", f"{server.url}/b")
    assert not pauses


def test_document_nowhere_names_every_url(fetch):
    with serve() as server, pytest.raises(FetchError) as caught:
        fetch.document([f"{server.url}/a", f"{server.url}/b"], limit=10, label="InRelease", accept=bytes)
    urls = [f"{server.url}/a", f"{server.url}/b"]
    assert [url for url, _ in caught.value.attempts] == urls == caught.value.absent
    assert all(f"{url}: HTTP 404" in str(caught.value) for url in urls)
    assert server.count("/a") == 1


def test_document_that_is_not_accepted_leads_to_the_next_mirror(fetch):
    def accept(data):
        if data != b"good":
            raise UntrustedError("it", "signature", "is bad")
        return data

    with serve({"/a": b"evil", "/b": b"good"}) as server:
        urls = [f"{server.url}/a", f"{server.url}/b"]
        assert fetch.document(urls, limit=10, label="it", accept=accept)[0] == b"good"
        with pytest.raises(UntrustedError, match="is bad"):
            fetch.document([urls[0], f"{server.url}/none"], limit=10, label="it", accept=accept)
        assert server.count("/a") == 2


def test_document_of_more_bytes_than_allowed(fetch):
    with serve({"/a": b"x" * 11}) as server, pytest.raises(FetchError, match="more than 10"):
        fetch.document([f"{server.url}/a"], limit=10, label="a", accept=bytes)


def test_password_in_a_mirrors_address_is_used_and_never_shown(fetch):
    with serve({"/b": b"wrong"}) as server:
        secret = server.url.replace("http://", "http://user:s3cret@")
        with pytest.raises(FetchError) as caught:
            fetch.document([f"{secret}/a"], limit=10, label="a", accept=bytes)
        assert server.asked[0].headers["authorization"].startswith("Basic ")
        with pytest.raises(IntegrityError) as wrong:
            fetch.blob(want(b"right", f"{secret}/b"))
    told = f"{caught.value} {caught.value.hint} {wrong.value} {wrong.value.hint}"
    assert f"{server.url}/a" in told
    assert f"{server.url}/b" in told
    assert "s3cret" not in told


def test_no_mirror_at_all(fetch):
    with pytest.raises(FetchError) as caught:
        fetch.document([], limit=10, label="a", accept=bytes)
    assert "--mirror" in caught.value.hint


def test_blob_is_fetched_once(fetch, store):
    with serve({"/a": BODY}) as server:
        wanted = want(BODY, f"{server.url}/a")
        path = fetch.blob(wanted)
        assert content(path) == BODY
        assert path == store.path(wanted.sha256) == fetch.blob(wanted)
        assert server.count("/a") == 1


def test_empty_blob(fetch):
    with serve({"/a": b""}) as server:
        assert content(fetch.blob(want(b"", f"{server.url}/a"))) == b""


@pytest.mark.parametrize("name", ["plain", "with space", "per%cent", "ü"])
def test_blob_from_a_file(fetch, tmp_path, name):
    (tmp_path / name).write_bytes(BODY)
    assert content(fetch.blob(want(BODY, address(str(tmp_path / name))))) == BODY


def test_file_that_is_not_there_or_no_file(fetch, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    urls = [f"file://{tmp_path}/{name}" for name in ("none", "pipe", "")]
    with pytest.raises(FetchError) as caught:
        fetch.blob(want(BODY, *urls))
    assert "No such file" in str(caught.value)
    assert "not a regular file" in str(caught.value)


def test_wrong_bytes_are_an_integrity_error_that_names_the_urls(fetch):
    wrong = BODY[::-1]
    with serve({"/a": wrong, "/b": wrong}) as server, pytest.raises(IntegrityError) as caught:
        fetch.blob(want(BODY, f"{server.url}/a", f"{server.url}/b"))
    assert hashlib.sha256(BODY).hexdigest() in caught.value.expected
    assert hashlib.sha256(wrong).hexdigest() in caught.value.actual
    assert f"{server.url}/b" in caught.value.hint


def test_blobs_come_as_they_complete_the_largest_asked_for_first(store):
    files = bodies(5)
    with serve(files) as server, open_network(store, limits=Limits(connections=1)) as fetch:
        wanted = [want(data, server.url + path, label=path) for path, data in files.items()]
        labels = [one.label for one, path in fetch.blobs(wanted) if content(path) == files[one.label]]
    assert labels == ["/4", "/3", "/2", "/1", "/0"]


def test_blobs_use_several_kept_connections(store):
    files = bodies(40)
    with serve(files, delay=0.01) as server, open_network(store) as fetch:
        wanted = [want(data, server.url + path) for path, data in files.items()]
        assert len(list(fetch.blobs(wanted))) == 40
        assert 2 <= server.busiest <= 8
        assert len({one.connection for one in server.asked}) <= 8
        server.files["/late"] = b"late"
        fetch.blob(want(b"late", f"{server.url}/late"))
        assert len({one.connection for one in server.asked}) <= 8


def test_connection_is_kept_after_a_404(store):
    with serve({"/a": b"text"}) as server, open_network(store) as fetch:
        fetch.document([f"{server.url}/none", f"{server.url}/a"], limit=10, label="a", accept=bytes)
        assert len({one.connection for one in server.asked}) == 1


def test_progress_sums_to_the_bytes_wanted(store):
    files = {**bodies(3, 50000), "/broken": BODY}
    heard = []
    faults = {"/broken": [bad.cut_off(40000), bad.ignore_range]}
    with serve(files, faults=faults) as server:
        fetch = NetworkFetch(store, heard.append, pause=lambda _: None)
        wanted = [want(data, server.url + path, label=path) for path, data in files.items()]
        list(fetch.blobs(wanted[:1]))
        heard.clear()
        list(fetch.blobs(wanted))
    assert all(isinstance(event, events.Progress) and event.stage == "fetch" for event in heard)
    for one in wanted:
        assert sum(event.amount for event in heard if event.detail == one.label) == one.size


def test_progress_is_reported_from_the_callers_thread(store):
    threads = set()
    files = bodies(10)
    with serve(files) as server:
        fetch = NetworkFetch(store, lambda _: threads.add(threading.get_ident()))
        list(fetch.blobs([want(data, server.url + path) for path, data in files.items()]))
    assert threads == {threading.get_ident()}


def test_one_failure_ends_all_transfers(store):
    files = bodies(10)
    faults = {path: [bad.silent] for path in files}
    with serve(files, faults=faults) as server:
        wanted = [want(data, server.url + path) for path, data in files.items()]
        wanted.append(want(b"x" * 9000, f"{server.url}/none", label="missing"))
        start = time.monotonic()
        with pytest.raises(FetchError, match="missing"):
            list(NetworkFetch(store).blobs(wanted))
        assert time.monotonic() - start < 3
        assert not fetch_threads()


def test_caller_that_stops_taking_ends_all_transfers(store):
    files = {"/big": b"b" * 5000, **bodies(10)}
    faults = {path: [bad.silent] for path in files if path != "/big"}
    with serve(files, faults=faults) as server:
        arrivals = NetworkFetch(store).blobs([want(data, server.url + path) for path, data in files.items()])
        assert next(arrivals)[0].size == 5000
        wait_until(lambda: server.busy >= 7)
        start = time.monotonic()
        arrivals.close()
        assert time.monotonic() - start < 3
        assert not fetch_threads()


def test_watchdog_ends_when_nothing_is_fetched(fetch):
    with serve({"/a": BODY, "/b": b"more"}) as server:
        fetch.blob(want(BODY, f"{server.url}/a"))
        wait_until(lambda: not any("watchdog" in thread.name for thread in threading.enumerate()))
        assert content(fetch.blob(want(b"more", f"{server.url}/b"))) == b"more"


def test_proxy_from_the_environment(fetch, monkeypatch):
    with serve({"http://archive.invalid/a": BODY}) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        assert content(fetch.blob(want(BODY, "http://archive.invalid/a"))) == BODY
        assert proxy.count("http://archive.invalid/a") == 1


def test_no_proxy_is_honoured(fetch, monkeypatch):
    monkeypatch.setenv("http_proxy", bad.closed_port())
    with serve({"/a": BODY}) as server:
        assert content(fetch.blob(want(BODY, f"{server.url}/a"))) == BODY


def test_server_that_cannot_be_reached_is_asked_last_from_then_on(fetch, monkeypatch):
    dead, tried = bad.closed_port(), []
    open_ = fetch._wire.open
    monkeypatch.setattr(fetch._wire, "open", lambda url, **named: tried.append(url) or open_(url, **named))
    with serve(bodies(3)) as server:
        for path, data in server.files.items():
            fetch.blob(want(data, dead + path, server.url + path))
    assert [url.startswith(dead) for url in tried] == [True, False, False, False]


def test_whole_family_of_imports_is_lazy():
    code = "import sys, rootfsbuild.repository.network, rootfsbuild.formats.deb.trusted; "
    code += "print([name for name in ('requests', 'urllib3', 'pysequoia') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_what_no_mirror_has_any_more_is_asked_of_the_archives_memory_one_at_a_time(fetch):
    blobs = [bytes([number]) * 1000 for number in range(4)]
    with serve({f"/file/{number}": data for number, data in enumerate(blobs)}, delay=0.05) as past, serve({}) as mirror:
        wanted = [
            dataclasses.replace(want(data, f"{mirror.url}/pool/{number}"), late=(f"{past.url}/file/{number}",))
            for number, data in enumerate(blobs)
        ]
        assert sorted(content(path) for _, path in fetch.blobs(wanted)) == blobs
        assert len(mirror.asked) == 4
        assert past.busiest == 1


def test_the_archives_memory_is_left_alone_where_a_mirror_answers(fetch):
    with serve({"/pool/a": b"here"}) as server:
        wanted = dataclasses.replace(want(b"here", f"{server.url}/pool/a"), late=(f"{server.url}/file/a",))
        assert content(fetch.blob(wanted)) == b"here"
        assert [one.path for one in server.asked] == ["/pool/a"]


def test_what_nobody_keeps_is_told_with_all_that_was_asked(fetch):
    with serve({}) as server:
        wanted = dataclasses.replace(want(b"x", f"{server.url}/pool/a"), late=(f"{server.url}/file/a",))
        with pytest.raises(FetchError) as caught:
            fetch.blob(wanted)
        assert [url for url, _ in caught.value.attempts] == [f"{server.url}/pool/a", f"{server.url}/file/a"]
