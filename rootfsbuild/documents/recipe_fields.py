"""The fields of a recipe: the one table for checking, merging, defaults and the JSON Schema."""

from __future__ import annotations

from rootfsbuild.documents.distro_fields import (
    BY_HASH,
    COMPONENT,
    DEB_PACKAGE,
    SERVICE,
    SUITE,
    TEMPLATE,
    URL,
    VARIANTS,
    WORD,
)
from rootfsbuild.documents.shapes import Either, Field, Flag, Moment, Named, Several, Table, Text, Whole

VARIANT = Text(
    "a variant",
    choices=VARIANTS,
    aliases={"minbase": "required"},
)
STAGES = ("extracted", "configured", "finished")

NAME = Text("a file name that begins with a letter, a digit or _", r"[A-Za-z0-9_][A-Za-z0-9._+@~-]*")
_INSIDE = Text("an absolute path in the root, without . or .. parts", r"(/(?!\.{1,2}(/|$))[^/\0]+)+/?")
_GLOB = Text("a pattern that begins with /, as dpkg's path-exclude takes", r"/\S*")
_GROUP = r"[A-Za-z0-9_][A-Za-z0-9_+.-]*"
_DEB_REQUEST = r"[a-z0-9][a-z0-9+.-]+(:[a-z0-9-]+)?([=/][^\s=/]+)?"
_RPM_NAME = r"[A-Za-z0-9_*?\[][A-Za-z0-9_+.:~^*?\[\]-]*"
_RPM_REQUEST = rf"@\^?{_GROUP}|/\S+|{_RPM_NAME}(\(\S+\))?(=[^\s=]+)?|\(\S+ .+ \S+\)"
_DEB_SHAPES = 'a package such as "nginx", "nginx=1.22.*", "curl/bookworm-backports" or "libc6:i386"'
_RPM_SHAPES = 'a package such as "nginx" or "nginx=1.22.*", a group "@core", a path, or what a package provides'
_REQUEST = Text(f"{_DEB_SHAPES} (deb); {_RPM_SHAPES} (rpm)", rf"{_DEB_REQUEST}|{_RPM_REQUEST}")
_EXCLUDE = Text("a package name; of rpm packages also with * for any characters", _RPM_NAME)
REQUESTS = {"deb": Text(_DEB_SHAPES, _DEB_REQUEST), "rpm": Text(_RPM_SHAPES, _RPM_REQUEST)}
"""By package format: what an item of `include` may be."""
EXCLUDES = {"deb": DEB_PACKAGE, "rpm": _EXCLUDE}
"""By package format: what an item of `exclude` may be."""
_HOST = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"

PACKAGES = Table(
    {
        "variant": Field(
            VARIANT,
            "What is installed besides `include`: nothing (custom), what is Essential, "
            "or also everything of priority required, important or standard.",
            "required",
        ),
        "include": Field(
            Several(_REQUEST),
            "Packages: `name`, `name=version` (with *); deb: `name/suite`, `name:arch`; rpm: `@group`, "
            "`@^environment`, paths and whatever else packages provide.",
            (),
            joins=True,
        ),
        "exclude": Field(Several(_EXCLUDE), "Packages that must not be installed.", (), joins=True),
        "recommends": Field(Flag(), "Whether Recommends are installed too.", default=False),
        "modules": Field(
            Several(Text('a module and its stream such as "nodejs:20"', r"[A-Za-z0-9_.+-]+:[A-Za-z0-9_.+-]+")),
            "Streams of modules that are switched on in place of their defaults; rpm only.",
            (),
            joins=True,
        ),
        "docs": Field(
            Flag(), "Whether files that packages mark as documentation are installed; rpm only.", default=True
        ),
        "languages": Field(
            Several(Text('a language such as "de" or "pt_BR"', r"[A-Za-z0-9_.@-]+")),
            "Of files that packages mark as of one language, those that are installed; none named: all. rpm only.",
            (),
            joins=True,
        ),
        "strict": Field(
            Flag(), "Whether a failing script ends the build even where rpm only warns of it; rpm only.", default=False
        ),
    }
)

ARCHIVE = Table(
    {
        "name": Field(WORD, "Its name; one of the distribution's changes that archive.", required=True),
        "enabled": Field(Flag(), "Whether it is used at all.", default=True),
        "suites": Field(Several(SUITE), "Suites in the order of preference; {codename} and {version} are filled in."),
        "components": Field(Several(COMPONENT), "Components to use."),
        "keys": Field(
            Several(Text("the path of a key file or the fingerprint of one of the distribution's keys", r"[^\0]+")),
            "Who may sign it: key files beside the recipe, or fingerprints of the distribution's keys.",
        ),
        "mirrors": Field(Several(URL), "Where it is served, tried in turn after the mirrors of user and host."),
        "metalink": Field(SERVICE, "Where a Metalink document names mirrors and the digest of repomd.xml; rpm only."),
        "mirrorlist": Field(SERVICE, "Where a text names base URLs, one to a line; rpm only."),
        "priority": Field(
            Whole(-32768, 32767, "a pin priority, -32768 to 32767 and not 0"),
            "Pin priority, as in apt_preferences(5); rpm: as in dnf.conf(5), 1 to 99.",
        ),
        "snapshot": Field(TEMPLATE, "Where its past states are served."),
        "snapshot-file": Field(BY_HASH, "Where any file that it ever had is served by its hash."),
        "threshold": Field(Whole(1, 16, "a number of keys, 1 to 16"), "How many different keys must have signed."),
        "check-valid-until": Field(Flag(), "Whether the Valid-Until of its Release is believed."),
        "max-age-days": Field(Whole(1, 36500, "a number of days"), "Days after which a Release is too old."),
    }
)

FILE = Table(
    {
        "source": Field(Text("a path"), "File or directory on this machine, relative to the recipe.", required=True),
        "mode": Field(
            Either(
                (
                    Text('an octal mode such as "0644"', r"[0-7]{3,4}"),
                    Whole(0, 0o7777, "an integer such as 0o644"),
                )
            ),
            "Permission bits; the default is 0755 for what is executable, else 0644.",
        ),
        "owner": Field(
            Text('numbers such as "0:0"', r"[0-9]{1,9}:[0-9]{1,9}"),
            "Numeric user and group.",
            "0:0",
            example="0:0",
        ),
    }
)

HOOK = Table(
    {
        "stage": Field(
            Text("a stage", choices=STAGES),
            "When: after the files are laid down (extracted), after the packages are configured, "
            "or after the clean-up (finished).",
            required=True,
            example="configured",
        ),
        "run": Field(Text("a shell command", r"[\s\S]*\S[\s\S]*"), "The command, run by sh -e.", required=True),
        "where": Field(
            Text("a place", choices=("inside", "outside")),
            "In the root's sandbox, or on this machine with ROOTFSBUILD_ROOT set; by default inside for "
            "`configured`, else outside.",
        ),
    }
)

RECIPE = Table(
    {
        "extends": Field(
            Either((Text("a path"), Several(Text("a path"), "an array of paths"))),
            "Recipes that this one builds on, relative to it; later ones win over earlier ones.",
        ),
        "distro": Field(
            Text('a distribution such as "debian", or the path of a distribution file'),
            "The distribution.",
            required=True,
            example="debian",
        ),
        "release": Field(
            Either(
                (
                    Text('a number or codename such as "12" or "bookworm"'),
                    Whole(0, 10_000, "a number such as 12"),
                )
            ),
            "The release, by number or codename.",
            required=True,
            example="bookworm",
        ),
        "name": Field(NAME, "The name of the result; by default the recipe's file name without .toml."),
        "arch": Field(
            Text("an architecture such as amd64", r"[A-Za-z0-9_-]+"),
            "The architecture as the distribution calls it; by default this machine's.",
        ),
        "snapshot": Field(Moment(), "Build from the archives as they were at this date."),
        "hostname": Field(
            Text("a host name of letters, digits, - and .", rf"{_HOST}(\.{_HOST})*"),
            "What /etc/hostname says; by default there is none.",
        ),
        "packages": Field(PACKAGES, "What is installed."),
        "archive": Field(
            Several(ARCHIVE, "tables written [[archive]]"),
            "More archives, or changes to one.",
            (),
            joins=True,
        ),
        "paths": Field(
            Table(
                {
                    "exclude": Field(Several(_GLOB), "Patterns of paths that are not unpacked.", (), joins=True),
                    "keep": Field(Several(_GLOB), "Patterns of paths that are unpacked all the same.", (), joins=True),
                }
            ),
            "What is left out; also written for the image's own dpkg.",
        ),
        "files": Field(
            Named(_INSIDE, Either((Text("a path"), FILE))),
            "Files to copy in: path in the root = path on this machine.",
            {},
        ),
        "hook": Field(Several(HOOK, "tables written [[hook]]"), "Commands at named stages.", (), joins=True),
        "apt": Field(
            Table(
                {
                    "sources": Field(
                        Named(WORD, URL),
                        "Archive name = URL in the image's apt sources; by default the official mirror.",
                        {},
                    )
                }
            ),
            "How apt is set up in the image.",
        ),
    }
)
