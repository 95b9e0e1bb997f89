"""Packages into a root: files laid down, scriptlets and triggers run in rpm's order, the database written."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from rootfsbuild.errors import ScriptError, UnsatisfiableError
from rootfsbuild.events import StageEnded, StageStarted, Warned
from rootfsbuild.formats.format import Blob, Ground
from rootfsbuild.formats.rpm import tags, transaction
from rootfsbuild.formats.rpm.archive import Rpm, open_rpm
from rootfsbuild.formats.rpm.database import export, write_database
from rootfsbuild.formats.rpm.database_indexes import ByteOrder
from rootfsbuild.formats.rpm.files import File
from rootfsbuild.formats.rpm.member import (
    NORMAL,
    SKIPPED,
    WRONG_COLOUR,
    Member,
    choose_skipped,
    label_packages,
    load_keyrings,
    read_member,
)
from rootfsbuild.formats.rpm.merge import Recorded
from rootfsbuild.formats.rpm.scripts import run_step
from rootfsbuild.formats.rpm.users import Accounts, create_accounts, read_accounts
from rootfsbuild.formats.rpm.version import satisfies
from rootfsbuild.plan import Package, Plan
from rootfsbuild.rootfs.extract import Job, Laid, extract_packages
from rootfsbuild.rootfs.inside import edit_root
from rootfsbuild.rootfs.lay import Rules

# A package's files may exceed what its metadata says, which counts neither directories nor cpio's own bytes.
_SLACK = 64 << 20
_FACTOR = 4

_COLOURS = {"i386": 0, "i686": 0, "armv7hl": 0}
_ALL_COLOURS = 3
"""rpm's %_transaction_color where programs of 32 and 64 bits can stand beside each other."""
_PREFERRED = 2
_BIG_ENDIAN = ("s390x", "ppc64")


def split_waves(plan: Plan, blobs: Mapping[str, str]) -> tuple[tuple[Package, ...], ...]:
    """Return nothing: rpm installs all packages in one transaction."""
    del plan, blobs
    return ()


def install_base(ground: Ground, blobs: Iterable[Blob]) -> Mapping[str, Laid]:
    """Install all packages into an empty root, in rpm's order, and write the root's own database.

    Returns what each package left. Raises UntrustedError, PackageError, FileConflictError, ScriptError, HostError or
    StorageError.
    """
    keyrings, skip = load_keyrings(ground), choose_skipped(ground)
    labels = label_packages(ground.plan.packages)
    read = {package: read_member(ground, labels[package], package, path, keyrings, skip) for package, path in blobs}
    installation = _Installation(ground, [read[package] for package in ground.plan.packages])
    installation.run()
    return installation.laid


def install_more(ground: Ground, blobs: Iterable[Blob], earlier: Mapping[str, Laid]) -> Mapping[str, Laid]:
    """Return what there is: `split_waves` leaves nothing to add."""
    del ground, blobs
    return earlier


class _Installation:
    """One transaction while it goes on."""

    def __init__(self, ground: Ground, members: Sequence[Member]) -> None:
        self.ground = ground
        self.members = members
        self.laid: dict[str, Laid] = {}
        self._files = {member.label: {file.path: file for file in member.files} for member in members}
        self._numbers = {member.label: number for number, member in enumerate(members)}
        self._pending: list[Member] = []
        self._wrong: set[tuple[str, bytes]] = set()
        self._left = len(members)
        self._told = False

    def run(self) -> None:
        """Do every step, the files of packages between two scripts at once."""
        with edit_root(self.ground.root) as inside:
            self.inside = inside
            known = [transaction.Member(member.head.header, member.skipped) for member in self.members]
            self.ground.report(StageStarted("configure", len(known), "packages"))
            for step in transaction.order(known, satisfies):
                self._do(step)
            self._flush()
            self._record()
            self.ground.report(StageEnded("configure"))
            if not any(map(inside.exists, ("/etc/os-release", "/usr/lib/os-release"))):
                self.ground.report(Warned("the root has no os-release: nothing of what was asked for brings one"))

    def _do(self, step: transaction.Step) -> None:
        if isinstance(step, transaction.Unpack):
            member = self.members[step.number]
            self._pending.append(member)
            if _changes_the_ground(member):
                self._flush()
        elif isinstance(step, transaction.Execute):
            self._flush()
            member = self.members[step.number]
            run_step(
                step,
                member.head.header,
                self.ground.plan.architecture,
                self.ground.run,
                self.ground.report,
                strict=self.ground.strict,
            )

    # Files.

    def _flush(self) -> None:
        """Lay the files of the packages whose turn has come."""
        waiting, self._pending = self._pending, []
        while waiting:
            accounts = read_accounts(self.inside)
            ready = self._known(waiting, accounts)
            self._create_accounts(ready)
            self._extract(ready, read_accounts(self.inside))
            waiting = waiting[len(ready) :]
        if not self._left and not self._told:
            self._told = True
            self.ground.extracted()
            self.ground.idle()

    def _known(self, waiting: Sequence[Member], accounts: Accounts) -> Sequence[Member]:
        """Return the first packages, up to the one whose owners another may bring, or that has accounts to add.

        What it adds must not be lost when the file of accounts that another brings is laid.
        """
        for count, member in enumerate(waiting):
            if count and (_unknown(member, accounts) or _provided_accounts(member)):
                return waiting[:count]
        return waiting

    def _create_accounts(self, members: Sequence[Member]) -> None:
        for member in members:
            provides = _provided_accounts(member)
            if provides:
                create_accounts(self.inside, provides, member.label, self.ground.plan.epoch)

    def _extract(self, members: Sequence[Member], accounts: Accounts) -> None:
        for member in members:
            for kind, name in sorted(_unknown(member, accounts)):
                text = f"{member.label}: there is no {kind} {name.decode(errors='replace')}; using root"
                self.ground.report(Warned(text))
        self._left -= len(members)
        new = extract_packages(
            self.ground.root,
            [Job(member.path, member.label, _limit(member.package)) for member in members],
            partial(_open, accounts, {member.label: member.skipped for member in members}),
            order=tuple(self._numbers),
            rules=Rules(devices=True),
            may_replace=self._may_replace,
            earlier=self.laid,
            report=self.ground.report,
        )
        self.laid = {**self.laid, **new}

    def _may_replace(self, *, loser: str, winner: str, path: bytes) -> bool:
        """Let the first of two packages have what is the same in both, and of two architectures the preferred one."""
        lost, won = self._files[loser].get(path), self._files[winner].get(path)
        if lost is None or won is None:
            return False
        if lost.colour and won.colour and lost.colour != won.colour:
            if won.colour == _PREFERRED:
                self._wrong.add((loser, path))
            return won.colour == _PREFERRED
        return self._numbers[winner] < self._numbers[loser] and _content(lost) == _content(won)

    # The database.

    def _record(self) -> None:
        database = self.ground.image.database
        if database is None:
            return
        epoch = self.ground.plan.epoch
        records = [
            Recorded(
                signature=member.head.signature,
                main=member.head.header,
                states=bytes(self._state(member, file) for file in member.files),
                color=_COLOURS.get(self.ground.plan.architecture, _ALL_COLOURS),
                # With SOURCE_DATE_EPOCH rpm counts on from it, a second a package.
                time=epoch + number,
                tid=epoch,
            )
            for number, member in enumerate(self.members)
        ]
        if database.format == "sqlite":
            order: ByteOrder = "big" if self.ground.plan.architecture in _BIG_ENDIAN else "little"
            write_database(self.inside, f"/{database.path}", records, order)
        else:
            self._import(records, database.format)

    def _state(self, member: Member, file: File) -> int:
        if file.index in member.skipped:
            return SKIPPED
        return WRONG_COLOUR if (member.label, file.path) in self._wrong else NORMAL

    def _import(self, records: Iterable[Recorded], kind: str) -> None:
        """Let the root's own rpm write a database whose format only it knows."""
        if not any(self.inside.exists(f"{folder}/rpmdb") for folder in ("/usr/bin", "/bin")):
            raise UnsatisfiableError(
                f"a root with an rpm database of the format {kind}",
                ("it has no rpm, whose rpmdb alone can write one",),
                hint="include rpm",
            )
        argv = ["rpmdb", "--importdb"]
        done = self.ground.run(argv, extra_env={}, stdin=b"".join(export(records)))
        if done.status:
            raise ScriptError("rpm", " ".join(argv), done.status, done.lines[-20:])


def _open(accounts: Accounts, skipped: Mapping[str, frozenset[int]], fd: int, label: str) -> Rpm:
    return open_rpm(fd, label, owners=partial(_number, accounts), skip=lambda file: file.index in skipped[label])


def _number(accounts: Accounts, user: bytes, group: bytes) -> tuple[int, int]:
    return accounts.users.get(user, 0), accounts.groups.get(group, 0)


def _provided_accounts(member: Member) -> list[str]:
    """Return the Provides of a package that carry lines of sysusers.d(5)."""
    header = member.head.header
    return [
        f"{name.decode(errors='replace')} = {version.decode(errors='replace')}"
        for name, version in zip(header.strings(tags.PROVIDENAME), header.strings(tags.PROVIDEVERSION), strict=True)
        if version and name.startswith((b"user(", b"group(", b"groupmember("))
    ]


def _unknown(member: Member, accounts: Accounts) -> set[tuple[str, bytes]]:
    """Return the owners of a package's files that the root does not know."""
    users = {("user", file.user) for file in member.files if file.user not in accounts.users}
    return users | {("group", file.group) for file in member.files if file.group not in accounts.groups}


def _changes_the_ground(member: Member) -> bool:
    """Tell whether others may find their place only when a package lies there: it has links at the top."""
    return any(b"/" not in file.path and stat.S_ISLNK(file.mode) for file in member.files)


def _content(file: File) -> tuple[object, ...]:
    return stat.S_IFMT(file.mode), file.size, file.algorithm, file.digest, file.target, file.rdev


def _limit(package: Package) -> int:
    return package.installed_size * _FACTOR + _SLACK
