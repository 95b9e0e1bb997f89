"""The same packages in sight as dnf's, whatever modules, defaults and enabled streams; the same groups."""

from __future__ import annotations

import random
from gzip import decompress

import pytest
from making.dnf import find_dnf
from making.dnf_sees import see
from making.rpmmd import Rpm, comps, default, environment, group, module, write_repository
from making.shared import cs9_baseos

from rootfsbuild.errors import UnsatisfiableError
from rootfsbuild.formats.rpm.comps import conditions, expand, parse_comps
from rootfsbuild.formats.rpm.modules import hidden, parse_modules

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(not find_dnf(), reason="dnf 4 with its Python interface is the judge, and is not on this host"),
]

WORLDS = 200
SIMPLE = 100
"""Of these worlds each stream has one context, as in what distributions publish."""


class World:
    """Modules and packages in two repositories, of which one may be exempt from modules."""

    def __init__(self, folder, seed):
        chance = random.Random(seed)
        names = [f"m{number}" for number in range(chance.randint(1, 5))]
        streams = {name: [str(number) for number in range(1, chance.randint(2, 4))] for name in names}
        self.packages = {"modular": [], "plain": []}
        texts = []
        for name in names:
            for stream in streams[name]:
                for context in ["c0ffee", "decade"][: 1 if seed < SIMPLE else chance.choice([1, 1, 2])]:
                    requires = self._requires(chance, name, streams)
                    versions = range(1, chance.choice([2, 2, 3]))
                    texts += [self._build(name, stream, context, version, requires) for version in versions]
        texts += [default(name, chance.choice(streams[name])) for name in names if chance.random() < 0.5]
        for name in names:
            self.packages["plain"].append(Rpm(name, "99"))
            if chance.random() < 0.5:
                self.packages["plain"].append(Rpm(f"instead-of-{name}", provides=(f"{name} = 5",)))
        self.packages["plain"].append(Rpm("bystander"))
        picked = [name for name in names if chance.random() < 0.4]
        self.enabled = [f"{name}:{chance.choice(streams[name])}" for name in picked]
        self.hotfix = chance.random() < 0.2
        self.modules = "".join(texts).encode()
        self.paths = {name: str(folder / f"{seed}-{name}") for name in self.packages}
        write_repository(self.paths["modular"], None, self.packages["modular"], modules=self.modules)
        write_repository(self.paths["plain"], None, self.packages["plain"])

    def _requires(self, chance, name, streams):
        requires = {"platform": ["el9"]} if chance.random() < 0.5 else {}
        for other in streams:
            if other > name and chance.random() < 0.3:
                requires[other] = chance.sample(streams[other], chance.randint(0, len(streams[other])))
        return requires

    def _build(self, name, stream, context, version, requires):
        package = Rpm(name, stream, f"{version}.{context}", epoch="1")
        extra = Rpm(f"{name}-extra", stream, f"{version}.{context}", arch="noarch")
        self.packages["modular"] += [package, extra]
        written = [
            f"{one.name}-{one.epoch}:{one.version}-{one.release}.{arch}"
            for one, arch in ((package, "x86_64"), (extra, "noarch"), (Rpm("bystander", "7"), "src"))
        ]
        return module(name, stream, written, version=version, context=context, requires=requires)

    def question(self):
        repos = [
            {"id": name, "path": path, "hotfix": self.hotfix and name == "plain"} for name, path in self.paths.items()
        ]
        return {"repos": repos, "enabled": self.enabled}

    def seen(self):
        """Return what we leave in sight, None where the streams cannot be enabled together."""
        try:
            selection = hidden(parse_modules(self.modules), self.enabled, "x86_64", platform="el9")
        except UnsatisfiableError:
            return None, None
        shown = sorted(
            [repo, one.nevra]
            for repo, packages in self.packages.items()
            for one in packages
            if not selection.hides(
                one.name,
                one.nevra,
                [one.name, *(relation.split()[0] for relation in one.provides)],
                hotfix=self.hotfix and repo == "plain",
            )
        )
        return shown, selection


def test_packages_in_sight(tmp_path):
    worlds = [World(tmp_path, seed) for seed in range(WORLDS)]
    answers = see([world.question() for world in worlds])
    wrong, refused, compared = [], 0, 0
    for seed, (world, answer) in enumerate(zip(worlds, answers, strict=True)):
        shown, selection = world.seen()
        if shown is None or "error" in answer:
            refused += 1
            if (shown is None) != ("error" in answer):
                wrong.append((seed, world.enabled, (), answer.get("error"), selection))
            continue
        compared += 1
        if shown != answer["packages"]:
            wrong.append((seed, world.enabled, selection.passed_over, shown, answer["packages"]))
    # Which of several defaults that exclude each other libsolv passes over, and which of several contexts it takes to
    # meet a requirement, hangs on its inner order in one world of a hundred.
    assert not [one for one in wrong if one[0] < SIMPLE and not one[2]]
    assert len(wrong) <= 4, wrong
    assert refused >= 2
    assert compared > 150


def same_groups(path, read, names):
    (answer,) = see([{"repos": [{"id": "r", "path": str(path)}], "groups": names}])
    for name in names:
        plain = {one for one, requires in answer["groups"][name] if not requires}
        pairs = {(one, requires) for one, requires in answer["groups"][name] if requires}
        ours = set(expand(read, f"@{name}"))
        assert plain <= ours
        assert ours - plain <= {one for one, _ in pairs}
        assert set(conditions(read, f"@{name}")) == {pair for pair in pairs if pair[0] not in ours}


def test_groups(tmp_path):
    body = comps(
        group("core", mandatory=["bash"], default=["vim"], optional=["zsh"], conditional=[("a", "vim"), ("b", "x11")]),
        group("more", mandatory=["git"], conditional=[("c", "a")]),
        environment("all", "core", "more", "gone", optional=["other"]),
        group("other", mandatory=["nothing"]),
    )
    write_repository(tmp_path / "r", None, [Rpm("bash")], groups=body)
    same_groups(tmp_path / "r", parse_comps(body), ["core", "more", "other", "all"])


def test_real_groups(tmp_path):
    (path,) = (cs9_baseos() / "repodata").glob("*comps*.gz")
    read = parse_comps(str(path), architecture="x86_64")
    write_repository(tmp_path / "r", None, [Rpm("bash")], groups=decompress(path.read_bytes()))
    same_groups(tmp_path / "r", read, [*read.groups, *read.environments])
