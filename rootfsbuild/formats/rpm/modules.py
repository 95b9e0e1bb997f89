"""modules.yaml: which packages a repository's modules keep out of sight (modulemd v1 and v2, Fedora Modularity).

What dnf does, by libdnf's ModulePackageContainer and the module excludes of its sack:

- A stream is active if it is enabled, or the default stream of a module of which no other stream is enabled, or if an
  active one requires it. Streams of one module exclude each other. An enabled stream that cannot be is an error; a
  default that cannot be is passed over.
- A stream may have been built several times. Builds that require the same, the platform aside, are one, whatever their
  versions and contexts; the newest of them says what it requires. Of those that differ one is active: the first that
  can be, in the order of what they require, as text. Where `static_context` is set the context takes the place of that.
- The packages (artifacts) of all other streams are hidden.
- Packages that no active stream lists are hidden if they have the name of one that an active stream lists, or provide
  that name. Source packages hide nothing.
- Repositories marked `module_hotfixes` are exempt from both.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rootfsbuild.documents.checks import did_you_mean
from rootfsbuild.errors import UnsatisfiableError, UntrustedError
from rootfsbuild.formats.rpm.data import open_data
from rootfsbuild.formats.rpm.yaml_documents import Value, read_documents

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

Requires = tuple[tuple[str, tuple[str, ...]], ...]
"""(module, its streams that will do, `-name` for one that will not; none for any)."""

_LIMIT = 400 << 20
"""Bytes of a plain modules.yaml: that of EL 8's AppStream has 20 million."""
_NEVRA = re.compile(r"(.+)-(?:(\d+):)?([^-:]+)-([^-]+)\.([^.-]+)")
_PLATFORM = "platform"
_STEPS = 200_000


@dataclass(frozen=True)
class Module:
    """One build of a stream."""

    name: str
    stream: str
    version: int
    context: str
    """Tells apart builds of one version; may be empty."""
    static_context: bool
    """Whether the context, and not what it requires, tells which builds are one."""
    architecture: str
    """Empty if the document does not say."""
    requires: Requires
    artifacts: tuple[str, ...]
    """Packages as `name-epoch:version-release.architecture`."""
    profiles: Mapping[str, tuple[str, ...]]
    """Profile -> names of packages."""
    demodularized: tuple[str, ...] = ()
    """Names of packages that have left the module and are no longer hidden elsewhere."""

    @property
    def kind(self) -> tuple[str, str, str]:
        """What builds that are one have in common."""
        needs = sorted(f"{name}:[{','.join(sorted(streams))}]" if streams else name for name, streams in self.requires)
        own = [need for need in needs if need.partition(":")[0] != _PLATFORM]
        return self.name, self.stream, self.context if self.static_context else ",".join(own)


@dataclass(frozen=True)
class Default:
    """The default stream of a module."""

    module: str
    stream: str
    """Empty for a module without a default stream."""
    modified: int
    """The larger one counts where several speak of one module."""
    profiles: Mapping[str, tuple[str, ...]]
    """Stream -> its default profiles."""


@dataclass(frozen=True)
class Documents:
    """What modules.yaml files say."""

    modules: tuple[Module, ...] = ()
    defaults: tuple[Default, ...] = ()


@dataclass(frozen=True)
class Selection:
    """What is hidden, and what for."""

    enabled_streams: Mapping[str, str]
    """Module -> its active stream, sorted by module."""
    shown_nevras: frozenset[str]
    """Packages of the active streams, as `nevra` writes them: never hidden."""
    hidden_nevras: frozenset[str]
    """Packages of all other streams."""
    hidden_names_from_other_repos: frozenset[str]
    """Names of packages of the active streams: others that have such a name, or provide it, are hidden."""
    passed_over: tuple[str, ...] = ()
    """Default streams (`name:stream`) that could not be, because of what they require."""
    modules: tuple[Module, ...] = ()
    """The active builds."""

    def hides(self, name: str, nevra: str, provides: Iterable[str] = (), *, hotfix: bool = False) -> bool:
        """Tell whether a package is hidden: `nevra` as that function writes it, `provides` the names it provides.

        `hotfix`: its repository is exempt.
        """
        if hotfix or nevra in self.shown_nevras:
            return False
        if nevra in self.hidden_nevras or name in self.hidden_names_from_other_repos:
            return True
        return not self.hidden_names_from_other_repos.isdisjoint(provides)


def nevra(name: str, epoch: str, version: str, release: str, architecture: str) -> str:
    """Return `name-[epoch:]version-release.architecture`, without an epoch that is 0 or empty."""
    shown = f"{int(epoch)}:" if epoch.strip("0") else ""
    return f"{name}-{shown}{version}-{release}.{architecture}"


def parse_modules(source: str | bytes, label: str = "modules.yaml", *, href: str = "") -> Documents:
    """Read a modules.yaml from a path (compressed as the ending of `href`, else of the path, says) or plain bytes.

    Documents of other kinds (translations, obsoletes) and of versions not known yet are passed over. Raises
    UntrustedError (rule `malformed`).
    """
    chunks = iter([source]) if isinstance(source, bytes) else open_data(source, href or source, label, limit=_LIMIT)
    modules: list[Module] = []
    defaults: list[Default] = []
    for written in read_documents(chunks, label):
        document = _Table(written.value, f"line {written.line}", label)
        kind, version = document.text("document"), document.text("version")
        if kind == "modulemd" and version in {"1", "2"}:
            modules.append(_read_module(document.table("data")))
        elif kind == "modulemd-defaults" and version == "1":
            defaults.append(_read_default(document.table("data")))
    return Documents(tuple(modules), tuple(defaults))


def join(several: Iterable[Documents]) -> Documents:
    """Return what several repositories say as one."""
    every = [*several]
    modules = tuple(module for documents in every for module in documents.modules)
    return Documents(modules, tuple(default for documents in every for default in documents.defaults))


def hidden(
    documents: Documents,
    enabled: Sequence[str],
    architecture: str,
    *,
    platform: str = "",
    disabled: Collection[str] = (),
) -> Selection:
    """Return what modules keep out of sight, given the documents of all repositories.

    `enabled` are streams as `nodejs:20`, or `nodejs` for its default stream; `disabled` are modules of which none is
    active. `platform` is the distribution's own stream (`el9`); empty means that it fits every module. Raises
    UnsatisfiableError for streams that do not exist or cannot be active together.
    """
    search = _Search(documents, architecture, platform, frozenset(disabled))
    chosen: dict[str, str] = {}
    for text in enabled:
        name, stream = search.read_stream(text)
        if chosen.setdefault(name, stream) != stream:
            raise UnsatisfiableError(f"the module {text}", (f"{name}:{chosen[name]} is enabled too",))
    active, passed_over = search.run(chosen)
    kinds = {build.kind for build in active.values()}
    modules = tuple(one for one in search.fitting if one.kind in kinds)
    shown = frozenset(found for one in modules for found in _written(one.artifacts))
    every = frozenset(found for one in documents.modules for found in _written(one.artifacts))
    freed = {name for one in active.values() for name in one.demodularized}
    names = frozenset(_names(modules)) - freed
    streams = {name: active[name].stream for name in sorted(active)}
    return Selection(streams, shown, every - shown, names, passed_over, modules)


class _Search:
    """A search for streams that can be active together."""

    def __init__(self, documents: Documents, architecture: str, platform: str, disabled: frozenset[str]) -> None:
        self._machine = f"{architecture} and {platform}" if platform else architecture
        self.fitting = [one for one in documents.modules if _fits(one, architecture, platform)]
        self._defaults = _default_streams(documents.defaults)
        self._disabled = disabled
        self._builds = _newest_builds(self.fitting)
        self._forced: dict[str, str] = {}
        self._steps = 0

    def read_stream(self, text: str) -> tuple[str, str]:
        """Return module and stream of what a recipe enables; raise UnsatisfiableError with the nearest name."""
        name, colon, stream = text.partition("/")[0].partition(":")
        if name not in self._builds:
            hint = did_you_mean(name, self._builds)
            raise UnsatisfiableError(
                f"the module {text}", (f"no repository has the module {name} for {self._machine}",), hint=hint
            )
        streams = self._builds[name]
        if colon and stream in streams:
            return name, stream
        if not colon and self._defaults.get(name) in streams:
            return name, self._defaults[name]
        problem = f"{name} has no stream {stream}" if colon else f"{name} has no default stream"
        known = f"its streams are {', '.join(sorted(streams))}"
        hint = did_you_mean(stream, streams) if colon else f"name one, as in {name}:{min(streams)}"
        raise UnsatisfiableError(f"the module {text}", (f"{problem}; {known}",), hint=hint)

    def run(self, chosen: Mapping[str, str]) -> tuple[dict[str, Module], tuple[str, ...]]:
        """Return a build of each active stream by module, and the defaults that could not be."""
        self._forced = dict(chosen)
        goals: Requires = tuple((name, (stream,)) for name, stream in sorted(chosen.items()))
        defaults: Requires = tuple(
            (name, (stream,))
            for name, stream in sorted(self._defaults.items())
            if name not in chosen and name not in self._disabled and stream in self._builds.get(name, {})
        )
        active = self._settle({}, goals + defaults)
        if active is not None:
            return active, ()
        active = self._settle({}, goals)
        if active is None:
            raise self._explain(chosen)
        # Of defaults that exclude each other the first ones stay; libsolv keeps now these, now those.
        kept: Requires = ()
        for default in defaults:
            more = self._settle({}, (*goals, *kept, default))
            active, kept = (active, kept) if more is None else (more, (*kept, default))
        return active, tuple(f"{name}:{streams[0]}" for name, streams in defaults if (name, streams) not in kept)

    def _settle(self, active: dict[str, Module], goals: Requires) -> dict[str, Module] | None:
        """Return builds that meet the goals together with those that are active already, None if there are none."""
        for at, (name, streams) in enumerate(goals):
            if name == _PLATFORM:
                continue  # what does not fit is not among the builds
            if name not in active:
                return self._choose(active, name, streams, goals[at + 1 :])
            if not _accepts(streams, active[name].stream):
                return None
        return active

    def _choose(
        self, active: dict[str, Module], name: str, streams: tuple[str, ...], goals: Requires
    ) -> dict[str, Module] | None:
        self._steps += 1
        if self._steps > _STEPS:
            raise UnsatisfiableError(f"the modules, {name} among them", ("what they require is too entangled",))
        for build in self._candidates(name, streams):
            found = self._settle({**active, name: build}, goals + build.requires)
            if found is not None:
                return found
        return None

    def _candidates(self, name: str, streams: tuple[str, ...]) -> Iterator[Module]:
        known = {} if name in self._disabled else self._builds.get(name, {})
        forced, default = self._forced.get(name), self._defaults.get(name)
        for stream in sorted(known, key=lambda stream: (stream != default, stream)):
            if forced in {None, stream} and _accepts(streams, stream):
                yield from known[stream]

    def _explain(self, chosen: Mapping[str, str]) -> UnsatisfiableError:
        request = ", ".join(f"{name}:{stream}" for name, stream in sorted(chosen.items()))
        lines: list[str] = []
        for name, stream in sorted(chosen.items()):
            if name in self._disabled:
                lines.append(f"{name} is disabled")
            for build in self._builds[name][stream]:
                needs = ", ".join(f"{module}:[{','.join(streams)}]" for module, streams in build.requires)
                lines += [f"{name}:{stream} requires {needs}"] if needs else []
        what = "the modules" if len(chosen) > 1 else "the module"
        return UnsatisfiableError(f"{what} {request}", tuple(lines))


def _fits(module: Module, architecture: str, platform: str) -> bool:
    if module.architecture not in {"", "noarch", architecture}:
        return False
    return not platform or all(_accepts(streams, platform) for name, streams in module.requires if name == _PLATFORM)


def _accepts(streams: tuple[str, ...], stream: str) -> bool:
    wanted = [one for one in streams if not one.startswith("-")]
    return f"-{stream}" not in streams and (not wanted or stream in wanted)


def _newest_builds(modules: Iterable[Module]) -> dict[str, dict[str, list[Module]]]:
    """Return by module and stream the newest build of each kind, in the order in which they are to be tried."""
    newest: dict[tuple[str, str, str], Module] = {}
    for one in modules:
        if one.kind not in newest or newest[one.kind].version < one.version:
            newest[one.kind] = one
    builds: dict[str, dict[str, list[Module]]] = {}
    for (name, stream, _), one in sorted(newest.items()):
        builds.setdefault(name, {}).setdefault(stream, []).append(one)
    return builds


def _default_streams(defaults: Iterable[Default]) -> dict[str, str]:
    """Return module -> default stream; where documents of one date disagree there is none (libmodulemd)."""
    found: dict[str, tuple[int, frozenset[str]]] = {}
    for one in defaults:
        modified, streams = found.get(one.module, (-1, frozenset()))
        if one.modified > modified:
            found[one.module] = one.modified, frozenset({one.stream} - {""})
        elif one.modified == modified:
            found[one.module] = modified, streams | ({one.stream} - {""})
    return {name: min(streams) for name, (_, streams) in found.items() if len(streams) == 1}


def _written(artifacts: Iterable[str]) -> Iterator[str]:
    """Yield artifacts as `nevra` writes packages; what is no package's name cannot hide any."""
    for artifact in artifacts:
        found = _NEVRA.fullmatch(artifact)
        if found:
            yield nevra(found[1], found[2] or "", found[3], found[4], found[5])


def _names(modules: Iterable[Module]) -> Iterator[str]:
    for artifact in (artifact for module in modules for artifact in module.artifacts):
        found = _NEVRA.fullmatch(artifact)
        if found and found[5] not in {"src", "nosrc"}:
            yield found[1]


@dataclass(frozen=True)
class _Table:
    """A table of a document, read with errors that say where."""

    value: Value
    where: str
    label: str

    def table(self, key: str) -> _Table:
        """Return the table under a key; empty if there is none."""
        return _Table(self._get(key, dict) or {}, f"{self.where}, {key}", self.label)

    def text(self, key: str) -> str:
        """Return the text under a key; empty if there is none."""
        return str(self._get(key, str) or "")

    def texts(self, key: str) -> tuple[str, ...]:
        """Return the list of texts under a key; empty if there is none, one text for a text alone."""
        found = self._get(key, list, str)
        listed = [found] if isinstance(found, str) and found else found or []
        if not all(isinstance(one, str) for one in listed):
            raise self._wrong(key)
        return tuple(str(one) for one in listed)

    def number(self, key: str) -> int:
        """Return the number under a key; 0 if there is none."""
        text = self.text(key)
        if not re.fullmatch(r"[0-9]{0,20}", text):
            raise self._wrong(key)
        return int(text or 0)

    def tables(self, key: str) -> list[_Table]:
        """Return the tables listed under a key, or the one table that stands there."""
        found = self._get(key, list, dict) or []
        where = f"{self.where}, {key}"
        return [_Table(one, where, self.label) for one in ([found] if isinstance(found, dict) else found)]

    def keys(self) -> list[str]:
        """Return all keys."""
        if not isinstance(self.value, dict):
            raise UntrustedError(self.label, "malformed", f"{self.where}: is no table")
        return [*self.value]

    def _get(self, key: str, *kinds: type) -> Value | None:
        if key not in self.keys():
            return None
        found: Value = self.value[key]  # type: ignore[call-overload, index]  # keys() has seen that it is a table
        if found and not isinstance(found, kinds):
            raise self._wrong(key)
        return found

    def _wrong(self, key: str) -> UntrustedError:
        return UntrustedError(self.label, "malformed", f"{self.where}: {key} is not what belongs there")


def _read_module(data: _Table) -> Module:
    name, stream = data.text("name"), data.text("stream")
    if not name or not stream:
        raise UntrustedError(data.label, "malformed", f"{data.where}: a module without a name and a stream")
    profiles = data.table("profiles")
    return Module(
        name=name,
        stream=stream,
        version=data.number("version"),
        context=data.text("context"),
        static_context=data.text("static_context").lower() in {"true", "yes", "on"},
        architecture=data.text("arch"),
        requires=tuple(_read_requires(data.tables("dependencies"))),
        artifacts=data.table("artifacts").texts("rpms"),
        profiles={profile: profiles.table(profile).texts("rpms") for profile in profiles.keys()},  # noqa: SIM118 - no dict
        demodularized=data.table("demodularized").texts("rpms"),
    )


def _read_requires(dependencies: Iterable[_Table]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield what must be active too: version 1 names one stream of a module, version 2 a list of them."""
    for dependency in dependencies:
        requires = dependency.table("requires")
        yield from ((name, requires.texts(name)) for name in requires.keys())  # noqa: SIM118 - no dict


def _read_default(data: _Table) -> Default:
    profiles = data.table("profiles")
    return Default(
        module=data.text("module"),
        stream=data.text("stream"),
        modified=data.number("modified"),
        profiles={stream: profiles.texts(stream) for stream in profiles.keys()},  # noqa: SIM118 - no dict
    )
