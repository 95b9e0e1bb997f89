"""What tells a system behind the gap about a repository: .repo files for dnf and zypper, and a text for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rootfsbuild.formats.rpm.carried import Repository
from rootfsbuild.repository.trust import utc

PLACE = "/srv/packages"
"""Where .repo files take the repository to be, so that they are right as they stand in one place at least."""

_REPO_HEAD = """\
# Packages for {suite} on {architecture}; right as it stands where the repository is at {place}.
# README.txt beside it tells how to have it elsewhere, or on a web server.
"""
_SECTION = """
[packages-{archive}]
name={archive} {suite} for {architecture}, as it was carried here
baseurl=file://{place}/{folder}
enabled=1
gpgcheck={packages}
repo_gpgcheck={metadata}
{keys}metadata_expire=60
"""
_README = """\
{title}
{line}

This directory is a repository for dnf and zypper: {count} packages, {size}.

{repositories}

{signed}

Using it
--------
1. Bring this directory, whole and unchanged, to where the systems that need it can read it. The .repo files take it
   to be at {place}: copy, mount or bind it there.
2. In each system, put aside the list of the mirrors that cannot be reached, and read these instead. With dnf:

     cd {place}
     mv /etc/yum.repos.d /etc/yum.repos.d.online
     install -D -m 644 -t /etc/yum.repos.d {file}
     dnf makecache

   and with zypper:

     cd {place}
     zypper modifyrepo --all --disable
     zypper addrepo {file}
     zypper refresh
{choice}
At another path, here /media/stick:

     cd /media/stick
     sed 's|{place}|/media/stick|' {file} > /etc/yum.repos.d/{file}

From a web server, here https://packages.example.org/rpm; keys go to the system itself:

     install -D -m 644 -t /etc/pki/rpm-gpg keys/*
     sed -e 's|file://{place}/keys|file:///etc/pki/rpm-gpg|g' \\
       -e 's|file://{place}|https://packages.example.org/rpm|' {file} > /etc/yum.repos.d/{file}

{rest}
"""
_OWN = """\
The lists of packages are signed by the key {key}
(keys/{file}), which is not the distribution's own: its owner vouches that the packages are theirs.
The packages still have the signatures of their distribution; keys/ holds its certificates, too. Before you believe
them, compare these fingerprints with what the system has in /etc/pki/rpm-gpg, or with what is published of them."""
_ORIGINAL = """\
Everything here is signed by the distribution itself; keys/ holds its certificates. Before you believe them, compare
their fingerprints with what the system has in /etc/pki/rpm-gpg, or with what the distribution publishes."""
_CHOICE = """
   What is here is for several systems, and each has a file of its own; {file} is that of {system}.
"""
_OWN_REST = "The lists name exactly the packages that are here."
_ORIGINAL_REST = """\
The lists are those of the distribution, and name all its packages; only those in the directories are here, and of
every other one dnf will say that it cannot be downloaded."""


def name_files(repositories: Sequence[Repository]) -> dict[str, tuple[Repository, ...]]:
    """Return which repositories are named together, by the file: those of one release and architecture.

    Were those of several in one file, a system that reads it would upgrade itself.
    """
    found: dict[tuple[str, str], list[Repository]] = {}
    for one in repositories:
        found.setdefault((one.suite, one.architecture), []).append(one)
    return {
        f"packages.{suite.replace('/', '-')}.{architecture}.repo": tuple(found[suite, architecture])
        for suite, architecture in sorted(found)
    }


def write_repo(repositories: Sequence[Repository], keys: Mapping[str, Sequence[str]], *, own: bool) -> str:
    """Return a .repo file (dnf.conf(5)); `keys`: archive -> files below keys/, that of our own signature first.

    `own`: whether the metadata are signed by a key of the user's.
    """
    first = repositories[0]
    head = _REPO_HEAD.format(suite=first.suite, architecture=first.architecture, place=PLACE)
    return head + "".join(_section(one, keys[one.archive], own=own) for one in repositories)


def _section(one: Repository, keys: Sequence[str], *, own: bool) -> str:
    urls = " ".join(f"file://{PLACE}/keys/{key}" for key in keys)
    return _SECTION.format(
        archive=one.archive,
        suite=one.suite,
        architecture=one.architecture,
        folder=one.folder,
        place=PLACE,
        packages=int(len(keys) > own),
        metadata=int(own or bool(one.signers)),
        keys=f"gpgkey={urls}\n" if urls else "",
    )


def write_readme(
    files: Mapping[str, Sequence[Repository]],
    count: int,
    size: int,
    signer: tuple[str, str],
    fingerprints: Mapping[str, Sequence[str]],
) -> str:
    """Return the text for people.

    `files`: .repo file -> the repositories in it; `size` in bytes; `signer` is (fingerprint, key file), both empty for
    the distribution's own signatures; `fingerprints`: key file -> those of the certificates in it.
    """
    title = "Packages for systems that reach no mirror"
    key, file = signer
    chosen = next(iter(files), "packages.repo")
    one = next(iter(files[chosen]), None) if files else None
    system = f"{one.suite} on {one.architecture}" if one else ""
    signed = _OWN.format(key=key, file=file) if key else _ORIGINAL
    return _README.format(
        title=title,
        line="=" * len(title),
        count=count,
        size=f"{size / 1e6:.1f} MB",
        repositories="\n".join(_describe(one, own=bool(key)) for together in files.values() for one in together),
        signed="\n".join([signed, "", *_list_keys(fingerprints)]),
        place=PLACE,
        file=chosen,
        choice=_CHOICE.format(file=chosen, system=system) if len(files) > 1 else "",
        rest=_OWN_REST if key else _ORIGINAL_REST,
    )


def _describe(one: Repository, *, own: bool) -> str:
    unsigned = "" if own or one.signers else ", its list of packages not signed"
    return f"  {one.archive} {one.suite} for {one.architecture} of {utc(one.date)}{unsigned}"


def _list_keys(fingerprints: Mapping[str, Sequence[str]]) -> Iterator[str]:
    for file, found in sorted(fingerprints.items()):
        yield from (f"  {file}: {fingerprint}" for fingerprint in found)
