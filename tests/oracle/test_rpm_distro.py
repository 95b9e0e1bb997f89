"""A whole RPM distribution: its root runs, and it is the one that dnf makes from the same repositories."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections import Counter

import pytest
from making.builds import need_root, rootfsbuild, rootfsbuild_elsewhere, sha256
from making.keys import make_key
from making.rpmdistro import DATABASE, make_rpm_distro, publish, sign_rpm
from making.server import serve

from rootfsbuild.formats.rpm import tags
from rootfsbuild.formats.rpm.database_indexes import INDEXES
from rootfsbuild.formats.rpm.merge import installed_header
from rootfsbuild.inspection.dump import dump_tree

pytestmark = [pytest.mark.oracle, pytest.mark.slow, pytest.mark.xdist_group("rpm-distro")]

WHEN = 1_700_000_100
EXTRAS = ("meta", "daemon-one", "daemon-two", "watcher", "things")
RECIPE = """distro = "./example.toml"
release = "1"
[packages]
variant = "{variant}"
include = [{include}]
recommends = {recommends}
"""
VARIANTS = {
    "essential": ("bash", "coreutils", "example-release", "filesystem", "glibc", "setup"),
    "required": ("@core", "example-release"),
}

# Each path that may differ, with the reason. Nothing else may.
ALLOWED = {
    "/etc/.pwd.lock": "shadow's tools leave it; an image does not carry it",
    "/etc/group-": "what shadow's tools kept of the file before the last change",
    "/etc/gshadow-": "the same",
    "/etc/passwd-": "the same",
    "/etc/shadow-": "the same",
    "/etc/dnf": "dnf makes it for its modules",
    "/var/cache/ldconfig/aux-cache": "holds times and inodes of the file system",
    f"/{DATABASE}/.rpm.lock": "belongs to the rpm that had the database open",
    f"/{DATABASE}/rpmdb.sqlite": "another order of packages; compared table by table",
    f"/{DATABASE}/rpmdb.sqlite-shm": "belongs to the rpm that had the database open",
    f"/{DATABASE}/rpmdb.sqlite-wal": "the same",
    "/var/log/hawkey.log": "dnf's log",
    "/var/lib/dnf": "dnf's own history",
    "/var/cache/dnf": "dnf's cache",
}
ALLOWED_BELOW = ("/dev/", "/etc/dnf/", "/var/lib/dnf/", "/var/cache/dnf/", "/var/log/dnf.")
"""dnf makes no devices: who calls it has to. The rest is its own."""

ACCOUNTS = ("/etc/group", "/etc/gshadow", "/etc/passwd", "/etc/shadow")

# Of what the database holds: the number of a record and its second, both by the order of installation.
BY_ORDER = {"INSTALLTIME", "DBINSTANCE"}


@pytest.fixture(scope="module")
def distro(tmp_path_factory, store):
    need_root()
    return make_rpm_distro(tmp_path_factory.mktemp("rpmdistro"), store)


@pytest.fixture(scope="module")
def served(distro):
    with serve(folder=distro.folder) as server:
        yield server


@pytest.fixture(scope="module")
def folder(distro, served, tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipes")
    distro.describe(folder, served.url)
    write_recipe(folder / "box.toml", include=EXTRAS)
    write_recipe(folder / "weak.toml", include=EXTRAS, recommends=True)
    write_recipe(folder / "small.toml", variant="essential")
    return folder


def write_recipe(path, *, include=(), variant="required", recommends=False, extra=""):
    names = ", ".join(f'"{name}"' for name in include)
    path.write_text(RECIPE.format(variant=variant, include=names, recommends=str(recommends).lower()) + extra)
    return path


def build(recipe, target, *words, **variables):
    cache = target.parent / "cache"
    built = rootfsbuild(recipe, "-o", target, "--cache-dir", cache, *words, SOURCE_DATE_EPOCH=WHEN, **variables)
    assert built.status == 0, built.err
    return target


@pytest.fixture(scope="module")
def roots(folder, tmp_path_factory):
    """Build a recipe's root once; `roots("box")` is not to be changed."""
    made, place = {}, tmp_path_factory.mktemp("roots")

    def get(name):
        if name not in made:
            made[name] = build(folder / f"{name}.toml", place / name)
        return made[name]

    return get


@pytest.fixture
def copy(roots, tmp_path):
    """A copy of a root to work in."""
    root = tmp_path / "copy"
    subprocess.run(["cp", "-a", roots("box"), root], check=True)
    return root


def inside(root, script):
    """Run a script in a root by plain chroot; return its output lines, without the words of Debian's own on top."""
    environment = {"PATH": "/usr/bin:/usr/sbin", "HOME": "/root", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        ["chroot", root, "/bin/bash", "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


class TestTheRootRuns:
    def test_its_own_rpm_knows_every_package_and_finds_nothing_changed(self, roots):
        root = roots("box")
        names = inside(root, "rpm -qa --qf '%{NAME}\\n'")
        assert {"bash", "rpm", "meta", "daemon-one", "example-release"} <= set(names)
        assert len(names) == len(set(names)) > 30
        assert inside(root, "rpm -Va") == []
        assert inside(root, "rpm -q bash --qf '%{VERSION}\\n'; rpm -qf /bin/bash --qf '%{NAME}\\n'")[1:] == ["bash"]

    def test_run_shows_the_same(self, roots):
        done = rootfsbuild("run", roots("box"), "--", "bash", "-c", "rpm -qa && rpm -Va")
        assert done.status == 0, done.err
        assert sorted(done.out.split()) == sorted(inside(roots("box"), "rpm -qa"))

    def test_its_own_rpm_erases_and_installs(self, copy, distro):
        shutil.copy(distro.folder / "later.rpm", copy / "root")
        before = set(inside(copy, "rpm -qa"))
        inside(copy, "rpm -e daemon-one && rpm -i --nosignature /root/later.rpm")
        after = set(inside(copy, "rpm -qa"))
        assert before - after == {"daemon-one-1.0-1.x86_64"}
        assert after - before == {"later-1.0-1.noarch"}
        assert not (copy / "usr/bin/one").exists()
        assert (copy / "usr/share/later-post").read_text() == "post 1\n"
        # A trigger of a package that we installed, set off by one that rpm installed.
        assert (copy / "var/lib/watcher/file-later").exists()
        assert inside(copy, "rpm -Va") == []
        assert inside(copy, "rpmdb --verifydb") == []

    def test_rpm_notices_what_is_changed(self, copy):
        (copy / "usr/share/things/first").write_text("other\n")
        (copy / "usr/bin/one").chmod(0o755)
        found = inside(copy, "rpm -Va || true")
        assert {line.split()[-1] for line in found} == {"/usr/share/things/first", "/usr/bin/one"}

    def test_scripts_and_triggers_left_what_they_should(self, roots):
        root = roots("box")
        watched = root / "var/lib/watcher"
        assert {name.name: name.read_text() for name in watched.iterdir()} == {
            "post": "post 1\n",
            "posttrans": "posttrans 1\n",
            "setup": "setup 1 1\n",
            "things": "things 1 1\n",
            "file-things": "",
            "file-first": "",
            "file-second": "",
            "all": "/usr/share/things\n/usr/share/things/first\n/usr/share/things/second\n",
            "lua": "/usr/share/things\n/usr/share/things/first\n/usr/share/things/second\n",
        }
        assert os.readlink(root / "var/run") == "../run"
        assert os.readlink(root / "bin") == "usr/bin"
        one, two = os.lstat(root / "usr/bin/one"), os.lstat(root / "srv/two/data")
        assert (one.st_uid, one.st_gid, stat.S_IMODE(one.st_mode)) == (0, 401, 0o2755)
        assert (two.st_uid, two.st_gid, stat.S_IMODE(two.st_mode)) == (402, 402, 0o600)

    def test_the_small_one_has_no_rpm_and_runs(self, roots):
        root = roots("small")
        assert inside(root, "cat /etc/os-release | head -n 1") == ["ID=example"]
        assert not (root / "usr/bin/rpm").exists()
        done = rpm(root, "-qa", "--qf", "%{NAME}\\n")
        assert {"bash", "glibc", "setup"} <= set(done.split())


HOME = {}


@pytest.fixture(scope="module", autouse=True)
def homes(tmp_path_factory):
    """Homes whose settings let the host's rpm find the database of a root, and one to install a language only."""
    for name, more in {"plain": "", "de": "%_install_langs de_CH\n"}.items():
        home = tmp_path_factory.mktemp(f"home-{name}")
        (home / ".rpmmacros").write_text(f"%_dbpath /{DATABASE}\n{more}")
        HOME[name] = str(home)


def host(command, home="plain"):
    environment = {"PATH": os.environ["PATH"], "HOME": HOME[home], "LC_ALL": "C.UTF-8", "SOURCE_DATE_EPOCH": str(WHEN)}
    return subprocess.run(
        list(map(str, command)), env=environment, capture_output=True, text=True, check=False, umask=0o022
    )


def rpm(root, *words):
    """Ask the host's rpm about a copy's database, which it would write to."""
    done = host(["rpm", "--root", root, *words])
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dnf(distro, tmp_path_factory):
    """Let dnf install into a root; returns the root."""
    if shutil.which("dnf") is None:
        pytest.skip("needs dnf (apt install dnf)")
    place = tmp_path_factory.mktemp("dnf")

    def install(name, specs, *, weak=False, options=(), home="plain"):
        config = place / f"{name}.conf"
        repos = "".join(f"[{one}]\nname={one}\nbaseurl=file://{distro.folder}/{one}\n" for one in ("base", "extras"))
        config.write_text(
            f"[main]\ngpgcheck=0\nreposdir=/nonexistent\nplugins=0\ninstall_weak_deps={int(weak)}\n{repos}"
        )
        root = place / name
        (root / "dev").mkdir(parents=True)
        # dnf makes no devices, and a scriptlet would make a file of /dev/null.
        os.mknod(root / "dev/null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        (root / "dev/null").chmod(0o666)
        command = ["dnf", "-y", "--config", config, "--installroot", root, "--releasever", "1", *options, "install"]
        done = host([*command, *specs], home)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Error in" not in done.stdout + done.stderr
        return root

    return install


CASES = {
    "box": (("required", EXTRAS), {}),
    "weak": (("required", EXTRAS), {"weak": True}),
    "small": (("essential", ()), {}),
}


@pytest.fixture(scope="module", params=CASES)
def pair(request, roots, dnf, tmp_path_factory):
    """Our root and dnf's."""
    (variant, extras), options = CASES[request.param]
    theirs = dnf(request.param, (*VARIANTS[variant], *extras), **options)
    ours = tmp_path_factory.mktemp("pair") / "ours"
    subprocess.run(["cp", "-a", roots(request.param), ours], check=True)
    return ours, theirs


class TestAgainstDnf:
    def test_the_same_packages(self, pair):
        ours, theirs = (sorted(rpm(root, "-qa").split()) for root in pair)
        assert ours == theirs
        assert len(ours) > 10

    def test_the_same_tree(self, pair):
        assert different(*pair) == {}

    def test_the_same_answer_for_every_tag(self, pair):
        names = [name for name in rpm(pair[0], "--querytags").split() if name not in BY_ORDER]
        query = "".join(f"%{{NEVRA}} {name}=[%{{{name}}},]\\n" for name in names)
        ours, theirs = (sorted(rpm(root, "-qa", "--qf", query).splitlines()) for root in pair)
        assert ours == theirs
        assert len(names) > 200

    def test_rpm_verifies_the_same(self, pair):
        ours, theirs = (host(["rpm", "--root", root, "-Va"]) for root in pair)
        assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout)
        assert ours.stdout == ""

    def test_the_same_rows_in_every_table(self, pair):
        ours, theirs = (tables(root) for root in pair)
        assert ours.keys() == theirs.keys()
        assert [name for name in ours if ours[name] != theirs[name]] == []
        assert len(INDEXES) == 18
        assert sum(bool(rows) for rows in ours.values()) > 10

    def test_the_same_order_is_not_needed_but_seconds_count_on(self, pair):
        for root in pair:
            times = sorted(int(line) for line in rpm(root, "-qa", "--qf", "%{INSTALLTIME}\\n").split())
            assert times == list(range(WHEN, WHEN + len(times)))


def different(ours, theirs):
    """Return path -> (dnf's, ours) of what differs and may not."""
    wanted, found = dump_tree(str(theirs)), dump_tree(str(ours))
    assert len(wanted) > 100
    for path in ACCOUNTS:
        # One line for each, in the order in which the packages that make them were installed.
        for root, tree in ((theirs, wanted), (ours, found)):
            lines = sorted((root / path[1:]).read_text().splitlines())
            tree[path] = " ".join([*tree[path].split()[:3], *lines])
    return {
        path: (wanted.get(path), found.get(path))
        for path in sorted(wanted.keys() | found.keys())
        if wanted.get(path) != found.get(path) and path not in ALLOWED and not path.startswith(ALLOWED_BELOW)
    }


def tables(root):
    """Return name -> rows of rpm's database, with packages by name instead of number."""
    database = sqlite3.connect(f"file:{root / DATABASE}/rpmdb.sqlite?mode=ro", uri=True)
    database.text_factory = bytes
    try:
        blobs = dict(database.execute("SELECT hnum, blob FROM Packages"))
        headers = {number: installed_header(blob, str(number)) for number, blob in blobs.items()}
        names = {number: header.text(tags.NAME) for number, header in headers.items()}
        found = {"Packages": {names[number]: without_time(header) for number, header in headers.items()}}
        for index in INDEXES:
            rows = database.execute(f"SELECT key, typeof(key), hnum, idx FROM '{index.name}'")
            found[index.name] = Counter((key, kind, names[number], idx) for key, kind, number, idx in rows)
        return found
    finally:
        database.close()


def without_time(header):
    return [(item.tag, item.type, header.raw(item)) for item in header.items if item.tag != tags.INSTALLTIME]


def test_users_that_packages_provide_are_there_before_their_files(folder, tmp_path):
    # What rpm does from 4.19 on, which is not at hand here to compare with.
    names = ("setup", "daemon-four", "daemon-three")
    root = build(write_recipe(folder / "users.toml", variant="custom", include=names), tmp_path / "root")
    users, groups, shadow = ((root / f"etc/{name}").read_text().splitlines() for name in ("passwd", "group", "shadow"))
    assert {"root", "bin", "three", "four"} <= {line.partition(":")[0] for line in users}
    assert "three:x:403:403:Number three:/:/usr/sbin/nologin" in users
    assert "four:x:404:404:Number four:/:/usr/sbin/nologin" in users
    assert {"three:x:403:", "four:x:404:"} <= set(groups)
    assert f"four:!*:{WHEN // 86400}::::::" in shadow
    three = os.lstat(root / "usr/share/three")
    assert (three.st_uid, three.st_gid) == (403, 403)


def test_a_user_that_owns_nothing_outlives_the_file_of_users(folder, tmp_path):
    recipe = write_recipe(folder / "user.toml", variant="custom", include=("setup", "daemon-four"))
    root = build(recipe, tmp_path / "root")
    assert [line[:6] for line in (root / "etc/passwd").read_text().splitlines()] == [
        "root:x",
        "bin:x:",
        "mail:x",
        "nobody",
        "four:x",
    ]


def test_without_documentation_and_with_one_language_as_dnf_does(folder, dnf, tmp_path):
    extra = 'docs = false\nlanguages = ["de_CH"]\n'
    recipe = write_recipe(folder / "lean.toml", variant="essential", include=("kinds",), extra=extra)
    ours = build(recipe, tmp_path / "lean")
    specs = (*VARIANTS["essential"], "kinds")
    theirs = dnf("lean", specs, options=["--setopt=tsflags=nodocs"], home="de")
    assert different(ours, theirs) == {}
    assert tables(ours) == tables(theirs)
    assert (ours / "usr/share/locale/de/LC_MESSAGES/kinds.mo").exists()
    assert not (ours / "usr/share/locale/fr/LC_MESSAGES/kinds.mo").exists()
    assert not (ours / "usr/share/doc/kinds/README").exists()


class TestTheSameBytes:
    def test_again_elsewhere(self, folder, tmp_path):
        tar = build(folder / "weak.toml", tmp_path / "weak.tar")
        words = [folder / "weak.toml", "-o", tmp_path / "again.tar", "--cache-dir", tmp_path / "cache"]
        built = rootfsbuild_elsewhere(*words, SOURCE_DATE_EPOCH=str(WHEN))
        assert built.status == 0, built.err
        assert sha256(tmp_path / "again.tar") == sha256(tar)

    def test_from_a_lock_and_from_a_bundle_without_network(self, folder, tmp_path):
        shutil.copytree(folder, tmp_path / "recipes", ignore=shutil.ignore_patterns("*.lock"))
        recipe, cache = tmp_path / "recipes/weak.toml", ["--cache-dir", tmp_path / "cache"]
        for words in (
            ["lock", recipe],
            ["--locked", recipe, "-o", tmp_path / "locked.tar"],
            ["bundle", recipe, "-o", tmp_path / "carry.tar"],
        ):
            done = rootfsbuild(*words, *cache)
            assert done.status == 0, done.err
        lock = (tmp_path / "recipes/weak.x86_64.lock").read_text()
        assert 'format = "rpm"' in lock
        words = [sys.executable, "-m", "rootfsbuild", "--bundle", tmp_path / "carry.tar", recipe]
        words = ["unshare", "--net", *words, "-o", tmp_path / "there.tar", "--cache-dir", tmp_path / "empty"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        done = subprocess.run(list(map(str, words)), env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert sha256(tmp_path / "there.tar") == sha256(tmp_path / "locked.tar")


class TestTrust:
    @pytest.fixture
    def other(self, distro, tmp_path):
        """A copy of the repositories, and what describes and serves them."""
        shutil.copytree(distro.folder, tmp_path / "mirror")
        with serve(folder=tmp_path / "mirror") as server:
            distro.describe(tmp_path, server.url)
            write_recipe(tmp_path / "box.toml", variant="essential")
            yield tmp_path

    def refused(self, folder):
        done = rootfsbuild(folder / "box.toml", "-o", folder / "out", "--cache-dir", folder / "cache")
        assert not (folder / "out").exists()
        assert done.status == 6, done.err
        return done.err

    def replace_bash(self, folder, distro, key):
        sign_rpm(next((folder / "mirror/base").glob("*/bash-*.rpm")), key)
        shutil.rmtree(folder / "mirror/base/repodata")
        publish(folder / "mirror/base", distro.key)

    def test_it_builds_as_it_is(self, other):
        build(other / "box.toml", other / "out")

    def test_a_package_without_a_signature(self, other, distro):
        self.replace_bash(other, distro, None)
        message = self.refused(other)
        assert "bash" in message
        assert "sign" in message

    def test_a_package_signed_with_another_key(self, other, distro):
        self.replace_bash(other, distro, make_key("Somebody <else@example.org>"))
        message = self.refused(other)
        assert "bash" in message

    def test_a_package_signed_with_the_key_once_more(self, other, distro):
        self.replace_bash(other, distro, distro.key)
        build(other / "box.toml", other / "out")

    def test_metadata_signed_with_another_key(self, other):
        shutil.rmtree(other / "mirror/base/repodata")
        publish(other / "mirror/base", make_key("Somebody <else@example.org>"))
        assert "base" in self.refused(other)

    def test_metadata_without_a_signature(self, other):
        (other / "mirror/base/repodata/repomd.xml.asc").unlink()
        assert "base" in self.refused(other)

    def test_a_package_that_is_not_what_the_metadata_say(self, other):
        path = next((other / "mirror/base").glob("*/bash-*.rpm"))
        blob = bytearray(path.read_bytes())
        blob[-100] ^= 1
        path.write_bytes(blob)
        # A mirror can serve what it likes: nothing else has what is asked for.
        done = rootfsbuild(other / "box.toml", "-o", other / "out", "--cache-dir", other / "cache")
        assert done.status in {5, 6}, done.err
        assert "bash" in done.err
        assert not (other / "out").exists()


class TestAsking:
    def test_dry_run_shows_what_would_be_installed(self, folder, roots, tmp_path):
        done = rootfsbuild("--dry-run", folder / "box.toml", "--cache-dir", tmp_path / "cache", "--json")
        assert done.status == 0, done.err
        wanted = {line.split()[0] for line in rpm(roots("box"), "-qa", "--qf", "%{NAME} \\n").splitlines()}
        assert {package["name"] for package in json.loads(done.out)["packages"]} == wanted

    def test_why(self, folder, tmp_path):
        done = rootfsbuild("why", folder / "box.toml", "libsepol", "--cache-dir", tmp_path / "cache")
        assert done.status == 0, done.err
        assert "libsemanage" in done.out
        assert "shadow-utils" in done.out

    def test_weak_dependencies_come_only_on_request(self, roots):
        plain, weak = (set(rpm(roots(name), "-qa", "--qf", "%{NAME}\\n").split()) for name in ("box", "weak"))
        assert weak - plain == {"kinds", "langpack", "more-things"}
        assert "old-meta" not in weak

    def test_what_cannot_be_had_says_why(self, folder, tmp_path):
        recipe = write_recipe(folder / "bad.toml", variant="essential", include=("things", "no-such-thing"))
        done = rootfsbuild("--dry-run", recipe, "--cache-dir", tmp_path / "cache")
        assert done.status == 3
        assert "no-such-thing" in done.err
