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

     mv /etc/apt/sources.list /etc/apt/sources.list.online
     cp {place}/*.sources /etc/apt/sources.list.d/
     apt-get update

At another path, here /media/stick:

     cd /media/stick
     for list in *.sources; do
       sed 's|{place}|/media/stick|' "$list" > "/etc/apt/sources.list.d/$list"
     done

From a web server, here https://packages.example.org/apt; lists and keys go to the system itself:

     install -D -m 644 -t /etc/apt/keyrings keys/*
     for list in *.sources; do
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
    suites: Sequence[Suite], sources: Mapping[str, Sequence[Source]], count: int, size: int, signer: tuple[str, str]
) -> str:
    """Return the text for people; `size` in bytes, `signer` is (fingerprint, key file), empty for the archives' own."""
    title = "Packages for systems that reach no mirror"
    key, file = signer
    original = _ORIGINAL.format(keys="\n".join(_signers(suites)))
    return _README.format(
        title=title,
        line="=" * len(title),
        count=count,
        size=f"{size / 1e6:.1f} MB",
        suites="\n".join(_describe(suite, sources[suite.archive]) for suite in suites),
        signed=_OWN.format(key=key, file=file) if key else original,
        place=PLACE,
        rest=_OWN_REST if key else _ORIGINAL_REST,
    )


def _describe(suite: Suite, sources: Sequence[Source]) -> str:
    own = [source for source in sources if source.suite == suite.name]
    offers = "; ".join(f"{' '.join(one.components)} for {' '.join(one.architectures)}" for one in own)
    return f"  {suite.archive} {suite.name} of {utc(suite.release.date)}: {offers}"


def _signers(suites: Sequence[Suite]) -> Iterator[str]:
    keys = {(suite.archive, key) for suite in suites for key in suite.signers}
    return (f"  {archive}: {key}" for archive, key in sorted(keys))
