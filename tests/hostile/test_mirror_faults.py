"""Mirrors that fail or lie: the right bytes in the end, or a clear error, and never for ever."""

from __future__ import annotations

import contextlib
import email.utils
import hashlib
import itertools
import os
import signal
import subprocess
import threading
import time
from unittest import mock

import pytest
from making import server as bad
from making.fetching import content, fetch_threads, make_fixtures, want
from making.server import serve, wait_until

from rootfsbuild.errors import FetchError, IntegrityError, StorageError
from rootfsbuild.repository.network import NetworkFetch
from rootfsbuild.repository.store import Store
from rootfsbuild.repository.transfer import Limits

BODY = os.urandom(100_000)
DIGEST = hashlib.sha256(BODY).hexdigest()
FAST = Limits(connect=0.5, read=0.4, window=0.4, rate=1500, document=0.6, tries=3)

store, pauses, fetch = make_fixtures(limits=FAST)


def get(fetch, *urls):
    return content(fetch.blob(want(BODY, *urls)))


def prepare(store, partial):
    """Leave a partial download behind, as a build that was killed would."""
    with store.claim(DIGEST, time.sleep) as claim:
        claim.write(partial)


def faulty(*faults, path="/a"):
    return serve({path: BODY, "/good": BODY}, faults={path: faults})


# Truncated, garbage, wrong length, HTML with status 200


@pytest.mark.parametrize(
    "fault",
    [
        bad.instead(b"<html>Log in to this network</html>"),
        bad.instead(os.urandom(len(BODY))),
        bad.instead(BODY[:-1]),
        bad.instead(BODY + b"x"),
        bad.instead(b""),
        bad.status(403),
        bad.hang_up,
        bad.cut_off(0),
        bad.cut_off(50_000),
    ],
    ids=["html", "garbage", "short", "long", "empty", "forbidden", "hang-up", "nothing", "half"],
)
def test_bad_bytes_are_rejected_and_the_next_mirror_is_asked(fetch, fault):
    with faulty(*itertools.repeat(fault, 5)) as server:
        assert get(fetch, f"{server.url}/a", f"{server.url}/good") == BODY


def test_hash_mismatch_is_never_retried_on_the_same_url(fetch, pauses):
    with faulty(*itertools.repeat(bad.instead(BODY[::-1]), 5)) as server:
        with pytest.raises(IntegrityError):
            get(fetch, f"{server.url}/a")
        assert server.count("/a") == 1
    assert not pauses


def test_wrong_length_is_refused_before_the_body_is_read(fetch):
    with faulty(bad.instead(b"x", Content_Length=10**15)) as server:
        with pytest.raises(IntegrityError, match="100000 bytes"):
            get(fetch, f"{server.url}/a")
        assert server.count("/a") == 1


# 404


def test_404_on_all_mirrors_names_every_url(fetch):
    with serve() as one, serve() as two, pytest.raises(FetchError) as caught:
        get(fetch, f"{one.url}/a", f"{two.url}/a")
    assert f"{one.url}/a: HTTP 404" in str(caught.value)
    assert f"{two.url}/a: HTTP 404" in str(caught.value)


def test_mirror_that_is_down_is_passed_by_and_named(fetch, pauses):
    dead = bad.closed_port()
    with serve({"/a": BODY}) as server:
        assert get(fetch, f"{dead}/a", f"{server.url}/a") == BODY
    assert not pauses
    with pytest.raises(FetchError, match="Connection refused"):
        fetch.document([f"{dead}/b"], limit=10, label="b", accept=bytes)


# Slow, endless, redirected


@pytest.mark.parametrize("fault", [bad.trickle, bad.trickle_headers, bad.silent], ids=["body", "headers", "all"])
def test_slow_loris_is_cut_within_bounds(fetch, fault):
    start = time.monotonic()
    with faulty(*itertools.repeat(fault, 9)) as server:
        with pytest.raises(FetchError) as caught:
            get(fetch, f"{server.url}/a")
        assert server.count("/a") == 3
    assert time.monotonic() - start < 6
    assert "bytes a second" in str(caught.value) or "timed out" in str(caught.value) or "time" in str(caught.value)


def test_slow_document_is_cut_by_the_wall_clock(fetch):
    def steady(handler, body):
        handler.send_response(200)
        handler.end_headers()
        while not handler.server.owner.ended.wait(0.02):
            handler.wfile.write(b"x" * 100)

    start = time.monotonic()
    with faulty(*itertools.repeat(steady, 9)) as server, pytest.raises(FetchError, match="took too long"):
        fetch.document([f"{server.url}/a"], limit=10**7, label="a", accept=bytes)
    assert time.monotonic() - start < 5


def test_endless_body_stops_at_the_promised_size(fetch):
    with faulty(bad.endless) as server, pytest.raises(IntegrityError):
        get(fetch, f"{server.url}/a")


def test_endless_document_stops_at_its_limit(fetch):
    with faulty(bad.endless) as server, pytest.raises(FetchError, match="more than 300000 bytes"):
        fetch.document([f"{server.url}/a"], limit=300_000, label="a", accept=bytes)


def test_redirect_is_followed(fetch):
    with serve({"/good": BODY}) as other, faulty(bad.redirect(f"{other.url}/good")) as server:
        assert get(fetch, f"{server.url}/a") == BODY


def test_redirect_loop_ends(fetch):
    with faulty(*itertools.repeat(bad.redirect("/a"), 50)) as server:
        with pytest.raises(FetchError, match="more than 5 times"):
            get(fetch, f"{server.url}/a")
        assert server.count("/a") == 6


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://x.example/a", "gopher://x.example/"])
def test_redirect_to_another_scheme_is_refused(fetch, target):
    with faulty(bad.redirect(target)) as server, pytest.raises(FetchError, match="redirected from http to"):
        get(fetch, f"{server.url}/a")


def test_redirect_from_https_to_http_is_refused(fetch, monkeypatch):
    import requests

    def answer(session, url, **_):
        response = requests.Response()
        response.status_code, response.url = 302, url
        response.headers["location"] = "http://plain.example/a"
        response.raw = mock.Mock()
        return response

    monkeypatch.setattr(requests.Session, "get", answer)
    with pytest.raises(FetchError, match=r"redirected from https to http://plain\.example/a"):
        get(fetch, "https://secure.example/a")


# 5xx, time-outs, Retry-After


def test_passing_trouble_is_tried_again_with_a_growing_jittered_pause(fetch, pauses):
    with faulty(bad.status(503), bad.status(500)) as server:
        assert get(fetch, f"{server.url}/a") == BODY
    assert pauses == [0.5, 1.0]


def test_pauses_differ_by_chance(store):
    pauses = []
    chances = iter([0.0, 1.0])
    fetch = NetworkFetch(store, pause=pauses.append, chance=lambda: next(chances))
    with faulty(bad.status(503), bad.status(503)) as server:
        assert get(fetch, f"{server.url}/a") == BODY
    assert pauses == [0.25, 1.5]


@pytest.mark.parametrize(
    ("value", "least", "most"),
    [("7", 7, 7), ("100000", 30, 30), ("soon", 0.5, 0.5), ("-5", 0.5, 0.5)],
)
def test_retry_after_is_honoured_within_bounds(fetch, pauses, value, least, most):
    with faulty(bad.status(429, Retry_After=value)) as server:
        assert get(fetch, f"{server.url}/a") == BODY
    assert least <= pauses[0] <= most


def test_retry_after_as_a_date(fetch, pauses):
    when = email.utils.formatdate(time.time() + 10, usegmt=True)
    with faulty(bad.status(503, Retry_After=when)) as server:
        assert get(fetch, f"{server.url}/a") == BODY
    assert 7 <= pauses[0] <= 10


def test_trouble_that_does_not_pass_ends(fetch, pauses):
    with faulty(*itertools.repeat(bad.status(502), 20)) as server:
        with pytest.raises(FetchError, match="HTTP 502"):
            get(fetch, f"{server.url}/a")
        assert server.count("/a") == 3
    assert len(pauses) == 2


def test_another_mirror_is_asked_before_any_pause(fetch, pauses):
    with faulty(bad.status(503)) as server:
        assert get(fetch, f"{server.url}/a", f"{server.url}/good") == BODY
    assert not pauses


# Resuming


def test_broken_download_goes_on_where_it_ended(fetch):
    with faulty(bad.cut_off(40_000)) as server:
        assert get(fetch, f"{server.url}/a") == BODY
        again = server.asked[1].headers
    start = int(again["range"].removeprefix("bytes=").rstrip("-"))
    assert 0 < start <= 40_000
    assert again["if-range"] == bad.etag(BODY)


def test_right_prefix_of_an_earlier_build_is_kept(fetch, store):
    prepare(store, BODY[:70_000])
    with faulty() as server:
        assert get(fetch, f"{server.url}/a") == BODY
        assert [one.headers.get("range") for one in server.asked] == ["bytes=70000-"]


@pytest.mark.parametrize(
    "partial",
    [b"x" * 70_000, b"x" * 100_000, b"x" * 150_000, BODY[:50_000] + b"\0" * 10, BODY + b"more"],
    ids=["wrong", "full-length", "too-long", "damaged-end", "overlong"],
)
def test_wrong_prefix_gives_the_right_bytes(fetch, store, partial):
    prepare(store, partial)
    with faulty() as server:
        assert get(fetch, f"{server.url}/a") == BODY


def test_complete_partial_needs_no_request(fetch, store):
    prepare(store, BODY)
    with faulty() as server:
        assert get(fetch, f"{server.url}/a") == BODY
        assert not server.asked


def test_ignored_range_gives_the_right_bytes(fetch, store):
    prepare(store, BODY[:70_000])
    with faulty(bad.ignore_range) as server:
        assert get(fetch, f"{server.url}/a") == BODY
        assert server.count("/a") == 1


def test_416_gives_the_right_bytes(fetch, store):
    prepare(store, BODY[:70_000])
    with faulty(bad.status(416)) as server:
        assert get(fetch, f"{server.url}/a") == BODY
        assert [one.headers.get("range") for one in server.asked] == ["bytes=70000-", None]


def test_another_part_than_asked_for_is_refused(fetch, store):
    prepare(store, BODY[:70_000])

    def other(handler, body):
        bad.reply(handler, 206, body[:30_000], Content_Range=f"bytes 0-29999/{len(body)}")

    with faulty(other) as server:
        assert get(fetch, f"{server.url}/a", f"{server.url}/good") == BODY


def test_changed_etag_starts_anew(fetch):
    with faulty(bad.cut_off(40_000, tag='"old"')) as server:
        assert get(fetch, f"{server.url}/a") == BODY
        assert server.asked[1].headers["if-range"] == '"old"'


def test_changed_file_under_a_server_that_ignores_if_range(fetch):
    def old(handler, _):
        bad.cut_off(40_000, tag='"weak"')(handler, b"o" * len(BODY))

    def rest(handler, body):
        start = int(handler.headers["Range"].removeprefix("bytes=").rstrip("-"))
        span = f"bytes {start}-{len(body) - 1}/{len(body)}"
        bad.reply(handler, 206, body[start:], Content_Range=span)

    with faulty(old, rest) as server:
        assert get(fetch, f"{server.url}/a") == BODY


def test_part_of_a_lying_mirror_does_not_spoil_the_next(fetch):
    def lying(handler, _):
        bad.cut_off(40_000)(handler, b"e" * len(BODY))

    with faulty(*itertools.repeat(lying, 9)) as server:
        assert get(fetch, f"{server.url}/a", f"{server.url}/good") == BODY


# The store under bad conditions


def test_flipped_bit_in_the_store_is_fetched_again(fetch, store, tmp_path):
    with faulty() as server:
        path = fetch.blob(want(BODY, f"{server.url}/a"))
        with open(path, "r+b") as file:
            file.write(bytes([BODY[0] ^ 1]))
        assert get(NetworkFetch(Store(store.root)), f"{server.url}/a") == BODY
        assert server.count("/a") == 2
    assert len(os.listdir(tmp_path / "cache/damaged")) == 1


def test_flipped_bit_offline_is_an_error(store):
    path = store.put(BODY)
    with open(path, "r+b") as file:
        file.write(bytes([BODY[0] ^ 1]))
    fetch = NetworkFetch(Store(store.root), pause=lambda _: None)
    with pytest.raises(FetchError):
        get(fetch, f"{bad.closed_port()}/a")


def test_two_builds_at_once_share_one_download(store):
    def slow(handler, body):
        time.sleep(0.3)
        bad.reply_properly(handler, body)

    with faulty(*itertools.repeat(slow, 9)) as server:
        url = f"{server.url}/a"
        children = []
        for _ in range(3):
            pid = os.fork()
            if pid == 0:
                status = 1
                with contextlib.suppress(BaseException):
                    status = 0 if get(NetworkFetch(Store(store.root)), url) == BODY else 2
                os._exit(status)
            children.append(pid)
        assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0, 0]
        assert server.count("/a") == 1


def test_build_killed_in_its_download_blocks_nobody(store):
    def stuck(handler, body):
        bad.cut_off(40_000)(handler, body) if handler.server.owner.ended.wait(0.05) else bad.silent(handler, body)

    with faulty(stuck) as server:
        url = f"{server.url}/a"
        pid = os.fork()
        if pid == 0:
            with contextlib.suppress(BaseException):
                get(NetworkFetch(Store(store.root)), url)
            os._exit(0)
        wait_until(lambda: server.count("/a") == 1)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        start = time.monotonic()
        assert get(NetworkFetch(store), url) == BODY
        assert time.monotonic() - start < 2


def test_full_disk_is_a_storage_error_and_the_store_stays_valid(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    small = tmp_path / "small"
    small.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        store = Store(str(small))
        kept = store.put(b"kept")
        with faulty() as server, pytest.raises(StorageError, match="No space left") as caught:
            NetworkFetch(store).blob(want(BODY, f"{server.url}/a", f"{server.url}/good"))
        assert server.count("/good") == 0
        assert "cache prune" in caught.value.hint
        assert Store(str(small)).find(hashlib.sha256(b"kept").hexdigest(), 4) == kept
        assert Store(str(small)).find(DIGEST, len(BODY)) is None
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_interrupt_ends_transfers_at_once(store):
    with faulty(*itertools.repeat(bad.silent, 9)) as server:
        patient = NetworkFetch(store)
        timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        start = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            list(patient.blobs([want(BODY, f"{server.url}/a")]))
        assert time.monotonic() - start < 3
        assert not fetch_threads()


def test_connection_that_never_comes_up_does_not_hold_an_interrupt(store, monkeypatch):
    def never(*_, **__):
        time.sleep(3)
        raise TimeoutError

    monkeypatch.setattr("urllib3.util.connection.create_connection", never)
    arrivals = NetworkFetch(store).blobs([want(BODY, "http://127.0.0.1:9/a")])
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        next(arrivals)
    assert time.monotonic() - start < 2.8
    wait_until(lambda: not fetch_threads())
