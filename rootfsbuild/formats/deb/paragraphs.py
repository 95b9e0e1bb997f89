"""A Packages file as text: decoded, cut into paragraphs, and what is seen of each in passing."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import sys
import threading
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from rootfsbuild.errors import PackageError, UntrustedError
from rootfsbuild.rootfs.decompress import decompress

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence

LIMIT = 1 << 30
"""Most bytes that one Packages file may expand to; Debian's largest is 60 MB."""

NAMING = (
    b"\nPackage:",
    b"\nPre-Depends:",
    b"\nDepends:",
    b"\nConflicts:",
    b"\nBreaks:",
    b"\nRecommends:",
    b"\nSuggests:",
    b"\nReplaces:",
    b"\nEnhances:",
    b"\nProvides:",
)
"""The order in which apt reads a paragraph: a name that it meets first gets the smaller package id."""

_READ = 1 << 18
_BATCH = 1 << 20
_LONGEST = 8 << 20
_HANDOVER = 0.0001  # seconds
_MAGIC = ((b"\xfd7zXZ\0", "xz"), (b"\x1f\x8b", "gz"), (b"\x28\xb5\x2f\xfd", "zst"), (b"BZh", "bz2"))

_OWN, _PROVIDES = NAMING[0], NAMING[-1]
_RANK = re.compile(rb"\n(?:Essential: *yes|Priority: *(?:required|important|standard)) *(?=\n|\Z)")
_PROSE = re.compile(
    rb"\n(?:Description|Homepage|Description-md5|Tag|Task|Maintainer|MD5sum|SHA1|Bugs|Ruby-Versions):[^\n]*"
)


@dataclass(frozen=True)
class Cut:
    """What was seen of one piece's paragraphs, in their order."""

    names: Sequence[str]
    starts: Sequence[int]
    """Where each begins in the piece, in bytes."""
    lengths: Sequence[int]
    provided: Sequence[tuple[str, int]]
    """(what a paragraph provides, with its qualifier if it has one; the paragraph's place in `names`)."""
    notable: Sequence[int]
    """Places in `names` of those that are Essential or of a priority above optional."""


def read_pieces(blob: str) -> Generator[bytes]:
    """Yield the text of the file `blob` about a megabyte at a time, cut between paragraphs.

    It is decoded in a thread of its own, ahead of the reader. Raises UntrustedError (`malformed`) for what cannot be
    decoded, expands to more than LIMIT or has no end of a paragraph in sight.
    """
    with _quick_handovers(), contextlib.closing(_ahead(_decode(blob))) as text:
        yield from _batches(text, blob)


def cut(piece: bytes, blob: str) -> Cut:
    """Cut one piece at its empty lines; raises UntrustedError (`malformed`) for a paragraph that names no package."""
    texts = piece.split(b"\n\n")
    lengths = list(map(len, texts))
    starts = list(accumulate((length + 2 for length in lengths[:-1]), initial=0))
    full = [at for at, text in enumerate(texts) if text.strip(b"\n")]
    if len(full) != len(texts):
        texts = [texts[at] for at in full]
        lengths, starts = [lengths[at] for at in full], [starts[at] for at in full]
    # Most are optional, and a search for the rest costs ten times as much as to see that.
    has_essential = b"\nEssential:" in piece
    return Cut(
        _own_names(texts, blob),
        starts,
        lengths,
        [(name, at) for at, text in enumerate(texts) if _PROVIDES in text for name in _provided(text)],
        [
            at
            for at, text in enumerate(texts)
            if (b"\nPriority: optional\n" not in text or (has_essential and b"\nEssential:" in text))
            and _RANK.search(text)
        ],
    )


def unfold(text: bytes) -> bytes:
    """Return a paragraph with each field on one line, without those that only describe."""
    return _PROSE.sub(b"", text.strip(b"\n").replace(b"\n ", b" ").replace(b"\n\t", b" "))


def split_names(value: bytes) -> Iterator[bytes]:
    """Yield the names in a field of relations, in order."""
    for item in value.replace(b"|", b",").split(b","):
        name = item.strip().partition(b" ")[0].partition(b"(")[0]
        if name:
            yield name


def values_of(text: bytes, heads: Sequence[bytes] = NAMING) -> Iterator[bytes]:
    """Yield the values of fields, in the order of `heads`; `text` is unfolded and begins with a line break."""
    for head in heads:
        start = text.find(head)
        if start >= 0:
            end = text.find(b"\n", start + 1)
            yield text[start + len(head) : end if end >= 0 else len(text)]


def malformed(blob: str, problem: str) -> UntrustedError:
    """Return the error that says what is wrong with a Packages file."""
    return UntrustedError(f"the index {os.path.basename(blob)}", "malformed", problem)


def _own_names(texts: Sequence[bytes], blob: str) -> list[str]:
    head = _OWN[1:] + b" "
    start = len(head)
    try:
        # Debian's own paragraphs all begin so, and there are sixty thousand.
        names = [text[start : text.index(b"\n")] if text.startswith(head) else _own_name(text, blob) for text in texts]
    except ValueError:
        names = [_own_name(text, blob) for text in texts]
    decoded = [name.strip() for name in b"\n".join(names).decode("utf-8", "replace").split("\n")] if names else []
    if not all(decoded):
        raise malformed(blob, "a paragraph has no Package field")
    return decoded


def _own_name(text: bytes, blob: str) -> bytes:
    name = next(values_of(b"\n" + text, (_OWN,)), b"").strip()
    if not name:
        raise malformed(blob, "a paragraph has no Package field")
    return name


def _provided(text: bytes) -> list[str]:
    start = text.find(_PROVIDES)
    end = text.find(b"\n", start + 1)
    while end >= 0 and text[end + 1 : end + 2] in {b" ", b"\t"}:
        end = text.find(b"\n", end + 1)
    value = text[start + len(_PROVIDES) : end if end >= 0 else len(text)].replace(b"\n", b" ")
    return [name.decode("utf-8", "replace") for name in dict.fromkeys(split_names(value))]


def _decode(blob: str) -> Iterator[bytes]:
    with open(blob, "rb") as stream:
        chunks = iter(lambda: stream.read(_READ), b"")
        first = next(chunks, b"")
        ending = next((ending for magic, ending in _MAGIC if first.startswith(magic)), "tar")
        label = f"the index {os.path.basename(blob)}"
        try:
            yield from decompress(_chain(first, chunks), f"Packages.{ending}", label, LIMIT)
        except PackageError as error:
            raise UntrustedError(label, "malformed", error.problem) from None


def _chain(first: bytes, rest: Iterable[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _ahead(pieces: Iterator[bytes]) -> Generator[bytes]:
    """Run `pieces` in a thread of its own: decoders work outside Python's lock."""
    ready: queue.Queue[bytes | BaseException | None] = queue.Queue(8)
    stopped = threading.Event()

    def run() -> None:
        last: BaseException | None = None
        try:
            for piece in pieces:
                ready.put(piece)
                if stopped.is_set():
                    break
        except BaseException as error:  # noqa: BLE001 - raised again by the reader
            last = error
        ready.put(last)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        while isinstance(item := ready.get(), bytes):
            yield item
        if item is not None:
            raise item
    finally:
        stopped.set()
        while thread.is_alive():
            with contextlib.suppress(queue.Empty):
                ready.get(timeout=0.01)


@contextlib.contextmanager
def _quick_handovers() -> Iterator[None]:
    """Let the decoder have Python's lock when it asks for it, not 5 ms later: it asks for each of 200 pieces."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(_HANDOVER)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def _batches(pieces: Iterable[bytes], blob: str) -> Iterator[bytes]:
    held: list[bytes] = []
    size = 0
    for piece in pieces:
        held.append(piece.replace(b"\r\n", b"\n") if b"\r" in piece else piece)
        size += len(piece)
        if size < _BATCH:
            continue
        text, found, rest = b"".join(held).rpartition(b"\n\n")
        if found:
            yield text
        elif len(rest) > _LONGEST:
            raise malformed(blob, f"a paragraph is longer than {_LONGEST} bytes")
        held, size = [rest], len(rest)
    yield b"".join(held)
