"""Locks through the command line: made, used, changed, gone stale, carried, and compared."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import time

import pytest
from making.builds import rootfsbuild, sha256
from making.shop import Shop

DAY = 86400
NOW = int(time.time())
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="building a root needs root")


@pytest.fixture
def shop(tmp_path):
    """A repository of yesterday: `tool` needs its own version of `lib`, `other` nothing but itself."""
    found = Shop(tmp_path).add_base().add("lib").add("other", {"usr/share/other": b"1"})
    found.add("tool", {"usr/share/tool": b"1"}, Depends="lib (= 1.0-1)")
    return found.publish(date=NOW - DAY)


@pytest.fixture
def recipe(shop):
    return shop.recipe("base", "tool", "other")


@pytest.fixture
def run(tmp_path):
    def run(*words, cache="cache", **variables):
        return rootfsbuild(*words, "--cache-dir", tmp_path / cache, cwd=tmp_path, timeout=120, **variables)

    return run


@pytest.fixture
def lock(recipe, run, tmp_path):
    """The path of the lock, made."""
    done = run("lock", recipe)
    assert done.status == 0, done.err
    return tmp_path / "box.amd64.lock"


def move_on(shop, **fields):
    """Let the archive go on: new versions in place of the old ones, whose files it has no more."""
    for name in ("lib", "tool", "other"):
        os.unlink(shop.deb(name))
    shop.stanzas = shop.stanzas[:1]
    shop.add("lib", Version="2.0-1").add("other", {"usr/share/other": b"2"}, Version="2.0-1")
    shop.add("tool", {"usr/share/tool": b"2"}, Version="2.0-1", Depends="lib (= 2.0-1)")
    shop.publish(date=NOW, **fields)


def versions(lock):
    lines = [line.split(" = ")[1].strip('"') for line in lock.read_text().splitlines() if " = " in line]
    text = lock.read_text()
    found = {}
    for part in text.split("[[package]]\n")[1:]:
        values = dict(line.split(" = ", 1) for line in part.splitlines() if " = " in line)
        found[values["name"].strip('"')] = values["version"].strip('"')
    assert lines
    return found


def test_a_lock_fits_until_the_recipe_changes(lock, shop, run):
    assert run("lock", "--check", "box.toml").status == 0
    before = lock.read_bytes()
    shop.recipe("base", "tool")
    done = run("lock", "--check", "box.toml")
    assert done.status == 4
    assert 'packages.include: ["base", "tool"] in the recipe, ["base", "tool", "other"] in the lock' in done.err
    assert run("--locked", "box.toml", "--dry-run").status == 4
    free = run("box.toml", "--dry-run")
    assert free.status == 0
    assert "does not fit" in free.err
    assert lock.read_bytes() == before


def test_the_same_lock_twice(lock, run):
    before = lock.read_bytes()
    assert run("lock", "box.toml", cache="other").status == 0
    assert lock.read_bytes() == before


def test_check_without_a_lock(recipe, run):
    done = run("lock", "--check", recipe)
    assert done.status == 4
    assert "rootfsbuild lock" in done.err


def test_an_upgrade_changes_what_must_and_the_rest_stays_proven(lock, shop, run):
    move_on(shop)
    shown = run("lock", "box.toml", "--diff")
    assert "3 upgraded" in shown.out
    assert versions(lock) == {"base": "1.0-1", "lib": "1.0-1", "tool": "1.0-1", "other": "1.0-1"}
    done = run("lock", "box.toml", "--upgrade", "tool")
    assert done.status == 0, done.err
    assert versions(lock) == {"base": "1.0-1", "lib": "2.0-1", "tool": "2.0-1", "other": "1.0-1"}
    # other 1.0-1 is in no current index: the document that proves it is still listed.
    assert lock.read_text().count("[[archive]]") == 2
    again = run("lock", "box.toml", "--upgrade", "tool")
    assert again.status == 0
    assert "no differences" in again.err
    assert run("lock", "box.toml").status == 0
    assert versions(lock)["other"] == "2.0-1"
    assert lock.read_text().count("[[archive]]") == 1


def test_an_upgrade_of_what_is_not_there(lock, run):
    before = lock.read_bytes()
    done = run("lock", "box.toml", "--upgrade", "tol")
    assert (done.status, "tol: not in the lock" in done.err, "tool" in done.err) == (2, True, True)
    assert lock.read_bytes() == before


def test_changes_for_a_pull_request(lock, shop, run, tmp_path):
    old = tmp_path / "old.lock"
    old.write_bytes(lock.read_bytes())
    move_on(shop)
    markdown = run("lock", "box.toml", "--markdown")
    assert markdown.out.startswith("## box.amd64.lock\n")
    compared = run_plain("diff", old, lock, "--json")
    found = json.loads(compared.out)
    assert found["counts"]["upgraded"] == 3
    same = run_plain("diff", lock, lock)
    assert same.out.startswith("no differences")


def run_plain(*words):
    done = rootfsbuild(*words)
    assert done.status == 0, done.err
    return done


@needs_root
def test_a_locked_build_needs_no_index_and_verifies(lock, shop, run, tmp_path):
    first = run("box.toml", "-o", tmp_path / "first.tar")
    assert first.status == 0, first.err
    # Neither index nor Release: the lock is enough, and packages that left the archive come from the store.
    move_on(shop)
    for path in (shop.mirror / "dists").rglob("*"):
        if path.is_file():
            path.unlink()
    second = run("--locked", "box.toml", "-o", tmp_path / "second.tar")
    assert second.status == 0, second.err
    assert sha256(tmp_path / "first.tar") == sha256(tmp_path / "second.tar")
    assert run("verify", lock, tmp_path / "first.tar").status == 0
    elsewhere = run("--locked", "box.toml", "-o", tmp_path / "third.tar", cache="empty")
    assert elsewhere.status == 5
    assert "other 1.0-1" in elsewhere.err or "lib 1.0-1" in elsewhere.err or "tool 1.0-1" in elsewhere.err


@needs_root
def test_what_left_the_archive_comes_from_its_memory(shop, run, tmp_path):
    past = tmp_path / "past"
    past.mkdir()
    shop.folder.joinpath("box.toml").unlink(missing_ok=True)
    recipe = shop.recipe("base", "tool", "other")
    text = recipe.read_text()
    recipe.write_text(text.replace('"suites"', f'"snapshot-file" = "file://{past}/{{sha256}}"\n"suites"'))
    assert run("lock", recipe).status == 0
    for name in ("lib", "tool", "other"):
        (past / sha256(shop.deb(name))).write_bytes(shop.deb(name).read_bytes())
    move_on(shop)
    built = run("--locked", recipe, "-o", tmp_path / "root", cache="empty")
    assert built.status == 0, built.err
    assert (tmp_path / "root/usr/share/other").read_bytes() == b"1"


def test_a_lock_is_proven_by_what_the_archives_memory_has(shop, run, tmp_path):
    recipe = shop.recipe("base", "tool", "other")
    text = recipe.read_text()
    recipe.write_text(text.replace('"suites"', f'"snapshot" = "file://{tmp_path}/past/{{timestamp}}"\n"suites"'))
    assert run("lock", recipe).status == 0
    moment = dt.datetime.fromtimestamp(NOW - DAY + 5 * 3600, dt.UTC)
    shutil.copytree(shop.mirror, tmp_path / "past" / f"{moment:%Y%m%dT%H%M%SZ}")
    move_on(shop)
    made = run("bundle", recipe, "-o", tmp_path / "carry.tar", cache="empty")
    assert made.status == 0, made.err
    shutil.rmtree(tmp_path / "past")
    missed = run("bundle", recipe, "-o", tmp_path / "again.tar", cache="other")
    assert missed.status == 6
    assert "is not the one with the SHA-256" in missed.err
    assert not (tmp_path / "again.tar").exists()


@needs_root
def test_a_bundle_of_several_moments(lock, shop, run, tmp_path):
    # What the store has of the first moment is what proves `other` in the second.
    assert run("box.toml", "-o", tmp_path / "old").status == 0
    move_on(shop)
    assert run("lock", "box.toml", "--upgrade", "tool").status == 0
    made = run("bundle", "box.toml", "-o", tmp_path / "carry.tar")
    assert made.status == 0, made.err
    built = run("--bundle", tmp_path / "carry.tar", "box.toml", "-o", tmp_path / "new", cache="far")
    assert built.status == 0, built.err
    assert (tmp_path / "new/usr/share/tool").read_bytes() == b"2"
    assert (tmp_path / "new/usr/share/other").read_bytes() == b"1"
    again = run("--bundle", tmp_path / "carry.tar", "box.toml", "-o", tmp_path / "again", cache="far")
    assert again.status == 0, again.err


@needs_root
def test_an_older_bundle_is_refused_where_a_newer_one_was(lock, shop, run, tmp_path):
    assert run("bundle", "box.toml", "-o", tmp_path / "first.tar").status == 0
    move_on(shop)
    assert run("lock", "box.toml").status == 0
    assert run("bundle", "box.toml", "-o", tmp_path / "second.tar").status == 0
    newer = run("--bundle", tmp_path / "second.tar", "box.toml", "-o", tmp_path / "newer", cache="far")
    assert newer.status == 0, newer.err
    older = run("--bundle", tmp_path / "first.tar", "box.toml", "-o", tmp_path / "older", cache="far")
    assert older.status == 6
    assert "a rollback" in older.err
    assert not (tmp_path / "older").exists()


@needs_root
def test_verify_shows_what_differs(lock, run, tmp_path):
    assert run("box.toml", "-o", tmp_path / "root").status == 0
    assert run("verify", lock, tmp_path / "root").status == 0
    (tmp_path / "root/usr/share/tool").write_bytes(b"another")
    (tmp_path / "root/usr/share/new").write_bytes(b"x")
    done = run("verify", lock, tmp_path / "root")
    assert done.status == 8
    assert "/usr/share/tool" in done.out
    assert "/usr/share/new" in done.out
    found = json.loads(run("verify", lock, tmp_path / "root", "--json").out)
    assert not found["same"]
    assert not [name for name in os.listdir(tmp_path) if "verify-" in name]


@needs_root
def test_a_root_and_a_lock_compared(lock, shop, run, tmp_path):
    assert run("box.toml", "-o", tmp_path / "root").status == 0
    assert run_plain("diff", lock, tmp_path / "root").out.startswith("no differences")
    move_on(shop)
    assert run("lock", "box.toml").status == 0
    assert "3 upgraded" in run_plain("diff", tmp_path / "root", lock).out
    assert run("box.toml", "-o", tmp_path / "newer").status == 0
    both = run_plain("diff", tmp_path / "root", tmp_path / "newer", "-v").out.splitlines()
    assert "~ /usr/share/other  content" in both
    assert both[-1].startswith("files: 0 added, 0 removed, ")
    found = json.loads(run_plain("diff", tmp_path / "root", tmp_path / "newer", "--json").out)
    assert "/usr/share/tool" in {path["path"] for path in found["files"]}
    assert "no root that dpkg knows" in rootfsbuild("diff", lock, tmp_path / "cache").err
