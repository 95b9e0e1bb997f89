"""What was last believed of each archive and suite, so that an older signed document is noticed.

One JSON object per archive and suite: signer's fingerprint to the latest Date that it signed. By signer,
because two recipes may use one name for archives of different owners, while keys of one owner overlap as they
roll.
"""

from __future__ import annotations

import fcntl
import json
import os
from typing import TYPE_CHECKING
from urllib.parse import quote

from rootfsbuild import events

if TYPE_CHECKING:
    from collections.abc import Iterable


def last_date(
    folder: str, archive: str, suite: str, keys: Iterable[str], report: events.Report = events.ignore
) -> int | None:
    """Return the latest Date (seconds) accepted under any of these keys, None when nothing is remembered."""
    path = _path(folder, archive, suite)
    try:
        dates = _load(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        report(events.Warned(f"{path} cannot be read ({error}), so that an older {suite} would go unnoticed"))
        return None
    return max((dates[key] for key in keys if key in dates), default=None)


def remember(
    folder: str,
    archive: str,
    suite: str,
    *,
    signers: Iterable[str],
    date: int,
    report: events.Report = events.ignore,
) -> None:
    """Note the Date of a document that passed every check; the memory only ever rises.

    A memory that cannot be written warns: the build itself lost nothing.
    """
    path = _path(folder, archive, suite)
    try:
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, "lock"), "w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            _raise(path, signers, date)
    except OSError as error:
        reason = error.strerror or str(error)
        report(events.Warned(f"{path} cannot be written ({reason}): an older {suite} will go unnoticed"))


def _raise(path: str, signers: Iterable[str], date: int) -> None:
    try:
        old = _load(path)
    except (OSError, ValueError):
        old = {}
    new = old | {signer: max(date, old.get(signer, date)) for signer in signers}
    if new == old:
        return
    temporary = f"{path}.{os.getpid()}"
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump(new, file, indent=1, sort_keys=True)
    os.replace(temporary, path)


def _load(path: str) -> dict[str, int]:
    with open(path, encoding="utf-8") as file:
        dates = json.load(file)
    if not isinstance(dates, dict) or not all(type(date) is int for date in dates.values()):
        raise ValueError("is not an object of dates")
    return dates


def _path(folder: str, archive: str, suite: str) -> str:
    return os.path.join(folder, f"{quote(archive, safe='')}_{quote(suite, safe='')}.json")
