from __future__ import annotations

import configparser
import dataclasses
import gzip
import hashlib
import os
import stat
import time
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from making.keys import make_key
from making.plans import EPOCH
from making.rpm_carried import RpmCart, words
from making.rpmmd import comps, filelists, group
from making.rpms import I32, File, directory, ghost

from rootfsbuild.errors import IntegrityError, StorageError, TargetError, UntrustedError, UsageError
from rootfsbuild.events import Progress, Published, StageStarted, ignore
from rootfsbuild.formats.rpm import tags
from rootfsbuild.formats.rpm.metadata import Placed, load_universe
from rootfsbuild.formats.rpm.repomd import parse_repomd
from rootfsbuild.formats.rpm.repository import lay_repository
from rootfsbuild.formats.rpm.solvcache import Document
from rootfsbuild.inspection.dump import dump_tree
from rootfsbuild.repository.sign import load_signer
from rootfsbuild.repository.trust import load_keyring, verify_detached

BASE = "baseos/9/x86_64"


@pytest.fixture
def cart(tmp_path):
    return RpmCart(tmp_path / "cart")


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
    return [name for name in files(root) if name.endswith(".rpm")]


def nothing_left(tmp_path):
    return [name for name in os.listdir(tmp_path) if name != "cart"] == []


def repomd_of(root, base=BASE):
    return parse_repomd((root / base / "repodata/repomd.xml").read_bytes(), "laid out")


def read(root, kind, base=BASE):
    data = repomd_of(root, base).data[kind]
    packed = (root / base / data.href).read_bytes()
    plain = gzip.decompress(packed)
    assert (len(packed), data.checksum.value) == (data.size, hashlib.sha256(packed).hexdigest())
    assert (len(plain), data.open_checksum.value) == (data.open_size, hashlib.sha256(plain).hexdigest())
    return ET.fromstring(plain)


def names(root, base=BASE):
    return [element.text for element in read(root, "primary", base).iter() if element.tag.endswith("}name")]


def sections(root, name="packages.9.x86_64.repo"):
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string((root / name).read_text())
    return {section: dict(parser[section]) for section in parser.sections()}


def test_original_documents_and_data_are_laid_byte_for_byte(cart, lay):
    alpha, beta = cart.make("alpha"), cart.make("beta")
    proof = cart.prove(alpha, beta)
    root = lay(cart.contents(proof, packages=[alpha]))
    for path, data in proof.documents.items():
        assert (root / BASE / path).read_bytes() == data
    for path, file in proof.indexes.items():
        assert (root / BASE / path).read_bytes() == Path(file).read_bytes()
    assert pool(root) == [f"{BASE}/{alpha.filename}"]
    assert (root / BASE / alpha.filename).read_bytes() == Path(cart.blobs[alpha]).read_bytes()
    assert "other one dnf will say" in (root / "README.txt").read_text()


def test_own_lists_name_what_is_carried_and_nothing_else(cart, lay):
    beta, alpha, _ = cart.make("beta"), cart.make("alpha", requires=("beta >= 1",)), cart.make("gamma")
    root = lay(cart.contents(cart.prove(*cart.blobs), packages=[beta, alpha]), signed=True)
    assert names(root) == ["alpha", "beta"]
    assert read(root, "primary").get("packages") == "2"
    for kind in ("filelists", "other"):
        assert [one.get("name") for one in read(root, kind)] == ["alpha", "beta"]
        assert [one.get("pkgid") for one in read(root, kind)] == [alpha.sha256, beta.sha256]


def test_libsolv_reads_of_our_lists_what_it_reads_of_the_distribution(cart, lay, tmp_path):
    relations = {
        "requires": ("beta >= 1:2-3", "(gamma if delta)", "/bin/sh", "libx.so.1()(64bit)"),
        "provides": ("virtual = 1", "plain"),
        "conflicts": ("old < 2",),
        "obsoletes": ("older <= 1.0",),
        "recommends": ("docs",),
        "supplements": ("alpha-lang",),
    }
    paths = {"/usr/bin/alpha": b"x", "/etc/alpha": b"y", "/usr/share/alpha": b"z"}
    alpha = cart.make("alpha", "2:1.0~rc1", "x86_64", files=paths, main=words(), **relations)
    proof = cart.prove(alpha)
    root = lay(cart.contents(proof), signed=True)
    told = []
    for base, data in ((None, proof.indexes), (root / BASE, None)):
        documents = {}
        for kind, one in (
            parse_repomd(proof.documents["repodata/repomd.xml"], "x") if data else repomd_of(root)
        ).data.items():
            path = data[one.href] if data else str(base / one.href)
            documents[kind] = Document(path, one.sha256, one.href)
        placed = Placed("baseos", "9", documents["primary"], documents["filelists"])
        universe = load_universe([placed], "x86_64", str(tmp_path / "cart/cache"))
        universe.load_filelists()
        (one,) = universe.named("alpha")
        keys = [getattr(universe.solv, f"SOLVABLE_{kind.upper()}") for kind in relations]
        fields = {key: sorted(str(text) for text in one.lookup_deparray(key)) for key in keys}
        owned = [path for path in paths if universe.owning(path)]
        told.append(
            (
                str(one),
                fields,
                owned,
                one.lookup_location()[0],
                str(one.lookup_checksum(universe.solv.SOLVABLE_CHECKSUM)),
            )
        )
    assert told[0] == told[1]
    assert told[0][2] == list(paths)


def test_what_a_header_says_for_people(cart, lay):
    content = {"/d": directory(), "/d/ghost": ghost(), "/d/\N{SNOWMAN}&": File(b"x")}
    alpha = cart.make("alpha", files=content, main=words())
    root = lay(cart.contents(cart.prove(alpha)), signed=True)
    (package,) = read(root, "primary")
    said = {element.tag.rpartition("}")[2]: element for element in package.iter()}
    assert said["description"].text == "It does nothing,\nand that <well> & safely."
    assert said["url"].text == "https://example.org/?a=1&b=2"
    assert said["time"].attrib == {"file": str(EPOCH), "build": str(EPOCH - 9)}
    assert said["size"].attrib["package"] == str(alpha.size)
    start, end = (int(said["header-range"].get(key)) for key in ("start", "end"))
    blob = Path(cart.blobs[alpha]).read_bytes()
    assert blob[start : start + 3] == b"\x8e\xad\xe8"
    assert blob[end : end + 3] == b"\xfd7z"
    (listed,) = read(root, "filelists")
    assert [(one.get("type"), one.text) for one in listed][1:] == [
        ("dir", "/d"),
        ("ghost", "/d/ghost"),
        (None, "/d/\N{SNOWMAN}&"),
    ]
    (changes,) = read(root, "other")
    assert [one.text for one in changes][1:] == [f"- change {number} & more" for number in range(9, -1, -1)]


def test_prerequisites_are_marked_and_what_rpm_itself_can_do_is_no_package(cart, lay):
    senses = {tags.REQUIREFLAGS: (I32, [10 | 1 << 24, 1 << 9, 1 << 9, 1 << 10, 0, 8 | 1 << 6, 1 << 11])}
    wanted = ("rpmlib(X) <= 1", "sh", "sh", "post", "plain", "old = 1", "preun")
    alpha = cart.make("alpha", requires=wanted, main=senses)
    promised = (("Provides", alpha.field("Provides")), ("Requires", ", ".join(wanted[1:])))
    carried = dataclasses.replace(alpha, control=promised)
    cart.listed[carried], cart.blobs[carried] = cart.listed[alpha], cart.blobs[alpha]
    root = lay(cart.contents(cart.prove(alpha), packages=[carried]), signed=True)
    entries = next(one for one in read(root, "primary").iter() if one.tag.endswith("}requires"))
    marked = [(one.get("name"), one.get("pre")) for one in entries]
    assert marked == [("sh", "1"), ("post", "1"), ("plain", None), ("old", "1"), ("preun", None)]


def test_own_documents_are_signed(cart, lay):
    root = lay(cart.contents(cart.prove(cart.make())), signed=True)
    repodata = root / BASE / "repodata"
    keyring = load_keyring([("", str(root / "keys/repository.asc"))])
    body, signature = (repodata / "repomd.xml").read_bytes(), (repodata / "repomd.xml.asc").read_bytes()
    verify_detached(body, signature, keyring, time.time())
    assert signature.startswith(b"-----BEGIN PGP SIGNATURE-----")
    assert (repodata / "repomd.xml.key").read_bytes() == (root / "keys/repository.asc").read_bytes()
    assert repomd_of(root).timestamp == EPOCH


def test_groups_and_modules_come_along(cart, lay):
    kinds = {"group": comps(group("core", mandatory=("alpha",))), "modules": b"---\n"}
    proof = cart.prove(cart.make(), kinds=kinds)
    root = lay(cart.contents(proof), signed=True)
    found = repomd_of(root)
    assert set(found.data) == {"primary", "filelists", "other", "group", "modules"}
    for kind, plain in kinds.items():
        data = (root / BASE / found.data[kind].href).read_bytes()
        assert gzip.decompress(data) == plain
        assert hashlib.sha256(data).hexdigest() == found.data[kind].sha256
        assert found.data[kind].href.count("-") == 1


@pytest.mark.parametrize("signed", [False, True])
def test_the_same_contents_give_the_same_tree(cart, lay, signed, monkeypatch):
    more = cart.make("more", archive="appstream")
    two = [cart.make("alpha"), cart.make("beta", arch="x86_64")]
    proofs = [cart.prove(*two), cart.prove(more, archive="appstream", date=EPOCH + 7)]
    keys = cart.keys("baseos", "appstream")
    first = lay(cart.contents(*proofs), signed=signed, keys=keys)
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    time.tzset()
    mask = os.umask(0o077)
    try:
        packages = [*reversed(cart.blobs), more]
        second = lay(cart.contents(*reversed(proofs), packages=packages), signed=signed, keys=keys, name="second")
    finally:
        os.umask(mask)
        monkeypatch.undo()
        time.tzset()
    one, other = (dump_tree(str(root), times=True) for root in (first, second))
    assert one.keys() == other.keys()
    differing = {name.rpartition("/")[2] for name in one if one[name] != other[name]}
    assert differing <= ({"repomd.xml", "repomd.xml.asc"} if signed else set())
    for name in files(first):
        if name.endswith("/repomd.xml"):
            assert (first / name).read_bytes() == (second / name).read_bytes()


def test_modes_and_times_are_those_of_the_repository(cart, lay):
    root = lay(cart.contents(cart.prove(cart.make())))
    for path in (root, *root.rglob("*")):
        status = path.stat()
        assert stat.S_IMODE(status.st_mode) == (0o755 if path.is_dir() else 0o644)
        assert status.st_mtime == EPOCH, path


def test_signed_documents_are_as_new_as_their_signatures(cart, lay):
    # A web server would otherwise tell dnf that nothing has changed since an earlier layout of the same moment.
    before = int(time.time())
    root = lay(cart.contents(cart.prove(cart.make())), signed=True)
    assert all((root / BASE / "repodata" / name).stat().st_mtime >= before for name in ("repomd.xml", "repomd.xml.asc"))


def test_repo_files_name_exactly_what_is_there(cart, lay):
    keys = cart.keys("baseos", "appstream")
    proofs = [cart.prove(cart.make()), cart.prove(archive="appstream", signed=False)]
    plain = {
        "baseurl": "file:///srv/packages/baseos/9/x86_64",
        "enabled": "1",
        "gpgcheck": "1",
        "gpgkey": "file:///srv/packages/keys/baseos.asc",
        "metadata_expire": "60",
        "name": "baseos 9 for x86_64, as it was carried here",
        "repo_gpgcheck": "1",
    }
    found = sections(lay(cart.contents(*proofs), keys=keys))
    assert found["packages-baseos"] == plain
    assert found["packages-appstream"]["repo_gpgcheck"] == "0"
    both = "file:///srv/packages/keys/repository.asc file:///srv/packages/keys/baseos.asc"
    found = sections(lay(cart.contents(*proofs), keys=keys, signed=True, name="own"))
    assert found["packages-baseos"] == {**plain, "gpgkey": both}
    assert found["packages-appstream"]["repo_gpgcheck"] == "1"
    own = sections(lay(cart.contents(*proofs), keys={}, signed=True, name="without"))["packages-baseos"]
    assert own == {**plain, "gpgcheck": "0", "gpgkey": "file:///srv/packages/keys/repository.asc"}


def test_each_release_and_architecture_has_a_file_of_its_own(cart, lay):
    # One with both would upgrade every system that reads it.
    alpha = cart.make()
    proofs = [
        cart.prove(alpha),
        cart.prove(alpha, suite="10", date=EPOCH + 1),
        cart.prove(alpha, architecture="aarch64"),
    ]
    for signed in (False, True):
        root = lay(cart.contents(*proofs), signed=signed, name=f"signed-{signed}")
        assert [path.name for path in sorted(root.glob("*.repo"))] == [
            "packages.10.x86_64.repo",
            "packages.9.aarch64.repo",
            "packages.9.x86_64.repo",
        ]
        assert pool(root) == [f"baseos/{place}/{alpha.filename}" for place in ("10/x86_64", "9/aarch64", "9/x86_64")]
        assert "packages.10.x86_64.repo is that of 10 on x86_64" in (root / "README.txt").read_text()


def test_the_newest_of_several_moments_is_laid_out(cart, lay):
    alpha, beta = cart.make("alpha"), cart.make("beta")
    late = cart.prove(alpha, beta, date=EPOCH + 100)
    root = lay(cart.contents(cart.prove(alpha), late))
    assert (root / BASE / "repodata/repomd.xml").read_bytes() == late.documents["repodata/repomd.xml"]
    assert len(pool(root)) == 2


def test_what_only_an_older_moment_proves_wants_an_own_signature(cart, lay, tmp_path):
    old, new = cart.make("alpha", "1.0"), cart.make("alpha", "1.10")
    middle = cart.make("alpha", "1.9")
    contents = cart.contents(cart.prove(new, date=EPOCH + 100), cart.prove(old, middle))
    with pytest.raises(UsageError, match=r"alpha 1\.0-1, alpha 1\.9-1$") as caught:
        lay(contents)
    assert "--sign-key" in caught.value.hint
    assert nothing_left(tmp_path)
    root = lay(contents, signed=True)
    versions = [one.get("ver") for one in read(root, "primary").iter() if one.tag.endswith("}version")]
    assert versions == ["1.0", "1.9", "1.10"]
    assert repomd_of(root).timestamp == EPOCH + 100


def test_what_several_locks_share_of_one_document_comes_together(cart, lay):
    alpha = cart.make()
    some, others = (cart.prove(alpha, here=here) for here in (("primary",), ("primary", "filelists")))
    root = lay(cart.contents(some, others))
    assert {path.rpartition("-")[2] for path in files(root) if "repodata" in path} >= {"filelists.xml.gz"}


def test_data_that_dnf_would_ask_for_are_missed_here(cart, lay, tmp_path):
    proof = cart.prove(cart.make(), here=("primary",), kinds={"updateinfo": b"<updates/>", "other": b"<o/>"})
    with pytest.raises(UsageError, match="dnf would ask for filelists, updateinfo,") as caught:
        lay(cart.contents(proof))
    assert "--sign-key" in caught.value.hint
    assert nothing_left(tmp_path)
    assert lay(cart.contents(proof), signed=True)


def test_data_in_parts_are_asked_for_before_others(cart, lay):
    extra = '<data type="primary_zck"><checksum type="sha256">' + "0" * 64
    extra += '</checksum><location href="repodata/p.zck"/><size>1</size></data>'
    with pytest.raises(UsageError, match="primary_zck"):
        lay(cart.contents(cart.prove(cart.make(), extra=extra)))


def test_a_package_that_no_index_lists_is_not_laid_out(cart, lay, tmp_path):
    alpha = cart.make("alpha")
    for change in ({"size": alpha.size + 1}, {"filename": "Packages/other.rpm"}, {"version": "2"}, {"archive": "more"}):
        forged = dataclasses.replace(alpha, **change)
        cart.blobs[forged] = cart.blobs[alpha]
        proofs = [cart.prove(alpha), cart.prove(archive="more")]
        for signed in (False, True):
            with pytest.raises(UntrustedError, match="in none of the signed indexes") as caught:
                lay(cart.contents(*proofs, packages=[forged]), keys=cart.keys("baseos", "more"), signed=signed)
            assert caught.value.subject == "alpha"
            assert nothing_left(tmp_path)


def test_a_package_whose_header_says_something_else_is_not_listed(cart, lay, tmp_path):
    alpha = cart.make("alpha")
    control = (("Provides", alpha.field("Provides")), ("Requires", "something"))
    changed = dataclasses.replace(alpha, control=control)
    cart.blobs[changed] = cart.blobs[alpha]
    with pytest.raises(UntrustedError, match="it requires something"):
        lay(cart.contents(cart.prove(alpha), packages=[changed]), signed=True)
    assert nothing_left(tmp_path)


@pytest.mark.parametrize("signed", [False, True])
def test_a_file_that_was_damaged_meanwhile_stops_everything(cart, lay, tmp_path, signed):
    alpha = cart.make("alpha")
    Path(cart.blobs[alpha]).write_bytes(b"other")
    with pytest.raises(IntegrityError, match=r"alpha-1\.0-1\.noarch\.rpm"):
        lay(cart.contents(cart.prove(alpha)), signed=signed)
    assert nothing_left(tmp_path)


def test_a_file_that_is_gone_is_named(cart, lay, tmp_path):
    alpha = cart.make("alpha")
    os.unlink(cart.blobs[alpha])
    with pytest.raises(StorageError, match=r"alpha|baseos-"):
        lay(cart.contents(cart.prove(alpha)))
    assert nothing_left(tmp_path)


def test_two_packages_of_one_place_cannot_both_be_laid_out(cart, lay):
    first = cart.make("alpha")
    second = cart.make("alpha", files={"/usr/share/other": b"x"})
    proofs = [cart.prove(first), cart.prove(second, date=EPOCH + 1)]
    with pytest.raises(UntrustedError, match="another package of the same name"):
        lay(cart.contents(*proofs), signed=True)


def test_a_plan_cannot_lead_out_of_the_directory(cart, lay, tmp_path):
    alpha = cart.make("alpha")
    for filename in ("../../evil.rpm", "/evil.rpm", "repodata/repomd.xml"):
        evil = dataclasses.replace(alpha, filename=filename)

        class Evil(type(cart.listed[alpha])):
            href = filename

        cart.listed[evil] = Evil(**{f.name: getattr(cart.listed[alpha], f.name) for f in dataclasses.fields(Evil)})
        cart.blobs[evil] = cart.blobs[alpha]
        for signed in (False, True):
            with pytest.raises(UntrustedError, match=r"no path below|claim this path|none of the signed"):
                lay(cart.contents(cart.prove(evil), packages=[evil]), signed=signed)
            assert nothing_left(tmp_path)


def test_data_that_the_document_does_not_list_are_refused(cart, lay):
    proof = cart.prove(cart.make())
    (file, *_) = proof.indexes.values()
    with pytest.raises(UntrustedError, match="does not list repodata/x"):
        lay(cart.contents(dataclasses.replace(proof, indexes={"repodata/x": file})))
    (first, second) = proof.indexes
    swapped = {first: proof.indexes[second], second: proof.indexes[first]}
    with pytest.raises(UntrustedError, match="lists another file"):
        lay(cart.contents(dataclasses.replace(proof, indexes=swapped)))


def test_only_an_empty_place_is_taken(cart, lay, tmp_path):
    contents = cart.contents(cart.prove(cart.make()))
    (tmp_path / "empty").mkdir()
    assert files(lay(contents, name="empty"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine").write_text("x")
    for name in ("full", "empty"):
        with pytest.raises(TargetError) as caught:
            lay(contents, name=name)
        assert "empty one" in caught.value.hint


def test_the_readme_names_moments_and_keys(cart, lay):
    contents = cart.contents(cart.prove(cart.make()))
    text = (lay(contents) / "README.txt").read_text()
    assert "baseos 9 for x86_64 of 2023-11-14 22:13:20 UTC" in text
    assert f"baseos.asc: {cart.key.fingerprint}" in text
    assert "{" not in text
    text = (lay(contents, signed=True, name="own") / "README.txt").read_text()
    assert "exactly the packages that are here" in text
    assert load_signer(str(cart.folder / "secret.asc")).fingerprint in text
    unsigned = cart.contents(cart.prove(*cart.blobs, signed=False))
    assert "its list of packages not signed" in (lay(unsigned, name="unsigned") / "README.txt").read_text()


def test_progress_counts_the_packages(cart, lay, tmp_path):
    alpha = cart.make("alpha")
    events = []
    lay(cart.contents(cart.prove(alpha), packages=[alpha, alpha]), report=events.append)
    assert StageStarted("publish", alpha.size, "B") in events
    assert sum(event.amount for event in events if isinstance(event, Progress)) == alpha.size
    assert Published(str(tmp_path / "repository")) in events


def test_documents_that_the_keys_do_not_fit_are_noticed_here(cart, lay, tmp_path):
    proof = cart.prove(cart.make())
    with pytest.raises(UntrustedError, match="baseos/9/x86_64") as caught:
        lay(cart.contents(proof), keys={"baseos": bytes(make_key().certificate)})
    assert "--sign-key" in caught.value.hint
    with pytest.raises(UsageError, match="has no key"):
        lay(cart.contents(proof), keys={})
    assert nothing_left(tmp_path)


def test_repositories_of_one_name_that_different_keys_sign(cart, lay):
    other = make_key()
    proofs = [cart.prove(cart.make()), cart.prove(key=other, suite="10")]
    root = lay(cart.contents(*proofs), keys={"baseos": bytes(other.certificate) + bytes(cart.key.certificate)})
    assert len(load_keyring([("", str(root / "keys/baseos.asc"))]).certificates) == 2
    assert (root / "keys/baseos.asc").read_text().count("-----BEGIN PGP PUBLIC KEY BLOCK-----") == 2


def test_nothing_carried_is_still_a_repository(cart, lay):
    root = lay(cart.contents(cart.prove()), signed=True)
    assert names(root) == []
    assert filelists([])
