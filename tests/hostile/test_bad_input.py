"""What a user can get wrong, or have go wrong: told with what, where and why, and nothing half-made is left."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from making.builds import need_root, rootfsbuild
from making.debs import sha256
from making.keys import make_key
from making.server import closed_port, cut_off, serve
from making.shop import INDEX, Shop, run_unprivileged
from making.signed import DAY
from making.tinyroot import wait_gone

YEAR = 365 * DAY
NOISE = os.urandom(1 << 20)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="building a root needs root")


@pytest.fixture
def shop(tmp_path):
    return Shop(tmp_path).add("alpha", {"usr/bin/alpha": b"x"}).publish()


@pytest.fixture
def build(tmp_path):
    """Run the program in a folder of its own, with a cache of its own."""

    def run(*words, **variables):
        return rootfsbuild(*words, "--cache-dir", tmp_path / "cache", cwd=tmp_path, timeout=120, **variables)

    return run


def refused(ran, status, *said, hint=""):
    """Check an error's status and words; `hint` is what the line that helps on must hold."""
    assert "Traceback" not in ran.err
    assert ran.status == status, ran.err
    error = ran.err[ran.err.index("error: ") :]
    for words in said:
        assert str(words) in error
    assert ran.out == ""
    if hint:
        assert hint in error.partition("\nhint: ")[2]


def nothing_made(folder, name="box"):
    """Check that no target, no record and no staging directory is there, and nothing mounted."""
    out = Path(folder) / "out"
    left = set(os.listdir(out)) if out.exists() else set()
    assert left <= {f"{name}.log"}
    assert wait_gone(out) == []


# Recipes


def recipe(tmp_path, text):
    path = tmp_path / "box.toml"
    path.write_text(text)
    return path


BASIC = 'distro = "debian"\nrelease = "bookworm"\n'


@pytest.mark.parametrize("words", [(), ("--dry-run",)])
@pytest.mark.parametrize(
    ("text", "place", "said"),
    [
        (BASIC + 'hostnam = "x"\n', 3, ("hostnam", "hostname")),
        (BASIC + '[packages]\nincludes = ["x"]\n', 4, ("packages.includes", "include")),
        ('distro = "debian"\nrelease = "bokworm"\n', 2, ("release", "bokworm", "bookworm")),
        ('distro = "debain"\nrelease = "12"\n', 1, ("distro", "debain", "debian")),
        (BASIC + '[packages]\nvariant = "minbas"\n', 4, ("packages.variant", "minbas", "minbase")),
        (BASIC + 'arch = "amd46"\n', 3, ("arch", "amd46", "amd64")),
        (BASIC + "[packages]\nrecommends = 1\n", 4, ("packages.recommends", "true or false")),
        (BASIC + '[packages]\ninclude = "bash"\n', 4, ("packages.include",)),
        (BASIC + "name = \n", 3, ()),
    ],
    ids=["key", "nested-key", "release", "distro", "variant", "arch", "type", "array", "toml"],
)
def test_a_wrong_word_in_a_recipe(tmp_path, build, text, place, said, words):
    ran = build(recipe(tmp_path, text), *words)
    refused(ran, 2, f"box.toml:{place}", *said)
    nothing_made(tmp_path)


def test_an_architecture_on_the_command_line(tmp_path, build):
    refused(build(recipe(tmp_path, BASIC), "--arch", "amd46"), 2, "amd46", "amd64")


def test_a_recipe_that_is_not_there(tmp_path, build):
    refused(build(tmp_path / "none.toml"), 2, tmp_path / "none.toml")
    refused(build(tmp_path), 2, tmp_path)


def test_a_release_that_moves_is_refused_with_what_it_is_now(tmp_path, build):
    refused(build(recipe(tmp_path, 'distro = "debian"\nrelease = "stable"\n')), 2, "stable", "box.toml:2")


@pytest.mark.parametrize(
    ("include", "exclude", "said"),
    [
        (["alpha=1.*", "alpha=2.*"], [], ("alpha=1.*", "alpha=2.*")),
        (["alpha"], ["alpha"], ("alpha", "exclude")),
        (["alpha/one", "alpha/two"], [], ("alpha/one", "alpha/two")),
    ],
)
def test_includes_that_contradict_each_other(tmp_path, shop, build, include, exclude, said):
    ran = build(shop.recipe(*include, packages={"exclude": exclude}))
    refused(ran, 2, "packages.", *said)
    nothing_made(tmp_path)


def test_a_mirror_for_no_archive_of_the_recipe_is_mentioned(shop, build):
    ran = build(shop.recipe("alpha"), "--dry-run", "--mirror", "mien=/nowhere")
    assert ran.status == 0
    assert "mien" in ran.err
    assert "mine" in ran.err


# Requests


def test_a_package_that_does_not_exist_is_told_with_the_nearest_names(tmp_path, shop, build):
    shop.add("alpine").publish()
    refused(build(shop.recipe("alhpa")), 3, "alhpa", "bookworm", hint="alpha")
    nothing_made(tmp_path)


def test_a_version_that_nothing_meets(tmp_path, shop, build):
    refused(build(shop.recipe("alpha=2.*")), 3, "alpha=2.*", "1.0-1", hint="version")
    nothing_made(tmp_path)


def test_a_suite_that_does_not_have_it(shop, build):
    refused(build(shop.recipe("alpha/backports")), 3, "alpha/backports", "1.0-1", hint="suite")


def test_includes_that_conflict(tmp_path, shop, build):
    shop.add("beta", Conflicts="alpha").publish()
    refused(build(shop.recipe("alpha", "beta")), 3, "beta Conflicts: alpha")
    nothing_made(tmp_path)


def test_a_dependency_that_is_not_there_is_told_with_the_chain(shop, build):
    shop.add("gamma", Depends="delta").add("delta", Depends="epsilon (>= 2)").publish()
    refused(
        build(shop.recipe("gamma")), 3, "gamma Depends: delta", "delta Depends: epsilon (>= 2)", "epsilon is not in"
    )


def test_what_is_excluded_and_needed(shop, build):
    shop.add("gamma", Depends="alpha").publish()
    ran = build(shop.recipe("gamma", packages={"exclude": ["alpha"]}))
    refused(ran, 3, "gamma Depends: alpha", "alpha is excluded")


def test_why_of_a_package_that_is_not_in_the_plan(shop, build):
    ran = build("why", shop.recipe("alpha"), "gamma")
    assert "Traceback" not in ran.err
    assert "gamma" in ran.err + ran.out


# Mirrors


def test_a_mirror_that_cannot_be_reached(tmp_path, shop, build):
    url = closed_port()
    refused(build(shop.recipe("alpha", mirror=url)), 5, url, "bookworm", "refused")
    nothing_made(tmp_path)


def test_a_mirror_that_does_not_have_the_suite(shop, build):
    with serve({}) as server:
        refused(build(shop.recipe("alpha", mirror=server.url)), 5, server.url, "dists/bookworm")


def test_a_folder_that_is_no_mirror(tmp_path, shop, build):
    (tmp_path / "empty").mkdir()
    refused(build(shop.recipe("alpha", mirror=tmp_path / "empty")), 5, tmp_path / "empty", "dists/bookworm")


def test_a_mirror_that_is_no_url(shop, build):
    refused(build(shop.recipe("alpha"), "--mirror", "mine=ftp://x"), 2, "ftp://x", hint="http")
    refused(build(shop.recipe("alpha"), "--mirror", "http://x"), 2, "NAME=URL", hint="--mirror")


# Trust


def test_the_wrong_key(tmp_path, shop, build):
    other = make_key("Somebody <else@example.org>")
    shop.publish(key=other)
    refused(build(shop.recipe("alpha")), 6, "bookworm", "key", hint="key")
    nothing_made(tmp_path)


def test_an_expired_key(tmp_path, shop, build):
    # Made a minute ago, as pysequoia has it: a second is left, in which it signs. No library signs with an expired key.
    short = make_key(validity_seconds=61)
    short.write(tmp_path / "short.gpg")
    shop.publish(key=short)
    left = short.certificate.expiration.timestamp() - time.time()
    assert left < 5
    time.sleep(max(0.0, left) + 0.1)
    refused(build(shop.recipe("alpha", keys=["short.gpg"])), 6, "bookworm", "expired")
    nothing_made(tmp_path)


def test_a_missing_key(shop, build):
    refused(build(shop.recipe("alpha", keys=["none.gpg"])), 2, "none.gpg", "archive")
    refused(build(shop.recipe("alpha", keys=[])), 2, "keys")


def test_a_key_file_that_is_no_key(tmp_path, shop, build):
    (tmp_path / "text.gpg").write_text("this is no key")
    refused(build(shop.recipe("alpha", keys=["text.gpg"])), 6, "text.gpg", hint="OpenPGP")


def test_a_release_without_a_signature(tmp_path, shop, build):
    shop.publish(forms=("Release",))
    (shop.mirror / "dists/bookworm/Release.gpg").unlink()
    ran = build(shop.recipe("alpha"))
    assert "Traceback" not in ran.err
    assert ran.status in {5, 6}
    assert "bookworm" in ran.err
    nothing_made(tmp_path)


def test_a_release_that_was_changed_after_it_was_signed(tmp_path, shop, build):
    path = shop.mirror / "dists/bookworm/InRelease"
    path.write_bytes(path.read_bytes().replace(b"Origin: Example", b"Origin: Exemple"))
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    for name in ("Release", "Release.gpg"):
        (path.parent / name).unlink()
    refused(build(shop.recipe("alpha")), 6, "bookworm")


def test_an_expired_release_is_refused_with_the_date_and_the_switch_for_it(tmp_path, shop, build):
    then = time.time() - 3 * DAY
    shop.publish(date=then - 7 * DAY, valid_until=then)
    date = time.strftime("%Y-%m-%d", time.gmtime(then))
    refused(build(shop.recipe("alpha")), 6, "bookworm", date, hint="--allow")
    nothing_made(tmp_path)
    ran = build(shop.recipe("alpha"), "--allow", "expired", "--dry-run", "--json")
    assert ran.status == 0, ran.err
    assert "warning:" in ran.err
    assert json.loads(ran.out)["weakened"] == ["expired"]


def test_a_release_of_another_suite(shop, build):
    shop.publish(suite="trixie", Codename="bookworm")
    (shop.mirror / "dists/trixie").rename(shop.mirror / "dists/sid")
    shutil.rmtree(shop.mirror / "dists/bookworm")
    (shop.mirror / "dists/sid").rename(shop.mirror / "dists/bookworm")
    shop.publish(Suite="unstable", Codename="sid")
    refused(build(shop.recipe("alpha")), 6, "bookworm", "sid")


def test_an_older_release_than_the_one_before(shop, build):
    assert build(shop.recipe("alpha"), "--dry-run").status == 0
    shop.publish(date=time.time() - 30 * DAY)
    refused(build(shop.recipe("alpha"), "--dry-run"), 6, "bookworm", hint="--allow")
    assert build(shop.recipe("alpha"), "--dry-run", "--allow", "rollback").status == 0


# Bytes that are not what was promised


@pytest.mark.parametrize("way", ["file", "http"])
@pytest.mark.parametrize(
    "change", [lambda data: data.replace(b"1.0-1", b"6.6-6"), lambda data: data[:-1]], ids=["other", "shorter"]
)
def test_an_index_with_a_wrong_hash(tmp_path, shop, build, way, change):
    suite = shop.mirror / "dists/bookworm"
    for path in [suite / INDEX, *suite.glob("**/by-hash/SHA256/*")]:
        path.write_bytes(change(path.read_bytes()))
    with serve(folder=shop.mirror) as server:
        ran = build(shop.recipe("alpha", mirror=server.url if way == "http" else None))
    refused(ran, 6, "main/binary-amd64/Packages", "expected")
    nothing_made(tmp_path)


@needs_root
@pytest.mark.parametrize("way", ["file", "http"])
def test_a_truncated_package(tmp_path, shop, build, way):
    deb = shop.deb()
    deb.write_bytes(deb.read_bytes()[:-100])
    with serve(folder=shop.mirror) as server:
        ran = build(shop.recipe("alpha", mirror=server.url if way == "http" else None))
    refused(ran, 6, "alpha", "expected")
    nothing_made(tmp_path)


@needs_root
def test_a_connection_that_ends_in_the_middle_of_a_package_every_time(tmp_path, shop, build):
    path = "/" + str(shop.deb().relative_to(shop.mirror))
    with serve(folder=shop.mirror, faults={path: iter([cut_off(0)] * 50)}) as server:
        ran = build(shop.recipe("alpha", mirror=server.url))
    refused(ran, 5, "alpha", server.url)
    nothing_made(tmp_path)


@needs_root
@pytest.mark.parametrize(
    "change",
    [lambda blob: blob[:-200], lambda blob: blob[:70], lambda blob: b"x" * len(blob)],
    ids=["in-data", "in-a-header", "no-package"],
)
def test_a_package_that_was_truncated_before_it_was_signed(tmp_path, build, change):
    shop = Shop(tmp_path).add("alpha", {"usr/bin/alpha": NOISE[:5000]})
    blob = change(shop.deb().read_bytes())
    shop.deb().write_bytes(blob)
    shop.stanzas[0] = "\n".join(
        {"Size": f"Size: {len(blob)}", "SHA256": f"SHA256: {sha256(blob)}"}.get(line.partition(":")[0], line)
        for line in shop.stanzas[0].split("\n")
    )
    refused(build(shop.publish().recipe("alpha")), 1, "alpha")
    nothing_made(tmp_path)


@needs_root
def test_a_package_that_is_another_than_its_index_says(tmp_path, build):
    shop = Shop(tmp_path).add("alpha", entry={"Version": "6.6-6"}).publish()
    refused(build(shop.recipe("alpha")), 1, "alpha", "6.6-6", "1.0-1")
    nothing_made(tmp_path)


# Full disks


@pytest.fixture
def small_disk(tmp_path):
    """A file system that holds 512 KiB."""
    need_root()
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.fixture
def big_shop(tmp_path):
    return Shop(tmp_path).add("alpha", {"usr/share/noise": NOISE}).publish()


@needs_root
def test_a_full_disk_under_the_cache(tmp_path, big_shop, small_disk):
    ran = rootfsbuild(big_shop.recipe("alpha"), "--cache-dir", small_disk / "cache", cwd=tmp_path)
    refused(ran, 1, small_disk / "cache", "No space left", hint="--cache-dir")
    nothing_made(tmp_path)


@needs_root
def test_a_full_disk_under_the_output(tmp_path, big_shop, build, small_disk):
    ran = build(big_shop.recipe("alpha"), "-o", small_disk / "box")
    refused(ran, 1, "No space left", hint="-o")
    assert set(os.listdir(small_disk)) <= {"box.log"}
    assert wait_gone(small_disk / "box") == []


@needs_root
def test_a_full_disk_under_an_archive(tmp_path, build, small_disk):
    shop = Shop(tmp_path).add_base().publish()
    ran = build(shop.recipe("base"), "-o", small_disk / "box.tar")
    refused(ran, 1, "No space left", hint="-o")
    assert set(os.listdir(small_disk)) <= {"box.tar.log"}


def test_a_cache_that_cannot_be_written(tmp_path, shop):
    (tmp_path / "file").write_text("")
    ran = rootfsbuild(shop.recipe("alpha"), "--dry-run", "--cache-dir", tmp_path / "file", cwd=tmp_path)
    refused(ran, 1, tmp_path / "file", hint="--cache-dir")


# No privilege


@pytest.fixture
def commons():
    """A folder that every user may enter and write to."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def open_shop(commons):
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("setpriv (util-linux) is not installed")
    shop = Shop(commons / "shop").add("alpha", {"usr/bin/alpha": b"x"}).add("beta", Depends="alpha").publish()
    (commons / "shop").chmod(0o755)
    return shop


def test_without_privilege_a_build_says_what_is_missing_and_what_works(commons, open_shop):
    ran = run_unprivileged(open_shop.recipe("beta"), "--cache-dir", commons / "cache", cwd=commons)
    refused(ran, 7, "--dry-run", "config", "why", hint="root")
    nothing_made(commons)
    # It is told before anything is fetched.
    assert "Reading archives" not in ran.err


def test_without_privilege_everything_but_building_works(commons, open_shop):
    recipe = open_shop.recipe("beta")
    cache = ["--cache-dir", commons / "cache"]
    dry = run_unprivileged(recipe, "--dry-run", "--json", *cache, cwd=commons)
    assert dry.status == 0, dry.err
    assert {package["name"] for package in json.loads(dry.out)["packages"]} == {"alpha", "beta"}
    why = run_unprivileged("why", recipe, "alpha", *cache, cwd=commons)
    assert (why.status, "beta" in why.out) == (0, True)
    config = run_unprivileged("config", recipe, cwd=commons)
    assert (config.status, "packages.include" in config.out) == (0, True)
    assert run_unprivileged("schema", cwd=commons).status == 0
    assert run_unprivileged("cache", "dir", *cache, cwd=commons).out == f"{commons / 'cache'}\n"


def test_without_privilege_a_root_cannot_be_entered(commons):
    (commons / "root").mkdir()
    ran = run_unprivileged("run", commons / "root", "--", "true", cwd=commons)
    assert "Traceback" not in ran.err
    assert ran.status in {2, 7}
    assert "error: " in ran.err


def test_a_place_that_may_not_be_written(commons, open_shop):
    if os.geteuid() != 0:
        pytest.skip("needs root, to have a place of somebody else's")
    (commons / "theirs").mkdir(mode=0o700)
    ran = run_unprivileged(open_shop.recipe("beta"), "--dry-run", "--cache-dir", commons / "theirs/x", cwd=commons)
    refused(ran, 1, commons / "theirs", hint="--cache-dir")


# Targets


@pytest.fixture
def whole_shop(tmp_path):
    need_root()
    return Shop(tmp_path / "shop").add_base().publish()


@needs_root
@pytest.mark.parametrize("force", [(), ("--force",)])
@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("/", "working directory"),
        ("{home}", "home"),
        (".", "working directory"),
        ("..", "working directory"),
        ("link", "symbolic link"),
        ("full", "no build"),
        ("file", "no build"),
    ],
)
def test_a_target_in_which_something_could_be_lost(tmp_path, whole_shop, build, target, said, force):
    home = tmp_path / "home"
    (home / "sub").mkdir(parents=True)
    (tmp_path / "link").symlink_to("full")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine").write_text("mine")
    (tmp_path / "file").write_text("mine")
    before = sorted(os.listdir(tmp_path))
    ran = build(whole_shop.recipe("base"), "-o", target.format(home=home), *force, HOME=home)
    refused(ran, 2, target.format(home=home), said)
    assert "\nhint: " in ran.err
    assert (tmp_path / "full/mine").read_text() == (tmp_path / "file").read_text() == "mine"
    assert sorted(set(os.listdir(tmp_path)) - {"cache"}) == before
    # It is told before anything is fetched.
    assert "Reading archives" not in ran.err


@needs_root
def test_force_replaces_only_what_an_earlier_build_made(tmp_path, whole_shop, build):
    recipe = whole_shop.recipe("base")
    first = build(recipe)
    assert first.status == 0, first.err
    again = build(recipe)
    refused(again, 2, "out/box", "earlier build", hint="--force")
    (tmp_path / "out/box/mark").write_text("")
    assert build(recipe, "--force").status == 0
    assert not (tmp_path / "out/box/mark").exists()
    shutil.rmtree(tmp_path / "out/box")
    (tmp_path / "out/box").mkdir()
    (tmp_path / "out/box/mine").write_text("mine")
    refused(build(recipe, "--force"), 2, "out/box", "no build")
    assert (tmp_path / "out/box/mine").read_text() == "mine"


@needs_root
def test_a_build_that_fails_leaves_the_earlier_result_as_it_was(tmp_path, whole_shop, build):
    assert build(whole_shop.recipe("base")).status == 0
    (tmp_path / "out/box/mark").write_text("")
    refused(build(whole_shop.recipe("base", "none"), "--force"), 3, "none")
    assert (tmp_path / "out/box/mark").exists()
    assert {"box", "box.lock", "box.log", "box.manifest.json"} == set(os.listdir(tmp_path / "out"))


@needs_root
@pytest.mark.parametrize("name", ["x.tar.gz", "x.tar.zst", "x.squashfs", "x.img"])
def test_a_form_that_comes_later(tmp_path, whole_shop, build, name):
    ran = build(whole_shop.recipe("base"), "-o", name)
    refused(ran, 2, name, "yet", ".tar", hint="convert")
    assert not (tmp_path / name).exists()


@needs_root
def test_a_parent_that_is_a_file(tmp_path, whole_shop, build):
    (tmp_path / "file").write_text("")
    ran = build(whole_shop.recipe("base"), "-o", "file/box")
    assert ran.status in {1, 2}
    assert "Traceback" not in ran.err
    assert "file" in ran.err[ran.err.index("error: ") :]


# Hooks and files


@needs_root
def test_a_hook_that_fails(tmp_path, whole_shop, build):
    hook = '\n[[hook]]\nstage = "configured"\nrun = "echo ouch; exit 3"\n'
    ran = build(whole_shop.recipe("base", extra=hook))
    refused(ran, 1, "hook 1 (configured)", "status 3", "ouch")
    nothing_made(tmp_path)
    assert "ouch" in (tmp_path / "out/box.log").read_text()


@needs_root
def test_a_maintainer_script_that_fails_and_keep(tmp_path, whole_shop, build):
    whole_shop.add("bad", scripts={"preinst": "#!/bin/sh\necho ouch\nexit 3\n"}, Depends="base").publish()
    recipe = whole_shop.recipe("bad")
    refused(build(recipe), 1, "bad: preinst exited with status 3", "| ouch", hint="--keep")
    nothing_made(tmp_path)
    ran = build(recipe, "--keep")
    refused(ran, 1, "bad: preinst", hint="box.kept")
    assert (tmp_path / "out/box.kept/bin/busybox").exists()
    assert set(os.listdir(tmp_path / "out")) == {"box.kept", "box.log"}


@needs_root
def test_a_file_to_copy_that_is_not_there(tmp_path, whole_shop, build):
    ran = build(whole_shop.recipe("base", extra='\n[files]\n"/etc/motd" = "none"\n'))
    refused(ran, 2, "none", "/etc/motd")
    nothing_made(tmp_path)


@pytest.mark.parametrize("value", ["soon", "-1", "1.5"])
@needs_root
def test_a_source_date_epoch_that_is_no_time(tmp_path, shop, build, value):
    refused(build(shop.recipe("alpha"), SOURCE_DATE_EPOCH=value), 2, "SOURCE_DATE_EPOCH", value)
    nothing_made(tmp_path)
