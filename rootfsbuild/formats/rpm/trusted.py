"""repomd.xml of repositories: fetched, and believed only after every check.

A repomd.xml is believed for one of three reasons: its signature beside it is good, a metalink that was fetched over
https lists its hash, or a lock names its hash.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rootfsbuild import events
from rootfsbuild.errors import FetchError, UntrustedError
from rootfsbuild.formats.rpm.judging import Archive, Found, Judge
from rootfsbuild.formats.rpm.metalink import MAX_LIST, parse_metalink, parse_mirrorlist
from rootfsbuild.repository.rollback import last_date, remember
from rootfsbuild.repository.signed import METALINK, REPOMD, REPOMD_SIGNATURE
from rootfsbuild.repository.trust import MAX_DOCUMENT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootfsbuild.formats.rpm.repomd import Repomd
    from rootfsbuild.repository.fetch import Fetch
    from rootfsbuild.repository.mirrors import Mirror
    from rootfsbuild.repository.store import Store
    from rootfsbuild.repository.trust import Keyring

MAX_SIGNATURE = 1_000_000
"""Bytes of a detached signature."""

_KEPT = ("signed:", "latest:")


@dataclass(frozen=True)
class Trusted:
    """A repomd.xml that passed every check that was not switched off."""

    repomd: Repomd
    sha256: str
    """Digest of the document as fetched."""
    signers: tuple[str, ...]
    """Fingerprints of the certificates whose signatures were good; empty if it is believed for another reason."""
    keyring: str
    """Digest of the keyring that it was verified with."""
    by: str
    """Why it is believed: `signature`, `metalink`, `lock`, or empty for one that is not."""
    base: str
    """URL of the repository that served it."""
    bases: tuple[str, ...]
    """All URLs where the repository is served, `base` first."""


def fetch_repomd(
    archive: Archive,
    suite: str,
    mirrors: Sequence[Mirror],
    fetch: Fetch,
    store: Store,
    keyring: Keyring,
    now: float,
    report: events.Report,
    relax: frozenset[str],
    *,
    past: frozenset[str] = frozenset(),
    expected: str = "",
    metalink: str = "",
    architecture: str = "",
    must_be_signed: bool = False,
) -> Trusted:
    """Fetch a repository's repomd.xml and check it in every way; the first mirror that passes wins.

    A mirror's URL is the repository's base, below which repodata/ lies. The mirrors of `metalink`, the URL of one, are
    asked before `mirrors`. `past`: freshness rules that do not apply, as the mirrors serve a past moment that was asked
    for. `expected`: the SHA-256 of the only document that will do, which is also a reason to believe it, unless
    `must_be_signed`, as when a lock says that it was. `architecture` keeps apart what is remembered of repositories
    that share the name and the suite. Raises UntrustedError or FetchError. The timestamp is remembered in the store
    only after everything else was right.
    """
    place = _place(archive.name, suite, architecture, keyring, metalink)
    bases = [_own_latest(mirror.url, archive.name, place) for mirror in mirrors]
    judge = Judge(
        archive=archive,
        subject=f"repomd.xml of {archive.name} {suite}",
        keyring=keyring,
        now=now,
        report=report,
        relax=relax,
        past=past,
        expected=expected,
        lock_counts=bool(expected) and not must_be_signed and archive.threshold <= 1,
        metalink_key=f"metalink {metalink}" if metalink else "",
        remembered=lambda keys: last_date(store.trust, archive.name, _memory(suite, architecture), keys, report),
    )
    found, base, tried = _look(fetch, judge, bases, metalink)
    date, signers = found.repomd.timestamp, found.signers or found.vouchers
    if signers:
        remember(store.trust, archive.name, _memory(suite, architecture), signers=signers, date=date, report=report)
    # What a past moment was asked for is not what the repository says now.
    store.keep_signed(place, found.sha256, found.documents, latest="rollback" not in past, report=report)
    others = tuple(other for other in dict.fromkeys(tried) if other != base)
    return Trusted(found.repomd, found.sha256, found.signers, keyring.digest, found.by, base, (base, *others))


def fetch_bases(url: str, fetch: Fetch, label: str) -> tuple[str, ...]:
    """Return where a repository is served, as a metalink or a plain mirror list says; they need not be believed.

    Raises UntrustedError (rule `malformed`) or FetchError.
    """

    def accept(data: bytes) -> tuple[str, ...]:
        if b"<metalink" in data[:2000]:
            return parse_metalink(data, label).mirrors
        return parse_mirrorlist(data, label)

    return fetch.document([url], limit=MAX_LIST, label=label, accept=accept)[0]


def _look(fetch: Fetch, judge: Judge, bases: Sequence[str], metalink: str) -> tuple[Found, str, tuple[str, ...]]:
    """Return what was believed, where it was, and all places of the repository that are known."""
    kept = [base for base in bases if base.startswith(_KEPT)]
    failures: list[UntrustedError | FetchError] = []
    if judge.expected and kept:
        try:
            return *_first_believed(fetch, judge, kept), tuple(bases)
        except (UntrustedError, FetchError) as error:
            failures.append(error)
            bases = [base for base in bases if base not in kept]
    if metalink:
        try:
            judge, listed = _with_metalink(fetch, judge, metalink, kept)
            bases = [*listed, *bases]
        except (UntrustedError, FetchError) as error:
            judge.report(events.Detail(f"{error}; asking the mirrors all the same"))
            failures.append(error)
    try:
        return *_first_believed(fetch, judge, bases), tuple(bases)
    except (UntrustedError, FetchError) as error:
        raise _worst([*failures, error], judge.subject) from None


def _with_metalink(fetch: Fetch, judge: Judge, metalink: str, kept: Sequence[str]) -> tuple[Judge, tuple[str, ...]]:
    """Return a judge who knows the metalink, if its hashes count, and the places that it lists."""
    label = f"the metalink of {judge.subject.removeprefix('repomd.xml of ')}"
    urls = [metalink, *(f"{base}/{METALINK}" for base in kept if base.startswith("latest:"))]
    (read, body), url = fetch.document(
        urls, limit=MAX_LIST, label=label, accept=lambda data: (parse_metalink(data, label), data)
    )
    # The store keeps as the latest only what came over https and was believed; a bundle may keep anything.
    if url.startswith(("https://", "latest:")):
        return replace(judge, metalink=read, metalink_body=body), read.mirrors
    judge.report(events.Detail(f"{label} did not come over https: it names mirrors, but proves nothing"))
    return judge, read.mirrors


def _first_believed(fetch: Fetch, judge: Judge, bases: Sequence[str]) -> tuple[Found, str]:
    """Return the first repomd.xml that is believed, with its base; raise what is wrong with the others."""
    remaining = {f"{base}/{REPOMD}": base for base in bases}
    failures: list[UntrustedError | FetchError] = []
    while remaining or not failures:
        try:
            data, url = fetch.document([*remaining], limit=MAX_DOCUMENT, label=judge.subject, accept=judge.is_candidate)
        except (UntrustedError, FetchError) as error:
            failures.append(error)
            break
        base = remaining[url]
        try:
            return judge.judge(data, functools.partial(_read_signature, fetch, base)), base
        except (UntrustedError, FetchError) as error:
            failures.append(error)
        urls = [*remaining]
        # Those before it were asked in this very round.
        remaining = {later: remaining[later] for later in urls[urls.index(url) + 1 :]}
    raise _worst(failures, judge.subject)


def _read_signature(fetch: Fetch, base: str) -> bytes | None:
    """Return the signature beside a repomd.xml, None where the server says that there is none."""
    url = f"{base}/{REPOMD_SIGNATURE}"
    try:
        return fetch.document([url], limit=MAX_SIGNATURE, label="repomd.xml.asc", accept=bytes)[0]
    except FetchError as error:
        if url in error.absent:
            return None
        raise


def _worst(failures: Sequence[UntrustedError | FetchError], subject: str) -> UntrustedError | FetchError:
    """Return the first refusal, else one error with everything that was tried."""
    missed: list[FetchError] = []
    for failure in failures:
        if isinstance(failure, UntrustedError):
            return failure
        missed.append(failure)
    attempts = tuple(attempt for failure in missed for attempt in failure.attempts)
    absent = tuple(url for failure in missed for url in failure.absent)
    return FetchError(subject, attempts, absent, hint=missed[-1].hint)


def _memory(suite: str, architecture: str) -> str:
    return f"{suite}.{architecture}" if architecture else suite


def _place(archive: str, suite: str, architecture: str, keyring: Keyring, metalink: str) -> str:
    """Return the name under which a repository's latest documents are kept.

    Distributions call their repositories alike, so that it says also by what they are believed: `baseos` of one must
    never be read offline as that of another.
    """
    reasons = hashlib.sha256(f"{keyring.digest} {metalink}".encode()).hexdigest()[:16]
    return f"{archive}@{suite}@{architecture}@{reasons}".replace("/", "_")


def _own_latest(url: str, archive: str, place: str) -> str:
    return f"latest:{place}" if url == f"latest:{archive}" else url
