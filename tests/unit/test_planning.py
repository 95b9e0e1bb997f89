from __future__ import annotations

import os

import pytest
from making.plans import EPOCH, make_package, make_plan, make_snapshot

from rootfsbuild.distro import Archive
from rootfsbuild.errors import IntegrityError, RecipeError, StaleLockError
from rootfsbuild.events import Warned
from rootfsbuild.lock import without_mirrors
from rootfsbuild.locking import check_lock, save_lock
from rootfsbuild.planning import Planned, fetching, find_plan, lock_of, standing_lock
from rootfsbuild.recipe import load_recipe
from rootfsbuild.repository.mirrors import Mirror, past_url
from rootfsbuild.repository.sources import Sources
from rootfsbuild.settings import Settings

PLAN = without_mirrors(make_plan(make_package("alpha"), make_package("beta", depends=("alpha",))))


NOTHING = Sources((), "amd64", {}, None, None, None, frozenset())


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "box.toml"
    path.write_text('distro = "debian"\nrelease = "bookworm"\narch = "amd64"\n')
    return load_recipe(str(path))


def settings(**given):
    return Settings(**{"overrides": {}, "environ": {}, "now": lambda: EPOCH, **given})


class ResolvedError(Exception):
    """Instead of an answer from the archives."""


@pytest.fixture(autouse=True)
def _no_archives(monkeypatch):
    def refuse(*_words):
        raise ResolvedError

    monkeypatch.setattr("rootfsbuild.planning.resolve", refuse)


def test_a_lock_beside_the_recipe_is_used_without_reading_anything(recipe):
    save_lock(lock_of(recipe, PLAN), standing_lock(recipe))
    found = find_plan(recipe, NOTHING, settings(), lambda _event: None)
    assert found.plan == PLAN
    assert found.lock == standing_lock(recipe)


def test_without_a_lock_the_archives_are_asked(recipe):
    with pytest.raises(ResolvedError):
        find_plan(recipe, NOTHING, settings(), lambda _event: None)


def test_a_stale_lock_warns_and_the_archives_are_asked(recipe):
    lock = lock_of(recipe, PLAN)
    save_lock(lock.__class__(lock.name, {**lock.recipe, "hostname": "old"}, PLAN), standing_lock(recipe))
    heard = []
    with pytest.raises(ResolvedError):
        find_plan(recipe, NOTHING, settings(), heard.append)
    (warning,) = [event for event in heard if isinstance(event, Warned)]
    assert 'hostname: nothing in the recipe, "old" in the lock' in warning.text


@pytest.mark.parametrize("asked", [{"locked": True}, {"lock_file": "own"}])
def test_a_lock_that_is_asked_for_must_be_there_and_fit(recipe, tmp_path, asked):
    given = settings(**{key: str(tmp_path / value) if key == "lock_file" else value for key, value in asked.items()})
    with pytest.raises(StaleLockError, match="no such file"):
        find_plan(recipe, NOTHING, given, lambda _event: None)
    file = given.lock_file or standing_lock(recipe)
    lock = lock_of(recipe, PLAN)
    save_lock(lock.__class__("other", lock.recipe, PLAN), file)
    with pytest.raises(StaleLockError, match="other"):
        find_plan(recipe, NOTHING, given, lambda _event: None)
    with pytest.raises(StaleLockError):
        check_lock(recipe, file)
    save_lock(lock, file)
    assert find_plan(recipe, NOTHING, given, lambda _event: None).plan == PLAN


def test_a_lock_for_another_architecture_is_not_used(recipe, tmp_path):
    save_lock(lock_of(recipe, make_plan(architecture="arm64")), standing_lock(recipe))
    with pytest.raises(StaleLockError, match="for arm64, not for amd64"):
        find_plan(recipe, NOTHING, settings(locked=True), lambda _event: None)


@pytest.mark.parametrize(
    ("spoil", "error"),
    [(lambda text: text.replace('"1.0-1"', '"1.0-2"', 1), IntegrityError), (lambda text: text[:300], RecipeError)],
)
def test_a_spoilt_lock_is_refused_even_where_none_was_asked_for(recipe, spoil, error):
    save_lock(lock_of(recipe, PLAN), standing_lock(recipe))
    with open(standing_lock(recipe), encoding="utf-8") as file:
        text = file.read()
    with open(standing_lock(recipe), "w", encoding="utf-8") as file:
        file.write(spoil(text))
    with pytest.raises(error):
        find_plan(recipe, NOTHING, settings(), lambda _event: None)


def test_a_lock_is_saved_whole_and_readable(recipe, tmp_path):
    before = os.umask(0o022)
    try:
        save_lock(lock_of(recipe, PLAN), standing_lock(recipe))
    finally:
        os.umask(before)
    assert sorted(os.listdir(tmp_path)) == ["box.amd64.lock", "box.toml"]
    assert os.stat(standing_lock(recipe)).st_mode & 0o777 == 0o644


class Required:
    """A fetch that notes what is required of it."""

    def require(self, wanted):
        self.wanted = list(wanted)


@pytest.mark.parametrize("lock", ["", "box.amd64.lock"])
def test_the_archives_memory_is_asked_for_what_is_locked_only(lock):
    past = {
        "snapshot": "https://past.example/{archive}/{timestamp}/",
        "snapshot_file": "https://past.example/f/{sha256}",
    }
    archive = Archive("debian", ("bookworm",), **past)
    fetch = Required()
    sources = Sources((archive,), "amd64", {"debian": (Mirror("http://m", "x"),)}, None, fetch, None, frozenset())
    package = make_package("alpha", filename="pool/a+b.deb")
    fetching(Planned(make_plan(package, snapshots=(make_snapshot(date=0),)), lock), sources)
    (wanted,) = fetch.wanted
    assert wanted.urls == ("http://m/pool/a%2Bb.deb",)
    dated = "https://past.example/debian/19700101T050000Z/pool/a%2Bb.deb"
    assert wanted.late == ((f"https://past.example/f/{'0' * 64}", dated) if lock else ())
    assert past_url(archive, 0) == "https://past.example/debian/19700101T050000Z"
