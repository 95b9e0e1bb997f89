from __future__ import annotations

import contextlib
import os
import time

import pytest
from making.keys import make_key, sign_together, together

from rootfsbuild.errors import UntrustedError
from rootfsbuild.repository import rollback
from rootfsbuild.repository.trust import load_keyring, verify_detached, verify_inline

TEXT = b"Origin: Example\nSuite: stable\n"
YEAR = 365 * 86400


@pytest.fixture(scope="module")
def key():
    return make_key()


@pytest.fixture(scope="module")
def other():
    return make_key("Other <other@example.org>")


def keyring(folder, *keys, pin=False):
    named = []
    for number, key in enumerate(keys):
        named.append((key.fingerprint if pin else "", key.write(folder / f"{number}.gpg")))
    return load_keyring(named)


def refusal(call, *arguments, **named):
    with pytest.raises(UntrustedError) as caught:
        call(*arguments, **named)
    return caught.value


# Keyrings


@pytest.mark.parametrize("armored", [False, True])
def test_keyring_reads_binary_and_armored_files(tmp_path, key, armored):
    ring = load_keyring([("", key.write(tmp_path / "key", armored=armored))])
    assert [certificate.fingerprint for certificate in ring.certificates] == [key.fingerprint]
    assert len(ring.digest) == 64


def test_keyring_reads_several_certificates_of_one_file_in_order(tmp_path, key, other):
    (tmp_path / "both").write_bytes(bytes(key.certificate) + bytes(other.certificate))
    ring = load_keyring([("", str(tmp_path / "both"))])
    fingerprints = [certificate.fingerprint for certificate in ring.certificates]
    assert fingerprints == sorted([key.fingerprint, other.fingerprint])
    assert ring.digest == keyring(tmp_path, other, key).digest
    assert ring.digest != keyring(tmp_path, key).digest


def test_pin_takes_only_that_certificate(tmp_path, key, other):
    (tmp_path / "both").write_bytes(bytes(key.certificate) + bytes(other.certificate))
    spaced = " ".join(key.fingerprint[i : i + 4] for i in range(0, 40, 4)).lower()
    ring = load_keyring([(spaced, str(tmp_path / "both"))])
    assert [certificate.fingerprint for certificate in ring.certificates] == [key.fingerprint]


def test_pin_of_another_key_is_refused(tmp_path, key, other):
    error = refusal(load_keyring, [(other.fingerprint, key.write(tmp_path / "key"))])
    assert error.rule == "key"
    assert key.fingerprint in str(error)
    assert other.fingerprint in str(error)


@pytest.mark.parametrize("pin", ["DEADBEEF", "B7C5D7D6350947F8", "not hex" * 6])
def test_short_key_id_is_no_pin(tmp_path, key, pin):
    error = refusal(load_keyring, [(pin, key.write(tmp_path / "key"))])
    assert (error.rule, "40" in error.hint) == ("key", True)


def test_key_file_that_is_missing_or_no_key(tmp_path):
    (tmp_path / "text").write_text("hello, hello, hello, hello")
    (tmp_path / "empty").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe")
    for name, said in [
        ("none", "No such file"),
        ("text", "no usable OpenPGP certificate"),
        ("empty", "no OpenPGP certificate"),
        ("pipe", "not a regular file"),
        ("", "directory"),
    ]:
        error = refusal(load_keyring, [("", str(tmp_path / name))])
        assert error.rule == "key"
        assert said in str(error)
        assert str(tmp_path) in str(error)
        assert "\n" not in str(error)


# Inline signatures


def test_inline(tmp_path, key):
    verified = verify_inline(key.sign(TEXT), keyring(tmp_path, key, pin=True), time.time())
    assert verified.body == TEXT
    assert verified.signers == (key.fingerprint,)


def test_changed_text_is_refused(tmp_path, key):
    document = key.sign(TEXT).replace(b"stable", b"stabIe")
    assert refusal(verify_inline, document, keyring(tmp_path, key), time.time()).rule == "signature"


def test_key_that_is_not_allowed_is_named(tmp_path, key, other):
    error = refusal(verify_inline, key.sign(TEXT), keyring(tmp_path, other), time.time())
    assert error.rule == "signature"
    assert "none of these keys is allowed" in str(error)
    assert "--allow=unsigned" in error.hint


def test_no_keys_believe_nothing(key):
    assert refusal(verify_inline, key.sign(TEXT), load_keyring([]), time.time()).rule == "signature"


def test_one_good_signature_among_several_counts(tmp_path, key, other):
    verified = verify_inline(sign_together([other, key], TEXT), keyring(tmp_path, key), time.time())
    assert verified.signers == (key.fingerprint,)


def test_threshold_counts_certificates(tmp_path, key, other):
    ring, now = keyring(tmp_path, key, other), time.time()
    both = tuple(sorted([key.fingerprint, other.fingerprint]))
    assert verify_inline(sign_together([key, other], TEXT), ring, now, threshold=2).signers == both
    error = refusal(verify_inline, key.sign(TEXT), ring, now, threshold=2)
    assert error.rule == "signature"
    assert "1 of the 2" in str(error)
    twice = sign_together([key, key], TEXT)
    assert "1 of the 2" in str(refusal(verify_inline, twice, ring, now, threshold=2))


def test_expired_certificate_is_refused_by_us(tmp_path):
    short = make_key(validity_seconds=YEAR)
    document, ring = short.sign(TEXT), keyring(tmp_path, short)
    assert verify_inline(document, ring, time.time()).signers
    error = refusal(verify_inline, document, ring, time.time() + 2 * YEAR)
    assert error.rule == "key"
    assert "expired on" in str(error)
    assert "clock says" in str(error)


def test_good_key_beside_an_expired_one_suffices(tmp_path, key):
    short = make_key(validity_seconds=YEAR)
    document = sign_together([short, key], TEXT)
    later = time.time() + 2 * YEAR
    assert verify_inline(document, keyring(tmp_path, short, key), later).signers == (key.fingerprint,)
    assert refusal(verify_inline, document, keyring(tmp_path, short, key), later, threshold=2).rule == "key"


def test_revoked_certificate_is_refused(tmp_path):
    key = make_key()
    revocation = key.certificate.revoke(key.secret.certifier())
    (tmp_path / "revoked").write_bytes(bytes(key.certificate) + bytes(revocation))
    ring = load_keyring([("", str(tmp_path / "revoked"))])
    assert refusal(verify_inline, key.sign(TEXT), ring, time.time()).rule in {"key", "signature"}


def test_clock_that_is_behind_is_named(tmp_path, key, other):
    document = key.sign(TEXT)
    error = refusal(verify_inline, document, keyring(tmp_path, other), time.time() - YEAR)
    assert error.rule == "future"
    assert "clock says" in str(error)
    assert "clock" in error.hint


def test_only_cleartext_reaches_the_verifier(tmp_path, key, monkeypatch):
    monkeypatch.setattr("pysequoia.verify", lambda **_: pytest.fail("was given something else"))
    for document in (key.message(TEXT), b"", TEXT):
        assert refusal(verify_inline, document, keyring(tmp_path, key), time.time()).rule == "malformed"


def test_size_is_capped_before_the_verifier(tmp_path, key, monkeypatch):
    monkeypatch.setattr("pysequoia.verify", lambda **_: pytest.fail("was given too much"))
    document = key.sign(TEXT) + b"x" * 10_000_000
    assert refusal(verify_inline, document, keyring(tmp_path, key), time.time()).rule == "size"


def test_errors_have_one_line(tmp_path, key):
    document = key.sign(TEXT).replace(b"END PGP", b"END PGQ")
    assert "\n" not in str(refusal(verify_inline, document, keyring(tmp_path, key), time.time()))


# Detached signatures


def test_detached(tmp_path, key):
    verified = verify_detached(TEXT, key.detach(TEXT), keyring(tmp_path, key), time.time())
    assert (verified.body, verified.signers) == (TEXT, (key.fingerprint,))


def test_every_signature_of_a_detached_file_is_read(tmp_path, key, other):
    signature = together([other.detach(TEXT), key.detach(TEXT)])
    assert verify_detached(TEXT, signature, keyring(tmp_path, key), time.time()).signers == (key.fingerprint,)
    both = keyring(tmp_path, key, other)
    assert len(verify_detached(TEXT, signature, both, time.time(), threshold=2).signers) == 2


def test_detached_signature_of_other_bytes_is_refused(tmp_path, key):
    error = refusal(verify_detached, TEXT + b"x", key.detach(TEXT), keyring(tmp_path, key), time.time())
    assert error.rule == "signature"


def test_a_detached_signature_with_any_letter_changed_is_refused_as_untrusted(tmp_path, key):
    good, ring = key.detach(TEXT), keyring(tmp_path, key)
    begin, end = good.index(b"\n\n") + 2, good.index(b"\n=")
    for at in range(begin, end):
        changed = good[:at] + (b"A" if good[at : at + 1] != b"A" else b"B") + good[at + 1 :]
        with contextlib.suppress(UntrustedError):
            assert verify_detached(TEXT, changed, ring, time.time()).signers == (key.fingerprint,)


@pytest.mark.parametrize("signature", [b"", b"-----BEGIN PGP SIGNATURE-----\n", b"\x89\x01", b"<html>"])
def test_what_is_no_signature_is_refused(tmp_path, key, signature):
    error = refusal(verify_detached, TEXT, signature, keyring(tmp_path, key), time.time())
    assert error.rule in {"malformed", "signature"}


def test_inline_document_is_no_detached_signature(tmp_path, key):
    error = refusal(verify_detached, TEXT, key.sign(TEXT), keyring(tmp_path, key), time.time())
    assert error.rule == "malformed"


# Rollback memory


def test_memory_only_rises(tmp_path):
    folder = str(tmp_path / "trust")
    assert rollback.last_date(folder, "a", "stable", ["K1"]) is None
    for date in (100, 300, 200):
        rollback.remember(folder, "a", "stable", signers=["K1"], date=date)
    assert rollback.last_date(folder, "a", "stable", ["K1", "K9"]) == 300


def test_memory_is_per_archive_suite_and_signer(tmp_path):
    folder = str(tmp_path)
    rollback.remember(folder, "a", "stable/x", signers=["K1", "K2"], date=100)
    rollback.remember(folder, "a", "stable/x", signers=["K2", "K3"], date=200)
    assert rollback.last_date(folder, "a", "stable/x", ["K1"]) == 100
    assert rollback.last_date(folder, "a", "stable/x", ["K1", "K3"]) == 200
    assert rollback.last_date(folder, "a", "stable/x", ["K4"]) is None
    assert rollback.last_date(folder, "a", "stable", ["K1"]) is None
    assert rollback.last_date(folder, "b", "stable/x", ["K1"]) is None


def test_damaged_memory_warns(tmp_path):
    rollback.remember(str(tmp_path), "a", "s", signers=["K"], date=100)
    for text in ("{", "[1]", '{"K": "x"}', '{"K": true}'):
        (tmp_path / "a_s.json").write_text(text)
        heard = []
        assert rollback.last_date(str(tmp_path), "a", "s", ["K"], heard.append) is None
        assert "cannot be read" in heard[0].text


def test_memory_that_cannot_be_written_only_warns(tmp_path):
    (tmp_path / "file").write_text("")
    heard = []
    rollback.remember(str(tmp_path / "file/trust"), "a", "s", signers=["K"], date=1, report=heard.append)
    assert "will go unnoticed" in heard[0].text
