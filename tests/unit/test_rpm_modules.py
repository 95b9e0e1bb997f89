from __future__ import annotations

from itertools import pairwise

import pytest
from making.rpmmd import COMPRESSORS, default, module

from rootfsbuild.errors import UnsatisfiableError, UntrustedError
from rootfsbuild.formats.rpm.modules import Documents, Selection, hidden, join, nevra, parse_modules

NODE18 = module("nodejs", "18", ["nodejs-1:18.1-1.m.x86_64", "npm-1:8.0-1.m.x86_64", "nodejs-1:18.1-1.m.src"])
NODE20 = module("nodejs", "20", ["nodejs-1:20.1-1.m.x86_64", "npm-1:10.0-1.m.x86_64", "nodejs-docs-0:20-1.m.noarch"])
PERL526 = module("perl", "5.26", ["perl-4:5.26.3-1.m.x86_64"])
PERL530 = module("perl", "5.30", ["perl-4:5.30.1-1.m.x86_64"])


def read(*texts) -> Documents:
    return parse_modules("".join(texts).encode())


def select(*texts, enabled=(), architecture="x86_64", **named) -> Selection:
    return hidden(read(*texts), enabled, architecture, **named)


def refusal(*texts, **named):
    with pytest.raises(UnsatisfiableError) as caught:
        select(*texts, **named)
    return caught.value


# Reading


def test_parse():
    documents = read(
        module("php", "7.3", ["php-0:7.3-1.x86_64"], version=80201, requires={"nginx": [], "platform": ["el8"]},
               profiles={"common": ["php", "php-cli"]}),
        default("php", "7.3", modified=5),
    )  # fmt: skip
    (php,), (chosen,) = documents.modules, documents.defaults
    assert (php.name, php.stream, php.version, php.context, php.architecture) == (
        "php",
        "7.3",
        80201,
        "c0ffee",
        "x86_64",
    )
    assert php.requires == (("nginx", ()), ("platform", ("el8",)))
    assert php.artifacts == ("php-0:7.3-1.x86_64",)
    assert php.profiles == {"common": ("php", "php-cli")}
    assert (chosen.module, chosen.stream, chosen.modified, chosen.profiles) == ("php", "7.3", 5, {"7.3": ("common",)})


@pytest.mark.parametrize("stream", ["10", "5.30", "1e3", "yes", "0x10", "1_000", "2024-01-01", "rhel8", "'1.10'"])
def test_streams_are_text_whatever_they_look_like(stream):
    documents = read(module("m", stream), default("m", stream))
    plain = stream.strip("'")
    assert documents.modules[0].stream == documents.defaults[0].stream == plain


def test_version_1_names_one_stream():
    text = (
        "document: modulemd\nversion: 1\ndata:\n  name: a\n  stream: s\n  version: 20180101\n"
        "  dependencies:\n    requires:\n      platform: f28\n  artifacts:\n    rpms:\n    - a-0:1-1.noarch\n"
    )
    (found,) = read("---\n", text).modules
    assert (found.requires, found.context, found.architecture) == ((("platform", ("f28",)),), "", "")


def test_other_documents_are_passed_over():
    others = (
        "---\ndocument: modulemd-translations\nversion: 1\ndata: {module: a}\n...\n"
        "---\ndocument: modulemd-obsoletes\nversion: 1\ndata: {module: a}\n...\n"
        "---\ndocument: modulemd\nversion: 99\ndata: []\n...\n"
    )
    assert read(others, NODE18) == read(NODE18)
    assert read("") == Documents()


@pytest.mark.parametrize("ending", COMPRESSORS)
def test_from_a_file(tmp_path, ending):
    (tmp_path / "blob").write_bytes(COMPRESSORS[ending](NODE18.encode()))
    assert parse_modules(str(tmp_path / "blob"), "it", href=f"modules.yaml{ending}") == read(NODE18)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("---\n- a\n", "no table"),
        ("--- text\n", "no table"),
        ("a: [\n", "no YAML"),
        ("a: b: c\n", "no YAML"),
        ("a: &x b\nc: *x\n", "reference"),
        ("a: !!python/object:os.system x\n", "tag"),
        ("a: !local x\n", "tag"),
        ("a: 1\na: 2\n", "twice"),
        ("? [a]\n: b\n", "key that is no text"),
        ("a: " + "[" * 100 + "]" * 100 + "\n", "inside each other"),
        ("a: \x00\n", "no YAML"),
        ("document: modulemd\nversion: 2\ndata: {name: a}\n", "without a name and a stream"),
        ("document: modulemd\nversion: 2\ndata: {name: [a], stream: b}\n", "name is not what belongs there"),
        ("document: modulemd\nversion: 2\ndata: {name: a, stream: b, version: x}\n", "version"),
        ("document: modulemd\nversion: 2\ndata: {name: a, stream: b, artifacts: {rpms: [[x]]}}\n", "rpms"),
        ("document: modulemd\nversion: 2\ndata: {name: a, stream: b, artifacts: x}\n", "artifacts"),
        ("document: modulemd\nversion: 2\ndata: {name: a, stream: b, dependencies: [x]}\n", "no table"),
    ],
)
def test_malformed_documents_are_refused(text, said):
    with pytest.raises(UntrustedError) as caught:
        read(text)
    assert caught.value.rule == "malformed"
    assert said in str(caught.value)
    assert "line" in str(caught.value) or "byte" in str(caught.value)


def test_documents_that_are_no_utf8_are_refused():
    with pytest.raises(UntrustedError):
        parse_modules(b"a: \xff\xff\n")


def test_references_are_refused_before_they_grow():
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(9)
    )
    with pytest.raises(UntrustedError, match="reference"):
        read(bomb)


# What is hidden


def test_nevra():
    assert nevra("a-b", "0", "1", "2", "noarch") == nevra("a-b", "", "1", "2", "noarch") == "a-b-1-2.noarch"
    assert nevra("a", "10", "1", "2", "x86_64") == "a-10:1-2.x86_64"


def test_streams_that_are_neither_default_nor_enabled_are_hidden():
    found = select(NODE18, NODE20)
    assert found.enabled_streams == {}
    assert found.hides("nodejs", "nodejs-1:18.1-1.m.x86_64")
    assert found.hides("nodejs-docs", "nodejs-docs-20-1.m.noarch")
    # Without an active stream packages from elsewhere are as good as any.
    assert not found.hides("nodejs", "nodejs-1:16.0-1.x86_64")


def test_default_stream():
    found = select(NODE18, NODE20, default("nodejs", "18"))
    assert found.enabled_streams == {"nodejs": "18"}
    assert not found.hides("nodejs", "nodejs-1:18.1-1.m.x86_64")
    assert found.hides("nodejs", "nodejs-1:20.1-1.m.x86_64")


def test_enabled_stream_wins_over_the_default():
    found = select(NODE18, NODE20, default("nodejs", "18"), enabled=["nodejs:20"])
    assert found.enabled_streams == {"nodejs": "20"}
    assert found.hides("nodejs", "nodejs-1:18.1-1.m.x86_64")
    assert not found.hides("npm", "npm-1:10.0-1.m.x86_64")
    assert [one.stream for one in found.modules] == ["20"]


def test_active_stream_hides_others_by_name_and_by_what_they_provide():
    found = select(NODE18, NODE20, enabled=["nodejs:18"])
    assert found.hidden_names_from_other_repos == {"nodejs", "npm"}
    assert found.hides("nodejs", "nodejs-2:99-1.x86_64")
    assert found.hides("iojs", "iojs-3-1.x86_64", ["iojs", "nodejs"])
    assert not found.hides("iojs", "iojs-3-1.x86_64", ["iojs", "nodejs(abi)"])
    assert not found.hides("nodejs", "nodejs-2:99-1.x86_64", hotfix=True)
    assert not found.hides("nodejs", "nodejs-1:20.1-1.m.x86_64", hotfix=True)


def test_source_packages_hide_nothing():
    found = select(module("a", "1", ["only-source-0:1-1.src", "other-0:1-1.nosrc", "a-0:1-1.noarch"]), enabled=["a:1"])
    assert found.hidden_names_from_other_repos == {"a"}


def test_package_of_an_active_and_an_inactive_stream_is_shown():
    shared = "shared-0:1-1.m.noarch"
    found = select(module("a", "1", [shared]), module("a", "2", [shared]), enabled=["a:2"])
    assert not found.hides("shared", "shared-1-1.m.noarch")


def test_all_versions_of_a_stream_are_shown():
    old = module("a", "1", ["a-0:1-1.noarch"], version=1)
    new = module("a", "1", ["a-0:1-2.noarch"], version=2)
    found = select(old, new, enabled=["a:1"])
    assert found.shown_nevras == {"a-1-1.noarch", "a-1-2.noarch"}
    assert not found.hidden_nevras


def test_other_architectures_are_hidden():
    other = module("a", "1", ["a-0:1-1.aarch64"], arch="aarch64", context="b")
    found = select(other, module("a", "1", ["a-0:1-1.x86_64"]), enabled=["a:1"])
    assert (found.shown_nevras, found.hidden_nevras) == ({"a-1-1.x86_64"}, {"a-1-1.aarch64"})
    assert "no repository has the module a" in str(refusal(other, enabled=["a:1"]))


def test_disabled_module_is_not_active_by_default():
    found = select(NODE18, default("nodejs", "18"), disabled=["nodejs"])
    assert found.enabled_streams == {}
    assert found.hides("nodejs", "nodejs-1:18.1-1.m.x86_64")
    assert "disabled" in str(refusal(NODE18, enabled=["nodejs:18"], disabled=["nodejs"]))


def test_package_that_left_its_module_is_not_hidden_elsewhere():
    text = module("a", "1", ["a-0:1-1.noarch", "b-0:1-1.noarch"]).replace(
        "  artifacts:", "  demodularized:\n    rpms: [b]\n  artifacts:"
    )
    assert select(text, enabled=["a:1"]).hidden_names_from_other_repos == {"a"}


def test_modules_of_several_repositories():
    both = join([read(NODE18), read(NODE20, default("nodejs", "20"))])
    assert hidden(both, [], "x86_64").enabled_streams == {"nodejs": "20"}


# Defaults that disagree


def test_newer_default_counts():
    texts = NODE18, NODE20, default("nodejs", "18", modified=1), default("nodejs", "20", modified=2)
    assert select(*texts).enabled_streams == {"nodejs": "20"}


def test_equally_old_defaults_that_disagree_are_none():
    assert select(NODE18, NODE20, default("nodejs", "18"), default("nodejs", "20")).enabled_streams == {}
    assert select(NODE18, NODE20, default("nodejs", "18"), default("nodejs", "18")).enabled_streams == {"nodejs": "18"}


# What streams require of each other


def test_required_stream_becomes_active():
    app = module("app", "1", requires={"perl": ["5.30"]})
    found = select(PERL526, PERL530, app, enabled=["app:1"])
    assert found.enabled_streams == {"app": "1", "perl": "5.30"}


def test_required_stream_wins_over_a_default():
    app = module("app", "1", requires={"perl": ["5.30"]})
    found = select(PERL526, PERL530, app, default("perl", "5.26"), enabled=["app:1"])
    assert found.enabled_streams["perl"] == "5.30"


def test_default_is_preferred_among_streams_that_will_do():
    for chosen in ("5.26", "5.30"):
        app = module("app", "1", requires={"perl": []})
        assert (
            select(PERL526, PERL530, app, default("perl", chosen), enabled=["app:1"]).enabled_streams["perl"] == chosen
        )
        listed = module("app", "1", requires={"perl": ["5.26", "5.30"]})
        assert (
            select(PERL526, PERL530, listed, default("perl", chosen), enabled=["app:1"]).enabled_streams["perl"]
            == chosen
        )


def test_stream_that_will_not_do():
    app = module("app", "1", requires={"perl": ["-5.26"]})
    assert select(PERL526, PERL530, app, default("perl", "5.26"), enabled=["app:1"]).enabled_streams["perl"] == "5.30"


def test_enabled_streams_that_exclude_each_other_are_explained():
    app = module("app", "1", requires={"perl": ["5.30"]})
    error = refusal(PERL526, PERL530, app, enabled=["app:1", "perl:5.26"])
    assert "app:1, perl:5.26" in str(error)
    assert "app:1 requires perl:[5.30]" in str(error)


def test_requirement_that_no_repository_meets():
    app = module("app", "1", requires={"ruby": ["3"]})
    assert "app:1 requires ruby:[3]" in str(refusal(app, enabled=["app:1"]))


def test_default_that_cannot_be_is_passed_over():
    app = module("app", "1", ["app-0:1-1.noarch"], requires={"perl": ["5.30"]})
    found = select(PERL526, PERL530, app, default("app", "1"), enabled=["perl:5.26"])
    assert found.enabled_streams == {"perl": "5.26"}
    assert found.passed_over == ("app:1",)
    assert found.hides("app", "app-1-1.noarch")


def test_context_is_chosen_by_what_it_requires():
    one = module("app", "1", ["app-0:1-1.526.noarch"], context="a", requires={"perl": ["5.26"]})
    two = module("app", "1", ["app-0:1-1.530.noarch"], context="b", requires={"perl": ["5.30"]})
    for stream, built in (("5.26", "526"), ("5.30", "530")):
        found = select(PERL526, PERL530, one, two, enabled=["app:1", f"perl:{stream}"])
        assert {name for name in found.shown_nevras if name.startswith("app")} == {f"app-1-1.{built}.noarch"}


def test_builds_that_require_the_same_are_one():
    texts = [module("a", "1", [f"a-0:1-{n}.noarch"], context=f"c{n}", version=n) for n in (1, 3, 2)]
    assert len(select(*texts, enabled=["a:1"]).shown_nevras) == 3
    fixed = [text.replace("  arch:", "  static_context: true\n  arch:") for text in texts]
    assert select(*fixed, enabled=["a:1"]).shown_nevras == {"a-1-1.noarch"}


def test_order_in_which_builds_are_tried():
    def chosen(*requires):
        texts = [
            module("a", "1", [f"a-0:1-{n}.noarch"], context=f"c{n}", requires=one) for n, one in enumerate(requires)
        ]
        deps = [module(name, stream) for name in ("m2", "m3") for stream in ("1", "2")]
        (shown,) = (name for name in select(*texts, *deps, enabled=["a:1"]).shown_nevras if name.startswith("a-"))
        return int(shown.split("-")[2].split(".")[0])

    in_order = [{}, {"m2": []}, {"m2": ["2", "1"]}, {"m2": ["1"]}, {"m2": ["2"]}, {"m3": ["1"]}]
    for first, second in pairwise(in_order):
        assert (chosen(first, second), chosen(second, first)) == (0, 1)


def test_platform():
    el8 = module("a", "1", ["a-0:1-1.el8.noarch"], context="e", requires={"platform": ["el8"]})
    el9 = module("a", "1", ["a-0:1-1.el9.noarch"], context="f", requires={"platform": ["el9"]})
    assert select(el8, el9, enabled=["a:1"], platform="el9").shown_nevras == {"a-1-1.el9.noarch"}
    assert select(el8, el9, enabled=["a:1"], platform="el8").shown_nevras == {"a-1-1.el8.noarch"}
    assert select(el8, enabled=["a:1"]).shown_nevras == {"a-1-1.el8.noarch"}
    assert "no repository has the module a for x86_64 and el9" in str(refusal(el8, enabled=["a:1"], platform="el9"))


def test_streams_that_require_each_other():
    one = module("one", "1", requires={"two": ["1"]})
    two = module("two", "1", requires={"one": ["1"]})
    assert select(one, two, enabled=["one:1"]).enabled_streams == {"one": "1", "two": "1"}


def test_search_goes_back_on_its_choices():
    texts = [
        module("app", "1", requires={"lib": [], "perl": ["5.26"]}),
        module("lib", "1", requires={"perl": ["5.30"]}),
        module("lib", "2", requires={"perl": ["5.26"]}),
        default("lib", "1"),
    ]
    found = select(*texts, PERL526, PERL530, enabled=["app:1"])
    assert found.enabled_streams == {"app": "1", "lib": "2", "perl": "5.26"}


def test_modules_that_are_entangled_on_purpose_end():
    texts = [
        module(f"m{n}", str(stream), requires={f"m{n + 1}": [], "never": ["1"]} if n == 29 else {f"m{n + 1}": []})
        for n in range(30)
        for stream in range(4)
    ]
    with pytest.raises(UnsatisfiableError):
        select(*texts, module("m30", "1"), enabled=["m0:0"])


# What a recipe may enable


@pytest.mark.parametrize(
    ("enabled", "said", "hint"),
    [
        (["node:18"], "no repository has the module node", 'did you mean "nodejs"?'),
        (["nodejs:19"], "nodejs has no stream 19; its streams are 18, 20", ""),
        (["nodejs:180"], "nodejs has no stream 180", 'did you mean "18"?'),
        (["nodejs"], "no default stream; its streams are 18, 20", "name one, as in nodejs:18"),
        (["nodejs:18", "nodejs:20"], "nodejs:18 is enabled too", ""),
    ],
)
def test_streams_that_cannot_be_enabled(enabled, said, hint):
    error = refusal(NODE18, NODE20, enabled=enabled)
    assert said in str(error)
    assert error.hint == hint


def test_module_without_a_stream_means_its_default():
    assert select(NODE18, NODE20, default("nodejs", "20"), enabled=["nodejs"]).enabled_streams == {"nodejs": "20"}
    assert select(NODE18, enabled=["nodejs:18/common"]).enabled_streams == {"nodejs": "18"}


def test_no_modules_hide_nothing():
    found = select()
    assert not found.hides("a", "a-1-1.noarch", ["b"])
    assert (found.enabled_streams, found.passed_over, found.modules) == ({}, (), ())
