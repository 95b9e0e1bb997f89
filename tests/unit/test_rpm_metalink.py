from __future__ import annotations

import hashlib

import pytest
from making.rpmmd import metalink

from rootfsbuild.errors import UntrustedError
from rootfsbuild.formats.rpm.metalink import parse_metalink, parse_mirrorlist

BODY = b"<repomd/>"
BASES = ["https://a.example/f/43", "http://b.example/f/43"]


def refusal(call, *arguments):
    with pytest.raises(UntrustedError) as caught:
        call(*arguments, "it")
    assert caught.value.rule == "malformed"
    return caught.value


def test_parse():
    found = parse_metalink(metalink(BODY, BASES, date=1_800_000_000), "it")
    assert found.mirrors == tuple(BASES)
    (current,) = found.accepted
    assert (current.timestamp, current.size) == (1_800_000_000, len(BODY))
    assert current.hashes == {kind: hashlib.new(kind, BODY).hexdigest() for kind in ("sha256", "sha512")}
    assert found.prove(BODY) is current
    assert found.prove(BODY + b" ") is None


def test_alternates_count_after_the_current_one():
    found = parse_metalink(metalink(BODY, BASES, alternates=[b"old", b"older"]), "it")
    assert [one.size for one in found.accepted] == [9, 3, 5]
    assert found.prove(b"older") is found.accepted[2]


def test_alternates_may_stand_before_the_verification():
    written = metalink(BODY, BASES, alternates=[b"old"]).decode()
    own, _, rest = written.partition("<mm0:alternates>")
    older, _, rest = rest.partition("</mm0:alternates>")
    head, mark, described = own.partition("<verification>")
    found = parse_metalink(f"{head}<mm0:alternates>{older}</mm0:alternates>{mark}{described}{rest}".encode(), "it")
    assert [one.size for one in found.accepted] == [9, 3]


@pytest.mark.parametrize(
    ("preferences", "expected"),
    [((1, 2), (1, 0)), ((100, 100), (0, 1)), (("x", 1), (1, 0)), (("", ""), (0, 1))],
)
def test_order_of_preference(preferences, expected):
    found = parse_metalink(metalink(BODY, BASES, preferences=preferences), "it")
    assert found.mirrors == tuple(BASES[number] for number in expected)


def test_addresses_of_no_use_are_passed_over():
    bases = ["rsync://r.example/f", "ftp://f.example/f", "file:///f", "https://u.example/f?x=", BASES[0], BASES[0]]
    assert parse_metalink(metalink(BODY, bases), "it").mirrors == (BASES[0],)
    elsewhere = metalink(BODY, BASES).replace(b"43/repodata/repomd.xml", b"43/other.xml")
    assert parse_metalink(elsewhere, "it").mirrors == ()


def test_only_a_size_that_fits_proves():
    lying = metalink(BODY, BASES).replace(b"<size>9</size>", b"<size>10</size>")
    assert parse_metalink(lying, "it").prove(BODY) is None
    silent = metalink(BODY, BASES).replace(b"<size>9</size>", b"")
    assert parse_metalink(silent, "it").prove(BODY)


def test_strongest_hash_decides():
    forged = metalink(BODY, BASES).replace(hashlib.sha512(BODY).hexdigest().encode(), b"0" * 128)
    assert parse_metalink(forged, "it").prove(BODY) is None


def test_alternates_with_weak_hashes_only_do_not_count():
    older = metalink(b"old", BASES, hashes=["md5", "sha1"]).partition(b"<mm0:timestamp>")[2].partition(b"<resources")[0]
    body = metalink(BODY, BASES).replace(
        b"<resources",
        b"<mm0:alternates><mm0:alternate><mm0:timestamp>" + older + b"</mm0:alternate></mm0:alternates><resources",
    )
    found = parse_metalink(body, "it")
    assert len(found.accepted) == 1
    assert found.prove(b"old") is None


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "no element"),
        (b"<html/>", "not a <metalink>"),
        (b"<metalink/>", "0 files"),
        (metalink(BODY, BASES).replace(b'"repomd.xml"', b'"primary.xml"'), "0 files"),
        (metalink(BODY, BASES, hashes=["md5", "sha1"]), "prove nothing"),
        (metalink(BODY, BASES, hashes=[]), "prove nothing"),
        (metalink(BODY, BASES).replace(b'type="sha256">', b'type="sha256">0'), "digits"),
        (metalink(BODY, BASES).replace(b"<size>9", b"<size>9a"), "size"),
        (metalink(BODY, BASES).replace(b'type="sha512"', b'type="sha256"'), "digits"),
        (b"<!DOCTYPE metalink []>" + metalink(BODY, BASES).partition(b"\n")[2], "document type"),
    ],
    ids=range(10),  # the documents tell the time
)
def test_malformed_metalinks_are_refused(body, said):
    assert said in str(refusal(parse_metalink, body))


def test_two_different_hashes_of_one_type_are_refused():
    good = hashlib.sha256(BODY).hexdigest()
    body = metalink(BODY, BASES).replace(
        b"<verification>", f'<verification><hash type="sha256">{"0" * 64}</hash>'.encode()
    )
    assert good.encode() in body
    assert "two different sha256" in str(refusal(parse_metalink, body))


def test_mirrorlist():
    text = b"# repo = x\nhttp://a.example/x/\n\nhttps://b.example/y  # near\nrsync://c.example/z\nhttp://a.example/x\n"
    assert parse_mirrorlist(text, "it") == ("http://a.example/x", "https://b.example/y")


def test_mirrorlist_without_mirrors_tells_what_the_server_said():
    error = refusal(parse_mirrorlist, b"# Bad arch - not in list\x1b[2J: foo\n")
    assert "Bad arch - not in list?" in str(error)
    assert "metalink" not in error.hint
    assert "metalink" in refusal(parse_mirrorlist, metalink(BODY, BASES)).hint
    assert refusal(parse_mirrorlist, b"")
