"""OpenPGP signatures of our own, by a key that the user names.

Besides `trust` the only module that knows pysequoia. What a key cannot sign with is found when it is read, before
anything is made that would want a signature.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rootfsbuild.errors import UntrustedError, UsageError

if TYPE_CHECKING:
    from pysequoia import Cert, PySigner, SignatureMode, Tsk

_MAX_KEY = 1_000_000
_EXPORT = "gpg --export-secret-keys --armor KEY > FILE writes such a file"
_BARE = "make a key without a passphrase for this, or export one: gpg --change-passphrase KEY, then " + _EXPORT


@dataclass(frozen=True)
class Signer:
    """A secret key that signs documents."""

    fingerprint: str
    """Upper-case hexadecimal."""
    certificate: bytes = field(repr=False)
    """Its public part, binary (RFC 9580)."""
    source: str
    """The file it was read from."""
    key: PySigner = field(repr=False, compare=False)

    def sign_inline(self, text: bytes) -> bytes:
        """Return a document as cleartext with its signature (RFC 9580, 7); `text` ends in a newline."""
        import pysequoia  # noqa: PLC0415 - loaded only where something is signed

        return self._sign(text, pysequoia.SignatureMode.CLEAR)

    def sign_detached(self, data: bytes) -> bytes:
        """Return an armored signature of `data`."""
        import pysequoia  # noqa: PLC0415 - loaded only where something is signed

        return self._sign(data, pysequoia.SignatureMode.DETACHED)

    def _sign(self, data: bytes, mode: SignatureMode) -> bytes:
        import pysequoia  # noqa: PLC0415 - loaded only where something is signed

        try:
            return bytes(pysequoia.sign(self.key, data, mode=mode))
        except RuntimeError as error:
            raise UsageError(f"{self.source}: cannot sign: {_first_line(error)}") from None


def load_signer(path: str) -> Signer:
    """Read one secret key that can sign, binary or armored, and not locked by a passphrase.

    The secret part of the primary key may be absent when a subkey can sign. Raises UsageError.
    """
    data = _read(path)
    tsk = _parse(data, path)
    try:
        key = tsk.signer()
    except RuntimeError as error:
        problem = _first_line(error)
        if "encrypted" in problem:
            raise UsageError(f"{path}: the key is locked by a passphrase", hint=_BARE) from None
        hint = "it needs a key or subkey for signing that is neither expired nor revoked"
        raise UsageError(f"{path}: {problem[:1].lower()}{problem[1:]}", hint=hint) from None
    certificate = tsk.extract_certificate()
    if certificate.is_revoked:
        raise UsageError(f"{path}: the key {certificate.fingerprint.upper()} is revoked")
    return Signer(certificate.fingerprint.upper(), bytes(certificate), path, key)


def binary_certificates(data: bytes, source: str) -> bytes:
    """Return certificates, binary or armored, one or several, as the binary keyring that gpgv(1) and apt read.

    Secret parts are left out, and what is there twice is joined. `source` names them in errors. Raises
    UntrustedError (rule `key`).
    """
    import pysequoia  # noqa: PLC0415 - loaded only where something is signed

    try:
        found = pysequoia.Cert.split_bytes(data)
    except RuntimeError as error:
        problem = f"holds no usable OpenPGP certificate: {_first_line(error)}"
        raise UntrustedError(source, "key", problem) from None
    if not found:
        raise UntrustedError(source, "key", "holds no OpenPGP certificate")
    merged: dict[str, Cert] = {}
    for cert in found:
        known = merged.get(cert.fingerprint)
        merged[cert.fingerprint] = cert if known is None else known.merge(cert)
    return b"".join(bytes(merged[fingerprint]) for fingerprint in sorted(merged))


def _read(path: str) -> bytes:
    try:
        # Not blocking: opening a fifo would wait for a writer.
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise UsageError(f"{path}: is not a regular file", hint=_EXPORT)
            data = file.read(_MAX_KEY + 1)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}", hint=_EXPORT) from None
    if len(data) > _MAX_KEY:
        raise UsageError(f"{path}: is too large for a key: more than {_MAX_KEY} bytes", hint=_EXPORT)
    return data


def _parse(data: bytes, path: str) -> Tsk:
    import pysequoia  # noqa: PLC0415 - loaded only where something is signed
    from pysequoia.packet import PacketPile, Tag  # noqa: PLC0415 - the same

    try:
        tags = [packet.tag for packet in PacketPile.from_bytes(data)]
        secret, public = tags.count(Tag.SecretKey), tags.count(Tag.PublicKey)
        if secret + public > 1:
            hint = f"which of them is to sign? {_EXPORT}"
            raise UsageError(f"{path}: holds {secret + public} keys", hint=hint)
        if public:
            raise UsageError(f"{path}: holds only the public part of a key", hint=_EXPORT)
        return pysequoia.Tsk.from_bytes(data)
    except RuntimeError as error:
        raise UsageError(f"{path}: holds no OpenPGP key: {_first_line(error)}", hint=_EXPORT) from None


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].strip() or type(error).__name__
