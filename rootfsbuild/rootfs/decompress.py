"""Compressed bytes in, plain bytes out, with every resource bounded."""

from __future__ import annotations

import bz2
import lzma
import zlib
from typing import TYPE_CHECKING, Any, Protocol

from rootfsbuild.errors import PackageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import ModuleType

CHUNK = 1 << 18
"""Most bytes that one step yields; also what is read at a time."""

MEMORY = 128 << 20
"""Most bytes an xz or lzma decoder may use: `xz -9` takes 65 MiB; a dictionary of 1.5 GiB is an attack."""

WINDOW = 1 << 27
"""Largest zstd window in bytes, which is what zstd(1) itself takes without --long."""

_BLOCK = 128 << 10


class _Decoder(Protocol):
    """What bz2 and lzma decoders have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


def decompress(chunks: Iterable[bytes], name: str, label: str, limit: int) -> Iterator[bytes]:
    """Yield the plain bytes of `chunks`, at most about CHUNK at a time.

    `name` tells the compressor by its ending: .gz, .xz, .zst, .bz2, .lzma or none of them. Raises
    PackageError, naming `label` and `name`, for a corrupt or truncated stream, for one that needs too much
    memory, and as soon as more than `limit` bytes come out.
    """
    total = 0
    try:
        for piece in _decoder_of(name, label)(iter(chunks)):
            total += len(piece)
            if total > limit:
                raise PackageError(label, f"expands to more than the {limit} bytes that are allowed", name)
            yield piece
    except EOFError:
        raise PackageError(label, "the compressed stream is truncated", name) from None
    except (lzma.LZMAError, zlib.error, OSError, ValueError) as error:
        raise PackageError(label, f"the compressed stream is corrupt: {error}", name) from None


def load_decoders() -> None:
    """Import every decoder now, for a process that soon will not see the disk any more."""
    _lzma()
    try:
        import zstandard as _  # noqa: F401, PLC0415 - 29 ms that only a worker pays
    except ImportError:
        return


def _decoder_of(name: str, label: str) -> Callable[[Iterator[bytes]], Iterator[bytes]]:
    ending = name.rpartition(".")[2]
    decoders: dict[str, Callable[[Iterator[bytes]], Iterator[bytes]]] = {
        "gz": _gunzip,
        "xz": _unxz,
        "lzma": _unlzma,
        "bz2": _bunzip2,
        "zst": _unzstd,
        "tar": iter,
    }
    if ending not in decoders:
        raise PackageError(label, "an unknown compression", name)
    return decoders[ending]


def _lzma() -> ModuleType:
    """Return the fastest module with the API of lzma."""
    try:
        import lzma_mt  # noqa: PLC0415 - optional
    except ImportError:
        return lzma
    module: ModuleType = lzma_mt
    return module


def _unxz(chunks: Iterator[bytes]) -> Iterator[bytes]:
    module = _lzma()

    def begin() -> _Decoder:
        decoder: _Decoder = module.LZMADecompressor(format=module.FORMAT_XZ, memlimit=MEMORY)
        return decoder

    # xz(1): streams may follow each other, with zeros in fours between them.
    return _streams(chunks, begin, padding=True)


def _unlzma(chunks: Iterator[bytes]) -> Iterator[bytes]:
    decoder = lzma.LZMADecompressor(format=lzma.FORMAT_ALONE, memlimit=MEMORY)
    yield from _one_stream(decoder, b"", chunks)
    if decoder.unused_data or next(chunks, b""):
        raise ValueError("bytes follow its end")


def _bunzip2(chunks: Iterator[bytes]) -> Iterator[bytes]:
    return _streams(chunks, bz2.BZ2Decompressor, padding=False)


def _streams(chunks: Iterator[bytes], begin: Callable[[], _Decoder], *, padding: bool) -> Iterator[bytes]:
    data = next(chunks, b"")
    while True:
        decoder = begin()
        yield from _one_stream(decoder, data, chunks)
        data = decoder.unused_data or next(chunks, b"")
        while padding and data and not data.strip(b"\0"):
            data = next(chunks, b"")
        if not data:
            return
        if padding:
            data = data.lstrip(b"\0")


def _one_stream(decoder: _Decoder, data: bytes, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Run one decoder to the end of its stream; EOFError when the chunks end before it."""
    step = decoder.decompress
    while not decoder.eof:
        if not data and decoder.needs_input:
            data = next(chunks, b"")
            if not data:
                raise EOFError
        piece = step(data, CHUNK)
        data = b""
        if piece:
            yield piece


def _gunzip(chunks: Iterator[bytes]) -> Iterator[bytes]:
    data = next(chunks, b"")
    while data:
        decoder = zlib.decompressobj(wbits=31)
        while not decoder.eof:
            data = data or next(chunks, b"")
            if not data:
                raise EOFError
            piece = decoder.decompress(data, CHUNK)
            data = decoder.unconsumed_tail
            if piece:
                yield piece
        data = decoder.unused_data or next(chunks, b"")


def _unzstd(chunks: Iterator[bytes]) -> Iterator[bytes]:
    import zstandard  # noqa: PLC0415 - 29 ms, and most packages are xz

    make = zstandard.ZstdDecompressor(max_window_size=WINDOW)
    try:
        yield from _frames(chunks, make.decompressobj)
    except zstandard.ZstdError as error:
        raise ValueError(error) from None


def _frames(chunks: Iterator[bytes], begin: Callable[[], Any]) -> Iterator[bytes]:
    """Decode frames block by block (RFC 8878, 3.1.1).

    zstandard's own reader ends silently in a truncated frame, and its object returns all that its input
    holds at once. A block holds at most 128 KiB of output, so feeding single blocks bounds both.
    """
    source = _Exactly(chunks)
    while magic := source.up_to(4):
        if len(magic) == 4 and magic[0] & 0xF0 == 0x50 and magic[1:] == b"\x2a\x4d\x18":
            source.skip(int.from_bytes(source.take(4), "little"))
            continue
        decoder = begin()
        descriptor = source.take(1)
        yield from _pieces(decoder, magic + descriptor + source.take(_rest_of_header(descriptor[0])))
        last = False
        while not last:
            header = source.take(3)
            number = int.from_bytes(header, "little")
            last, kind, size = bool(number & 1), number >> 1 & 3, number >> 3
            if size > _BLOCK:
                raise ValueError("a block is larger than the format allows")
            yield from _pieces(decoder, header + source.take(1 if kind == 1 else size))
        if descriptor[0] & 4:
            yield from _pieces(decoder, source.take(4))
        if not decoder.eof:
            raise EOFError


def _rest_of_header(descriptor: int) -> int:
    """Return the length of a frame header after its magic and descriptor (RFC 8878, 3.1.1.1)."""
    single = descriptor >> 5 & 1
    size_field = (single, 2, 4, 8)[descriptor >> 6]
    return (1 - single) + (0, 1, 2, 4)[descriptor & 3] + size_field


def _pieces(decoder: Any, data: bytes) -> Iterator[bytes]:
    piece = decoder.decompress(data)
    if piece:
        yield piece


class _Exactly:
    """Chunks read by exact counts."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._data = b""
        self._at = 0

    def up_to(self, count: int) -> bytes:
        """Return `count` bytes, or fewer at the end."""
        while len(self._data) - self._at < count:
            more = next(self._chunks, b"")
            if not more:
                break
            self._data = self._data[self._at :] + more
            self._at = 0
        taken = self._data[self._at : self._at + count]
        self._at += len(taken)
        return taken

    def take(self, count: int) -> bytes:
        """Return exactly `count` bytes, or raise EOFError."""
        taken = self.up_to(count)
        if len(taken) < count:
            raise EOFError
        return taken

    def skip(self, count: int) -> None:
        """Pass over `count` bytes."""
        while count:
            count -= len(self.take(min(count, CHUNK)))
