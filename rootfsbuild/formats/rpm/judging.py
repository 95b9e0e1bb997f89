"""Whether a repomd.xml is to be believed: its signature, metalink or lock, its age and its forerunners."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from rootfsbuild import events
from rootfsbuild.errors import FetchError, UntrustedError
from rootfsbuild.formats.rpm.repomd import Repomd, parse_repomd
from rootfsbuild.repository.signed import METALINK, REPOMD, REPOMD_SIGNATURE
from rootfsbuild.repository.trust import FUTURE, clock, utc, verify_detached

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rootfsbuild.formats.rpm.metalink import Metalink
    from rootfsbuild.repository.trust import Keyring

DAY = 86400

_HINT = "name its keys, or its metalink with https, in the archive; --allow=unsigned accepts it all the same"


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
class Found:
    """What was believed, and the documents that it was read from, by their paths in the repository."""

    repomd: Repomd
    sha256: str
    by: str
    signers: tuple[str, ...]
    vouchers: tuple[str, ...]
    """What its timestamp is remembered under where nobody signed it."""
    documents: dict[str, bytes]


@dataclass(frozen=True)
class Judge:
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

    def judge(self, data: bytes, signature: Callable[[], bytes | None]) -> Found:
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

    def _by_metalink(self, data: bytes) -> Found | None:
        listed = self.metalink.prove(data) if self.metalink and self.archive.threshold <= 1 else None
        if self.metalink is None or listed is None:
            return None
        if listed != self.metalink.accepted[0]:
            self.report(events.Detail(f"{self.subject} is an older one, which its metalink still accepts"))
        return self._found(data, "metalink", vouchers=(self.metalink_key,), beside={METALINK: self.metalink_body})

    def _by_signature(self, data: bytes, get_signature: Callable[[], bytes | None]) -> Found:
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

    def _signed(self, data: bytes, signature: bytes | None) -> Found:
        if signature is None:
            raise UntrustedError(self.subject, "signature", self._unproven(), hint=_HINT)
        threshold, subject = self.archive.threshold, self.subject
        try:
            verified = verify_detached(data, signature, self.keyring, self.now, threshold=threshold, subject=subject)
        except UntrustedError as error:
            # verify_detached calls a signature by Debian's ending.
            name = error.subject.replace(f"{subject}.gpg", f"the signature of {subject}")
            raise UntrustedError(name, error.rule, error.problem, hint=error.hint) from None
        except RuntimeError as error:  # pysequoia's, of a packet that says it is a signature and is none
            problem = f"is no OpenPGP: {str(error).partition(chr(10))[0]}"
            raise UntrustedError(f"the signature of {subject}", "malformed", problem) from None
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
    ) -> Found:
        documents = {REPOMD: data, **(beside or {})}
        digest = hashlib.sha256(data).hexdigest()
        return Found(parse_repomd(data, self.subject), digest, by, signers, vouchers, documents)


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


def _stale(date: int, now: float, last: int | None, max_age_days: int | None) -> Iterator[tuple[str, str, str]]:
    """Yield (rule, name of its switch, what is wrong) for each freshness rule that a timestamp fails."""
    if last is not None and date < last:
        problem = f"has the timestamp {utc(date)}, but one of {utc(last)} was seen before: a rollback"
        yield "rollback", "rollback", problem
    if max_age_days and (now - date) / DAY > max_age_days:
        yield "age", "old", f"has the timestamp {utc(date)}, more than {max_age_days} days ago: {clock(now)}"
