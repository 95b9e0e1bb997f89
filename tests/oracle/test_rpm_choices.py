"""The same packages as dnf, on the real metadata of CentOS Stream 9 BaseOS and on worlds made up to be difficult."""

from __future__ import annotations

import gzip
import random
import re
from pathlib import Path

import pytest
from making.dnf import ask_dnf, find_dnf
from making.rpm_universe import write_filelists, write_primary, write_repository

from rootfsbuild.errors import UnsatisfiableError
from rootfsbuild.formats.rpm.metadata import Placed, load_universe
from rootfsbuild.formats.rpm.resolve import resolve
from rootfsbuild.formats.rpm.version import split_evr
from rootfsbuild.plan import Request

BASEOS = Path(__file__).parent.parent.parent.parent / "shared" / "data" / "cs9-baseos" / "repodata"

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(not find_dnf(), reason="dnf 4 with its Python interface is the judge, and is not on this host"),
]
needs_baseos = pytest.mark.skipif(not BASEOS.is_dir(), reason="the metadata of CentOS Stream 9 is not on this host")

SEED = 20220207
WORLDS = 150


def read(kind):
    (path,) = BASEOS.glob(f"*-{kind}.xml.gz")
    return gzip.decompress(path.read_bytes()).decode()


@pytest.fixture(scope="module")
def packages():
    """The parts of primary.xml that describe one package each."""
    found = re.findall(r'<package type="rpm">.*?</package>', read("primary"), re.DOTALL)
    assert len(found) == 1125
    return found


def join_primary(parts):
    return (
        '<metadata xmlns="http://linux.duke.edu/metadata/common" '
        f'xmlns:rpm="http://linux.duke.edu/metadata/rpm" packages="{len(parts)}">{"".join(parts)}</metadata>'
    )


def name_of(part):
    return re.search("<name>(.*?)</name>", part)[1]


def full_name(part):
    architecture = re.search("<arch>(.*?)</arch>", part)[1]
    epoch, version, release = re.search(r'<version epoch="(.*?)" ver="(.*?)" rel="(.*?)"', part).groups()
    return f"{name_of(part)}-{epoch + ':' if epoch != '0' else ''}{version}-{release}.{architecture}"


def release_again(part):
    """Return the same package a release later, with what it says of the packages built with it."""
    version, release = re.search(r'<version epoch=".*?" ver="(.*?)" rel="(.*?)"', part).groups()
    return part.replace(f'ver="{version}" rel="{release}"', f'ver="{version}" rel="{release}.1"')


class World:
    """Repositories that both we and dnf choose from."""

    def __init__(self, folder, repositories):
        self.folder = folder
        self.repos, self.placed = [], []
        for name, (primary, filelists, settings) in repositories.items():
            path = folder / name
            documents = write_repository(path, primary, filelists)
            self.repos.append({"id": name, "path": str(path)} | settings)
            ours = {{"excludepkgs": "excludes"}.get(key, key): value for key, value in settings.items()}
            ours["excludes"] = tuple(ours.get("excludes", ()))
            self.placed.append(
                Placed(name, "9", documents["primary"], lambda file=documents["filelists"]: file, **ours)
            )
        self.universe = load_universe(self.placed, "x86_64", str(folder / "cache"))

    def choose(self, specs, *, weak, exclude=()):
        request = Request("x86_64", "custom", tuple(specs), tuple(exclude), recommends=weak)
        try:
            packages = resolve(request, self.universe).packages
        except UnsatisfiableError as error:
            return error
        return sorted(f"{one.archive} {one.name}-{one.version}.{one.architecture}" for one in packages)


def compare_all(questions):
    """Return every request of [(world, requests)] that we answer otherwise than dnf, with how, and how many fail."""
    asked = [{"repos": world.repos, "requests": requests} for world, requests in questions]
    different, failed = [], 0
    for (world, requests), answers in zip(questions, ask_dnf(asked), strict=True):
        for request, theirs in zip(requests, answers, strict=True):
            ours = world.choose(request["specs"], weak=request["weak"], exclude=request.get("exclude", ()))
            if isinstance(theirs, str) and isinstance(ours, UnsatisfiableError):
                failed += 1
            elif ours != theirs:
                different.append((str(world.folder), request, difference(ours, theirs)))
    return different, failed


def difference(ours, theirs):
    if isinstance(theirs, str) or isinstance(ours, UnsatisfiableError):
        return str(ours), str(theirs)
    return sorted(set(ours) - set(theirs)), sorted(set(theirs) - set(ours))


def with_and_without(specs, **more):
    return [{"specs": [spec], "weak": weak, **more} for weak in (True, False) for spec in specs]


@needs_baseos
def test_every_name_of_baseos(packages, tmp_path):
    world = World(tmp_path, {"baseos": (join_primary(packages), read("filelists"), {})})
    names = sorted({name_of(part) for part in packages})
    assert len(names) == 883
    assert compare_all([(world, with_and_without(names))]) == ([], 0)


@needs_baseos
def test_every_package_of_baseos_by_its_full_name(packages, tmp_path):
    world = World(tmp_path, {"baseos": (join_primary(packages), read("filelists"), {})})
    requests = [{"specs": [full_name(part)], "weak": False} for part in packages]
    assert compare_all([(world, requests)]) == ([], 0)


@needs_baseos
def test_many_names_at_once(packages, tmp_path):
    world = World(tmp_path, {"baseos": (join_primary(packages), read("filelists"), {})})
    names = sorted({name_of(part) for part in packages})
    chance = random.Random(SEED)
    requests = [
        {"specs": chance.sample(names, chance.randint(2, 12)), "weak": chance.random() < 0.5} for _ in range(150)
    ]
    different, failed = compare_all([(world, requests)])
    assert different == []
    assert failed < len(requests)


@needs_baseos
@pytest.mark.parametrize(
    ("first", "second", "exclude"),
    [
        ({}, {}, []),
        ({"priority": 10}, {"priority": 90}, []),
        ({"priority": 90}, {"priority": 10}, []),
        ({"cost": 10}, {"cost": 2000}, []),
        ({"priority": 50, "excludepkgs": ["python3*", "glibc-langpack-*"]}, {"excludepkgs": ["systemd*"]}, []),
        ({}, {"priority": 20}, ["*-langpack-*", "openssl", "vim-minimal", "tpm2-tss"]),
    ],
    ids=["alike", "first", "second", "cost", "repository-excludes", "request-excludes"],
)
def test_baseos_in_two_parts(packages, tmp_path, first, second, exclude):
    chance = random.Random(SEED)
    kinds = {name: chance.choice("ABCD") for name in sorted({source_of(part) for part in packages})}
    # Of each source package the binaries are in the first, in the second, in both, or in the second a release later.
    in_first = [part for part in packages if kinds[source_of(part)] in "ACD"]
    in_second = [
        release_again(part) if kinds[source_of(part)] == "D" else part
        for part in packages
        if kinds[source_of(part)] in "BCD"
    ]
    filelists = read("filelists")
    world = World(
        tmp_path,
        {"first": (join_primary(in_first), filelists, first), "second": (join_primary(in_second), filelists, second)},
    )
    names = sorted({name_of(part) for part in packages})
    different, failed = compare_all([(world, with_and_without(names, exclude=exclude))])
    assert different == []
    assert failed < len(names)


def source_of(part):
    return re.search("<rpm:sourcerpm>(.*?)</rpm:sourcerpm>", part)[1]


def make_world(chance):
    """Return the short text of a small world in which everything that can go wrong does now and then."""
    names = [f"p{number}" for number in range(chance.randint(4, 14))]
    capabilities = ["cap1", "cap2", "cap3"]
    paths = ["/usr/bin/tool", "/usr/share/data/file", "/opt/other", "/etc/conf"]

    def target():
        kind = chance.random()
        if kind < 0.6:
            name = chance.choice(names)
            return chance.choice([name, f"{name} {chance.choice(['>=', '<=', '=', '<', '>'])} {chance.randint(1, 3)}"])
        if kind < 0.85:
            return chance.choice(capabilities)
        return chance.choice(paths)

    def relation():
        kind = chance.random()
        if kind < 0.8:
            return target()
        first, second, third = (target() for _ in range(3))
        forms = [
            f"({first} or {second})",
            f"({first} and {second})",
            f"({first} if {second})",
            f"({first} if {second} else {third})",
            f"({first} unless {second})",
        ]
        return chance.choice(forms[:4])

    def some(most, make):
        return ", ".join(dict.fromkeys(make() for _ in range(chance.randint(0, most))))

    blocks = []
    for name in names:
        for version in sorted(chance.sample(range(1, 4), chance.choice([1, 1, 2, 3]))):
            for architecture in chance.choice([["x86_64"], ["x86_64"], ["noarch"], ["i686", "x86_64"], ["i686"]]):
                lines = {
                    "Requires": some(2, relation),
                    "Recommends": some(1, relation) if chance.random() < 0.4 else "",
                    "Supplements": some(1, relation) if chance.random() < 0.15 else "",
                    "Conflicts": target() if chance.random() < 0.12 else "",
                    "Obsoletes": obsoleted(chance, names, name) if chance.random() < 0.12 else "",
                    "Provides": some(2, lambda: chance.choice(capabilities)) if chance.random() < 0.4 else "",
                    "Files": " ".join(chance.sample(paths, chance.choice([0, 0, 0, 1, 1, 2]))),
                }
                head = f"{name} {version}-{chance.randint(1, 2)} {architecture}"
                blocks.append("\n".join([head, *(f"{key}: {value}" for key, value in lines.items() if value)]))
    return "\n\n".join(blocks)


def obsoleted(chance, names, name):
    other = chance.choice([other for other in names if other != name])
    return chance.choice([other, f"{other} < {chance.randint(2, 4)}"])


def specs_of(chance, text):
    heads = [block.split("\n")[0].split() for block in text.split("\n\n")]
    name, version, architecture = chance.choice(heads)
    return chance.choice(
        [
            name,
            name,
            name,
            f"{name}.{architecture}",
            f"{name}-{split_evr(version).version}",
            f"{name}-{version}",
            f"{name}-{version}.{architecture}",
            "cap1",
            "/usr/bin/tool",
            "/usr/share/data/file",
            f"{name[:-1]}*",
        ]
    )


def test_worlds_made_up_to_be_difficult(tmp_path):
    questions = []
    for number in range(WORLDS):
        chance = random.Random(SEED + number)
        repositories = {}
        for name in ("one", "two")[: chance.choice([1, 1, 2])]:
            text = make_world(chance)
            settings = {"priority": chance.choice([99, 99, 20])}
            repositories[name] = (write_primary(text), write_filelists(text), settings)
        world = World(tmp_path / str(number), repositories)
        requests = [
            {
                "specs": [specs_of(chance, text) for _ in range(chance.choice([1, 1, 1, 2, 3]))],
                "weak": chance.random() < 0.6,
                "exclude": [],
            }
            for _ in range(6)
        ]
        requests += [request | {"exclude": [f"p{chance.randint(0, 9)}"]} for request in requests[:2]]
        questions.append((world, requests))
    different, failed = compare_all(questions)
    assert different == []
    assert failed < WORLDS * 6
