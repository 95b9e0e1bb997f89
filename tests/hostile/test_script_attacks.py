"""What a script may try against the machine that builds, and what a build's own death must not leave."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from making.server import wait_until
from making.tinyroot import make_tiny_root, run, sh, tiny_sandbox, traces, wait_gone

from rootfsbuild.errors import PackageError
from rootfsbuild.rootfs.mounts import Bind

PROJECT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


STARTED: list[subprocess.Popen] = []


@pytest.fixture
def root(tmp_path):
    path = make_tiny_root(tmp_path / "root")
    yield path
    while STARTED:
        parent = STARTED.pop()
        parent.kill()
        parent.wait()
        parent.stdout.close()
    assert wait_gone(path) == [], "the sandbox left processes or mounts"


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def mounts_of_host():
    return read("/proc/self/mountinfo")


def statuses(output):
    """Read the lines `name status` that a script prints."""
    return {
        name: int(status) for name, status in (line.split() for line in output.splitlines() if line.count(" ") == 1)
    }


def attempt(**commands):
    """Return a script that tries each command and prints its name and status."""
    return "\n".join(f"({command}) > /dev/null 2>&1 < /dev/null; echo {name} $?" for name, command in commands.items())


def test_a_script_that_fails_is_told_with_its_last_lines(root):
    done, _ = sh(tiny_sandbox(root), "echo before; echo reason >&2; exit 42; echo never")
    assert (done.status, done.tail) == (42, ("before", "reason"))


def test_a_script_that_hangs_ends_at_its_time_with_all_that_it_started(root):
    start = time.monotonic()
    done, _ = sh(tiny_sandbox(root), "trap '' TERM INT HUP; setsid nohup sleep 600 & sleep 600", timeout=0.2)
    assert done.timed_out
    assert done.status == -signal.SIGKILL
    assert time.monotonic() - start < 3


def test_a_script_that_hangs_in_silence_with_its_output_closed_ends_too(root):
    done, _ = sh(tiny_sandbox(root), "exec > /dev/null 2>&1; sleep 600", timeout=0.2)
    assert done.timed_out


def test_a_script_that_prints_for_ever_ends_at_its_time(root):
    total = 0

    def count(chunk):
        nonlocal total
        total += len(chunk)

    done = run(tiny_sandbox(root), ["/bin/yes", "x" * 1000], log=count, timeout=0.3)
    assert done.timed_out
    assert total > 1000
    assert len(done.tail) <= 20
    assert max(map(len, done.tail)) <= 400


def test_a_script_that_leaves_daemons_leaves_none(root):
    script = """
        setsid nohup sleep 611 > /dev/null 2>&1 &
        (setsid sh -c 'trap "" TERM HUP; while true; do sleep 612; done' > /dev/null 2>&1 < /dev/null &)
        sleep 0.05
    """
    done, _ = sh(tiny_sandbox(root), script)
    assert done.status == 0
    assert set(done.left) <= {"sleep", "sh"}
    assert "sleep" in done.left


def test_a_script_that_forks_without_end_is_ended(root):
    done, _ = sh(tiny_sandbox(root), "f() { sleep 600 & i=$((i+1)); [ $i -lt 300 ] && f; }; i=0; f; wait", timeout=1.5)
    assert done.timed_out


def test_a_script_that_fills_the_disk_fails_and_the_next_one_runs(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], check=False).returncode:
        pytest.skip("needs mount")
    try:
        root = make_tiny_root(disk / "root")
        with tiny_sandbox(root).open() as session:
            done, output = sh(session, "dd if=/dev/zero of=/root/big bs=64k")
            assert done.status != 0
            assert "No space left on device" in output
            assert sh(session, "rm /root/big; echo again > /root/small; cat /root/small")[1] == "again\n"
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_a_script_cannot_fill_the_memory_through_dev(root):
    done, output = sh(tiny_sandbox(root), "dd if=/dev/zero of=/dev/big bs=64k")
    assert done.status != 0
    assert "No space left on device" in output


def test_a_script_that_opens_the_network_reaches_nothing(root):
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as abstract:
        port = server.getsockname()[1]
        abstract.bind(b"\0rootfsbuild-test-%d" % os.getpid())
        abstract.listen()
        inside = tiny_sandbox(root)
        assert sh(inside, f"nc -w 1 127.0.0.1 {port} < /dev/null; echo $?")[1].split()[-1] == "1"
        assert "Network is unreachable" in sh(inside, "nc -w 1 192.0.2.1 80")[1]
        assert "rootfsbuild-test" not in sh(inside, "cat /proc/net/unix")[1]
        server.settimeout(0.05)
        with pytest.raises(TimeoutError):
            server.accept()


def test_a_script_cannot_mount_remount_or_unmount(root):
    tried = attempt(
        remount="mount -o remount,rw,dev /",
        mount="mount -t tmpfs none /root",
        bind="mount -o bind / /root",
        proc="mount -o remount,rw /proc/sys",
        sys="mount -o remount,rw /sys",
        unmount="umount /proc",
        lazy="umount -l /dev",
        pivot="pivot_root /tmp /tmp",
        loop="losetup /dev/loop0 /bin/busybox",
    )
    before = mounts_of_host()
    done, output = sh(tiny_sandbox(root), tried)
    assert [name for name, status in statuses(output).items() if status == 0] == []
    assert len(statuses(output)) == 9
    assert done.status == 0
    assert mounts_of_host() == before


def test_a_script_cannot_leave_the_root(root, tmp_path):
    (tmp_path / "canary").write_text("outside\n")
    script = f"""
        mkdir -p /root/jail
        ls /../../../../{tmp_path} /proc/1/root/ /proc/1/cwd/ /proc/self/root/..{tmp_path} 2>&1
        chroot /root/jail /bin/busybox 2>&1
        cat /proc/self/root/../canary /../canary 2>&1
    """
    assert "outside" not in sh(tiny_sandbox(root), script)[1]
    assert "canary" not in sh(tiny_sandbox(root), f"ls /.. {'../' * 30}")[1]


def test_device_nodes_that_a_script_makes_open_no_device(root):
    places = ("/root", "/tmp", "/dev", "/run", "/dev/shm")
    lines = []
    for place in places:
        for name, kind in (("disk", "b 254 0"), ("disk2", "b 8 0"), ("memory", "c 1 1"), ("null", "c 1 3")):
            lines.append(f"mknod {place}/my{name} {kind} && head -c 1 {place}/my{name} && echo OPENED {place} {name}")
    output = sh(tiny_sandbox(root), "\n".join(lines))[1]
    assert "OPENED" not in output
    assert output.count("Permission denied") == 4 * len(places)


def test_the_host_s_device_nodes_are_not_the_script_s(root):
    before = os.stat("/dev/null")
    tried = attempt(
        chmod="chmod 600 /dev/null",
        chown="chown 5:5 /dev/zero",
        remove="rm -f /dev/null",
        move="mv /dev/tty /dev/x",
    )
    with tiny_sandbox(root).open() as session:
        assert statuses(sh(session, tried)[1])["chmod"] == 0
    after = os.stat("/dev/null")
    assert (after.st_mode, after.st_uid, after.st_ino) == (before.st_mode, before.st_uid, before.st_ino)


def same(path):
    """Write what is there already, so that the attack changes nothing where it succeeds."""
    return f"word=$(cat {path}) && echo $word > {path}"


def test_the_kernel_s_switches_are_read_only(root):
    tried = attempt(
        pattern=same("/proc/sys/kernel/core_pattern"),
        sysrq="[ -e /proc/sysrq-trigger ] && echo h > /proc/sysrq-trigger",
        helper=same("/proc/sys/kernel/modprobe"),
        irq=same("/proc/irq/default_smp_affinity"),
        uevent="echo add > /sys/class/net/lo/uevent",
        mode="chmod 644 /proc/sys/kernel/core_pattern",
    )
    output = sh(tiny_sandbox(root), tried)[1]
    assert [name for name, status in statuses(output).items() if status == 0] == []
    assert len(statuses(output)) == 6


def test_a_script_cannot_set_the_clock_or_the_host_s_name_or_reboot(root):
    name = os.uname().nodename
    tried = attempt(
        swap="swapon /root/x",
        module="insmod /bin/busybox",
        name="hostname stolen",
        reboot="reboot -f",
    )
    output = sh(tiny_sandbox(root), tried)[1]
    assert [key for key, status in statuses(output).items() if status == 0] == []
    assert "can't set date" in sh(tiny_sandbox(root), "date -s @$(date +%s)")[1]
    assert os.uname().nodename == name


def test_a_script_cannot_make_its_files_undeletable(root):
    output = sh(tiny_sandbox(root), "echo x > /root/stuck; " + attempt(immutable="chattr +i /root/stuck"))[1]
    assert statuses(output)["immutable"] != 0
    os.unlink(os.path.join(root, "root/stuck"))


def test_a_script_cannot_look_into_the_first_process(root, monkeypatch):
    """Its executable is the host's Python: whoever opens that for writing owns the host."""
    monkeypatch.setenv("SECRET_OF_THE_HOST", "hunter2")
    tried = attempt(
        exe="readlink /proc/1/exe",
        write=": >> /proc/1/exe",
        environ="cat /proc/1/environ",
        root="ls /proc/1/root/",
        cwd="ls /proc/1/cwd/",
        descriptor="cat /proc/1/fd/0",
        memory="head -c 1 /proc/1/mem",
        maps="cat /proc/1/maps",
        map_files="cat /proc/1/map_files/*",
    )
    done, output = sh(tiny_sandbox(root), tried)
    assert [name for name, status in statuses(output).items() if status == 0] == []
    assert len(statuses(output)) == 9
    everything = sh(
        tiny_sandbox(root), "cat /proc/*/cmdline /proc/*/environ /proc/*/mountinfo 2>/dev/null | tr '\\0' ' '"
    )[1]
    assert "hunter2" not in everything
    assert "python" not in everything
    assert done.status == 0


def test_a_script_cannot_end_or_stop_the_first_process(root):
    with tiny_sandbox(root).open() as session:
        sh(session, "kill -9 1; kill -STOP 1; kill -TERM 1; kill -CHLD 1; kill -9 -1")
        assert sh(session, "echo alive")[1] == "alive\n"


def test_a_script_sees_no_process_of_the_host(root):
    output = sh(tiny_sandbox(root), "ls -d /proc/[0-9]*")[1]
    assert str(os.getpid()) not in [line.split("/")[-1] for line in output.splitlines() if line.startswith("/proc/")]


def test_a_daemon_of_one_script_cannot_wait_for_the_next(root):
    with tiny_sandbox(root).open() as session:
        sh(session, "(while sleep 0.01; do echo again >> /root/alive; done) > /dev/null 2>&1 & sleep 0.03")
        size = os.path.getsize(os.path.join(root, "root/alive"))
        sh(session, "sleep 0.1")
        assert os.path.getsize(os.path.join(root, "root/alive")) == size


@pytest.mark.parametrize("name", ["proc", "sys", "dev", "run", "tmp"])
def test_a_mount_point_that_leads_out_of_the_root_is_not_followed(root, tmp_path, name):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "canary").write_text("alive")
    os.rmdir(os.path.join(root, name))
    os.symlink(outside, os.path.join(root, name))
    with pytest.raises(PackageError, match="symbolic link"):
        sh(tiny_sandbox(root), "echo x > /tmp/x")
    assert sorted(os.listdir(outside)) == ["canary"]


def test_an_overlay_or_bind_behind_a_hostile_link_stays_inside(root, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "data").mkdir()
    os.symlink(outside, os.path.join(root, "etc/out"))
    os.symlink("../" * 30 + str(outside)[1:], os.path.join(root, "etc/up"))
    box = tiny_sandbox(
        root,
        overlays={"/etc/out/file": (b"x", 0o644), "/etc/up/other": (b"x", 0o644)},
        binds=(Bind(str(tmp_path / "data"), "/etc/out/dir"),),
    )
    assert sh(box, "cat /etc/out/file /etc/up/other")[1] == "xx"
    assert os.listdir(outside) == []
    assert not os.path.exists(root + str(tmp_path)), "what was made inside to mount on is removed again"


def test_what_a_script_puts_beside_a_mount_point_is_not_removed_for_it(root, tmp_path):
    """Removal goes by the directory's descriptor and the file's identity, not by a path a script can bend."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "policy").write_text("")
    box = tiny_sandbox(root, overlays={"/etc/sub/policy": (b"x", 0o644)})
    script = f"mv /etc/sub /etc/moved; ln -s {outside} /etc/sub; ln -s {outside} /outside"
    assert sh(box, script)[0].status == 0
    assert os.listdir(outside) == ["policy"]
    assert os.readlink(os.path.join(root, "etc/sub")) == str(outside)


def test_a_leftover_bind_mount_in_the_root_is_out_of_a_script_s_reach(root, tmp_path):
    canary = tmp_path / "canary"
    canary.mkdir()
    (canary / "precious").write_text("data")
    place = os.path.join(root, "root/leftover")
    os.mkdir(place)
    if subprocess.run(["mount", "--bind", canary, place], check=False).returncode:
        pytest.skip("needs mount")
    try:
        output = sh(tiny_sandbox(root), "ls /root/leftover; rm -rf /root; ls -d /root")[1]
        assert "precious" not in output
        assert (canary / "precious").read_text() == "data"
    finally:
        subprocess.run(["umount", "-l", place], check=False)


def test_a_script_that_removes_everything_removes_only_the_root(root, tmp_path):
    (tmp_path / "canary").write_text("alive")
    sh(
        tiny_sandbox(root, binds=(Bind(str(tmp_path / "canary"), "/mnt/x", writable=False),)),
        "rm -rf /* /.[a-z]*",
    )
    assert (tmp_path / "canary").read_text() == "alive"
    assert os.path.exists("/dev/null")
    assert os.path.exists("/proc/self")


def test_setuid_outside_the_root_is_impossible_for_a_mapped_user_too(root):
    """A script may make user namespaces, as any user may: it gains nothing over the mounts it was given."""
    done, output = sh(
        tiny_sandbox(root), "unshare -U -m -r sh -c 'mount -o remount,rw /proc/sys; umount /sys' ; echo end"
    )
    assert output.endswith("end\n")
    assert done.status == 0


PARENT = """
    import os, signal, sys, threading, time
    sys.path[:0] = [{project!r}, {tests!r}]
    from making.tinyroot import tiny_sandbox
    from rootfsbuild.rootfs.mounts import Bind
    def stop(number, frame):
        raise SystemExit(128 + number)
    signal.signal(signal.SIGTERM, stop)
    with tiny_sandbox({root!r}, timeout=None, overlays={{"/etc/absent": (b"x", 0o644)}}).open() as session:
        {extra}
        session.run(["/bin/sh", "-c", {script!r}], log=1)
"""


def start_parent(root, script="trap '' TERM; setsid sleep 600 & echo running; sleep 600", extra="pass"):
    """Start a build's stand-in; return it once its script runs."""
    text = textwrap.dedent(PARENT).format(
        project=PROJECT, tests=os.path.join(PROJECT, "tests"), root=root, script=script, extra=extra
    )
    parent = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    STARTED.append(parent)
    assert parent.stdout.readline() == b"running\n"
    return parent


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, -2), (signal.SIGHUP, -1)],
)
def test_the_builder_s_death_by_any_signal_leaves_no_process_mount_or_file(root, number, status):
    parent = start_parent(root)
    assert len(traces(root)) >= 4
    mounts = mounts_of_host()
    start = time.monotonic()
    parent.send_signal(number)
    assert parent.wait(5) == status
    assert wait_gone(root) == []
    wait_until(lambda: os.listdir(os.path.join(root, "etc")) == [])  # the keeper's last deed, after all mounts are gone
    assert time.monotonic() - start < 1.5
    assert mounts_of_host() == mounts


def test_the_keeper_s_death_ends_everything(root):
    parent = start_parent(root)
    keeper = int(subprocess.run(["pgrep", "-P", str(parent.pid)], capture_output=True, check=True).stdout.split()[0])
    os.kill(keeper, signal.SIGKILL)
    assert parent.wait(5) == 1
    assert wait_gone(root) == []


def test_a_killed_builder_s_other_children_do_not_keep_the_sandbox_alive(root):
    """They hold copies of its descriptors, so that their closing alone would tell nobody anything."""
    parent = start_parent(root, extra="os.fork() or (os.close(1), time.sleep(8), os._exit(0))")
    parent.kill()
    parent.wait(5)
    assert wait_gone(root) == []


def test_a_kill_at_any_moment_of_setting_up_leaves_no_process_or_mount(root):
    text = (
        textwrap.dedent(PARENT)
        .format(project=PROJECT, tests=os.path.join(PROJECT, "tests"), root=root, script="sleep 600", extra="pass")
        .replace("with tiny_sandbox", "os.write(1, b'!')\nwith tiny_sandbox")
    )
    for step in range(8):
        parent = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert parent.stdout.read(1) == b"!"
        time.sleep(step * 0.002)
        parent.kill()
        parent.wait(5)
        parent.stdout.close()
        assert wait_gone(root) == []


def test_a_builder_with_threads_can_open_a_sandbox(root):
    stop = threading.Event()

    def work():
        while not stop.is_set():
            sorted(range(1000), key=str)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(10):
            assert sh(tiny_sandbox(root), "echo x")[1] == "x\n"
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_a_set_uid_program_still_works_for_a_script(root):
    os.chmod(os.path.join(root, "bin/busybox"), 0o4755)
    with open(os.path.join(root, "etc/passwd"), "w", encoding="utf-8") as file:
        file.write("root::0:0::/:/bin/sh\nu:x:1000:1000::/:/bin/sh\n")
    assert sh(tiny_sandbox(root), "su u -c id")[1].startswith("uid=1000(u) gid=1000")
