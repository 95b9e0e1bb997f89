from __future__ import annotations

import dataclasses
import inspect
import re
import typing

import pytest

from rootfsbuild.distro import SHIPPED, Archive, distro_names, load_distro
from rootfsbuild.errors import RootfsbuildError
from rootfsbuild.formats import FORMATS
from rootfsbuild.formats.format import Format
from rootfsbuild.rootfs.inside import edit_root

FIELDS = {field.name: str(field.type) for field in dataclasses.fields(Format)}
ARCHIVES = [Archive("one", ("a", "a-updates"), ("main", "extra")), Archive("two", ("b",))]
URLS = {"one": "http://one.example/x", "two": "http://two.example/y"}


@pytest.fixture(params=sorted(FORMATS))
def format_(request):
    return FORMATS[request.param]


def test_the_key_is_the_name():
    assert all(name == format_.name for name, format_ in FORMATS.items())
    assert all(re.fullmatch("[a-z]+", name) for name in FORMATS)


def test_every_format_of_a_shipped_distribution_is_there():
    assert distro_names(SHIPPED)
    assert {load_distro(name).format for name in distro_names(SHIPPED)} <= set(FORMATS)


@pytest.mark.parametrize("name", [name for name, kind in FIELDS.items() if kind.startswith("Callable")])
def test_every_function_is_there_with_as_many_parameters_as_the_pipeline_passes(format_, name):
    function = getattr(format_, name)
    assert callable(function)
    parameters, _ = typing.get_args(typing.get_type_hints(Format)[name])
    inspect.signature(function).bind(*[None] * len(parameters))


@pytest.mark.parametrize("name", [name for name, kind in FIELDS.items() if kind.startswith("Callable")])
def test_every_function_says_what_it_does(format_, name):
    assert inspect.getdoc(getattr(format_, name))


def test_the_record_has_nothing_that_is_not_filled(format_):
    assert all(getattr(format_, name) is not None for name in FIELDS)
    assert dataclasses.is_dataclass(format_)
    with pytest.raises(dataclasses.FrozenInstanceError):
        format_.name = "other"


@pytest.mark.parametrize("name", ["policy", "stand_ins"])
def test_what_programs_see_instead_has_absolute_paths_bytes_and_modes(format_, name):
    for path, (content, mode) in getattr(format_, name).items():
        assert path.startswith("/")
        assert isinstance(content, bytes)
        assert 0 <= mode <= 0o7777


def test_services_do_not_start_for_hooks_either(format_):
    assert format_.policy.items() <= format_.stand_ins.items()


def test_the_environment_of_scripts_is_whole_and_depends_on_the_time_alone(format_, monkeypatch):
    before = dict(format_.environment(1_600_000_000))
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "5")
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("SECRET", "of the host")
    assert dict(format_.environment(1_600_000_000)) == before
    assert before["SOURCE_DATE_EPOCH"] == "1600000000"
    assert {"PATH", "HOME", "LC_ALL"} <= before.keys()
    assert before != dict(format_.environment(5))
    assert all(isinstance(word, str) for pair in before.items() for word in pair)


def test_the_source_list_names_the_urls_given_and_no_others(format_):
    text = format_.source_list(ARCHIVES, URLS)
    assert text.endswith("\n")
    assert set(re.findall(r"http://\S+", text)) == set(URLS.values())
    assert format_.source_list(ARCHIVES, {}) == format_.source_list([], URLS)


def test_without_its_source_list_a_root_has_nothing_to_localise(format_, tmp_path):
    with edit_root(str(tmp_path)) as inside:
        assert dict(format_.localise_sources(inside, {"http://a": "http://b"})) == {}


def test_why_of_a_package_that_is_not_in_the_plan_says_so(format_):
    try:
        lines = format_.why((), "nothing-of-this-name")
    except RootfsbuildError as error:
        lines = [str(error)]
    assert any("nothing-of-this-name" in line for line in lines)


def test_the_types_of_the_record_can_be_read():
    # A name that is imported for the type checker only would make this, and documentation, fail.
    assert set(typing.get_type_hints(Format)) >= set(FIELDS)
