"""What tells a system behind the gap about a repository: lists of sources for apt, and a text for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rootfsbuild.formats.deb.carried import Suite
from rootfsbuild.repository.trust import utc

PLACE = "/srv/packages"
"""Where the lists of sources take the repository to be, so that they are right as they stand in one place at least."""

_SOURCES_HEAD = """\
# Packages of the archive "{archive}"; right as it stands where the repository is at {place}.
# README.txt beside it tells how to have it elsewhere, or on a web server.
"""
_VALIDITY = """\
# What was carried here can be older than its archive lets mirrors be, and nothing newer can be had here.
Check-Valid-Until: no
"""
_README = """\
{title}
{line}

This directory is a repository for apt: {count} packages, {size}.

{suites}

{signed}

Using it
--------
1. Bring this directory, whole and unchanged, to where the systems that need it can read it. The lists of sources take
   it to be at {place}: copy, mount or bind it there.
2. In each system, put aside the list of the mirrors that cannot be reached, and let apt read these instead:

     cd {place}
     mv /etc/apt/sources.list /etc/apt/sources.list.online
     cp {lists} /etc/apt/sources.list.d/
     apt-get update
{choice}
At another path, here /media/stick:

     cd /media/stick
     for list in {lists}; do
       sed 's|{place}|/media/stick|' "$list" > "/etc/apt/sources.list.d/$list"
     done

From a web server, here https://packages.example.org/apt; lists and keys go to the system itself:

     install -D -m 644 -t /etc/apt/keyrings keys/*
     for list in {lists}; do
       sed -e 's|file:{place}|https://packages.example.org/apt|' -e 's|{place}/keys|/etc/apt/keyrings|' \\
         "$list" > "/etc/apt/sources.list.d/$list"
     done

{rest}
"""
_OWN = """\
Everything here is signed by the key {key}
(keys/{file}), which is not the archives' own: its owner vouches that the packages are theirs."""
_ORIGINAL = """\
Everything here is signed by the archives themselves; keys/ holds their certificates. Before you believe them, compare
these fingerprints with what the system has in /usr/share/keyrings, or with what the archives publish:

{keys}"""
_CHOICE = """
   What is here is for several releases, and each has its own lists; those above are for {release}. A system that reads
   the lists of a newer release is upgraded to it.
"""
_OWN_REST = "The lists name exactly the packages that are here."
_ORIGINAL_REST = """\
The lists are those of the archives, and name all their packages; only those in the pools are here, and of every other
one apt will say that it cannot be fetched."""


@dataclass(frozen=True)
class Source:
    """What one suite offers at one architecture or several."""

    suite: str
    components: tuple[str, ...]
    architectures: tuple[str, ...]
    ends: bool
    """Whether its document says until when it is valid."""


def name_lists(suites: Sequence[Suite]) -> dict[str, tuple[Suite, ...]]:
    """Return which suites are named together, by the file: those of one archive and one release.

    Were those of several releases in one file, a system that reads it would upgrade itself.
    """
    releases = _find_releases(suites)
    found: dict[str, list[Suite]] = {}
    for suite in suites:
        several = len({releases[other.name] for other in suites if other.archive == suite.archive}) > 1
        release = releases[suite.name].replace("/", "-")
        found.setdefault(f"{suite.archive}.{release}.sources" if several else f"{suite.archive}.sources", []).append(
            suite
        )
    return {name: tuple(found[name]) for name in sorted(found)}


def _find_releases(suites: Sequence[Suite]) -> dict[str, str]:
    """Return suite -> the suite that it adds to: `bookworm-updates` and `bookworm/updates` add to `bookworm`."""
    names = sorted({suite.name for suite in suites}, key=lambda name: (len(name), name))
    return {
        name: next(base for base in names if name == base or name.startswith((f"{base}-", f"{base}/")))
        for name in names
    }


def write_sources(archive: str, sources: Sequence[Source], key_file: str) -> str:
    """Return a list of sources for one archive, in deb822 format (sources.list(5))."""
    groups: dict[tuple[tuple[str, ...], tuple[str, ...], bool], list[str]] = {}
    for source in sources:
        groups.setdefault((source.components, source.architectures, source.ends), []).append(source.suite)
    return _SOURCES_HEAD.format(archive=archive, place=PLACE) + "\n".join(
        f"Types: deb\nURIs: file:{PLACE}/{archive}\nSuites: {' '.join(suites)}\nComponents: {' '.join(components)}\n"
        f"Architectures: {' '.join(architectures)}\n"
        # Of everything else that a Release may list, nothing is here.
        "Targets: Packages\nLanguages: none\nPDiffs: no\n"
        f"{_VALIDITY if ends else ''}Signed-By: {PLACE}/keys/{key_file}\n"
        for (components, architectures, ends), suites in groups.items()
    )


def list_sources(suite: Suite, *, original: bool) -> list[Source]:
    """Return what a suite offers: architectures that have the same components are named together."""
    found: dict[str, set[str]] = {}
    for one in suite.current if original else suite.carried:
        if one.architecture != "all":
            found.setdefault(one.architecture, set()).add(one.component)
    together: dict[tuple[str, ...], list[str]] = {}
    for architecture in sorted(found):
        together.setdefault(tuple(sorted(found[architecture])), []).append(architecture)
    ends = original and suite.release.valid_until is not None
    return [
        Source(suite.name, components, tuple(architectures), ends) for components, architectures in together.items()
    ]


def write_readme(
    lists: Mapping[str, Sequence[Suite]],
    count: int,
    size: int,
    signer: tuple[str, str],
) -> str:
    """Return the text for people.

    `lists`: file -> the suites in it; `size` in bytes; `signer` is (fingerprint, key file), both empty for the
    archives' own signatures.
    """
    title = "Packages for systems that reach no mirror"
    key, file = signer
    suites = [suite for together in lists.values() for suite in together]
    chosen, release = _choose_lists(lists)
    return _README.format(
        title=title,
        line="=" * len(title),
        count=count,
        size=f"{size / 1e6:.1f} MB",
        suites="\n".join(_describe(suite, original=not key) for suite in suites),
        signed=_OWN.format(key=key, file=file) if key else _ORIGINAL.format(keys="\n".join(_signers(suites))),
        place=PLACE,
        lists=" ".join(chosen),
        choice=_CHOICE.format(release=release) if len(chosen) < len(lists) else "",
        rest=_OWN_REST if key else _ORIGINAL_REST,
    )


def _choose_lists(lists: Mapping[str, Sequence[Suite]]) -> tuple[list[str], str]:
    """Return the lists that a system of one of the releases reads, and that release."""
    releases = _find_releases([suite for together in lists.values() for suite in together])
    of = {name: releases[together[0].name] for name, together in lists.items()}
    archives = [together[0].archive for together in lists.values()]
    divided = [name for name, together in lists.items() if archives.count(together[0].archive) > 1]
    release = min((of[name] for name in divided), default="")
    return [name for name in lists if name not in divided or of[name] == release], release


def _describe(suite: Suite, *, original: bool) -> str:
    own = list_sources(suite, original=original)
    offers = "; ".join(f"{' '.join(one.components)} for {' '.join(one.architectures)}" for one in own)
    return f"  {suite.archive} {suite.name} of {utc(suite.release.date)}: {offers}"


def _signers(suites: Sequence[Suite]) -> Iterator[str]:
    keys = {(suite.archive, key) for suite in suites for key in suite.signers}
    return (f"  {archive}: {key}" for archive, key in sorted(keys))
