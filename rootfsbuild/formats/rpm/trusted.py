"""repomd.xml of repositories: fetched, and believed only after every check.

A repomd.xml is believed for one of three reasons: its signature beside it is good, a metalink that was fetched over
https lists its hash, or a lock names its hash.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from rootfsbuild import events
from rootfsbuild.errors import FetchError, UntrustedError
from rootfsbuild.formats.rpm.metalink import MAX_LIST, Metalink, parse_metalink
from rootfsbuild.formats.rpm.repomd import Repomd, parse_repomd
from rootfsbuild.repository.rollback import last_date, remember
from rootfsbuild.repository.signed import METALINK, REPOMD, REPOMD_SIGNATURE
from rootfsbuild.repository.trust import FUTURE, MAX_DOCUMENT, clock, utc, verify_detached

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rootfsbuild.repository.fetch import Fetch
    from rootfsbuild.repository.mirrors import Mirror
    from rootfsbuild.repository.store import Store
    from rootfsbuild.repository.trust import Keyring

DAY = 86400
MAX_SIGNATURE = 1_000_000
"""Bytes of a detached signature."""

_KEPT = ("signed:", "latest:")


class Archive(Protocol):
    """What is needed of an archive to believe it; `rootfsbuild.distro.Archive` is one."""

    @property
    def name(self) -> str:
        """The name under which its dates are remembered."""

    @property
    def threshold(self) -> int:
        """How many different certificates must have signed; above 1 only signatures count."""

    @property
    def max_age_days(self) -> int | None:
        """Days after which a repomd.xml is refused."""


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


def check_repomd(
    repomd: Repomd,
    *,
    now: float,
    last_date: int | None,
    max_age_days: int | None,
    relax: frozenset[str] = frozenset(),
    report: events.Report = events.ignore,
    subject: str = "repomd.xml",
    past: frozenset[str] = frozenset(),
) -> None:
    """Judge whether a repomd.xml is fresh at `now` (seconds); raise UntrustedError if not.

    `relax` names checks that only warn: `rollback` (a timestamp before `last_date`), `old` (more than `max_age_days`).
    A timestamp in the future is never let pass. `past` names those that do not apply, as a past moment was asked for.
    """
    date = repomd.timestamp
    if date > now + FUTURE:
        problem = f"has the timestamp {utc(date)}, which is in the future: {clock(now)}"
        raise UntrustedError(subject, "future", problem, hint="set this machine's clock")
    for rule, name, problem in _stale(date, now, last_date, max_age_days):
        if name in past:
            continue
        if name not in relax:
            hint = f"the mirror may be out of date, or the clock wrong; --allow={name} accepts it all the same"
            raise UntrustedError(subject, rule, problem, hint=hint)
        report(events.Warned(f"{subject} {problem}; accepted because of --allow={name}", weakens=name))
    age = (now - date) / DAY
    if max_age_days and "old" not in past and 0.75 * max_age_days < age <= max_age_days:
        limit = f"older than {max_age_days} days it will be refused"
        report(events.Warned(f"{subject} is {age:.0f} days old; {limit}"))


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
    judge = _Judge(
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


@dataclass(frozen=True)
class _Found:
    """What was believed, and the documents that it was read from, by their paths in the repository."""

    repomd: Repomd
    sha256: str
    by: str
    signers: tuple[str, ...]
    vouchers: tuple[str, ...]
    """What its timestamp is remembered under where nobody signed it."""
    documents: dict[str, bytes]


@dataclass(frozen=True)
class _Judge:
    """All rules for one repository, to be applied to what each mirror gives."""

    archive: Archive
    subject: str
    keyring: Keyring
    now: float
    report: events.Report
    relax: frozenset[str]
    past: frozenset[str]
    expected: str
    lock_counts: bool
    metalink_key: str
    remembered: Callable[[list[str]], int | None]
    metalink: Metalink | None = None
    """One whose hashes count."""
    metalink_body: bytes = b""

    def is_candidate(self, data: bytes) -> bytes:
        """Return a document that may be the one; raise UntrustedError for one that cannot, whoever signed it."""
        if self.expected not in {"", hashlib.sha256(data).hexdigest()}:
            problem = f"is not the one with the SHA-256 {self.expected[:12]}… that the lock names"
            hint = "the repository has moved on: make the lock anew with rootfsbuild lock"
            raise UntrustedError(self.subject, "mismatch", problem, hint=hint)
        parse_repomd(data, self.subject)
        return data

    def judge(self, data: bytes, signature: Callable[[], bytes | None]) -> _Found:
        """Judge a repomd.xml; `signature` gets what stands beside it. Raises UntrustedError or FetchError."""
        found = self._by_metalink(data) or self._by_signature(data, signature)
        keys = [certificate.fingerprint for certificate in self.keyring.certificates]
        check_repomd(
            found.repomd,
            now=self.now,
            last_date=self.remembered([*keys, *filter(None, [self.metalink_key])]),
            max_age_days=self.archive.max_age_days,
            relax=self.relax,
            report=self.report,
            subject=self.subject,
            past=self.past,
        )
        return found

    def _by_metalink(self, data: bytes) -> _Found | None:
        listed = self.metalink.prove(data) if self.metalink and self.archive.threshold <= 1 else None
        if self.metalink is None or listed is None:
            return None
        if listed != self.metalink.accepted[0]:
            self.report(events.Detail(f"{self.subject} is an older one, which its metalink still accepts"))
        return self._found(data, "metalink", vouchers=(self.metalink_key,), beside={METALINK: self.metalink_body})

    def _by_signature(self, data: bytes, get_signature: Callable[[], bytes | None]) -> _Found:
        try:
            signature = get_signature() if self.keyring.certificates else None
            return self._signed(data, signature)
        except (UntrustedError, FetchError) as error:
            if self.lock_counts:
                self.report(events.Detail(f"{error}; it is believed for the SHA-256 that the lock names"))
                return self._found(data, "lock")
            if "unsigned" not in self.relax or isinstance(error, FetchError):
                raise
            text = f"{error}; accepted because of --allow=unsigned: anyone on the way could have written it"
            self.report(events.Warned(text, weakens="unsigned"))
            return self._found(data, "")

    def _signed(self, data: bytes, signature: bytes | None) -> _Found:
        if signature is None:
            raise UntrustedError(self.subject, "signature", self._unproven(), hint=_HINT)
        threshold, subject = self.archive.threshold, self.subject
        try:
            verified = verify_detached(data, signature, self.keyring, self.now, threshold=threshold, subject=subject)
        except UntrustedError as error:
            # verify_detached calls a signature by Debian's ending.
            name = error.subject.replace(f"{subject}.gpg", f"the signature of {subject}")
            raise UntrustedError(name, error.rule, error.problem, hint=error.hint) from None
        return self._found(data, "signature", signers=verified.signers, beside={REPOMD_SIGNATURE: signature})

    def _unproven(self) -> str:
        signed = "is not signed" if self.keyring.certificates else "is of an archive for which no key is named"
        return f"{signed}, and its metalink does not list it" if self.metalink else signed

    def _found(
        self,
        data: bytes,
        by: str,
        *,
        signers: tuple[str, ...] = (),
        vouchers: tuple[str, ...] = (),
        beside: dict[str, bytes] | None = None,
    ) -> _Found:
        documents = {REPOMD: data, **(beside or {})}
        digest = hashlib.sha256(data).hexdigest()
        return _Found(parse_repomd(data, self.subject), digest, by, signers, vouchers, documents)


_HINT = "name its keys, or its metalink with https, in the archive; --allow=unsigned accepts it all the same"


def _look(fetch: Fetch, judge: _Judge, bases: Sequence[str], metalink: str) -> tuple[_Found, str, tuple[str, ...]]:
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


def _with_metalink(fetch: Fetch, judge: _Judge, metalink: str, kept: Sequence[str]) -> tuple[_Judge, tuple[str, ...]]:
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


def _first_believed(fetch: Fetch, judge: _Judge, bases: Sequence[str]) -> tuple[_Found, str]:
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


def _stale(date: int, now: float, last: int | None, max_age_days: int | None) -> Iterator[tuple[str, str, str]]:
    """Yield (rule, name of its switch, what is wrong) for each freshness rule that a timestamp fails."""
    if last is not None and date < last:
        problem = f"has the timestamp {utc(date)}, but one of {utc(last)} was seen before: a rollback"
        yield "rollback", "rollback", problem
    if max_age_days and (now - date) / DAY > max_age_days:
        yield "age", "old", f"has the timestamp {utc(date)}, more than {max_age_days} days ago: {clock(now)}"


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
