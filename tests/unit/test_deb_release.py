from __future__ import annotations

import contextlib
import hashlib
import locale
import time

import pysequoia
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st
from making.keys import make_key
from making.signed import DAY, release_text

from rootfsbuild.errors import UntrustedError
from rootfsbuild.events import Warned
from rootfsbuild.formats.deb.cleartext import split_inrelease
from rootfsbuild.formats.deb.release import parse_release
from rootfsbuild.formats.deb.trusted import check_release
from rootfsbuild.plan import Index

NOW = 1_800_000_000
BEGIN = b"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n"
SIGNATURE = b"-----BEGIN PGP SIGNATURE-----\n\nabcd\n-----END PGP SIGNATURE-----\n"


def refusal(call, *arguments, **named):
    with pytest.raises(UntrustedError) as caught:
        call(*arguments, **named)
    return caught.value


# Splitting


def test_split():
    assert split_inrelease(BEGIN + b"Origin: x\n a\n" + SIGNATURE) == b"Origin: x\n a"


def test_split_undoes_dash_escaping_and_drops_trailing_blanks():
    assert split_inrelease(BEGIN + b"- -----x\n- From\nend \t\r\n" + SIGNATURE) == b"-----x\nFrom\nend"


def test_split_takes_crlf():
    document = (BEGIN + b"Origin: x\n" + SIGNATURE).replace(b"\n", b"\r\n")
    assert split_inrelease(document) == b"Origin: x"


def test_split_takes_no_or_several_hash_headers():
    for headers in (b"", b"Hash: SHA256\nHash: SHA512\n", b"Hash: SHA256,SHA512\n"):
        document = b"-----BEGIN PGP SIGNED MESSAGE-----\n" + headers + b"\nx\n" + SIGNATURE
        assert split_inrelease(document) == b"x"


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (b"", "does not begin"),
        (b"junk\n" + BEGIN + b"x\n" + SIGNATURE, "does not begin"),
        (b" " + BEGIN + b"x\n" + SIGNATURE, "does not begin"),
        (b"\n" + BEGIN + b"x\n" + SIGNATURE, "does not begin"),
        (BEGIN.replace(b"Hash: SHA256", b"Comment: hi") + b"x\n" + SIGNATURE, "other than Hash"),
        (BEGIN.replace(b"Hash: SHA256", b"NotDashEscaped: yes") + b"x\n" + SIGNATURE, "other than Hash"),
        (BEGIN + b"x\0y\n" + SIGNATURE, "NUL"),
        (BEGIN + b"-x\n" + SIGNATURE, "unescaped dash"),
        (BEGIN + b"-----BEGIN PGP MESSAGE-----\n" + SIGNATURE, "unescaped dash"),
        (BEGIN + b"x\n", "carries no signature"),
        (BEGIN + b"x\n" + SIGNATURE.partition(b"-----END")[0], "does not end"),
        (BEGIN + b"x\n" + SIGNATURE + b"more\n", "goes on"),
        (BEGIN + b"x\n" + SIGNATURE + SIGNATURE, "goes on"),
        ((BEGIN + b"x\n" + SIGNATURE) * 2, "goes on"),
        (BEGIN + b"x\n" + SIGNATURE[:-1], "middle of a line"),
        (BEGIN + b"x\n" + SIGNATURE.replace(b"abcd", b"-----BEGIN PGP SIGNATURE-----"), "second block"),
        (b"-----BEGIN PGP SIGNED MESSAGE-----\n", "headers do not end"),
    ],
)
def test_split_refuses(document, said):
    error = refusal(split_inrelease, document)
    assert error.rule == "malformed"
    assert said in str(error)


LINES = st.lists(st.text(alphabet="- abcHashBEGINPGP:\t\r", max_size=40).map(str.encode), max_size=8)
KEY = make_key()


@given(LINES)
def test_split_reads_what_the_verifier_reads(lines):
    document = KEY.sign(b"\n".join(lines))
    try:
        verified = pysequoia.verify(bytes=document, store=lambda _: [KEY.certificate]).bytes
    except RuntimeError:
        reject()  # it does not agree with itself about a line that is only a CR
    stripped = b"\n".join(line.rstrip(b" \t\r") for line in verified.split(b"\n"))
    assert split_inrelease(document) == stripped


@given(st.data())
def test_split_never_crashes(data):
    document = bytearray(KEY.sign(b"Origin: x\nSuite: stable\n- y\n"))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(document) - 1))
        document[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    with contextlib.suppress(UntrustedError):
        assert b"\0" not in split_inrelease(bytes(document))


# Parsing


def test_parse():
    files = {"main/binary-amd64/Packages.xz": b"abc", "main/source/Sources": b""}
    text = release_text(
        files,
        date=NOW,
        valid_until=NOW + DAY,
        version="12.1",
        components="main contrib",
        notautomatic="yes",
        butautomaticupgrades="yes",
    )
    release = parse_release(text, "it")
    assert (release.origin, release.label, release.suite) == ("Example", "Example", "stable")
    assert (release.codename, release.version) == ("bookworm", "12.1")
    assert (release.date, release.valid_until) == (NOW, NOW + DAY)
    assert release.architectures == ("amd64", "arm64")
    assert release.components == ("main", "contrib")
    assert release.acquire_by_hash
    assert release.not_automatic
    assert release.but_automatic_upgrades
    path = "main/binary-amd64/Packages.xz"
    assert release.indexes[path] == Index(path, 3, hashlib.sha256(b"abc").hexdigest())
    assert len(release.indexes) == 2


def test_absent_fields():
    release = parse_release(release_text(drop=["Valid-Until", "Acquire-By-Hash", "Suite"]), "it")
    assert release.valid_until is None
    assert release.suite == ""
    assert not any([release.acquire_by_hash, release.not_automatic, release.but_automatic_upgrades])


def sums(*lines):
    return b"Suite: stable\nDate: Sat, 11 Jul 2026 10:16:37 UTC\nSHA256:\n" + b"".join(
        b" " + line + b"\n" for line in lines
    )


GOOD = b"a" * 64


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"Suite: stable\nSHA256:\n " + GOOD + b" 1 x\n",
        b"Date: soon\nSHA256:\n " + GOOD + b" 1 x\n",
        sums(GOOD + b" 1 x").replace(b"UTC", b"+0200"),
        sums(GOOD + b" 1 x").replace(b"Jul", b"Foo"),
        sums(GOOD + b" 1 x").replace(b"10:16", b"25:16"),
        sums(),
        sums(GOOD + b" 1 x").replace(b"SHA256", b"MD5Sum"),
        sums(GOOD + b" 1 x").replace(b"SHA256", b"SHA1"),
        sums(b"A" * 64 + b" 1 x"),
        sums(b"a" * 40 + b" 1 x"),
        sums(GOOD + b" -1 x"),
        sums(GOOD + b" 0x10 x"),
        sums(GOOD + b" 9999999999999999 x"),
        sums(GOOD + b" 1 x y"),
        sums(GOOD + b" 1 /etc/passwd"),
        sums(GOOD + b" 1 ../x"),
        sums(GOOD + b" 1 a/../../x"),
        sums(GOOD + b" 1 a//x"),
        sums(GOOD + b" 1 ./x"),
        sums(GOOD + b" 1 a/"),
        sums(GOOD + b" 1 %2e%2e/x"),
        sums(GOOD + b" 1 a\\..\\x"),
        sums(GOOD + b" 1 x?y"),
        sums(GOOD + b" 1 x", GOOD + b" 2 x"),
        sums(GOOD + b" 1 x", b"b" * 64 + b" 1 x"),
        b"Suite: other\n" + sums(GOOD + b" 1 x"),
        sums(GOOD + b" 1 x") + b"\nSuite: second-stanza\n",
        sums(GOOD + b" 1 x") + b"no field\n",
        sums(GOOD + b" 1 x") + b"Label: a\x1b[2Jb\n",
        b" continued\n" + sums(GOOD + b" 1 x"),
    ],
)
def test_malformed_releases_are_refused(text):
    assert refusal(parse_release, text, "it").rule == "malformed"


def test_dates_do_not_follow_the_locale():
    text = release_text(date=NOW)
    old = locale.setlocale(locale.LC_TIME)
    try:
        for name in ("de_DE.UTF-8", "fr_FR.UTF-8", "C"):
            try:
                locale.setlocale(locale.LC_TIME, name)
            except locale.Error:
                continue
            assert parse_release(text, "it").date == NOW
    finally:
        locale.setlocale(locale.LC_TIME, old)


# Judging


def judge(*, asked="bookworm", last=None, max_age=None, relax=(), heard=None, now=NOW, **fields):
    release = parse_release(release_text(**{"date": NOW - DAY, **fields}), "it")
    check_release(
        release,
        asked_suite=asked,
        now=now,
        last_date=last,
        max_age_days=max_age,
        relax=frozenset(relax),
        report=(heard if heard is not None else []).append,
    )


@pytest.mark.parametrize(
    ("asked", "suite", "codename"),
    [
        ("bookworm", "oldstable", "bookworm"),
        ("oldstable", "oldstable", "bookworm"),
        ("bookworm-updates", "oldstable-updates", "bookworm-updates"),
        ("bookworm-security", "oldstable-security", "bookworm-security"),
        ("bookworm-backports", "oldstable-backports", "bookworm-backports"),
        ("sid", "unstable", "sid"),
        ("jammy-updates", "jammy-updates", "jammy"),
        ("jammy", "jammy", "jammy"),
        ("buster/updates", "oldoldstable", "buster"),
        ("./", None, None),
        ("packages/", "whatever", None),
    ],
)
def test_suite_that_was_asked_for(asked, suite, codename):
    judge(asked=asked, suite=suite, codename=codename)


@pytest.mark.parametrize(
    ("asked", "suite", "codename"),
    [
        ("bookworm", "stable", "trixie"),
        ("bookworm", "oldstable-updates", "bookworm-updates"),
        ("bookworm-updates", "oldstable", "bookworm"),
        ("jammy", "jammy-updates", "jammy"),
        ("bookworm", None, None),
        ("stable", "oldstable", "bookworm"),
    ],
)
def test_suite_that_was_not_asked_for_is_refused(asked, suite, codename):
    assert refusal(judge, asked=asked, suite=suite, codename=codename).rule == "suite"
    every = ["expired", "rollback", "unsigned", "old", "suite"]
    assert refusal(judge, asked=asked, suite=suite, codename=codename, relax=every).rule == "suite"


def test_expired_names_the_date_the_switch_and_the_clock():
    error = refusal(judge, valid_until=NOW - 1)
    assert error.rule == "expired"
    assert "2027-01-15 07:59:59 UTC" in str(error)
    assert "clock says 2027-01-15 08:00:00 UTC" in str(error)
    assert "--allow=expired" in error.hint
    judge(valid_until=NOW + 1)


def test_date_in_the_future_names_the_clock_and_has_no_switch():
    judge(date=NOW + 9)
    error = refusal(judge, date=NOW + 60, relax=["expired", "rollback", "unsigned", "old"])
    assert error.rule == "future"
    assert "clock says" in str(error)
    assert "clock" in error.hint


def test_clock_a_year_off_is_named():
    assert "clock says 2026" in str(refusal(judge, now=NOW - 365 * DAY))
    assert "clock says 2028" in str(refusal(judge, now=NOW + 365 * DAY, valid_until=NOW + DAY))
    assert "clock says 2028" in str(refusal(judge, now=NOW + 365 * DAY, max_age=100))


def test_rollback_names_both_dates_and_the_switch():
    error = refusal(judge, last=NOW - DAY + 1)
    assert error.rule == "rollback"
    assert "2027-01-14 08:00:00 UTC" in str(error)
    assert "2027-01-14 08:00:01 UTC" in str(error)
    assert "--allow=rollback" in error.hint
    judge(last=NOW - DAY)


def test_age_warns_then_is_an_error():
    heard = []
    judge(date=NOW - 70 * DAY, max_age=100, heard=heard)
    assert not heard
    judge(date=NOW - 80 * DAY, max_age=100, heard=heard)
    assert [type(event) for event in heard] == [Warned]
    assert heard[0].weakens == ""
    error = refusal(judge, date=NOW - 101 * DAY, max_age=100)
    assert (error.rule, "--allow=old" in error.hint) == ("age", True)


def test_age_does_not_count_where_the_release_sets_its_own_end():
    judge(date=NOW - 200 * DAY, valid_until=NOW + 1, max_age=100)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("expired", {"valid_until": NOW - 1}),
        ("rollback", {"last": NOW}),
        ("old", {"date": NOW - 200 * DAY, "max_age": 100}),
    ],
)
def test_every_switch_is_loud_and_lets_pass_only_its_own_rule(name, fields):
    heard = []
    judge(relax=[name], heard=heard, **fields)
    assert [event.weakens for event in heard] == [name]
    assert f"--allow={name}" in heard[0].text
    others = {"expired", "rollback", "old", "unsigned"} - {name}
    refusal(judge, relax=others, **fields)
    unused = []
    judge(relax=[name], heard=unused)
    assert not unused


def test_source_date_epoch_never_changes_validity(monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(NOW - 10 * DAY))
    assert refusal(judge, valid_until=NOW - 1).rule == "expired"


def test_parsing_a_large_release_is_fast():
    text = release_text({f"main/binary-{number}/Packages.xz": b"" for number in range(20_000)})
    start = time.perf_counter()
    assert len(parse_release(text, "it").indexes) == 20_000
    assert time.perf_counter() - start < 2
