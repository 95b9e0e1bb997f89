"""What a bundle carries, laid out as repositories from which an image's own dnf or zypper installs behind the gap.

With the distribution's own signatures, documents and data are those that were fetched, byte for byte; with a key of
the user's, the lists name what is carried and nothing else.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rootfsbuild import __version__
from rootfsbuild.errors import PackageError, StorageError, TargetError, UntrustedError, UsageError
from rootfsbuild.events import Notice, StageEnded, StageStarted, Warned, ignore
from rootfsbuild.formats.format import Blob, Contents
from rootfsbuild.formats.rpm.carried import Repository, gather_repositories
from rootfsbuild.formats.rpm.laying import Laying
from rootfsbuild.formats.rpm.own_metadata import Listed, describe_package, write_metadata, write_repomd
from rootfsbuild.formats.rpm.repository_texts import name_files, write_readme, write_repo
from rootfsbuild.formats.rpm.version import sort_key
from rootfsbuild.repository.sign import binary_certificates
from rootfsbuild.repository.signed import REPOMD, REPOMD_SIGNATURE
from rootfsbuild.repository.trust import load_keyring, verify_detached
from rootfsbuild.rootfs.publish import check_target, open_staging

if TYPE_CHECKING:
    from rootfsbuild.events import Report
    from rootfsbuild.repository.sign import Signer

_OWN_KEY = "repository.asc"
_HINT = "rootfsbuild bundle FILE --as-repository DIR --sign-key KEYFILE makes lists of exactly what is carried"
_OF_PACKAGES = ("primary", "filelists", "other", "prestodelta")
"""The kinds of data that name packages files, or describe all of them."""


def lay_repository(
    directory: str, contents: Contents, keys: Mapping[str, bytes], signer: Signer | None, report: Report
) -> None:
    """Lay out a directory that does not exist or is empty: a repository for each archive, .repo files and a README.

    `keys`: archive name -> the certificates that may sign for it, binary or armored. Without `signer` the
    distribution's own documents are used. The same contents give the same bytes and times, but for our own
    signatures. Raises TargetError, StorageError, UntrustedError, IntegrityError, PackageError, or UsageError for what
    only an own signature can offer.
    """
    _check_free(directory)
    with open_staging(directory, warn=lambda text: report(Warned(text))) as staging:
        repositories = gather_repositories(contents)
        if signer is None:
            _check_original(repositories, keys)
        with _refusals(directory):
            laid = Laying(staging.root, max((one.date for one in repositories), default=0))
            blobs = _pool(repositories)
            report(StageStarted("publish", sum(package.size for package, _ in blobs.values()), "B"))
            for name, (package, path) in blobs.items():
                laid.copy(name, path, package.sha256, report)
            files = _lay_keys(laid, repositories, keys, signer)
            for one in repositories:
                if signer is None:
                    _lay_original(laid, one, files[one.archive])
                else:
                    _lay_signed(laid, one, signer)
            _lay_texts(laid, repositories, blobs, files, signer)
            laid.finish()
            os.rename(staging.root, staging.result)
        report(StageEnded("publish"))
        staging.publish(_describe(repositories, blobs, signer), report)
    count = f"{len(blobs)} packages of {len(repositories)} repositories"
    report(Notice(f"{directory}: {count}; README.txt in it tells how to use it"))


def _check_free(directory: str) -> None:
    try:
        check_target(directory)
    except TargetError as error:
        if not os.path.islink(directory):
            error.hint = "name a directory that does not exist, or an empty one"
        raise


def _check_original(repositories: Sequence[Repository], keys: Mapping[str, bytes]) -> None:
    """Raise UsageError for what cannot be served under the distribution's own signatures."""
    for one in repositories:
        name = f"{one.archive} {one.suite} for {one.architecture}"
        if not keys.get(one.archive):
            raise UsageError(f"{name} has no key, so that dnf would refuse it", hint=_HINT)
        if one.lacking():
            wants = ", ".join(one.lacking())
            raise UsageError(f"{name}: dnf would ask for {wants}, which no build needs and is not here", hint=_HINT)
        if one.older:
            older = ", ".join(sorted(f"{package.name} {package.version}" for package in one.older))
            problem = "only an older document than the one that can be laid out proves: "
            raise UsageError(problem + older, hint=_HINT)


def _pool(repositories: Sequence[Repository]) -> dict[str, Blob]:
    """Return where each package goes; raise UntrustedError if two claim one place."""
    found: dict[str, Blob] = {}
    for one in repositories:
        for package, path in one.packages:
            name = f"{one.folder}/{package.filename}"
            if found.setdefault(name, (package, path))[0].sha256 != package.sha256:
                problem = f"another package of the same name is carried, too: {package.filename}"
                raise UntrustedError(package.name, "mismatch", problem)
    return dict(sorted(found.items()))


def _lay_keys(
    laid: Laying, repositories: Sequence[Repository], keys: Mapping[str, bytes], signer: Signer | None
) -> dict[str, list[str]]:
    """Write certificates as dnf and rpm import them, armored one by one; return archive -> the files in keys/."""
    files: dict[str, list[str]] = {one.archive: [] for one in repositories}
    if signer is not None:
        laid.write(f"keys/{_OWN_KEY}", _armored(signer.certificate, "the key that signs"))
    for archive, found in files.items():
        if signer is not None:
            found.append(_OWN_KEY)
        if keys.get(archive):
            found.append(f"{archive}.asc")
            laid.write(f"keys/{archive}.asc", _armored(keys[archive], f"the keys of {archive}"))
    return files


def _armored(data: bytes, source: str) -> bytes:
    import pysequoia  # noqa: PLC0415 - loaded only where something is laid out

    certificates = pysequoia.Cert.split_bytes(binary_certificates(data, source))
    return "".join(f"{str(one).strip()}\n" for one in certificates).encode()


def _lay_original(laid: Laying, one: Repository, keys: Sequence[str]) -> None:
    for path, data in one.documents.items():
        laid.write(f"{one.folder}/{path}", data, one.date)
    for carried in one.carried:
        laid.copy(f"{one.folder}/{carried.index.path}", carried.file, carried.index.sha256, ignore, one.date)
    if one.signers:
        try:
            # A key can have expired since.
            _check_signature(laid, one.folder, keys[0])
        except UntrustedError as error:
            error.hint = _HINT
            raise


def _lay_signed(laid: Laying, one: Repository, signer: Signer) -> None:
    described = [
        describe_package(package, os.path.join(laid.root, one.folder, package.filename), one.date)
        for package, _ in sorted(one.packages, key=_rank)
    ]
    listed = (*write_metadata(described), *_take_over(one))
    for file in listed:
        laid.write(f"{one.folder}/{file.path}", file.data, one.date)
    repomd = write_repomd(listed, one.date)
    # Signatures are of now, and so is the time of what bears them: with the time of an earlier layout of the same
    # moment but other packages, a web server would say that nothing has changed (RFC 9110, 13.1.3).
    now = int(time.time())
    laid.write(f"{one.folder}/{REPOMD}", repomd, now)
    laid.write(f"{one.folder}/{REPOMD_SIGNATURE}", signer.sign_detached(repomd), now)
    # zypper looks for the key there.
    laid.write(f"{one.folder}/{REPOMD}.key", _armored(signer.certificate, "the key that signs"), one.date)
    _check_signature(laid, one.folder, _OWN_KEY)


def _rank(blob: Blob) -> tuple[object, ...]:
    package = blob[0]
    return package.name, sort_key(package.version), package.architecture, package.sha256


def _take_over(one: Repository) -> Iterator[Listed]:
    """Yield what else is at hand: groups, and modules, without which dnf would not install modular packages."""
    for carried in one.carried:
        if carried.data.type.startswith(_OF_PACKAGES):
            continue
        with open(carried.file, "rb") as file:
            name = carried.data.href.rpartition("/")[2].removeprefix(f"{carried.data.checksum.value}-")
            yield Listed(carried.data.type, name, file.read(), None)


def _check_signature(laid: Laying, folder: str, key: str) -> None:
    """Raise UntrustedError: what dnf will refuse has to be noticed before it is behind a gap."""
    keyring = load_keyring([("", os.path.join(laid.root, "keys", key))])
    with contextlib.ExitStack() as stack:
        paths = (os.path.join(laid.root, folder, path) for path in (REPOMD, REPOMD_SIGNATURE))
        repomd, signature = (stack.enter_context(open(path, "rb")).read() for path in paths)
    verify_detached(repomd, signature, keyring, time.time(), subject=f"repomd.xml of {folder}")


def _lay_texts(
    laid: Laying,
    repositories: Sequence[Repository],
    blobs: Mapping[str, Blob],
    keys: Mapping[str, Sequence[str]],
    signer: Signer | None,
) -> None:
    files = name_files(repositories)
    for name, together in files.items():
        laid.write(name, write_repo(together, keys, own=signer is not None).encode())
    size = sum(package.size for package, _ in blobs.values())
    owner = ("", "") if signer is None else (signer.fingerprint, _OWN_KEY)
    names = {name for found in keys.values() for name in found if name != _OWN_KEY}
    fingerprints = {name: _fingerprints(laid, name) for name in names}
    laid.write("README.txt", write_readme(files, len(blobs), size, owner, fingerprints).encode())


def _fingerprints(laid: Laying, name: str) -> list[str]:
    keyring = load_keyring([("", os.path.join(laid.root, "keys", name))])
    return sorted(one.fingerprint.upper() for one in keyring.certificates)


def _describe(
    repositories: Sequence[Repository], blobs: Mapping[str, Blob], signer: Signer | None
) -> dict[str, object]:
    return {
        "rootfsbuild": __version__,
        "repository": {
            "signer": "" if signer is None else signer.fingerprint,
            "repositories": [
                {
                    "archive": one.archive,
                    "suite": one.suite,
                    "architecture": one.architecture,
                    "date": one.date,
                    "signers": one.signers,
                }
                for one in repositories
            ],
            "files": {name: package.sha256 for name, (package, _) in blobs.items()},
        },
    }


@contextlib.contextmanager
def _refusals(directory: str) -> Iterator[None]:
    try:
        yield
    except PackageError as error:
        error.hint = error.hint or "rootfsbuild bundle --verify FILE"
        raise
    except FileExistsError as error:
        raise UntrustedError(str(error.filename), "mismatch", "two things that are carried claim this path") from None
    except OSError as error:
        raise StorageError(str(error.filename or directory), error.strerror or str(error)) from error
