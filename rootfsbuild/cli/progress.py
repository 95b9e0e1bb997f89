"""Events, shown to a person: bars on a terminal, lines elsewhere, always on standard error."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from rootfsbuild.events import Detail, Event, Notice, Output, Progress, StageEnded, StageStarted, Warned

if TYPE_CHECKING:
    from collections.abc import Mapping

_TITLES = {
    "metadata": "Reading archives",
    "resolve": "Resolving",
    "fetch": "Fetching",
    "extract": "Unpacking",
    "configure": "Configuring",
    "finish": "Finishing",
    "publish": "Publishing",
    "bundle": "Bundle",
}


class Terminal:
    """A `Report` for people; bars appear only on a terminal, colours only where they are welcome."""

    def __init__(self, *, quiet: bool, verbose: bool, environ: Mapping[str, str] = os.environ) -> None:
        self._quiet = quiet
        self._verbose = verbose
        dumb = environ.get("TERM", "") == "dumb"
        self._bars = sys.stderr.isatty() and not quiet and not dumb
        self.colour = sys.stderr.isatty() and not dumb and not environ.get("NO_COLOR")
        self._bar: Any = None
        self._stage = ""
        self.weakened: list[str] = []

    def __call__(self, event: Event) -> None:
        """Show one event."""
        match event:
            case StageStarted():
                self._start(event)
            case Progress() if event.stage == self._stage and self._bar is not None:
                self._bar.update(event.amount)
            case StageEnded():
                self.close()
            case Warned():
                self._line(f"{self._paint('warning:', '33')} {event.text}", even_quiet=bool(event.weakens))
            case Notice():
                self._line(event.text)
            case Detail() if self._verbose:
                self._line(event.text)
            case Output() if self._verbose and not self._quiet:
                sys.stderr.buffer.write(event.chunk)
                sys.stderr.buffer.flush()

    def close(self) -> None:
        """Take a bar off the screen."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _start(self, event: StageStarted) -> None:
        self.close()
        self._stage = event.stage
        title = _TITLES.get(event.stage, event.stage)
        if self._bars and event.total:
            from tqdm import tqdm  # noqa: PLC0415 - costs 110 ms, and only a terminal needs it

            scaled = event.unit == "B"
            self._bar = tqdm(
                total=event.total,
                desc=f"{title:<16}",
                unit=event.unit or "step",
                unit_scale=scaled,
                unit_divisor=1024 if scaled else 1000,
                leave=False,
                disable=None,
                ascii=not (sys.stderr.encoding or "").lower().startswith("utf"),
            )
        elif not self._quiet:
            self._line(title + self._amount(event))

    @staticmethod
    def _amount(event: StageStarted) -> str:
        if not event.total:
            return ""
        if event.unit == "B":
            return f" {event.total / 1e6:.1f} MB"
        return f" {event.total} {event.unit}".rstrip()

    def _line(self, text: str, *, even_quiet: bool = False) -> None:
        if self._quiet and not even_quiet:
            return
        if self._bar is not None:
            self._bar.clear()
        print(text, file=sys.stderr, flush=True)  # noqa: T201 - the command line is where printing happens
        if self._bar is not None:
            self._bar.refresh()

    def _paint(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour else text
