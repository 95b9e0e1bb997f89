"""Reading from a bundle alone: a Fetch that knows no network."""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING, TypeVar

from rootfsbuild import events
from rootfsbuild.errors import IntegrityError
from rootfsbuild.repository.bundle_file import AGAIN, blob_path
from rootfsbuild.repository.offline import arrivals, first_accepted, missing, split_address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from rootfsbuild.repository.bundle import Bundle
    from rootfsbuild.repository.fetch import Fetch, Wanted
    from rootfsbuild.repository.store import Store

T = TypeVar("T")

_CHUNK = 1 << 20
_HINT = "make the bundle again from this lock, where the network is: rootfsbuild bundle"


class BundleFetch:
    """A Fetch of what a bundle holds; documents are addressed by `signed:<sha256>`, blobs go through the store."""

    def __init__(self, bundle: Bundle, store: Store, report: events.Report = events.ignore) -> None:
        self._bundle, self._store, self._report = bundle, store, report

    def document(self, urls: Sequence[str], *, limit: int, label: str, accept: Callable[[bytes], T]) -> tuple[T, str]:
        """Return what `accept` made of the first document in the bundle that it accepted; raises as Fetch does."""
        return first_accepted(urls, self._look, limit=limit, label=label, accept=accept, hint=_HINT)

    def blob(self, wanted: Wanted) -> str:
        """Return the path of verified bytes; raises as Fetch does."""
        path = self._get(wanted, time.sleep)
        self._report(events.Progress("fetch", wanted.size, wanted.label))
        return path

    def blobs(self, wanted: Iterable[Wanted]) -> Iterator[tuple[Wanted, str]]:
        """Yield each blob with its path; before the first, raise FetchError that lists all that are not here."""
        ordered = list(wanted)
        self.require(ordered)
        yield from arrivals(self._get, ordered, self._report)

    def require(self, wanted: Iterable[Wanted]) -> None:
        """Raise FetchError that lists everything of `wanted` that the bundle does not have."""
        absent = [one for one in wanted if not self.has(one)]
        if absent:
            raise missing(absent, self._bundle.file, _HINT)

    def has(self, wanted: Wanted) -> bool:
        """Tell whether the bundle holds a blob."""
        return blob_path(wanted.sha256) in self._bundle.members

    def _get(self, wanted: Wanted, pause: Callable[[float], None]) -> str:
        found = self._store.find(wanted.sha256, wanted.size)
        if found is not None:
            return found
        if not self.has(wanted):
            raise missing([wanted], self._bundle.file, _HINT)
        with self._store.claim(wanted.sha256, pause) as claim:
            found = self._store.find(wanted.sha256, wanted.size)
            if found is not None:
                return found
            claim.restart()
            digest = hashlib.sha256()
            with self._bundle.open_blob(wanted.sha256) as stream:
                while chunk := stream.read(_CHUNK):
                    digest.update(chunk)
                    claim.write(chunk)
            if claim.have != wanted.size or digest.hexdigest() != wanted.sha256:
                actual = f"{claim.have} bytes with SHA-256 {digest.hexdigest()}"
                claim.restart()
                subject = f"{wanted.label} in {self._bundle.file}"
                expected = f"{wanted.size} bytes with SHA-256 {wanted.sha256}"
                raise IntegrityError(subject, expected, actual, hint=AGAIN)
            return claim.publish()

    def _look(self, url: str) -> bytes | str:
        scheme, name, path = split_address(url)
        if scheme == "signed":
            return self._bundle.signed(name, path) or f"not in {self._bundle.file}"
        return f"not asked: everything is read from {self._bundle.file}"


class OldFirst:
    """A Fetch that takes blobs from an earlier bundle where it has them, and asks another Fetch for the rest."""

    def __init__(self, old: BundleFetch, other: Fetch) -> None:
        self._old, self._other = old, other

    def document(self, urls: Sequence[str], *, limit: int, label: str, accept: Callable[[bytes], T]) -> tuple[T, str]:
        """Return what the other Fetch finds: a new bundle is to have the archives' newest documents."""
        return self._other.document(urls, limit=limit, label=label, accept=accept)

    def blob(self, wanted: Wanted) -> str:
        """Return the path of verified bytes; raises as Fetch does."""
        return self._old.blob(wanted) if self._old.has(wanted) else self._other.blob(wanted)

    def blobs(self, wanted: Iterable[Wanted]) -> Iterator[tuple[Wanted, str]]:
        """Yield each blob with its path; raises as Fetch does."""
        ordered = list(wanted)
        yield from self._old.blobs([one for one in ordered if self._old.has(one)])
        yield from self._other.blobs([one for one in ordered if not self._old.has(one)])

    def require(self, wanted: Iterable[Wanted]) -> None:
        """Raise FetchError for what cannot be had."""
        self._other.require(one for one in wanted if not self._old.has(one))
