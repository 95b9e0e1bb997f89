from __future__ import annotations

import dataclasses
import gzip
import hashlib
import lzma
import os
import stat
import time
from pathlib import Path

import pytest
from debian.deb822 import Deb822
from making.carried import FOLDED, Cart
from making.keys import make_key
from making.plans import EPOCH, make_package

from rootfsbuild.errors import IntegrityError, StorageError, TargetError, UntrustedError, UsageError
from rootfsbuild.events import Progress, Published, StageStarted, ignore
from rootfsbuild.formats.deb.cleartext import split_inrelease
from rootfsbuild.formats.deb.metadata import load_index
from rootfsbuild.formats.deb.release import parse_release
from rootfsbuild.formats.deb.repository import lay_repository
from rootfsbuild.formats.deb.trusted import check_release
from rootfsbuild.inspection.dump import dump_tree
from rootfsbuild.repository.sign import load_signer
from rootfsbuild.repository.trust import load_keyring, verify_detached, verify_inline

SUITE = "debian/dists/bookworm"
INDEX = f"{SUITE}/main/binary-amd64"


@pytest.fixture
def cart(tmp_path):
    return Cart(tmp_path / "cart")


@pytest.fixture
def lay(tmp_path, cart):
    """Lay out a repository and return its path; `signed` with a key of our own."""

    own = load_signer(cart.signer())

    def run(contents, *, signed=False, keys=None, name="repository", report=ignore):
        target = tmp_path / name
        lay_repository(str(target), contents, cart.keys() if keys is None else keys, own if signed else None, report)
        return target

    return run


def files(root):
    return sorted(str(path.relative_to(root)) for path in Path(root).rglob("*") if path.is_file())


def pool(root):
    return [name for name in files(root) if "/pool/" in name]


def nothing_left(tmp_path):
    return [name for name in os.listdir(tmp_path) if name != "cart"] == []


def sources(root, archive="debian"):
    text = (root / f"{archive}.sources").read_text()
    return [{key: value.strip() for key, value in one.items()} for one in Deb822.iter_paragraphs(text.splitlines())]


def packages(root, index=INDEX):
    return (root / index / "Packages").read_text()


def test_original_documents_and_indexes_are_laid_byte_for_byte(cart, lay):
    alpha, beta = cart.make("alpha"), cart.make("beta")
    proof = cart.prove(alpha, beta, forms=("InRelease", "Release", "Release.gpg"))
    root = lay(cart.contents(proof, packages=[alpha]))
    (path, index), (listed,) = next(iter(proof.indexes.items())), proof.snapshot.indexes
    assert {f"debian/{name}": data for name, data in proof.documents.items()} == {
        name: (root / name).read_bytes() for name in files(root) if "Release" in name
    }
    for name in (path, f"main/binary-amd64/by-hash/SHA256/{listed.sha256}"):
        assert (root / SUITE / name).read_bytes() == Path(index).read_bytes()
    assert pool(root) == [f"debian/{alpha.filename}"]
    assert (root / "debian" / alpha.filename).read_bytes() == Path(cart.blobs[alpha]).read_bytes()
    assert (root / "keys/debian.gpg").read_bytes() == cart.keys()["debian"]


def test_own_lists_hold_what_is_carried_as_it_was_signed_and_nothing_else(cart, lay):
    beta, alpha, _ = cart.make("beta"), cart.make("alpha", Depends="beta"), cart.make("gamma")
    root = lay(cart.contents(cart.prove(*cart.blobs), packages=[beta, alpha]), signed=True)
    text = cart.stanzas[alpha] + "\n" + cart.stanzas[beta] + "\n"
    assert FOLDED.format(name="alpha") in text
    assert packages(root) == text
    assert lzma.decompress((root / INDEX / "Packages.xz").read_bytes()).decode() == text
    assert gzip.decompress((root / INDEX / "Packages.gz").read_bytes()).decode() == text


def test_own_release_lists_each_form_and_each_is_there_by_its_hash(cart, lay):
    root = lay(cart.contents(cart.prove(cart.make())), signed=True)
    release = parse_release((root / SUITE / "Release").read_bytes(), "Release")
    names = ["Packages", "Packages.gz", "Packages.xz"]
    assert sorted(release.indexes) == [f"main/binary-amd64/{name}" for name in names]
    for index in release.indexes.values():
        plain = root / SUITE / index.path
        data = plain.read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (index.size, index.sha256)
        assert (plain.parent / "by-hash/SHA256" / index.sha256).read_bytes() == data


def test_own_release_says_of_itself_what_the_archive_said(cart, lay):
    said = {"origin": "Debian", "label": "Debian Backports", "NotAutomatic": "yes", "ButAutomaticUpgrades": "yes"}
    proof = cart.prove(cart.make(), suite="bookworm-backports", valid_until=EPOCH + 5, **said)
    root = lay(cart.contents(proof), signed=True)
    release = parse_release((root / "debian/dists/bookworm-backports/Release").read_bytes(), "Release")
    own = parse_release(split_inrelease(proof.documents["dists/bookworm-backports/InRelease"]), "InRelease")
    assert dataclasses.replace(release, indexes={}) == dataclasses.replace(
        own, indexes={}, valid_until=None, architectures=("amd64",)
    )
    assert release.not_automatic
    assert release.date == EPOCH
    check_release(release, asked_suite="bookworm-backports", now=EPOCH + 1, last_date=None, max_age_days=None)


def test_own_documents_are_signed_in_both_forms(cart, lay, tmp_path):
    root = lay(cart.contents(cart.prove(cart.make())), signed=True)
    keyring = load_keyring([("", str(root / "keys/repository.gpg"))])
    assert files(root / "keys") == ["repository.gpg"]
    read = {name: (root / SUITE / name).read_bytes() for name in ("InRelease", "Release", "Release.gpg")}
    verify_detached(read["Release"], read["Release.gpg"], keyring, time.time())
    verify_inline(read["InRelease"], keyring, time.time())
    assert split_inrelease(read["InRelease"]).strip() == read["Release"].strip()


@pytest.mark.parametrize("signed", [False, True])
def test_the_same_contents_give_the_same_tree(cart, lay, signed, monkeypatch):
    security = cart.make("sec", archive="debian-security")
    two = [cart.make("alpha"), cart.make("beta", architecture="amd64")]
    proofs = [
        cart.prove(*two),
        cart.prove(security, archive="debian-security", suite="bookworm-security", date=EPOCH + 7),
    ]
    keys = cart.keys("debian", "debian-security")
    first = lay(cart.contents(*proofs), signed=signed, keys=keys)
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    time.tzset()
    mask = os.umask(0o077)
    try:
        packages = [*reversed(cart.blobs), security]
        second = lay(cart.contents(*reversed(proofs), packages=packages), signed=signed, keys=keys, name="second")
    finally:
        os.umask(mask)
        monkeypatch.undo()
        time.tzset()
    one, other = (dump_tree(str(root), times=True) for root in (first, second))
    assert one.keys() == other.keys()
    differing = {name.rpartition("/")[2] for name in one if one[name] != other[name]}
    assert differing <= ({"InRelease", "Release", "Release.gpg"} if signed else set())
    for name in files(first):
        if name.endswith("/Release"):
            assert (first / name).read_bytes() == (second / name).read_bytes()


def test_modes_and_times_are_those_of_the_archive(cart, lay):
    old = cart.prove(cart.make("alpha"))
    late = cart.prove(cart.make("sec", archive="more"), archive="more", suite="extra", date=EPOCH + 7)
    root = lay(cart.contents(old, late), keys=cart.keys("debian", "more"))
    for path in (root, *root.rglob("*")):
        status = path.stat()
        assert stat.S_IMODE(status.st_mode) == (0o755 if path.is_dir() else 0o644)
        assert status.st_mtime == (EPOCH if SUITE in str(path) and path.is_file() else EPOCH + 7), path


def test_signed_documents_are_as_new_as_their_signatures(cart, lay):
    # A web server would otherwise tell apt that nothing has changed since an earlier layout of the same moment.
    before = int(time.time())
    root = lay(cart.contents(cart.prove(cart.make())), signed=True)
    assert all((root / SUITE / name).stat().st_mtime >= before for name in ("InRelease", "Release", "Release.gpg"))
    assert (root / INDEX / "Packages").stat().st_mtime == EPOCH


def test_files_of_the_store_are_left_as_they_are(cart, lay):
    alpha = cart.make()
    os.chmod(cart.blobs[alpha], 0o600)
    before = os.stat(cart.blobs[alpha])
    lay(cart.contents(cart.prove(alpha)))
    after = os.stat(cart.blobs[alpha])
    assert (after.st_mode, after.st_nlink, after.st_mtime_ns) == (before.st_mode, 1, before.st_mtime_ns)


def test_a_list_of_sources_names_exactly_what_is_there(cart, lay):
    alpha = cart.make("alpha", architecture="amd64")
    both = cart.make("both")
    proofs = [
        cart.prove(alpha, both, valid_until=EPOCH + 9),
        cart.prove(both, suite="bookworm-updates"),
        cart.prove(both, suite="bookworm-backports"),
    ]
    (plain, ends) = sorted(sources(lay(cart.contents(*proofs))), key=lambda one: "Check-Valid-Until" in one)
    assert plain == {
        "Types": "deb",
        "URIs": "file:/srv/packages/debian",
        "Suites": "bookworm-backports bookworm-updates",
        "Components": "main",
        "Architectures": "amd64",
        "Targets": "Packages",
        "Languages": "none",
        "PDiffs": "no",
        "Signed-By": "/srv/packages/keys/debian.gpg",
    }
    assert ends == {**plain, "Suites": "bookworm", "Check-Valid-Until": "no"}
    (own,) = sources(lay(cart.contents(*proofs), signed=True, name="own"))
    names = "bookworm bookworm-backports bookworm-updates"
    assert own == {**plain, "Suites": names, "Signed-By": "/srv/packages/keys/repository.gpg"}


def test_architectures_share_documents_and_pool(cart, lay):
    both, arm = cart.make("both"), cart.make("arm", architecture="arm64")
    others = {"main/binary-arm64/Packages.xz": lzma.compress(f"{cart.stanzas[arm]}\n{cart.stanzas[both]}".encode())}
    one = cart.prove(both, others=others)
    ((name, data),) = others.items()
    file = cart.folder / "arm64"
    file.write_bytes(data)
    two = dataclasses.replace(
        one, snapshot=dataclasses.replace(one.snapshot, architecture="arm64"), indexes={name: str(file)}
    )
    for signed in (False, True):
        root = lay(cart.contents(one, two), signed=signed, name=f"signed-{signed}")
        assert [source["Architectures"] for source in sources(root)] == ["amd64 arm64"]
        assert pool(root) == [f"debian/{package.filename}" for package in (arm, both)]
    assert packages(root) == cart.stanzas[both] + "\n"
    assert packages(root, f"{SUITE}/main/binary-arm64") == f"{cart.stanzas[arm]}\n{cart.stanzas[both]}\n"


def test_the_newest_of_several_moments_is_laid_out(cart, lay):
    alpha, beta = cart.make("alpha"), cart.make("beta")
    late = cart.prove(alpha, beta, date=EPOCH + 100)
    root = lay(cart.contents(cart.prove(alpha), late))
    assert (root / SUITE / "InRelease").read_bytes() == late.documents["dists/bookworm/InRelease"]
    assert len(pool(root)) == 2


def test_what_only_an_older_moment_proves_wants_an_own_signature(cart, lay, tmp_path):
    old, new = cart.make("alpha", "1.0-1"), cart.make("alpha", "1.1-1")
    contents = cart.contents(cart.prove(new, date=EPOCH + 100), cart.prove(old))
    with pytest.raises(UsageError, match=r"alpha 1\.0-1$") as caught:
        lay(contents)
    assert "--sign-key" in caught.value.hint
    assert nothing_left(tmp_path)
    root = lay(contents, signed=True)
    assert packages(root) == f"{cart.stanzas[old]}\n{cart.stanzas[new]}\n"
    assert parse_release((root / SUITE / "Release").read_bytes(), "Release").date == EPOCH + 100


def test_an_index_that_has_not_changed_serves_at_the_newer_moment(cart, lay):
    # The amd64 side was carried a day before the arm64 side, and its index is still the same.
    alpha, arm = cart.make("alpha"), cart.make("arm", architecture="arm64")
    old = cart.prove(alpha)
    ((path, file),) = old.indexes.items()
    plain = {"main/binary-amd64/Packages": cart.stanzas[alpha].encode(), path: Path(file).read_bytes()}
    new = cart.prove(arm, architecture="arm64", date=EPOCH + 100, others=plain)
    root = lay(cart.contents(old, new))
    assert [source["Architectures"] for source in sources(root)] == ["amd64 arm64"]
    assert (root / SUITE / path).read_bytes() == Path(file).read_bytes()


def test_of_two_moments_the_newer_paragraph_counts(cart, lay):
    alpha = cart.make("alpha")
    old = cart.prove(alpha)
    cart.stanzas[alpha] += "Task: changed\n"
    new = cart.prove(alpha, date=EPOCH + 1)
    root = lay(cart.contents(old, new), signed=True)
    assert packages(root) == cart.stanzas[alpha] + "\n"


def test_a_package_that_no_index_lists_is_not_laid_out(cart, lay, tmp_path):
    alpha = cart.make("alpha")
    forged = dataclasses.replace(alpha, size=alpha.size + 1)
    cart.blobs[forged] = cart.blobs[alpha]
    for signed in (False, True):
        with pytest.raises(UntrustedError, match="in none of the signed indexes") as caught:
            lay(cart.contents(cart.prove(alpha), packages=[forged]), signed=signed)
        assert caught.value.subject == "alpha"
        assert nothing_left(tmp_path)


def test_an_index_of_another_archive_proves_nothing(cart, lay):
    alpha = cart.make("alpha")
    proofs = [cart.prove(alpha, archive="other"), cart.prove()]
    with pytest.raises(UntrustedError, match="in none of the signed indexes"):
        lay(cart.contents(*proofs), signed=True)


@pytest.mark.parametrize("signed", [False, True])
def test_a_file_that_was_damaged_meanwhile_stops_everything(cart, lay, tmp_path, signed):
    alpha = cart.make("alpha")
    Path(cart.blobs[alpha]).write_bytes(b"other")
    with pytest.raises(IntegrityError, match=r"alpha_1\.0-1_all\.deb"):
        lay(cart.contents(cart.prove(alpha)), signed=signed)
    assert nothing_left(tmp_path)


def test_a_file_that_is_gone_is_named(cart, lay, tmp_path):
    alpha = cart.make("alpha")
    os.unlink(cart.blobs[alpha])
    with pytest.raises(StorageError, match="alpha"):
        lay(cart.contents(cart.prove(alpha)))
    assert nothing_left(tmp_path)


def test_two_packages_of_one_name_cannot_both_be_laid_out(cart, lay):
    first = cart.make("alpha")
    old = cart.prove(first)
    second = cart.make("alpha", Section="changed")
    cart.blobs[first] = cart.blobs[second]
    with pytest.raises(UntrustedError, match="another package of the same name"):
        lay(cart.contents(old, cart.prove(second, date=EPOCH + 1)), signed=True)


def test_a_package_cannot_take_the_place_of_a_document(cart, lay, tmp_path):
    alpha = cart.make("alpha")
    evil = dataclasses.replace(alpha, filename="dists/bookworm/InRelease")
    cart.stanzas[evil] = cart.stanzas[alpha].replace(alpha.filename, evil.filename)
    cart.blobs[evil] = cart.blobs[alpha]
    with pytest.raises(UntrustedError, match="claim this path"):
        lay(cart.contents(cart.prove(evil), packages=[evil]))
    assert nothing_left(tmp_path)


def test_without_a_signature_apt_would_refuse_it(cart, lay):
    alpha = cart.make("alpha")
    unsigned = cart.prove(alpha, forms=("Release",))
    unsigned = dataclasses.replace(unsigned, snapshot=dataclasses.replace(unsigned.snapshot, signers=()))
    for proof, keys in ((unsigned, None), (cart.prove(alpha), {})):
        with pytest.raises(UsageError, match="is not signed") as caught:
            lay(cart.contents(proof), keys=keys)
        assert "--sign-key" in caught.value.hint
    assert packages(lay(cart.contents(unsigned), keys={}, signed=True))


@pytest.mark.parametrize(
    ("extra", "files", "fits"),
    [
        ("", {}, True),
        ("", {"main/binary-all/Packages.xz": b"x"}, False),
        ("No-Support-for-Architecture-all: Packages\n", {"main/binary-all/Packages.xz": b"x"}, True),
        ("No-Support-for-Architecture-all: Contents\n", {"main/binary-all/Packages.xz": b"x"}, False),
    ],
)
def test_an_index_of_all_architectures_that_apt_would_ask_for(cart, lay, extra, files, fits):
    proof = cart.prove(cart.make(), others=files, architectures="all amd64", extra=extra)
    if fits:
        assert lay(cart.contents(proof))
    else:
        with pytest.raises(UsageError, match="main/binary-all/Packages"):
            lay(cart.contents(proof))
    assert lay(cart.contents(proof), signed=True, name="signed")


def test_only_an_empty_place_is_taken(cart, lay, tmp_path):
    contents = cart.contents(cart.prove(cart.make()))
    (tmp_path / "empty").mkdir()
    assert files(lay(contents, name="empty"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine").write_text("x")
    (tmp_path / "file").write_text("x")
    for name in ("full", "file", "empty"):
        before = files(tmp_path)
        with pytest.raises(TargetError) as caught:
            lay(contents, name=name)
        assert "empty one" in caught.value.hint
        assert files(tmp_path) == before


def test_the_readme_names_moments_and_keys(cart, lay):
    contents = cart.contents(cart.prove(cart.make()))
    text = (lay(contents) / "README.txt").read_text()
    assert "debian bookworm of 2023-11-14 22:13:20 UTC: main for amd64" in text
    assert f"debian: {cart.key.fingerprint}" in text
    key = make_key()
    path = cart.folder / "own.asc"
    path.write_text(str(key.secret))
    lay_repository(str(cart.folder / "own"), contents, {}, load_signer(str(path)), ignore)
    text = (cart.folder / "own/README.txt").read_text()
    assert key.fingerprint in text
    assert cart.key.fingerprint not in text


def test_progress_counts_the_packages(cart, lay, tmp_path):
    alpha = cart.make("alpha")
    events = []
    lay(cart.contents(cart.prove(alpha), packages=[alpha, alpha]), report=events.append)
    assert StageStarted("publish", alpha.size, "B") in events
    assert sum(event.amount for event in events if isinstance(event, Progress)) == alpha.size
    assert Published(str(tmp_path / "repository")) in events


def test_an_index_file_that_its_release_does_not_list_is_refused(cart, lay):
    proof = cart.prove(cart.make())
    (file,) = proof.indexes.values()
    for name in ("main/binary-s390x/Packages.xz", "main/source/Sources.xz"):
        with pytest.raises(UntrustedError, match="no index of packages"):
            lay(cart.contents(dataclasses.replace(proof, indexes={name: file})))


def test_nothing_carried_is_still_a_repository(cart, lay):
    root = lay(cart.contents(cart.prove()), signed=True)
    assert packages(root) == ""
    assert pool(root) == []


def test_a_plan_cannot_lead_out_of_the_directory(cart, lay):
    alpha = cart.make("alpha")
    evil = make_package("alpha", filename="../../evil.deb", size=alpha.size, sha256=alpha.sha256)
    cart.stanzas[evil] = cart.stanzas[alpha].replace(alpha.filename, evil.filename)
    cart.blobs[evil] = cart.blobs[alpha]
    with pytest.raises(UntrustedError, match="Filename"):
        lay(cart.contents(cart.prove(evil), packages=[evil]))


def test_documents_cannot_lead_out_of_the_directory(cart, lay, tmp_path):
    proof = cart.prove(cart.make())
    (data,) = proof.documents.values()
    for path in ("../../InRelease", "dists/./InRelease", "/InRelease"):
        with pytest.raises(UntrustedError, match="no path below"):
            lay(cart.contents(dataclasses.replace(proof, documents={path: data})))
        assert nothing_left(tmp_path)


def test_a_paragraph_as_it_was_written_from_a_kept_index_too(cart, tmp_path):
    one, two = cart.make("alpha", "1.0-1"), cart.make("alpha", "1.1-1", Provides="beta,\n gamma")
    ((_, file),) = cart.prove(cart.make("first"), one, two).indexes.items()
    digest = hashlib.sha256(Path(file).read_bytes()).hexdigest()
    for _ in range(2):
        index = load_index(file, digest, str(tmp_path / "shelves"))
        found = [index.as_written(paragraph).decode() + "\n" for paragraph in index.paragraphs("alpha")]
        assert found == [cart.stanzas[one], cart.stanzas[two]]
        index.keep()
    assert os.listdir(tmp_path / "shelves")


def test_documents_that_the_keys_do_not_fit_are_noticed_here(cart, lay, tmp_path):
    for forms in (("InRelease",), ("Release", "Release.gpg")):
        proof = cart.prove(cart.make(), forms=forms)
        with pytest.raises(UntrustedError, match="debian bookworm") as caught:
            lay(cart.contents(proof), keys={"debian": bytes(make_key().certificate)})
        assert "--sign-key" in caught.value.hint
        assert nothing_left(tmp_path)


def test_suites_of_one_archive_that_different_keys_sign(cart, lay):
    other = make_key()
    proofs = [cart.prove(cart.make()), cart.prove(key=other, suite="trixie")]
    root = lay(cart.contents(*proofs), keys={"debian": bytes(other.certificate) + bytes(cart.key.certificate)})
    keyring = load_keyring([("", str(root / "keys/debian.gpg"))])
    assert len(keyring.certificates) == 2


def test_each_release_has_lists_of_its_own(cart, lay):
    # One list with both would upgrade every system that reads it.
    suites = {"debian": ["bookworm", "bookworm-updates", "trixie"], "more": ["bookworm/extra", "trixie-extra"]}
    suites["tools"] = ["nodistro"]
    proofs = [cart.prove(archive=archive, suite=suite) for archive, names in suites.items() for suite in names]
    root = lay(cart.contents(*proofs), keys=cart.keys(*suites))
    lists = {path.name: Deb822(path.read_text().splitlines())["Suites"] for path in root.glob("*.sources")}
    assert lists == {
        "debian.bookworm.sources": "bookworm bookworm-updates",
        "debian.trixie.sources": "trixie",
        "more.bookworm.sources": "bookworm/extra",
        "more.trixie.sources": "trixie-extra",
        "tools.sources": "nodistro",
    }
    text = (root / "README.txt").read_text()
    assert "cp debian.bookworm.sources more.bookworm.sources tools.sources /etc/apt/sources.list.d/" in text
    assert "those above are for bookworm" in text


def test_one_release_needs_no_choice(cart, lay):
    proofs = [cart.prove(), cart.prove(archive="tools", suite="nodistro")]
    root = lay(cart.contents(*proofs), keys=cart.keys("debian", "tools"))
    text = (root / "README.txt").read_text()
    assert "cp debian.sources tools.sources /etc/apt/sources.list.d/" in text
    assert "several releases" not in text
