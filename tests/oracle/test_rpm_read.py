"""Packages that rpmbuild made and rpmsign signed, as rpm itself reads and installs them."""

from __future__ import annotations

import gzip
import html
import os
import re
import shutil
import stat
import subprocess
import time

import pytest
from making.keys import make_key
from making.rpms import File, directory, flipped, hard_links, link, make_rpm

from rootfsbuild.errors import PackageError, UntrustedError
from rootfsbuild.formats.rpm import tags
from rootfsbuild.formats.rpm.archive import open_rpm
from rootfsbuild.formats.rpm.capability import encode_capabilities
from rootfsbuild.formats.rpm.files import Flag
from rootfsbuild.formats.rpm.identity import evr_of
from rootfsbuild.formats.rpm.signature import check
from rootfsbuild.repository.trust import load_keyring
from rootfsbuild.rootfs.entries import Kind

TOOLS = ("rpm", "rpmbuild", "rpmkeys", "rpmsign", "rpm2cpio", "gpg", "setcap")
MISSING = [tool for tool in TOOLS if shutil.which(tool) is None]
pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(bool(MISSING), reason=f"not here: {', '.join(MISSING)}: install rpm, gnupg and libcap2-bin"),
]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="rpm installs as root only")
PAYLOADS = ("w9.gzdio", "w2.xzdio", "w3.zstdio", "w9.bzdio", "w2.lzdio", "w.ufdio")
KINDS = {"rsa": "rsa2048", "dsa": "dsa2048", "eddsa": "ed25519"}
LIMIT = 1 << 24
MTIME = 1_600_000_000
SPEC = r"""
Name: alpha
Version: 1.0
Release: 2
Epoch: 3
Summary: an oracle
License: MIT
Requires: bash, (foo if bar)
%description
None.
%install
cd %{buildroot}
mkdir -p usr/bin usr/share/doc/alpha var/log/alpha opt etc
echo hello > usr/bin/hello
ln usr/bin/hello usr/bin/hello-too
ln usr/bin/hello opt/hello
ln -s hello usr/bin/link
: > opt/empty
ln opt/empty opt/empty-too
echo doc > usr/share/doc/alpha/README
echo conf > etc/alpha.conf
head -c 300000 /dev/urandom > opt/large
echo "new
line" > "opt/sp ace"
touch var/log/alpha/ghost
find . -exec touch -h -d @MTIME {} +
%files
%attr(4755,root,root) /usr/bin/hello
%attr(4755,root,root) /usr/bin/hello-too
%attr(4755,root,root) /opt/hello
/usr/bin/link
/opt/empty
/opt/empty-too
%caps(cap_net_raw=ep) /opt/large
"/opt/sp ace"
%config(noreplace) %attr(0600,games,users) /etc/alpha.conf
%dir %attr(1750,root,daemon) /var/log/alpha
%ghost /var/log/alpha/ghost
%doc /usr/share/doc/alpha
""".replace("MTIME", f"{MTIME}")


def run(*command, **more):
    return subprocess.run(command, check=True, capture_output=True, timeout=100, **more).stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Payload -> the package that rpmbuild makes with it."""
    folder = tmp_path_factory.mktemp("rpmbuild")
    (folder / "alpha.spec").write_text(SPEC)
    packages = {}
    for payload in PAYLOADS:
        settings = {
            "_buildshell": "/bin/bash",
            "_topdir": f"{folder}/top",
            "_rpmdir": f"{folder}/{payload}",
            "_binary_payload": payload,
            "__os_install_post": "%{nil}",
            "debug_package": "%{nil}",
            "_build_id_links": "none",
        }
        defines = [part for name, value in settings.items() for part in ("--define", f"{name} {value}")]
        run("rpmbuild", *defines, "-bb", folder / "alpha.spec")
        (packages[payload],) = (folder / payload).rglob("*.rpm")
    return packages


@pytest.fixture(scope="module")
def gpg(tmp_path_factory):
    """Kind of key -> (name, file with its certificate), and the home that signs with them."""
    home = tmp_path_factory.mktemp("gpg")
    home.chmod(0o700)
    quiet = ["gpg", "--homedir", home, "--batch", "--pinentry-mode", "loopback", "--passphrase", ""]
    keys = {}
    for kind, algorithm in KINDS.items():
        name = f"{kind}@example.org"
        run(*quiet, "--quick-generate-key", name, algorithm, "sign", "1y")
        (home / kind).write_bytes(run(*quiet, "--armor", "--export", name))
        keys[kind] = (name, str(home / kind))
    yield home, keys
    subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=False)


def signed(gpg, kind, source, target, *options):
    home, keys = gpg
    shutil.copy(source, target)
    name = ("--define", f"_gpg_name {keys[kind][0]}", "--define", f"__gpg {shutil.which('gpg')}")
    run("rpmsign", *name, *options, "--addsign", target, env={**os.environ, "GNUPGHOME": str(home)})
    return str(target), load_keyring([("", keys[kind][1])])


def read(path, keyring=None, **options):
    rpm = open_rpm(str(path), "alpha", **options)
    try:
        signers = check(rpm.fd, rpm.head, keyring=keyring, now=time.time())
        return rpm, signers, [(entry, b"".join(content)) for entry, content in rpm.entries(LIMIT)]
    finally:
        os.close(rpm.fd)


def query(path, form):
    return run("rpm", "-qp", "--nosignature", "--qf", form, path)


@pytest.mark.parametrize("payload", PAYLOADS)
def test_every_payload_of_rpmbuild(built, payload):
    _, _, entries = read(built[payload])
    found = {entry.path: (entry, content) for entry, content in entries}
    assert len(found[b"opt/large"][1]) == 300_000
    assert found[b"opt/sp ace"][1] == b"new\nline\n"
    links = [
        (entry.path, entry.kind, content)
        for entry, content in entries
        if entry.path.rpartition(b"/")[2][:5] == b"hello"
    ]
    assert links == [
        (b"opt/hello", Kind.FILE, b"hello\n"),
        (b"usr/bin/hello", Kind.HARDLINK, b""),
        (b"usr/bin/hello-too", Kind.HARDLINK, b""),
    ]
    assert b"var/log/alpha/ghost" not in found


def test_header_as_rpm_reads_it(built):
    rpm, _, _ = read(built["w2.xzdio"])
    assert query(built["w2.xzdio"], "%{epoch}:%{version}-%{release}").decode() == evr_of(rpm.header)
    for tag, name in (
        (tags.REQUIRENAME, "requirename"),
        (tags.PROVIDENAME, "providename"),
        (tags.REQUIREVERSION, "requireversion"),
    ):
        assert query(built["w2.xzdio"], f"[%{{{name}}}\n]").split(b"\n")[:-1] == list(rpm.header.strings(tag))


def test_files_as_rpm_reads_them(built):
    rpm, _, _ = read(built["w2.xzdio"])
    form = (
        "[%{filenames}\t%{filemodes}\t%{fileusername}\t%{filegroupname}\t%{filemtimes}\t%{filesizes}\t%{filedigests}"
        "\t%{filelinktos}\t%{fileflags}\t%{filerdevs}\t%{fileinodes}\t%{filecolors}\t%{filecaps}\t%{filelangs}\n]"
    )
    ours = [
        b"\t".join(
            [
                b"/" + file.path,
                b"%d" % file.mode,
                file.user,
                file.group,
                b"%d" % file.mtime,
                b"%d" % file.size,
                file.digest.encode(),
                file.target,
                b"%d" % file.flags,
                b"%d" % file.rdev,
                b"%d" % file.inode,
                b"%d" % file.colour,
                file.caps,
                file.langs,
            ]
        )
        for file in rpm.files
    ]
    assert query(built["w2.xzdio"], form).split(b"\n")[:-1] == ours
    flags = {file.path: Flag(file.flags) for file in rpm.files}
    assert flags[b"etc/alpha.conf"] == Flag.CONFIG | Flag.NOREPLACE
    assert flags[b"var/log/alpha/ghost"] == Flag.GHOST


def test_payload_as_rpm2cpio_unpacks_it(built):
    from rootfsbuild.formats.rpm.cpio import read_members

    plain = run("rpm2cpio", built["w3.zstdio"])
    members = {member.name: b"".join(content) for member, content in read_members([plain], "alpha")}
    _, _, entries = read(built["w3.zstdio"])
    large = next(content for entry, content in entries if entry.path == b"opt/large")
    assert members[b"./opt/large"] == large


@needs_root
def test_tree_as_rpm_installs_it(built, tmp_path):
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\ngames:x:5:60::/:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\ndaemon:x:1:\nusers:x:100:\n")
    run("rpm", "--root", root, "--dbpath", "/var/lib/rpm", "--nodeps", "--nosignature", "-i", built["w3.zstdio"])
    users, groups = {b"root": 0, b"games": 5}, {b"root": 0, b"daemon": 1, b"users": 100}
    _, _, entries = read(built["w3.zstdio"], owners=lambda user, group: (users[user], groups[group]))
    first = {}
    for entry, content in entries:
        path = os.fsencode(root) + b"/" + entry.path
        status = os.lstat(path)
        if entry.kind is Kind.HARDLINK:
            assert status.st_ino == first[entry.target]
            continue
        first[entry.path] = status.st_ino
        assert (status.st_uid, status.st_gid) == (entry.uid, entry.gid)
        assert status.st_mtime_ns == entry.mtime == MTIME * 10**9 or entry.kind is Kind.DIRECTORY
        if entry.kind is Kind.SYMLINK:
            assert os.readlink(path) == entry.target
            continue
        assert stat.S_IMODE(status.st_mode) == entry.mode
        if entry.kind is Kind.FILE:
            with open(path, "rb") as file:
                assert file.read() == content
            assert (
                tuple((name, os.getxattr(path, name)) for name in os.listxattr(path) if "cap" in name) == entry.xattrs
            )
    assert not os.path.lexists(root / "var/log/alpha/ghost")
    assert next(entry for entry, _ in entries if entry.path == b"opt/large").xattrs


CREATED = r"""
Name: beta
Version: 1.0
Release: 1
Epoch: 2
Summary: what createrepo leaves out
License: MIT
Requires: /usr/bin/beta, beta-feature, (foo >= 1 if (bar or baz)), config(beta) = 2:1.0-1
Requires(pre): shadow-utils
Requires(post): /bin/sh, shadow-utils >= 2
Provides: beta-feature = 7, beta-other
%description
None.
%install
mkdir -p %{buildroot}/usr/bin %{buildroot}/etc
cp -L /bin/ls %{buildroot}/usr/bin/beta
cp -L /bin/dd %{buildroot}/usr/bin/gamma
echo conf > %{buildroot}/etc/beta.conf
%pre
:
%post
:
%files
/usr/bin/beta
/usr/bin/gamma
%config /etc/beta.conf
"""


@pytest.mark.skipif(shutil.which("createrepo_c") is None, reason="createrepo_c is not here: install createrepo-c")
def test_identity_by_the_metadata_of_createrepo(tmp_path):
    from making.plans import make_package

    from rootfsbuild.formats.rpm.identity import check_identity

    (tmp_path / "beta.spec").write_text(CREATED)
    (tmp_path / "repo").mkdir()
    settings = {"_buildshell": "/bin/bash", "_topdir": f"{tmp_path}/top", "_rpmdir": f"{tmp_path}/repo"}
    settings |= {"__os_install_post": "%{nil}", "debug_package": "%{nil}", "_build_id_links": "none"}
    defines = [part for name, value in settings.items() for part in ("--define", f"{name} {value}")]
    run("rpmbuild", *defines, "-bb", tmp_path / "beta.spec")
    (path,) = (tmp_path / "repo").rglob("*.rpm")
    run("createrepo_c", "--general-compress-type", "gz", tmp_path / "repo")
    (primary,) = (tmp_path / "repo/repodata").glob("*primary.xml*")
    said = re.findall(rb"<rpm:(requires|provides)>(.*?)</rpm:", gzip.decompress(primary.read_bytes()), re.DOTALL)
    names = {
        kind.decode(): [html.unescape(one.decode()) for one in re.findall(rb'name="([^"]*)"', text)]
        for kind, text in said
    }
    rpm, _, _ = read(path)
    # What the comparison is about is really left out, and something of glibc is there to be.
    written = {name.decode() for name in rpm.header.strings(tags.REQUIRENAME)}
    assert {"/usr/bin/beta", "rpmlib(CompressedFileNames)"} <= written - set(names["requires"])
    assert any(name.startswith("libc.so.6(") for name in names["requires"])
    control = (("Requires", ", ".join(names["requires"])), ("Provides", ", ".join(names["provides"])))
    version, architecture = evr_of(rpm.header), rpm.header.text(tags.ARCH)
    check_identity(rpm.header, rpm.files, make_package("beta", version, architecture, control=control))
    for kind in (0, 1):
        changed = [list(one) for one in control]
        changed[kind][1] = changed[kind][1].rpartition(", ")[0]
        package = make_package("beta", version, architecture, control=tuple(map(tuple, changed)))
        with pytest.raises(UntrustedError, match="not by its metadata"):
            check_identity(rpm.header, rpm.files, package)


@pytest.mark.parametrize("kind", KINDS)
def test_signatures_of_rpmsign(built, gpg, tmp_path, kind):
    path, keyring = signed(gpg, kind, built["w3.zstdio"], tmp_path / "s.rpm")
    assert read(path, keyring)[1] == tuple(certificate.fingerprint for certificate in keyring.certificates)
    others = load_keyring([("", gpg[1][other][1]) for other in KINDS if other != kind])
    with pytest.raises(UntrustedError):
        read(path, others)


def test_legacy_signatures_of_rpmsign(built, gpg, tmp_path):
    path, keyring = signed(gpg, "rsa", built["w9.gzdio"], tmp_path / "s.rpm", "--rpmv3")
    rpm, signers, _ = read(path, keyring)
    assert {tags.SIG_PGP, tags.RSAHEADER} <= set(rpm.head.signature.by_tag)
    assert signers


def test_rpmkeys_and_we_refuse_the_same_bytes(built, gpg, tmp_path):
    path, keyring = signed(gpg, "rsa", built["w9.gzdio"], tmp_path / "s.rpm")
    database = tmp_path / "db"
    database.mkdir()
    run("rpmkeys", "--dbpath", database, "--import", gpg[1]["rsa"][1])
    honest = (tmp_path / "s.rpm").read_bytes()
    rpm, _, _ = read(path, keyring)
    end, start = len(honest), rpm.head.start
    main = start - len(rpm.head.signed)
    for at in (main + 9, main + 200, start - 20, start, start + 100, end - 1):
        (tmp_path / "s.rpm").write_bytes(flipped(honest, at))
        theirs = subprocess.run(["rpmkeys", "--dbpath", database, "-K", path], capture_output=True, check=False)
        assert theirs.returncode
        with pytest.raises((PackageError, UntrustedError)):
            read(path, keyring)
    (tmp_path / "s.rpm").write_bytes(honest)
    assert b"signatures OK" in run("rpmkeys", "--dbpath", database, "-K", path)


@pytest.mark.parametrize("stripped", [False, True])
@pytest.mark.parametrize("compressor", ["gzip", "xz", "zstd", "bzip2", "lzma", "none"])
def test_rpm_takes_the_packages_that_tests_make(tmp_path, compressor, stripped):
    files = {
        "/usr": directory(),
        "/usr/file": File(b"hello", caps="cap_net_raw=ep"),
        "/usr/link": link(b"file"),
        **hard_links(b"shared" * 1000, "/usr/one", "/usr/two"),
    }
    path = tmp_path / "x.rpm"
    make_rpm(path, files, compressor=compressor, stripped=stripped, key=make_key())
    said = run("rpmkeys", "--dbpath", tmp_path, "-K", "--nosignature", path)
    assert b"digests OK" in said
    names = query(path, "[%{filenames}\n]").decode().split()
    assert names == sorted(files)


@needs_root
@pytest.mark.parametrize(
    "text",
    [
        "cap_net_raw=ep",
        "= cap_setuid+ep",
        "cap_net_admin,cap_net_raw+p",
        "=ep",
        "all=eip",
        "CAP_CHOWN=ei",
        "cap_net_raw+p cap_net_raw+e",
        "cap_bpf,cap_checkpoint_restore=ep",
        "=",
        "cap_chown+ep-e",
        "12=ep",
        "cap_chown=e",
        "all+ep cap_kill-ep",
        "cap_chown=ep cap_kill=p",
        "cap_chown+e=p",
        "cap_chown",
        "+ep",
        "cap_chown==e",
        "cap_x=e",
    ],
)
def test_capabilities_as_setcap_writes_them(tmp_path, text):
    path = tmp_path / "file"
    path.touch()
    done = subprocess.run(["setcap", text, path], capture_output=True, check=False)
    if b"not supported" in done.stderr:
        pytest.skip("this file system has no capabilities")
    theirs = None if done.returncode else os.getxattr(path, "security.capability")
    try:
        ours = encode_capabilities(text)
    except ValueError:
        ours = None
    assert ours == theirs
