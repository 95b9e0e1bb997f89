from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from rootfsbuild import cli, errors
from rootfsbuild.cli.stopping import signals_raise, until_published
from rootfsbuild.errors import InterruptedBuildError
from rootfsbuild.events import Notice, Published, ignore
from rootfsbuild.rootfs.signals import STOPPING, postponed

# The program itself around a build that makes one file: only what is before `publish` is left out.
PROGRAM = """
import atexit, os, signal, sys, time, types
from rootfsbuild import cli, pipeline
from rootfsbuild.cli import commands
from rootfsbuild.rootfs import publish

def signalled():
    os.kill(os.getpid(), signal.{name})
    sum(range(1000))

def interrupt(where, name, before):
    real = getattr(where, name)
    def wrapped(*words, **named):
        if before:
            signalled()
        try:
            return real(*words, **named)
        finally:
            if not before:
                signalled()
    setattr(where, name, wrapped)

class Last:
    def __del__(self):
        signalled()

def lose():
    real = publish._sync
    publish._sync = lambda path: (real(path), Last())[0]

def slow():
    real = publish._put
    # Longer than it takes to raise a lost signal again.
    publish._put = lambda *words, **named: (time.sleep(0.05), real(*words, **named))

def build(recipe, target, settings, report):
    with publish.open_staging(target, force=settings.force, home="/nonexistent", cwd="/") as staging:
        with open(staging.result, "w") as file:
            file.write("whole")
        return pipeline.Result(target, staging.publish({{}}, report), None)

commands.read_recipe = lambda *_: types.SimpleNamespace(name="x")
pipeline.build = build
{moment}
sys.exit(cli.main())
"""

TOO_LATE = {
    "as the record is renamed": "interrupt(publish, '_put', True)",
    "after the renaming": "interrupt(publish, '_put', False)",
    "as the folder is synced": "interrupt(publish, '_sync_directory', True)",
    "before the cleaning": "interrupt(publish, 'remove_tree', True)",
    "after the cleaning": "interrupt(publish, 'remove_tree', False)",
    "when all is said": "interrupt(publish, '_clear', False)",
    "as the program ends": "atexit.register(signalled)",
    "as Python ends": "sys.last = Last()",
    "when it was lost before": "slow(); lose()",
}
IN_TIME = {
    "before anything": "interrupt(publish, 'open_staging', True)",
    "while the result is made": "interrupt(publish, '_identity', True)",
    "just before the block": "interrupt(publish, '_sync', False)",
}


def run(folder, moment, name="SIGINT", *words, **options):
    program = PROGRAM.format(name=name, moment=moment)
    command = [sys.executable, "-c", program, "x.toml", "-o", str(folder / "out" / "x"), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, **options)


@pytest.mark.parametrize("moment", TOO_LATE.values(), ids=TOO_LATE)
def test_a_signal_that_comes_when_the_result_is_there_changes_nothing(tmp_path, moment):
    done = run(tmp_path, moment, "SIGINT" if len(moment) % 2 else "SIGTERM")
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(os.listdir(tmp_path / "out")) == ["x", "x.manifest.json"]
    assert (tmp_path / "out/x").read_text() == "whole"


@pytest.mark.parametrize("moment", IN_TIME.values(), ids=IN_TIME)
def test_a_signal_that_comes_before_ends_the_build_without_a_result(tmp_path, moment):
    done = run(tmp_path, moment)
    assert (done.returncode, done.stderr) == (130, "error: stopped by signal 2\n")
    assert not (tmp_path / "out").exists() or os.listdir(tmp_path / "out") == []


def test_an_earlier_result_is_replaced_whole_or_not_at_all(tmp_path):
    assert run(tmp_path, "").returncode == 0
    first = os.stat(tmp_path / "out/x").st_ino
    assert run(tmp_path, IN_TIME["just before the block"], "SIGINT", "--force").returncode == 130
    assert os.stat(tmp_path / "out/x").st_ino == first
    assert run(tmp_path, TOO_LATE["after the renaming"], "SIGINT", "--force").returncode == 0
    assert os.stat(tmp_path / "out/x").st_ino != first


SHOWS = "atexit.register(lambda: print([signal.getsignal(number).name for number in (1, 2, 15)]))"


def test_signals_are_ignored_by_the_kernel_when_python_undoes_its_handlers(tmp_path):
    done = run(tmp_path, SHOWS)
    assert (done.stdout, done.stderr) == ("['SIG_IGN', 'SIG_IGN', 'SIG_IGN']\n", "")


FAILS = """
def refuse(*_words, **_named):
    signalled()
    raise OSError(5, "the disk is broken")
publish._put = refuse
"""


def test_a_signal_in_a_publishing_that_fails_leaves_no_record(tmp_path):
    done = run(tmp_path, FAILS)
    assert (done.returncode, done.stderr) == (130, "error: stopped by signal 2\n")
    assert os.listdir(tmp_path / "out") == []


def test_signals_that_the_caller_ignores_stay_ignored(tmp_path):
    # As nohup does.
    hangup_ignored = {"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)}
    done = run(tmp_path, IN_TIME["just before the block"], "SIGHUP", **hangup_ignored)
    assert (done.returncode, done.stderr) == (0, "")


# In a process that lives on


@pytest.fixture
def handlers():
    """What the caller had set, and has to find again."""

    def mine(_number, _frame):
        raise AssertionError

    old = {number: signal.signal(number, mine) for number in STOPPING[:2]}
    old[signal.SIGHUP] = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    yield lambda: [signal.getsignal(number) for number in STOPPING] == [mine, mine, signal.SIG_IGN]
    for number, handler in old.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("event", [Notice("x"), Published("/x")], ids=lambda event: type(event).__name__)
def test_a_caller_gets_its_handlers_back(monkeypatch, handlers, event):
    def work(_argv):
        with postponed():
            until_published(ignore)(event)
        return 0

    monkeypatch.setattr(cli, "_dispatch", work)
    assert cli.main([]) == 0
    assert handlers()


def test_a_caller_gets_its_handlers_back_after_a_stop(monkeypatch, handlers, capsys):
    monkeypatch.setattr(cli, "_dispatch", lambda _argv: signal.raise_signal(signal.SIGTERM))
    assert cli.main([]) == 143
    assert capsys.readouterr().err == "error: stopped by signal 15\n"
    assert handlers()


def test_events_are_passed_on():
    heard = []
    with signals_raise(to_the_end=False):
        report = until_published(heard.append)
        report(Notice("x"))
        report(Published("/x"))
    assert heard == [Notice("x"), Published("/x")]


def test_a_signal_is_no_exception_that_a_library_could_swallow():
    def library():
        try:
            signal.raise_signal(signal.SIGINT)
        except Exception as error:
            raise AssertionError from error

    with pytest.raises(InterruptedBuildError) as caught, signals_raise(to_the_end=False):
        library()
    assert (caught.value.signal, str(caught.value), caught.value.hint) == (2, "stopped by signal 2", "")
    assert not isinstance(caught.value, errors.RootfsbuildError)
