"""The attacks on repository metadata that a mirror, or anyone on the way, can try: each is refused by name."""

from __future__ import annotations

import hashlib
import os
import time
from types import SimpleNamespace

import pytest
from making import server as bad
from making.keys import make_key, sign_together
from making.server import serve
from making.signed import DAY, Archive, release_text, write_repository

from rootfsbuild.errors import FetchError, IntegrityError, UntrustedError
from rootfsbuild.formats.deb.trusted import fetch_release
from rootfsbuild.repository.fetch import Wanted
from rootfsbuild.repository.mirrors import Mirror, address
from rootfsbuild.repository.network import NetworkFetch
from rootfsbuild.repository.rollback import last_date
from rootfsbuild.repository.sources import ANY_MOMENT
from rootfsbuild.repository.store import Store
from rootfsbuild.repository.transfer import Limits
from rootfsbuild.repository.trust import load_keyring

EVERY = frozenset({"expired", "rollback", "unsigned", "old"})


@pytest.fixture(scope="module")
def key():
    return make_key()


@pytest.fixture(scope="module")
def thief():
    return make_key("Thief <thief@example.org>")


@pytest.fixture
def build(tmp_path, key):
    """Return a build's side: `build(mirror, …)` fetches and judges the Release of a suite."""
    store = Store(str(tmp_path / "cache"))
    heard = []
    fetch = NetworkFetch(store, heard.append, Limits(tries=2), pause=lambda _: None)

    def run(*mirrors, suite="bookworm", relax=(), now=None, keys=None, past=frozenset(), **archive):
        named = [("", one.write(tmp_path / f"{one.fingerprint}.gpg")) for one in (keys or [key])]
        return fetch_release(
            Archive(**archive),
            suite,
            [Mirror(address(str(mirror)), "--mirror") for mirror in mirrors],
            fetch,
            store,
            load_keyring(named),
            time.time() if now is None else now,
            heard.append,
            frozenset(relax),
            past=past,
        )

    run.store, run.fetch, run.heard = store, fetch, heard
    run.weakened = lambda: [event.weakens for event in heard if getattr(event, "weakens", "")]
    return run


def refused(call, *arguments, rule, **named):
    with pytest.raises(UntrustedError) as caught:
        call(*arguments, **named)
    assert caught.value.rule == rule, caught.value
    return caught.value


def inrelease(folder, suite="bookworm"):
    return folder / "dists" / suite / "InRelease"


@pytest.fixture
def mirror(tmp_path, key):
    folder = tmp_path / "mirror"
    write_repository(folder, key)
    return folder


# What honest mirrors serve is taken


@pytest.mark.parametrize("forms", [("InRelease",), ("Release",), ("InRelease", "Release")])
def test_honest_mirror(build, tmp_path, key, forms):
    write_repository(tmp_path / "m", key, {"main/binary-amd64/Packages": b"x"}, forms=forms)
    trusted = build(tmp_path / "m")
    name = "InRelease" if "InRelease" in forms else "Release"
    document = (tmp_path / "m/dists/bookworm" / name).read_bytes()
    assert trusted.sha256 == hashlib.sha256(document).hexdigest()
    assert trusted.signers == (key.fingerprint,)
    assert trusted.base == f"file://{tmp_path}/m"
    assert trusted.release.indexes["main/binary-amd64/Packages"].size == 1
    assert len(trusted.keyring) == 64
    assert not build.weakened()


def test_flat_repository(build, tmp_path, key):
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat/InRelease").write_bytes(key.sign(release_text(drop=["Suite", "Codename"])))
    assert build(tmp_path, suite="flat/").signers == (key.fingerprint,)


# Arbitrary software


def test_release_signed_by_a_stranger_is_refused(build, tmp_path, thief):
    write_repository(tmp_path / "evil", thief)
    error = refused(build, tmp_path / "evil", rule="signature")
    assert "none of these keys is allowed to sign here" in str(error)
    assert "--allow=unsigned" in error.hint


def test_changed_inrelease_is_refused(build, mirror):
    document = inrelease(mirror)
    document.write_bytes(document.read_bytes().replace(b"Origin: Example", b"Origin: exampel"))
    refused(build, mirror, rule="signature")


def test_changed_release_beside_its_signature_is_refused(build, tmp_path, key):
    write_repository(tmp_path / "m", key, forms=("Release",))
    with open(tmp_path / "m/dists/bookworm/Release", "ab") as file:
        file.write(b"Changelogs: no\n")
    refused(build, tmp_path / "m", rule="signature")


def test_unsigned_release_is_refused(build, tmp_path, key):
    write_repository(tmp_path / "m", key, forms=("Release",))
    os.unlink(tmp_path / "m/dists/bookworm/Release.gpg")
    error = refused(build, tmp_path / "m", rule="signature")
    assert "is not signed" in str(error)
    assert "--allow=unsigned" in error.hint


def test_plain_text_as_inrelease_is_refused(build, tmp_path):
    inrelease(tmp_path).parent.mkdir(parents=True)
    inrelease(tmp_path).write_bytes(release_text())
    refused(build, tmp_path, rule="malformed")


def test_bad_inrelease_is_not_passed_by_for_an_unsigned_release(build, mirror, thief):
    inrelease(mirror).write_bytes(thief.sign(release_text()))
    os.unlink(mirror / "dists/bookworm/Release.gpg")
    refused(build, mirror, rule="signature")


@pytest.mark.parametrize(
    "change",
    [
        lambda good: b"Origin: Thief\n" + good,
        lambda good: good + b"Origin: Thief\n",
        lambda good: good + good,
        lambda good: b"\n" + good,
        lambda good: good.replace(b"Hash: SHA512\n", b"Hash: SHA512\nComment: x\n"),
        lambda good: good.replace(b"Hash: SHA512\n", b"Hash: SHA512\nOrigin: Thief\n"),
        lambda good: good.replace(b"\n\nOrigin", b"\n\nOrigin\0", 1),
        lambda good: good.rpartition(b"-----END")[0],
        lambda good: good.replace(b"-----BEGIN PGP SIGNATURE-----\n", b"-----BEGIN PGP SIGNATURE-----\n" * 2),
    ],
    ids=["before", "after", "doubled", "blank-line", "comment", "header", "nul", "cut", "two-marks"],
)
def test_text_around_the_signed_message_is_refused(build, mirror, change):
    document = inrelease(mirror)
    good = document.read_bytes()
    assert change(good) != good
    document.write_bytes(change(good))
    refused(build, mirror, rule="malformed", relax=EVERY)


def test_text_that_the_signature_does_not_cover_is_refused(build, mirror, monkeypatch):
    import pysequoia

    verify = pysequoia.verify

    def fooled(**named):
        found = verify(**named)
        return SimpleNamespace(bytes=b"Origin: Other\n", valid_sigs=found.valid_sigs)

    monkeypatch.setattr(pysequoia, "verify", fooled)
    error = refused(build, mirror, rule="malformed")
    assert "does not cover" in str(error)


def test_openpgp_message_in_place_of_cleartext_is_refused(build, mirror, key):
    inrelease(mirror).write_bytes(key.message(release_text()))
    refused(build, mirror, rule="malformed", relax=EVERY)


def test_only_weak_hashes_prove_nothing(build, tmp_path, key):
    text = release_text(drop=["x"]).replace(b"SHA256:", b"MD5Sum:")
    inrelease(tmp_path).parent.mkdir(parents=True)
    inrelease(tmp_path).write_bytes(key.sign(text))
    refused(build, tmp_path, rule="malformed", relax=EVERY)


def test_index_outside_the_archive_is_refused(build, tmp_path, key):
    inrelease(tmp_path).parent.mkdir(parents=True)
    inrelease(tmp_path).write_bytes(key.sign(release_text({"../../../etc/shadow": b""})))
    refused(build, tmp_path, rule="malformed")


def test_index_that_is_not_the_promised_one_is_refused(build, tmp_path, key):
    path = "main/binary-amd64/Packages"
    write_repository(tmp_path / "m", key, {path: b"Package: good\n"})
    index = build(tmp_path / "m").release.indexes[path]
    (tmp_path / "m/dists/bookworm" / path).write_bytes(b"Package: evil\n")
    url = f"file://{tmp_path}/m/dists/bookworm/{path}"
    with pytest.raises(IntegrityError):
        build.fetch.blob(Wanted((url,), index.size, index.sha256, path))


# Rollback


def test_rollback_is_refused_names_both_dates_and_the_switch(build, tmp_path, key):
    now = time.time()
    write_repository(tmp_path / "m", key, date=now - DAY)
    build(tmp_path / "m")
    write_repository(tmp_path / "m", key, date=now - 2 * DAY)
    error = refused(build, tmp_path / "m", rule="rollback")
    assert "--allow=rollback" in error.hint


def test_rollback_is_noticed_by_a_later_process(build, tmp_path, key):
    write_repository(tmp_path / "m", key)
    build(tmp_path / "m")
    assert last_date(Store(build.store.root).trust, "example", "bookworm", [key.fingerprint]) is not None


def test_rollback_on_one_mirror_leads_to_the_next(build, tmp_path, key):
    now = time.time()
    write_repository(tmp_path / "new", key, date=now - DAY)
    write_repository(tmp_path / "old", key, date=now - 9 * DAY)
    build(tmp_path / "new")
    assert build(tmp_path / "old", tmp_path / "new").base.endswith("/new")


def test_rollback_let_pass_is_recorded_and_forgets_nothing(build, tmp_path, key):
    now = time.time()
    write_repository(tmp_path / "m", key, date=now - DAY)
    build(tmp_path / "m")
    write_repository(tmp_path / "m", key, date=now - 2 * DAY)
    build(tmp_path / "m", relax=["rollback"])
    assert build.weakened() == ["rollback"]
    refused(build, tmp_path / "m", rule="rollback")


def test_rejected_release_leaves_no_memory(build, tmp_path, key, thief):
    write_repository(tmp_path / "evil", thief)
    refused(build, tmp_path / "evil", rule="signature")
    write_repository(tmp_path / "expired", key, valid_until=time.time() - 5)
    refused(build, tmp_path / "expired", rule="expired")
    assert not os.path.exists(build.store.trust)


def test_unsigned_release_leaves_no_memory(build, tmp_path, thief):
    write_repository(tmp_path / "evil", thief)
    build(tmp_path / "evil", relax=["unsigned"])
    assert not os.path.exists(build.store.trust)


def test_memory_that_cannot_be_kept_only_warns(build, mirror):
    os.makedirs(build.store.root)
    with open(build.store.trust, "w", encoding="ascii"):
        pass
    assert build(mirror).signers
    assert any("unnoticed" in event.text for event in build.heard)


def test_memory_survives_a_roll_of_keys(build, tmp_path, key, thief):
    now, next_key = time.time(), thief
    place = inrelease(tmp_path)
    place.parent.mkdir(parents=True)
    place.write_bytes(sign_together([key, next_key], release_text(date=now - DAY)))
    build(tmp_path, keys=[key, next_key])
    place.write_bytes(next_key.sign(release_text(date=now - 2 * DAY)))
    refused(build, tmp_path, keys=[next_key], rule="rollback")


# Freeze


def test_lapsed_valid_until_is_refused_with_the_date_and_the_switch(build, tmp_path, key):
    write_repository(tmp_path / "m", key, date=time.time() - 9 * DAY, valid_until=1_700_000_000)
    error = refused(build, tmp_path / "m", rule="expired")
    assert "2023-11-14 22:13:20 UTC" in str(error)
    assert "--allow=expired" in error.hint
    assert build(tmp_path / "m", relax=["expired"]).release.valid_until == 1_700_000_000
    assert build.weakened() == ["expired"]


def test_freeze_without_valid_until_is_caught_by_age(build, tmp_path, key):
    write_repository(tmp_path / "m", key, date=time.time() - 50 * DAY)
    refused(build, tmp_path / "m", rule="age", max_age_days=40)
    build(tmp_path / "m", max_age_days=60)
    assert any("will be refused" in event.text for event in build.heard)
    assert not build.weakened()


def test_archive_that_ignores_valid_until_is_recorded(build, tmp_path, key):
    write_repository(tmp_path / "m", key, valid_until=time.time() - 5)
    build(tmp_path / "m", check_valid_until=False)
    assert build.weakened() == ["expired"]


def test_stale_mirror_leads_to_a_fresh_one(build, tmp_path, key, mirror):
    write_repository(tmp_path / "stale", key, valid_until=time.time() - 5)
    assert build(tmp_path / "stale", mirror).base.endswith("/mirror")


def test_past_moment_that_was_asked_for_weakens_nothing(build, tmp_path, key, mirror):
    build(mirror)
    past = time.time() - 500 * DAY
    write_repository(tmp_path / "m", key, date=past, valid_until=past + DAY)
    assert build(tmp_path / "m", past=ANY_MOMENT, max_age_days=9).release.date == int(past)
    assert not build.weakened()
    refused(build, tmp_path / "m", rule="rollback")


def test_date_in_the_future_is_refused(build, tmp_path, key):
    write_repository(tmp_path / "m", key, date=time.time() + DAY)
    error = refused(build, tmp_path / "m", rule="future", relax=EVERY)
    assert "clock says" in str(error)


def test_clock_a_year_behind_is_named(build, mirror):
    assert "clock says" in str(refused(build, mirror, rule="future", now=time.time() - 365 * DAY))


def test_clock_a_year_ahead_is_named(build, tmp_path, key):
    write_repository(tmp_path / "m", key, valid_until=time.time() + DAY)
    ahead = time.time() + 365 * DAY
    assert "clock says" in str(refused(build, tmp_path / "m", rule="expired", now=ahead))


# Mix-and-match


def test_release_of_another_suite_is_refused(build, tmp_path, key):
    write_repository(tmp_path / "m", key, suite="bookworm", codename="trixie")
    place = tmp_path / "m/dists/bookworm"
    text = release_text(suite="testing", codename="trixie")
    (place / "InRelease").write_bytes(key.sign(text))
    error = refused(build, tmp_path / "m", rule="suite", relax=EVERY)
    assert "trixie" in str(error)


def test_release_newer_than_its_signature_is_refused_where_no_inrelease_helps(build, tmp_path, key):
    write_repository(tmp_path / "m", key, forms=("Release",))
    (tmp_path / "m/dists/bookworm/Release").write_bytes(release_text(date=time.time() - 5))
    refused(build, tmp_path / "m", rule="signature")


def test_inrelease_is_preferred_over_a_pair_in_the_middle_of_a_push(build, mirror):
    (mirror / "dists/bookworm/Release").write_bytes(release_text(date=time.time() - 5))
    assert build(mirror).signers


# Endless and slow data


def test_endless_inrelease_is_cut_at_its_limit(build):
    faults = {"/dists/bookworm/InRelease": [bad.endless]}
    with serve(faults=faults) as server, pytest.raises(FetchError, match="more than 10000000 bytes"):
        build(server.url)


def test_release_larger_than_its_limit_is_refused(build, mirror):
    with open(inrelease(mirror), "ab") as file:
        file.truncate(10_000_001)
    with pytest.raises(FetchError, match="more than 10000000"):
        build(mirror)


# Bad mirrors


def test_verdict_belongs_to_the_bytes_and_the_next_mirror_is_asked(build, tmp_path, mirror, thief):
    write_repository(tmp_path / "evil", thief)
    assert build(tmp_path / "evil", mirror).base.endswith("/mirror")


def test_captive_portal_leads_to_the_next_mirror(build, mirror):
    page = bad.instead(b"<html>please pay</html>")
    with serve(faults={"/dists/bookworm/InRelease": [page]}) as server:
        assert build(server.url, mirror).base.endswith("/mirror")


def test_mirror_without_the_suite_leads_to_the_next(build, mirror):
    with serve() as server:
        assert build(server.url, mirror).base.endswith("/mirror")


def test_first_refusal_is_told_when_every_mirror_fails(build, tmp_path, key, thief):
    write_repository(tmp_path / "evil", thief)
    write_repository(tmp_path / "stale", key, valid_until=time.time() - 5)
    refused(build, tmp_path / "evil", tmp_path / "stale", rule="signature")


def test_suite_nowhere_names_every_url(build):
    with serve() as one, serve() as two, pytest.raises(FetchError) as caught:
        build(one.url, two.url)
    for server in (one, two):
        assert f"{server.url}/dists/bookworm/InRelease" in str(caught.value)
        assert f"{server.url}/dists/bookworm/Release" in str(caught.value)


# Keys


def test_threshold_of_signers(build, tmp_path, key, thief):
    inrelease(tmp_path).parent.mkdir(parents=True)
    inrelease(tmp_path).write_bytes(key.sign(release_text()))
    refused(build, tmp_path, keys=[key, thief], threshold=2, rule="signature")
    inrelease(tmp_path).write_bytes(sign_together([key, thief], release_text()))
    assert len(build(tmp_path, keys=[key, thief], threshold=2).signers) == 2


def test_expired_key_is_refused(build, tmp_path):
    short = make_key(validity_seconds=30 * DAY)
    write_repository(tmp_path / "m", short)
    assert build(tmp_path / "m", keys=[short]).signers
    error = refused(build, tmp_path / "m", keys=[short], now=time.time() + 60 * DAY, rule="key")
    assert "expired on" in str(error)


def test_no_keys_means_no_trust(build, mirror, tmp_path):
    stranger = make_key("Stranger <s@example.org>")
    refused(build, mirror, keys=[stranger], rule="signature")


# Switches


def test_unsigned_is_taken_only_with_its_switch_and_recorded(build, tmp_path, key):
    write_repository(tmp_path / "m", key, forms=("Release",))
    os.unlink(tmp_path / "m/dists/bookworm/Release.gpg")
    refused(build, tmp_path / "m", rule="signature", relax=EVERY - {"unsigned"})
    assert build(tmp_path / "m", relax=["unsigned"]).signers == ()
    assert build.weakened() == ["unsigned"]


def test_switch_that_was_not_needed_weakens_nothing(build, mirror):
    assert build(mirror, relax=EVERY).signers
    assert not build.weakened()


def test_unsigned_still_checks_dates_and_suite(build, tmp_path, thief):
    write_repository(tmp_path / "m", thief, valid_until=time.time() - 5)
    refused(build, tmp_path / "m", rule="expired", relax=["unsigned"])
    refused(build, tmp_path / "m", suite="bookworm", rule="expired", relax=["unsigned", "rollback", "old"])
