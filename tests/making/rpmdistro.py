"""An RPM distribution whose root runs: Debian's programs as packages that rpmbuild made, in two signed repositories.

What the packages need and provide is what rpm's own generators found in the files, as in a real distribution; what a
distribution's packages do beside bringing files (users, triggers, Lua, links at the top) a few of them do here.
"""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import os
import shutil
import subprocess
import tomllib
import urllib.request
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pytest
from making.builds import mirror_at_hand, rootfsbuild
from making.keys import make_key
from making.rpms import assemble, sign

from rootfsbuild.formats.rpm import tags
from rootfsbuild.formats.rpm.header import SIGNATURE, Type, parse_header

TOOLS = ("rpmbuild", "createrepo_c", "dpkg-deb")
EPOCH = 1_700_000_000
DATABASE = "usr/lib/sysimage/rpm"

# RPM package -> Debian packages whose files it has. Left out is what needs more than the root is to have.
FROM = {
    "bash": ["bash"],
    "coreutils": ["coreutils"],
    "glibc": ["libc6", "libc-bin"],
    "libgcc": ["libgcc-s1"],
    "ncurses-libs": ["libtinfo6"],
    "libacl": ["libacl1"],
    "libattr": ["libattr1"],
    "libselinux": ["libselinux1"],
    "pcre2": ["libpcre2-8-0"],
    "gmp": ["libgmp10"],
    "rpm": ["rpm", "rpm-common"],
    "rpm-libs": ["librpm9", "librpmio9"],
    "lua-libs": ["liblua5.3-0"],
    "sqlite-libs": ["libsqlite3-0"],
    "popt": ["libpopt0"],
    "libzstd": ["libzstd1"],
    "zlib": ["zlib1g"],
    "bzip2-libs": ["libbz2-1.0"],
    "xz-libs": ["liblzma5"],
    "libcap": ["libcap2"],
    "libgcrypt": ["libgcrypt20"],
    "libgpg-error": ["libgpg-error0"],
    "shadow-utils": ["passwd"],
    "libxcrypt": ["libcrypt1"],
    "audit-libs": ["libaudit1"],
    "libcap-ng": ["libcap-ng0"],
    "pam-libs": ["libpam0g"],
    "libsemanage": ["libsemanage2"],
    "libsepol": ["libsepol2"],
}
DROPPED = (
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/info/*",
    "/usr/share/lintian/*",
    "/usr/share/locale/*",
    "/usr/share/menu/*",
    "/usr/share/debianutils/*",
    "/usr/share/bash-completion/*",
    "/usr/lib/x86_64-linux-gnu/audit/*",
    "/usr/lib/x86_64-linux-gnu/gconv/*",
    "/usr/lib/x86_64-linux-gnu/rpm-plugins/*",
    "/usr/lib/rpm/*-*.*",
    "/usr/lib/rpm/*[a-z]dep*",
    "/usr/lib/rpm/fileattrs/*",
    "/usr/lib/rpm/[c-l]*",
    "/usr/lib/rpm/*.sh",
    "/usr/lib/rpm/*.prov",
    "/usr/lib/rpm/*.req",
    "/usr/lib/rpm/brp*",
    "/usr/lib/rpm/sepdebug*",
    "/usr/lib/rpm/tgpg",
    "/usr/lib/rpm/platform/[!nx]*",
    "/usr/lib/rpm/rpm*_*",
    "/usr/lib/rpm/rpm.*",
    "/usr/lib/rpm/rpmu*",
    "/usr/lib/systemd/*",
    "/usr/bin/*gendiff*",
    "/usr/bin/rpm[bsgl2]*",
    "/usr/bin/rpmarchive",
    "/usr/lib/x86_64-linux-gnu/liblua5.3-c++*",
    "/usr/share/libgcrypt20/*",
    "/usr/bin/bashbug",
    "/usr/bin/tzselect",
    "/usr/bin/ldd",
    "/usr/sbin/tzconfig",
    "/usr/sbin/zic",
    "/usr/share/libc-bin/*",
    "/usr/share/gcc/*",
    "/etc/cron*",
    "/etc/pam.d*",
    "/etc/skel*",
    "/etc/bash_completion.d*",
    "/etc/systemd*",
    "/lib/systemd/*",
    "/usr/sbin/sasldblistusers*",
)
MERGED = ("bin", "sbin", "lib", "lib64")

TOP = """
/:0555 /boot:0555 /dev:0755 /etc:0755 /home:0755 /media:0755 /mnt:0755 /opt:0755 /proc:0555 /root:0550 /run:0755
/srv:0755 /sys:0555 /tmp:1777 /usr:0755 /usr/bin:0555 /usr/sbin:0555 /usr/lib:0555 /usr/lib64:0555 /usr/local:0755
/usr/share:0755 /usr/src:0755 /usr/share/doc:0755 /usr/share/man:0755 /var:0755 /var/cache:0755 /var/lib:0755
/var/log:0755 /var/opt:0755 /var/spool:0755 /var/tmp:1777 /etc/opt:0755 /etc/profile.d:0755 /usr/share/locale:0755
"""

FILESYSTEM = """
%package -n filesystem
Summary: The directories of a system
Requires(pre): setup
Provides: filesystem(merged-usr)
%description -n filesystem
x
%pretrans -n filesystem -p <lua>
-- Nothing is there yet, and packages before this one would lay their files beside the links.
for _, name in ipairs { "usr", "usr/bin", "usr/sbin", "usr/lib", "usr/lib64" } do
  posix.mkdir("/" .. name)
end
for _, name in ipairs { "bin", "sbin", "lib", "lib64" } do
  if not posix.stat("/" .. name) then
    posix.symlink("usr/" .. name, "/" .. name)
  end
end
posix.mkdir("/proc")
posix.mkdir("/sys")
posix.chmod("/proc", 0555)
posix.chmod("/sys", 0555)
return 0
%post -n filesystem -p <lua>
posix.symlink("../run", "/var/run")
posix.symlink("../run/lock", "/var/lock")
%files -n filesystem
%ghost /var/run
%ghost /var/lock
"""

SETUP = """
%package -n setup
Summary: Users, groups and the shell's settings
BuildArch: noarch
%description -n setup
x
%files -n setup
%verify(not md5 size mtime) %config(noreplace) /etc/passwd
%verify(not md5 size mtime) %config(noreplace) /etc/group
%attr(0000,root,root) %verify(not md5 size mtime) %config(noreplace,missingok) /etc/shadow
%attr(0000,root,root) %verify(not md5 size mtime) %config(noreplace,missingok) /etc/gshadow
%config(noreplace) /etc/profile
%config(noreplace) /etc/shells
%config /etc/host.conf
%ghost %attr(0644,root,root) %verify(not md5 size mtime) %config(noreplace,missingok) /etc/fstab
"""
SETUP_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/bash\nbin:x:1:1:bin:/bin:/usr/sbin/nologin\n"
    "mail:x:8:12:mail:/var/spool/mail:/usr/sbin/nologin\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n",
    "etc/group": "root:x:0:\nbin:x:1:\ntty:x:5:\nmail:x:12:\nshadow:x:42:\nnobody:x:65534:\n",
    "etc/shadow": "root:*:19000:0:99999:7:::\nbin:*:19000:0:99999:7:::\nmail:*:19000:0:99999:7:::\n"
    "nobody:*:19000:0:99999:7:::\n",
    "etc/gshadow": "root:::\nbin:::\ntty:::\nmail:::\nshadow:::\nnobody:::\n",
    "etc/profile": "PATH=/usr/bin:/usr/sbin\nexport PATH\n",
    "etc/shells": "/bin/sh\n/bin/bash\n",
    "etc/host.conf": "multi on\n",
    "etc/fstab": "",
}

RELEASE = f"""
%package -n example-release
Summary: What this distribution is
BuildArch: noarch
Provides: system-release = 1
Provides: system-release(releasever) = 1
%description -n example-release
x
%files -n example-release
/usr/lib/os-release
/etc/os-release
/usr/lib/rpm/macros.d/macros.dist
%dir /{DATABASE}
"""
RELEASE_FILES = {
    "usr/lib/os-release": 'ID=example\nNAME="Example"\nVERSION_ID=1\nPRETTY_NAME="Example 1"\n',
    # Debian's rpm keeps its database in the home of whoever calls it.
    "usr/lib/rpm/macros.d/macros.dist": f"%_dbpath /{DATABASE}\n",
    "etc/os-release": "../usr/lib/os-release",
}

# What the package of a program says beside what the generators find: head, scripts, files.
MORE = {
    "bash": ("Provides: /bin/sh, /bin/bash\nRequires: filesystem >= 1", "", "/usr/bin/sh\n"),
    "coreutils": ("Provides: /bin/touch, /bin/cat\nRequires: filesystem", "", ""),
    "glibc": (
        "Requires: filesystem\nProvides: rtld(GNU_HASH), ldconfig, /sbin/ldconfig\nRecommends: example-release",
        """%post -n glibc -p <lua>
rpm.execute("/sbin/ldconfig")
%transfiletriggerin -n glibc -P 2000000 -p <lua> -- /lib /usr/lib /lib64 /usr/lib64
rpm.execute("/sbin/ldconfig")
%transfiletriggerpostun -n glibc -P 2000000 -p <lua> -- /lib /usr/lib /lib64 /usr/lib64
rpm.execute("/sbin/ldconfig")
""",
        """%ghost %attr(0644,root,root) %verify(not md5 size mtime) /etc/ld.so.cache
%ghost %attr(0600,root,root) %verify(not md5 size mtime) /var/cache/ldconfig/aux-cache
""",
    ),
    "rpm": ("Requires: example-release, coreutils", "", ""),
    "shadow-utils": ("Requires: setup", "", ""),
}

THREE = base64.b64encode(b'u three 403 "Number three" - -').decode()
FOUR = base64.b64encode(b'u four 404 "Number four"').decode()
TWO = base64.b64encode(b'u two 402 "Number two" /srv/two -').decode()

EXTRAS = f"""
Name: extras
Version: 1.0
Release: 1
Summary: What packages can do
License: MIT
%description
x

%package -n daemon-one
Summary: Makes its user itself
Requires(pre): shadow-utils
%description -n daemon-one
x
%pre -n daemon-one
getent group one >/dev/null || groupadd -r -g 401 one
getent passwd one >/dev/null || useradd -r -u 401 -g one -d /var/lib/one -s /usr/bin/false -c "Number one" one
exit 0
%files -n daemon-one
%attr(0750,one,one) %dir /var/lib/one
%attr(2755,root,one) /usr/bin/one
%attr(0640,root,one) %config(noreplace) /etc/one.conf
%attr(0660,one,one) %ghost /var/log/one.log

%package -n daemon-two
Summary: Provides its user, as from rpm 4.19 on; older ones leave it to the script
BuildArch: noarch
Provides: user(two) = {TWO}
Provides: group(two)
Requires(pre): /bin/sh
%description -n daemon-two
x
%pre -n daemon-two
case "$(</etc/passwd)" in
*two:x:402:*) ;;
*) echo "two:x:402:" >>/etc/group
   echo "two:!*::" >>/etc/gshadow
   echo "two:x:402:402:Number two:/srv/two:/usr/sbin/nologin" >>/etc/passwd
   echo "two:!*:$((SOURCE_DATE_EPOCH / 86400))::::::" >>/etc/shadow ;;
esac
%files -n daemon-two
%attr(0700,two,two) %dir /srv/two
%attr(0600,two,two) /srv/two/data

%package -n daemon-three
Summary: Provides its user, and owns a file by it: only rpm from 4.19 on can install it
BuildArch: noarch
Provides: user(three) = {THREE}
Provides: group(three)
Requires: setup
%description -n daemon-three
x
%files -n daemon-three
%attr(0640,three,three) /usr/share/three

%package -n daemon-four
Summary: Provides a user that owns nothing
BuildArch: noarch
Provides: user(four) = {FOUR}
Provides: group(four)
Requires: setup
%description -n daemon-four
x
%files -n daemon-four

%package -n things
Summary: Files that set off triggers
BuildArch: noarch
Provides: things(base) = 1:2.0
%description -n things
x
%files -n things
%dir /usr/share/things
/usr/share/things/first
/usr/share/things/second
/usr/share/shared

%package -n more-things
Summary: One file the same as in another package
BuildArch: noarch
Requires: /usr/share/things/second
Requires: (things >= 1 or nothing-at-all)
Requires: (daemon-two if daemon-one)
%description -n more-things
x
%files -n more-things
/usr/share/things/third
/usr/share/shared

%package -n watcher
Summary: Triggers of all kinds
BuildArch: noarch
Requires: coreutils
%description -n watcher
x
%post -n watcher
echo "post $1" >/var/lib/watcher/post
%posttrans -n watcher
echo "posttrans $1" >/var/lib/watcher/posttrans
%triggerin -n watcher -- setup
echo "setup $1 $2" >>/var/lib/watcher/setup
%triggerin -n watcher -- things > 0.5, nothing
echo "things $1 $2" >>/var/lib/watcher/things
%filetriggerin -n watcher -- /usr/share/things
while read -r path; do : >"/var/lib/watcher/file-${{path##*/}}"; done
%transfiletriggerin -n watcher -- /usr/share/things
sort >/var/lib/watcher/all
%transfiletriggerin -n watcher -P 5 -p <lua> -- /usr/share/things
local names = {{}}
local name = rpm.next_file()
while name do
  table.insert(names, name)
  name = rpm.next_file()
end
table.sort(names)
local file = io.open("/var/lib/watcher/lua", "w")
file:write(table.concat(names, "\\n"), "\\n")
file:close()
%files -n watcher
%dir /var/lib/watcher

%package -n kinds
Summary: Files of all kinds
Requires: libcap
Requires(post): coreutils
Suggests: more-things
%description -n kinds
x
%post -n kinds
ln -sf file /usr/share/kinds/made
%files -n kinds
%dir /usr/share/kinds
/usr/share/kinds/file
/usr/share/kinds/link
/usr/share/kinds/dangling
/usr/share/kinds/hard-*
%attr(4755,root,root) /usr/bin/kinds-setuid
%caps(cap_net_raw=ep) /usr/bin/kinds-ping
%attr(1777,root,mail) %dir /var/spool/kinds
%attr(0644,root,root) %dev(c 1 3) /usr/share/kinds/null
%config(noreplace) /etc/kinds.conf
%config(noreplace,missingok) /etc/kinds.d
%ghost /usr/share/kinds/made
%ghost %dir /var/cache/kinds
%doc /usr/share/doc/kinds
%ghost %doc /usr/share/kinds-doc/ghost
%dir /usr/share/kinds-doc
%doc /usr/share/kinds-doc/text
%dir /usr/share/kinds-lang
%lang(fr) %dir /usr/share/kinds-lang/fr
%lang(fr) /usr/share/kinds-lang/fr/words
%dir /usr/share/kinds-both
%lang(fr) /usr/share/kinds-both/fr
%ghost /usr/share/kinds-both/ghost
%lang(de) /usr/share/locale/de/LC_MESSAGES/kinds.mo
%lang(fr) /usr/share/locale/fr/LC_MESSAGES/kinds.mo
"/usr/share/kinds/a name with blanks and ünïcödé"

%package -n meta
Summary: Has no files
Epoch: 2
Version: 3~rc1
Obsoletes: old-meta < 3
Provides: old-meta = 2:%{{version}}
Requires: things(base) >= 1:1.9
Recommends: kinds
Recommends: (more-things if things)
Suggests: old-thing
%description -n meta
x
%files -n meta

%package -n old-meta
Summary: Obsolete
%description -n old-meta
x
%files -n old-meta

%package -n langpack
Summary: Comes with meta where weak dependencies do
BuildArch: noarch
Supplements: (meta and things)
%description -n langpack
x
%files -n langpack
/usr/share/langpack

%install
cp -a %{{tree}}/. %{{buildroot}}
mkdir -p %{{buildroot}}/var/lib/one %{{buildroot}}/var/lib/watcher %{{buildroot}}/var/spool/kinds \\
  %{{buildroot}}/var/cache/kinds %{{buildroot}}/etc/kinds.d %{{buildroot}}/var/log
cd %{{buildroot}}
: >var/log/one.log
: >usr/share/kinds/made
ln -s file usr/share/kinds/link
ln -s nowhere/at-all usr/share/kinds/dangling
ln usr/share/kinds/hard-a usr/share/kinds/hard-b
ln usr/share/kinds/hard-a usr/share/kinds/hard-c
chmod 755 usr/bin/*
"""
EXTRA_FILES = {
    "usr/bin/one": "#!/bin/sh\necho one\n",
    "etc/one.conf": "one = 1\n",
    "srv/two/data": "of two\n",
    "usr/share/things/first": "1\n",
    "usr/share/things/second": "2\n",
    "usr/share/things/third": "3\n",
    "usr/share/shared": "the same in both\n",
    "usr/share/three": "3\n",
    "usr/share/langpack": "words\n",
    "usr/share/kinds/file": "file\n",
    "usr/share/kinds/hard-a": "hard\n" * 100,
    "usr/share/kinds/a name with blanks and ünïcödé": "odd\n",
    "usr/bin/kinds-setuid": "#!/bin/sh\nid\n",
    "usr/bin/kinds-ping": "#!/bin/sh\necho ping\n",
    "etc/kinds.conf": "kinds = all\n",
    "usr/share/doc/kinds/README": "read\n",
    "usr/share/kinds-doc/text": "read\n",
    "usr/share/kinds-doc/ghost": "",
    "usr/share/kinds-lang/fr/words": "mots\n",
    "usr/share/kinds-both/fr": "mots\n",
    "usr/share/kinds-both/ghost": "",
    "usr/share/locale/de/LC_MESSAGES/kinds.mo": "de\n",
    "usr/share/locale/fr/LC_MESSAGES/kinds.mo": "fr\n",
}

LATER = """
Name: later
Version: 1.0
Release: 1
Summary: Installed by the root's own rpm
License: MIT
BuildArch: noarch
Requires: bash, things
%description
x
%post
echo "post $1" >/usr/share/later-post
%install
mkdir -p %{buildroot}/usr/share/things
: >%{buildroot}/usr/share/later-post
echo later >%{buildroot}/usr/share/things/later
%files
/usr/share/things/later
%ghost %attr(0644,root,root) /usr/share/later-post
"""

COMPS = """<?xml version="1.0" encoding="UTF-8"?>
<comps><group><id>core</id><name>Core</name><description>x</description><default>true</default>
<uservisible>false</uservisible><packagelist>
<packagereq type="mandatory">bash</packagereq><packagereq type="mandatory">coreutils</packagereq>
<packagereq type="mandatory">setup</packagereq><packagereq type="default">rpm</packagereq>
<packagereq type="default">watcher</packagereq><packagereq type="optional">kinds</packagereq>
</packagelist></group></comps>
"""

DISTRO = """id = "example"
name = "Example"
format = "rpm"
database = {{ path = "{database}", format = "sqlite" }}
[architectures]
x86_64 = ["x86_64"]
[variants]
essential = ["bash", "coreutils", "example-release", "filesystem", "glibc", "setup"]
required = ["@core", "example-release"]
important = ["@core", "example-release", "shadow-utils"]
standard = ["@core", "example-release", "shadow-utils", "meta"]
[keys.example]
file = "example.pgp"
fingerprint = "{fingerprint}"
origin = "made by a test"
[archives.base]
mirrors = ["{url}/base/"]
keys = ["example"]
[archives.extras]
mirrors = ["{url}/extras/"]
keys = ["example"]
[[release]]
version = "1"
architectures = ["x86_64"]
archives.base = {{}}
archives.extras = {{}}
"""


@dataclass(frozen=True)
class RpmDistro:
    """The distribution, made."""

    folder: Path
    """What a mirror serves: `base` and `extras`; beside them `later.rpm`, which no repository has."""
    key: object

    def describe(self, folder, url):
        """Write the distribution file and its key; return the file's path."""
        self.key.write(folder / "example.pgp")
        path = folder / "example.toml"
        path.write_text(DISTRO.format(database=DATABASE, fingerprint=self.key.fingerprint, url=url))
        return path


def make_rpm_distro(folder, store):
    """Make it, or skip where something for that is missing; `store` is a build's cache of Debian's packages."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)} (apt install rpm createrepo-c)")
    if os.uname().machine != "x86_64":
        pytest.skip("is made of programs for x86_64")
    owner = {debian: name for name, sources in FROM.items() for debian in sources}
    versions = {}
    for debian, version, deb in fetch_debs(folder, store, owner):
        unpack(deb, folder / "trees" / owner[debian])
        versions.setdefault(owner[debian], version)
    write_files(folder / "trees/setup", SETUP_FILES)
    write_files(folder / "trees/example-release", RELEASE_FILES)
    write_files(folder / "trees-extras", EXTRA_FILES)
    key = make_key("Example <example@example.org>")
    mirror = folder / "mirror"
    build(folder, base_spec(folder / "trees", versions), mirror / "base", folder / "trees", "w3.zstdio")
    build(folder, EXTRAS, mirror / "extras", folder / "trees-extras", "w6.xzdio")
    build(folder, LATER, folder / "later", folder, "w1.gzdio")
    for one in [*mirror.rglob("*.rpm"), *folder.glob("later/*/*.rpm")]:
        sign_rpm(one, key)
    (folder / "comps.xml").write_text(COMPS)
    for name, groups in {"base": ["-g", folder / "comps.xml"], "extras": []}.items():
        publish(mirror / name, key, groups)
    shutil.copy(next(folder.glob("later/*/*.rpm")), mirror / "later.rpm")
    return RpmDistro(mirror, key)


def fetch_debs(folder, store, wanted):
    """Yield name, version without revision, and path of Debian's packages, checked against a lock."""
    mirrors = {name: mirror_at_hand(name) for name in ("debian", "debian-security")}
    names = ", ".join(f'"{name}"' for name in wanted)
    recipe = folder / "debs.toml"
    recipe.write_text(
        f'distro = "debian"\nrelease = "bookworm"\narch = "amd64"\npackages.variant = "custom"\n'
        f"packages.include = [{names}]\n"
    )
    locked = rootfsbuild("lock", recipe, "--cache-dir", store)
    assert locked.status == 0, locked.err
    for package in tomllib.loads((folder / "debs.amd64.lock").read_text())["package"]:
        if package["name"] in wanted:
            with urllib.request.urlopen(f"{mirrors[package['archive']]}/{package['filename']}", timeout=60) as answer:
                data = answer.read()
            assert package["hash"] == f"sha256:{hashlib.sha256(data).hexdigest()}"
            path = folder / f"{package['name']}.deb"
            path.write_bytes(data)
            yield package["name"], package["version"].rpartition(":")[2].partition("-")[0].partition("+")[0], path


def unpack(deb, tree):
    """Unpack a package's files below `tree`, where they are in /usr, and without what is dropped."""
    raw = tree.parent / f"{tree.name}.raw"
    raw.mkdir(parents=True)
    subprocess.run(["dpkg-deb", "-x", deb, raw], check=True)
    for parent, directories, files in os.walk(raw):
        below = "/" + os.path.relpath(parent, raw).removeprefix(".")
        below = f"/usr{below}" if below.split("/")[1] in MERGED else below
        links = [name for name in directories if os.path.islink(os.path.join(parent, name))]
        for name in [*files, *links]:
            path = os.path.join(below, name)
            if not any(fnmatch.fnmatch(path, pattern) for pattern in DROPPED):
                target = Path(f"{tree}{path}")
                target.parent.mkdir(parents=True, exist_ok=True)
                os.rename(os.path.join(parent, name), target)
    shutil.rmtree(raw)


def write_files(tree, files):
    for name, text in files.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        if text.startswith("../"):
            (tree / name).symlink_to(text)
        else:
            (tree / name).write_text(text)


def base_spec(trees, versions):
    """Return the spec file of all base packages; directories that several have belong to filesystem."""
    top = dict(one.split(":") for one in TOP.split())
    files, folders = {}, defaultdict(set)
    for tree in sorted(trees.iterdir()):
        files[tree.name] = []
        for path in sorted(tree.rglob("*")):
            where = f"/{path.relative_to(tree)}"
            if path.is_dir() and not path.is_symlink():
                folders[where].add(tree.name)
            else:
                files[tree.name].append(where)
    lines = ["Name: base\nVersion: 1\nRelease: 1\nSummary: x\nLicense: MIT\n%description\nx"]
    shared = sorted(path for path, owners in folders.items() if len(owners) > 1 and path not in top)
    lines += [FILESYSTEM]
    lines += [f"%dir %attr({mode},root,root) {path}" for path, mode in top.items()]
    lines += [f"%dir %attr(0755,root,root) {path}" for path in shared] + [f"/{name}" for name in MERGED]
    lines += [SETUP, RELEASE]
    for name in FROM:
        head, scripts, more = MORE.get(name, ("", "", ""))
        lines += [f"%package -n {name}\nVersion: {versions[name]}\nSummary: x\n{head}\n%description -n {name}\nx"]
        lines += [scripts, f"%files -n {name}\n{more}"]
        own = [path for path, owners in folders.items() if owners == {name} and path not in top]
        lines += [f"%dir %attr(0755,root,root) {path}" for path in own]
        lines += [f"%config(noreplace) {path}" if path.startswith("/etc/") else path for path in files[name]]
    made = " ".join(f"%{{buildroot}}{path}" for path in top)
    lines += ["%install", f"mkdir -p %{{buildroot}} {made}"]
    lines += [f"cp -a %{{tree}}/{tree}/. %{{buildroot}}" for tree in files]
    lines += [f"ln -s usr/{name} %{{buildroot}}/{name}" for name in MERGED]
    lines += ["ln -s bash %{buildroot}/usr/bin/sh"] if "/usr/bin/sh" not in files["bash"] else []
    lines += ["cd %{buildroot}", f"mkdir -p {DATABASE} var/cache/ldconfig run/lock", ": >etc/ld.so.cache"]
    lines += [": >var/cache/ldconfig/aux-cache", "ln -s ../run var/run", "ln -s ../run/lock var/lock", ""]
    return "\n".join(lines)


def build(folder, spec, target, tree, payload):
    """Let rpmbuild make packages, with what it finds out about them by itself."""
    name = target.name
    (folder / f"{name}.spec").write_text(spec)
    macros = {
        "_topdir": folder / f"{name}-build",
        "_tmppath": folder,
        "_rpmdir": target,
        "_buildshell": "/bin/bash",
        "_binary_payload": payload,
        "_buildhost": "example",
        "debug_package": "%{nil}",
        "__os_install_post": "%{nil}",
        "_build_id_links": "none",
        "use_source_date_epoch_as_buildtime": "1",
        "clamp_mtime_to_source_date_epoch": "1",
        "tree": tree,
    }
    defined = [word for name, value in macros.items() for word in ("--define", f"{name} {value}")]
    done = subprocess.run(
        ["rpmbuild", "-bb", *defined, folder / f"{name}.spec"],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "LC_ALL": "C.UTF-8", "SOURCE_DATE_EPOCH": str(EPOCH)},
        umask=0o022,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    shutil.rmtree(folder / f"{name}-build")


def sign_rpm(path, key):
    """Sign a package's header as rpmsign would; without a key take its signature off."""
    blob = path.read_bytes()
    old, length = parse_header(blob[96:], path.name, SIGNATURE, region=tags.HEADERSIGNATURES)
    start = 96 + length + -length % 8
    _, length = parse_header(blob[start:], path.name)
    header, packed = blob[start : start + length], blob[start + length :]
    entries = {item.tag: (item.type, values(old, item)) for item in old.items if item.tag != tags.HEADERSIGNATURES}
    entries.pop(tags.SIG_RESERVEDSPACE, None)
    entries.pop(tags.DSAHEADER, None)
    if key is not None:
        entries[tags.DSAHEADER] = (Type.BIN, sign(key, header))
    path.write_bytes(assemble(header, packed, entries, lead=blob[:96]))


def values(header, item):
    if item.type == Type.BIN:
        return header.raw(item)
    return list(header.strings(item.tag) if item.type == Type.STRING else header.numbers(item.tag))


def publish(folder, key, options=()):
    """Write a repository's metadata and sign them."""
    subprocess.run(
        ["createrepo_c", "-q", "--no-database", "--general-compress-type=gz", *options, folder],
        check=True,
        capture_output=True,
    )
    repomd = folder / "repodata/repomd.xml"
    (folder / "repodata/repomd.xml.asc").write_bytes(key.detach(repomd.read_bytes()))
