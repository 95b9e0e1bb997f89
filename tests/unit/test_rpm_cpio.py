from __future__ import annotations

import pytest
from making.rpms import TRAILER, member, stripped_member, trailer

from rootfsbuild.errors import PackageError
from rootfsbuild.formats.rpm.cpio import read_members


def read(data, sizes=None, *, step=7):
    size_of = None if sizes is None else lambda index: sizes[index]
    chunks = [data[at : at + step] for at in range(0, len(data), step)]
    return [(found, b"".join(content)) for found, content in read_members(chunks, "example", size_of)]


def refusal(data, sizes=None):
    with pytest.raises(PackageError) as caught:
        read(data, sizes)
    return str(caught.value)


@pytest.mark.parametrize("step", [1, 2, 3, 13, 4096])
def test_members_whatever_the_chunks(step):
    data = member(b"./a", b"hello") + member(b"./bb", mode=0o40755) + member(b"./c", b"1234") + trailer()
    found = read(data, step=step)
    assert [(one.name, one.size, content) for one, content in found] == [
        (b"./a", 5, b"hello"),
        (b"./bb", 0, b""),
        (b"./c", 4, b"1234"),
    ]
    assert [one.mode for one, _ in found] == [0o100644, 0o40755, 0o100644]


def test_zeros_behind_the_end_are_padding():
    assert len(read(member(b"a", b"x") + trailer() + bytes(700))) == 1


@pytest.mark.parametrize("step", [1, 4, 124, 4096])
def test_what_follows_the_end_is_read_wherever_a_chunk_ends(step):
    data = member(b"a", b"x") + trailer() + bytes(512) + b"x"
    with pytest.raises(PackageError, match="bytes follow the end"):
        read(data, step=step)


def test_contents_left_unread_are_skipped():
    data = member(b"a", b"x" * 1000) + member(b"b", b"y") + trailer()
    seen = []
    for found, content in read_members([data[:500], data[500:]], "example"):
        if found.name == b"a":
            next(content)
        seen.append(found.name)
    assert seen == [b"a", b"b"]


def test_upper_case_digits_are_digits():
    assert read(member(b"a", b"x" * 10, size=b"0000000A") + trailer())[0][0].size == 10


def test_stripped_members_have_their_sizes_from_elsewhere():
    data = stripped_member(2, b"hello") + stripped_member(0) + stripped_member(10, b"12345678") + trailer()
    found = read(data, {0: 0, 2: 5, 10: 8})
    assert [(one.index, one.name, content) for one, content in found] == [
        (2, None, b"hello"),
        (0, None, b""),
        (10, None, b"12345678"),
    ]


def test_checksums_of_the_crc_form():
    assert read(member(b"a", b"hello", magic=b"070702") + trailer())[0][1] == b"hello"
    assert "checksum" in refusal(member(b"a", b"hello", magic=b"070702", checksum=b"00000001") + trailer())
    assert "cannot be" in refusal(member(b"a", b"hello", checksum=b"00000214") + trailer())


def test_wrong_checksum_is_found_in_a_content_left_unread():
    data = member(b"a", b"hello", magic=b"070702", checksum=b"00000001") + trailer()
    with pytest.raises(PackageError, match="checksum"):
        list(read_members([data], "example"))


@pytest.mark.parametrize(
    "digits", [b"-0000001", b"+0000001", b" 0000001", b"0000_001", b"0x000001", b"0000000g", b"       1"]
)
@pytest.mark.parametrize("which", ["size", "namesize", "ino", "mode", "checksum"])
def test_what_is_no_hexadecimal_number(which, digits):
    assert "hexadecimal" in refusal(member(b"a", b"x", **{which: digits}) + trailer())


def test_stripped_number_that_is_none():
    assert "hexadecimal" in refusal(b"07070X-0000001\0\0" + trailer(), {1: 0})


@pytest.mark.parametrize("length", [b"00000000", b"00000001", b"00001001", b"ffffffff"])
def test_lengths_of_names_are_bounded(length):
    assert "a name of" in refusal(member(b"a", namesize=length) + trailer())


@pytest.mark.parametrize("name", [b"a\0b", b"a\0", b"\0a"])
def test_names_with_zeros(name):
    assert "does not end" in refusal(member(name) + trailer())


def test_name_that_does_not_end():
    assert "does not end" in refusal(member(b"abc", namesize=b"00000003") + trailer())


def test_padding_must_be_zeros():
    good = member(b"a", b"hello") + trailer()
    at = good.index(b"hello") + 5
    assert "padding" in refusal(good[:at] + b"x" + good[at + 1 :])
    named = good.index(b"a\0") + 2
    if named % 4:
        assert "padding" in refusal(good[:named] + b"x" + good[named + 1 :])
    assert "padding" in refusal(b"07070X00000000\0x" + trailer(), {0: 0})


def test_other_formats_and_mixtures():
    for magic in (b"070707", b"070703", b"07070x", b"\xc7\x71ab"):
        assert "no member" in refusal(member(b"a", magic=magic) + trailer())
    mixed = stripped_member(0) + member(b"a") + trailer()
    assert "stand among" in refusal(mixed, {0: 0})
    assert "must not be" in refusal(stripped_member(0) + trailer())


def test_end_mark_with_data():
    assert "cannot be" in refusal(member(TRAILER, b"data"))
