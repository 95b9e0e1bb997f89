"""A Fetch that looks for signed documents among those that were kept before it asks anybody."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from rootfsbuild.errors import FetchError, UntrustedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from rootfsbuild.repository.fetch import Fetch, Wanted

T = TypeVar("T")

_KEPT = ("signed:", "latest:")


class KeptFirst:
    """Documents addressed as kept from one Fetch, everything else from another."""

    def __init__(self, kept: Fetch, other: Fetch) -> None:
        self._kept, self._other = kept, other

    def document(self, urls: Sequence[str], *, limit: int, label: str, accept: Callable[[bytes], T]) -> tuple[T, str]:
        """Return what `accept` made of the first document that it accepted, and its URL; raises as Fetch does."""
        kept = [url for url in urls if url.startswith(_KEPT)]
        other = [url for url in urls if not url.startswith(_KEPT)]
        attempts: list[tuple[str, str]] = []
        absent: list[str] = []
        try:
            return self._kept.document(kept, limit=limit, label=label, accept=accept)
        except FetchError as error:
            attempts, absent = [*error.attempts], [*error.absent]
        except UntrustedError as error:
            attempts = [(url, error.describe()) for url in kept]
        try:
            return self._other.document(other, limit=limit, label=label, accept=accept)
        except FetchError as error:
            raise FetchError(label, (*attempts, *error.attempts), (*absent, *error.absent), hint=error.hint) from None

    def blob(self, wanted: Wanted) -> str:
        """Return the path of verified bytes; raises as Fetch does."""
        return self._other.blob(_asked(wanted))

    def blobs(self, wanted: Iterable[Wanted]) -> Iterator[tuple[Wanted, str]]:
        """Yield each blob with its path; raises as Fetch does."""
        asked = {_asked(one): one for one in wanted}
        for one, path in self._other.blobs(asked):
            yield asked[one], path

    def require(self, wanted: Iterable[Wanted]) -> None:
        """Raise FetchError for what cannot be had."""
        self._other.require(map(_asked, wanted))


def _asked(wanted: Wanted) -> Wanted:
    return replace(wanted, urls=tuple(url for url in wanted.urls if not url.startswith(_KEPT)))
