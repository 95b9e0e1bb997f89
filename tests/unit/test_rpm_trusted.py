from __future__ import annotations

import hashlib
import os
import time

import pytest
from making.keys import make_key
from making.plans import make_snapshot
from making.rpmfetch import Archive, Build, refused
from making.rpmmd import DAY, Rpm, comps, group, metalink, module, repomd, update, updateinfo, write_repository
from making.server import serve

from rootfsbuild.errors import FetchError, IntegrityError, UntrustedError
from rootfsbuild.events import Warned
from rootfsbuild.formats.rpm.comps import parse_comps
from rootfsbuild.formats.rpm.data import chosen_data, fetch_data, read_data, wanted_data
from rootfsbuild.formats.rpm.judging import check_repomd
from rootfsbuild.formats.rpm.repomd import parse_repomd
from rootfsbuild.formats.rpm.trusted import fetch_bases
from rootfsbuild.plan import Index
from rootfsbuild.repository.mirrors import Mirror
from rootfsbuild.repository.offline import StoreFetch
from rootfsbuild.repository.signed import METALINK, REPOMD, REPOMD_SIGNATURE, document_sets

NOW = 1_800_000_000
LINK = "https://mirrors.example/metalink?repo=x&arch=x86_64"


@pytest.fixture(scope="module")
def key():
    return make_key()


@pytest.fixture
def build(tmp_path, key):
    return Build(tmp_path, key)


@pytest.fixture
def mirror(tmp_path, key):
    write_repository(tmp_path / "mirror", key, [Rpm("a"), Rpm("b")])
    return tmp_path / "mirror"


def digest(data):
    return hashlib.sha256(data).hexdigest()


# Why a repomd.xml is believed


def test_signed_repository(build, mirror, key):
    trusted = build(mirror)
    assert (trusted.by, trusted.signers) == ("signature", (key.fingerprint,))
    assert trusted.sha256 == digest((mirror / REPOMD).read_bytes())
    assert trusted.base == f"file://{mirror}"
    assert trusted.bases == (trusted.base,)
    assert trusted.keyring == build.keyring([key]).digest
    assert set(trusted.repomd.data) == {"primary", "filelists", "other"}
    assert not build.weakened()


def test_metalink_over_https(build, tmp_path):
    body = write_repository(tmp_path / "m")
    link = build.publish(LINK, metalink(body, ["http://127.0.0.1:1/x"]))
    trusted = build(tmp_path / "m", keys=[], metalink=link)
    assert (trusted.by, trusted.signers) == ("metalink", ())
    assert trusted.bases == (f"file://{tmp_path}/m", "http://127.0.0.1:1/x")
    assert not build.weakened()


def test_mirrors_of_the_metalink_come_first_in_its_order(build, tmp_path):
    body = write_repository(tmp_path / "m")
    build.https["https://one.example/x"] = f"file://{tmp_path}/nowhere"
    build.https["https://two.example/x"] = f"file://{tmp_path}/m"
    link = metalink(body, ["https://two.example/x", "https://one.example/x"], preferences=[1, 2])
    trusted = build(tmp_path / "far", keys=[], metalink=build.publish(LINK, link))
    assert trusted.base == "https://two.example/x"
    assert trusted.bases == ("https://two.example/x", "https://one.example/x", f"file://{tmp_path}/far")


def test_metalink_accepts_what_was_current_a_while_ago(build, tmp_path):
    old = write_repository(tmp_path / "m", date=time.time() - DAY)
    link = metalink(b"new", [], alternates=[b"between", old])
    assert build(tmp_path / "m", keys=[], metalink=build.publish(LINK, link)).by == "metalink"
    assert "older one" in build.texts()


def test_metalink_is_no_need_where_the_signature_is_good(build, mirror):
    assert build(mirror, metalink="https://127.0.0.1:1/metalink").by == "signature"
    stale = build.publish(LINK, metalink(b"another", []))
    assert build(mirror, metalink=stale).by == "signature"


def test_lock_names_what_is_believed(build, tmp_path):
    body = write_repository(tmp_path / "m")
    trusted = build(tmp_path / "m", keys=[], expected=digest(body))
    assert (trusted.by, trusted.signers) == ("lock", ())
    assert not build.weakened()


def test_signature_is_told_where_a_lock_would_do(build, mirror, key):
    trusted = build(mirror, expected=digest((mirror / REPOMD).read_bytes()))
    assert (trusted.by, trusted.signers) == ("signature", (key.fingerprint,))


def test_lock_of_a_signed_repository_does_not_replace_its_signature(build, mirror):
    expected = digest((mirror / REPOMD).read_bytes())
    os.unlink(mirror / REPOMD_SIGNATURE)
    refused(build, mirror, expected=expected, must_be_signed=True, rule="signature")
    assert build(mirror, expected=expected).by == "lock"


def test_lock_of_another_document(build, mirror):
    error = refused(build, mirror, expected="0" * 64, rule="mismatch")
    assert "rootfsbuild lock" in error.hint


# Where a repository is served


def test_bases_of_a_metalink_or_a_mirror_list(build):
    files = {
        "/link": metalink(b"x", ["https://a.example/x"]),
        "/list": b"# x\nhttps://b.example/y/\n",
        "/none": b"# no\n",
    }
    with serve(files) as server:
        assert fetch_bases(f"{server.url}/link", build.network, "it") == ("https://a.example/x",)
        assert fetch_bases(f"{server.url}/list", build.network, "it") == ("https://b.example/y",)
        refused(fetch_bases, f"{server.url}/none", build.network, "it", rule="malformed")


# Freshness


def judge(*, date=NOW - DAY, now=NOW, last=None, max_age=None, relax=(), past=(), heard=None):
    text, _ = repomd({"primary": b""}, date=date)
    check_repomd(
        parse_repomd(text, "it"),
        now=now,
        last_date=last,
        max_age_days=max_age,
        relax=frozenset(relax),
        past=frozenset(past),
        report=(heard if heard is not None else []).append,
    )


def test_future():
    judge(date=NOW + 9)
    every = ["expired", "rollback", "unsigned", "old"]
    error = refused(judge, date=NOW + 60, relax=every, past=every, rule="future")
    assert "clock says 2027-01-15 08:00:00 UTC" in str(error)


def test_rollback_names_both_dates_and_the_switch():
    error = refused(judge, last=NOW - DAY + 1, rule="rollback")
    assert "2027-01-14 08:00:00 UTC" in str(error)
    assert "2027-01-14 08:00:01 UTC" in str(error)
    assert "--allow=rollback" in error.hint
    judge(last=NOW - DAY)
    judge(last=NOW, past=["rollback"])


def test_age_warns_then_is_an_error():
    heard = []
    judge(date=NOW - 70 * DAY, max_age=100, heard=heard)
    assert not heard
    judge(date=NOW - 80 * DAY, max_age=100, heard=heard)
    assert [(type(event), event.weakens) for event in heard] == [(Warned, "")]
    assert "--allow=old" in refused(judge, date=NOW - 101 * DAY, max_age=100, rule="age").hint
    judge(date=NOW - 101 * DAY, max_age=100, past=["old"])


@pytest.mark.parametrize(("name", "fields"), [("rollback", {"last": NOW}), ("old", {"date": 1, "max_age": 100})])
def test_every_switch_is_loud_and_lets_pass_only_its_own_rule(name, fields):
    heard = []
    judge(relax=[name], heard=heard, **fields)
    assert [event.weakens for event in heard] == [name]
    with pytest.raises(UntrustedError):
        judge(relax={"expired", "rollback", "old", "unsigned"} - {name}, **fields)


def test_architectures_of_one_repository_have_memories_of_their_own(build, tmp_path, key):
    write_repository(tmp_path / "x", key, date=time.time() - DAY)
    write_repository(tmp_path / "a", key, date=time.time() - 2 * DAY)
    build(tmp_path / "x", architecture="x86_64")
    build(tmp_path / "a", architecture="aarch64")
    refused(build, tmp_path / "a", architecture="x86_64", rule="rollback")


def test_rollback_is_noticed_also_where_a_metalink_vouches(build, tmp_path):
    new = write_repository(tmp_path / "new", date=time.time() - DAY)
    old = write_repository(tmp_path / "old", date=time.time() - 2 * DAY)
    url = build.publish(LINK, metalink(new, [], alternates=[old]))
    build(tmp_path / "new", keys=[], metalink=url)
    refused(build, tmp_path / "old", keys=[], metalink=url, rule="rollback")
    other = build.publish("https://other.example/metalink", metalink(old, []))
    assert build(tmp_path / "old", keys=[], metalink=other).by == "metalink"


# What is kept


def offline(build, name="baseos"):
    return {"fetch": StoreFetch(build.store), "archive": Archive(name)}, Mirror(f"latest:{name}", "the store")


def test_signed_documents_are_kept_for_later(build, mirror, key):
    first = build(mirror)
    assert build.store.signed(first.sha256, REPOMD) == (mirror / REPOMD).read_bytes()
    assert build.store.signed(first.sha256, REPOMD_SIGNATURE) == (mirror / REPOMD_SIGNATURE).read_bytes()
    named, latest = offline(build)
    again = build(latest, **named)
    assert (again.sha256, again.by) == (first.sha256, "signature")
    by_digest = build(Mirror(f"signed:{first.sha256}", "the lock"), fetch=named["fetch"], expected=first.sha256)
    assert (by_digest.by, by_digest.signers) == ("signature", (key.fingerprint,))


def test_metalinks_are_kept_for_later(build, tmp_path):
    body = write_repository(tmp_path / "m")
    url = build.publish(LINK, metalink(body, []))
    first = build(tmp_path / "m", keys=[], metalink=url)
    assert build.store.signed(first.sha256, METALINK)
    named, latest = offline(build)
    assert build(latest, keys=[], metalink=url, **named).by == "metalink"
    by_digest = Mirror(f"signed:{first.sha256}", "the lock")
    assert build(by_digest, keys=[], metalink=url, expected=first.sha256, fetch=named["fetch"]).by == "lock"


def test_offline_without_documents_tells_what_is_missing(build):
    named, latest = offline(build)
    with pytest.raises(FetchError) as caught:
        build(latest, metalink=LINK, **named)
    assert LINK in str(caught.value)
    assert "latest:" in str(caught.value)


def test_latest_of_another_distribution_is_not_taken(build, tmp_path, key):
    other = make_key("Other <o@example.org>")
    write_repository(tmp_path / "one", key, [Rpm("one")])
    write_repository(tmp_path / "two", other, [Rpm("two")])
    first = build(tmp_path / "one")
    build(tmp_path / "two", keys=[other])
    build(tmp_path / "one", suite="10")
    build(tmp_path / "one", architecture="aarch64")
    named, latest = offline(build)
    assert build(latest, **named).sha256 == first.sha256


def test_past_moment_is_kept_but_is_not_the_latest(build, tmp_path, key):
    write_repository(tmp_path / "now", key)
    write_repository(tmp_path / "then", key, date=time.time() - 500 * DAY)
    now = build(tmp_path / "now")
    then = build(tmp_path / "then", past=frozenset({"rollback", "old"}), archive=Archive(max_age_days=10))
    named, latest = offline(build)
    assert build(latest, **named).sha256 == now.sha256
    assert build.store.signed(then.sha256, REPOMD)
    assert not build.weakened()


def test_documents_that_stand_for_a_snapshot():
    indexes = (Index("repodata/x-primary.xml.gz", 1, "0" * 64),)
    assert document_sets(make_snapshot(indexes=indexes, suite="9")) == ((REPOMD, REPOMD_SIGNATURE),)
    assert document_sets(make_snapshot(indexes=indexes, suite="9", signers=())) == ((REPOMD,),)


def test_altered_signature_or_metalink_in_the_store_is_no_way_in(build, mirror):
    first = build(mirror)
    place = os.path.join(build.store.root, "signed", first.sha256, "repodata/repomd.xml.asc")
    with open(place, "r+b") as file:
        file.seek(60)
        file.write(b"AAAA")
    named, latest = offline(build)
    with pytest.raises(UntrustedError):
        build(latest, **named)


# Its data


@pytest.fixture
def whole(tmp_path, key):
    write_repository(
        tmp_path / "whole",
        key,
        [Rpm("a")],
        groups=comps(group("core", mandatory=["a"])),
        modules=module("m", "1").encode(),
        updates=updateinfo(update("A-1")),
    )
    return tmp_path / "whole"


def test_wanted_data(build, whole):
    trusted = build(whole)
    wanted = wanted_data(trusted, ["http://a.example/x", *trusted.bases])
    assert [one.label.partition("-")[2].partition(".")[0] for one in wanted] == [
        "primary",
        "filelists",
        "comps",
        "modules",
        "updateinfo",
    ]
    primary = trusted.repomd.data["primary"]
    assert wanted[0].urls == (f"http://a.example/x/{primary.href}", f"file://{whole}/{primary.href}")
    assert (wanted[0].size, wanted[0].sha256) == (primary.size, primary.sha256)
    assert len(wanted_data(trusted, trusted.bases, ["primary"])) == 1


def test_fetch_data(build, whole):
    trusted = build(whole)
    found = fetch_data(trusted, trusted.bases, build.network, build.store)
    assert set(found) == {"primary", "filelists", "group", "modules", "updateinfo"}
    assert b"<name>a</name>" in b"".join(read_data(found["primary"], "primary"))
    assert "core" in parse_comps(found["group"].path, href=found["group"].data.href).groups
    assert found["group"].sha256 == trusted.repomd.data["group"].sha256


def test_data_that_a_repository_does_not_offer_is_not_there(build, mirror):
    trusted = build(mirror)
    assert set(fetch_data(trusted, trusted.bases, build.network, build.store)) == {"primary", "filelists"}


def test_repository_without_readable_primary_data(build, tmp_path, key):
    write_repository(tmp_path / "m", key)
    text = (tmp_path / "m" / REPOMD).read_bytes().replace(b'type="primary"', b'type="primary_db"')
    (tmp_path / "m" / REPOMD).write_bytes(text)
    (tmp_path / "m" / REPOMD_SIGNATURE).write_bytes(key.detach(text))
    trusted = build(tmp_path / "m")
    assert "no primary" in str(refused(chosen_data, trusted, rule="mismatch"))
    assert set(chosen_data(trusted, ["filelists"])) == {"filelists"}


@pytest.mark.parametrize("algorithm", ["sha384", "sha512"])
def test_data_proven_by_another_digest(build, tmp_path, key, algorithm):
    write_repository(tmp_path / "m", key, [Rpm("a")], algorithm=algorithm)
    trusted = build(tmp_path / "m")
    assert wanted_data(trusted, trusted.bases) == []
    first = fetch_data(trusted, trusted.bases, build.network, build.store, ["primary"])["primary"]
    with open(first.path, "rb") as file:
        assert digest(file.read()) == first.sha256
    # The store remembers which blob it was, so that it is found without a network,
    assert fetch_data(trusted, [], StoreFetch(build.store), build.store, ["primary"])["primary"] == first
    # and a lock tells it.
    note = os.path.join(build.store.indexes, f"{algorithm}-{first.data.checksum.value}")
    os.unlink(note)
    known = {first.data.href: first.sha256}
    assert fetch_data(trusted, [], StoreFetch(build.store), build.store, ["primary"], known=known)["primary"] == first


def test_neither_a_lock_nor_a_note_replaces_the_digest_of_repomd(build, tmp_path, key):
    write_repository(tmp_path / "m", key, [Rpm("a")], algorithm="sha512")
    trusted = build(tmp_path / "m")
    data = trusted.repomd.data["primary"]
    evil = os.urandom(data.size)
    build.store.put(evil)
    with pytest.raises(IntegrityError):
        fetch_data(trusted, [], build.network, build.store, ["primary"], known={data.href: digest(evil)})
    os.makedirs(build.store.indexes, exist_ok=True)
    with open(os.path.join(build.store.indexes, f"sha512-{data.checksum.value}"), "w", encoding="ascii") as file:
        file.write(digest(evil))
    with pytest.raises(IntegrityError):
        fetch_data(trusted, [], build.network, build.store, ["primary"])


def test_fetching_is_asked_for_as_little_as_possible(build, mirror):
    with serve(folder=mirror) as server:
        trusted = build(server.url)
        fetch_data(trusted, trusted.bases, build.network, build.store)
        fetch_data(trusted, trusted.bases, build.network, build.store)
        asked = [one.path for one in server.asked]
    assert len(asked) == len(set(asked)) == 4
