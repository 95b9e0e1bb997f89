"""What reading is: documents, whose bytes must still be judged, and blobs, whose hashes are promised already.

Where they come from is another file's subject: `network`, `offline` (the store alone) and `bundle`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Wanted:
    """Bytes that signed metadata promised."""

    urls: tuple[str, ...]
    """In the order in which they are to be tried."""
    size: int
    """Bytes."""
    sha256: str
    """Lower-case hexadecimal."""
    label: str
    """What it is, for the user: `Packages.xz of bookworm/main`, `libc6 2.36-9`."""
    late: tuple[str, ...] = ()
    """Where to look when none of `urls` has it: at services that are to be asked seldom, one request at a time."""


class Fetch(Protocol):
    """Gives documents, and blobs through the store."""

    def document(self, urls: Sequence[str], *, limit: int, label: str, accept: Callable[[bytes], T]) -> tuple[T, str]:
        """Return what `accept` made of the first document that it accepted, and that document's URL.

        `limit` is the most bytes it may have. An UntrustedError from `accept` leads to the next URL. When
        none is left: the first UntrustedError, else FetchError with every URL tried and why it failed.
        """

    def blob(self, wanted: Wanted) -> str:
        """Return the path of verified bytes.

        Raises IntegrityError for complete bytes that were wrong, else FetchError; StorageError if the store
        cannot take them.
        """

    def blobs(self, wanted: Iterable[Wanted]) -> Iterator[tuple[Wanted, str]]:
        """Yield each blob with its path as soon as it is there, the largest asked for first.

        Reports bytes as Progress of stage `fetch`, from the caller's thread. Raises as `blob`; at the first
        error, or when the caller stops taking, everything that goes on beside it ends.
        """

    def require(self, wanted: Iterable[Wanted]) -> None:
        """Raise now, and for all at once, for what cannot be had, so far as that can be known: FetchError."""
