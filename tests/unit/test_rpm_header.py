from __future__ import annotations

import struct
import time

import pytest
from making.rpms import BIN, I16, I32, I64, STRING, STRINGS, directory, make_header, make_raw_header, make_rpm

from rootfsbuild.errors import PackageError
from rootfsbuild.formats.rpm import tags
from rootfsbuild.formats.rpm.archive import open_rpm
from rootfsbuild.formats.rpm.header import MAIN, SIGNATURE, Limits, Type, measure, parse_header, read_items

ENTRIES = {
    tags.NAME: (STRING, ["glibc"]),
    tags.BUILDTIME: (I32, [1_700_000_000]),
    tags.FILEMODES: (I16, [0o100644, 0o40755]),
    tags.LONGSIZE: (I64, [5 << 32]),
    tags.BASENAMES: (STRINGS, ["a", "", b"\xff"]),
    tags.SUMMARY: (Type.I18NSTRING, ["one", "eins"]),
    1100: (BIN, b"\0\1\2"),
}


def refusal(data, **more):
    with pytest.raises(PackageError) as caught:
        parse_header(data, "example", **more)
    return str(caught.value)


def test_every_type_of_data_is_read():
    data = make_header(ENTRIES)
    header, length = parse_header(data + b"behind", "example")
    assert length == len(data)
    assert header.text(tags.NAME) == "glibc"
    assert header.number(tags.BUILDTIME) == 1_700_000_000
    assert header.numbers(tags.FILEMODES) == (0o100644, 0o40755)
    assert header.number(tags.LONGSIZE) == 5 << 32
    assert header.strings(tags.BASENAMES) == (b"a", b"", b"\xff")
    assert header.strings(tags.SUMMARY) == (b"one", b"eins")
    assert header.binary(1100) == b"\0\1\2"
    assert header.region == len(header.items) == len(ENTRIES) + 1
    assert header.intro + header.data == data


def test_absent_tags_have_defaults():
    header, _ = parse_header(make_header(ENTRIES), "example")
    assert tags.EPOCH not in header
    assert header.number(tags.EPOCH) == 0
    assert header.number(tags.EPOCH, 7) == 7
    assert header.text(tags.VENDOR, "none") == "none"
    assert header.strings(tags.DIRNAMES) == header.numbers(tags.DIRINDEXES) == ()
    assert header.binary(tags.OPENPGP) == b""


def test_bytes_that_are_no_utf8_survive():
    header, _ = parse_header(make_header({tags.NAME: (STRING, [b"a\xffb"])}), "example")
    assert header.text(tags.NAME).encode("utf-8", "surrogateescape") == b"a\xffb"


@pytest.mark.parametrize("how", ["numbers", "number", "strings", "text", "binary"])
def test_type_confusion_is_refused(how):
    wrong = {"numbers": (STRING, ["1"]), "number": (BIN, b"1"), "strings": (I32, [1]), "text": (I32, [1])}
    header, _ = parse_header(make_header({tags.NAME: wrong.get(how, (STRING, ["x"]))}), "example")
    with pytest.raises(PackageError, match="tag 1000 does not hold"):
        getattr(header, how)(tags.NAME)


def test_several_numbers_are_not_one():
    header, _ = parse_header(make_header({tags.EPOCH: (I32, [1, 2])}), "example")
    with pytest.raises(PackageError, match="one number"):
        header.number(tags.EPOCH)


def test_header_without_region():
    header, _ = parse_header(make_header(ENTRIES, region=None), "example")
    assert header.region == 0


def test_entries_behind_a_region_are_told_apart():
    data = make_header(ENTRIES)
    count, size = struct.unpack_from(">II", data, 8)
    index, store = data[16 : 16 + count * 16], data[16 + count * 16 :]
    more = struct.pack(">IIiI", tags.INSTALLTIME, I32, size + -size % 4, 1)
    header = read_items(index + more + store + bytes(-size % 4) + b"\0\0\0\7", count + 1, "example")
    assert (header.region, len(header.items)) == (count, count + 1)
    assert header.number(tags.INSTALLTIME) == 7


def test_magic_and_truncation():
    data = make_header(ENTRIES)
    assert "magic" in refusal(b"\x8e\xad\xe8\x02" + data[4:])
    for length in (0, 7, 15, 16, 40, len(data) - 1):
        refusal(data[:length])


@pytest.mark.parametrize(
    ("limits", "count", "size"),
    [(MAIN, 65536, 10), (MAIN, 1, (256 << 20) + 1), (SIGNATURE, 33, 10), (SIGNATURE, 1, (64 << 20) + 1), (MAIN, 0, 1)],
)
def test_announced_sizes_are_limited_before_anything_is_read(limits, count, size):
    with pytest.raises(PackageError, match="not allowed"):
        measure(make_raw_header([], b"", count=count, size=size), "example", limits)


def test_limits_can_be_narrower():
    assert "not allowed" in refusal(make_header(ENTRIES), limits=Limits(3, 1000))


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ((1000, 10, 0, 1), "unknown type 10"),
        ((1000, 0, 0, 1), "unknown type 0"),
        ((1000, STRING, -1, 1), "outside"),
        ((1000, STRING, 64, 1), "outside"),
        ((1000, STRING, 0, 0), "outside"),
        ((1000, STRING, 0, 2), "2 strings"),
        ((1000, STRINGS, 0, 60), "do not end"),
        ((1000, I32, 0, 17), "outside"),
        ((1000, I32, 2, 1), "outside"),
        ((1000, I64, 4, 1), "outside"),
        ((1000, BIN, 1, 64), "outside"),
        ((1000, I32, 0, 0xFFFFFFFF), "outside"),
        ((99, I32, 0, 1), "no tag"),
        ((0x80000001, I32, 0, 1), "no tag"),
    ],
)
def test_impossible_entries(entry, said):
    store = b"text\0".ljust(56, b"\0") + b"unended!"
    assert said in refusal(make_raw_header([entry], store))


def test_string_that_runs_off_the_end():
    assert "do not end" in refusal(make_raw_header([(1000, STRING, 1, 1)], b"\0text"))


def test_tags_twice_and_overlaps():
    store = bytes(32)
    assert "twice" in refusal(make_raw_header([(1000, I32, 0, 1), (1000, I32, 4, 1)], store))
    assert "overlaps" in refusal(make_raw_header([(1000, I32, 0, 2), (1001, I32, 4, 1)], store))
    assert "overlaps" in refusal(make_raw_header([(1000, I32, 8, 1), (1001, I32, 0, 1)], store))


def region(tag=63, kind=BIN, count=16, offset=4, *, end=None, place=0, store=b"abc\0"):
    """Return a header with one string and a region entry that says something."""
    index = [(1000, STRING, 0, 1)]
    index.insert(place, (tag, kind, offset, count))
    return make_raw_header(index, store + struct.pack(">IIiI", *(end or (63, BIN, -32, 16))))


def test_region():
    assert parse_header(region(), "example")[0].region == 2


@pytest.mark.parametrize(
    "broken",
    [
        region(tag=62),
        region(kind=I32, count=4),
        region(count=15),
        region(end=(62, BIN, -32, 16)),
        region(end=(63, I32, -32, 16)),
        region(end=(63, BIN, -32, 15)),
        region(end=(63, BIN, 32, 16)),
        region(end=(63, BIN, -31, 16)),
        region(end=(63, BIN, -48, 16)),
        region(end=(63, BIN, -0x7FFFFFF0, 16)),
        region(end=(63, BIN, -16, 16)),  # the string lies inside all the same
        region(place=1),
    ],
)
def test_broken_regions(broken):
    assert "region" in refusal(broken)


def test_old_trailer_of_signature_regions():
    data = region(tag=62, end=(61, BIN, -32, 16))
    assert parse_header(data, "example", SIGNATURE, region=62)[0].region == 2


def test_millions_of_strings_are_counted_not_made():
    data = make_raw_header([(1000, STRINGS, 0, 4_000_001)], bytes(8 << 20))
    assert "4000001 strings" in refusal(data)
    begin = time.process_time()
    parse_header(make_raw_header([(1000, STRINGS, 0, 4_000_000)], bytes(8 << 20)), "example")
    assert time.process_time() - begin < 0.5


def test_strings_are_measured_across_strides():
    names = [b"n" * (1 + number % 50) for number in range(5000)]
    header, _ = parse_header(make_header({1117: (STRINGS, names), 1118: (STRINGS, ["/"])}), "example")
    assert header.strings(1117) == tuple(names)
    assert header.strings(1118) == (b"/",)


def test_thirty_thousand_files_are_read_in_well_under_a_second(tmp_path):
    files = {f"/usr/share/{number % 300}/file-{number}": directory() for number in range(30_000)}
    make_rpm(tmp_path / "big.rpm", files, payload=b"", compressor="none")
    begin = time.process_time()
    assert len(open_rpm(str(tmp_path / "big.rpm"), "big").files) == 30_000
    assert time.process_time() - begin < 1
