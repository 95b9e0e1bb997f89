"""Throw-away OpenPGP keys and what they sign."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pysequoia
from pysequoia.packet import PacketPile, Tag


@dataclass(frozen=True)
class Key:
    secret: pysequoia.Tsk

    @property
    def certificate(self):
        return self.secret.extract_certificate()

    @property
    def fingerprint(self):
        return self.certificate.fingerprint.upper()

    def write(self, path, *, armored=False):
        Path(path).write_bytes(str(self.certificate).encode() if armored else bytes(self.certificate))
        return str(path)

    def sign(self, data):
        """Return an InRelease."""
        return bytes(pysequoia.sign(self.secret.signer(), data, mode=pysequoia.SignatureMode.CLEAR))

    def detach(self, data):
        """Return a Release.gpg."""
        return bytes(pysequoia.sign(self.secret.signer(), data, mode=pysequoia.SignatureMode.DETACHED))

    def message(self, data):
        """Return a signed OpenPGP message that is not in cleartext."""
        return bytes(pysequoia.sign(self.secret.signer(), data, mode=pysequoia.SignatureMode.INLINE))


def make_key(name="Archive <archive@example.org>", **options):
    return Key(pysequoia.Tsk.generate(name, **options))


def sign_together(keys, data):
    """Return an InRelease that several keys have signed."""
    signed = [key.sign(data) for key in keys]
    text, mark, _ = signed[0].partition(b"-----BEGIN PGP SIGNATURE-----")
    blocks = [mark + document.partition(mark)[2] for document in signed]
    return text + together(blocks)


def together(blocks):
    """Return one armored block that holds the signatures of several."""
    packets = b"".join(
        bytes(packet) for block in blocks for packet in PacketPile.from_bytes(block) if packet.tag == Tag.Signature
    )
    armored = str(pysequoia.armor(packets, pysequoia.ArmorKind.Signature)).encode()
    return re.sub(rb"\r", b"", armored).strip() + b"\n"
