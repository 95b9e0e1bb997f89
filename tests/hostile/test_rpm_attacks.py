"""Packages made to mislead, exhaust or crash a reader: each ends in an error of ours, in bounded time and memory."""

from __future__ import annotations

import os
import random
import struct
import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from making.debs import compress
from making.keys import make_key
from making.plans import make_package
from making.rpms import (
    BIN,
    I32,
    I64,
    STRING,
    STRINGS,
    TRAILER,
    File,
    directory,
    flipped,
    hard_links,
    link,
    make_lead,
    make_payload,
    make_raw_header,
    make_rpm,
    member,
    sign,
    stripped_member,
    trailer,
)

from rootfsbuild.errors import PackageError, UntrustedError
from rootfsbuild.formats.rpm import tags
from rootfsbuild.formats.rpm.archive import open_rpm
from rootfsbuild.formats.rpm.cpio import read_members
from rootfsbuild.formats.rpm.header import INTRO, MAGIC, measure, parse_header, read_items
from rootfsbuild.formats.rpm.header import SIGNATURE as SIGNATURE_LIMITS
from rootfsbuild.formats.rpm.identity import check_identity
from rootfsbuild.formats.rpm.signature import LEAD, check
from rootfsbuild.repository.trust import Certificate, Keyring

COMPRESSORS = {"gzip": "gz", "xz": "xz", "zstd": "zst", "bzip2": "bz2", "lzma": "lzma", "none": ""}
LIMIT = 1 << 20
FILES = {
    "/d": directory(),
    "/d/file": b"some content",
    "/d/link": link(b"file"),
    **hard_links(b"shared", "/d/one", "/d/two"),
}
PACKAGE = make_package("example", "1.0-1", "noarch")
KEY = make_key()
KEYRING = Keyring((Certificate(KEY.fingerprint, "test", KEY.certificate),), "")


def read(path, *, keyring=None, limit=LIMIT, package=PACKAGE):
    """Return everything that a build takes from a package."""
    rpm = open_rpm(str(path), "evil")
    try:
        signers = check(rpm.fd, rpm.head, keyring=keyring, now=time.time())
        check_identity(rpm.header, rpm.files, package)
        entries = [(entry, b"".join(content)) for entry, content in rpm.entries(limit)]
    finally:
        os.close(rpm.fd)
    return signers, rpm.files, rpm.control, entries


@pytest.fixture
def refused(tmp_path):
    def refusal(blob, match=None, **more):
        (tmp_path / "evil.rpm").write_bytes(blob)
        with pytest.raises((PackageError, UntrustedError), match=match) as caught:
            read(tmp_path / "evil.rpm", **more)
        return caught.value

    return refusal


def parts(blob):
    """Return where the signature header, the header and the payload of a package begin."""
    after = LEAD + measure(blob[LEAD : LEAD + INTRO], "x", SIGNATURE_LIMITS)
    main = after + -after % 8
    return LEAD, main, main + parse_header(blob[main:], "x")[1]


# Flipped bytes

SIGNED = make_rpm(None, FILES, compressor="gzip", key=KEY, legacy_key=KEY, more_keys=[KEY])
SIGNATURE_AT, MAIN_AT, PAYLOAD_AT = parts(SIGNED)
IGNORED = set(range(8, 78))
"""What the lead says of machine, name and system: rpm itself does not read them."""


def outcome(folder, blob, keyring):
    (folder / "x.rpm").write_bytes(blob)
    try:
        return read(folder / "x.rpm", keyring=keyring)
    except (PackageError, UntrustedError):
        return None


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("flips")


@pytest.mark.parametrize("keyring", [KEYRING, None], ids=["signed", "digests"])
def test_flipped_byte_in_lead_is_refused_or_means_nothing(folder, keyring):
    honest = outcome(folder, SIGNED, keyring)
    accepted = set()
    for at in range(LEAD):
        found = outcome(folder, flipped(SIGNED, at), keyring)
        if found is not None:
            assert found == honest
            accepted.add(at)
    assert accepted <= IGNORED


@settings(max_examples=250, deadline=None)
@given(at=st.integers(SIGNATURE_AT, MAIN_AT - 1), bits=st.integers(1, 255))
def test_flipped_byte_in_signature_header_is_refused_or_changes_nothing(folder, at, bits):
    honest = outcome(folder, SIGNED, KEYRING)
    found = outcome(folder, flipped(SIGNED, at, bits), KEYRING)
    assert found is None or found == honest


def test_flipped_byte_in_signature_header_without_keys(folder):
    blob = make_rpm(None, FILES, compressor="gzip")
    honest = outcome(folder, blob, None)
    _, main, _ = parts(blob)
    accepted = [at for at in range(LEAD, main) if outcome(folder, flipped(blob, at), None) is not None]
    for at in accepted:
        assert outcome(folder, flipped(blob, at), None) == honest
    # Nothing but zeros that align the next number is left.
    assert all(blob[at] == 0 for at in accepted)
    assert len(accepted) < 8


@settings(max_examples=250, deadline=None)
@given(at=st.integers(MAIN_AT, len(SIGNED) - 1), bits=st.integers(1, 255))
def test_flipped_byte_in_header_or_payload_is_refused(folder, at, bits):
    assert outcome(folder, flipped(SIGNED, at, bits), KEYRING) is None
    assert outcome(folder, flipped(SIGNED, at, bits), None) is None


@settings(max_examples=60, deadline=None)
@given(length=st.integers(0, len(SIGNED) - 1))
def test_truncated_package_is_refused(folder, length):
    assert outcome(folder, SIGNED[:length], KEYRING) is None
    assert outcome(folder, SIGNED[:length], None) is None


def test_bytes_behind_the_payload(refused):
    refused(SIGNED + b"\0", keyring=KEYRING)


def test_flipped_payload_under_a_good_signature_and_no_other_digest(refused):
    blob = make_rpm(None, FILES, key=KEY, signature={tags.SIG_MD5: None, tags.SIG_SIZE: None})
    refused(flipped(blob, len(blob) - 9), "sha256 digest of its payload", keyring=KEYRING)


@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_flipped_content_under_matching_outer_digests(refused, compressor):
    payload = make_payload({**FILES, "/d/file": File(b"some c0ntent")} | _as_files(FILES, "/d/file"))
    refused(make_rpm(None, FILES, compressor=compressor, payload=payload), "d/file: .*sha256 digest")


def _as_files(files, *without):
    return {path: File(one) if isinstance(one, bytes) else one for path, one in files.items() if path not in without}


# Missing digests


def test_no_digest_of_the_header(refused):
    refused(make_rpm(None, FILES, signature={tags.SHA256HEADER: None}), "neither a digest nor")


def test_no_digest_of_the_payload(refused):
    refused(make_rpm(None, FILES, main={tags.PAYLOADDIGEST: None}), "no digest of the payload")
    refused(
        make_rpm(None, FILES, key=KEY, main={tags.PAYLOADDIGEST: None}), "no digest of the payload", keyring=KEYRING
    )


def test_no_digest_of_a_file(refused):
    refused(make_rpm(None, {"/a": File(b"x", digest="")}), "a: has no digest")


def test_no_signature(refused):
    assert refused(make_rpm(None, FILES), keyring=KEYRING).rule == "signature"


def test_signature_moved_from_another_package(refused):
    other = make_rpm(None, FILES, name="other")
    _, main, payload = parts(other)
    moved = {tags.RSAHEADER: (BIN, sign(KEY, other[main:payload]))}
    assert refused(make_rpm(None, FILES, signature=moved), keyring=KEYRING).rule == "signature"


def test_signature_is_of_the_header_that_is_read(refused):
    # A second header behind the signed one, as if it were the payload: the first alone counts.
    honest = make_rpm(None, FILES, key=KEY)
    evil = make_rpm(None, {"/evil": b"evil"}, key=KEY)
    _, main, payload = parts(honest)
    refused(honest[:payload] + evil[parts(evil)[1] :], keyring=KEYRING)
    refused(honest[:main] + evil[parts(evil)[1] :], keyring=KEYRING)


# Another package than the metadata spoke of


@pytest.mark.parametrize(
    "changed", [{"name": "evil"}, {"version": "1.1"}, {"release": "2"}, {"epoch": 1}, {"arch": "i686"}]
)
def test_package_of_another_name_or_version(refused, changed):
    assert refused(make_rpm(None, FILES, key=KEY, **changed), keyring=KEYRING).rule == "mismatch"


@pytest.mark.parametrize(("kind", "field"), [("requires", "Requires"), ("provides", "Provides")])
def test_package_of_other_dependencies(tmp_path, kind, field):
    make_rpm(tmp_path / "x.rpm", FILES, **{kind: ["honest", "evil"]})
    rpm = open_rpm(str(tmp_path / "x.rpm"), "example")
    os.close(rpm.fd)
    package = make_package("example", "1.0-1", "noarch", control=((field, "honest"),))
    with pytest.raises(UntrustedError, match=f"{kind} evil") as caught:
        check_identity(rpm.header, rpm.files, package)
    assert caught.value.rule == "mismatch"


# Header bombs


def test_header_that_announces_too_much_is_not_read(refused):
    lead = make_lead()
    for count, size in ((0xFFFFFFFF, 0xFFFFFFFF), (33, 10), (1, 65 << 20), (32, 64 << 20)):
        began = time.monotonic()
        refused(lead + MAGIC + struct.pack(">II", count, size) + bytes(1000))
        assert time.monotonic() - began < 0.5


@pytest.mark.parametrize(("count", "size"), [(65536, 10), (1, 257 << 20), (0xFFFFFFFF, 0xFFFFFFFF), (65535, 256 << 20)])
def test_main_header_that_announces_too_much_is_not_read(refused, count, size):
    head = SIGNED[:MAIN_AT]
    tracemalloc.start()
    refused(head + MAGIC + struct.pack(">II", count, size) + bytes(1000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_many_entries_cannot_share_one_large_string_array():
    store = bytes(1 << 20)
    index = [(1000 + number, STRINGS, 0, 1 << 20) for number in range(5000)]
    began = time.monotonic()
    with pytest.raises(PackageError, match="overlaps"):
        parse_header(make_raw_header(index, store), "evil")
    assert time.monotonic() - began < 0.5


def test_overlapping_and_backward_offsets():
    for second in (0, 3, -4, 1 << 30, 0x7FFFFFFF):
        with pytest.raises(PackageError):
            parse_header(
                make_raw_header([(1000, STRING, 4, 1), (1001, STRING, second, 1)], b"text" * 8 + b"\0"), "evil"
            )


def test_huge_string_is_one_value_not_many():
    store = b"n" * (16 << 20) + b"\0"
    tracemalloc.start()
    header, _ = parse_header(make_raw_header([(1000, STRING, 0, 1)], store), "evil")
    assert len(header.text(1000)) == 16 << 20
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 128 << 20


def test_counts_that_overflow():
    for kind in (I32, I64, BIN, STRING, STRINGS):
        for count in (0, 0x40000000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF):
            with pytest.raises(PackageError):
                parse_header(make_raw_header([(1000, kind, 0, count)], b"x" * 64), "evil")


@pytest.mark.parametrize(
    ("tag", "entry"),
    [
        (tags.NAME, (I32, [1])),
        (tags.EPOCH, (STRING, ["1"])),
        (tags.BASENAMES, (I32, [1, 2, 3, 4, 5])),
        (tags.DIRINDEXES, (STRINGS, ["0"] * 5)),
        (tags.FILEMODES, (I32, [0o100644] * 5)),
        (tags.FILESIZES, (I64, [12] * 5)),
        (tags.FILEDIGESTALGO, (STRING, ["8"])),
        (tags.PAYLOADDIGEST, (BIN, b"0" * 64)),
        (tags.PAYLOADDIGESTALGO, (I32, [8, 8])),
        (tags.PAYLOADCOMPRESSOR, (I32, [1])),
        (tags.REQUIRENAME, (I32, [1])),
    ],
)
def test_type_confusion(tmp_path, tag, entry):
    make_rpm(tmp_path / "x.rpm", FILES, requires=["x"], main={tag: entry})
    package = make_package("example", "1.0-1", "noarch", control=(("Requires", "x"), ("Provides", "example")))
    with pytest.raises((PackageError, UntrustedError)):
        read(tmp_path / "x.rpm", package=package)


def test_header_with_entries_behind_its_region(refused):
    _, main, payload = parts(SIGNED)
    header, _ = parse_header(SIGNED[main:], "x")
    count, size = len(header.items), len(header.store)
    index = header.data[: count * 16] + struct.pack(">IIiI", tags.INSTALLTIME, I32, size + -size % 4, 1)
    store = header.store + bytes(-size % 4) + b"\0\0\0\1"
    grown = MAGIC + struct.pack(">II", count + 1, len(store)) + index + store
    read_items(index + store, count + 1, "x")
    refused(SIGNED[:main] + grown + SIGNED[payload:], "not one immutable region")


def test_header_without_region(refused):
    _, main, payload = parts(SIGNED)
    header, _ = parse_header(SIGNED[main:], "x")
    bare = make_raw_header([(item.tag, item.type, item.offset, item.count) for item in header.items[1:]], header.store)
    refused(SIGNED[:main] + bare + SIGNED[payload:], "not one immutable region")


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=200), count=st.integers(0, 6))
def test_random_headers_are_read_or_refused(data, count):
    try:
        header = read_items(data, count, "evil")
    except PackageError:
        return
    for item in header.items:
        assert 0 <= item.offset <= item.offset + item.length <= len(header.store)


# The cpio archive


def cpio_refused(data, match=None, sizes=None):
    with pytest.raises(PackageError, match=match):
        [b"".join(content) for _, content in read_members([data], "evil", sizes)]


@pytest.mark.parametrize(
    "size", [b"-0000001", b"-fffffff", b"ffffffff", b"80000000", b"0o000004", b"0000 004", b"00_00_04"]
)
def test_negative_octal_and_impossible_sizes(size):
    began = time.monotonic()
    cpio_refused(member(b"./a", b"data", size=size) + trailer())
    assert time.monotonic() - began < 1


@pytest.mark.parametrize("magic", [b"070707", b"\x71\xc7\0\0\0\0", b"070703", b"\0" * 6, b"07070\0"])
def test_octal_and_binary_archives(magic):
    cpio_refused(
        magic + b"0000000001006440000000000000000010000000000000000000000200000000004./a\0data" * 3, "no member"
    )


@pytest.mark.parametrize("garbage", [b"x", b"\0", b"\0" * 4, b"\0" * 512, b"garbage!" * 20])
def test_garbage_between_members(garbage):
    cpio_refused(member(b"./a", b"data") + garbage + member(b"./b") + trailer())


@pytest.mark.parametrize("ending", [b"", b"0707", b"070701", trailer()[:-4], trailer()[:50], bytes(512)])
def test_missing_or_broken_trailer(ending):
    cpio_refused(member(b"./a", b"data") + ending)


@pytest.mark.parametrize("behind", [b"x", bytes(511) + b"x", member(b"./b"), trailer()])
def test_anything_behind_the_trailer(behind):
    cpio_refused(member(b"./a", b"data") + trailer() + behind, "bytes follow")


def test_file_that_is_called_like_the_trailer(refused):
    # Its header says that there is such a file; in the archive it would be the end.
    payload = member(TRAILER) + member(b"./d/file", b"some content") + trailer()
    refused(make_rpm(None, {f"/{TRAILER.decode()}": b"", "/d/file": b"some content"}, payload=payload))


def test_stripped_numbers_out_of_range(refused):
    for number in (1, 0x7FFFFFFF, 0xFFFFFFFF):
        payload = stripped_member(number, b"x") + trailer()
        refused(make_rpm(None, {"/a": b"x"}, stripped=True, payload=payload), "does not list")


def test_stripped_sizes_that_nothing_backs(refused):
    huge = {tags.LONGFILESIZES: (I64, [1 << 62])}
    refused(make_rpm(None, {"/a": b"x"}, stripped=True, main=huge), "truncated")
    refused(make_rpm(None, {"/a": b"x"}, stripped=True, main={tags.LONGFILESIZES: (I64, [(1 << 64) - 1])}), "truncated")


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_changed_archives_are_refused_or_the_same(data):
    honest = member(b"./a", b"data", magic=b"070702") + member(b"./bcd", b"more data", magic=b"070702") + trailer()
    at, bits = data.draw(st.integers(0, len(honest) - 1)), data.draw(st.integers(1, 255))
    try:
        found = [(one.name, b"".join(content)) for one, content in read_members([flipped(honest, at, bits)], "evil")]
    except PackageError:
        return
    # What is left are numbers that mean nothing here, and other names.
    assert [content for _, content in found] == [b"data", b"more data"]


# Names that escape


@pytest.mark.parametrize(
    "name",
    [b"../../etc/passwd", b"./../evil", b"/../evil", b"./d/../../evil", b"..", b"./..", b"//etc/passwd", b".\\..\\x"],
)
def test_members_whose_names_escape_are_not_in_the_header(refused, name):
    payload = make_payload(_as_files(FILES))[: -len(trailer())] + member(name, b"evil") + trailer()
    refused(make_rpm(None, FILES, payload=payload), "not in the header")


@pytest.mark.parametrize("folder", ["/../", "/d/../../", "../", "", "//", "/./", "/d//x/", "/d/..", "C:/"])
def test_headers_whose_directories_escape(refused, folder):
    refused(make_rpm(None, FILES, main={tags.DIRNAMES: (STRINGS, [folder, "/d/"])}), "outside of the root")


@pytest.mark.parametrize("name", ["..", ".", "../evil", "a/../../b", "/etc/passwd", ""])
def test_headers_whose_names_escape(refused, name):
    names = ["d", "file", "link", "one", name]
    refused(make_rpm(None, FILES, main={tags.BASENAMES: (STRINGS, names)}), "outside of the root")


def test_names_are_cut_at_no_zero(refused):
    # A NUL ends a string in the header: what is behind it is another file's name, and then the numbers do not fit.
    names = ["d", b"file\0../evil", "link", "one", "two"]
    refused(make_rpm(None, FILES, main={tags.BASENAMES: (STRINGS, names)}))


# Compressed streams


@pytest.mark.parametrize("compressor", [name for name in COMPRESSORS if name != "none"])
def test_truncated_payload_of_every_compressor(refused, compressor):
    files = {"/a": random.Random(1).randbytes(20_000)}
    whole = compress(make_payload(_as_files(files)), COMPRESSORS[compressor])
    for length in (0, 1, 5, len(whole) // 2, len(whole) - 9, len(whole) - 1):
        refused(make_rpm(None, files, compressor=compressor, compressed=whole[:length]))


def test_truncated_payload_without_compression(refused):
    whole = make_payload(_as_files(FILES))
    for length in (0, 1, 109, len(whole) // 2, len(whole) - 5):
        refused(make_rpm(None, FILES, compressor="none", compressed=whole[:length]))


@pytest.mark.parametrize("compressor", [name for name in COMPRESSORS if name != "none"])
def test_bomb_of_every_compressor(refused, compressor):
    size = 64 << 20
    payload = member(b"./a", b"", size=b"%08x" % size) + bytes(size) + trailer()
    packed = compress(payload, COMPRESSORS[compressor])
    files = {"/a": File(size=size, digest="0" * 64)}
    blob = make_rpm(None, files, compressor=compressor, payload=payload, compressed=packed)
    tracemalloc.start()
    refused(blob, "more than the 1048576 bytes")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32 << 20


@pytest.mark.parametrize("compressor", [name for name in COMPRESSORS if name != "none"])
def test_bomb_behind_the_trailer(refused, compressor):
    payload = make_payload(_as_files(FILES)) + bytes(16 << 20)
    refused(make_rpm(None, FILES, compressor=compressor, payload=payload), "more than the 1048576 bytes")


@pytest.mark.parametrize("compressor", [name for name in COMPRESSORS if name != "none"])
def test_payload_of_another_compressor_than_the_header_says(refused, compressor):
    for other, ending in COMPRESSORS.items():
        if other != compressor:
            packed = compress(make_payload(_as_files(FILES)), ending)
            refused(make_rpm(None, FILES, compressor=compressor, compressed=packed))


@pytest.mark.parametrize("garbage", [b"x", b"garbage" * 100])
@pytest.mark.parametrize("compressor", [name for name in COMPRESSORS if name != "none"])
def test_garbage_behind_the_compressed_stream(refused, compressor, garbage):
    packed = compress(make_payload(_as_files(FILES)), COMPRESSORS[compressor]) + garbage
    refused(make_rpm(None, FILES, compressor=compressor, compressed=packed))


# Hard links


def test_hard_link_groups_have_one_content(refused):
    files = hard_links(b"data", "/a", "/b", "/c")
    for payload in (
        member(b"./a", b"data") + member(b"./b", b"data") + member(b"./c"),
        member(b"./a") + member(b"./b") + member(b"./c"),
        member(b"./a") + member(b"./b") + member(b"./c", b"datA"),
        member(b"./a", b"dat") + member(b"./b") + member(b"./c"),
    ):
        refused(make_rpm(None, files, payload=payload + trailer()))


def test_one_file_under_many_names_costs_little(tmp_path):
    files = hard_links(b"x" * 10_000, *(f"/n{number:05}" for number in range(5000)))
    make_rpm(tmp_path / "x.rpm", files, compressor="zstd")
    began = time.monotonic()
    *_, entries = read(tmp_path / "x.rpm", limit=16 << 20)
    assert len(entries) == 5000
    assert time.monotonic() - began < 3
