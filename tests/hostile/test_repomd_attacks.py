"""The attacks on rpm-md repositories that a mirror, or anyone on the way, can try: each is refused by name."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from making import server as bad
from making.keys import make_key, together
from making.rpmfetch import EVERY, Archive, Build, refused
from making.rpmmd import DAY, Rpm, metalink, repomd, write_repository
from making.server import serve

from rootfsbuild.errors import FetchError, IntegrityError, UntrustedError
from rootfsbuild.formats.rpm.comps import parse_comps
from rootfsbuild.formats.rpm.data import fetch_data, open_data
from rootfsbuild.formats.rpm.metalink import parse_metalink
from rootfsbuild.formats.rpm.modules import parse_modules
from rootfsbuild.formats.rpm.repomd import parse_repomd
from rootfsbuild.formats.rpm.updateinfo import parse_updateinfo
from rootfsbuild.repository.signed import REPOMD, REPOMD_SIGNATURE

LINK = "https://mirrors.example/metalink?repo=x"
REPOMD_URL, SIGNATURE_URL = f"/{REPOMD}", f"/{REPOMD_SIGNATURE}"


@pytest.fixture(scope="module")
def key():
    return make_key()


@pytest.fixture(scope="module")
def thief():
    return make_key("Thief <thief@example.org>")


@pytest.fixture
def build(tmp_path, key):
    return Build(tmp_path, key)


@pytest.fixture
def mirror(tmp_path, key):
    write_repository(tmp_path / "mirror", key, [Rpm("a")])
    return tmp_path / "mirror"


@pytest.fixture
def evil(tmp_path, thief):
    """A repository that a stranger has signed."""
    write_repository(tmp_path / "evil", thief, [Rpm("evil")])
    return tmp_path / "evil"


# Arbitrary software


def test_repository_signed_by_a_stranger_is_refused(build, evil):
    error = refused(build, evil, rule="signature")
    assert "none of these keys is allowed to sign here" in str(error)
    assert "--allow=unsigned" in error.hint


def test_changed_repomd_is_refused(build, mirror):
    document = mirror / REPOMD
    document.write_bytes(document.read_bytes().replace(b"<revision>", b"<revision>0"))
    refused(build, mirror, rule="signature", relax=EVERY - {"unsigned"})


def test_unsigned_repomd_without_a_metalink_is_refused(build, tmp_path):
    write_repository(tmp_path / "m")
    error = refused(build, tmp_path / "m", rule="signature", relax=EVERY - {"unsigned"})
    assert "is not signed" in str(error)
    assert "metalink" in error.hint
    assert "--allow=unsigned" in error.hint


def test_repository_for_which_no_key_is_named_is_refused(build, mirror):
    assert "no key is named" in str(refused(build, mirror, keys=[], rule="signature"))


def test_signature_of_another_document_is_refused(build, mirror, key):
    (mirror / REPOMD_SIGNATURE).write_bytes(key.detach(b"another"))
    refused(build, mirror, rule="signature")


@pytest.mark.parametrize(
    "signature", [b"", b"<html>please pay</html>", b"\x00" * 100, b"-----BEGIN PGP SIGNATURE-----\n\nAAAA\n"]
)
def test_garbage_in_place_of_a_signature_is_refused(build, mirror, signature):
    (mirror / REPOMD_SIGNATURE).write_bytes(signature)
    error = refused(build, mirror, rule="malformed")
    assert "signature of repomd.xml of baseos 9" in str(error)


def test_bit_of_a_signature_that_flips_is_refused_whichever_it_is(build, mirror, key, tmp_path):
    good = (mirror / REPOMD_SIGNATURE).read_bytes()
    from rootfsbuild.repository.trust import verify_detached

    body, keyring = (mirror / REPOMD).read_bytes(), build.keyring([key])
    assert verify_detached(body, good, keyring, time.time()).signers
    for place in range(40, len(good) - 40, 7):
        (mirror / REPOMD_SIGNATURE).write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        try:
            trusted = build(mirror)
        except UntrustedError:
            continue
        assert trusted.signers == (key.fingerprint,)  # the armor's own decoration says nothing


def test_metalink_over_http_proves_nothing(build, tmp_path):
    body = write_repository(tmp_path / "m")
    with serve({"/metalink": metalink(body, [f"file://{tmp_path}/m"])}) as server:
        refused(build, tmp_path / "m", keys=[], metalink=f"{server.url}/metalink", rule="signature")
    assert "proves nothing" in build.texts()


def test_metalink_on_the_disk_proves_nothing(build, tmp_path):
    body = write_repository(tmp_path / "m")
    (tmp_path / "metalink").write_bytes(metalink(body, []))
    refused(build, tmp_path / "m", keys=[], metalink=f"file://{tmp_path}/metalink", rule="signature")


def test_metalink_that_a_bundle_carries_proves_nothing(build, tmp_path):
    from rootfsbuild.repository.mirrors import Mirror

    body = write_repository(tmp_path / "m")
    digest = hashlib.sha256(body).hexdigest()
    build.store.keep_signed("x", digest, {REPOMD: body, "metalink.xml": metalink(body, [])})
    by_digest = Mirror(f"signed:{digest}", "the lock")
    with pytest.raises(UntrustedError) as caught:
        build(by_digest, keys=[], metalink=LINK, fetch=_store_only(build))
    assert caught.value.rule == "signature"


def _store_only(build):
    from rootfsbuild.repository.offline import StoreFetch

    return StoreFetch(build.store)


def test_repomd_that_the_metalink_does_not_list_is_refused(build, tmp_path):
    body = write_repository(tmp_path / "good")
    write_repository(tmp_path / "evil", None, [Rpm("evil")])
    link = build.publish(LINK, metalink(body, []))
    error = refused(build, tmp_path / "evil", metalink=link, rule="signature")
    assert "its metalink does not list it" in str(error)
    assert build(tmp_path / "evil", tmp_path / "good", metalink=link).base.endswith("/good")


def test_metalink_with_weak_hashes_only_proves_nothing(build, tmp_path):
    body = write_repository(tmp_path / "m")
    link = build.publish(LINK, metalink(body, [], hashes=["md5", "sha1"]))
    assert "MD5 and SHA-1" in str(refused(build, tmp_path / "m", keys=[], metalink=link, rule="malformed"))


def test_data_that_is_not_the_promised_is_refused(build, mirror):
    trusted = build(mirror)
    (mirror / trusted.repomd.data["primary"].href).write_bytes(b"evil")
    with pytest.raises(IntegrityError):
        fetch_data(trusted, trusted.bases, build.network, build.store, ["primary"])


def test_data_proven_by_sha512_that_is_not_the_promised_is_refused(build, tmp_path, key):
    write_repository(tmp_path / "m", key, algorithm="sha512")
    trusted = build(tmp_path / "m")
    path = tmp_path / "m" / trusted.repomd.data["primary"].href
    path.write_bytes(bytes(len(path.read_bytes())))
    assert "sha512" in str(refused(fetch_data, trusted, trusted.bases, build.network, build.store, rule="hash"))


@pytest.mark.parametrize("algorithm", ["md5", "sha", "sha1"])
def test_only_weak_hashes_prove_nothing(build, tmp_path, key, algorithm):
    write_repository(tmp_path / "m", key, algorithm=algorithm)
    refused(build, tmp_path / "m", rule="malformed", relax=EVERY)


@pytest.mark.parametrize("href", ["../../etc/shadow", "/etc/shadow", "http://evil.example/x", "%2e%2e/x", "a/./b"])
def test_data_outside_the_repository_is_refused(build, tmp_path, key, href):
    (tmp_path / "m/repodata").mkdir(parents=True)
    text, made = repomd({"primary": b""})
    text = text.replace(next(iter(made)).encode(), href.encode())
    (tmp_path / "m" / REPOMD).write_bytes(text)
    (tmp_path / "m" / REPOMD_SIGNATURE).write_bytes(key.detach(text))
    refused(build, tmp_path / "m", rule="malformed", relax=EVERY)


# Locks


def test_edited_lock_of_a_signed_repository_is_no_way_in(build, evil):
    digest = hashlib.sha256((evil / REPOMD).read_bytes()).hexdigest()
    refused(build, evil, expected=digest, must_be_signed=True, rule="signature")


def test_lock_does_not_count_where_several_must_sign(build, mirror, tmp_path, key):
    digest = hashlib.sha256((mirror / REPOMD).read_bytes()).hexdigest()
    refused(build, mirror, expected=digest, archive=Archive(threshold=2), rule="signature")
    link = build.publish(LINK, metalink((mirror / REPOMD).read_bytes(), []))
    refused(build, mirror, metalink=link, archive=Archive(threshold=2), rule="signature")


# Rollback and freeze


def test_rollback_is_refused_and_names_the_switch(build, tmp_path, key):
    now = time.time()
    write_repository(tmp_path / "m", key, date=now - DAY)
    build(tmp_path / "m")
    write_repository(tmp_path / "m", key, date=now - 2 * DAY)
    assert "--allow=rollback" in refused(build, tmp_path / "m", rule="rollback").hint
    build(tmp_path / "m", relax=["rollback"])
    assert build.weakened() == ["rollback"]
    refused(build, tmp_path / "m", rule="rollback")


def test_rollback_on_one_mirror_leads_to_the_next(build, tmp_path, key):
    now = time.time()
    write_repository(tmp_path / "new", key, date=now - DAY)
    write_repository(tmp_path / "old", key, date=now - 9 * DAY)
    build(tmp_path / "new")
    assert build(tmp_path / "old", tmp_path / "new").base.endswith("/new")


def test_rollback_to_a_time_without_timestamps_is_refused(build, mirror, key):
    build(mirror)
    text, _ = repomd({"primary": b""}, date=0, revision="")
    (mirror / REPOMD).write_bytes(text)
    (mirror / REPOMD_SIGNATURE).write_bytes(key.detach(text))
    refused(build, mirror, rule="rollback")


def test_freeze_is_caught_by_age(build, tmp_path, key):
    write_repository(tmp_path / "m", key, date=time.time() - 50 * DAY)
    refused(build, tmp_path / "m", rule="age", archive=Archive(max_age_days=40))
    build(tmp_path / "m", archive=Archive(max_age_days=60))
    assert "will be refused" in build.texts()
    assert not build.weakened()


def test_timestamp_in_the_future_is_refused(build, tmp_path, key):
    write_repository(tmp_path / "m", key, date=time.time() + DAY)
    assert "clock says" in str(refused(build, tmp_path / "m", rule="future", relax=EVERY))


def test_clock_a_year_behind_is_named(build, mirror):
    # The signature, too, is then from the future.
    assert "clock says" in str(refused(build, mirror, rule="future", now=time.time() - 365 * DAY))


def test_refused_documents_leave_no_memory(build, evil, tmp_path, key):
    refused(build, evil, rule="signature")
    build(evil, relax=["unsigned"])
    write_repository(tmp_path / "old", key, date=time.time() - 50 * DAY)
    refused(build, tmp_path / "old", rule="age", archive=Archive(max_age_days=40))
    assert not build.remembers()


def test_lock_leaves_no_memory(build, tmp_path):
    body = write_repository(tmp_path / "m")
    build(tmp_path / "m", expected=hashlib.sha256(body).hexdigest())
    assert not build.remembers()


# Endless and slow data


@pytest.mark.parametrize("path", [REPOMD_URL, SIGNATURE_URL])
def test_endless_documents_are_cut_at_their_limits(build, mirror, path):
    with (
        serve(folder=mirror, faults={path: [bad.endless]}) as server,
        pytest.raises(FetchError, match="has more than 1"),
    ):
        build(server.url)


def test_endless_metalink_is_cut_at_its_limit(build, mirror):
    with serve(folder=mirror, faults={"/metalink": [bad.endless]}) as server:
        assert build(server.url, metalink=f"{server.url}/metalink").by == "signature"
    assert "more than 4000000 bytes" in build.texts()


def test_data_larger_than_promised_is_cut(build, mirror):
    with serve(folder=mirror) as server:
        trusted = build(server.url)
        server.faults[f"/{trusted.repomd.data['primary'].href}"] = iter([bad.endless])
        with pytest.raises(IntegrityError):
            fetch_data(trusted, trusted.bases, build.network, build.store, ["primary"])


def test_data_that_expands_beyond_its_promise_is_cut(tmp_path):
    def zeros():
        packer = zlib.compressobj(9, wbits=31)
        for _ in range(256):
            yield packer.compress(bytes(1 << 20))
        yield packer.flush()

    bomb = tmp_path / "bomb.gz"
    bomb.write_bytes(b"".join(zeros()))
    taken = []
    with pytest.raises(UntrustedError, match="expands to more than"):
        taken.extend(map(len, open_data(str(bomb), "bomb.xml.gz", "it", 5_000_000)))
    assert sum(taken) <= 5_000_000


def test_repomd_that_promises_impossible_sizes_is_refused(build, tmp_path, key):
    text, _ = repomd({"primary": b""})
    text = text.replace(b"<size>20</size>", b"<size>999999999999999</size>")
    assert b"999999999999999" in text
    (tmp_path / "m/repodata").mkdir(parents=True)
    (tmp_path / "m" / REPOMD).write_bytes(text)
    (tmp_path / "m" / REPOMD_SIGNATURE).write_bytes(key.detach(text))
    trusted = build(tmp_path / "m")
    error = refused(fetch_data, trusted, trusted.bases, build.network, build.store, rule="mismatch")
    assert "more than is sensible" in str(error)


# Bad mirrors


def test_verdict_belongs_to_the_bytes_and_the_next_mirror_is_asked(build, evil, mirror):
    assert build(evil, mirror).base.endswith("/mirror")


def test_captive_portal_leads_to_the_next_mirror(build, mirror):
    page = bad.instead(b"<html>please pay</html>")
    with serve(faults={REPOMD_URL: [page]}) as server:
        assert build(server.url, mirror).base.endswith("/mirror")
    with serve(folder=mirror, faults={SIGNATURE_URL: [page]}) as server:
        assert build(server.url, mirror).base.endswith("/mirror")


def test_captive_portal_in_place_of_a_metalink_is_passed_by(build, mirror):
    link = build.publish(LINK, b"<html>please pay</html>")
    assert build(mirror, metalink=link).by == "signature"


def test_mirror_in_the_middle_of_a_push_leads_to_the_next(build, tmp_path, mirror, key):
    write_repository(tmp_path / "torn", key, [Rpm("a")])
    (tmp_path / "torn" / REPOMD).write_bytes(repomd({"primary": b"new"})[0])
    assert build(tmp_path / "torn", mirror).base.endswith("/mirror")


def test_mirror_without_the_repository_leads_to_the_next(build, mirror):
    with serve() as server:
        assert build(server.url, mirror).base.endswith("/mirror")


def test_mirror_whose_signature_cannot_be_had_is_not_taken_for_unsigned(build, mirror):
    with serve(folder=mirror, faults={SIGNATURE_URL: [bad.status(500)] * 9}) as server:
        with pytest.raises(FetchError):
            build(server.url, relax=EVERY)
        assert build(server.url, mirror).base.endswith("/mirror")
    assert not build.weakened()


def test_first_refusal_is_told_when_every_mirror_fails(build, evil, tmp_path, key):
    write_repository(tmp_path / "ahead", key, date=time.time() + DAY)
    refused(build, evil, tmp_path / "ahead", rule="signature")
    refused(build, tmp_path / "ahead", evil, rule="future")


def test_repository_nowhere_names_every_url(build):
    with serve() as one, serve() as two, pytest.raises(FetchError) as caught:
        build(one.url, two.url, metalink=f"{one.url}/metalink")
    for url in (f"{one.url}/metalink", one.url + REPOMD_URL, two.url + REPOMD_URL):
        assert url in str(caught.value)


def test_no_mirror_at_all_is_an_error_of_its_own(build):
    with pytest.raises(FetchError):
        build()


def test_every_mirror_is_asked_once_however_many_refuse(build, tmp_path, thief, mirror):
    for number in range(4):
        write_repository(tmp_path / f"evil{number}", thief)
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(serve(folder=tmp_path / f"evil{number}")) for number in range(4)]
        assert build(*(server.url for server in servers), mirror).base.endswith("/mirror")
        assert [server.count(REPOMD_URL) for server in servers] == [1, 1, 1, 1]


# Keys


def test_threshold_of_signers(build, tmp_path, key, thief):
    write_repository(tmp_path / "m", key)
    refused(build, tmp_path / "m", keys=[key, thief], archive=Archive(threshold=2), rule="signature")
    write_repository(tmp_path / "m", key, sign=lambda body: together([key.detach(body), thief.detach(body)]))
    assert len(build(tmp_path / "m", keys=[key, thief], archive=Archive(threshold=2)).signers) == 2


def test_expired_key_is_refused(build, tmp_path):
    short = make_key(validity_seconds=30 * DAY)
    write_repository(tmp_path / "m", short)
    assert build(tmp_path / "m", keys=[short]).signers
    assert "expired on" in str(refused(build, tmp_path / "m", keys=[short], now=time.time() + 60 * DAY, rule="key"))


# Switches


def test_unsigned_is_taken_only_with_its_switch_and_recorded(build, tmp_path):
    write_repository(tmp_path / "m")
    trusted = build(tmp_path / "m", relax=["unsigned"])
    assert (trusted.by, trusted.signers) == ("", ())
    assert build.weakened() == ["unsigned"]


def test_switch_that_was_not_needed_weakens_nothing(build, mirror):
    assert build(mirror, relax=EVERY).by == "signature"
    assert not build.weakened()


def test_unsigned_still_checks_everything_else(build, evil, tmp_path, thief):
    write_repository(tmp_path / "ahead", thief, date=time.time() + DAY)
    refused(build, tmp_path / "ahead", rule="future", relax=EVERY)
    refused(build, evil, rule="mismatch", expected="0" * 64, relax=EVERY)


def test_memory_that_cannot_be_kept_only_warns(build, mirror):
    os.makedirs(build.store.root)
    with open(build.store.trust, "w", encoding="ascii"):
        pass
    assert build(mirror).signers
    assert "unnoticed" in build.texts()


# Whatever comes, an error of the family

GOOD = [
    (parse_repomd, repomd({"primary": b"x", "group": b"y"}, tags=["a"])[0]),
    (parse_metalink, metalink(b"x", ["http://a.example/b"], alternates=[b"y"])),
]


@pytest.mark.parametrize("bomb", ["laughs", "quadratic", "external", "parameter"])
@pytest.mark.parametrize(
    ("read", "root"),
    [
        (lambda body: parse_repomd(body, "it"), "repomd"),
        (lambda body: parse_metalink(body, "it"), "metalink"),
        (parse_comps, "comps"),
        (lambda body: list(parse_updateinfo(body)), "updates"),
    ],
)
def test_entities_never_expand(read, root, bomb):
    laughs = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 12))
    declared = {
        "laughs": f'<!ENTITY a0 "ha">{laughs}',
        "quadratic": f'<!ENTITY a11 "{"x" * 50_000}">',
        "external": '<!ENTITY a11 SYSTEM "file:///etc/passwd">',
        "parameter": '<!ENTITY % p SYSTEM "file:///etc/passwd"> %p; <!ENTITY a11 "x">',
    }[bomb]
    body = f"<?xml version='1.0'?><!DOCTYPE {root} [{declared}]><{root}>{'&a11;' * 100}</{root}>"
    with pytest.raises(UntrustedError) as caught:
        read(body.encode())
    assert caught.value.rule == "malformed"


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_documents_never_crash(data):
    read, good = data.draw(st.sampled_from(GOOD))
    body = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(body) - 1))
        body[place : place + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    with contextlib.suppress(UntrustedError):
        read(bytes(body), "it")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_modules_never_crash(data):
    body = bytearray(
        b"---\ndocument: modulemd\nversion: 2\ndata: {name: a, stream: b, artifacts: {rpms: [a-0:1-1.x]}}\n"
    )
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(body) - 1))
        body[place : place + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    with contextlib.suppress(UntrustedError):
        parse_modules(bytes(body))


@given(st.binary(max_size=300))
def test_garbage_never_crashes(body):
    for read in (lambda: parse_repomd(body, "it"), lambda: parse_comps(body), lambda: parse_modules(body)):
        with contextlib.suppress(UntrustedError):
            read()
