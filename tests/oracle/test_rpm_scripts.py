from __future__ import annotations

import os
import re
import shutil
import subprocess

import pytest
from making.tinyroot import make_tiny_root, tiny_sandbox

from rootfsbuild.events import Warned
from rootfsbuild.formats.rpm.header import SIGNATURE, parse_header
from rootfsbuild.formats.rpm.scripts import BUILTINS, run_step, script_environment
from rootfsbuild.formats.rpm.tags import HEADERSIGNATURES
from rootfsbuild.formats.rpm.transaction import Execute, Member, order
from rootfsbuild.formats.rpm.version import satisfies
from rootfsbuild.rootfs.runner import open_runner

pytestmark = pytest.mark.oracle

LOG = "/log"
# Notes its arguments and its input, as a program that needs no text.
NOTER = """#!/bin/sh
echo "argv $# $*" >>/log
sed 's/^/  < /' >>/log
"""


def say(*words):
    """Return a scriptlet that notes who it is, its arguments and its input."""
    return f"echo \"{' '.join(words)} $# $*\" >>/log; sed 's/^/  < /' >>/log"


LUA_NOTE = """local log = io.open("/log", "a")
log:setvbuf("no")
local function note(...) log:write(table.concat({...}, " "), "\\n") end
"""
LUA_FILES = """note("delta lua", #arg, arg[1], arg[2])
local name = rpm.next_file()
while name do
  note("  < " .. name)
  name = rpm.next_file()
end"""


def lua(text):
    return LUA_NOTE + text


# Notes what each call returns; a whole number is the same number with a point in one Lua and without in another.
LUA_CALLS = """
local function plain(value)
  if math.type(value) == "float" then value = math.tointeger(value) or value end
  return tostring(value)
end
local function call(name, ...)
  local results = table.pack(...)
  for at = 1, results.n do results[at] = plain(results[at]) end
  note(name, table.concat(results, " "))
end
call("arg", #arg, arg[1], arg[2])
call("cwd", posix.getcwd())
call("umask", posix.umask())
call("umask 755", posix.umask(755))
call("umask =rx", posix.umask("rwxr-x---"))
call("mkdir", posix.mkdir("/made"))
call("mkdir", posix.mkdir("/made"))
call("mkdir", posix.mkdir("/no/thing"))
call("stat", posix.stat("/made", "mode"), posix.stat("/made", "type"), posix.stat("/made").uid, posix.stat("/no"))
call("chmod", posix.chmod("/made", 700))
call("mode", posix.stat("/made", "mode"))
for _, mode in ipairs { "0755", "4755", "u-w", "g+w", "a=r", "u=rwx,go=", "+x", "rwxr-s---", "u+s", "g-s", "1777" } do
  call("chmod " .. mode, posix.chmod("/made", mode))
  call("mode", posix.stat("/made", "mode"))
end
call("symlink", posix.symlink("made", "/link"))
call("symlink", posix.symlink("made", "/link"))
call("readlink", posix.readlink("/link"))
call("readlink", posix.readlink("/made"))
call("type", posix.stat("/link", "type"))
call("mkfifo", posix.mkfifo("/fifo"))
call("type", posix.stat("/fifo", "type"))
call("link", posix.link("/fifo", "/fifo2"))
call("nlink", posix.stat("/fifo", "nlink"))
call("unlink", posix.unlink("/fifo"))
call("unlink", posix.unlink("/fifo"))
call("rmdir", posix.rmdir("/bin"))
call("access", posix.access("/bin/sh", "x"))
call("access", posix.access("/bin/sh"))
call("access", posix.access("/nothing", "r"))
call("utime", posix.utime("/made", 10, 20))
call("times", posix.stat("/made", "mtime"), posix.stat("/made", "atime"))
call("chown", posix.chown("/made", 5, 6))
call("chown", posix.chown("/made", "nobody-here", "nobody-here"))
call("owner", posix.stat("/made", "uid"), posix.stat("/made", "gid"))
call("chdir", posix.chdir("/made"))
call("cwd", posix.getcwd())
call("chdir", posix.chdir("/nothing"))
call("errno", posix.errno())
call("names", #posix.dir("/made"), #posix.dir())
call("dir", posix.dir("/nothing"))
call("files", posix.files("/nothing"))
local count = 0
for name in posix.files("/bin") do count = count + 1 end
call("files", count)
call("passwd", posix.getpasswd("someone", "uid"), posix.getpasswd("someone").shell, posix.getpasswd("nobody-here"))
call("group", posix.getgroup("some").gid, posix.getgroup("some")[1], posix.getgroup("nobody-here"))
call("id", posix.getprocessid("uid"), posix.getprocessid().gid)
call("setenv", posix.setenv("A", "b"), posix.getenv("A"), os.getenv("A"))
call("setenv", posix.setenv("A", "c", false), posix.getenv("A"))
call("unsetenv", posix.unsetenv("A"))
call("getenv", posix.getenv("A"))
call("execute", rpm.execute("/bin/true"))
call("execute", rpm.execute("/bin/sh", "-c", "exit 7"))
call("os.execute", os.execute("exit 3"))
call("popen", io.popen("echo out"):read("*a"))
local pid = posix.fork()
if pid == 0 then posix.exec("/bin/sh", "-c", "echo child >>/log") elseif pid > 0 then posix.wait(pid) end
call("exit", pcall(os.exit, 1))
call("exec", pcall(posix.exec, "/bin/sh"))
call("b64", rpm.b64encode("some text"), rpm.b64decode("c29tZQ=="))
call("vercmp", rpm.vercmp("1.0", "1.0.1"), rpm.vercmp("2:1", "3"), rpm.vercmp("1~a", "1"), rpm.vercmp("1^a", "1"))
local version = rpm.ver("2:1.5-3")
call("ver", version.e, version.v, version.r, version, version < rpm.ver("3:1-1"), version == rpm.ver(2, "1.5", "3"))
call("macro", rpm.isdefined("_prefix"), rpm.expand("%{_prefix}/%{?nothing}x"))
call("define", rpm.define("some thing"), rpm.expand("%{some}"), macros.some)
call("bad", pcall(posix.chmod, "/made"))
call("bad", pcall(posix.mkdir, {}))
call("types", type(posix.mkdir), type(rpm.execute), type(arg), type(rpm.next_file), type(posix.nothing))
"""
# Whose messages are each Lua's own, or the C library's: only whether there is an error is compared.
ANY_MESSAGE = re.compile(r"^(bad|exit|exec|execute|define) (false|nil)\b.*$", re.MULTILINE)


# Package -> its sections, its files, its version.
PACKAGES = {
    "alpha": (
        [
            ("pretrans", "", say("alpha pretrans")),
            ("pre", "", say("alpha pre")),
            ("post", "", say("alpha post")),
            ("posttrans", "", say("alpha posttrans")),
            ("triggerprein", "-- beta", say("alpha triggerprein beta")),
            ("triggerin", "-- beta < 2, gamma", say("alpha triggerin beta<2,gamma")),
            ("triggerin", "-- beta", say("alpha triggerin beta, which is never the first")),
            ("triggerin", "-- alpha", say("alpha triggerin itself")),
            ("triggerin", "-- gamma > 5", say("alpha triggerin gamma>5")),
            ("triggerin", "-- delta >= 1:3", say("alpha triggerin delta>=1:3")),
            ("triggerin", "-- epsilon >= 2", say("alpha triggerin epsilon>=2")),
            ("filetriggerin", "-- /usr/lib", say("alpha filetriggerin")),
            ("filetriggerin", "-P 500 -- /usr/lib64 /usr/share /usr/lib", say("alpha filetriggerin late")),
            ("filetriggerin", "-P 2000000 -- /usr/lib64/libbe /usr/share/doc", say("alpha filetriggerin early")),
            ("filetriggerin", "-P 10000 -- /usr/share/beta", say("alpha filetriggerin just early")),
            ("filetriggerin", "-P 9999 -- /usr/share/beta", say("alpha filetriggerin just late")),
            ("filetriggerun", "-- /usr/lib", say("alpha filetriggerun, which never runs")),
            ("transfiletriggerin", "-P 5 -- /usr/lib64", say("alpha transfiletriggerin late")),
            ("transfiletriggerin", "-- /usr/share /usr/lib64/libb", say("alpha transfiletriggerin")),
            ("transfiletriggerin", "-- /nowhere", say("alpha transfiletriggerin nowhere")),
        ],
        ["/usr/lib/alpha/a", "/usr/lib/alpha/b", "/usr/lib64/libalpha", "/usr/share/alpha", "%ghost /usr/share/ghost"],
        "1",
    ),
    "beta": (
        [
            ("pre", "", say("beta pre")),
            ("post", "-p /bin/noter", ""),
            ("posttrans", "-p '/bin/noter with words'", ""),
            ("triggerin", "-- alpha", say("beta triggerin alpha")),
            ("triggerprein", "-- alpha", say("beta triggerprein alpha")),
            ("filetriggerin", "-- /usr/share", say("beta filetriggerin")),
            ("transfiletriggerin", "-P 3000000 -- /usr/share", say("beta transfiletriggerin")),
        ],
        ["/usr/lib64/libbeta", "/usr/share/beta", "%doc /usr/share/doc/beta", "/usr/share/same", "%dir /usr/share/dir"],
        "1",
    ),
    "gamma": (
        [
            ("pre", "", say("gamma pre")),
            ("post", "", say("gamma post") + "; exit 3"),
            ("triggerin", "-- delta", say("gamma triggerin delta") + "; exit 1"),
            ("filetriggerin", "-P 3 -- /usr/share", say("gamma filetriggerin")),
        ],
        ["/usr/lib64/libgamma", "/usr/share/gamma", "/usr/share/same", "%dir /usr/share/dir"],
        "1",
    ),
    "delta": (
        [
            ("pretrans", "-p <lua>", lua('note("delta lua pretrans", #arg, arg[1], arg[2])')),
            ("post", "-p <lua>", lua('note("delta lua post", posix.getcwd(), posix.umask())\nreturn 1')),
            ("posttrans", "-p <lua>", lua('note("delta lua posttrans")\nerror("bad")')),
            ("triggerin", "-p <lua> -- alpha", lua('note("delta lua triggerin", #arg, arg[2], arg[3])')),
            ("filetriggerin", "-p <lua> -- /usr/share", lua(LUA_FILES)),
            ("transfiletriggerin", "-p <lua> -- /usr/share", lua(LUA_FILES)),
        ],
        ["/usr/lib64/libdelta", "/usr/share/delta", "/usr/share/same", "%dir /usr/share/dir"],
        "1:4",
    ),
    "calls": ([("post", "-p <lua>", lua(LUA_CALLS))], ["/usr/share/calls"], "1"),
    "shell": (
        [
            (
                "pre",
                "",
                "(pwd; umask; echo $PATH; read x || echo nothing; ls -l $0 | head -c10; echo; id) >>/log",
            ),
            ("post", "-p /bin/cat", "/etc/passwd"),
            ("triggerin", "-p /bin/noter -- shell", ""),
        ],
        ["/usr/share/shell"],
        "1",
    ),
    "epsilon": (
        [
            ("pretrans", "", say("epsilon pretrans")),
            ("pre", "", say("epsilon pre")),
            ("post", "-e", say("epsilon post %%{_libdir} %%{nosuch} %%{?nosuch:x}%%{!?nosuch:y} %%{?_lib:z}")),
            ("posttrans", "-q", say("epsilon posttrans %%{name}-%%{VERSION} %%{ARCH} %%{EPOCH} %%5{name} 100%%%%")),
            ("triggerin", "-- epsilon", say("epsilon triggerin itself")),
            ("filetriggerin", "-- /usr/share", say("epsilon filetriggerin")),
        ],
        ["/usr/share/epsilon", "/usr/share/same"],
        "1",
    ),
}


def write_spec(version_of):
    lines = ["Name: none", "Version: 1", "Release: 1", "Summary: x", "License: x", "BuildArch: noarch", "%description"]
    install = ["%install"]
    for name, (sections, files, _) in PACKAGES.items():
        epoch, _, version = version_of(name).rpartition(":")
        lines += [f"%package -n {name}", "Summary: x", f"Version: {version}", *([f"Epoch: {epoch}"] if epoch else [])]
        lines += [f"%description -n {name}"]
        for kind, options, text in sections:
            before, dashes, behind = options.partition("-- ")
            lines += [f"%{kind} -n {name} {before}{dashes}{behind}", text]
        lines += [f"%files -n {name}", *files]
        for file in files:
            path = "%{buildroot}" + file.split()[-1]
            install += [f"mkdir -p {path if '%dir' in file else os.path.dirname(path)}"]
            install += [] if "%dir" in file else [f"echo {'same' if 'same' in path else name} >{path}"]
    return "\n".join([*lines, *install, ""])


def build(top, spec):
    done = subprocess.run(
        ["rpmbuild", "-bb", *defines(top), spec],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], "HOME": str(top)},
    )
    assert done.returncode == 0, done.stderr


def defines(top):
    return ["--define", f"_topdir {top}", "--define", "_buildshell /bin/bash", "--define", f"_tmppath {top}"]


@pytest.fixture(scope="module")
def rpms(tmp_path_factory):
    """Build the packages in two versions with rpmbuild; return name-version -> path."""
    for tool in ("rpm", "rpmbuild"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool} (apt install rpm)")
    top = tmp_path_factory.mktemp("rpmbuild")
    versions = (lambda name: PACKAGES[name][2], lambda name: PACKAGES[name][2] + ".5")
    for number, version_of in enumerate(versions):
        spec = top / f"packages{number}.spec"
        spec.write_text(write_spec(version_of))
        build(top, spec)
    return {path.name.removesuffix("-1.noarch.rpm"): path for path in (top / "RPMS/noarch").iterdir()}


def read_header(path):
    data = path.read_bytes()[96:]
    _, length = parse_header(data, path.name, SIGNATURE, region=HEADERSIGNATURES)
    return parse_header(data[length + -length % 8 :], path.name)[0]


def make_root(path):
    root = make_tiny_root(path)
    os.symlink("busybox", os.path.join(root, "bin/sed"))
    noter = os.path.join(root, "bin/noter")
    with open(noter, "w") as file:
        file.write(NOTER)
    os.chmod(noter, 0o755)
    return root


def install_with_rpm(root, paths):
    os.makedirs(os.path.join(root, "var/lib/rpm"))
    command = ["rpm", "--root", root, "--dbpath", "/var/lib/rpm", "--nodeps", "--noorder", "-i", *map(str, paths)]
    # Its scriptlets see rpm's environment: what must differ is what a caller has.
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        env={"PATH": os.environ["PATH"], "HOME": root},
        umask=0o022,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def install_here(root, paths):
    """Run all scriptlets of packages as this project does; return the warnings."""
    headers = [read_header(path) for path in paths]
    sandbox = tiny_sandbox(root, environment=script_environment(0), builtins=BUILTINS)
    warnings = []
    with open_runner(sandbox, lambda _chunk: None) as run:
        for step in order([Member(header) for header in headers], satisfies):
            if isinstance(step, Execute):
                run_step(step, headers[step.number], os.uname().machine, run, warnings.append)
    assert all(isinstance(warning, Warned) for warning in warnings)
    return [warning.text for warning in warnings]


def read_log(root):
    with open(root + LOG) as file:
        return re.sub(r"/(var/)?tmp/rpm-tmp\.\w+", "SCRIPT", file.read())


def needs_lua():
    pytest.importorskip("lupa", reason="needs lupa")


@pytest.mark.parametrize(
    "names",
    [
        "alpha-1 beta-1 gamma-1 delta-4 epsilon-1",
        "epsilon-1 delta-4 gamma-1 beta-1 alpha-1",
        "delta-4 alpha-1 epsilon-1 beta-1 gamma-1",
        "beta-1 alpha-1",
        "alpha-1 epsilon-1 epsilon-1.5 beta-1.5 delta-4 gamma-1",
        "epsilon-1 epsilon-1.5 alpha-1 alpha-1.5",
        "alpha-1.5 beta-1.5 gamma-1.5 delta-4.5",
    ],
)
def test_everything_runs_in_rpms_order_with_its_arguments_and_input(rpms, tmp_path, names):
    needs_lua()
    paths = [rpms[name] for name in names.split()]
    theirs, ours = make_root(tmp_path / "theirs"), make_root(tmp_path / "ours")
    install_with_rpm(theirs, paths)
    install_here(ours, paths)
    expected = read_log(theirs)
    assert read_log(ours) == expected
    assert expected.count("\n") > 10


def test_what_only_warns_with_rpm_only_warns_here(rpms, tmp_path):
    needs_lua()
    paths = [rpms[name] for name in ("gamma-1", "delta-4")]
    theirs, ours = make_root(tmp_path / "theirs"), make_root(tmp_path / "ours")
    said = install_with_rpm(theirs, paths)
    warned = install_here(ours, paths)
    assert re.findall(r"%(\w+)\((\w+)-", said) == [
        ("post", "gamma"),
        ("triggerin", "gamma"),
        ("posttrans", "delta"),
    ]
    assert [re.match(r"(\w+)-.*: %(\w+) ", text)[2] for text in warned] == ["post", "triggerin", "posttrans"]
    assert "%posttrans(delta-4-1.noarch):5: bad" in warned[2]


def test_luas_functions_return_what_rpms_do(rpms, tmp_path):
    needs_lua()
    theirs, ours = make_root(tmp_path / "theirs"), make_root(tmp_path / "ours")
    for root in (theirs, ours):
        for name, text in {"passwd": "someone:x:7:8:a:/home:/bin/x\n", "group": "some:x:9:one,two\n"}.items():
            with open(os.path.join(root, "etc", name), "w") as file:
                file.write(text)
    install_with_rpm(theirs, [rpms["calls-1"]])
    assert install_here(ours, [rpms["calls-1"]]) == []
    expected, found = (ANY_MESSAGE.sub(r"\1 \2", read_log(root)) for root in (theirs, ours))
    assert found == expected
    assert expected.count("\n") > 80


def test_a_shell_scriptlet_sees_what_rpm_shows_it(rpms, tmp_path):
    theirs, ours = make_root(tmp_path / "theirs"), make_root(tmp_path / "ours")
    install_with_rpm(theirs, [rpms["shell-1"]])
    install_here(ours, [rpms["shell-1"]])
    expected, found = read_log(theirs), read_log(ours)
    assert expected.splitlines()[:2] == ["/", "0022"]
    # rpm hands the program of a trigger without a text an empty file, and so ldconfig an argument too many.
    assert found.replace("argv 0", "argv 3 SCRIPT 1 1").split() == expected.split()
