from __future__ import annotations

import time

import pysequoia
import pytest
from making.keys import make_key
from pysequoia.packet import PacketPile, Tag

from rootfsbuild.errors import UntrustedError, UsageError
from rootfsbuild.formats.deb.cleartext import split_inrelease
from rootfsbuild.repository.sign import binary_certificates, load_signer
from rootfsbuild.repository.trust import load_keyring, verify_detached, verify_inline

TEXT = b"Origin: Us\nSHA256:\n abc 1 main/Packages\n"
SECRET = (Tag.SecretKey, Tag.SecretSubkey)


@pytest.fixture
def key():
    return make_key("Us <us@example.org>")


def write(path, data):
    path.write_bytes(data)
    return str(path)


def refused(path):
    with pytest.raises(UsageError) as caught:
        load_signer(path)
    assert path in str(caught.value)
    return caught.value


@pytest.mark.parametrize("armored", [False, True])
def test_what_is_signed_verifies_with_the_certificate_alone(tmp_path, key, armored):
    secret = str(key.secret).encode() if armored else bytes(key.secret)
    signer = load_signer(write(tmp_path / "secret", secret))
    assert signer.fingerprint == key.fingerprint
    keyring = load_keyring([(key.fingerprint, write(tmp_path / "public.gpg", signer.certificate))])
    document = signer.sign_inline(TEXT)
    assert verify_inline(document, keyring, time.time()).signers == (key.fingerprint,)
    assert split_inrelease(document).strip() == TEXT.strip()
    assert verify_detached(TEXT, signer.sign_detached(TEXT), keyring, time.time()).signers == (key.fingerprint,)


def test_the_certificate_holds_no_secret(tmp_path, key):
    signer = load_signer(write(tmp_path / "secret", bytes(key.secret)))
    tags = [packet.tag for packet in PacketPile.from_bytes(signer.certificate)]
    assert Tag.PublicSubkey in tags
    assert not any(tag in SECRET for tag in tags)


def test_a_key_is_never_shown(tmp_path, key):
    assert "PySigner" not in repr(load_signer(write(tmp_path / "secret", bytes(key.secret))))


def test_a_public_key_cannot_sign(tmp_path, key):
    error = refused(write(tmp_path / "public", bytes(key.certificate)))
    assert "only the public part" in str(error)
    assert "--export-secret-keys" in error.hint


def test_one_key_to_a_file(tmp_path, key):
    assert "holds 2 keys" in str(refused(write(tmp_path / "two", bytes(key.secret) + bytes(make_key().secret))))


@pytest.mark.parametrize("data", [b"", b"no key", b"-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nAAAA\n", b"x" * 1_000_001])
def test_no_key_at_all(tmp_path, data):
    assert refused(write(tmp_path / "what", data)).hint


def test_a_file_that_is_none(tmp_path):
    assert "No such file" in str(refused(str(tmp_path / "none")))
    assert "directory" in str(refused(str(tmp_path)))
    assert "regular" in str(refused("/dev/null"))


def test_certificates_become_one_binary_keyring(key):
    other = make_key()
    expected = b"".join(bytes(one.certificate) for one in sorted((key, other), key=lambda one: one.fingerprint))
    armored = str(key.certificate).encode() + str(other.certificate).encode()
    assert binary_certificates(armored, "keys") == expected
    assert binary_certificates(bytes(other.certificate) + bytes(key.certificate), "keys") == expected


def test_a_certificate_that_is_there_twice_is_joined(key):
    once, other = bytes(key.certificate), bytes(make_key().certificate)
    assert binary_certificates(once + other + once, "keys") == binary_certificates(other + once, "keys")


def test_certificates_without_their_secrets(key):
    assert binary_certificates(bytes(key.secret), "keys") == bytes(key.certificate)


@pytest.mark.parametrize("data", [b"", b"no key"])
def test_no_certificate_at_all(data):
    with pytest.raises(UntrustedError, match="the keys of debian") as caught:
        binary_certificates(data, "the keys of debian")
    assert caught.value.rule == "key"


def test_a_locked_key_is_named_as_such(tmp_path, key):
    assert "locked by a passphrase" in str(refused(write(tmp_path / "locked", lock(bytes(key.secret)))))


def lock(secret):
    """Return a key whose secret parts are said to be encrypted (RFC 9580, 3.7.2.1)."""
    certificate = bytes(pysequoia.Tsk.from_bytes(secret).extract_certificate())
    public = {packet.fingerprint: bytes(packet.body) for packet in PacketPile.from_bytes(certificate)}
    packets = []
    for packet in PacketPile.from_bytes(secret):
        body = bytes(packet.body)
        if packet.tag in SECRET:
            how = bytes([254, 9, 3, 8]) + bytes(8) + bytes([96]) + bytes(16)
            body = public[packet.fingerprint] + how + bytes(53)
        packets.append(bytes([0xC0 | int(packet.tag), 255]) + len(body).to_bytes(4, "big") + body)
    return b"".join(packets)
