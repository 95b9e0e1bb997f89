from __future__ import annotations

import base64
import os
import time
from datetime import UTC, datetime, timedelta

import pysequoia
import pytest
from making.keys import Key, make_key, together
from making.plans import make_package
from making.rpms import BIN, I32, I64, STRING, STRINGS, flipped, make_lead, make_rpm, sign

from rootfsbuild.errors import PackageError, UntrustedError
from rootfsbuild.events import Warned
from rootfsbuild.formats.rpm import tags
from rootfsbuild.formats.rpm.archive import open_rpm
from rootfsbuild.formats.rpm.identity import check_identity
from rootfsbuild.formats.rpm.signature import LEAD, check, check_lead
from rootfsbuild.repository.trust import Certificate, Keyring, load_keyring, verify_package

FILES = {"/a": b"data", "/b": b"more"}
YEAR = 365 * 86400
V6 = dict.fromkeys((tags.SHA1HEADER, tags.SIG_SIZE, tags.SIG_MD5, tags.SIG_PAYLOADSIZE, tags.SIG_RESERVEDSPACE))


@pytest.fixture(scope="module")
def key():
    return make_key()


@pytest.fixture(scope="module")
def other():
    return make_key("Other <other@example.org>")


def ring(*keys):
    return Keyring(tuple(Certificate(one.fingerprint, "test", one.certificate) for one in keys), "")


@pytest.fixture
def verify(tmp_path):
    def verified(*keys, blob=None, now=None, relax=(), report=lambda _: None, trust=True, **more):
        blob = make_rpm(None, FILES, **more) if blob is None else blob
        (tmp_path / "x.rpm").write_bytes(blob)
        rpm = open_rpm(str(tmp_path / "x.rpm"), "example")
        try:
            keyring = ring(*keys) if trust else None
            return check(rpm.fd, rpm.head, keyring=keyring, now=now or time.time(), relax=relax, report=report)
        finally:
            os.close(rpm.fd)

    return verified


@pytest.fixture
def distrust(verify):
    def refused(*keys, **more):
        with pytest.raises(UntrustedError) as caught:
            verify(*keys, **more)
        return caught.value

    return refused


@pytest.fixture
def refusal(verify):
    def refused(*keys, **more):
        with pytest.raises(PackageError) as caught:
            verify(*keys, trust=bool(keys), **more)
        return str(caught.value)

    return refused


# The lead


def test_lead():
    check_lead(make_lead(), "example")
    check_lead(make_lead("", major=4), "example")


@pytest.mark.parametrize(
    "lead",
    [
        make_lead(magic=b"\xed\xab\xee\xda"),
        make_lead(major=2),
        make_lead(major=5),
        make_lead(minor=1),
        make_lead(kind=1),
        make_lead(signature=0),
        make_lead()[:-1] + b"x",
        make_lead()[:70] + b"x" + make_lead()[71:],
        make_lead()[:10] + b"n" * 66 + make_lead()[76:],
        make_lead()[:-1],
        b"",
    ],
)
def test_broken_leads(lead):
    with pytest.raises(PackageError):
        check_lead(lead, "example")


def test_what_is_no_package(tmp_path):
    for content in (b"", b"<html>", b"!<arch>\n" + bytes(200)):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(PackageError):
            open_rpm(str(tmp_path / "x"), "example")


# Signatures


def test_signature_of_the_header(verify, key):
    assert verify(key, key=key) == (key.fingerprint,)


def test_legacy_signature_of_header_and_payload(verify, key):
    assert verify(key, legacy_key=key) == (key.fingerprint,)


def test_several_signers_of_rpm_6(verify, key, other):
    both = tuple(sorted([key.fingerprint, other.fingerprint]))
    assert verify(key, other, more_keys=[key, other]) == both
    assert verify(other, more_keys=[key, other]) == (other.fingerprint,)


def test_packages_of_rpm_6(verify, key):
    lead = make_lead("", major=4)
    reserved = {**V6, tags.SIG_RESERVED: (BIN, bytes(4096))}
    assert verify(key, more_keys=[key], lead=lead, stripped=True, signature=reserved) == (key.fingerprint,)


@pytest.mark.parametrize("suite", ["RSA2k", "Cv25519", "P256", "P384", "Cv448"])
def test_every_kind_of_key(verify, suite):
    made = Key(pysequoia.Tsk.generate("a <a@example.org>", cipher_suite=getattr(pysequoia.CipherSuite, suite)))
    blob = make_rpm(None, FILES, key=made)
    assert verify(made, blob=blob) == (made.fingerprint,)
    at = blob.index(b"data", LEAD) if b"data" in blob else len(blob) - 1
    with pytest.raises(PackageError):
        verify(made, blob=flipped(blob, at))


def test_dsa_tag(verify, key):
    blob = make_rpm(None, FILES, key=key)
    header = blob[blob.index(b"\x8e\xad\xe8\x01", LEAD + 8) :]
    header = header[: header.index(b"\xfd7zXZ")]
    made = {tags.DSAHEADER: (BIN, sign(key, header))}
    assert verify(key, signature=made) == (key.fingerprint,)


def test_armored_and_several_in_one_tag(verify, key, other):
    packet = verify_package(b"x", together([other.detach(b"x"), key.detach(b"x")]), ring(key), time.time(), subject="x")
    assert packet == (key.fingerprint,)


def test_unsigned_package_is_refused(distrust, key):
    error = distrust(key)
    assert (error.rule, "no signature" in str(error), "--allow=unsigned" in error.hint) == ("signature", True, True)


def test_unsigned_package_is_accepted_by_name_only(verify, key):
    heard = []
    assert verify(key, relax=("unsigned",), report=heard.append) == ()
    assert isinstance(heard[0], Warned)
    assert (heard[0].weakens, "no signature" in heard[0].text) == ("unsigned", True)


def test_signature_by_a_key_that_is_not_allowed(distrust, verify, key, other):
    error = distrust(other, key=key)
    assert error.rule == "key"
    assert "none of these keys is allowed" in str(error)
    assert verify(other, key=key, relax=("unsigned",)) == ()


def test_no_keys_believe_nothing(distrust, key):
    assert distrust(key=key).rule == "key"


@pytest.mark.parametrize("where", ["key", "legacy_key", "more_keys"])
@pytest.mark.parametrize("relax", [(), ("unsigned",)])
def test_bad_signature_by_an_allowed_key_is_never_accepted(distrust, key, other, where, relax):
    wrong = sign(key, b"something else")
    tag = {"key": tags.RSAHEADER, "legacy_key": tags.SIG_PGP, "more_keys": tags.OPENPGP}[where]
    entry = (STRINGS, [base64.b64encode(wrong)]) if where == "more_keys" else (BIN, wrong)
    assert distrust(key, signature={tag: entry}, relax=relax).rule == "signature"
    # A good one beside it changes nothing.
    good = {"key": {"more_keys": [key]}, "legacy_key": {"key": key}, "more_keys": {"key": key}}[where]
    assert distrust(key, signature={tag: entry}, relax=relax, **good).rule == "signature"


def test_signature_of_another_package(distrust, key):
    stolen = sign(key, make_rpm(None, FILES, name="another")[LEAD:])
    assert distrust(key, signature={tags.RSAHEADER: (BIN, stolen)}).rule == "signature"


@pytest.mark.parametrize("entry", [(BIN, b"no signature"), (BIN, b"\x89"), (BIN, b"\0" * 100)])
def test_what_is_no_signature(distrust, key, entry):
    assert distrust(key, signature={tags.RSAHEADER: entry}).rule == "malformed"


def test_what_is_no_base64(distrust, key):
    assert distrust(key, signature={tags.OPENPGP: (STRINGS, ["a!b"])}).rule == "malformed"
    assert distrust(key, signature={tags.OPENPGP: (STRINGS, ["AAAA"] * 33)}).rule == "size"


def test_certificate_is_no_signature(distrust, key):
    entry = (BIN, bytes(key.certificate)[:60])
    assert distrust(key, signature={tags.RSAHEADER: entry}).rule == "malformed"


# Time


def test_package_outlives_its_key(verify):
    short = make_key(validity_seconds=YEAR)
    assert verify(short, key=short, now=time.time() + 3 * YEAR) == (short.fingerprint,)


def test_key_must_have_been_valid_when_it_signed(key):
    signature = sign(key, b"x")
    past = datetime.now(UTC) - timedelta(seconds=30)
    expired = key.certificate.set_expiration(past, key.secret.certifier())
    keyring = Keyring((Certificate(key.fingerprint, "test", expired),), "")
    # Within the same second Sequoia judges by the new expiry, too, and has nothing to say but this.
    with pytest.raises(UntrustedError, match=r"before it signed|no valid signatures"):
        verify_package(b"x", signature, keyring, time.time(), subject="example")


def test_revoked_key(key):
    revoked = pysequoia.Cert.from_bytes(bytes(key.certificate) + bytes(key.certificate.revoke(key.secret.certifier())))
    keyring = Keyring((Certificate(key.fingerprint, "test", revoked),), "")
    with pytest.raises(UntrustedError):
        verify_package(b"x", sign(key, b"x"), keyring, time.time(), subject="example")


def test_signature_from_the_future_is_the_clocks_fault(tmp_path, key):
    keyring = load_keyring([("", key.write(tmp_path / "key"))])
    with pytest.raises(UntrustedError) as caught:
        verify_package(b"y", sign(key, b"x"), keyring, time.time() - YEAR, subject="example")
    assert (caught.value.rule, "clock" in caught.value.hint) == ("future", True)


# Digests


def test_digests_suffice_where_the_metadata_is_the_trust(verify):
    assert verify(trust=False) == ()


@pytest.mark.parametrize("tag", [tags.SHA256HEADER, tags.SHA3_256HEADER, tags.SHA1HEADER])
def test_wrong_digest_of_the_header(refusal, tag, key):
    length = 40 if tag == tags.SHA1HEADER else 64
    changes = {tag: (STRING, ["0" * length])}
    assert "digest of its header is wrong" in refusal(signature=changes)
    assert "digest of its header is wrong" in refusal(key, key=key, signature=changes)


def test_missing_digest_of_the_header(refusal, verify, key):
    missing = {tags.SHA256HEADER: None}
    assert "neither a digest nor a verified signature" in refusal(signature=missing)
    assert "neither a digest nor a verified signature" in refusal(key, relax=("unsigned",), signature=missing)
    assert verify(key, key=key, signature=missing) == (key.fingerprint,)


def test_sha3_digest_of_the_header_suffices(verify):
    import hashlib

    blob = make_rpm(None, FILES, signature={tags.SHA256HEADER: None})
    start = blob.index(b"\x8e\xad\xe8\x01", LEAD + 8)
    header = blob[start : blob.index(b"\xfd7zXZ")]
    digest = {tags.SHA256HEADER: None, tags.SHA3_256HEADER: (STRING, [hashlib.sha3_256(header).hexdigest()])}
    assert verify(trust=False, signature=digest) == ()


def test_wrong_digest_of_the_payload_under_a_good_signature(refusal, key):
    wrong = {tags.PAYLOADDIGEST: (STRINGS, ["0" * 64])}
    assert "sha256 digest of its payload is wrong" in refusal(key, key=key, main=wrong)
    assert "sha256 digest of its payload is wrong" in refusal(main=wrong)


@pytest.mark.parametrize("main", [{tags.PAYLOADDIGEST: None}, {tags.PAYLOADDIGESTALGO: (I32, [1])}])
def test_missing_or_weak_digest_of_the_payload(refusal, verify, key, main):
    assert "no digest of the payload" in refusal(main=main)
    assert "no digest of the payload" in refusal(key, key=key, main=main)
    assert verify(key, legacy_key=key, main=main) == (key.fingerprint,)


def test_absent_algorithm_of_the_payload_digest_is_sha256(verify):
    assert verify(trust=False, main={tags.PAYLOADDIGESTALGO: None}) == ()


def test_flipped_payload_under_a_legacy_signature(distrust, key):
    blob = make_rpm(None, FILES, legacy_key=key, main={tags.PAYLOADDIGEST: None}, signature={tags.SIG_MD5: None})
    assert distrust(key, blob=flipped(blob, len(blob) - 20)).rule == "signature"


def test_old_digest_of_header_and_payload(refusal):
    assert "md5 digest" in refusal(signature={tags.SIG_MD5: (BIN, bytes(16))})


def test_sizes(refusal, verify):
    assert "bytes of header and payload" in refusal(signature={tags.SIG_SIZE: (I32, [1])})
    assert "bytes of header and payload" in refusal(signature={tags.LONGSIGSIZE: (I64, [1])})
    assert verify(trust=False, signature={tags.SIG_SIZE: None}) == ()


@pytest.mark.parametrize(
    "entry",
    [
        (tags.SHA256HEADER, (BIN, b"0" * 64)),
        (tags.RSAHEADER, (STRING, ["0"])),
        (tags.SIG_SIZE, (I64, [1])),
        (tags.SIG_SIZE, (I32, [1, 2])),
        (tags.OPENPGP, (BIN, b"x")),
        (5000, (I32, [1])),
        (tags.SIG_RESERVEDSPACE, (BIN, b"\0\1")),
    ],
)
def test_signature_header_holds_nothing_else(refusal, entry):
    assert "signature header" in refusal(signature=dict([entry]))


# Which package it is


def header_of(tmp_path, **more):
    make_rpm(tmp_path / "x.rpm", FILES, name="alpha", version="1.0", release="2", arch="x86_64", **more)
    rpm = open_rpm(str(tmp_path / "x.rpm"), "alpha")
    os.close(rpm.fd)
    return rpm.header, rpm.files


def test_identity(tmp_path):
    check_identity(*header_of(tmp_path), make_package("alpha", "1.0-2", "x86_64"))
    check_identity(*header_of(tmp_path, epoch=0), make_package("alpha", "1.0-2", "x86_64"))
    check_identity(*header_of(tmp_path, epoch=3), make_package("alpha", "3:1.0-2", "x86_64"))


@pytest.mark.parametrize(
    ("name", "version", "architecture", "said"),
    [
        ("beta", "1.0-2", "x86_64", "name 'alpha', the metadata 'beta'"),
        ("alpha", "1.0-3", "x86_64", "version '1.0-2', the metadata '1.0-3'"),
        ("alpha", "1:1.0-2", "x86_64", "version '1.0-2', the metadata '1:1.0-2'"),
        ("alpha", "1.0-2", "noarch", "architecture 'x86_64', the metadata 'noarch'"),
    ],
)
def test_another_package(tmp_path, name, version, architecture, said):
    with pytest.raises(UntrustedError, match=said) as caught:
        check_identity(*header_of(tmp_path), make_package(name, version, architecture))
    assert caught.value.rule == "mismatch"


REQUIRES = (
    "rpmlib(PayloadIsXz)",
    "/a",
    "libc.so.6()(64bit)",
    "libc.so.6(GLIBC_2.2)(64bit)",
    "bash",
    "((a and b) if c)",
)
CONTROL = {
    "Requires": "libc.so.6(GLIBC_2.2)(64bit), (a and b if c)",
    "Requires(pre)": "bash >= 4",
    "Provides": "alpha = 1.0-2, alpha(x86-64) = 1.0-2",
}


def test_relations_but_for_what_createrepo_leaves_out(tmp_path):
    package = make_package("alpha", "1.0-2", "x86_64", control=tuple(CONTROL.items()))
    check_identity(*header_of(tmp_path, requires=REQUIRES, provides=["alpha(x86-64)"]), package)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("Requires", "libc.so.6(GLIBC_2.2)(64bit)", "requires a and b if c"),
        ("Requires", CONTROL["Requires"] + ", evil", "not by its header, it requires evil"),
        ("Requires(pre)", "", "not by its metadata, it requires bash"),
        ("Provides", "alpha = 1.0-2", r"not by its metadata, it provides alpha\(x86-64\)"),
        ("Provides", CONTROL["Provides"] + ", webserver", "not by its header, it provides webserver"),
    ],
)
def test_other_relations(tmp_path, field, value, said):
    package = make_package("alpha", "1.0-2", "x86_64", control=tuple({**CONTROL, field: value}.items()))
    with pytest.raises(UntrustedError, match=said):
        check_identity(*header_of(tmp_path, requires=REQUIRES, provides=["alpha(x86-64)"]), package)
