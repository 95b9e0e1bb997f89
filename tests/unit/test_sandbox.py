from __future__ import annotations

import os
import resource
import signal
import time

import pytest
from making.tinyroot import make_tiny_root, run, sh, tiny_sandbox, traces, wait_gone

from rootfsbuild.errors import HostError, PackageError
from rootfsbuild.rootfs import mounts, namespaces, supervisor
from rootfsbuild.rootfs.sandbox import Bind, check_host


@pytest.fixture(scope="module")
def shared_root(tmp_path_factory):
    return make_tiny_root(tmp_path_factory.mktemp("shared") / "root")


@pytest.fixture(scope="module")
def session(shared_root):
    with tiny_sandbox(shared_root).open() as opened:
        yield opened


@pytest.fixture
def root(tmp_path):
    return make_tiny_root(tmp_path / "root")


def test_output_and_errors_are_merged_in_order_and_the_tail_is_kept(session):
    done, output = sh(session, "echo one; echo two >&2; echo three; exit 7")
    assert (done.status, output) == (7, "one\ntwo\nthree\n")
    assert done.tail == ("one", "two", "three")
    assert (done.left, done.timed_out) == ((), False)


def test_the_tail_is_the_last_twenty_lines_of_much_output(session):
    done, output = sh(session, "seq 1 200000; exit 1")
    assert done.tail == tuple(str(number) for number in range(199981, 200001))
    assert output.count("\n") == 200000


def test_a_signal_is_a_negative_status(session):
    assert sh(session, "kill -SEGV $$")[0].status == -signal.SIGSEGV


def test_a_missing_command_is_127_and_says_so(session):
    done = session.run(["/bin/nothing"], log=lambda _chunk: None)
    assert done.status == 127
    assert done.tail == ("cannot run /bin/nothing: No such file or directory",)


def test_input_is_empty_or_what_is_given(session):
    assert sh(session, "cat; readlink /proc/self/fd/0")[1] == "/dev/null\n"
    assert sh(session, "cat", stdin=b"a\xff" * 300000)[1] == "a\ufffd" * 300000


def test_a_log_may_be_a_descriptor(session, tmp_path):
    with open(tmp_path / "log", "wb") as file:
        assert session.run(["/bin/echo", "hello"], log=file.fileno()).tail == ("hello",)
    assert (tmp_path / "log").read_bytes() == b"hello\n"


def test_commands_share_run_and_tmp_of_one_session_and_nothing_reaches_the_root(root):
    with tiny_sandbox(root).open() as opened:
        sh(
            opened,
            "echo kept > /run/note; echo kept > /tmp/note; echo kept > /dev/shm/note; echo tree > /root/note",
        )
        assert sh(opened, "cat /run/note /tmp/note /dev/shm/note")[1] == "kept\n" * 3
    assert sh(tiny_sandbox(root), "ls /run /tmp /dev/shm")[1].split() == [
        "/dev/shm:",
        "/run:",
        "lock",
        "/tmp:",
    ]
    assert [os.listdir(os.path.join(root, name)) for name in ("run", "tmp", "dev", "proc", "sys")] == [[]] * 5
    with open(os.path.join(root, "root/note"), encoding="utf-8") as file:
        assert file.read() == "tree\n"


def test_the_environment_is_exactly_what_was_given(session, monkeypatch):
    monkeypatch.setenv("SECRET_OF_THE_HOST", "x")
    output = sh(session, "unset PWD SHLVL OLDPWD; env", extra_env={"EXTRA": "a\nb"})[1]
    assert sorted(output.splitlines()) == ["EXTRA=a", "PATH=/bin", "b"]


def test_the_directory_umask_groups_and_session_are_plain(session):
    output = sh(session, 'umask; echo $PWD; id; ps -o pid,sid | grep "^ *$$ "')[1]
    lines = output.splitlines()
    assert lines[:3] == ["0022", "/", "uid=0 gid=0"]
    pid, sid = lines[3].split()
    assert pid == sid


def test_only_the_standard_three_descriptors_are_open(session, tmp_path):
    with open(tmp_path / "secret", "w", encoding="utf-8") as file:
        os.set_inheritable(file.fileno(), 1)
        listed = sh(session, "ls -l /proc/self/fd")[1]
        fresh = sh(tiny_sandbox(session._sandbox.root), "ls -l /proc/self/fd")[1]
    for text in (listed, fresh):
        numbers = [line.split(" -> ")[0].split()[-1] for line in text.splitlines() if " -> " in line]
        assert numbers == ["0", "1", "2"]  # and the listing itself, which is closed when the links are read
        assert "secret" not in text


def test_ignored_and_blocked_signals_of_the_caller_are_default_inside(root):
    old = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        run(tiny_sandbox(root), ["/bin/grep", "-E", "Sig(Blk|Ign)", "/proc/self/status"], log=(chunks := []).append)
    finally:
        signal.signal(signal.SIGHUP, old)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    assert [int(line.split()[1], 16) for line in b"".join(chunks).splitlines()] == [0, 0]


def test_limits_are_plain(session):
    assert sh(session, "ulimit -c; ulimit -n")[1].split() == [
        "0",
        str(min(1024, resource.getrlimit(resource.RLIMIT_NOFILE)[1])),
    ]


def test_every_namespace_but_the_user_s_is_its_own(session):
    names = ("mnt", "pid", "ipc", "uts", "net", "cgroup")
    output = sh(session, "".join(f"readlink /proc/self/ns/{name};" for name in names))[1]
    host = [os.readlink(f"/proc/self/ns/{name}") for name in names]
    assert not set(output.split()) & set(host)
    assert len(output.split()) == len(names)


def test_the_network_is_a_loopback_that_is_up_and_nothing_else(session):
    output = sh(session, "ls /sys/class/net; ifconfig lo | grep -c UP; nc -l -p 5 -e true & sleep 0.1; nc 127.0.0.1 5")[
        1
    ]
    assert output.split() == ["lo", "1"]


def test_the_network_is_the_host_s_when_asked_for(root):
    assert sh(tiny_sandbox(root, network=True), "readlink /proc/self/ns/net")[1].strip() == os.readlink(
        "/proc/self/ns/net"
    )


def test_the_host_name_is_the_sandbox_s_own(root):
    before = os.uname().nodename
    assert sh(tiny_sandbox(root, hostname="box"), "hostname")[1] == "box\n"
    assert os.uname().nodename == before


def test_dev_has_the_usual_nodes_and_links_and_terminals(session):
    done, output = sh(
        session,
        "set -e; echo x > /dev/null; head -c3 /dev/zero | wc -c; head -c9 /dev/urandom | wc -c;"
        " echo via > /dev/stdout; [ -c /dev/ptmx ]; [ -c /dev/tty ]; [ -c /dev/full ]; [ -c /dev/random ];"
        " stat -c %a /dev/shm /tmp /run /dev; ! echo x > /dev/full",
    )
    assert done.status == 0, output
    assert output.split()[:3] == ["3", "9", "via"]
    assert output.split()[3:7] == ["1777", "1777", "755", "755"]


def test_directories_of_the_root_s_own_run_are_there_without_its_files(root):
    os.makedirs(os.path.join(root, "run/service/deep"))
    os.chown(os.path.join(root, "run/service"), 33, 44)
    os.chmod(os.path.join(root, "run/service"), 0o2750)
    open(os.path.join(root, "run/service/file"), "w").close()
    os.symlink("/etc", os.path.join(root, "run/link"))
    output = sh(tiny_sandbox(root), "stat -c %a:%u:%g /run/service; find /run | sort")[1]
    assert output.split() == ["2750:33:44", "/run", "/run/lock", "/run/service", "/run/service/deep"]


def test_a_time_limit_ends_everything_and_the_session_goes_on(session):
    start = time.monotonic()
    done, output = sh(session, "trap '' TERM; (trap '' TERM; setsid sleep 600) & echo started; sleep 600", timeout=0.2)
    assert (done.status, done.timed_out, done.left, output) == (-signal.SIGKILL, True, (), "started\n")
    assert time.monotonic() - start < 2
    assert sh(session, "ps | grep -c '[s]leep'")[1] == "0\n"


def test_what_a_command_leaves_running_is_named_and_ended(session):
    done, _ = sh(session, "setsid sleep 600 > /dev/null 2>&1 & sleep 0.02")
    assert (done.status, done.left) == (0, ("sleep",))
    assert sh(session, "ps | grep -c '[s]leep'")[1] == "0\n"


def test_what_ends_soon_by_itself_is_not_held_against_the_command(session):
    assert sh(session, "(sleep 0.05; echo late) & echo early")[0].left == ()
    assert sh(session, "(sleep 0.05; echo late) & echo early")[1] == "early\nlate\n"


def test_a_bind_is_shown_and_its_mount_point_leaves_no_trace(root, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/file").write_text("from the host\n")
    os.utime(root, ns=(5, 5))
    box = tiny_sandbox(root, binds=(Bind(str(tmp_path / "data"), "/new/deep/data"),))
    assert sh(box, "cat /new/deep/data/file; echo back > /new/deep/data/answer")[1] == "from the host\n"
    assert (tmp_path / "data/answer").read_text() == "back\n"
    assert not os.path.lexists(os.path.join(root, "new"))
    assert os.stat(root).st_mtime_ns == 5


def test_a_read_only_bind_cannot_be_written(root, tmp_path):
    (tmp_path / "file").write_text("x\n")
    box = tiny_sandbox(root, binds=(Bind(str(tmp_path / "file"), "/etc/file", writable=False),))
    done, _ = sh(box, "cat /etc/file && echo y > /etc/file")
    assert done.status != 0
    assert (tmp_path / "file").read_text() == "x\n"
    assert os.listdir(os.path.join(root, "etc")) == []


def test_a_bind_into_the_private_places_works(root, tmp_path):
    (tmp_path / "file").write_text("x\n")
    places = ("/tmp/a/b", "/run/c", "/dev/d", "/dev/shm/e")
    box = tiny_sandbox(root, binds=tuple(Bind(str(tmp_path / "file"), place) for place in places))
    assert sh(box, f"cat {' '.join(places)}")[1] == "x\n" * 4


def test_a_bind_whose_source_is_missing_is_named(root):
    with pytest.raises(HostError, match="/no/such"):
        sh(tiny_sandbox(root, binds=(Bind("/no/such", "/mnt"),)), "true")


def test_an_overlay_covers_what_is_there_and_what_is_not(root):
    with open(os.path.join(root, "etc/there"), "w", encoding="utf-8") as file:
        file.write("own\n")
    os.utime(os.path.join(root, "etc"), ns=(7, 7))
    overlays = {"/etc/there": (b"covered\n", 0o644), "/etc/absent": (b"#!/bin/sh\nexit 101\n", 0o755)}
    box = tiny_sandbox(root, overlays=overlays)
    done, output = sh(box, "cat /etc/there; /etc/absent; echo $?; echo x > /etc/there || exit 3")
    assert (done.status, output.splitlines()[:2]) == (3, ["covered", "101"])
    assert os.listdir(os.path.join(root, "etc")) == ["there"]
    with open(os.path.join(root, "etc/there"), encoding="utf-8") as file:
        assert file.read() == "own\n"
    assert os.stat(os.path.join(root, "etc")).st_mtime_ns == 7


def test_times_that_the_command_changed_stay_changed(root):
    os.utime(os.path.join(root, "etc"), ns=(7, 7))
    sh(tiny_sandbox(root, overlays={"/etc/absent": (b"", 0o644)}), "echo x > /etc/new")
    assert os.listdir(os.path.join(root, "etc")) == ["new"]
    assert os.stat(os.path.join(root, "etc")).st_mtime_ns != 7


@pytest.mark.parametrize("name", ["proc", "sys", "dev", "run", "tmp"])
@pytest.mark.parametrize("kind", ["missing", "link", "file"])
def test_an_unfit_mount_point_is_refused_by_name(root, tmp_path, name, kind):
    place = os.path.join(root, name)
    os.rmdir(place)
    if kind == "link":
        os.symlink(tmp_path, place)
    elif kind == "file":
        open(place, "w").close()
    with pytest.raises(PackageError) as caught:
        sh(tiny_sandbox(root), "true")
    assert caught.value.path == f"/{name}"
    assert traces(root) == []


def test_closing_ends_everything_at_once_and_can_be_repeated(root):
    opened = tiny_sandbox(root).open()
    assert traces(root)
    start = time.monotonic()
    opened.close()
    opened.close()
    assert time.monotonic() - start < 1
    assert wait_gone(root) == []


def test_an_exception_of_the_log_closes_the_session(root):
    def full(_chunk):
        raise OSError(28, "No space left on device")

    with tiny_sandbox(root).open() as opened:
        with pytest.raises(OSError, match="No space"):
            opened.run(["/bin/sh", "-c", "echo x; sleep 600"], log=full)
        assert wait_gone(root) == []


def test_two_sessions_of_one_root_do_not_see_each_other(root):
    with tiny_sandbox(root).open() as first, tiny_sandbox(root).open() as second:
        sh(first, "echo x > /tmp/mine")
        assert sh(second, "ls /tmp; set -- /proc/[0-9]*; echo $#")[1] == "2\n"  # the first process and sh


def test_a_first_process_that_dies_is_an_error_that_says_so(root):
    with tiny_sandbox(root).open() as opened:
        first = max(traces(root))
        with pytest.raises(HostError, match="first process"):
            opened.run(["/bin/sh", "-c", "echo x; sleep 600"], log=lambda _chunk: os.kill(first, signal.SIGKILL))
    assert wait_gone(root) == []


def test_without_privilege_the_error_names_what_is_missing_and_what_works(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(HostError) as caught:
        check_host()
    assert caught.value.missing == "root"
    assert "--dry-run" in caught.value.without


def test_root_without_the_capability_is_told_its_name(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(namespaces, "effective_capabilities", lambda: 0x00000000A80425FB)
    with pytest.raises(HostError) as caught:
        check_host()
    assert caught.value.missing == "CAP_SYS_ADMIN"


def test_a_mount_point_that_someone_else_has_replaced_is_left_alone(tmp_path):
    (tmp_path / "place").write_text("")
    identity = (os.stat(tmp_path).st_dev, os.stat(tmp_path / "place").st_ino)
    parent = os.open(tmp_path, os.O_RDONLY)
    try:
        mounts._remove(mounts.Placeholder(parent, "place", (identity[0], identity[1] + 1), (1, 1), 0))
        assert os.listdir(tmp_path) == ["place"]
        (tmp_path / "place").write_text("filled")
        mounts._remove(mounts.Placeholder(parent, "place", identity, (1, 1), 0))
        assert os.listdir(tmp_path) == ["place"]
        (tmp_path / "place").write_text("")
        mounts._remove(mounts.Placeholder(parent, "place", identity, (1, 1), 0))
        assert os.listdir(tmp_path) == []
    finally:
        os.close(parent)


def refuse(*refused):
    """Stand in for `mount` in a container that allows less."""

    def mount(source, target, kind="", flags=0, options=""):
        if kind in refused:
            raise PermissionError(1, "Operation not permitted")
        if kind == "devpts" and "gid" in options and "gid" in refused:
            raise OSError(22, "Invalid argument")
        namespaces.mount(source, target, kind, flags, options)

    return mount


def test_a_container_that_allows_no_fresh_proc_sysfs_or_device_nodes_is_enough(root, monkeypatch):
    def no_nodes(*_arguments):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(mounts, "mount", refuse("proc", "sysfs", "gid"))
    monkeypatch.setattr(mounts.os, "mknod", no_nodes)
    with tiny_sandbox(root).open() as opened:
        done, output = sh(opened, "set -e; ls /sys /proc/self/fd > /dev/null; echo x > /dev/null; [ -c /dev/ptmx ]")
        assert done.status == 0, output
        assert sh(opened, "echo 1 > /proc/sys/kernel/core_uses_pid")[0].status != 0
        assert sh(opened, "chmod 600 /dev/null")[0].status != 0
    assert os.stat("/dev/null").st_mode & 0o777 == 0o666


def test_capabilities_are_few_unless_the_sandbox_is_privileged(root):
    def effective(**settings):
        return int(sh(tiny_sandbox(root, **settings), "grep CapEff /proc/self/status")[1].split()[1], 16)

    kept = effective()
    assert kept == sum(1 << namespaces.CAPABILITIES[name] for name in supervisor.KEPT)
    assert effective(privileged=True) == namespaces.effective_capabilities()


def test_a_machine_without_system_call_numbers_is_told_in_a_detail(root, monkeypatch):
    told = []
    monkeypatch.setattr(supervisor.seccomp, "install", lambda _machine, **_settings: False)
    with tiny_sandbox(root, report=told.append).open() as opened:
        assert sh(opened, "echo works")[1] == "works\n"
    assert ["fsync" in event.text for event in told] == [True]


def test_arguments_and_environment_may_be_large_and_not_utf8(session):
    long = "x" * 100000
    name = os.fsdecode(b"\xff\xfe")
    done = session.run(["/bin/echo", name, long], log=(chunks := []).append, extra_env={"LONG": long})
    assert done.status == 0
    assert b"".join(chunks) == b"\xff\xfe " + long.encode() + b"\n"


def test_what_an_earlier_command_opened_is_closed_in_the_first_process(session):
    before = len(os.listdir(f"/proc/{max(traces(session._sandbox.root))}/fd"))
    for _ in range(20):
        sh(session, "cat", stdin=b"x")
    assert len(os.listdir(f"/proc/{max(traces(session._sandbox.root))}/fd")) == before


def test_setting_up_and_running_are_quick(root):
    """Generous limits, against orders of magnitude: 10 ms and 3 ms are usual on an idle machine."""
    start = time.monotonic()
    with tiny_sandbox(root).open() as opened:
        ready = time.monotonic()
        for _ in range(10):
            sh(opened, "true")
        done = time.monotonic()
    assert ready - start < 1
    assert done - ready < 2
