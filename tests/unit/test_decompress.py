from __future__ import annotations

import lzma
import os

import pytest
from making.debs import compress

from rootfsbuild.errors import PackageError
from rootfsbuild.rootfs.decompress import CHUNK, decompress

KINDS = ["gz", "xz", "zst", "bz2", "lzma"]
BODY = os.urandom(200_000) + bytes(3_000_000) + os.urandom(200_000)


def _plain(data, kind, limit=1 << 30, step=10_000):
    name = f"data.tar.{kind}"
    chunks = (data[at : at + step] for at in range(0, len(data), step))
    return list(decompress(chunks, name, "pkg", limit))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", [1000, 1 << 20])
def test_the_bytes_come_back(kind, step):
    pieces = _plain(compress(BODY, kind), kind, step=step)
    assert b"".join(pieces) == BODY
    assert max(map(len, pieces)) <= CHUNK


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_compressed_is_nothing(kind):
    assert b"".join(_plain(compress(b"", kind), kind)) == b""


@pytest.mark.parametrize("kind", ["gz", "xz", "zst", "bz2"])
def test_streams_that_follow_each_other_are_one(kind):
    assert b"".join(_plain(compress(b"one", kind) + compress(b"two", kind), kind)) == b"onetwo"


def test_xz_streams_may_have_padding_between_and_behind():
    data = compress(b"one", "xz") + bytes(8) + compress(b"two", "xz") + bytes(4)
    assert b"".join(_plain(data, "xz", step=3)) == b"onetwo"


def test_a_skippable_zstd_frame_is_skipped():
    skippable = b"\x55\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"12345"
    assert b"".join(_plain(skippable + compress(b"one", "zst"), "zst")) == b"one"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cut", [1, 5, 1000, -8, -4])
def test_a_truncated_stream_is_an_error_wherever_it_is_cut(kind, cut):
    data = compress(BODY, kind)
    with pytest.raises(PackageError, match=r"truncated|corrupt"):
        _plain(data[:cut], kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_corrupt_stream_is_an_error(kind):
    data = bytearray(compress(BODY, kind))
    data[100_000:100_064] = bytes(64)
    with pytest.raises(PackageError):
        _plain(bytes(data), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_behind_the_end_are_an_error(kind):
    with pytest.raises(PackageError):
        _plain(compress(b"x" * 1000, kind) + b"garbage!" * 10, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_more_than_the_limit_is_an_error_before_it_is_all_out(kind):
    data = compress(bytes(64 << 20), kind)
    out = []
    with pytest.raises(PackageError, match="expands to more than"):
        out.extend(map(len, decompress(iter([data]), f"data.tar.{kind}", "pkg", 1 << 20)))
    assert sum(out) <= 1 << 20


def test_the_limit_itself_is_allowed():
    assert b"".join(_plain(compress(b"12345", "xz"), "xz", limit=5)) == b"12345"


def test_an_unknown_compression_is_an_error():
    with pytest.raises(PackageError, match="unknown compression"):
        list(decompress(iter([b""]), "data.tar.rar", "pkg", 10))


def test_without_compression_bytes_pass_through():
    assert list(decompress(iter([b"a", b"b"]), "data.tar", "pkg", 10)) == [b"a", b"b"]


def test_a_dictionary_of_a_gibibyte_is_refused():
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 30}]
    # Encoding would take the memory that decoding is denied; the dictionary's size is one byte of the header.
    data = bytearray(lzma.compress(b"x", filters=[{**filters[0], "dict_size": 1 << 16}], check=lzma.CHECK_NONE))
    header = bytes(data[12:24])
    patched = header[:4] + bytes([36]) + header[5:8]
    import zlib

    data[12:24] = patched + zlib.crc32(patched).to_bytes(4, "little")
    with pytest.raises(PackageError, match=r"(?i)memory"):
        _plain(bytes(data), "xz")


def test_a_zstd_window_beyond_the_limit_is_refused():
    zstandard = pytest.importorskip("zstandard")
    parameters = zstandard.ZstdCompressionParameters(window_log=30, compression_level=1)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    data = compressor.compress(b"x" * 100) + compressor.flush()
    with pytest.raises(PackageError, match="corrupt"):
        _plain(data, "zst")
