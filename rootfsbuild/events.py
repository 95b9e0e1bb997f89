"""What a build tells while it runs: frozen values handed to a callable, rendered only by `cli`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class StageStarted:
    """A stage of the pipeline begins; `total` counts its steps or bytes, 0 when unknown."""

    stage: str
    """`metadata`, `resolve`, `fetch`, `extract`, `configure`, `finish` or `publish`."""
    total: int = 0
    unit: str = ""
    """`B` for bytes, else the noun that is counted."""


@dataclass(frozen=True)
class Progress:
    """`amount` more bytes or steps of a stage are done."""

    stage: str
    amount: int
    detail: str = ""


@dataclass(frozen=True)
class StageEnded:
    """A stage is over."""

    stage: str


@dataclass(frozen=True)
class Notice:
    """A sentence for the user that `-q` silences."""

    text: str


@dataclass(frozen=True)
class Detail:
    """A sentence that only `-v` shows."""

    text: str


@dataclass(frozen=True)
class Output:
    """What a script or hook printed, as it came; only `-v` shows it, the log has it all."""

    chunk: bytes


@dataclass(frozen=True)
class Warned:
    """Something the user should know; `weakens` names a check that was switched off, for the result's record."""

    text: str
    weakens: str = ""


@dataclass(frozen=True)
class Published:
    """The result is in its place, complete, and the build can no longer fail.

    Reported while the signals that ask to stop still wait (`rootfs.signals.postponed`), so that whoever hears of
    it can have them ignored without a moment in between; it should not raise.
    """

    target: str


Event = StageStarted | Progress | StageEnded | Notice | Detail | Output | Warned | Published
Report = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Report nothing: the default for library use and tests."""
    del event
