from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from dataclasses import replace

import pytest
from making.debs import make_deb
from making.extracting import needs_root
from making.plans import make_package, make_plan
from making.tars import Directory, File, Link

from rootfsbuild.errors import FileConflictError, PackageError, ScriptError, UnsatisfiableError
from rootfsbuild.events import ignore
from rootfsbuild.formats.deb import install
from rootfsbuild.formats.deb.database import ADMIN, create_database
from rootfsbuild.formats.deb.install import install_base, install_more, split_waves
from rootfsbuild.formats.format import Ground, Image
from rootfsbuild.inspection.dump import dump_tree
from rootfsbuild.rootfs.inside import edit_root
from rootfsbuild.rootfs.runner import Ended

SCRIPT = "#!/bin/sh\nexit 0\n"


REQUIRE_DPKG = install._require_dpkg


@pytest.fixture(autouse=True)
def _without_dpkg(monkeypatch):
    """Let a sandbox that only notes what it is asked to run do with packages among which is no dpkg."""
    monkeypatch.setattr(install, "_require_dpkg", lambda _inside: None)


class Site:
    """A root, packages for it, and a sandbox that only notes what it is asked to run."""

    def __init__(self, folder, *, links=(), exclude=(), keep=()):
        self.folder, self.root = folder, folder / "root"
        self.root.mkdir()
        self.links, self.exclude, self.keep = links, exclude, keep
        with edit_root(str(self.root)) as inside:
            create_database(inside, "amd64")
            for name in links:
                inside.make_directory(f"/usr/{name}")
                inside.link(f"/{name}", f"usr/{name}")
        self.packages, self.blobs, self.story = [], {}, []
        self.status, self.laid = 0, {}
        self.on_run = lambda _argv: None

    def add(
        self, name, files=None, scripts=None, conffiles=(), *, control=None, control_files=None, replaces="", **fields
    ):
        path = self.folder / f"{name}.deb"
        written = {"Package": name, **(control or {})}
        make_deb(path, written, files, scripts, conffiles, compression="", control_files=control_files)
        version = fields.pop("version", written.get("Version", "1.0-1"))
        architecture = fields.pop("architecture", written.get("Architecture", "all"))
        known = (("Replaces", replaces),) if replaces else ()
        self.packages.append(make_package(name, version, architecture, control=known, **fields))
        self.blobs[name] = str(path)
        return self

    @property
    def ground(self):
        image = Image("amd64", self.links, "", "", self.exclude, self.keep)
        plan = make_plan(*self.packages)
        return Ground(
            root=str(self.root),
            plan=plan,
            image=image,
            run=self.run,
            report=ignore,
            extracted=lambda: self.story.append("extracted"),
            archives=(),
            relax=frozenset(),
            now=time.time,
            strict=False,
            idle=lambda: None,
        )

    def run(self, argv, *, extra_env):
        self.story.append((extra_env.get("DPKG_MAINTSCRIPT_PACKAGE", ""), os.path.basename(argv[0])))
        self.on_run(argv)
        return Ended(self.status, ())

    def base(self):
        self.laid = install_base(self.ground, self._chosen(0))
        return self

    def more(self):
        self.laid = install_more(self.ground, self._chosen(1), self.laid)
        return self

    def _chosen(self, wave):
        return [(package, self.blobs[package.name]) for package in self.packages if package.wave == wave]

    def admin(self, path):
        return (self.root / ADMIN.lstrip("/") / path).read_text()

    def files(self):
        dump = dump_tree(str(self.root))
        return {path for path, line in dump.items() if line.startswith("file") and not path.startswith(ADMIN)}


# Groups


def waves(site):
    plan = make_plan(*site.packages)
    return [[package.name for package in group] for group in split_waves(plan, site.blobs)]


def test_without_preinsts_all_that_comes_after_the_base_is_one_group(tmp_path):
    site = Site(tmp_path).add("libc6").add("a", wave=1).add("b", wave=1, pre_depends=("a",))
    assert waves(site) == [["a", "b"]]


def test_a_preinst_waits_until_its_pre_depends_are_configured(tmp_path):
    # Debian Policy 7.2
    site = Site(tmp_path).add("libc6")
    site.add("a", wave=1).add("b", scripts={"preinst": SCRIPT}, wave=1, pre_depends=("a",))
    site.add("c", scripts={"preinst": SCRIPT}, wave=1, pre_depends=("b",)).add("d", wave=1)
    assert waves(site) == [["a", "d"], ["b"], ["c"]]


def test_a_package_waits_for_what_it_depends_on(tmp_path):
    # As bookworm's python3-distutils, which would be configured when python3 is not there yet.
    site = Site(tmp_path).add("libc6")
    site.add("minimal", wave=1, depends=("libc6",))
    site.add("lib2to3", wave=1, depends=("python",)).add("distutils", wave=1, depends=("lib2to3",))
    site.add("python", scripts={"preinst": SCRIPT}, wave=1, depends=("minimal",), pre_depends=("minimal",))
    assert waves(site) == [["minimal"], ["lib2to3", "distutils", "python"]]


def test_a_circle_of_pre_depends_comes_to_an_end(tmp_path):
    site = Site(tmp_path)
    site.add("a", scripts={"preinst": SCRIPT}, wave=1, depends=("b",), pre_depends=("b",))
    site.add("b", wave=1, depends=("a",))
    assert sorted(name for group in waves(site) for name in group) == ["a", "b"]


def test_pre_depends_on_the_base_are_met_already(tmp_path):
    site = Site(tmp_path).add("libc6").add("a", scripts={"preinst": SCRIPT}, wave=1, pre_depends=("libc6",))
    assert waves(site) == [["a"]]


def test_a_preinst_that_pre_depends_on_nothing_needs_no_wait(tmp_path):
    assert waves(Site(tmp_path).add("a", scripts={"preinst": SCRIPT}, wave=1).add("b", wave=1)) == [["a", "b"]]


def test_a_base_alone_has_no_groups_after_it(tmp_path):
    assert waves(Site(tmp_path).add("libc6")) == []


# The base


@needs_root
def test_base_is_laid_recorded_and_only_then_runs_scripts(tmp_path):
    site = Site(tmp_path)
    site.add("bash", {"usr/bin/bash": File(b"x", 0o755)}, {"preinst": SCRIPT, "postinst": SCRIPT})
    site.add("base-passwd", scripts={"preinst": SCRIPT})
    site.add("dpkg", control={"Version": "1.21.22"})
    seen = []
    site.on_run = lambda _: seen.append((site.root / "usr/bin/bash").exists() and "bash" in site.admin("status"))
    site.base()
    # base-passwd first: its preinst writes the users that others look up.
    assert site.story == ["extracted", ("base-passwd", "preinst"), ("bash", "preinst"), ("", "dpkg")]
    assert seen == [True] * 3
    assert sorted(re.findall("^Package: (.*)", site.admin("status"), re.MULTILINE)) == ["base-passwd", "bash", "dpkg"]


@needs_root
def test_status_is_in_plan_order_whatever_the_order_of_arrival(tmp_path):
    for number, turn in enumerate((list, reversed)):
        (tmp_path / str(number)).mkdir()
        site = Site(tmp_path / str(number))
        for name in ("c", "a", "b"):
            site.add(name, {f"usr/share/{name}": b"x"})
        install_base(site.ground, turn(site._chosen(0)))
        assert re.findall("^Package: (.*)", site.admin("status"), re.MULTILINE) == ["c", "a", "b"]


@needs_root
def test_a_preinst_that_fails_ends_it_before_dpkg(tmp_path):
    site = Site(tmp_path).add("a", scripts={"preinst": SCRIPT})
    site.status = 3
    with pytest.raises(ScriptError, match="a: preinst exited with status 3"):
        site.base()
    assert ("", "dpkg") not in site.story


@needs_root
def test_scripts_learn_the_version_of_the_dpkg_that_is_installed(tmp_path):
    site = Site(tmp_path).add("dpkg", control={"Version": "1.22.6"}).add("a", scripts={"preinst": SCRIPT})
    environments = []
    ground = site.ground

    def run(argv, *, extra_env):
        environments.append(extra_env)
        return Ended(0, ())

    install_base(replace(ground, run=run), site._chosen(0))
    assert environments[0]["DPKG_RUNNING_VERSION"] == "1.22.6"


@needs_root
@pytest.mark.parametrize(
    ("control", "said"),
    [
        ({"Package": "other"}, "Package 'other'"),
        ({"Version": "1.0-2"}, "Version '1.0-2'"),
        ({"Architecture": "arm64"}, "Architecture 'arm64'"),
    ],
)
def test_a_package_that_is_not_what_its_index_promised_is_refused(tmp_path, control, said):
    site = Site(tmp_path).add("a", control=control, version="1.0-1", architecture="all")
    with pytest.raises(PackageError, match=re.escape(said)) as caught:
        site.base()
    assert caught.value.package == "a"
    assert site.story == []


@needs_root
def test_a_control_file_without_a_version_is_refused(tmp_path):
    site = Site(tmp_path).add("a", control={"Version": "1.0-1"}, version="")
    with pytest.raises(PackageError, match="Version"):
        site.base()


@needs_root
def test_conffiles_are_recorded_with_their_hashes(tmp_path):
    site = Site(tmp_path).add("a", {"etc/a.conf": b"a"}, conffiles=["/etc/a.conf"]).base()
    assert "Conffiles:\n /etc/a.conf 0cc175b9c0f1b6a831c399e269772661\n" in site.admin("status")


# Two packages, one path


@needs_root
def test_a_file_in_two_packages_ends_it_and_both_are_named(tmp_path):
    site = Site(tmp_path).add("a", {"usr/x": b"1"}).add("b", {"usr/x": b"2"})
    with pytest.raises(FileConflictError) as caught:
        site.base()
    assert (caught.value.path, {caught.value.first, caught.value.second}) == ("/usr/x", {"a", "b"})


@needs_root
@pytest.mark.parametrize(
    ("relation", "wins"),
    [
        ("a", True),
        ("z, a (<< 2)", True),
        ("a (<= 1.0-1)", True),
        ("a (<< 1.0-1)", False),
        ("a (>> 1.0-1)", False),
        ("aa", False),
    ],
)
def test_replaces_lets_a_package_take_a_file_from_the_versions_it_names(tmp_path, relation, wins):
    # Debian Policy 7.6.1
    site = Site(tmp_path).add("a", {"usr/x": b"old", "usr/y": b"y"})
    site.add("b", {"usr/x": b"new"}, replaces=relation)
    if not wins:
        with pytest.raises(FileConflictError):
            site.base()
        return
    site.base()
    assert (site.root / "usr/x").read_bytes() == b"new"
    assert site.admin("info/a.list").split() == ["/.", "/usr", "/usr/y"]
    assert site.admin("info/b.list").split() == ["/.", "/usr", "/usr/x"]


@needs_root
def test_a_file_in_the_base_and_in_a_package_after_it_ends_it_too(tmp_path):
    site = Site(tmp_path).add("a", {"usr/x": b"1"}).add("b", {"usr/x": b"2"}, wave=1).base()
    with pytest.raises(FileConflictError) as caught:
        site.more()
    assert {caught.value.first, caught.value.second} == {"a", "b"}


@needs_root
def test_replaces_counts_between_base_and_what_comes_after_it_and_dpkgs_lists_agree(tmp_path):
    site = Site(tmp_path).add("a", {"usr/x": b"1", "usr/y": b"y"})
    site.add("b", {"usr/x": b"2"}, wave=1, replaces="a").base().more()
    assert (site.root / "usr/x").read_bytes() == b"2"
    assert site.admin("info/a.list").split() == ["/.", "/usr", "/usr/y"]


@needs_root
def test_directories_are_shared(tmp_path):
    site = Site(tmp_path).add("a", {"usr/share/doc/a": b"1"}).add("b", {"usr/share/doc/b": b"2"}, wave=1)
    site.base().more()
    assert site.files() == {"/usr/share/doc/a", "/usr/share/doc/b"}


# After the base


@needs_root
def test_more_runs_preinsts_before_files_and_configures_after(tmp_path):
    site = Site(tmp_path).add("base").add("a", {"usr/a": b"x"}, {"preinst": SCRIPT}, wave=1).base()
    site.story.clear()
    seen = []
    site.on_run = lambda argv: seen.append((os.path.basename(argv[0]), (site.root / "usr/a").exists()))
    site.more()
    assert seen == [("preinst", False), ("dpkg", True)]
    assert "extracted" not in site.story


@needs_root
def test_a_package_after_the_base_must_be_what_was_promised_before_any_of_it_runs(tmp_path):
    site = Site(tmp_path).add("base").add("a", {"usr/a": b"x"}, {"preinst": SCRIPT}, wave=1, version="9").base()
    site.story.clear()
    with pytest.raises(PackageError, match="Version"):
        site.more()
    assert site.story == []
    assert not (site.root / "usr/a").exists()


@needs_root
@pytest.mark.parametrize("written", [b"/bin/x\n/bin/x.real\ndiverter\n", b"/usr/bin/x\n/usr/bin/x.real\ndiverter\n"])
def test_a_diverted_file_goes_where_dpkg_divert_says(tmp_path, written):
    site = Site(tmp_path, links=("bin",)).add("base").add("a", {"usr/bin/x": b"theirs"}, wave=1).base()
    (site.root / "usr/bin/x").write_bytes(b"diverter's")
    (site.root / "var/lib/dpkg/diversions").write_bytes(written)
    site.more()
    assert (site.root / "usr/bin/x").read_bytes() == b"diverter's"
    assert (site.root / "usr/bin/x.real").read_bytes() == b"theirs"
    assert "/usr/bin/x\n" in site.admin("info/a.list")


@needs_root
def test_the_one_who_diverts_keeps_its_own_file(tmp_path):
    site = Site(tmp_path).add("base").add("a", {"usr/bin/x": b"a's"}, wave=1).base()
    (site.root / "var/lib/dpkg/diversions").write_bytes(b"/usr/bin/x\n/usr/bin/x.real\na\n")
    site.more()
    assert site.files() == {"/usr/bin/x"}


# Excluded paths, as dpkg(1) has them


@needs_root
def test_excluded_paths_are_not_laid_and_kept_ones_are(tmp_path):
    site = Site(tmp_path, exclude=("/usr/share/doc/*", "*.pyc", "/opt/[ab]?"), keep=("/usr/share/doc/*/copyright",))
    paths = {"usr/share/doc/a/copyright", "usr/share/doc/a/deep/changelog", "usr/lib/x.pyc", "usr/lib/x.py"}
    paths |= {"opt/a1", "opt/c1", "usr/share/docs"}
    site.add("a", dict.fromkeys(paths, b"x")).base()
    assert site.files() == {"/usr/share/doc/a/copyright", "/usr/lib/x.py", "/opt/c1", "/usr/share/docs"}
    # dpkg(1): dpkg's own list still has what was left out.
    assert "/usr/lib/x.pyc" in site.admin("info/a.list").split()


# The real dpkg, from the same packages


def parse_status(text):
    stanzas = [stanza for stanza in text.split("\n\n") if stanza.strip()]
    fields = (re.findall(r"^([A-Za-z-]+):((?:.*)(?:\n .*)*)", stanza, re.MULTILINE) for stanza in stanzas)
    found = ({key: re.sub(r"\s+", " ", value).strip() for key, value in pairs} for pairs in fields)
    return {stanza["Package"]: stanza for stanza in found}


def compared(root):
    """A dump without status, which is compared by its fields, and what dpkg makes only when it is needed."""
    mine = {f"{ADMIN}/{name}" for name in ("arch", "status", "status-old", "alternatives", "parts")}
    dump = dump_tree(str(root))
    return {path: line for path, line in dump.items() if path not in mine and "/lock" not in path}


@needs_root
@pytest.mark.oracle
@pytest.mark.skipif(shutil.which("dpkg") is None, reason="dpkg is not installed")
def test_root_and_database_are_those_that_dpkg_makes(tmp_path):
    site = Site(tmp_path)
    site.add(
        "a",
        {
            "etc/a.conf": b"a",
            "usr/bin/a": File(b"a", 0o4755),
            "var/link": Link("../bin/a"),
            "var/a": Directory(0o1777),
        },
        conffiles=["/etc/a.conf"],
        control_files={"triggers": b"interest-noawait /usr/lib\n"},
    )
    site.add("libb", {"usr/lib/libb.so": b"b"}, control={"Architecture": "amd64", "Multi-Arch": "same"})
    site.add("empty", control={"Section": "misc", "Depends": "a"})
    site.base()
    theirs = tmp_path / "theirs"
    (theirs / "var/lib/dpkg").mkdir(parents=True)
    (theirs / "var/lib/dpkg/status").touch()
    command = ["dpkg", f"--root={theirs}", "--force-script-chrootless", "--force-architecture", "--log=/dev/null"]
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
    done = subprocess.run(
        [*command, "--unpack", *site.blobs.values()],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # A conffile lies beside its place until dpkg has configured the package, and its hash is recorded only then.
    for root in (theirs, site.root):
        words = [word.replace(str(theirs), str(root)) for word in command]
        done = subprocess.run([*words, "--configure", "-a"], env=environment, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, b"")
    assert parse_status(site.admin("status")) == parse_status((theirs / "var/lib/dpkg/status").read_text())
    assert compared(site.root) == compared(theirs)


def test_a_root_without_dpkg_is_refused(tmp_path):
    with edit_root(str(tmp_path)) as inside:
        with pytest.raises(UnsatisfiableError, match="dpkg"):
            REQUIRE_DPKG(inside)
        inside.make_directory("/usr/bin")
        inside.write("/usr/bin/dpkg", b"", 0o755)
        REQUIRE_DPKG(inside)
