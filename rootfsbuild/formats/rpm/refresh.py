"""From a recipe's repositories to verified metadata: one repomd.xml a repository, and the data that it proves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from rootfsbuild.distro import Archive
from rootfsbuild.errors import FetchError, IntegrityError, UntrustedError
from rootfsbuild.events import Detail, Report
from rootfsbuild.formats.rpm import modules
from rootfsbuild.formats.rpm.comps import Comps, conditions, expand, join, parse_comps
from rootfsbuild.formats.rpm.data import Fetched, chosen_data, fetch_data
from rootfsbuild.formats.rpm.metadata import Placed, Universe, load_universe
from rootfsbuild.formats.rpm.metalink import MAX_LIST, parse_mirrorlist
from rootfsbuild.formats.rpm.modules import Documents
from rootfsbuild.formats.rpm.resolve import resolve
from rootfsbuild.formats.rpm.solvcache import Document
from rootfsbuild.formats.rpm.trusted import Trusted, fetch_repomd
from rootfsbuild.plan import Index, Package, Request, Snapshot
from rootfsbuild.repository.mirrors import Mirror, without_password
from rootfsbuild.repository.sources import Sources
from rootfsbuild.repository.trust import Keyring, load_keyring

_PRIORITY = 99  # dnf.conf(5)
_KEPT = ("signed:", "latest:")
_AT_ONCE = ("primary", "group", "modules")


@dataclass(frozen=True)
class Metadata:
    """Verified metadata of every repository."""

    universe: Universe
    comps: Comps
    snapshots: tuple[Snapshot, ...]

    def keep(self) -> None:
        """Do nothing: what libsolv can load faster was written down when it was read."""

    def packages_of(self, group: str) -> tuple[str, ...]:
        """Return what a group or an environment stands for; raises UnsatisfiableError for one that is not there."""
        rich = (f"({name} if {other})" for name, other in conditions(self.comps, group))
        return (*expand(self.comps, group), *rich)


@dataclass(frozen=True)
class Read:
    """One repository, as it was read."""

    snapshot: Snapshot
    placed: Placed
    comps: Comps
    modules: Documents


def refresh(sources: Sources, report: Report) -> Metadata:
    """Fetch and verify every repository.

    Raises FetchError, UntrustedError or IntegrityError.
    """
    read = []
    for archive in sources.archives:
        keyring = load_keyring([(key.fingerprint, key.path) for key in archive.keys])
        read += [refresh_repository(sources, archive, suite, keyring, report) for suite in archive.suites]
    return gather(read, sources)


def gather(read: Sequence[Read], sources: Sources) -> Metadata:
    """Return repositories as one universe, without what modules keep out of sight; raises UnsatisfiableError."""
    said = modules.join(one.modules for one in read)
    seen = modules.hidden(said, sources.modules, sources.architecture, platform=sources.module_platform)
    placed = [
        replace(
            one.placed,
            hidden=seen.hidden_nevras,
            shown=seen.shown_nevras,
            claimed=seen.hidden_names_from_other_repos,
        )
        for one in read
    ]
    universe = load_universe(placed, sources.architecture, sources.store.indexes)
    return Metadata(universe, join(one.comps for one in read), tuple(one.snapshot for one in read))


def resolve_metadata(request: Request, metadata: Metadata) -> tuple[Package, ...]:
    """Choose packages, in install order; raises UnsatisfiableError."""
    return resolve(request, metadata.universe, metadata.packages_of).packages


def refresh_repository(
    sources: Sources,
    archive: Archive,
    suite: str,
    keyring: Keyring,
    report: Report,
    expected: Snapshot | None = None,
) -> Read:
    """Fetch and verify one repository: what was trusted, and what it lists.

    `expected` is the snapshot whose document is the only one that will do, None for whichever is current.
    """
    fetch = partial(_fetch_repomd, sources, archive, suite, keyring, report, expected)
    trusted = fetch()
    try:
        return _read(sources, archive, suite, trusted, expected)
    except (FetchError, IntegrityError) as error:
        # A mirror in the middle of a push serves data that are not its repomd.xml's: the next one may be there.
        report(Detail(f"{archive.name} {suite}: {error}; reading its repomd.xml again"))
        again = fetch()
        if again.sha256 == trusted.sha256:
            raise
        return _read(sources, archive, suite, again, expected)


def _fetch_repomd(
    sources: Sources, archive: Archive, suite: str, keyring: Keyring, report: Report, expected: Snapshot | None
) -> Trusted:
    return fetch_repomd(
        archive,
        suite,
        _mirrors(sources, archive, report),
        sources.fetch,
        sources.store,
        keyring,
        sources.now(),
        report,
        sources.relax,
        past=sources.past,
        expected=expected.sha256 if expected else "",
        metalink=archive.metalink,
        architecture=sources.architecture,
        must_be_signed=bool(expected and expected.signers),
    )


def _mirrors(sources: Sources, archive: Archive, report: Report) -> Sequence[Mirror]:
    """Return where a repository is served, those of its mirror list behind what the call and the host name."""
    mirrors = sources.mirrors[archive.name]
    if not archive.mirrorlist or any(mirror.url.startswith(_KEPT) for mirror in mirrors):
        return mirrors
    label = f"the mirror list of {archive.name}"
    try:
        urls, _ = sources.fetch.document(
            [archive.mirrorlist], limit=MAX_LIST, label=label, accept=lambda data: parse_mirrorlist(data, label)
        )
    except (FetchError, UntrustedError) as error:
        report(Detail(f"{error}; asking the mirrors all the same"))
        return mirrors
    own = [mirror for mirror in mirrors if mirror.url in archive.mirrors]
    named = [mirror for mirror in mirrors if mirror not in own]
    return [*named, *(Mirror(url, "the mirror list") for url in urls), *own]


def _read(sources: Sources, archive: Archive, suite: str, trusted: Trusted, expected: Snapshot | None) -> Read:
    known = {index.path: index.sha256 for index in expected.indexes} if expected else {}
    fetch = partial(fetch_data, trusted, trusted.bases, sources.fetch, sources.store, known=known)
    found = fetch(_AT_ONCE)
    filelists = None
    if "filelists" in chosen_data(trusted, ("filelists",)):
        filelists = partial(_fetch_filelists, fetch)
    placed = Placed(
        archive.name,
        suite,
        _document(found["primary"]),
        filelists,
        priority=_PRIORITY if archive.priority is None else archive.priority,
    )
    return Read(
        _snapshot(sources, archive, suite, trusted, tuple(found.values())),
        placed,
        _read_comps(found.get("group"), archive, sources.architecture),
        _read_modules(found.get("modules"), archive),
    )


def _read_comps(found: Fetched | None, archive: Archive, architecture: str) -> Comps:
    if found is None:
        return Comps({}, {})
    label = f"the groups of {archive.name}"
    return parse_comps(found.path, label, href=found.data.href, architecture=architecture)


def _read_modules(found: Fetched | None, archive: Archive) -> Documents:
    if found is None:
        return Documents((), ())
    return modules.parse_modules(found.path, f"the modules of {archive.name}", href=found.data.href)


def _fetch_filelists(fetch: partial[dict[str, Fetched]]) -> Document | None:
    found = fetch(("filelists",)).get("filelists")
    return None if found is None else _document(found)


def _document(fetched: Fetched) -> Document:
    return Document(fetched.path, fetched.sha256, fetched.data.href.rpartition("/")[2])


def _snapshot(sources: Sources, archive: Archive, suite: str, trusted: Trusted, fetched: Sequence[Fetched]) -> Snapshot:
    return Snapshot(
        archive=archive.name,
        suite=suite,
        codename=suite,
        components=archive.components,
        architecture=sources.architecture,
        date=trusted.repomd.timestamp,
        valid_until=None,
        sha256=trusted.sha256,
        signers=trusted.signers,
        keyring=trusted.keyring,
        indexes=tuple(Index(one.data.href, one.size, one.sha256) for one in fetched),
        mirror=without_password(trusted.base),
    )
