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


@pytest.fixture(scope="module")
def rpms(tmp_path_factory):
    """Build the packages in two versions with rpmbuild; return name-version -> path."""
    for tool in ("rpm", "rpmbuild"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool} (apt install rpm)")
    top = tmp_path_factory.mktemp("rpmbuild")
    for number, version_of in enumerate((lambda name: PACKAGES[name][2], lambda name: PACKAGES[name][2] + ".5")):
        spec = top / f"packages{number}.spec"
        spec.write_text(write_spec(version_of))
        defines = ["--define", f"_topdir {top}", "--define", "_buildshell /bin/bash", "--define", f"_tmppath {top}"]
        done = subprocess.run(
            ["rpmbuild", "-bb", *defines, spec],
            capture_output=True,
            text=True,
            check=False,
            env={"PATH": os.environ["PATH"], "HOME": str(top)},
        )
        assert done.returncode == 0, done.stderr
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
