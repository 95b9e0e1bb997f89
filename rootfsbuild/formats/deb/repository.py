"""What a bundle carries, laid out as repositories from which an image's own apt installs behind the gap.

With the archives' own signatures, the documents and indexes are those that were fetched, byte for byte; with a key of
the user's, the indexes list what is carried and nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, BinaryIO

from rootfsbuild import __version__
from rootfsbuild.errors import IntegrityError, StorageError, TargetError, UntrustedError, UsageError
from rootfsbuild.events import Notice, Progress, StageEnded, StageStarted, Warned
from rootfsbuild.formats.deb.carried import Suite, gather_suites, is_in
from rootfsbuild.formats.deb.repository_texts import list_sources, name_lists, write_readme, write_sources
from rootfsbuild.formats.deb.signed_release import check_documents, write_suite
from rootfsbuild.formats.format import Blob, Contents
from rootfsbuild.repository.sign import binary_certificates
from rootfsbuild.rootfs.publish import check_target, open_staging

if TYPE_CHECKING:
    from rootfsbuild.events import Report
    from rootfsbuild.repository.sign import Signer

_OWN_KEY = "repository.gpg"
_HINT = "rootfsbuild bundle FILE --as-repository DIR --sign-key KEYFILE makes lists of exactly what is carried"
_CHUNK = 1 << 20


def lay_repository(
    directory: str, contents: Contents, keys: Mapping[str, bytes], signer: Signer | None, report: Report
) -> None:
    """Lay out a directory that does not exist or is empty: a repository for each archive, sources and a README.

    `keys`: archive name -> the certificates that may sign for it, binary or armored. Without `signer` the archives'
    own signatures are used. The same contents give the same bytes and times, but for our own signatures. Raises
    TargetError, StorageError, UntrustedError, IntegrityError, or UsageError for what only an own signature can offer.
    """
    _check_free(directory)
    with open_staging(directory, warn=lambda text: report(Warned(text))) as staging:
        suites = gather_suites(contents, staging.directory)
        if signer is None:
            _check_original(suites, contents.packages, keys)
        with _refusals(directory):
            laid = _Laying(staging.root, max((suite.release.date for suite in suites), default=0))
            blobs = _pool(suites)
            report(StageStarted("publish", sum(package.size for package, _ in blobs.values()), "B"))
            _lay_pools(laid, blobs, report)
            if signer is None:
                _lay_original(laid, suites, keys)
            else:
                _lay_signed(laid, suites, signer)
            _lay_texts(laid, suites, blobs, signer)
            laid.finish()
            os.rename(staging.root, staging.result)
        report(StageEnded("publish"))
        staging.publish(_describe(suites, blobs, signer), report)
    report(Notice(f"{directory}: {len(blobs)} packages of {len(suites)} suites; README.txt in it tells how to use it"))


class _Laying:
    """A tree whose modes and times depend on nothing but what is put into it."""

    def __init__(self, root: str, epoch: int) -> None:
        self.root = root
        self.epoch = epoch
        """Seconds since the epoch: the time of everything that has none of its own."""

    def path(self, name: str) -> str:
        """Return where a file goes; its directory is made. Raises UntrustedError for a name that leads elsewhere."""
        if any(part in {"", ".", ".."} for part in name.split("/")):
            raise UntrustedError(name, "mismatch", "is no path below a repository")
        path = os.path.join(self.root, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return path

    def write(self, name: str, data: bytes, when: int | None = None) -> None:
        """Write a file; nothing is ever written twice."""
        path = self.path(name)
        with open(path, "xb") as file:
            file.write(data)
            self._settle(file, when)

    def copy(self, name: str, source: str, sha256: str, report: Report | None = None, when: int | None = None) -> None:
        """Copy a file and see to it that its bytes are still those that were verified.

        Copied, not linked: a link would share its mode, its time and any later damage with the store. And what is
        damaged has to be noticed here, as it cannot be fetched again behind the gap.
        """
        digest = hashlib.sha256()
        with open(source, "rb") as given, open(self.path(name), "xb") as file:
            while chunk := given.read(_CHUNK):
                digest.update(chunk)
                file.write(chunk)
                if report is not None:
                    report(Progress("publish", len(chunk)))
            self._settle(file, when)
        if digest.hexdigest() != sha256:
            raise IntegrityError(name, f"SHA-256 {sha256}", digest.hexdigest(), hint="rootfsbuild bundle --verify FILE")

    def link(self, name: str, existing: str) -> None:
        """Give a file of the tree a second name, or a copy where the file system has no links."""
        path, source = self.path(name), os.path.join(self.root, existing)
        try:
            os.link(source, path)
        except FileExistsError:
            pass  # by-hash: the same content under another name
        except OSError:
            with open(source, "rb") as file:
                self.write(name, file.read(), int(os.stat(source).st_mtime))

    def finish(self) -> None:
        """Set modes and times of all directories, which change while files are put into them."""
        for folder, _, _ in os.walk(self.root, topdown=False):
            os.chmod(folder, 0o755)
            os.utime(folder, (self.epoch, self.epoch))

    def _settle(self, file: BinaryIO, when: int | None) -> None:
        # What is written after it would set the time again.
        file.flush()
        os.fchmod(file.fileno(), 0o644)
        os.utime(file.fileno(), (self.epoch, self.epoch) if when is None else (when, when))


def _check_free(directory: str) -> None:
    try:
        check_target(directory)
    except TargetError as error:
        if not os.path.islink(directory):
            error.hint = "name a directory that does not exist, or an empty one"
        raise


def _check_original(suites: Sequence[Suite], packages: Sequence[Blob], keys: Mapping[str, bytes]) -> None:
    """Raise UsageError for what cannot be served under the archives' own signatures."""
    for suite in suites:
        if not keys.get(suite.archive) or not suite.signers:
            raise UsageError(f"{suite.archive} {suite.name} is not signed, so that apt would refuse it", hint=_HINT)
        if suite.lacking():
            wants = ", ".join(suite.lacking())
            problem = f"{suite.archive} {suite.name}: apt would ask for {wants}, which no build needs and is not here"
            raise UsageError(problem, hint=_HINT)
    current = [one for suite in suites for one in suite.current]
    older = sorted({f"{one[0].name} {one[0].version}" for one in packages if not is_in(one, current)})
    if older:
        problem = "only an older document than the one that can be laid out proves: "
        raise UsageError(problem + ", ".join(older), hint=_HINT)


def _pool(suites: Sequence[Suite]) -> dict[str, Blob]:
    """Return where each package goes; raise UntrustedError if two claim one place."""
    found: dict[str, Blob] = {}
    for listed in (listed for suite in suites for carried in suite.carried for listed in carried.packages):
        package = listed.blob[0]
        name = f"{package.archive}/{package.filename}"
        if found.setdefault(name, listed.blob)[0].sha256 != package.sha256:
            problem = f"another package of the same name is carried, too: {package.filename}"
            raise UntrustedError(package.name, "mismatch", problem)
    return dict(sorted(found.items()))


def _lay_pools(laid: _Laying, blobs: Mapping[str, Blob], report: Report) -> None:
    for name, (package, path) in blobs.items():
        laid.copy(name, path, package.sha256, report)


def _lay_original(laid: _Laying, suites: Sequence[Suite], keys: Mapping[str, bytes]) -> None:
    for suite in suites:
        when = suite.release.date
        for path in sorted(suite.documents):
            laid.write(f"{suite.archive}/{path}", suite.documents[path], when)
        for one in suite.current:
            name = _below(suite, one.index.path)
            laid.copy(name, one.file, one.index.sha256, when=when)
            laid.link(_by_hash(name, one.index.sha256), name)
    for archive in sorted({suite.archive for suite in suites}):
        laid.write(f"keys/{archive}.gpg", binary_certificates(keys[archive], f"the keys of {archive}"))
    for suite in suites:
        documents = {path.rpartition("/")[2]: data for path, data in suite.documents.items()}
        try:
            # A key can have expired since, or be that of another suite of the archive alone.
            place = laid.path(f"keys/{suite.archive}.gpg")
            check_documents(documents, place, time.time(), f"{suite.archive} {suite.name}")
        except UntrustedError as error:
            error.hint = _HINT
            raise


def _lay_signed(laid: _Laying, suites: Sequence[Suite], signer: Signer) -> None:
    laid.write(f"keys/{_OWN_KEY}", signer.certificate)
    # Signatures are of now, and so is the time of what bears them: with the time of an earlier layout of the same
    # moment but other packages, apt would take the documents for those that it has (RFC 9110, 13.1.3).
    now = int(time.time())
    for suite in suites:
        own = write_suite(suite)
        for path, data in own.indexes.items():
            name = _below(suite, path)
            laid.write(name, data, suite.release.date)
            laid.link(_by_hash(name, hashlib.sha256(data).hexdigest()), name)
        documents = own.documents(signer)
        check_documents(documents, laid.path(f"keys/{_OWN_KEY}"), time.time(), f"{suite.archive} {suite.name}")
        for path, data in documents.items():
            laid.write(_below(suite, path), data, now)


def _lay_texts(laid: _Laying, suites: Sequence[Suite], blobs: Mapping[str, Blob], signer: Signer | None) -> None:
    lists = name_lists(suites)
    for name, together in lists.items():
        archive = together[0].archive
        offered = [source for suite in together for source in list_sources(suite, original=signer is None)]
        key = f"{archive}.gpg" if signer is None else _OWN_KEY
        laid.write(name, write_sources(archive, offered, key).encode())
    size = sum(package.size for package, _ in blobs.values())
    owner = ("", "") if signer is None else (signer.fingerprint, _OWN_KEY)
    laid.write("README.txt", write_readme(lists, len(blobs), size, owner).encode())


def _below(suite: Suite, path: str) -> str:
    return "/".join(filter(None, (suite.archive, suite.folder, path)))


def _by_hash(name: str, sha256: str) -> str:
    return f"{name.rpartition('/')[0]}/by-hash/SHA256/{sha256}"


def _describe(suites: Sequence[Suite], blobs: Mapping[str, Blob], signer: Signer | None) -> dict[str, object]:
    return {
        "rootfsbuild": __version__,
        "repository": {
            "signer": "" if signer is None else signer.fingerprint,
            "suites": [
                {"archive": suite.archive, "suite": suite.name, "date": suite.release.date, "signers": suite.signers}
                for suite in suites
            ],
            "files": {name: package.sha256 for name, (package, _) in blobs.items()},
        },
    }


@contextlib.contextmanager
def _refusals(directory: str) -> Iterator[None]:
    try:
        yield
    except FileExistsError as error:
        raise UntrustedError(str(error.filename), "mismatch", "two things that are carried claim this path") from None
    except OSError as error:
        raise StorageError(str(error.filename or directory), error.strerror or str(error)) from error
