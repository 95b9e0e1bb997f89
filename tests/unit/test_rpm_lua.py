from __future__ import annotations

import os
import sqlite3
import stat
import struct

import pytest
from making.headers import make_main, numbers, text, texts
from making.shared import real_data
from making.tinyroot import make_tiny_root, needs_sandbox

from rootfsbuild.errors import HostError, ScriptError
from rootfsbuild.events import Warned
from rootfsbuild.formats.rpm import scripts, tags
from rootfsbuild.formats.rpm.header import read_items
from rootfsbuild.formats.rpm.interpret import SCRIPTLET, Job, decode, encode
from rootfsbuild.formats.rpm.lua_posix import LuaArgumentError, change_mode, spell_mode
from rootfsbuild.formats.rpm.scriptlets import Scriptlet, read_scriptlets
from rootfsbuild.formats.rpm.scripts import BUILTINS, run_step, script_environment
from rootfsbuild.formats.rpm.transaction import Execute
from rootfsbuild.rootfs.runner import Ended, open_runner
from rootfsbuild.rootfs.sandbox import Sandbox

LUA = (b"<lua>",)
SHELL = (b"/bin/sh",)
PACKAGE = make_main("alpha", "1.0", "2")


class Root:
    """A root in whose sandbox scriptlets run."""

    def __init__(self, path, run, output):
        self.path, self.run, self.output = path, run, output

    def __call__(self, program, body, kind="pre", *, arguments=(1,), paths=None, prefixes=(), report=None):
        """Run a scriptlet; return what it printed, as lines."""
        self.output.clear()
        body = body.encode("utf-8", "surrogateescape") if isinstance(body, str) else body
        step = Execute(0, Scriptlet(kind, program, body, prefixes=prefixes), arguments, paths)
        run_step(step, PACKAGE, "x86_64", self.run, report or pytest.fail)
        return bytes(self.output).decode("utf-8", "surrogateescape").splitlines()

    def lua(self, body, **more):
        return self(LUA, body, **more)

    def __truediv__(self, name):
        return self.path / name


def open_root(path, **settings):
    output = bytearray()
    sandbox = Sandbox(str(path), script_environment(7), builtins=BUILTINS, timeout=20, **settings)
    return output, open_runner(sandbox, output.extend)


@pytest.fixture
def root(tmp_path):
    pytest.importorskip("lupa", reason="needs lupa")
    make_tiny_root(tmp_path / "root")
    output, runner = open_root(tmp_path / "root")
    with runner as run:
        yield Root(tmp_path / "root", run, output)


@pytest.fixture
def empty(tmp_path):
    """A root with nothing but what the sandbox mounts on: no shell, no /var."""
    pytest.importorskip("lupa", reason="needs lupa")
    needs_sandbox()
    for name in ("proc", "sys", "dev", "run", "tmp"):
        os.makedirs(tmp_path / "root" / name)
    output, runner = open_root(tmp_path / "root")
    with runner as run:
        yield Root(tmp_path / "root", run, output)


# How scriptlets run


def test_a_shell_scriptlet_gets_its_number_nothing_to_read_and_nothing_of_the_host(root, monkeypatch):
    monkeypatch.setenv("SECRET", "of the host")
    lines = root(SHELL, "echo $# $1; cat; pwd; umask; env; read line || echo nothing", arguments=(2,))
    assert lines[:3] == ["1 2", "/", "0022"]
    assert "PATH=/sbin:/bin:/usr/sbin:/usr/bin:/usr/X11R6/bin" in lines
    assert "SOURCE_DATE_EPOCH=7" in lines
    assert lines[-1] == "nothing"
    assert not [line for line in lines if "SECRET" in line]


def test_a_trigger_gets_both_numbers_and_a_file_trigger_its_paths_as_lines(root):
    assert root(SHELL, "echo $*", "triggerin", arguments=(1, 2)) == ["1 2"]
    lines = root(SHELL, "echo $*; cat", "filetriggerin", arguments=(0,), paths=(b"/usr/a b", b"/usr/\xff"))
    assert lines == ["0", "/usr/a b", "/usr/\udcff"]


def test_a_scriptlet_without_a_text_is_its_program_with_that_programs_arguments(root):
    assert root((b"/bin/echo", b"a", b"b c"), None) == ["a b c"]
    assert root((b"/bin/cat",), None, "transfiletriggerin", arguments=(0,), paths=(b"/lib/x",)) == ["/lib/x"]


def test_nothing_is_left_in_the_root(root):
    before = set(root.path.rglob("*"))
    times = {path: path.stat().st_mtime_ns for path in (root.path, root / "tmp")}
    root(SHELL, "test -e $0 && echo $0")
    root.lua("print(1)")
    assert set(root.path.rglob("*")) == before
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_a_relocatable_package_is_told_where_it_is(root):
    prefixes = (b"/usr", b"/opt")
    assert root(SHELL, "echo $RPM_INSTALL_PREFIX $RPM_INSTALL_PREFIX0 $RPM_INSTALL_PREFIX1", prefixes=prefixes) == [
        "/usr /usr /opt"
    ]
    assert root.lua("print(#RPM_INSTALL_PREFIX, RPM_INSTALL_PREFIX[2])", prefixes=prefixes) == ["2\t/opt"]


@pytest.mark.parametrize("kind", ["pre", "pretrans"])
def test_what_comes_before_the_files_fails_the_build(root, kind):
    with pytest.raises(ScriptError) as caught:
        root(SHELL, "echo why; exit 3", kind)
    assert (caught.value.package, caught.value.script) == ("alpha-1.0-2.noarch", f"%{kind}")
    assert (caught.value.status, caught.value.tail) == (3, ("why",))


@pytest.mark.parametrize("kind", ["post", "posttrans", "triggerin", "triggerprein", "filetriggerin"])
def test_what_fails_behind_them_is_a_warning_unless_scripts_are_strict(root, kind):
    warnings = []
    assert root(SHELL, "echo why; exit 3", kind, report=warnings.append) == ["why"]
    (warning,) = warnings
    assert isinstance(warning, Warned)
    assert f"alpha-1.0-2.noarch: %{kind} exited with status 3\n  | why" in warning.text
    step = Execute(0, Scriptlet(kind, SHELL, b"exit 3"), (1,))
    with pytest.raises(ScriptError, match="status 3"):
        run_step(step, PACKAGE, "x86_64", root.run, pytest.fail, strict=True)


def test_a_signal_and_a_process_left_behind_are_told_with_the_package(root):
    with pytest.raises(ScriptError, match=r"alpha-1\.0-2\.noarch: %pre was ended by signal 9"):
        root(SHELL, "kill -9 $$")
    with pytest.raises(ScriptError, match=r"alpha-1\.0-2\.noarch: %pre") as caught:
        root(SHELL, "sleep 60 & exit 0")
    assert "left processes running: sleep" in caught.value.tail[-1]


def test_a_scriptlet_that_takes_too_long_is_ended(tmp_path):
    make_tiny_root(tmp_path / "root")
    sandbox = Sandbox(str(tmp_path / "root"), script_environment(0), builtins=BUILTINS, timeout=0.2)
    with open_runner(sandbox, lambda _chunk: None) as run:
        for program, body in ((SHELL, b"sleep 60"), (LUA, b"while true do end")):
            step = Execute(0, Scriptlet("pre", program, body), (1,))
            with pytest.raises(ScriptError, match=r"(?s)alpha-1.0-2.noarch: %pre .*its time was up"):
                run_step(step, PACKAGE, "x86_64", run, pytest.fail)


def test_an_absent_interpreter_is_named(empty):
    with pytest.raises(ScriptError) as caught:
        empty(SHELL, "exit 0")
    assert caught.value.tail == ("cannot run /bin/sh: No such file or directory",)
    assert "/bin/sh" in caught.value.hint


def test_lua_that_is_not_installed_is_named_with_who_needs_it(monkeypatch):
    monkeypatch.setattr(scripts.importlib.util, "find_spec", lambda _name: None)
    step = Execute(0, Scriptlet("pretrans", LUA, b"x"), (1,))
    with pytest.raises(HostError, match=r"%pretrans of alpha-1\.0-2\.noarch is written in Lua") as caught:
        run_step(step, PACKAGE, "x86_64", pytest.fail, pytest.fail)
    assert caught.value.missing == "lupa"


def test_a_job_survives_the_way_into_the_sandbox():
    for job in (
        Job("%pre(x)", (b"/bin/sh", b"-e"), b"text\0\xff", (1, 2), (b"/a", b"/\xff"), "x86_64", (b"/usr",)),
        Job("%pre(x)", LUA, None, (), None, ""),
        Job("%pre(x)", LUA, b"", (0,), (), ""),
    ):
        assert decode(encode(job)) == job


def test_the_runner_is_asked_for_the_builtin_and_told_who_it_is_for():
    asked = []

    def run(argv, *, extra_env, stdin):
        asked.append((argv, dict(extra_env), decode(stdin).body))
        return Ended(0, ())

    run_step(Execute(0, Scriptlet("post", SHELL, b"x"), (1,)), PACKAGE, "x86_64", run, pytest.fail)
    assert asked == [([SCRIPTLET, "%post", "alpha-1.0-2.noarch"], {}, b"x")]


# Lua


def test_lua_needs_nothing_in_the_root(empty):
    body = """
        posix.mkdir("/usr") posix.mkdir("/usr/bin") posix.symlink("usr/bin", "/bin")
        print(posix.stat("/bin").type, posix.readlink("/bin"), posix.access("/usr/bin", "x"), arg[1], arg[2], #arg)
    """
    assert empty.lua(body, kind="pretrans") == ["link\tusr/bin\t0\t<lua>\t1\t2"]
    assert os.readlink(empty / "bin") == "usr/bin"


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("print(1)\n\nerror('why')", "lua script failed: %post(alpha-1.0-2.noarch):3: why"),
        ("\nposix.mkdir({})", "lua script failed: %post(alpha-1.0-2.noarch):2: string expected"),
        ("nothing()", "lua script failed: %post(alpha-1.0-2.noarch):1: attempt to call a nil value (global 'nothing')"),
        ("x x", "invalid syntax in lua script: %post(alpha-1.0-2.noarch):1: syntax error near 'x'"),
        ("error({})", "lua script failed: table:"),
        ("os.exit(0)", "lua script failed: %post(alpha-1.0-2.noarch):1: exit not permitted in this context"),
        ("posix.exec('/bin/true')", "lua script failed: %post(alpha-1.0-2.noarch):1: exec not permitted"),
        ("require('nothing')", "lua script failed: %post(alpha-1.0-2.noarch):1: module 'nothing' not found"),
    ],
)
def test_errors_have_their_package_and_line(root, body, problem):
    warnings = []
    lines = root.lua(body, kind="post", report=warnings.append)
    assert any(line.startswith(problem) for line in lines)
    assert "alpha-1.0-2.noarch: %post exited with status 1" in warnings[0].text
    assert problem in warnings[0].text


def test_a_failing_pretrans_in_lua_fails_the_build(root):
    with pytest.raises(ScriptError, match=r"(?s)alpha-1.0-2.noarch: %pretrans .*:1: why"):
        root.lua("error('why')", kind="pretrans")


def test_what_a_script_returns_means_nothing(root):
    assert root.lua("return 1") == []


def test_what_cannot_be_done_is_nil_a_message_and_a_number(root):
    body = """
        print(posix.mkdir("/bin"))
        print(posix.errno())
        print(posix.stat("/nothing"))
        print(posix.chmod("/nothing", 755))
        print(posix.symlink("x", "/bin"))
        print(posix.files("/nothing"))
        print(posix.readlink("/bin"))
    """
    assert root.lua(body) == [
        "nil\t/bin: File exists\t17",
        "File exists\t17",
        "nil\t/nothing: No such file or directory\t2",
        "nil\t/nothing: No such file or directory\t2",
        "nil\tFile exists\t17",
        "nil\t/nothing: No such file or directory\t2",
        "nil\t/bin: Invalid argument\t22",
    ]


def test_files_are_changed_as_asked(root):
    body = """
        posix.umask("rwxr-x---")
        posix.mkdir("/d") posix.mkdir("/d/e") posix.rmdir("/d/e")
        posix.chmod("/d", 0750)
        local f = io.open("/d/f", "w") f:write("text") f:close()
        posix.link("/d/f", "/d/g") posix.unlink("/d/f") os.rename("/d/g", "/d/h")
        posix.chmod("/d/h", "u+s,g=r,o-rwx") posix.utime("/d/h", 1000, 2000)
        posix.chown("/d/h", "someone", 12)
        posix.mkfifo("/d/fifo")
        print(posix.stat("/d/h", "mode"), posix.stat("/d/h").nlink, posix.stat("/d/h", "size"), posix.umask())
    """
    (root / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\nsomeone:x:77:78::/home:/bin/sh\n")
    # chown(2) takes the set-user-ID bit away.
    assert root.lua(body) == ["rw-r-----\t1\t4\trwxr-x---"]
    found = (root / "d/h").stat()
    assert (found.st_uid, found.st_gid, found.st_mtime, found.st_size) == (77, 12, 1000, 4)
    assert stat.S_IMODE((root / "d").stat().st_mode) == 0o750
    assert stat.S_ISFIFO((root / "d/fifo").stat().st_mode)


def test_users_and_groups_are_the_roots_own(root):
    (root / "etc/passwd").write_text("root:x:0:0:all:/root:/bin/sh\nsomeone:x:77:78:A B:/home:/bin/false\nbroken\n")
    (root / "etc/group").write_text("root:x:0:\nusers:x:100:someone,root\n")
    body = """
        print(posix.getpasswd("someone").uid, posix.getpasswd(77, "shell"), posix.getpasswd().name)
        print(posix.getpasswd("x"))
        local g = posix.getgroup("users") print(g.name, g.gid, g[1], g[2], #g, posix.getgroup("x"))
        print(posix.getprocessid("uid"), posix.getprocessid().euid)
    """
    assert root.lua(body) == ["77\t/bin/false\troot", "nil", "users\t100\tsomeone\troot\t2\tnil", "0\t0"]


def test_directories_are_listed_with_their_own_and_their_parents_name(root):
    body = """
        local names = posix.dir("/bin") table.sort(names) print(names[1], names[2], #names > 20)
        local count = 0 for name in posix.files("/bin") do count = count + 1 end print(count == #names)
        posix.chdir("/bin") print(posix.getcwd(), #posix.dir() == count, posix.access("sh", "rx"))
        print(posix.access("nothing"))
    """
    assert root.lua(body) == [
        ".\t..\ttrue",
        "true",
        "/bin\ttrue\t0",
        "nil\tnothing: No such file or directory\t2",
    ]


def test_programs_of_the_root_run_in_every_way(root):
    body = """
        print(rpm.execute("/bin/echo", "executed", 5))
        print(rpm.execute("/bin/false"))
        print(rpm.execute("/nothing"))
        print(rpm.execute("/bin/sh", "-c", "kill -9 $$"))
        print(rpm.spawn({"/bin/sh", "-c", "cat; echo err >&2"}, {stdin="/in", stdout="/out", stderr="/err"}))
        print(os.execute("echo with a shell; exit 4"))
        print(io.popen("echo piped"):read("a"))
        print(os.execute())
        local pid = posix.fork()
        if pid == 0 then posix.redirect2null(2) posix.exec("/bin/sh", "-c", "echo forked; echo unseen >&2")
        elseif pid > 0 then print(posix.wait(pid) == pid) end
    """
    (root / "in").write_text("input\n")
    assert root.lua(body) == [
        "executed 5",
        "0",
        "nil\texit code\t1",
        "nil\t/nothing: No such file or directory\t2",
        "nil\texit signal\t9",
        "0",
        "with a shell",
        "nil\texit\t4",
        "piped",
        "",
        "true",
        "forked",
        "true",
    ]
    assert ((root / "out").read_text(), (root / "err").read_text()) == ("input\n", "err\n")


def test_a_child_that_executes_nothing_does_not_go_on_as_its_parent(root):
    assert root.lua("if posix.fork() == 0 then print('child') else posix.wait() print('parent') end") == [
        "child",
        "No exec() called after fork() in lua scriptlet",
        "parent",
    ]


def test_a_file_triggers_paths_come_one_after_the_other(root):
    body = "local name = rpm.next_file() while name do print(name) name = rpm.next_file() end print(arg[2])"
    assert root.lua(body, kind="transfiletriggerin", arguments=(0,), paths=(b"/a", b"/b \xff")) == [
        "/a",
        "/b \udcff",
        "0",
    ]
    assert root.lua("print(rpm.next_file)") == ["nil"]


def test_macros_are_the_usual_directories_and_what_a_script_defines(root):
    body = """
        print(rpm.expand("%{_libdir} %{_sysconfdir} %{unknown} %%"), macros._prefix, macros.unknown)
        rpm.define("mine %{_prefix}/mine") print(macros.mine, rpm.isdefined("mine"))
        rpm.undefine("mine") print(rpm.isdefined("mine")) macros.other = "x" print(rpm.expand("%other"))
    """
    assert root.lua(body) == ["/usr/lib64 /etc %{unknown} %\t/usr\tnil", "/usr/mine\ttrue\tfalse", "false\tfalse", "x"]


def test_versions_text_and_paths(root):
    body = """
        print(rpm.vercmp("1.0~rc1", "1.0"), rpm.vercmp("1:1", "2"), rpm.vercmp("1-1", "1-1"))
        local v = rpm.ver("5:1.0-2") print(v.e, v.v, v.r, tostring(v), v > rpm.ver(4, "9", 1), v == rpm.ver("5:1.0-2"))
        print(rpm.b64encode("a\\0b", 0), rpm.b64encode("aaaaaa", 5))
        print(rpm.b64decode("YQBi") == "a\\0b", rpm.b64decode("*"))
        print(table.concat(rpm.glob("/bin/s[eh]q"), " "), #rpm.glob("/nothing*"), rpm.glob("/nothing*", "c")[1])
        print(table.concat(rpm.splitargs("a 'b c'"), "|"))
    """
    assert root.lua(body) == [
        "-1\t1\t0",
        "5\t1.0\t2\t5:1.0-2\ttrue\ttrue",
        "YQBi\tYWFh",
        "YWFh",
        "",
        "true\tnil",
        "/bin/seq\t0\t/nothing*",
        "a|b c",
    ]


def test_compressed_files(root):
    body = """
        for _, kind in ipairs { "", ".gzdio", ".bzdio", ".xzdio" } do
          local f = rpm.open("/file" .. kind, "w" .. kind) f:write("text of " .. kind) f:close()
          print(rpm.open("/file" .. kind, "r" .. kind):read())
        end
        print(pcall(rpm.open, "/nothing"))
    """
    lines = root.lua(body)
    assert lines[:4] == ["text of ", "text of .gzdio", "text of .bzdio", "text of .xzdio"]
    assert lines[4].startswith("false\t")
    assert (root / "file.gzdio").read_bytes()[:2] == b"\x1f\x8b"


def test_files_that_a_script_leaves_open_are_written(root):
    root.lua("f = io.open('/open', 'w') f:write('all of it')")
    assert (root / "open").read_text() == "all of it"


def test_names_need_not_be_text(root):
    root.lua(b'posix.mkdir("/\\xff") print(posix.stat("/\\xff").type)')
    assert os.path.isdir(os.fsencode(root.path) + b"/\xff")


# What a script must not reach


def test_nothing_of_the_caller_is_in_its_environment_or_memory(tmp_path, monkeypatch):
    pytest.importorskip("lupa", reason="needs lupa")
    make_tiny_root(tmp_path / "root")
    monkeypatch.setenv("SECRET", "of the host")
    output, runner = open_root(tmp_path / "root")
    with runner as run:
        root = Root(tmp_path / "root", run, output)
        body = """
            print(os.getenv("SECRET"), posix.getenv("SECRET"), posix.getenv("HOME"))
            for name in pairs(posix.getenv()) do if name == "SECRET" then print("seen") end end
            posix.symlink("/proc/self", "/self") posix.chdir("/self")
            local paths = { "/proc/self/mem", "/proc/thread-self/environ", "/self/mem", "environ", "../1/environ" }
            for _, path in ipairs(paths) do print(pcall(io.open, path)) end
            print(pcall(io.lines, "/self/environ"))
            print(rpm.execute("/bin/cat", "/proc/" .. posix.getprocessid("pid") .. "/environ"))
            print(python, package.loadlib, package.cpath, debug.getregistry, debug.getupvalue)
        """
        lines = root.lua(body)
    assert lines[0] == "nil\tnil\t/root"
    assert "seen" not in lines
    denied = [line for line in lines if "Permission denied" in line]
    assert len(denied) == 7
    assert lines[-1] == "nil\tnil\t\tnil\tnil"
    assert not [line for line in lines if "of the host" in line]


def test_what_was_the_callers_environment_is_wiped(tmp_path):
    """Whatever gets around what is refused above finds nothing where the environment was."""
    make_tiny_root(tmp_path / "root")

    def show(_words):
        with open("/proc/self/environ", "rb") as file:
            os.write(1, b"%d" % len(file.read().strip(b"\0")))
        return 0

    output, sandbox = bytearray(), Sandbox(str(tmp_path / "root"), {"A": "b"}, builtins={"show": lambda: show})
    with open_runner(sandbox, output.extend) as run:
        run(["show"], extra_env={})
    assert output == b"0"


def test_functions_show_nothing_of_python(root):
    lines = root.lua("print(type(posix.mkdir), pcall(function() return posix.mkdir.__globals__ end))")
    assert lines[0].startswith("function\tfalse")


# Modes


@pytest.mark.parametrize(
    ("mode", "change", "result"),
    [
        (0o644, "755", 0o755),
        (0o644, "04755", 0o4755),
        (0, "rwxr-xr-x", 0o755),
        (0, "rwsr-s---", 0o6750),
        (0o644, "u+x", 0o744),
        (0o644, "+x", 0o755),
        (0o777, "go-w", 0o755),
        (0o777, "o=", 0o770),
        (0o644, "a=r,u+w", 0o644),
        (0o755, "u+s", 0o4755),
    ],
)
def test_modes_are_changed_as_written(mode, change, result):
    assert change_mode(mode, change) == result


@pytest.mark.parametrize("change", ["", "x", "8", "u*x", "rwxrwxrw", "wrxrwxrwx", "u+q"])
def test_modes_that_mean_nothing_are_refused(change):
    with pytest.raises(LuaArgumentError, match="bad mode"):
        change_mode(0, change)


def test_modes_are_spelled():
    assert [spell_mode(mode) for mode in (0o755, 0o4711, 0o1777, 0)] == [
        b"rwxr-xr-x",
        b"rws--x--x",
        b"rwxrwxrwx",
        b"---------",
    ]


# A real one


def filesystem_header():
    database = sqlite3.connect(f"file:{real_data('mariner2-rpmdb.sqlite')}?immutable=1", uri=True)
    for (blob,) in database.execute("SELECT blob FROM Packages"):
        header = read_items(blob[8:], struct.unpack(">I", blob[:4])[0], "filesystem")
        if header.text(tags.NAME) == "filesystem":
            return header
    pytest.fail("no filesystem in the database")


def files_of(header):
    """Each file of a package: path, mode, target, and whether it is a ghost."""
    folders = header.strings(tags.DIRNAMES)
    names = zip(header.numbers(tags.DIRINDEXES), header.strings(tags.BASENAMES), strict=True)
    return zip(
        ((folders[at] + name).decode() for at, name in names),
        header.numbers(tags.FILEMODES),
        (target.decode() for target in header.strings(tags.FILELINKTOS)),
        (bool(flags & 64) for flags in header.numbers(tags.FILEFLAGS)),
        strict=True,
    )


def lay_tree(header, root):
    """Lay what of a package is a directory or a link, and no ghost."""
    for path, mode, target, ghost in files_of(header):
        place = str(root) + path
        if stat.S_ISDIR(mode):
            os.makedirs(place, exist_ok=True)
        elif stat.S_ISLNK(mode) and not ghost:
            os.makedirs(os.path.dirname(place), exist_ok=True)
            os.symlink(target, place)


def test_the_filesystem_package_of_mariner_makes_the_links_that_it_has_as_ghosts(tmp_path):
    pytest.importorskip("lupa", reason="needs lupa")
    needs_sandbox()
    header = filesystem_header()
    root = tmp_path / "root"
    lay_tree(header, root)
    output, runner = open_root(root)
    before = set(root.rglob("*"))
    with runner as run:
        run_step(Execute(0, read_scriptlets(header).post, (1,)), header, "x86_64", run, pytest.fail)
    made = {f"/{path.relative_to(root)}": os.readlink(path) for path in set(root.rglob("*")) - before}
    assert made == {path: target for path, _, target, ghost in files_of(header) if ghost}
    assert len(made) == 6
    assert bytes(output) == b""


def test_scriptlets_of_headers_in_lua_are_found():
    header = make_main(PRETRANS=text("x"), PRETRANSPROG=texts("<lua>"), PRETRANSFLAGS=numbers(0))
    assert read_scriptlets(header).pretrans.program == LUA
