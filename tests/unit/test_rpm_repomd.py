from __future__ import annotations

import hashlib

import pytest
from making.rpmmd import COMPRESSORS, Rpm, primary, repomd
from making.shared import cs9_baseos

from rootfsbuild.errors import UntrustedError
from rootfsbuild.formats.rpm.data import Fetched, open_data, read_data
from rootfsbuild.formats.rpm.repomd import Checksum, is_inside, parse_repomd, unusable
from rootfsbuild.formats.rpm.xml import Bounds, read_document, read_records

NOW = 1_800_000_000
SUM = "a" * 64


def entry(kind="primary", *, href="repodata/x-primary.xml.gz", checksum=f'type="sha256">{SUM}', rest="<size>1</size>"):
    return f'<data type="{kind}"><checksum {checksum}</checksum><location href="{href}"/>{rest}</data>'


def document(*entries, revision="7"):
    return f"<repomd><revision>{revision}</revision>{''.join(entries)}</repomd>".encode()


def refusal(call, *arguments, **named):
    with pytest.raises(UntrustedError) as caught:
        call(*arguments, **named)
    assert caught.value.rule == "malformed"
    return str(caught.value)


# repomd.xml


def test_parse():
    text, made = repomd({"primary": b"<x/>", "group": b"<y/>"}, date=NOW, tags=["binary-x86_64"])
    found = parse_repomd(text, "it")
    assert (found.revision, found.timestamp) == (str(NOW), NOW)
    assert found.tags == (("content", "binary-x86_64"),)
    data = found.data["primary"]
    assert made[data.href] == COMPRESSORS[".gz"](b"<x/>")
    assert (data.size, data.open_size) == (len(made[data.href]), 4)
    assert data.checksum == Checksum("sha256", hashlib.sha256(made[data.href]).hexdigest())
    assert data.open_checksum == Checksum("sha256", hashlib.sha256(b"<x/>").hexdigest())
    assert data.sha256 == data.checksum.value
    assert found.choose("primary") is data
    assert found.choose("modules") is None


def test_real_repomd():
    found = parse_repomd((cs9_baseos() / "repodata/repomd.xml").read_bytes(), "cs9")
    assert found.timestamp == 1644263915
    assert set(found.data) == {"primary", "filelists", "other", "group", "group_gz"}
    assert found.choose("group").type == "group_gz"
    assert found.choose("group").open_size == 39248


@pytest.mark.parametrize("algorithm", ["sha384", "sha512"])
def test_stronger_digests_are_kept_and_count(algorithm):
    text, _ = repomd({"primary": b"<x/>"}, algorithm=algorithm)
    data = parse_repomd(text, "it").choose("primary")
    assert (data.checksum.type, data.sha256) == (algorithm, "")


def test_weak_digests_prove_nothing():
    weak = entry("group", checksum=f'type="sha">{"b" * 40}')
    found = parse_repomd(document(entry(), weak), "it")
    assert found.data["group"].checksum == Checksum("sha1", "b" * 40)
    assert "proves nothing" in unusable(found.data["group"])
    assert found.choose("group") is None
    for kind, digest in (("sha", "b" * 40), ("md5", "c" * 32), ("crc32", "d" * 8)):
        assert "prove nothing" in refusal(parse_repomd, document(entry(checksum=f'type="{kind}">{digest}')), "it")


def test_timestamps():
    stamped = [f"<size>1</size><timestamp>{when}</timestamp>" for when in ("5", "1644263915.42")]
    entries = [entry(rest=stamped[0]), entry("group", rest=stamped[1])]
    assert parse_repomd(document(*entries), "it").timestamp == 1644263915
    assert parse_repomd(document(entry(), revision="1644263000"), "it").timestamp == 1644263000
    assert parse_repomd(document(entry(), revision="9.3"), "it").timestamp == 0


def test_best_encoding():
    gz = entry("group_gz", href="repodata/c.xml.gz", rest="<size>10</size>")
    xz = entry("group_xz", href="repodata/c.xml.xz", rest="<size>9</size>")
    plain = entry("group", href="repodata/c.xml", rest="<size>100</size>")
    assert parse_repomd(document(plain, gz, xz), "it").choose("group").type == "group_xz"
    assert parse_repomd(document(plain, gz), "it").choose("group").type == "group_gz"
    assert parse_repomd(document(plain), "it").choose("group").type == "group"
    zck = entry("primary_zck", href="repodata/p.xml.zck", rest="<size>1</size>")
    database = entry("primary_db", href="repodata/p.sqlite.bz2", rest="<size>1</size>")
    assert parse_repomd(document(zck, database, entry(rest="<size>99</size>")), "it").choose("primary").size == 99
    assert parse_repomd(document(zck, database), "it").choose("primary") is None


def test_prefixes_and_declared_encodings_do_not_matter():
    body = (
        b'<?xml version="1.0" encoding="ISO-8859-1"?><r:repomd xmlns:r="http://x">' + entry().encode() + b"</r:repomd>"
    )
    assert "primary" in parse_repomd(body, "it").data


def test_same_entry_twice_is_one():
    assert len(parse_repomd(document(entry(), entry()), "it").data) == 1


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "no element found"),
        (b"<html>please pay</html>", "not a <repomd>"),
        (document(entry())[:-4], "line 1"),
        (document(entry()) + b"<more/>", "junk after document element"),
        (document(), "prove nothing"),
        (document(entry(), entry(rest="<size>2</size>")), "primary twice"),
        (document(entry(kind="")), "type"),
        (document(entry(kind="../x")), "type"),
        (document(entry(checksum='type="sha256">abc')), "digits"),
        (document(entry(checksum=f'type="sha256">{"g" * 64}')), "digits"),
        (document(entry(rest="<size>-1</size>")), "size"),
        (document(entry(rest="<size>1e9</size>")), "size"),
        (document(entry(rest="<size>9999999999999999</size>")), "size"),
        (document(entry(rest="<timestamp>soon</timestamp>")), "timestamp"),
        (document('<data type="primary"><location href="x"/></data>'), "checksum"),
        (document(entry()).replace(b"<revision>", b"<revision>\x00"), "line 1"),
        (document(entry()).replace(b"7", b"\xff"), "line 1"),
    ],
)
def test_malformed_documents_are_refused(body, said):
    assert said in refusal(parse_repomd, body, "it")


@pytest.mark.parametrize(
    "href",
    [
        "",
        "/etc/passwd",
        "../x",
        "repodata/../../x",
        "repodata//x",
        "./x",
        "x/",
        "http://evil.example/x",
        "file:x",
        "%2e%2e/x",
        "a\\..\\x",
        "x?y",
        "x#y",
        "a b",
        "a\tb",
        "x\u0085",
    ],
)
def test_paths_that_lead_elsewhere_are_refused(href):
    assert not is_inside(href)
    assert "no path" in refusal(parse_repomd, document(entry(href=href)), "it")


def test_paths_of_packages_are_taken():
    assert is_inside("Packages/l/libstdc++-11.2.1-9.el9~1^2.x86_64.rpm")
    assert is_inside("x86_64/a:b.rpm")


# XML


def test_documents_are_read_record_by_record():
    read = []

    def chunks():
        for number in range(3):
            read.append(number)
            yield (b"<all>" if number == 0 else b"") + b"<one n='%d'>t<a>u</a>v</one>" % number
        yield b"</all>"

    records = read_records(chunks(), "it", "all")
    first = next(records)
    assert read == [0]
    assert (first.name, first.get("n"), first.text, first.text_of("a"), first.line) == ("one", "0", "tv", "u", 1)
    assert [one.get("n") for one in records] == ["1", "2"]


def test_text_across_chunks_is_whole():
    body = "<a><b>ä€𝄞&amp;\n</b></a>".encode()
    whole = list(read_records((body[at : at + 1] for at in range(len(body))), "it", "a"))
    assert whole[0].text == "ä€𝄞&"


def test_what_came_before_an_error_was_read():
    records = read_records(iter([b"<a><b/>", b"<c>"]), "it", "a")
    assert next(records).name == "b"
    assert "line 1" in refusal(list, records)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("<!DOCTYPE a><a/>", "document type"),
        ('<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>', "document type"),
        ('<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>', "document type"),
        ("<a>&undefined;</a>", "undefined entity"),
        ("<a>" * 20 + "</a>" * 20, "inside each other"),
        ("<a><b>" + "<c/>" * 100 + "</b></a>", "more than 50 elements"),
        ("<a><b>" + "x" * 2000 + "</b></a>", "more than 1000 characters"),
        (f"<a><b c='{'x' * 2000}'/></a>", "more than 1000 characters"),
        ("<a><b></a></b>", "mismatched tag"),
        ("<a b='1' b='2'/>", "duplicate attribute"),
    ],
)
def test_xml_that_is_refused(body, said):
    bounds = Bounds(depth=16, elements=50, characters=1000)
    assert said in refusal(list, read_records(iter([body.encode()]), "it", "a", bounds=bounds))


def test_entities_are_refused_also_where_a_document_type_is_let_pass():
    assert "entity" in refusal(
        list, read_records(iter([b"<!DOCTYPE a SYSTEM 'x'><a><b>&y;</b></a>"]), "it", "a", doctype="a")
    )
    inner = b"<!DOCTYPE a SYSTEM 'x' [<!ENTITY y 'z'>]><a><b>&y;</b></a>"
    assert "document type" in refusal(list, read_records(iter([inner]), "it", "a", doctype="a"))
    assert len(list(read_records(iter([b"<!DOCTYPE a SYSTEM 'x'><a><b/></a>"]), "it", "a", doctype="a"))) == 1


def test_endless_tag_is_refused_before_it_fills_the_memory():
    def endless():
        yield b"<a><!--"
        while True:
            taken.append(1)
            yield b"x" * (1 << 16)

    taken = []
    assert "longer than" in refusal(list, read_records(endless(), "it", "a"))
    assert len(taken) < 64


def test_bounds_are_of_a_record_and_not_of_the_document():
    body = b"<a>" + b"<b><c/>0123456789</b>" * 500 + b"</a>"
    bounds = Bounds(depth=3, elements=3, characters=20)
    assert len(list(read_records(iter([body]), "it", "a", bounds=bounds))) == 500
    assert refusal(read_document, body, "it", "a", bounds)


# Data on disk


@pytest.mark.parametrize("ending", COMPRESSORS)
def test_data_of_every_compression(tmp_path, ending):
    plain = primary([Rpm("a")])
    file = tmp_path / "blob"
    file.write_bytes(COMPRESSORS[ending](plain))
    assert b"".join(open_data(str(file), f"repodata/primary.xml{ending}", "it", len(plain))) == plain
    said = refusal(list, open_data(str(file), f"repodata/primary.xml{ending}", "it", len(plain) - 1))
    assert "more than" in said
    assert "expands to" in refusal(list, open_data(str(file), f"x.xml{ending}", "it", len(plain) + 1))
    assert "more than" in refusal(list, open_data(str(file), f"x.xml{ending}", "it", limit=10))


@pytest.mark.parametrize("ending", [ending for ending in COMPRESSORS if ending])
def test_truncated_and_corrupt_data(tmp_path, ending):
    file = tmp_path / "blob"
    packed = COMPRESSORS[ending](primary([Rpm(f"p{number}") for number in range(50)]))
    file.write_bytes(packed[:-20])
    assert refusal(list, open_data(str(file), f"x.xml{ending}", "it"))
    file.write_bytes(b"garbage")
    assert refusal(list, open_data(str(file), f"x.xml{ending}", "it"))


def test_real_primary_is_read_as_it_is_listed():
    folder = cs9_baseos()
    data = parse_repomd((folder / "repodata/repomd.xml").read_bytes(), "cs9").choose("primary")
    fetched = Fetched(data, str(folder / data.href), data.sha256, data.size)
    packages = read_records(read_data(fetched, "primary"), "primary", "metadata")
    names = [package.text_of("name") for package in packages]
    assert (len(names), len(set(names))) == (1125, 883)
