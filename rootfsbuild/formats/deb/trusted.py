"""Signed documents of suites: fetched, and believed only after every check (Debian's repository format)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from rootfsbuild import events
from rootfsbuild.errors import FetchError, UntrustedError
from rootfsbuild.formats.deb.cleartext import split_inrelease
from rootfsbuild.formats.deb.release import Release, parse_release
from rootfsbuild.repository.rollback import last_date, remember
from rootfsbuild.repository.signed import suite_folder
from rootfsbuild.repository.trust import (
    FUTURE,
    MAX_DOCUMENT,
    Verified,
    clock,
    utc,
    verify_detached,
    verify_inline,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rootfsbuild.repository.fetch import Fetch
    from rootfsbuild.repository.mirrors import Mirror
    from rootfsbuild.repository.store import Store
    from rootfsbuild.repository.trust import Keyring

DAY = 86400


class Archive(Protocol):
    """What is needed of an archive to believe it; `rootfsbuild.distro.Archive` is one."""

    @property
    def name(self) -> str:
        """The name under which its dates are remembered."""

    @property
    def threshold(self) -> int:
        """How many different certificates must have signed."""

    @property
    def check_valid_until(self) -> bool:
        """Whether Valid-Until counts; where it does not, letting it pass is recorded like a switch."""

    @property
    def max_age_days(self) -> int | None:
        """Days after which a Release without Valid-Until is refused."""


@dataclass(frozen=True)
class Trusted:
    """A Release that passed every check that was not switched off."""

    release: Release
    sha256: str
    """Digest of the document as fetched: the InRelease, or the Release beside a Release.gpg."""
    signers: tuple[str, ...]
    """Fingerprints of the certificates whose signatures were good; empty for an unsigned archive."""
    keyring: str
    """Digest of the keyring that it was verified with."""
    base: str
    """URL of the mirror that served it."""


def check_release(
    release: Release,
    *,
    asked_suite: str,
    now: float,
    last_date: int | None,
    max_age_days: int | None,
    relax: frozenset[str] = frozenset(),
    report: events.Report = events.ignore,
    subject: str = "",
    past: frozenset[str] = frozenset(),
) -> None:
    """Judge whether a Release is the one asked for and fresh at `now` (seconds); raise UntrustedError if not.

    `relax` names checks that only warn: `expired` (Valid-Until), `rollback` (a Date before `last_date`),
    `old` (more than `max_age_days`, for a Release that sets no end itself). A Date in the future and a wrong
    suite are never let pass. `past` names those that do not apply, as a past moment was asked for.
    """
    subject = subject or f"the Release of {asked_suite}"
    if not _is_suite(release, asked_suite):
        problem = f"is that of {release.suite or '-'} ({release.codename or '-'}), not of {asked_suite}"
        raise UntrustedError(subject, "suite", problem, hint="the mirror may be wrong, or name its codename")
    if release.date > now + FUTURE:
        problem = f"has the Date {utc(release.date)}, which is in the future: {clock(now)}"
        raise UntrustedError(subject, "future", problem, hint="set this machine's clock")
    stale = [found for found in _stale(release, now, last_date, max_age_days) if found[1] not in past]
    for rule, name, problem in stale:
        if name not in relax:
            hint = f"the mirror may be out of date, or the clock wrong; --allow={name} accepts it all the same"
            raise UntrustedError(subject, rule, problem, hint=hint)
        report(events.Warned(f"{subject} {problem}; accepted because of --allow={name}", weakens=name))
    age = (now - release.date) / DAY
    if max_age_days and "old" not in past and release.valid_until is None and 0.75 * max_age_days < age <= max_age_days:
        limit = f"older than {max_age_days} days it will be refused"
        report(events.Warned(f"{subject} is {age:.0f} days old; {limit}"))


def fetch_release(
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
) -> Trusted:
    """Fetch the signed document of a suite and check it in every way; the first mirror that passes wins.

    InRelease is preferred, because Release and Release.gpg can be of different moments on a mirror. Raises
    UntrustedError or FetchError. The Date is remembered in the store only after everything else was right.
    `past`: freshness rules that do not apply, as the mirrors serve a past moment that was asked for. `expected`: the
    SHA-256 of the only document that will do.
    """
    judge = _Judge(archive, suite, keyring, now, report, relax, store.trust, past, expected)
    bases = {f"{_folder(mirror.url, suite)}/InRelease": mirror.url for mirror in mirrors}
    label = f"InRelease of {archive.name} {suite}"
    try:
        found, url = fetch.document([*bases], limit=MAX_DOCUMENT, label=label, accept=judge.inrelease)
        base = bases[url]
    except FetchError as error:
        found, base = _fetch_pair(fetch, judge, mirrors, error)
    trusted, documents = found
    if trusted.signers:
        date = trusted.release.date
        remember(store.trust, archive.name, suite, signers=trusted.signers, date=date, report=report)
    paths = {f"{suite_folder(suite)}/{name}": data for name, data in documents.items()}
    # What a past moment was asked for is not what the archive says now.
    store.keep_signed(archive.name, trusted.sha256, paths, latest="rollback" not in past, report=report)
    return replace(trusted, base=base)


_Found = tuple[Trusted, dict[str, bytes]]
"""What was believed, and the documents that it was read from, by their names in the suite's folder."""


@dataclass(frozen=True)
class _Judge:
    """All rules for one suite of one archive, to be applied to what each mirror gives."""

    archive: Archive
    suite: str
    keyring: Keyring
    now: float
    report: events.Report
    relax: frozenset[str]
    memory: str
    past: frozenset[str]
    expected: str

    def inrelease(self, data: bytes) -> _Found:
        """Judge an InRelease; raise UntrustedError."""
        return self.inline(data), {"InRelease": data}

    def pair(self, data: bytes, signature: bytes | None) -> _Found:
        """Judge a Release with its Release.gpg; raise UntrustedError."""
        signed = {} if signature is None else {"Release.gpg": signature}
        return self.detached(data, signature), {"Release": data, **signed}

    def inline(self, data: bytes) -> Trusted:
        """Judge an InRelease; raise UntrustedError."""
        subject = f"InRelease of {self.archive.name} {self.suite}"
        body = split_inrelease(data, subject)
        try:
            verified = verify_inline(data, self.keyring, self.now, threshold=self.archive.threshold, subject=subject)
        except UntrustedError as error:
            return self._judge(data, self._unsigned(body, error), subject)
        # pysequoia ignores what stands around a signed message: what it verified has to be what we read.
        if b"\n".join(line.rstrip(b" \t\r") for line in verified.body.split(b"\n")) != body:
            raise UntrustedError(subject, "malformed", "holds text that its signature does not cover")
        return self._judge(data, Verified(body, verified.signers), subject)

    def detached(self, data: bytes, signature: bytes | None) -> Trusted:
        """Judge a Release with its Release.gpg, None where there is none; raise UntrustedError."""
        subject = f"Release of {self.archive.name} {self.suite}"
        if signature is None:
            hint = "--allow=unsigned accepts it all the same"
            error = UntrustedError(subject, "signature", "is not signed", hint=hint)
            return self._judge(data, self._unsigned(data, error), subject)
        try:
            verified = verify_detached(
                data, signature, self.keyring, self.now, threshold=self.archive.threshold, subject=subject
            )
        except UntrustedError as error:
            verified = self._unsigned(data, error)
        return self._judge(data, verified, subject)

    def _unsigned(self, body: bytes, error: UntrustedError) -> Verified:
        if "unsigned" not in self.relax:
            raise error
        text = f"{error}; accepted because of --allow=unsigned: anyone on the way could have written it"
        self.report(events.Warned(text, weakens="unsigned"))
        return Verified(body, ())

    def _judge(self, data: bytes, verified: Verified, subject: str) -> Trusted:
        if self.expected not in {"", hashlib.sha256(data).hexdigest()}:
            problem = f"is not the one with the SHA-256 {self.expected[:12]}… that the lock names"
            hint = "the archive has moved on: make the lock anew with rootfsbuild lock"
            raise UntrustedError(subject, "mismatch", problem, hint=hint)
        release = parse_release(verified.body, subject)
        keys = [certificate.fingerprint for certificate in self.keyring.certificates]
        own = frozenset() if self.archive.check_valid_until else frozenset({"expired"})
        check_release(
            release,
            asked_suite=self.suite,
            now=self.now,
            last_date=last_date(self.memory, self.archive.name, self.suite, keys, self.report),
            max_age_days=self.archive.max_age_days,
            relax=self.relax | own,
            report=self.report,
            subject=subject,
            past=self.past,
        )
        digest = hashlib.sha256(data).hexdigest()
        return Trusted(release, digest, verified.signers, self.keyring.digest, base="")


def _fetch_pair(fetch: Fetch, judge: _Judge, mirrors: Sequence[Mirror], missing: FetchError) -> tuple[_Found, str]:
    """Fetch Release and Release.gpg from the first mirror that has no InRelease but these."""
    failures: list[UntrustedError | FetchError] = []
    for mirror in mirrors:
        folder = _folder(mirror.url, judge.suite)
        if f"{folder}/InRelease" not in missing.absent:
            continue
        try:
            label = f"Release of {judge.archive.name} {judge.suite}"
            data, _ = fetch.document([f"{folder}/Release"], limit=MAX_DOCUMENT, label=label, accept=bytes)
            return _judge_pair(fetch, judge, f"{folder}/Release.gpg", data), mirror.url
        except (UntrustedError, FetchError) as error:
            failures.append(error)
    refused = [failure for failure in failures if isinstance(failure, UntrustedError)]
    if refused:
        raise refused[0]
    missed = [missing, *(failure for failure in failures if isinstance(failure, FetchError))]
    attempts = [attempt for failure in missed for attempt in failure.attempts]
    absent = [url for failure in missed for url in failure.absent]
    raise FetchError(missing.subject, attempts, absent, hint=missing.hint)


def _judge_pair(fetch: Fetch, judge: _Judge, url: str, data: bytes) -> _Found:
    try:
        return fetch.document(
            [url],
            limit=MAX_DOCUMENT,
            label="Release.gpg",
            accept=lambda signature: judge.pair(data, signature),
        )[0]
    except FetchError as error:
        if url not in error.absent:
            raise
        return judge.pair(data, None)


def _folder(base: str, suite: str) -> str:
    return f"{base}/{suite_folder(suite)}"


def _is_suite(release: Release, asked: str) -> bool:
    """Return whether a Release is that of the suite asked for.

    A codename counts only where the suite is not one of its parts: `jammy-updates` has the Codename `jammy`.
    `buster/updates` is how security archives were once addressed; a flat repository has no name to compare.
    """
    if asked.endswith("/"):
        return True
    name = asked.removesuffix("/updates")
    part = bool(release.codename) and release.suite.startswith(f"{release.codename}-")
    return name == release.suite or (name == release.codename and not part)


def _stale(release: Release, now: float, last: int | None, max_age_days: int | None) -> Iterator[tuple[str, str, str]]:
    """Yield (rule, name of its switch, what is wrong) for each freshness rule that a Release fails."""
    if last is not None and release.date < last:
        problem = f"has the Date {utc(release.date)}, but one of {utc(last)} was seen before: a rollback"
        yield "rollback", "rollback", problem
    if release.valid_until is not None and release.valid_until < now:
        yield "expired", "expired", f"was valid until {utc(release.valid_until)}, and {clock(now)}"
    age = (now - release.date) / DAY
    if release.valid_until is None and max_age_days and age > max_age_days:
        problem = f"has the Date {utc(release.date)}, more than {max_age_days} days ago: {clock(now)}"
        yield "age", "old", problem
