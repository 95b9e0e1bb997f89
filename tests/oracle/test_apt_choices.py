"""The same packages as apt, on Debian's own index and on worlds made up to be difficult."""

from __future__ import annotations

import hashlib
import lzma
import os
import random
import re
import tomllib
import urllib.request
from pathlib import Path

import pytest
from making.apt import Apt, find_apt
from making.universe import make_universe, write_packages

from rootfsbuild.errors import UnsatisfiableError
from rootfsbuild.formats.deb.metadata import Placed, Universe, load_index
from rootfsbuild.formats.deb.relations import Alternative
from rootfsbuild.formats.deb.resolve import resolve
from rootfsbuild.plan import Request

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(not find_apt(), reason="apt 2.x is the judge, and is not on this host"),
]

SEED = 12
CASES = sorted((Path(__file__).parent.parent / "cases" / "resolve").glob("*.toml"))


def find_mirror():
    """Return where this host's apt finds Debian, if it does."""
    sources = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    text = "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in sources if path.is_file())
    found = re.search(r"^(?:URIs:|deb(?:\s+\[.*?\])?)\s+(https?://\S+/debian)/?(?=\s|$)", text, re.MULTILINE)
    return found and found[1]


@pytest.fixture(scope="session")
def packages_file(tmp_path_factory):
    mirror = find_mirror()
    if mirror is None:
        pytest.skip("the host has no apt source of Debian")
    path = tmp_path_factory.mktemp("mirror") / "Packages.xz"
    try:
        address = f"{mirror}/dists/bookworm/main/binary-amd64/Packages.xz"
        with urllib.request.urlopen(address, timeout=60) as answer:
            path.write_bytes(answer.read())
    except OSError as error:
        pytest.skip(f"the mirror does not answer: {error}")
    return path


@pytest.fixture(scope="session")
def bookworm(packages_file, tmp_path_factory):
    digest = hashlib.sha256(packages_file.read_bytes()).hexdigest()
    index = load_index(str(packages_file), digest, str(tmp_path_factory.mktemp("cache")))
    return Universe([Placed(index, "debian", "bookworm-suite", "bookworm", "main", 500)], "amd64")


@pytest.fixture(scope="session")
def text(packages_file):
    return lzma.decompress(packages_file.read_bytes()).decode()


@pytest.fixture(scope="session")
def apt(text, tmp_path_factory):
    found = Apt(tmp_path_factory.mktemp("apt"))
    found.set_indexes((text, "bookworm", 500))
    found.install(["base-files"])  # its cache is then there for all that run at once
    return found


@pytest.fixture(scope="session")
def names(bookworm):
    return [name for name in bookworm.names() if bookworm.versions(name)]


def ours(universe, include, **request):
    try:
        packages = resolve(
            Request("amd64", request.pop("variant", "custom"), tuple(include), **request), universe
        ).packages
    except UnsatisfiableError:
        return None
    return {package.name: package.version for package in packages}


def differences(universe, apt, requests):
    """Return the requests for which apt and we differ, each with what only one of us has."""
    found = []
    for (include, recommends), theirs in zip(requests, apt.install_all(requests), strict=True):
        mine = ours(universe, include, recommends=recommends)
        if mine != theirs:
            found.append((include, recommends, dict_difference(theirs, mine), dict_difference(mine, theirs)))
    return found


def dict_difference(first, second):
    return first if first is None or second is None else dict(first.items() - second.items())


@pytest.mark.slow
def test_single_packages(bookworm, apt, names):
    drawn = random.Random(SEED).sample(names, 200)
    requests = [([name], recommends) for name in drawn for recommends in (False, True)]
    assert differences(bookworm, apt, requests) == []


@pytest.mark.slow
def test_sets_of_five(bookworm, apt, names):
    draw = random.Random(SEED + 1)
    requests = [(draw.sample(names, 5), recommends) for _ in range(20) for recommends in (False, True)]
    assert differences(bookworm, apt, requests) == []


@pytest.mark.slow
def test_large_sets_with_recommends(bookworm, apt):
    requests = [(["task-gnome-desktop"], True), (["kde-standard"], True), (["task-lxqt-desktop"], False)]
    assert differences(bookworm, apt, requests) == []


@pytest.mark.slow
def test_every_virtual_package_with_several_providers(bookworm, text, names, tmp_path_factory):
    real = set(names)
    provided = [name for name in bookworm.names() if name not in real and ":" not in name]
    several = [name for name in provided if len(bookworm.meeting(Alternative(name))) > 2]
    assert len(several) > 100
    asking = [f"asks-{at} 1\nDepends: {name}" for at, name in enumerate(several)]
    world = write_packages("\n\n".join(asking))
    apt = Apt(tmp_path_factory.mktemp("apt"))
    apt.set_indexes((text, "bookworm", 500), (world, "asking", 500))
    apt.install(["base-files"])
    more = make_universe(str(tmp_path_factory.mktemp("asking")), ("\n\n".join(asking), "asking", 500))
    universe = Universe([*bookworm.placed, *more.placed], "amd64")
    requests = [([f"asks-{at}"], False) for at in range(len(several))]
    found = differences(universe, apt, requests)
    assert [(several[int(include[0].removeprefix("asks-"))], *rest) for include, *rest in found] == []


def status_of(universe, installed):
    """Return dpkg's record of packages that are installed."""
    records = []
    for name, version in installed.items():
        deb = next(deb for deb in universe.versions(name) if deb.version == version)
        fields = deb.paragraph.text.decode().strip()
        records.append(f"{fields}\nStatus: install ok installed\n")
    return "\n".join(records)


@pytest.fixture(scope="session")
def bootstrapped(bookworm, text, tmp_path_factory):
    """An apt that sees the essential set installed, as mmdebstrap has it after its first step; and that set."""
    apt = Apt(tmp_path_factory.mktemp("apt"))
    apt.set_indexes((text, "bookworm", 500))
    merged = {"usr-is-merged": bookworm.candidate("usr-is-merged").version}
    apt.set_status(status_of(bookworm, merged))
    essential = apt.install(["?essential"]) | merged
    apt.set_status(status_of(bookworm, essential))
    return apt, essential


@pytest.mark.parametrize(
    ("variant", "pattern"),
    [
        ("required", "?priority(required)"),
        ("important", "?or(?priority(required),?priority(important))"),
        ("standard", "?or(?priority(required),?priority(important),?priority(standard))"),
    ],
)
@pytest.mark.parametrize("recommends", [False, True])
def test_variants(bookworm, bootstrapped, variant, pattern, recommends):
    apt, essential = bootstrapped
    theirs = apt.install([f"?and({pattern},?not(?essential))"], recommends=recommends)
    assert theirs is not None
    first = ours(bookworm, [], variant="essential", preselect=("usr-is-merged",))
    assert first == essential
    if not recommends:
        mine = ours(bookworm, [], variant=variant, preselect=("usr-is-merged",))
        assert mine == essential | theirs


def test_variants_with_includes(bookworm, bootstrapped, names):
    apt, essential = bootstrapped
    draw = random.Random(SEED + 2)
    pattern = "?and(?priority(required),?not(?essential))"
    drawn = [draw.sample(names, 3) for _ in range(20)]
    found = apt.install_all([([*include, pattern], False) for include in drawn])
    for include, theirs in zip(drawn, found, strict=True):
        mine = ours(bookworm, include, variant="required", preselect=("usr-is-merged",))
        assert mine == (None if theirs is None else essential | theirs), include


def apt_has_words_for(path):
    """apt knows neither excludes nor variants, and an empty system has no suite to prefer."""
    request = tomllib.loads(path.read_text(encoding="utf-8"))["request"]
    usual = request.get("variant", "custom") == "custom"
    return usual and not request.get("exclude") and "/" not in str(request["include"])


@pytest.mark.parametrize("path", [path for path in CASES if apt_has_words_for(path)], ids=lambda path: path.stem)
def test_our_cases(path, tmp_path):
    case = tomllib.loads(path.read_text(encoding="utf-8"))
    request = case["request"]
    indexes = [(index["packages"], index.get("codename", "bookworm"), index.get("pin", 500)) for index in case["index"]]
    apt = Apt(tmp_path)
    apt.set_indexes(*((write_packages(short), codename, pin) for short, codename, pin in indexes))
    theirs = apt.install(request["include"], recommends=request.get("recommends", False))
    expected = None if "error" in case else sorted(case["install"])
    assert (None if theirs is None else sorted(f"{name} {version}" for name, version in theirs.items())) == expected


def make_world(draw):
    """Return a world full of or-groups, virtual names, versions and conflicts, and its names."""
    names = [f"p{at}" for at in range(draw.randint(6, 20))]
    virtual = ["v1", "v2", "v3"]

    def alternative():
        name = draw.choice([*names, *virtual, *(["gone"] if draw.random() < 0.05 else [])])
        qualifier = draw.choice([":any", ":amd64"]) if draw.random() < 0.05 else ""
        limit = f" ({draw.choice(['>=', '<<', '=', '<=', '>>'])} {draw.randint(1, 3)})" if draw.random() < 0.1 else ""
        return name + qualifier + limit

    def field(name, chance, most, alternatives=(1, 1, 1, 2, 3)):
        if draw.random() >= chance:
            return []
        groups = (
            " | ".join(alternative() for _ in range(draw.choice(alternatives))) for _ in range(draw.randint(1, most))
        )
        return [f"{name}: {', '.join(groups)}"]

    def paragraph(name):
        lines = [f"{name} {draw.randint(1, 3)}", *field("Pre-Depends", 0.1, 1), *field("Depends", 0.6, 3)]
        lines += [*field("Recommends", 0.3, 2), *field("Suggests", 0.1, 1)]
        lines += [*field("Conflicts", 0.1, 2, (1,)), *field("Breaks", 0.1, 2, (1,))]
        if draw.random() < 0.4:
            versioned = [f"{name} (= {draw.randint(1, 3)})" if draw.random() < 0.3 else name for name in virtual]
            lines.append(f"Provides: {', '.join(draw.sample([*versioned, draw.choice(names)], draw.randint(1, 2)))}")
        for line in ("Essential: yes", "Protected: yes", "Multi-Arch: same", "Multi-Arch: allowed"):
            if draw.random() < 0.1 and not lines[-1].startswith("Multi-Arch"):
                lines.append(line)
        if draw.random() < 0.3:
            lines.append(f"Priority: {draw.choice(['required', 'important', 'standard', 'extra'])}")
        return "\n".join(lines)

    world = [paragraph(name) for name in names]
    draw.shuffle(world)
    return "\n\n".join(world), names


@pytest.mark.parametrize("seed", range(60))
def test_worlds_made_up(seed, tmp_path):
    draw = random.Random(f"{SEED} {seed}")
    world, names = make_world(draw)
    apt = Apt(tmp_path / "apt")
    apt.set_indexes((write_packages(world), "bookworm", 500))
    os.mkdir(tmp_path / "universe")
    universe = make_universe(tmp_path / "universe", world)
    requests = [(draw.sample(names, count), draw.random() < 0.4) for count in (1, 2, 3)]
    assert differences(universe, apt, requests) == [], world
