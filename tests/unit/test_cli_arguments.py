from __future__ import annotations

import pytest

from rootfsbuild import __version__
from rootfsbuild.cli.arguments import parse, parse_mirrors
from rootfsbuild.cli.commands import COMMANDS
from rootfsbuild.cli.verbs import RELAXATIONS, VERBS
from rootfsbuild.errors import UsageError


def refusal(*words):
    with pytest.raises(UsageError) as caught:
        parse(words)
    return caught.value


def test_build_is_what_a_recipe_alone_means():
    arguments = parse(["r.toml"])
    assert (arguments.verb, arguments.recipe, arguments.output) == ("build", "r.toml", None)
    assert not any([arguments.dry_run, arguments.force, arguments.keep, arguments.quiet, arguments.json])
    assert arguments.script_timeout == 1800.0


@pytest.mark.parametrize(
    "words",
    [
        ["r.toml", "-o", "x", "--dry-run", "--json", "-q"],
        ["-o", "x", "--dry-run", "--json", "-q", "r.toml"],
        ["-q", "--json", "build", "-o", "x", "r.toml", "--dry-run"],
        ["build", "--json", "--dry-run", "r.toml", "-q", "--output=x"],
    ],
)
def test_options_stand_before_or_after_the_recipe(words):
    arguments = parse(words)
    assert (arguments.verb, arguments.recipe, arguments.output) == ("build", "r.toml", "x")
    assert arguments.dry_run
    assert arguments.json
    assert arguments.quiet


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "build"])
def test_every_verb_is_known_and_carried_out(verb):
    words = {
        "config": ["r"],
        "lock": ["r"],
        "why": ["r", "p"],
        "run": ["root"],
        "cache": ["dir"],
        "diff": ["a", "b"],
        "verify": ["l"],
        "bundle": ["r"],
    }.get(verb, [])
    assert parse([verb, *words]).verb == verb
    assert set(COMMANDS) == set(VERBS)


@pytest.mark.parametrize(
    "words",
    [
        ["-q", "--cache-dir", "c", "why", "r", "p"],
        ["-q", "--cache-dir=c", "why", "r", "p"],
        ["why", "r", "p", "--cache-dir", "c", "-q"],
    ],
)
def test_options_of_every_verb_may_stand_before_it(words):
    arguments = parse(words)
    assert (arguments.verb, arguments.recipe, arguments.package, arguments.cache_dir) == ("why", "r", "p", "c")
    assert arguments.quiet


def test_a_recipe_may_be_called_like_a_verb():
    assert parse(["./run"]).recipe == "./run"
    assert parse(["build", "run"]).recipe == "run"


# run ROOT [-- CMD…]


def test_what_follows_two_dashes_is_the_command_untouched():
    arguments = parse(["run", "root", "--bind", "/a:/b", "--bind", "/c", "--network", "--", "ls", "--", "-l", "--json"])
    assert arguments.command == ["ls", "--", "-l", "--json"]
    assert (arguments.root, arguments.bind, arguments.network) == ("root", ["/a:/b", "/c"], True)


def test_run_without_a_command_is_a_shell():
    assert parse(["run", "root"]).command == parse(["run", "root", "--"]).command == []


def test_only_run_takes_a_command():
    error = refusal("r.toml", "--", "ls")
    assert "'ls'" in str(error)
    assert "run" in error.hint


# What is refused


def test_an_option_that_is_nearly_right_is_named():
    assert refusal("r.toml", "--frce").hint.startswith("did you mean --force?")


def test_an_option_of_other_verbs_is_named_with_them():
    assert refusal("lock", "r.toml", "--dry-run").hint.startswith("--dry-run is an option of build;")
    assert (
        "--offline is an option of build, lock, verify, bundle, why;" in refusal("config", "r.toml", "--offline").hint
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["build"], "RECIPE"),
        (["r.toml", "--frce"], "--frce"),
        (["r.toml", "extra"], "extra"),
        (["why", "r.toml"], "PACKAGE"),
        (["cache", "clean"], "clean"),
        (["r.toml", "-o"], "-o"),
        (["r.toml", "--allow", "anything"], "anything"),
        (["r.toml", "--script-timeout", "soon"], "soon"),
        (["r.toml", "--script-timeout", "-1"], "-1"),
        (["r.toml", "--script-timeout", "nan"], "nan"),
        (["r.toml", "--script-timeout", "inf"], "inf"),
        (["cache", "prune", "--days", "x"], "x"),
        (["config", "r.toml", "--mirror", "a=b"], "--mirror"),
    ],
)
def test_a_command_line_that_means_nothing_is_told_with_where_to_read_on(words, said):
    error = refusal(*words)
    assert said in str(error)
    assert "--help" in error.hint


def test_zero_means_no_limit():
    assert parse(["r", "--script-timeout", "0"]).script_timeout == 0


def test_every_check_that_can_be_switched_off_is_named_in_the_help(capsys):
    for name in RELAXATIONS:
        assert parse(["r", "--allow", name]).allow == [name]
    with pytest.raises(SystemExit):
        parse(["build", "--help"])
    text = capsys.readouterr().out
    assert all(f"{name}:" in text for name in RELAXATIONS)


# Mirrors


def test_mirrors_are_names_and_urls():
    words = parse(["r", "--mirror", "debian=http://a/b?c=d", "--mirror", "mine=/srv/x"]).mirror
    assert parse_mirrors(words) == {"debian": "http://a/b?c=d", "mine": "/srv/x"}


@pytest.mark.parametrize("word", ["http://a", "debian", "debian=", "=http://a", ""])
def test_a_mirror_without_name_or_url_is_refused(word):
    with pytest.raises(UsageError) as caught:
        parse_mirrors([word])
    assert "NAME=URL" in str(caught.value)
    assert "--mirror debian=" in caught.value.hint


# Help


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_help_begins_with_examples_and_ends_with_exit_statuses(capsys, words):
    with pytest.raises(SystemExit) as caught:
        parse(words)
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert text.index("examples:") < text.index("VERB  ") if "VERB  " in text else "examples:" in text
    assert "rootfsbuild recipes/debian12.toml" in text
    assert "7 privilege" in text
    assert all(f"    {verb}" in text for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_a_line_to_copy(capsys, verb):
    with pytest.raises(SystemExit):
        parse([verb, "--help"])
    assert "example:\n  rootfsbuild " in capsys.readouterr().out


def test_version(capsys):
    with pytest.raises(SystemExit):
        parse(["--version"])
    assert capsys.readouterr().out == f"rootfsbuild {__version__}\n"
