"""What is built is a root in which the distribution's own programs find everything as they left it."""

from __future__ import annotations

import io
import os
import pathlib
import re
import shutil
import stat
import struct
import subprocess
import tarfile

import pytest
from making.builds import mirror_at_hand, need_root, rootfsbuild

from rootfsbuild.inspection.dump import dump_tree

RECIPES = pathlib.Path(__file__).parents[2] / "recipes"
BOOKWORM = pytest.mark.xdist_group("root-works")
pytestmark = [pytest.mark.oracle, pytest.mark.slow]

# iputils-ping's script gives ping a capability where setcap is there.
RECIPE = 'distro = "debian"\nrelease = "bookworm"\n[packages]\ninclude = ["iputils-ping", "libcap2-bin"]\n'
NET_RAW = 13

# Each path whose mode or owner is not the package's, with the reason. Nothing else may differ.
CHANGED = {
    "/var/mail": "base-files' script makes it the mail group's",
    "/var/local": "base-files' script makes it the staff group's",
    "/usr/local": "base-files' script makes it and what is in it the staff group's",
    "/var/cache/apt/archives/partial": "apt downloads as a user of its own, to whom its script gives the place",
    "/var/lib/apt/lists/partial": "the same",
    "/usr/bin/ping": "its script takes the set-user-ID bit, or gives a capability instead",
}
# Directories in some packages and symbolic links in every root: by merged /usr, and by base-files' script.
LINKS = {"/bin", "/lib", "/lib64", "/sbin", "/var/lock", "/var/run"}
# What belongs to the machine that a root becomes, or to the one that it was built on.
ABSENT = (
    "/etc/hostname",
    "/etc/machine-id",
    "/etc/mtab",
    "/etc/resolv.conf",
    "/usr/sbin/policy-rc.d",
    "/var/cache/apt/pkgcache.bin",
    "/var/cache/apt/srcpkgcache.bin",
    "/var/cache/ldconfig/aux-cache",
    "/var/lib/dbus/machine-id",
)
# Directories that hold nothing but what is named.
EMPTY = {
    "/dev/pts": set(),
    "/dev/shm": set(),
    "/proc": set(),
    "/run": {"lock"},
    "/sys": set(),
    "/tmp": set(),
    "/var/cache/apt": {"archives"},
    "/var/cache/apt/archives": {"lock", "partial"},
    "/var/lib/apt/lists": {"lock", "partial"},
    "/var/lib/dpkg/updates": set(),
    "/var/log/apt": set(),
    "/var/tmp": set(),
}
# What installing one more package may change. Everything else stays as it was built.
INSTALLED = re.compile(
    r"/usr/bin/hello|/usr/(share|bin)|/usr/share/(.*/)?hello(/.*|\.mo|\.info\.gz|\.1\.gz)?|/usr/share/(doc|info|locale|man)(/.*)?"
    r"|/var/(lib|cache)/(dpkg|apt|debconf)(/.*)?|/var/lib/dpkg|/var/log/(dpkg\.log|alternatives\.log|apt(/.*)?)|/var/log"
)


@pytest.fixture(scope="module")
def bookworm(tmp_path_factory, store):
    """A freshly built root that nothing is run in, and the record beside it."""
    need_root()
    folder = tmp_path_factory.mktemp("works")
    (folder / "recipe.toml").write_text(RECIPE)
    built = rootfsbuild(folder / "recipe.toml", "-o", folder / "root", "--cache-dir", store)
    assert built.status == 0, built.err
    return folder / "root"


@pytest.fixture(scope="module")
def used(bookworm):
    """A copy of the root to run programs in."""
    copy = bookworm.with_name("used")
    subprocess.run(["cp", "-a", bookworm, copy], check=True)
    return copy


def inside(root, command, *options):
    """Run a shell command in a root and return what it printed."""
    ran = rootfsbuild("run", root, *options, "--", "sh", "-c", command)
    assert ran.status == 0, ran.out + ran.err
    return ran.out


def assert_healthy(root):
    assert inside(root, "dpkg --audit") == ""
    assert inside(root, "dpkg --verify") == ""
    assert "libc.so.6 " in inside(root, "ldconfig -p")
    inside(root, "apt-get check")
    assert re.search(
        r"^0 upgraded, 0 newly installed, 0 to remove", inside(root, "apt-get -s autoremove"), re.MULTILINE
    )
    assert inside(root, "apt-mark showmanual | head -1") != ""


def assert_nothing_of_the_host(root):
    assert [path for path in ABSENT if os.path.lexists(f"{root}{path}")] == []
    held = {path: set(os.listdir(f"{root}{path}")) for path in EMPTY}
    assert {path: names for path, names in held.items() if names - EMPTY[path]} == {}
    logs = [path for path in (root / "var/log").rglob("*") if path.is_file()]
    assert [path for path in logs if path.stat().st_size] == []
    assert list((root / "root").glob(".*history")) == []
    # A name so short that it occurs in any text would prove nothing.
    if len(os.uname().nodename) > 6:
        assert subprocess.run(["grep", "-rlF", os.uname().nodename, root / "etc"], check=False).returncode == 1


@BOOKWORM
def test_nothing_of_the_host(bookworm):
    assert_nothing_of_the_host(bookworm)


@BOOKWORM
def test_dpkg_and_apt_are_content(used):
    assert_healthy(used)


@BOOKWORM
def test_plain_chroot(used):
    chroot = shutil.which("chroot", path="/usr/sbin:/usr/bin:/sbin:/bin")
    if chroot is None:
        pytest.skip("chroot(8) is not installed")
    assert subprocess.run([chroot, used, "bash", "-c", "true"], env={}, check=False).returncode == 0


@BOOKWORM
def test_users_can_be_changed(used):
    assert inside(used, "su nobody -s /bin/sh -c 'id -u'").strip() == "65534"
    # Reading one's own entry of /etc/shadow takes the set-user-ID bit of passwd.
    assert inside(used, "su nobody -s /bin/sh -c 'passwd -S nobody'").startswith("nobody L ")


@BOOKWORM
def test_capabilities_are_set(bookworm):
    # linux/capability.h: struct vfs_cap_data, revision 2, effective.
    value = os.getxattr(bookworm / "usr/bin/ping", "security.capability")
    magic, permitted = struct.unpack_from("<II", value)
    assert magic & 0xFF000000 in {0x02000000, 0x03000000}
    assert magic & 1
    assert permitted == 1 << NET_RAW


@BOOKWORM
def test_owners_and_modes_are_the_packages(bookworm, store):
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb is not installed")
    blobs = [path for path in (store / "blobs").rglob("*") if path.is_file() and path.open("rb").read(7) == b"!<arch>"]
    installed = {
        path.name.split(":")[0].removesuffix(".list") for path in (bookworm / "var/lib/dpkg/info").glob("*.list")
    }
    shipped, special = {}, 0
    for blob in blobs:
        name, version = dpkg_deb("--show", blob).decode().split()
        if name not in installed or version not in versions(bookworm, name):
            continue
        with tarfile.open(fileobj=io.BytesIO(dpkg_deb("--fsys-tarfile", blob))) as archive:
            for member in archive:
                if not member.issym() and member.name != ".":
                    shipped.setdefault("/" + member.name.removeprefix("./"), set()).add(
                        (member.mode, member.uid, member.gid)
                    )
    assert len(shipped) > 4000
    different = {}
    for path, wanted in shipped.items():
        if path in LINKS:
            continue
        found = os.lstat(f"{bookworm}{path}")
        special += bool(found.st_mode & (stat.S_ISUID | stat.S_ISGID))
        if (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) not in wanted and not is_changed(path):
            different[path] = (oct(found.st_mode), found.st_uid, found.st_gid, wanted)
    assert different == {}
    assert special > 5


def is_changed(path):
    return any(path == known or path.startswith(f"{known}/") for known in CHANGED)


def versions(root, name):
    status = (root / "var/lib/dpkg/status").read_text()
    return re.findall(rf"^Package: {re.escape(name)}\n(?:\S.*\n|\s.*\n)*?Version: (.*)$", status, re.MULTILINE)


def dpkg_deb(*words):
    return subprocess.run(["dpkg-deb", *words], capture_output=True, check=True).stdout


@BOOKWORM
def test_apt_carries_on(used, bookworm):
    mirror_at_hand()
    said = inside(used, "apt-get update && apt-get install -y hello && hello", "--network")
    assert "Hello, world!" in said
    before, after = dump_tree(str(bookworm)), dump_tree(str(used))
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    assert "/usr/bin/hello" in changed
    assert {path for path in changed if not INSTALLED.fullmatch(path)} == set()
    # The host's resolver and mirrors were there for the command only.
    assert not os.path.lexists(used / "etc/resolv.conf")
    assert (used / "etc/apt/sources.list").read_bytes() == (bookworm / "etc/apt/sources.list").read_bytes()
    assert inside(used, "dpkg --audit; dpkg --verify") == ""
    assert "hello" in inside(used, "apt-mark showmanual").split()


@pytest.mark.parametrize(
    ("recipe", "release", "relax"),
    [
        pytest.param("debian13.toml", "trixie", (), marks=pytest.mark.xdist_group("root-works-13")),
        pytest.param("debian-sid.toml", "sid", ("--allow", "expired"), marks=pytest.mark.xdist_group("root-works-sid")),
    ],
    ids=["trixie", "sid"],
)
def test_other_releases(tmp_path, store, recipe, release, relax):
    need_root()
    mirror_at_hand("debian", release)
    root = tmp_path / "root"
    built = rootfsbuild(RECIPES / recipe, "-o", root, "--cache-dir", store, *relax)
    assert built.status == 0, built.err
    assert_nothing_of_the_host(root)
    assert_healthy(root)
