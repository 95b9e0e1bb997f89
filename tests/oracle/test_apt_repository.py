"""The host's apt against repositories that were laid out: taken without a word, refused when altered."""

from __future__ import annotations

import contextlib
import http.server
import os
import re
import shutil
import subprocess
import threading
import time

import pytest
from making.apt import Apt, find_apt
from making.carried import Cart
from making.keys import make_key

from rootfsbuild.errors import UsageError
from rootfsbuild.events import ignore
from rootfsbuild.formats.deb.carried import Suite
from rootfsbuild.formats.deb.repository import lay_repository
from rootfsbuild.formats.deb.repository_texts import PLACE
from rootfsbuild.repository.sign import load_signer

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(find_apt() is None, reason="apt 2.x is not here"),
]
DAY = 86400


class Client(Apt):
    """An apt that knows the laid-out repositories alone."""

    def __init__(self, root, repository, url=""):
        super().__init__(root)
        os.makedirs(f"{root}/etc/sources.list.d")
        with open(f"{root}/apt.conf", encoding="utf-8") as stream:
            text = stream.read().replace('Dir::Etc::sourceparts "/dev/null"', "")
        # What the lists of sources say themselves must be enough.
        text = text.replace('Acquire::Languages "none";', 'Acquire::Languages "en";')
        with open(f"{root}/apt.conf", "w", encoding="utf-8") as stream:
            stream.write(text + f'Dir::Etc::sourceparts "{root}/etc/sources.list.d";\n')
        for path in repository.glob("*.sources"):
            moved = path.read_text().replace(f"file:{PLACE}", url or f"file:{PLACE}").replace(PLACE, str(repository))
            with open(f"{root}/etc/sources.list.d/{path.name}", "w", encoding="utf-8") as stream:
                stream.write(moved)

    def run(self, *words):
        environment = {"PATH": os.environ["PATH"], "APT_CONFIG": f"{self.root}/apt.conf", "LC_ALL": "C"}
        command = ["apt-get", "-q", "--yes", *words]
        return subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )

    def fetched(self):
        return sorted(name for name in os.listdir(f"{self.root}/cache/archives") if name.endswith(".deb"))


@pytest.fixture
def cart(tmp_path):
    return Cart(tmp_path / "cart")


@pytest.fixture(params=["original", "signed"])
def signer(request, cart):
    return load_signer(cart.signer()) if request.param == "signed" else None


def lay(tmp_path, contents, cart, signer, *archives):
    target = tmp_path / "repository"
    lay_repository(str(target), contents, cart.keys(*archives), signer, ignore)
    return target


def updated(client):
    done = client.run("update")
    assert done.returncode == 0, done.stdout
    usual = r"(Get|Hit):.*|Fetched .*|Reading .*|Ign:\S+ \S+ \S+ InRelease|  File not found - \S+/InRelease .*"
    assert [line for line in done.stdout.splitlines() if not re.fullmatch(usual, line)] == []
    return client


def later(seconds):
    return int(time.time()) + seconds


def test_apt_installs_what_is_carried_and_nothing_else(tmp_path, cart, signer):
    alpha, beta = cart.make("alpha", Depends="beta (>= 2)"), cart.make("beta", "2:2.0~rc1+b1-1", "amd64")
    cart.make("gamma")
    proof = cart.prove(*cart.blobs, date=later(-400 * DAY), valid_until=later(-399 * DAY))
    root = lay(tmp_path, cart.contents(proof, packages=[alpha, beta]), cart, signer)
    client = updated(Client(tmp_path / "apt", root))
    done = client.run("install", "--download-only", "alpha")
    assert done.returncode == 0, done.stdout
    assert re.findall(r"^Get:.* (\S+) \[", done.stdout, re.MULTILINE) == ["2:2.0~rc1+b1-1", "1.0-1"]
    missing = client.run("install", "--download-only", "gamma")
    assert missing.returncode != 0
    assert ("Unable to locate package gamma" if signer else "File not found") in missing.stdout


def test_a_release_like_those_of_debian(tmp_path, cart, signer):
    """It lists far more than is carried: other compressions, translations, contents, differences, components."""
    alpha = cart.make("alpha", architecture="amd64")
    names = ["main/binary-amd64/Packages.gz", "main/binary-amd64/Packages.bz2", "main/binary-all/Packages.xz"]
    names += ["main/binary-amd64/Packages.diff/Index", "main/i18n/Translation-en.xz", "main/Contents-amd64.gz"]
    names += ["contrib/binary-amd64/Packages.xz", "main/source/Sources.xz", "main/dep11/Components-amd64.yml.gz"]
    extra = "No-Support-for-Architecture-all: Packages\n"
    fields = {"architectures": "all amd64 arm64", "others": dict.fromkeys(names, b"not here"), "extra": extra}
    proofs = [
        cart.prove(alpha, **fields),
        cart.prove(suite="bookworm-updates", forms=("Release", "Release.gpg"), date=later(-60)),
        cart.prove(archive="debian-security", suite="bookworm-security", **fields),
    ]
    root = lay(tmp_path, cart.contents(*proofs), cart, signer, "debian", "debian-security")
    client = updated(Client(tmp_path / "apt", root))
    assert client.run("install", "--download-only", "alpha").returncode == 0
    updated(client)


def test_an_index_of_all_architectures_is_why_we_refuse(tmp_path, cart, monkeypatch):
    """What UsageError says of it is so: apt does ask for it."""
    cart.make("alpha")
    proof = cart.prove(*cart.blobs, architectures="all amd64", others={"main/binary-all/Packages": b"not here"})
    with pytest.raises(UsageError, match="binary-all"):
        lay(tmp_path, cart.contents(proof), cart, None)
    monkeypatch.setattr(Suite, "lacking", lambda _self: ())
    root = lay(tmp_path, cart.contents(proof), cart, None)
    done = Client(tmp_path / "apt", root).run("update")
    assert done.returncode != 0
    assert "binary-all" in done.stdout


def test_packages_of_several_architectures_and_moments(tmp_path, cart):
    signer = load_signer(cart.signer())
    old, new = cart.make("alpha", "1.0-1"), cart.make("alpha", "1.1-1")
    arm = cart.make("arm", architecture="arm64")
    proofs = [cart.prove(old), cart.prove(new, date=later(-60)), cart.prove(arm, architecture="arm64")]
    client = updated(Client(tmp_path / "apt", lay(tmp_path, cart.contents(*proofs), cart, signer)))
    for version in ("1.0-1", "1.1-1"):
        done = client.run("install", "--download-only", f"alpha={version}")
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("victim", ["InRelease", "Packages", "alpha"])
def test_apt_refuses_what_was_altered(tmp_path, cart, signer, victim):
    cart.make("alpha")
    root = lay(tmp_path, cart.contents(cart.prove(*cart.blobs)), cart, signer)
    for path in [path for path in root.rglob("*") if path.is_file() and "by-hash" not in path.parts]:
        if path.name.startswith(victim):
            data = bytearray(path.read_bytes())
            data[data.find(b"Label") if victim == "InRelease" else len(data) // 2] ^= 1
            path.write_bytes(data)
        if victim == "InRelease" and path.name.startswith("Release"):
            path.unlink()
    client = Client(tmp_path / "apt", root)
    done = client.run("update")
    if victim == "alpha":
        done = client.run("install", "--download-only", "alpha")
    assert done.returncode != 0
    assert re.search("BADSIG|invalid signature" if victim == "InRelease" else "Hash Sum mismatch", done.stdout)


def test_another_key_is_refused(tmp_path, cart, signer):
    cart.make("alpha")
    root = lay(tmp_path, cart.contents(cart.prove(*cart.blobs)), cart, signer)
    for path in (root / "keys").iterdir():
        make_key().write(path)
    done = Client(tmp_path / "apt", root).run("update")
    assert done.returncode != 0
    assert "NO_PUBKEY" in done.stdout


def test_gpgv_accepts_both_forms(tmp_path, cart):
    if shutil.which("gpgv") is None:
        pytest.skip("gpgv is not here")
    cart.make("alpha")
    root = lay(tmp_path, cart.contents(cart.prove(*cart.blobs)), cart, load_signer(cart.signer()))
    place = root / "debian/dists/bookworm"
    for files in ([place / "InRelease"], [place / "Release.gpg", place / "Release"]):
        subprocess.run(["gpgv", "--keyring", root / "keys/repository.gpg", *files], check=True, capture_output=True)


def test_more_packages_of_the_same_moment_are_noticed_over_http(tmp_path, cart):
    """apt asks whether a document is newer than what it has; the moment of the archive has not changed."""
    signer = load_signer(cart.signer())
    alpha, beta = cart.make("alpha"), cart.make("beta")
    proof = cart.prove(alpha, beta)
    first = lay(tmp_path, cart.contents(proof, packages=[alpha]), cart, signer)
    served = tmp_path / "served"
    served.symlink_to(first)
    with serve_folder(served) as url:
        client = Client(tmp_path / "apt", first, url)
        updated(client)
        assert client.run("install", "--download-only", "beta").returncode != 0
        time.sleep(1.1)  # times on the wire are whole seconds
        second = tmp_path / "second"
        lay_repository(str(second), cart.contents(proof), {}, signer, ignore)
        served.unlink()
        served.symlink_to(second)
        updated(client)
        done = client.run("install", "--download-only", "beta", "alpha")
        assert done.returncode == 0, done.stdout
        assert client.fetched() == ["alpha_1.0-1_all.deb", "beta_1.0-1_all.deb"]


@contextlib.contextmanager
def serve_folder(folder):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(folder))

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


@pytest.fixture(scope="module")
def gpg(tmp_path_factory):
    if shutil.which("gpg") is None:
        pytest.skip("gpg is not here: install gnupg")
    home = tmp_path_factory.mktemp("gpg")
    home.chmod(0o700)

    def run(*arguments, passphrase=""):
        quiet = ["gpg", "--homedir", home, "--batch", "--pinentry-mode", "loopback", "--passphrase", passphrase]
        return subprocess.run([*quiet, *arguments], capture_output=True, check=True).stdout

    yield run
    subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=False)


def test_a_subkey_signs_whose_primary_key_is_elsewhere(tmp_path, cart, gpg):
    gpg("--quick-generate-key", "apart@example.org", "ed25519", "cert", "never")
    listed = gpg("--with-colons", "--list-keys", "apart@example.org").decode()
    fingerprint = next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr"))
    gpg("--quick-add-key", fingerprint, "rsa2048", "sign", "1y")
    (tmp_path / "apart").write_bytes(gpg("--export-secret-subkeys", "--armor", fingerprint))
    signer = load_signer(str(tmp_path / "apart"))
    assert signer.fingerprint == fingerprint
    cart.make("alpha")
    updated(Client(tmp_path / "apt", lay(tmp_path, cart.contents(cart.prove(*cart.blobs)), cart, signer)))


def test_keys_that_cannot_sign(tmp_path, gpg):
    gpg("--quick-generate-key", "locked@example.org", "ed25519", "sign", "never", passphrase="secret")
    gpg("--faked-system-time", "20200101T000000", "--quick-generate-key", "old@example.org", "ed25519", "sign", "1d")
    for name, problem in {"locked": "locked by a passphrase", "old": "no suitable signing"}.items():
        path = tmp_path / name
        path.write_bytes(gpg("--export-secret-keys", f"{name}@example.org", passphrase="secret"))
        with pytest.raises(UsageError, match=problem) as caught:
            load_signer(str(path))
        assert caught.value.hint
