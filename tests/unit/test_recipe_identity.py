from __future__ import annotations

import os
import shutil

import pytest

from rootfsbuild.errors import RecipeError
from rootfsbuild.recipe import load_recipe
from rootfsbuild.recipe_identity import identify

PLAIN = 'distro = "debian"\nrelease = "12"\narch = "amd64"\n'


def say(folder, text):
    folder.mkdir(exist_ok=True)
    path = folder / "box.toml"
    path.write_text(text)
    return identify(load_recipe(str(path)))


def test_comments_order_and_spelling_are_nothing(tmp_path):
    other = '# a remark\nrelease = "bookworm"\narch = "amd64"\ndistro = "debian"\n[packages]\nvariant = "minbase"\n'
    assert say(tmp_path, PLAIN) == say(tmp_path, other)


def test_what_is_extended_counts_as_if_it_stood_there(tmp_path):
    (tmp_path / "base.toml").write_text(PLAIN + '[packages]\ninclude = ["a1"]\n')
    extending = say(tmp_path, 'extends = "base.toml"\n[packages]\ninclude = ["b1"]\n')
    assert extending == say(tmp_path, PLAIN + '[packages]\ninclude = ["a1", "b1"]\n')
    (tmp_path / "base.toml").write_text(PLAIN + '[packages]\ninclude = ["c1"]\n')
    assert extending != say(tmp_path, 'extends = "base.toml"\n[packages]\ninclude = ["b1"]\n')


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ('[packages]\ninclude = ["curl"]\n', "packages.include"),
        ('[packages]\nexclude = ["curl"]\n', "packages.exclude"),
        ("[packages]\nrecommends = true\n", "packages.recommends"),
        ('[packages]\nvariant = "important"\n', "packages.variant"),
        ('hostname = "box"\n', "hostname"),
        ('snapshot = "20261001T000000Z"\n', "snapshot"),
        ('[paths]\nexclude = ["/usr/share/doc/*"]\n', "paths.exclude"),
        ('[paths]\nkeep = ["/usr/share/doc/*"]\n', "paths.keep"),
        ('[[hook]]\nstage = "finished"\nrun = "true"\n', "hook.1"),
        ('[files]\n"/etc/motd" = "box.toml"\n', "files./etc/motd"),
        ('[apt.sources]\ndebian = "http://other.example/debian"\n', "apt.sources"),
        ('[[archive]]\nname = "debian"\nsuites = ["bookworm"]\n', "archive.debian.suites"),
        ('[[archive]]\nname = "debian"\ncomponents = ["main", "contrib"]\n', "archive.debian.components"),
        ('[[archive]]\nname = "debian"\npriority = 700\n', "archive.debian.priority"),
    ],
)
def test_whatever_changes_the_image_is_said(tmp_path, more, key):
    plain, other = say(tmp_path, PLAIN), say(tmp_path, PLAIN + more)
    assert {name for name in plain.keys() | other.keys() if plain.get(name) != other.get(name)} == {key}


def test_mirrors_and_folders_are_not_said(tmp_path):
    text = PLAIN + '[files]\n"/opt/tree" = "tree"\n[apt.sources]\ndebian = "http://a.example/x"\n'
    folders = []
    for name, mirror in (("one", "http://m.example/debian"), ("two", "http://n.example/debian")):
        (tmp_path / name / "tree").mkdir(parents=True)
        (tmp_path / name / "tree/f").write_text("x")
        folders.append(say(tmp_path / name, f'{text}[[archive]]\nname = "debian"\nmirrors = ["{mirror}"]\n'))
    assert folders[0] == folders[1]
    assert not [value for value in folders[0].values() if "example" in str(value) or str(tmp_path) in str(value)]


def test_files_are_named_by_what_they_hold(tmp_path):
    text = PLAIN + '[files]\n"/opt/tree" = "tree"\n'
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub/f").write_text("x")
    first = say(tmp_path, text)
    os.utime(tree / "sub/f", (1, 1))
    (tree / "sub/f").chmod(0o600)
    assert say(tmp_path, text) == first
    changed = []
    (tree / "sub/f").chmod(0o700)
    changed.append(say(tmp_path, text))
    (tree / "sub/f").write_text("y")
    changed.append(say(tmp_path, text))
    (tree / "sub/f").rename(tree / "sub/g")
    changed.append(say(tmp_path, text))
    (tree / "empty").mkdir()
    changed.append(say(tmp_path, text))
    assert len({str(found["files./opt/tree"]) for found in [first, *changed]}) == 5


def test_a_key_file_is_named_by_what_it_holds(tmp_path):
    shutil.copy(os.path.join(os.path.dirname(__file__), "../../rootfsbuild/distros/keys", KEY), tmp_path / "own.pgp")
    archive = '[[archive]]\nname = "own"\nsuites = ["x"]\nkeys = ["own.pgp"]\nmirrors = ["http://own.example/x"]\n'
    (key,) = say(tmp_path, PLAIN + archive)["archive.own.keys"]
    assert key.startswith("sha256:")
    (tmp_path / "own.pgp").write_bytes(b"another")
    assert say(tmp_path, PLAIN + archive)["archive.own.keys"] != (key,)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/broken").symlink_to("nowhere")
    with pytest.raises(RecipeError, match="broken cannot be read"):
        say(tmp_path, PLAIN + '[files]\n"/opt/tree" = "tree"\n')


KEY = "debian-archive-bookworm-stable.pgp"
