from __future__ import annotations

import datetime as dt
import json
import os
import tomllib

import pytest

from rootfsbuild.distro import distro_names, load_distro
from rootfsbuild.documents.recipe_fields import RECIPE
from rootfsbuild.documents.schema import recipe_schema
from rootfsbuild.documents.shapes import Either, Named, Several, Table
from rootfsbuild.recipe import load_recipe

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
RECIPES = os.path.join(ROOT, "recipes")


def errors(data):
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(recipe_schema())
    plain = json.loads(json.dumps(data, default=dt.date.isoformat))
    return list(validator.iter_errors(plain))


def read(name):
    with open(os.path.join(RECIPES, name), "rb") as file:
        return tomllib.load(file)


def recipes():
    return sorted(name for name in os.listdir(RECIPES) if name.endswith(".toml"))


def fields(shape, path=""):
    if isinstance(shape, Several):
        yield from fields(shape.item, path)
    elif isinstance(shape, Named):
        yield from fields(shape.value, path)
    elif isinstance(shape, Either):
        for option in shape.options:
            yield from fields(option, path)
    elif isinstance(shape, Table):
        for name, field in shape.fields.items():
            here = f"{path}.{name}" if path else name
            yield here
            yield from fields(field.shape, here)


def test_the_written_schema_is_the_generated_one():
    with open(os.path.join(ROOT, "docs", "recipe.schema.json"), encoding="utf-8") as file:
        written = file.read()
    assert written == json.dumps(recipe_schema(), indent=2, ensure_ascii=False) + "\n", (
        "write it again: rootfsbuild schema > docs/recipe.schema.json"
    )


def test_the_schema_is_a_schema():
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(recipe_schema())


@pytest.mark.parametrize("name", recipes())
def test_every_recipe_loads_and_is_valid(name):
    assert errors(read(name)) == []
    known = {load_distro(distro).id for distro in distro_names()}
    assert load_recipe(os.path.join(RECIPES, name)).distro in known


WRONG = {
    "an unknown key": {"include": ["nginx"]},
    "an unknown key below": {"packages": {"inclde": ["nginx"]}},
    "a wrong type": {"packages": {"include": "nginx"}},
    "a number for a flag": {"packages": {"recommends": 1}},
    "a flag for a number": {"archive": [{"name": "debian", "priority": True}]},
    "an unknown variant": {"packages": {"variant": "minimal"}},
    "a bad package": {"packages": {"include": ["Nginx!"]}},
    "a release that is no word": {"release": 12.5},
    "an archive without a name": {"archive": [{"suites": ["x"]}]},
    "a flat archive": {"archive": [{"name": "x", "suites": ["./"]}]},
    "a mirror that is no URL": {"archive": [{"name": "debian", "mirrors": ["ftp.de.debian.org"]}]},
    "a relative target": {"files": {"etc/motd": "motd"}},
    "a target that climbs": {"files": {"/etc/../motd": "motd"}},
    "a bad mode": {"files": {"/etc/motd": {"source": "motd", "mode": "0999"}}},
    "an unknown stage": {"hook": [{"stage": "later", "run": "true"}]},
    "a hook without a command": {"hook": [{"stage": "configured"}]},
    "an empty command": {"hook": [{"stage": "configured", "run": "  "}]},
    "a bad date": {"snapshot": "yesterday"},
    "a bad host name": {"hostname": "-x"},
    "a name that leads elsewhere": {"name": "../x"},
    "an empty include": {"packages": {"include": [""]}},
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG.keys())
def test_the_schema_and_the_checks_refuse_the_same(change, tmp_path):
    from making.recipes import write_toml

    from rootfsbuild.errors import RecipeError

    data = {"distro": "debian", "release": "bookworm"}
    assert errors(data) == []
    data |= change
    assert errors(data)
    recipe = tmp_path / "x.toml"
    recipe.write_text(write_toml(data), encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(recipe))
    assert caught.value.line
    assert caught.value.where


def test_a_recipe_must_name_a_distribution_or_extend_one_that_does():
    assert errors({"release": "bookworm"})
    assert errors({"extends": "debian12.toml"}) == []


def test_the_recipes_of_every_field_have_every_field():
    def present(data, path=""):
        for key, value in data.items():
            here = f"{path}.{key}" if path else key
            yield here
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, dict):
                    # The keys of [files] and [apt] sources are the user's own.
                    named = here in {"files", "apt.sources"}
                    below = [each for each in item.values() if isinstance(each, dict)] if named else [item]
                    for table in below:
                        yield from present(table, here)

    everything = set(present(read("everything.toml")))
    # What only one package format has is in that format's recipe.
    of_rpm = set(present(read("everything-rpm.toml"))) - everything
    assert everything | of_rpm == set(fields(RECIPE))
    assert of_rpm == {
        "packages.modules",
        "packages.docs",
        "packages.languages",
        "packages.strict",
        "archive.metalink",
        "archive.mirrorlist",
    }


def test_the_reference_tells_of_every_field():
    with open(os.path.join(ROOT, "docs", "recipe.md"), encoding="utf-8") as file:
        text = file.read()
    missing = [name for name in fields(RECIPE) if f"`{name}`" not in text]
    assert not missing
