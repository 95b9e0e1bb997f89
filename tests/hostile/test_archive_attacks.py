"""Containers made to mislead, exhaust or crash a reader: each ends in a PackageError, in bounded time and memory."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import tracemalloc

import pytest
from making.debs import compress, make_ar, make_control, make_deb, make_raw_deb
from making.tars import END, File, Hard, Link, Node, gnu_long, header, make_tar, member, padded, pax, pax_record

from rootfsbuild.errors import PackageError
from rootfsbuild.formats.deb.archive import open_deb
from rootfsbuild.rootfs.tar import read_tar

CONTROL = ("control.tar.gz", compress(make_control({"Package": "x"}), "gz"))
DATA = ("data.tar", make_tar([("./", b"") for _ in ()] + [("./f", b"x")]))
VERSION = ("debian-binary", b"2.0\n")


def _read(path, limit=1 << 20):
    deb = open_deb(str(path), "evil")
    try:
        return [(entry, b"".join(content)) for entry, content in deb.entries(limit)]
    finally:
        os.close(deb.fd)


def _refused(tmp_path, blob, match=None, limit=1 << 20):
    path = tmp_path / "evil.deb"
    path.write_bytes(blob)
    with pytest.raises(PackageError, match=match) as caught:
        _read(path, limit)
    assert caught.value.package == "evil"
    return caught.value


def _tar_refused(data, match=None):
    with pytest.raises(PackageError, match=match) as caught:
        [b"".join(content) for _, content in read_tar(iter([data]), "evil")]
    assert caught.value.package == "evil"


# The ar container


def test_the_honest_package_of_these_tests_is_read(tmp_path):
    (tmp_path / "good.deb").write_bytes(make_ar([VERSION, CONTROL, DATA]))
    assert [body for _, body in _read(tmp_path / "good.deb")] == [b"x"]


@pytest.mark.parametrize(
    "size",
    [
        b"-60",
        b"-1",
        b"+4",
        b"0_0",
        b"0000_0_2",
        b"0x4",
        b" 4",
        b"4 4",
        b"4e1",
        b"",
        b"\xb2",
        b"4\0",
        b"9999999999",
        b"10000",
    ],
    ids=repr,
)
def test_sizes_in_ar_headers_that_are_no_honest_number(tmp_path, size):
    _refused(tmp_path, make_ar([VERSION, CONTROL, DATA], sizes={"data.tar": size}))


def test_an_empty_file(tmp_path):
    _refused(tmp_path, b"", "not a .deb")


def test_a_web_page_instead_of_a_package(tmp_path):
    _refused(tmp_path, b"<!DOCTYPE html><html>not found</html>" * 10, "not a .deb")


def test_the_old_format_of_deb(tmp_path):
    _refused(tmp_path, b"0.939000\n123\n" + bytes(200), "old .deb format")


@pytest.mark.parametrize("cut", [8, 20, 67, 68, 70, 130, 200])
def test_a_truncated_container(tmp_path, cut):
    _refused(tmp_path, make_ar([VERSION, CONTROL, DATA])[:cut])


def test_a_container_truncated_in_its_last_member(tmp_path):
    _refused(tmp_path, make_ar([VERSION, CONTROL, DATA])[:-100], "past the end")


def test_garbage_behind_the_last_member(tmp_path):
    _refused(tmp_path, make_ar([VERSION, CONTROL, DATA]) + b"garbage" * 20)


def test_garbage_instead_of_padding(tmp_path):
    blob = make_ar([VERSION, ("control.tar", make_control({"Package": "x"}) + b"\0"), DATA])
    at = blob.index(b"data.tar") - 1
    _refused(tmp_path, blob[:at] + b"X" + blob[at + 1 :])


def test_a_member_header_without_its_magic(tmp_path):
    _refused(tmp_path, make_ar([VERSION, CONTROL, DATA]).replace(b"`\n", b"``", 1))


@pytest.mark.parametrize("name", ["", "../x", "a/b", "\x01"])
def test_member_names_that_are_none(tmp_path, name):
    _refused(tmp_path, make_ar([VERSION, (name, b""), CONTROL, DATA]))


def test_duplicate_data_members(tmp_path):
    _refused(tmp_path, make_ar([VERSION, CONTROL, DATA, DATA]), "more than one data.tar")


def test_duplicate_data_members_in_different_compressions(tmp_path):
    other = ("data.tar.gz", compress(make_tar([("./g", b"")]), "gz"))
    _refused(tmp_path, make_ar([VERSION, CONTROL, DATA, other]), "more than one data.tar")


def test_duplicate_control_members(tmp_path):
    _refused(tmp_path, make_ar([VERSION, CONTROL, CONTROL, DATA]), "more than one control.tar")


@pytest.mark.parametrize(
    "members",
    [
        [VERSION, DATA, CONTROL],
        [CONTROL, VERSION, DATA],
        [CONTROL, DATA],
        [VERSION, CONTROL],
        [VERSION, DATA],
        [VERSION],
        [],
        [("_extra", b""), VERSION, CONTROL, DATA],
        [VERSION, ("extra", b""), CONTROL, DATA],
        [VERSION, CONTROL, ("extra", b""), DATA],
        [VERSION, CONTROL, ("data.tar.rar", b"")],
        [VERSION, ("control.tar.bz2", b""), DATA],
    ],
    ids=lambda members: "+".join(name for name, _ in members) or "nothing",
)
def test_members_in_a_wrong_order_missing_or_unknown(tmp_path, members):
    _refused(tmp_path, make_ar(members))


@pytest.mark.parametrize("version", [b"", b"2.0", b"1.0\n", b"3.0\n", b"2\n", b"two\n", b"2.x\n"])
def test_format_versions_that_are_not_ours(tmp_path, version):
    _refused(tmp_path, make_ar([("debian-binary", version), CONTROL, DATA]))


def test_a_thousand_members(tmp_path):
    _refused(tmp_path, make_ar([VERSION, *((f"_{n}", b"") for n in range(1000)), CONTROL, DATA]), "members")


# The control archive


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("../../etc/passwd", File(b"x")),
        ("/etc/passwd", File(b"x")),
        ("./sub/postinst", File(b"x")),
        ("./postinst", Link("/bin/sh")),
        ("./postinst", Hard("./control")),
        ("./postinst", Node(b"6")),
        ("./list", File(b"/etc/passwd\n")),
        ("./new\nline", File(b"")),
        ("./b\xe9", File(b"")),
        ("./control", File(b"Package: other\n")),
    ],
    ids=str,
)
def test_control_members_that_would_escape_or_deceive(tmp_path, name, what):
    control = make_tar([("./control", File(b"Package: x\n")), (name, what)])
    _refused(tmp_path, make_raw_deb(make_tar([]), control, ""))


def test_a_control_archive_without_control(tmp_path):
    _refused(tmp_path, make_raw_deb(make_tar([]), make_tar([("./postinst", b"")]), ""), "no control file")


def test_a_control_archive_that_expands_to_gigabytes(tmp_path):
    bomb = compress(
        make_tar([("./control", b"x")])[:-1024] + header("./md5sums", size=1 << 30) + bytes(100 << 20), "gz"
    )
    _refused(tmp_path, make_ar([VERSION, ("control.tar.gz", bomb), DATA]), "expands to more")


# tar


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../etc/passwd", "./../x", "./a/../../x", "..", "./a/..", "//x"], ids=str
)
@pytest.mark.parametrize("kind", [b"0", b"1", b"2", b"5", b"6"])
def test_names_that_lead_outside(name, kind):
    _tar_refused(header(name, kind, link="./x") + END, "outside of the root")


@pytest.mark.parametrize("name", [b"/etc/passwd", b"./../../etc/passwd", b"./a\0b"])
def test_names_that_lead_outside_by_an_extended_header(name):
    _tar_refused(pax({b"path": name}) + header("./innocent") + END, "outside of the root")


def test_names_that_lead_outside_by_a_gnu_long_name():
    _tar_refused(gnu_long("./" + "a/" * 60 + "../" * 61 + "x") + header("./innocent") + END, "outside of the root")


def test_names_that_lead_outside_by_the_prefix_field():
    _tar_refused(header("x", prefix=b"./a/../..") + END, "outside of the root")


@pytest.mark.parametrize("target", ["/etc/passwd", "../etc/passwd", "./a/../../x"])
def test_hard_link_targets_that_lead_outside(target):
    _tar_refused(header("./x", b"1", link=target) + END, "outside of the root")


@pytest.mark.parametrize(
    "size",
    [
        b"-0000000001\0",
        b"0000_0_2\0",
        b"+0000000002\0",
        b"0o00000002\0",
        b"00000000009\0",
        b"0000 000002\0",
        b"\xff" * 12,
        b"\xff" + b"\0" * 11,
        b"\x81" + b"\0" * 11,
        b"0x2\0",
    ],
    ids=repr,
)
def test_sizes_in_tar_headers_that_are_no_honest_number(size):
    _tar_refused(header("./x", raw_size=size) + bytes(1024) + END, "number written as")


@pytest.mark.parametrize("size", [b"777777777777", b"\x80" + b"\x7f" + b"\xff" * 10])
def test_enormous_sizes_end_at_the_end_of_the_data(size):
    _tar_refused(header("./x", raw_size=size) + bytes(4096), "truncated")


@pytest.mark.parametrize("value", [b"-1", b"1_0", b"1e3", b"", b" 5", b"9" * 30, b"+5"])
def test_sizes_in_pax_headers_that_are_no_honest_number(value):
    _tar_refused(pax(pax_record(b"size", value)) + header("./x", size=5) + padded(b"12345") + END, "pax size")


@pytest.mark.parametrize("value", [b"-1", b"nan", b"inf", b"1e9", b"1.x", b"1.-5", b"9" * 20])
def test_times_in_pax_headers_that_are_no_honest_number(value):
    _tar_refused(pax(pax_record(b"mtime", value)) + header("./x") + END, "pax mtime")


@pytest.mark.parametrize("key", [b"uid", b"gid"])
def test_owners_that_would_mean_unchanged(key):
    _tar_refused(pax({key: b"4294967295"}) + header("./x") + END, "impossible owner")


def test_a_gnu_long_name_of_a_megabyte():
    _tar_refused(gnu_long("./" + "a" * (1 << 20)) + header("./x") + END)


def test_a_gnu_long_name_that_claims_gigabytes_takes_no_memory():
    tracemalloc.start()
    try:
        _tar_refused(header("././@LongLink", b"L", size=0o7777777777) + bytes(1 << 16), "extended header of")
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_a_name_beyond_what_linux_can_open():
    _tar_refused(gnu_long("./" + "d/" * 3000 + "x") + header("./x") + END, "longer than Linux allows")


@pytest.mark.parametrize(
    "records",
    [
        b"x",
        b"5 a=b",
        b"99 path=x\n",
        b"0 a=b\n",
        b"-6 a=b\n",
        b"6 ab\n\n",
        b"6 =bc\n",
        b"006 a=b\n6",
        b" 6 a=b\n",
        b"6_ a=b\n",
    ],
    ids=repr,
)
def test_malformed_pax_records(records):
    _tar_refused(pax(records) + header("./x") + END, "pax")


def test_sparse_files_are_refused_in_every_notation():
    _tar_refused(header("./x", b"S") + END, "unsupported type")
    for key in (b"GNU.sparse.map", b"GNU.sparse.major", b"GNU.sparse.size"):
        _tar_refused(pax({key: b"1"}) + header("./x") + END, "sparse")


@pytest.mark.parametrize("kind", [b"D", b"M", b"V", b"N", b"A", b"X", b"8", b"\xff"])
def test_types_that_are_not_files(kind):
    _tar_refused(header("./x", kind) + END, "unsupported type")


@pytest.mark.parametrize("kind", [b"1", b"2", b"3", b"4", b"5", b"6"])
def test_data_where_readers_disagree_whether_it_is_skipped(kind):
    hidden = member("./etc/sudoers.d/evil", b"ALL")
    _tar_refused(header("./x", kind, size=len(hidden), link="./y") + hidden + END, "data on an entry")


def test_a_global_header_that_renames_everything():
    _tar_refused(pax({b"path": b"./etc/passwd"}, b"g") + header("./x") + END, "global pax header")


def test_an_extended_header_that_describes_nothing():
    _tar_refused(pax({b"path": b"./x"}) + END, "describes nothing")


def test_a_wrong_checksum():
    _tar_refused(header("./x", checksum=1) + END, "checksum")


def test_a_corrupt_later_header_does_not_end_the_archive_silently():
    _tar_refused(member("./a", b"x") + b"\x01" + bytes(511) + member("./b", b"x") + END)


def test_an_archive_without_its_end():
    _tar_refused(member("./a", b"x"), "truncated")


def test_an_archive_that_ends_in_a_content():
    _tar_refused(header("./a", size=5000) + bytes(600), "truncated")


def test_bytes_behind_the_end_wherever_the_archive_is_cut_into_chunks():
    archive = member("./a", b"x") + bytes(1024)
    for at in range(0, len(archive) + 1, 512):
        with pytest.raises(PackageError, match="follow the end"):
            list(read_tar(iter([part for part in (archive[:at], archive[at:], b"evil") if part]), "it"))


def test_a_second_archive_behind_the_end():
    _tar_refused(make_tar([("./a", b"")]) + make_tar([("./etc/evil", b"")]), "follow the end")


def test_an_empty_name():
    _tar_refused(header("") + END, "outside of the root")


def test_a_root_that_is_no_directory():
    _tar_refused(header("./", b"2", link="/etc") + END, "not a directory")


@pytest.mark.parametrize("kind", [b"2", b"1"])
def test_links_to_nothing(kind):
    _tar_refused(header("./x", kind) + END)


# Compression


def _bomb(kind):
    """A small file that expands to a lot."""
    if kind == "zst":
        # RLE blocks of 128 KiB in 4 bytes each (RFC 8878, 3.1.1.2): 32 KiB of input make 1 GiB.
        block = ((128 << 10) << 3 | 1 << 1).to_bytes(3, "little") + b"\0"
        return b"\x28\xb5\x2f\xfd" + b"\x00\x58" + block * 8192
    return compress(bytes(100 << 20), kind)


@pytest.mark.parametrize("kind", ["gz", "xz", "zst", "bz2"])
def test_a_small_archive_that_expands_to_gigabytes(tmp_path, kind):
    blob = make_ar([VERSION, CONTROL, (f"data.tar.{kind}", _bomb(kind))])
    assert len(blob) < 1 << 20
    path = tmp_path / "evil.deb"
    path.write_bytes(blob)
    program = f"""
import os, resource
from rootfsbuild.errors import PackageError
from rootfsbuild.formats.deb.archive import open_deb
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
deb = open_deb({str(path)!r}, "evil")
try:
    for entry, content in deb.entries(1 << 26): pass
except PackageError as error:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    grown, _, text = done.stdout.partition(" ")
    # The zeros end the tar at once; either way memory must not follow what the bomb expands to.
    assert "expands to more" in text
    assert int(grown) < 40 << 10, f"{grown} KiB"


@pytest.mark.parametrize("kind", ["gz", "xz", "zst", "bz2", "lzma"])
@pytest.mark.parametrize("part", [0.0, 0.2, 0.5, 0.9])
def test_a_truncated_compressed_stream_neither_spins_nor_ends_silently(tmp_path, kind, part):
    data = compress(make_tar([("./f", random.Random(1).randbytes(300_000))]), kind)
    cut = data[: int(len(data) * part)]
    _refused(tmp_path, make_ar([VERSION, CONTROL, (f"data.tar.{kind}", cut)]))


def test_a_stream_whose_checksum_is_wrong_behind_the_end_of_the_tar(tmp_path):
    data = bytearray(compress(make_tar([("./f", b"x" * 5000)]), "gz"))
    data[-6] ^= 0xFF
    _refused(tmp_path, make_ar([VERSION, CONTROL, ("data.tar.gz", bytes(data))]), "corrupt")


def test_a_wrong_compression_by_name(tmp_path):
    _refused(tmp_path, make_ar([VERSION, CONTROL, ("data.tar.xz", compress(make_tar([]), "gz"))]), "corrupt")


def test_a_zstd_frame_with_blocks_larger_than_the_format_allows(tmp_path):
    block = ((1 << 20) << 3 | 1 << 1 | 1).to_bytes(3, "little") + b"\0"
    frame = b"\x28\xb5\x2f\xfd" + b"\x00\x58" + block
    _refused(tmp_path, make_ar([VERSION, CONTROL, ("data.tar.zst", frame)]), "corrupt")


# Anything at all


@pytest.mark.parametrize("compression", ["", "gz", "xz", "zst"])
def test_a_flipped_byte_never_ends_in_anything_but_a_package_error(tmp_path, compression):
    path = tmp_path / "x.deb"
    good = make_deb(
        path, files={"usr/bin/x": File(bytes(range(256)) * 8, 0o755), "l": Link("usr")}, compression=compression
    )
    chance = random.Random(20)
    for _ in range(150):
        blob = bytearray(good)
        at = chance.randrange(len(blob))
        blob[at] ^= chance.randrange(1, 256)
        path.write_bytes(blob)
        with contextlib.suppress(PackageError):
            _read(path)


def test_random_blocks_never_end_in_anything_but_a_package_error():
    chance = random.Random(21)
    seeds = [
        header("./a", size=3) + padded(b"abc"),
        pax({b"path": b"./b"}),
        gnu_long("./" + "c" * 120),
        header("./d", b"5"),
        END,
    ]
    for _ in range(400):
        data = bytearray(b"".join(chance.choice(seeds) for _ in range(chance.randrange(1, 6))))
        for _ in range(chance.randrange(4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            for entry, content in read_tar(iter([bytes(data)]), "evil"):
                assert not entry.path.startswith(b"/")
                assert b".." not in entry.path.split(b"/")
                list(content)
        except PackageError:
            pass
