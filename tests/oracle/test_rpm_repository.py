"""dnf against repositories that were laid out: taken without a word, refused when altered; createrepo_c beside us."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from xml.etree import ElementTree as ET

import pysequoia
import pytest
from making.keys import Key, make_key
from making.rpm_carried import RpmCart, words
from making.rpmmd import comps, group
from making.rpms import File, directory, ghost, link

from rootfsbuild.events import ignore
from rootfsbuild.formats.rpm.repository import lay_repository
from rootfsbuild.formats.rpm.repository_texts import PLACE
from rootfsbuild.repository.sign import load_signer

pytestmark = pytest.mark.oracle
needs_dnf = pytest.mark.skipif(shutil.which("dnf") is None, reason="dnf is not here")
needs_createrepo = pytest.mark.skipif(shutil.which("createrepo_c") is None, reason="createrepo_c is not here")
BASE = "baseos/9/x86_64"


class Client:
    """A dnf that knows the laid-out repositories alone, and an empty root."""

    def __init__(self, folder, repository):
        self.root = folder / "root"
        self.folder = folder
        for name in ("root", "repos", "cache", "persist", "log", "home"):
            (folder / name).mkdir(parents=True)
        for path in repository.glob("*.repo"):
            (folder / "repos" / path.name).write_text(path.read_text().replace(PLACE, str(repository)))
        (folder / "dnf.conf").write_text("[main]\ngpgcheck=1\nlocalpkg_gpgcheck=1\nplugins=0\nbest=1\n")
        # Debian's rpm has its database in the home directory.
        (folder / "home/.rpmmacros").write_text("%_dbpath /var/lib/rpm\n")

    def run(self, *words):
        options = {"reposdir": "repos", "cachedir": "cache", "persistdir": "persist", "logdir": "log"}
        command = ["dnf", "-y", f"--config={self.folder}/dnf.conf", f"--installroot={self.root}", "--releasever=9"]
        command += [f"--setopt={key}={self.folder}/{value}" for key, value in options.items()]
        command += ["--forcearch=x86_64", "--setopt=module_platform_id=platform:el9", *words]
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder / "home"), "LC_ALL": "C"}
        return subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )


@pytest.fixture(scope="module")
def secret(tmp_path_factory):
    """A key as gpg makes them: rpm 4.18 takes none of those that Sequoia makes."""
    if shutil.which("gpg") is None:
        pytest.skip("gpg is not here: install gnupg")
    home = tmp_path_factory.mktemp("gpg")
    home.chmod(0o700)

    def make(name):
        quiet = ["gpg", "--homedir", home, "--batch", "--pinentry-mode", "loopback", "--passphrase", ""]
        subprocess.run(
            [*quiet, "--quick-generate-key", name, "ed25519", "sign", "never"], capture_output=True, check=True
        )
        done = subprocess.run([*quiet, "--armor", "--export-secret-keys", name], capture_output=True, check=True)
        return Key(pysequoia.Tsk.from_bytes(done.stdout))

    yield functools.cache(make)
    subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=False)


@pytest.fixture
def cart(tmp_path, secret):
    return RpmCart(tmp_path / "cart", secret("distribution@example.org"))


@pytest.fixture(params=["original", "signed"])
def signer(request, cart, secret):
    return load_signer(cart.signer(secret("us@example.org"))) if request.param == "signed" else None


def lay(tmp_path, contents, cart, signer, *archives):
    target = tmp_path / "repository"
    lay_repository(str(target), contents, cart.keys(*archives), signer, ignore)
    return target


@needs_dnf
def test_dnf_installs_what_is_carried_and_nothing_else(tmp_path, cart, signer):
    alpha = cart.make("alpha", requires=("beta >= 2:2", "/usr/lib/beta/x"))
    beta = cart.make("beta", "2:2.0~rc1", "x86_64", files={"/usr/lib/beta/x": b"x"})
    more = cart.make("more", archive="appstream", requires=("alpha",))
    cart.make("gamma")
    proofs = [
        cart.prove(*(one for one in cart.blobs if one.archive == "baseos")),
        cart.prove(more, archive="appstream", signed=False),
    ]
    contents = cart.contents(*proofs, packages=[alpha, beta, more])
    client = Client(tmp_path / "dnf", lay(tmp_path, contents, cart, signer, "baseos", "appstream"))
    done = client.run("install", "more")
    assert done.returncode == 0, done.stdout
    assert (client.root / "usr/share/more").read_bytes() == b"1.0"
    assert (client.root / "usr/lib/beta/x").read_bytes() == b"x"
    missing = client.run("install", "gamma")
    assert missing.returncode != 0
    assert ("Unable to find a match: gamma" if signer else "gamma-1.0-1.noarch.rpm") in missing.stdout


@needs_dnf
def test_dnf_knows_the_groups(tmp_path, cart, signer):
    alpha = cart.make("alpha")
    proof = cart.prove(alpha, kinds={"group": comps(group("core", name="Core", mandatory=("alpha",)))})
    client = Client(tmp_path / "dnf", lay(tmp_path, cart.contents(proof), cart, signer))
    done = client.run("install", "@core")
    assert done.returncode == 0, done.stdout
    assert (client.root / "usr/share/alpha").exists()


@needs_dnf
@pytest.mark.parametrize("victim", ["repomd.xml", "primary.xml.gz", "alpha-1.0-1.noarch.rpm"])
def test_dnf_refuses_what_was_altered(tmp_path, cart, signer, victim):
    cart.make("alpha")
    root = lay(tmp_path, cart.contents(cart.prove(*cart.blobs)), cart, signer)
    (path,) = [path for path in root.rglob("*") if path.name.endswith(victim)]
    data = bytearray(path.read_bytes())
    data[data.find(b"<timestamp>") + 12 if victim == "repomd.xml" else len(data) // 2] ^= 1
    path.write_bytes(data)
    client = Client(tmp_path / "dnf", root)
    done = client.run("install", "alpha")
    assert done.returncode != 0
    assert re.search(
        "Bad GPG signature|bad signature|BADSIG" if victim == "repomd.xml" else "(?i)checksum", done.stdout
    )
    assert not (client.root / "usr/share/alpha").exists()


@needs_dnf
def test_another_key_is_refused(tmp_path, cart, signer):
    cart.make("alpha")
    root = lay(tmp_path, cart.contents(cart.prove(*cart.blobs)), cart, signer)
    for path in (root / "keys").iterdir():
        make_key().write(path, armored=True)
    done = Client(tmp_path / "dnf", root).run("install", "alpha")
    assert done.returncode != 0
    assert "GPG" in done.stdout


def read(repodata, kind):
    repomd = ET.parse(repodata / "repomd.xml").getroot()
    (data,) = [one for one in repomd if one.get("type") == kind]
    href = next(one.get("href") for one in data if one.tag.endswith("}location"))
    done = subprocess.run(["gzip", "-dc", repodata.parent / href], check=True, capture_output=True)
    return {plain(one.find("./{*}name"), one): one for one in ET.fromstring(done.stdout)}


def plain(name, package):
    return package.get("name") if name is None else name.text


def flat(element, path=""):
    """What an element says, line by line; the order of relations and paths means nothing."""
    here = f"{path}/{element.tag.rpartition('}')[2]}"
    lines = [f"{here} {sorted(element.attrib.items())} {(element.text or '').strip()}"]
    return sorted(lines + [line for child in element for line in flat(child, here)])


@needs_createrepo
def test_what_createrepo_says_of_the_same_packages(tmp_path, cart):
    content = {
        "/etc/alpha": directory(),
        "/etc/alpha/a.conf": File(b"x"),
        "/usr/bin/alpha": File(b"y", mode=0o100755),
        "/usr/share/alpha/\N{SNOWMAN}": File(b"z"),
        "/usr/lib/alpha": link(b"/usr/share/alpha"),
        "/var/log/alpha": ghost(),
    }
    relations = {
        "requires": ("beta >= 1:2-3", "(gamma if delta)", "/bin/sh", "libx.so.1()(64bit)", "rpmlib(Rich) <= 4.12"),
        "provides": ("virtual = 1", "plain"),
        "conflicts": ("old < 2",),
        "obsoletes": ("older <= 1.0",),
        "recommends": ("docs",),
        "supplements": ("alpha-lang",),
    }
    alpha = cart.make(
        "alpha",
        "2:1.0~rc1^2",
        "x86_64",
        files=content,
        main=words(description="One\nand <another> & more."),
        **relations,
    )
    beta = cart.make("beta", files={})
    root = lay(tmp_path, cart.contents(cart.prove(alpha, beta)), cart, load_signer(cart.signer()))
    copy = tmp_path / "copy"
    shutil.copytree(root / BASE, copy)
    shutil.rmtree(copy / "repodata")
    subprocess.run(["createrepo_c", "--quiet", copy], check=True, capture_output=True)
    for kind in ("primary", "filelists", "other"):
        ours, theirs = read(root / BASE / "repodata", kind), read(copy / "repodata", kind)
        assert list(ours) == list(theirs)
        for name, package in ours.items():
            assert flat(package) == flat(theirs[name])
