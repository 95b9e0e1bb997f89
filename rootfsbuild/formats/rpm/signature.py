"""What stands before a package's payload, and whether it is to be believed (rpm's documentation: lead, signature).

A package is lead, signature header, header, payload. Nothing covers the lead and the signature header but the
digest in the repository's metadata; what they say is checked as far as it says anything. Everything that is used
afterwards comes from the header, and the header holds the payload's digest: both are always checked.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rootfsbuild.errors import PackageError, UntrustedError
from rootfsbuild.events import Report, Warned, ignore
from rootfsbuild.formats.rpm import tags
from rootfsbuild.formats.rpm.files import ALGORITHMS
from rootfsbuild.formats.rpm.header import INTRO, MAIN, SIGNATURE, Header, Limits, Type, measure, parse_header
from rootfsbuild.repository.trust import Keyring, verify_package

if TYPE_CHECKING:
    from hashlib import _Hash

LEAD = 96
"""Bytes of the lead."""
CHUNK = 1 << 18
_LEAD = struct.Struct(">4sBBHH66sHH16s")
_BINARY, _HEADER_SIGNATURE = 0, 5
_WEAK = {"md5", "sha1", "sha224"}
_MOST_SIGNATURES = 32
_MOST_LEGACY = 1 << 32
"""Bytes under a signature over header and payload, which is verified in memory; rpm's sizes of that age end here."""

_OF_HEADER = (tags.OPENPGP, tags.RSAHEADER, tags.DSAHEADER)
_OF_ALL = (tags.SIG_PGP, tags.SIG_GPG, tags.SIG_PGP5)
"""Signatures over header and payload, as rpm 3 made them."""
_DIGESTS = {tags.SHA256HEADER: "sha256", tags.SHA3_256HEADER: "sha3_256", tags.SHA1HEADER: "sha1"}
_TYPES = {
    tags.HEADERSIGNATURES: Type.BIN,
    tags.BADSHA1_1: Type.STRING,
    tags.BADSHA1_2: Type.STRING,
    tags.PUBKEYS: Type.STRING_ARRAY,
    tags.DSAHEADER: Type.BIN,
    tags.RSAHEADER: Type.BIN,
    tags.SHA1HEADER: Type.STRING,
    tags.LONGSIGSIZE: Type.INT64,
    tags.LONGARCHIVESIZE: Type.INT64,
    tags.SHA256HEADER: Type.STRING,
    tags.FILESIGNATURES: Type.STRING_ARRAY,
    tags.FILESIGNATURELENGTH: Type.INT32,
    tags.VERITYSIGNATURES: Type.STRING_ARRAY,
    tags.VERITYSIGNATUREALGO: Type.INT32,
    tags.OPENPGP: Type.STRING_ARRAY,
    tags.SHA3_256HEADER: Type.STRING,
    tags.SIG_RESERVED: Type.BIN,
    tags.SIG_SIZE: Type.INT32,
    tags.SIG_LEMD5_1: Type.BIN,
    tags.SIG_PGP: Type.BIN,
    tags.SIG_LEMD5_2: Type.BIN,
    tags.SIG_MD5: Type.BIN,
    tags.SIG_GPG: Type.BIN,
    tags.SIG_PGP5: Type.BIN,
    tags.SIG_PAYLOADSIZE: Type.INT32,
    tags.SIG_RESERVEDSPACE: Type.BIN,
}
"""All that rpm ever wrote there (rpmtag.h)."""


@dataclass(frozen=True)
class Head:
    """What stands before a package's payload, well-formed but not yet verified."""

    label: str
    signature: Header
    header: Header
    start: int
    """Where the payload begins, bytes."""
    end: int
    """Where it and the file end."""

    @property
    def signed(self) -> bytes:
        """Return the bytes of the header that digests and signatures cover."""
        return self.header.intro + self.header.data


def read_head(fd: int, label: str) -> Head:
    """Read lead, signature header and header of the package open as `fd`; raises PackageError.

    The header must be one region: what an installation adds behind it has no place in a package.
    """
    size = os.fstat(fd).st_size
    check_lead(os.pread(fd, LEAD, 0), label)
    signature, at = _read_header(fd, LEAD, size, SIGNATURE, label, tags.HEADERSIGNATURES)
    padding = os.pread(fd, -at % 8, at)
    if padding.strip(b"\0"):
        raise PackageError(label, "the padding behind the signature header is not zeros")
    _check_signature_header(signature)
    header, at = _read_header(fd, at + -at % 8, size, MAIN, label, tags.HEADERIMMUTABLE)
    first = header.items[0]
    if header.region != len(header.items) or first.offset + first.length != len(header.store):
        raise PackageError(label, "the header is not one immutable region")
    if tags.SOURCERPM not in header or tags.SOURCEPACKAGE in header:
        raise PackageError(label, "it is a source package")
    return Head(label, signature, header, at, size)


def check_lead(lead: bytes, label: str) -> None:
    """Check the first 96 bytes; raises PackageError.

    The name and the numbers of machine and system in it have meant nothing since rpm 3, and are not looked at.
    """
    if len(lead) < LEAD:
        raise PackageError(label, "it is too short for a package")
    magic, major, minor, kind, _machine, name, _system, signature, reserved = _LEAD.unpack(lead)
    if magic != b"\xed\xab\xee\xdb":
        raise PackageError(label, "it does not begin as a package does")
    if major not in {3, 4} or minor or kind != _BINARY or signature != _HEADER_SIGNATURE:
        raise PackageError(label, f"its lead tells of version {major}.{minor}, type {kind}, signature {signature}")
    if reserved.strip(b"\0") or name.partition(b"\0")[2].strip(b"\0") or b"\0" not in name:
        raise PackageError(label, "its lead has something where nothing should be")


def check(
    fd: int,
    head: Head,
    *,
    keyring: Keyring | None,
    now: float,
    relax: Collection[str] = (),
    report: Report = ignore,
) -> tuple[str, ...]:
    """Verify the package open as `fd`; return the fingerprints of the certificates whose signatures were good.

    Always: a digest of the header of SHA-256 or better, or a good signature over it; and such a digest of the
    payload in the header, or a good signature over both. Every other digest that is there must be right, too.
    With a keyring there must be a good signature by one of its certificates that could sign when it did (see
    `verify_package`), and none by them that is bad; `unsigned` in `relax` accepts a package without one, which is
    reported. Without a keyring signatures are not looked at: the trust is then in the metadata, which names the
    file's digest. Reads the payload once. Raises PackageError for digests, UntrustedError for signatures.
    """
    good: Mapping[int, tuple[str, ...]] = {}
    if keyring is not None:
        good, refusals = _verify_signatures(fd, head, keyring, now)
        if not good:
            _accept_unsigned(head, refusals, relax, report)
    if not _check_digests(head) and not good:
        raise PackageError(head.label, "the header has neither a digest nor a verified signature", hint=_HINT)
    _check_payload(fd, head, needed=not any(tag in good for tag in _OF_ALL))
    return tuple(sorted({signer for signers in good.values() for signer in signers}))


_UNSIGNED = "--allow=unsigned skips this check"
_HINT = "packages made by rpm before 4.14 need signatures: name the archive's keys in the recipe"


def _read_header(fd: int, at: int, size: int, limits: Limits, label: str, region: int) -> tuple[Header, int]:
    length = measure(os.pread(fd, INTRO, at), label, limits)
    if at + length > size:
        raise PackageError(label, "the header is truncated")
    return parse_header(os.pread(fd, length, at), label, limits, region=region)[0], at + length


def _check_signature_header(signature: Header) -> None:
    for item in signature.items:
        if item.tag not in _TYPES:
            raise PackageError(signature.label, f"its signature header has the unknown tag {item.tag}")
        if item.type is not _TYPES[item.tag]:
            raise PackageError(signature.label, f"its signature header's tag {item.tag} is of the type {item.type}")
        if item.type in {Type.INT32, Type.INT64} and item.count != 1:
            raise PackageError(signature.label, f"its signature header's tag {item.tag} holds {item.count} numbers")
    for tag in (tags.SIG_RESERVED, tags.SIG_RESERVEDSPACE):
        if signature.binary(tag).strip(b"\0"):
            raise PackageError(signature.label, "the reserved space in its signature header is not zeros")


def _check_digests(head: Head) -> bool:
    """Check the digests of the header, and the size of header and payload; tell whether one is strong."""
    for tag, name in _DIGESTS.items():
        if tag in head.signature:
            actual = hashlib.new(name, head.signed, usedforsecurity=False).hexdigest()
            if head.signature.text(tag) != actual:
                raise PackageError(head.label, f"the {name} digest of its header is wrong")
    size = head.end - head.start + len(head.signed)
    for tag in (tags.SIG_SIZE, tags.LONGSIGSIZE):
        if head.signature.number(tag, size) != size:
            raise PackageError(
                head.label, f"it has {size} bytes of header and payload, not {head.signature.number(tag)}"
            )
    return any(tag in head.signature for tag, name in _DIGESTS.items() if name not in _WEAK)


def _check_payload(fd: int, head: Head, *, needed: bool) -> None:
    promised = _payload_digest(head.header)
    if promised is None and needed:
        problem = "the header has no digest of the payload, and no verified signature covers it"
        raise PackageError(head.label, problem, hint=_HINT)
    digests: dict[str, tuple[_Hash, str]] = {}
    if promised is not None:
        digests["payload"] = (hashlib.new(promised[0]), promised[1])
    if tags.SIG_MD5 in head.signature:
        md5 = hashlib.md5(head.signed, usedforsecurity=False)
        digests["header and payload"] = (md5, head.signature.binary(tags.SIG_MD5).hex())
    for chunk in read_payload(fd, head):
        for digest, _ in digests.values():
            digest.update(chunk)
    for what, (digest, expected) in digests.items():
        if digest.hexdigest() != expected:
            raise PackageError(head.label, f"the {digest.name} digest of its {what} is wrong")


def _payload_digest(header: Header) -> tuple[str, str] | None:
    """Return algorithm and value of the digest of the compressed payload, None without a strong one."""
    name = ALGORITHMS.get(header.number(tags.PAYLOADDIGESTALGO, 8), "")
    for tag, algorithm in (
        (tags.PAYLOADDIGEST, name),
        (tags.PAYLOADSHA512, "sha512"),
        (tags.PAYLOADSHA3_256, "sha3_256"),
    ):
        if tag in header and algorithm and algorithm not in _WEAK:
            return algorithm, header.text(tag)
    return None


def read_payload(fd: int, head: Head) -> Iterator[bytes]:
    """Yield the compressed payload; PackageError if the file has become shorter."""
    at = head.start
    while at < head.end:
        data = os.pread(fd, min(CHUNK, head.end - at), at)
        if not data:
            raise PackageError(head.label, "the payload is truncated")
        yield data
        at += len(data)


def _verify_signatures(
    fd: int, head: Head, keyring: Keyring, now: float
) -> tuple[Mapping[int, tuple[str, ...]], Sequence[UntrustedError]]:
    """Return who made the good signatures, by their tags, and why others count for nothing.

    Raises UntrustedError where one is bad.
    """
    good: dict[int, tuple[str, ...]] = {}
    refusals: list[UntrustedError] = []
    for tag in (*_OF_HEADER, *_OF_ALL):
        signatures = _signatures(head, tag)
        covered = b"" if not signatures else head.signed if tag in _OF_HEADER else _whole(fd, head)
        for signature in signatures:
            try:
                signers = verify_package(covered, signature, keyring, now, subject=head.label)
            except UntrustedError as error:
                if error.rule != "key":
                    raise
                refusals.append(error)
            else:
                good[tag] = (*good.get(tag, ()), *signers)
    return good, refusals


def _signatures(head: Head, tag: int) -> list[bytes]:
    """Return the signatures in one tag of the signature header."""
    if tag != tags.OPENPGP:
        return [head.signature.binary(tag)] if tag in head.signature else []
    texts = head.signature.strings(tag)
    if len(texts) > _MOST_SIGNATURES:
        raise UntrustedError(head.label, "size", f"carries {len(texts)} signatures, more than {_MOST_SIGNATURES}")
    try:
        return [base64.b64decode(b"".join(text.split()), validate=True) for text in texts]
    except binascii.Error:
        raise UntrustedError(head.label, "malformed", "carries a signature that is not base64") from None


def _whole(fd: int, head: Head) -> bytes:
    """Return header and payload, which the oldest kind of signature covers."""
    if head.end - head.start > _MOST_LEGACY:
        raise UntrustedError(head.label, "size", f"has a signature over more than {_MOST_LEGACY} bytes")
    return b"".join([head.signed, *read_payload(fd, head)])


def _accept_unsigned(head: Head, refusals: Sequence[UntrustedError], relax: Collection[str], report: Report) -> None:
    refusal = (
        refusals[0] if refusals else UntrustedError(head.label, "signature", "carries no signature", hint=_UNSIGNED)
    )
    if "unsigned" not in relax:
        raise refusal
    report(Warned(f"{refusal}; accepted, because unsigned packages are allowed", weakens="unsigned"))
