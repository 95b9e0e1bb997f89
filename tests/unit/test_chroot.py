from __future__ import annotations

import os
import pty
import select
import signal
import sys
import termios
import time

import pytest
from making.tinyroot import make_tiny_root, wait_gone

from rootfsbuild.errors import TargetError, UsageError
from rootfsbuild.rootfs.chroot import parse_bind, run_in_root
from rootfsbuild.rootfs.mounts import Bind


@pytest.fixture
def root(tmp_path):
    return make_tiny_root(tmp_path / "root")


def run(root, *argv, **settings):
    """Call run_in_root in a child with its own standard three; return its status and what it printed."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        status = 99
        try:
            null = os.open("/dev/null", os.O_RDONLY)
            for target, source in enumerate((settings.pop("stdin", null), write, write)):
                os.dup2(source, target)
            os.close(read)
            os.close(write)
            status = run_in_root(root, argv, **settings)
        except BaseException as error:  # noqa: BLE001 - the child must not go on with the tests
            os.write(1, repr(error).encode())
        finally:
            os._exit(status)
    os.close(write)
    with open(read, "rb") as file:
        output = file.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), output.decode()


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("/etc", Bind("/etc", "/etc")),
        ("/etc:/mnt", Bind("/etc", "/mnt")),
        ("/etc:/mnt/../opt//x", Bind("/etc", "/opt/x")),
        ("/etc/passwd:/etc/p:ro", Bind("/etc/passwd", "/etc/p", writable=False)),
    ],
)
def test_a_bind_is_read(word, expected):
    assert parse_bind(word) == expected


@pytest.mark.parametrize(
    "word",
    [
        "",
        ":",
        "/etc:",
        "/etc:mnt",
        "/etc:/",
        "/etc:/proc/x",
        "/etc:/sys",
        "/no/such:/mnt",
        "/a:/b:rw",
        "/a:/b:ro:c",
    ],
)
def test_a_senseless_bind_is_refused_with_its_text(word):
    with pytest.raises(UsageError, match=f"--bind {word}"):
        parse_bind(word)


def test_a_relative_source_is_taken_from_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    assert parse_bind("here:/mnt") == Bind(str(tmp_path / "here"), "/mnt")


@pytest.mark.parametrize("root", ["/", "/no/such", "/etc/passwd"])
def test_what_is_not_a_root_is_refused(root):
    with pytest.raises(TargetError):
        run_in_root(root)


@pytest.mark.parametrize(
    ("script", "status"), [("exit 0", 0), ("exit 42", 42), ("kill -TERM $$", 143), ("kill -9 $$", 137)]
)
def test_the_status_is_passed_through(root, script, status):
    assert run(root, "/bin/sh", "-c", script)[0] == status


def test_a_missing_command_is_127(root):
    assert run(root, "nothing") == (127, "cannot run nothing: No such file or directory\n")


def test_without_a_command_a_login_shell_reads_standard_input(root):
    read, write = os.pipe()
    os.write(write, b"echo $0 $HOME; exit 3\n")
    os.close(write)
    status, output = run(root, stdin=read)
    os.close(read)
    assert (status, output) == (3, "/bin/sh /root\n")


def test_of_the_environment_only_the_terminal_s_is_kept(root):
    given = {"TERM": "vt52", "SECRET": "x", "HOME": "/home/me", "LD_PRELOAD": "x"}
    output = run(root, "/bin/env", environment=given)[1]
    assert dict(line.split("=", 1) for line in output.splitlines()) == {
        "TERM": "vt52",
        "HOME": "/root",
        "USER": "root",
        "LOGNAME": "root",
        "LANG": "C.UTF-8",
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    }


def test_the_tree_is_writable_and_binds_leave_nothing(root, tmp_path):
    (tmp_path / "data").mkdir()
    binds = [Bind(str(tmp_path / "data"), "/srv/data")]
    assert run(root, "/bin/sh", "-c", "echo a > /root/new; echo b > /srv/data/new", binds=binds)[0] == 0
    assert os.listdir(os.path.join(root, "root")) == ["new"]
    assert (tmp_path / "data/new").read_text() == "b\n"
    assert not os.path.lexists(os.path.join(root, "srv"))


def resolver(path="/etc/resolv.conf"):
    if not os.path.exists(path):
        pytest.skip(f"this host has no {path}")
    with open(path, encoding="utf-8") as file:
        return file.read()


def test_with_the_network_the_resolver_is_the_host_s_and_leaves_nothing(root):
    status, output = run(root, "/bin/cat", "/etc/resolv.conf", network=True)
    assert (status, output) == (0, resolver())
    assert os.listdir(os.path.join(root, "etc")) == []


def test_a_resolver_file_of_the_root_is_covered_read_only_and_kept(root):
    path = os.path.join(root, "etc/resolv.conf")
    with open(path, "w", encoding="utf-8") as file:
        file.write("own\n")
    status, output = run(root, "/bin/sh", "-c", "cat /etc/resolv.conf; echo x > /etc/resolv.conf", network=True)
    assert status != 0
    assert output.startswith(resolver())
    with open(path, encoding="utf-8") as file:
        assert file.read() == "own\n"


@pytest.mark.parametrize("target", ["../run/systemd/resolve/stub.conf", "/run/a/b", "/etc/absent/stub.conf"])
def test_a_resolver_link_that_leads_nowhere_is_followed_inside(root, target):
    os.symlink(target, os.path.join(root, "etc/resolv.conf"))
    assert run(root, "/bin/cat", "/etc/resolv.conf", network=True) == (0, resolver())
    assert os.listdir(os.path.join(root, "etc")) == ["resolv.conf"]
    assert os.listdir(os.path.join(root, "run")) == []


def test_without_the_network_the_root_s_own_resolver_is_seen(root):
    assert run(root, "/bin/ls", "/etc") == (0, "")


class Terminal:
    """A user at a terminal whose shell runs `run_in_root`: what is typed, what is seen."""

    def __init__(self, root, argv):
        self.seen = b""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            status = 99
            try:
                status = self.shell(root, argv)
            finally:
                os._exit(status)

    @staticmethod
    def shell(root, argv):
        """Run the job in a foreground group of its own, and continue it if it stops, as `fg` does."""
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        settings = termios.tcgetattr(0)
        job = os.fork()
        if job == 0:
            os.setpgid(0, 0)
            os.tcsetpgrp(0, os.getpid())
            signal.signal(signal.SIGTTOU, signal.SIG_DFL)
            sys.stdout = sys.stderr = None
            os._exit(run_in_root(root, argv, environment={"TERM": "dumb"}))
        while True:
            _, status = os.waitpid(job, os.WUNTRACED)
            if not os.WIFSTOPPED(status):
                os.write(1, b"<settings kept>\n" if termios.tcgetattr(0) == settings else b"<settings lost>\n")
                return os.waitstatus_to_exitcode(status)
            os.tcsetpgrp(0, os.getpgrp())
            os.write(1, b"<stopped>\n")
            os.tcsetpgrp(0, job)
            os.killpg(job, signal.SIGCONT)

    def expect(self, text, seconds=10):
        deadline = time.monotonic() + seconds
        while text not in self.seen:
            left = deadline - time.monotonic()
            assert left > 0, f"{text!r} was not printed: {self.seen!r}"
            if select.select([self.fd], [], [], left)[0]:
                try:
                    self.seen += os.read(self.fd, 4096)
                except OSError:  # EIO: the last process has let go of the terminal
                    break
        assert text in self.seen, f"{text!r} was not printed: {self.seen!r}"
        self.seen = self.seen.partition(text)[2]

    def type(self, text):
        os.write(self.fd, text)

    def end(self):
        ended = os.pidfd_open(self.pid)
        if not select.select([ended], [], [], 10)[0]:
            os.kill(self.pid, signal.SIGKILL)
        os.close(ended)
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self.fd)
        return status


def test_a_shell_has_its_terminal_and_job_control(root):
    terminal = Terminal(root, ["/bin/sh", "-i"])
    terminal.expect(b"# ")
    terminal.type(b"tty\n")
    terminal.expect(b"/dev/console")
    terminal.expect(b"# ")
    terminal.type(b"(echo run''ning; read word; echo g''ot $word)\n")
    terminal.expect(b"running")
    terminal.type(b"\x1a")
    terminal.expect(b"Stopped")
    terminal.expect(b"# ")
    terminal.type(b"fg\n")
    terminal.expect(b"read word")
    terminal.type(b"hello\n")
    terminal.expect(b"got hello")
    terminal.expect(b"# ")
    terminal.type(b"exit 9\n")
    assert terminal.end() == 9
    assert wait_gone(root) == []


def test_an_interrupt_reaches_the_command(root):
    terminal = Terminal(
        root, ["/bin/sh", "-c", "trap 'echo caught; exit 5' INT; echo ready; while true; do sleep 0.01; done"]
    )
    terminal.expect(b"ready")
    terminal.type(b"\x03")
    terminal.expect(b"caught")
    assert terminal.end() == 5


def test_a_stop_reaches_the_caller_s_shell_and_the_command_goes_on_afterwards(root):
    terminal = Terminal(root, ["/bin/sh", "-c", "echo ready; read word; echo got $word; exit 6"])
    terminal.expect(b"ready")
    terminal.type(b"\x1a")
    terminal.expect(b"<stopped>")
    terminal.type(b"hello\n")
    terminal.expect(b"got hello")
    assert terminal.end() == 6


def test_the_terminal_s_settings_are_put_back(root):
    terminal = Terminal(root, ["/bin/busybox", "stty", "-echo", "-icanon"])
    terminal.expect(b"<settings kept>")
    assert terminal.end() == 0
