"""OpenPGP: the certificates that an archive names, and which of them signed a document.

With `sign` the only module that knows pysequoia, whose interface calls itself unstable. pysequoia has no time or policy
parameter, ignores junk around a signed message and unpacks compressed ones: what it leaves open is closed
here.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rootfsbuild.errors import UntrustedError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from typing import Protocol

    from pysequoia import Cert, Sig
    from pysequoia.packet import Packet, Tag

    class ValidSig(Protocol):
        """What pysequoia says of one good signature; both are fingerprints in lower case."""

        certificate: str
        signing_key: str


CLEARTEXT = b"-----BEGIN PGP SIGNED MESSAGE-----"
SIGNATURE = b"-----BEGIN PGP SIGNATURE-----"
MAX_DOCUMENT = 10_000_000
"""Bytes of a signed document: apt's limit for a Release file."""
MAX_KEY_FILE = 16_000_000
FUTURE = 10
"""Seconds by which another clock may be ahead of ours: apt's Max-FutureTime."""


@dataclass(frozen=True)
class Certificate:
    """One certificate that is allowed to sign."""

    fingerprint: str
    """Upper-case hexadecimal."""
    source: str
    """The file it was read from."""
    cert: Cert = field(repr=False, compare=False)


@dataclass(frozen=True)
class Keyring:
    """The certificates that are allowed to sign for an archive, in fingerprint order."""

    certificates: tuple[Certificate, ...]
    digest: str
    """SHA-256 over the certificates, in fingerprint order."""


@dataclass(frozen=True)
class Verified:
    """A document with good signatures."""

    body: bytes
    """What was signed; of an inline-signed document without the newline before its signature."""
    signers: tuple[str, ...]
    """Fingerprints of the certificates whose signatures were good, sorted."""


def load_keyring(keys: Sequence[tuple[str, str]]) -> Keyring:
    """Read certificates, binary or armored, one or several to a file, from (pinned fingerprint or "", path).

    With a fingerprint only that certificate is taken from the file, and it must be there. Raises
    UntrustedError (rule `key`) for a file that is missing, unreadable, no certificate or another one.
    """
    found: dict[str, Certificate] = {}
    for pin, path in keys:
        for certificate in _pinned(_read_certificates(path), pin, path):
            known, cert = found.get(certificate.fingerprint), certificate.cert
            if known is not None:
                cert = known.cert.merge(certificate.cert)
            found[certificate.fingerprint] = Certificate(certificate.fingerprint, path, cert)
    certificates = tuple(found[fingerprint] for fingerprint in sorted(found))
    digest = hashlib.sha256(b"".join(bytes(certificate.cert) for certificate in certificates)).hexdigest()
    return Keyring(certificates, digest)


def verify_inline(
    data: bytes, keyring: Keyring, now: float, *, threshold: int = 1, subject: str = "InRelease"
) -> Verified:
    """Verify a cleartext-signed document at the time `now` (seconds since the epoch).

    `threshold` is how many different certificates must have signed. Raises UntrustedError.
    """
    if len(data) > MAX_DOCUMENT:
        raise UntrustedError(subject, "size", f"has {len(data)} bytes, more than {MAX_DOCUMENT}")
    if data.partition(b"\n")[0].rstrip(b"\r") != CLEARTEXT:
        raise UntrustedError(subject, "malformed", f"does not begin with {CLEARTEXT.decode()}")
    try:
        body, good = _signatures(data, None, keyring, subject)
    except UntrustedError as error:
        block = data[max(data.rfind(SIGNATURE), 0) :]
        raise _of_the_clock(error, _packets(block, subject), now) from None
    return Verified(body, _accepted(good, keyring, now, threshold, subject))


def verify_detached(
    data: bytes,
    signature: bytes,
    keyring: Keyring,
    now: float,
    *,
    threshold: int = 1,
    subject: str = "Release",
) -> Verified:
    """Verify a document with its detached signature, in which several may stand one after the other."""
    if len(data) > MAX_DOCUMENT or len(signature) > MAX_DOCUMENT:
        raise UntrustedError(subject, "size", f"or its signature has more than {MAX_DOCUMENT} bytes")
    if not signature.lstrip().startswith(SIGNATURE):
        raise UntrustedError(f"{subject}.gpg", "malformed", f"does not begin with {SIGNATURE.decode()}")

    good: list[ValidSig] = []
    refusals: list[UntrustedError] = []
    for packet in _packets(signature, f"{subject}.gpg"):
        try:
            good += _signatures(data, _signature(packet, f"{subject}.gpg"), keyring, subject)[1]
        except UntrustedError as error:
            refusals.append(_of_the_clock(error, [packet], now))
    if not good:
        raise refusals[0] if refusals else UntrustedError(subject, "signature", "carries no signature")
    return Verified(data, _accepted(good, keyring, now, threshold, subject))


def verify_package(data: bytes, signature: bytes, keyring: Keyring, now: float, *, subject: str) -> tuple[str, ...]:
    """Verify what a package's detached signatures cover, and return the fingerprints of those who made them, sorted.

    `signature` holds one or several, binary or armored. The rules are those of `verify_detached`, but for two. A
    key must have been valid *when it signed*: packages are signed once and stay in a repository for years, longer
    than many keys do; that they are still the right ones is what the metadata says, which is signed anew. (Who
    has an expired key can give a signature an older date: expiry protects from that nowhere, revocation does.)
    And every signature by an allowed key must be good, while those by others count for nothing. Raises
    UntrustedError: rule `key` where none is by an allowed key that could sign then, `signature` where one is bad,
    `future` and `malformed`.
    """
    signers: set[str] = set()
    strangers: set[str] = set()
    packets = _packets(signature, subject)
    if not packets:
        raise UntrustedError(subject, "malformed", "holds no OpenPGP signature")
    for packet in packets:
        issuer = (packet.issuer_fingerprint or packet.issuer_key_id or "").upper()
        if not any(issuer in _key_ids(certificate.cert) for certificate in keyring.certificates):
            strangers.add(issuer or "an unnamed key")
            continue
        try:
            good = _signatures(data, _signature(packet, subject), keyring, subject)[1]
        except UntrustedError as error:
            raise _of_the_clock(error, [packet], now) from None
        signers.update(_accepted(good, keyring, now, 1, subject, made=_made(packet)))
    if not signers:
        problem = f"is signed by {', '.join(sorted(strangers))}, and none of these keys is allowed to sign here"
        hint = "name the archive's keys in the recipe; --allow=unsigned skips this check"
        raise UntrustedError(subject, "key", problem, hint=hint)
    return tuple(sorted(signers))


def _signatures(data: bytes, signature: Sig | None, keyring: Keyring, subject: str) -> tuple[bytes, list[ValidSig]]:
    """Return what was signed and the good signatures, as pysequoia sees them."""
    import pysequoia  # noqa: PLC0415 - loaded only where something is verified

    certs = [certificate.cert for certificate in keyring.certificates]
    wanted: list[str] = []

    def look_up(ids: list[str]) -> list[Cert]:
        wanted.extend(ids)
        return certs

    try:
        verdict = pysequoia.verify(bytes=data, store=look_up, signature=signature)
    except RuntimeError as error:
        problem = _first_line(error)
        if wanted and not any(key in _key_ids(cert) for cert in certs for key in map(str.upper, wanted)):
            names = ", ".join(sorted({key.upper() for key in wanted}))
            problem = f"is signed by {names}, and none of these keys is allowed to sign here"
            hint = "name the archive's keys in the recipe; --allow=unsigned skips this check"
            raise UntrustedError(subject, "signature", problem, hint=hint) from None
        raise UntrustedError(subject, "signature", problem, hint="--allow=unsigned skips this check") from None
    return verdict.bytes or b"", verdict.valid_sigs


def _accepted(
    good: Sequence[ValidSig],
    keyring: Keyring,
    now: float,
    threshold: int,
    subject: str,
    *,
    made: float | None = None,
) -> tuple[str, ...]:
    """Return the signers that count: allowed, not revoked, neither key nor subkey expired at `now`, or when it signed.

    Who signed at `made` must have been able to then; None asks for now.
    """
    allowed = {certificate.fingerprint: certificate for certificate in keyring.certificates}
    signers, refused = set(), []
    for signature in good:
        certificate = allowed.get(signature.certificate.upper())
        if certificate is None:
            refused.append(f"{signature.certificate.upper()} is not allowed to sign here")
            continue
        problem = _unfit(certificate, signature.signing_key, now, made)
        if problem:
            refused.append(f"{certificate.fingerprint} {problem}")
        else:
            signers.add(certificate.fingerprint)
    if len(signers) < max(threshold, 1):
        counted = f"has {len(signers)} of the {threshold} signatures that are required" if threshold > 1 else ""
        problem = "; ".join(filter(None, [counted, *sorted(set(refused))])) or "carries no good signature"
        rule = "key" if refused else "signature"
        raise UntrustedError(subject, rule, problem, hint="the archive's keys may have been replaced by newer ones")
    return tuple(sorted(signers))


def _unfit(certificate: Certificate, signing_key: str, now: float, made: float | None = None) -> str:
    """Return why a certificate must not be believed at `now`, or when it signed; empty when it may."""
    cert = certificate.cert
    if cert.is_revoked:
        return "is revoked"
    ends = [cert.expiration] if cert.expiration is not None else []
    ends += _subkey_ends(cert, signing_key)
    end = min(ends).timestamp() if ends else None
    if end is not None and made is not None and end < made:
        return f"expired on {utc(end)}, before it signed on {utc(made)}"
    if end is not None and made is None and end < now:
        return f"expired on {utc(end)}, while {clock(now)}"
    return ""


def _subkey_ends(cert: Cert, fingerprint: str) -> list[datetime]:
    """Return when a signing subkey expires, by its latest binding (RFC 9580, 5.2.3.13); empty for never."""
    from pysequoia.packet import SignatureType, Tag  # noqa: PLC0415 - loaded only where something is verified

    made, binding = None, None
    for packet in _packets(bytes(cert), cert.fingerprint, (Tag.PublicSubkey, Tag.Signature)):
        if packet.tag == Tag.PublicSubkey:
            made = packet.key_created if packet.fingerprint == fingerprint else None
        elif made and packet.signature_type == SignatureType.SubkeyBinding:
            newer = binding is None or _made(packet) >= _made(binding)
            binding = packet if newer else binding
            end = made
    if binding is None or not binding.key_validity_period:
        return []
    return [end + binding.key_validity_period]


def _of_the_clock(error: UntrustedError, signatures: Sequence[Packet], now: float) -> UntrustedError:
    """Return a refusal, or, of a signature from the future, the cause that is more likely: the clock."""
    latest = max(map(_made, signatures), default=0.0)
    if latest <= now + FUTURE:
        return error
    problem = f"was signed on {utc(latest)}, which is in the future: {clock(now)}"
    return UntrustedError(error.subject, "future", problem, hint="set this machine's clock")


def _packets(data: bytes, subject: str, tags: Sequence[Tag] = ()) -> list[Packet]:
    from pysequoia.packet import PacketPile, Tag  # noqa: PLC0415 - loaded only where something is verified

    try:
        return [packet for packet in PacketPile.from_bytes(data) if packet.tag in (tags or (Tag.Signature,))]
    except RuntimeError as error:
        raise UntrustedError(subject, "malformed", f"is no OpenPGP: {_first_line(error)}") from None


def _signature(packet: Packet, subject: str) -> Sig:
    import pysequoia  # noqa: PLC0415 - loaded only where something is verified

    try:
        return pysequoia.Sig.from_bytes(bytes(packet))
    except RuntimeError as error:
        raise UntrustedError(subject, "malformed", f"is no signature: {_first_line(error)}") from None


def _made(packet: Packet) -> float:
    return packet.signature_created.timestamp() if packet.signature_created else 0.0


def _key_ids(cert: Cert) -> set[str]:
    """Return fingerprints and key ids of a certificate's keys, upper-case."""
    from pysequoia.packet import Tag  # noqa: PLC0415 - loaded only where something is verified

    keys = _packets(bytes(cert), cert.fingerprint, (Tag.PublicKey, Tag.PublicSubkey))
    fingerprints = {key.fingerprint.upper() for key in keys if key.fingerprint}
    return fingerprints | {fingerprint[-16:] for fingerprint in fingerprints}


def _pinned(certificates: Sequence[Certificate], pin: str, path: str) -> list[Certificate]:
    wanted = re.sub(r"\s", "", pin).upper().removeprefix("0X")
    if not wanted:
        return list(certificates)
    if not re.fullmatch(r"[0-9A-F]{40}|[0-9A-F]{64}", wanted):
        hint = "a short key id can be forged: give all 40 hexadecimal digits"
        raise UntrustedError(path, "key", f"{pin!r} is not a fingerprint", hint=hint)
    found = [certificate for certificate in certificates if certificate.fingerprint == wanted]
    if not found:
        held = ", ".join(certificate.fingerprint for certificate in certificates)
        raise UntrustedError(path, "key", f"holds {held}, but {wanted} is required")
    return found


def _read_certificates(path: str) -> list[Certificate]:
    import pysequoia  # noqa: PLC0415 - loaded only where something is verified

    hint = "keys are files with OpenPGP certificates, binary or armored"
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise UntrustedError(path, "key", "is not a regular file")
            data = file.read(MAX_KEY_FILE + 1)
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
        raise UntrustedError(path, "key", problem, hint=hint) from error
    try:
        certs = pysequoia.Cert.split_bytes(data) if len(data) <= MAX_KEY_FILE else []
    except RuntimeError as error:
        problem = f"holds no usable OpenPGP certificate: {_first_line(error)}"
        raise UntrustedError(path, "key", problem, hint=hint) from None
    if not certs:
        raise UntrustedError(path, "key", "holds no OpenPGP certificate", hint=hint)
    return [Certificate(cert.fingerprint.upper(), path, cert) for cert in certs]


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].strip() or type(error).__name__


def utc(seconds: float) -> str:
    """Return a moment as people read it, in UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def clock(now: float) -> str:
    """Return what this machine takes the time to be, for errors that a wrong clock can cause."""
    return f"this machine's clock says {utc(now)}"
