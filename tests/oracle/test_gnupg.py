"""Documents and keys that GnuPG made, as archives use it."""

from __future__ import annotations

import shutil
import subprocess
import time

import pytest

from rootfsbuild.errors import UntrustedError
from rootfsbuild.formats.deb.cleartext import split_inrelease
from rootfsbuild.repository.trust import load_keyring, verify_detached, verify_inline

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(shutil.which("gpg") is None, reason="gpg is not here: install gnupg"),
]
TEXT = b"Origin: Example\nSuite: stable\n- a dash\n\ttab \t\n\n"
YEAR = 365 * 86400


@pytest.fixture(scope="module")
def gpg(tmp_path_factory):
    home = tmp_path_factory.mktemp("gpg")
    home.chmod(0o700)

    def run(*arguments, data=b""):
        quiet = ["gpg", "--homedir", home, "--batch", "--pinentry-mode", "loopback", "--passphrase", ""]
        return subprocess.run([*quiet, *arguments], input=data, capture_output=True, check=True).stdout

    for name in ("first", "second"):
        run("--quick-generate-key", f"{name}@example.org", "rsa2048", "cert", "never")
        listed = run("--with-colons", "--list-keys", f"{name}@example.org").decode()
        fingerprint = next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr"))
        run("--quick-add-key", fingerprint, "rsa2048", "sign", "1y")
    yield run
    subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=False)


@pytest.fixture
def keyring(gpg, tmp_path):
    (tmp_path / "keys.gpg").write_bytes(gpg("--export"))
    return load_keyring([("", str(tmp_path / "keys.gpg"))])


def test_clearsigned_document(gpg, keyring):
    document = gpg("--clearsign", "-u", "first@example.org", data=TEXT)
    verified = verify_inline(document, keyring, time.time())
    lines = [line.rstrip(b" \t\r") for line in verified.body.split(b"\n")]
    assert split_inrelease(document) == b"\n".join(lines)
    assert split_inrelease(document).startswith(b"Origin: Example\nSuite: stable\n- a dash\n\ttab\n")


def test_several_signers(gpg, keyring):
    both = ("-u", "first@example.org", "-u", "second@example.org")
    assert len(verify_inline(gpg("--clearsign", *both, data=TEXT), keyring, time.time(), threshold=2).signers) == 2
    signature = gpg("--armor", "--detach-sign", *both, data=TEXT)
    assert len(verify_detached(TEXT, signature, keyring, time.time(), threshold=2).signers) == 2


def test_expired_signing_subkey_of_a_key_that_never_expires(gpg, keyring):
    document = gpg("--clearsign", "-u", "first@example.org", data=TEXT)
    assert verify_inline(document, keyring, time.time() + 0.9 * YEAR).signers
    with pytest.raises(UntrustedError, match="expired on") as caught:
        verify_inline(document, keyring, time.time() + 1.1 * YEAR)
    assert caught.value.rule == "key"


def test_armored_export(gpg, keyring, tmp_path):
    (tmp_path / "keys.asc").write_bytes(gpg("--armor", "--export"))
    armored = load_keyring([("", str(tmp_path / "keys.asc"))])
    assert armored.digest == keyring.digest
    assert len(armored.certificates) == 2


def test_sha1_signature_is_refused(gpg, keyring):
    weak = ("--digest-algo", "SHA1", "--weak-digest", "MD5")
    document = gpg("--clearsign", *weak, "-u", "first@example.org", data=TEXT)
    with pytest.raises(UntrustedError) as caught:
        verify_inline(document, keyring, time.time())
    assert caught.value.rule == "signature"
