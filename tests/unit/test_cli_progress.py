from __future__ import annotations

import io
import sys

import pytest

from rootfsbuild.cli.progress import Terminal
from rootfsbuild.events import Detail, Notice, Progress, StageEnded, StageStarted, Warned


class Screen(io.StringIO):
    encoding = "utf-8"

    def __init__(self, *, tty):
        super().__init__()
        self.tty = tty

    def isatty(self):
        return self.tty


@pytest.fixture
def shown(monkeypatch):
    """Show events on a made-up screen and return what stands there."""

    def show(*events, tty=False, quiet=False, verbose=False, **environ):
        screen = Screen(tty=tty)
        monkeypatch.setattr(sys, "stderr", screen)
        terminal = Terminal(quiet=quiet, verbose=verbose, environ=environ)
        for event in events:
            terminal(event)
        terminal.close()
        return screen.getvalue()

    return show


STAGE = StageStarted("fetch", 3_000_000, "B")


def test_elsewhere_than_on_a_terminal_a_stage_is_a_line(shown):
    text = shown(STAGE, Progress("fetch", 1_000_000), StageEnded("fetch"), StageStarted("resolve"))
    assert text == "Fetching 3.0 MB\nResolving\n"


def test_a_count_has_its_noun_and_an_unknown_stage_its_own_name(shown):
    assert (
        shown(StageStarted("configure", 88, "packages"), StageStarted("dance", 2))
        == "Configuring 88 packages\ndance 2\n"
    )


def test_on_a_terminal_it_is_a_bar_that_goes_away(shown):
    text = shown(STAGE, Progress("fetch", 1_000_000), Progress("other", 9_000_000), StageEnded("fetch"), tty=True)
    assert "Fetching" in text
    assert "\r" in text
    assert "Fetching 3.0 MB\n" not in text
    assert text.endswith("\r")


def test_a_message_does_not_break_a_bar(shown):
    text = shown(STAGE, Notice("here"), tty=True)
    assert "\nhere\n" in text or "\rhere\n" in text


def test_a_stage_without_a_total_is_a_line_on_a_terminal_too(shown):
    assert shown(StageStarted("resolve"), tty=True) == "Resolving\n"


def test_a_dumb_terminal_gets_lines(shown):
    assert shown(STAGE, tty=True, TERM="dumb") == "Fetching 3.0 MB\n"


def test_quiet_shows_nothing_but_weakened_checks(shown):
    events = [STAGE, Notice("n"), Detail("d"), Warned("end of life"), Warned("expired", "expired"), StageEnded("fetch")]
    assert shown(*events, quiet=True) == "warning: expired\n"
    assert shown(*events, quiet=True, tty=True, NO_COLOR="1") == "warning: expired\n"


@pytest.mark.parametrize(("verbose", "text"), [(False, ""), (True, "detail\n")])
def test_details_are_for_verbose(shown, verbose, text):
    assert shown(Detail("detail"), verbose=verbose) == text


@pytest.mark.parametrize(
    ("tty", "environ", "coloured"),
    [
        (True, {}, True),
        (True, {"NO_COLOR": ""}, True),  # https://no-color.org: only when it is not empty
        (True, {"NO_COLOR": "1"}, False),
        (True, {"TERM": "dumb"}, False),
        (False, {}, False),
    ],
)
def test_colour_only_where_it_is_welcome(shown, tty, environ, coloured):
    assert ("\x1b[" in shown(Warned("x"), tty=tty, **environ)) is coloured


def test_nothing_goes_to_standard_output(shown, capsys):
    shown(STAGE, Notice("x"), Warned("y"), Detail("z"), verbose=True)
    assert capsys.readouterr().out == ""
