"""The fields of a distribution file: the one table from which it is checked."""

from __future__ import annotations

from rootfsbuild.documents.shapes import Field, Flag, Moment, Named, Several, Table, Text, Whole

WORD = Text("a word of lower-case letters, digits and . + -", r"[a-z0-9][a-z0-9.+-]*")
PACKAGE = Text("a package name", r"[A-Za-z0-9_][A-Za-z0-9_+.-]*")
DEB_PACKAGE = Text("a package name", r"[a-z0-9][a-z0-9+.-]+")
CHOICE = Text("a package name, or a group such as @core", r"@?[A-Za-z0-9_][A-Za-z0-9_+.-]*")
ARCHITECTURE = Text("an architecture such as amd64 or x86_64", r"[a-z0-9][a-z0-9_-]*")
VARIANTS = ("custom", "essential", "required", "important", "standard")
FINGERPRINT = Text("a fingerprint of 40 or 64 hexadecimal digits", r"[0-9A-Fa-f]{40}|[0-9A-Fa-f]{64}")
URL = Text("a URL (http, https or file) or an absolute path", r"(https?|file)://\S+|/\S*")
SERVICE = Text("a URL (https, http or file) in which no quoting is left to do", r"(https?|file)://\S+")
_WORDS = r"([A-Za-z0-9]|\{codename\}|\{version\})"
SUITE = Text(
    'a suite such as "bookworm" or "{codename}-backports" (not a flat repository, whose suite ends in /)',
    rf"{_WORDS}([._+~/-]*{_WORDS})*",
)
COMPONENT = Text('a component such as "main"', r"[A-Za-z0-9][A-Za-z0-9._+/-]*")
TEMPLATE = Text(
    "a URL that contains {timestamp}, and {archive} where the archive's name belongs",
    r"(https?|file)://([^\s{}]|\{archive\})*\{timestamp\}([^\s{}]|\{archive\})*",
)
BY_HASH = Text(
    "a URL that contains {sha256}",
    r"(https?|file)://[^\s{}]*\{sha256\}[^\s{}]*",
)

ARCHIVE = Table(
    {
        "suites": Field(Several(SUITE), "Suites in the order of preference; {codename} and {version} are filled in."),
        "components": Field(Several(COMPONENT), "Components that are used unless a recipe names others."),
        "mirrors": Field(
            Several(URL),
            "Official mirrors in the order in which they are tried; of rpm repositories their base URLs, in which "
            "{version}, {releasever}, {codename}, {arch}, {basearch} and the names in [variables] are filled in.",
        ),
        "metalink": Field(SERVICE, "Where a Metalink document names mirrors and the digest of repomd.xml; rpm only."),
        "mirrorlist": Field(SERVICE, "Where a text names base URLs, one to a line; rpm only."),
        "enabled": Field(Flag(), "Whether it is used by recipes that do not name it.", default=True),
        "priority": Field(Whole(-32768, 32767), "Its pin (deb), or dnf's priority from 1 to 99 (rpm)."),
        "keys": Field(Several(WORD), "Names of the keys in [keys] that may sign it."),
        "snapshot": Field(TEMPLATE, "Where past states are served."),
        "snapshot-file": Field(BY_HASH, "Where any file that it ever had is served by its hash."),
        "architectures": Field(Several(ARCHITECTURE), "Architectures it still serves, if fewer than the release has."),
        "threshold": Field(Whole(1, 16), "How many different keys must have signed.", 1),
        "check-valid-until": Field(Flag(), "Whether the Valid-Until of its Release is believed.", default=True),
        "max-age-days": Field(Whole(1, 36500, "a number of days"), "Days after which a Release is too old."),
    }
)

DATABASE = Table(
    {
        "path": Field(
            Text("a path in the root without a slash at its ends", r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*"),
            "The directory of the rpm database.",
            required=True,
            example="usr/lib/sysimage/rpm",
        ),
        "format": Field(
            Text("an rpm database", choices=("sqlite", "ndb", "bdb")),
            "What rpm calls it.",
            required=True,
            example="sqlite",
        ),
    }
)

# What rpm distributions say of each release, and of all of them at once at the top of the file.
_RPM: dict[str, Field] = {
    "database": Field(DATABASE, "Where the root's own rpm keeps what is installed."),
    "isa": Field(
        Named(ARCHITECTURE, Text("a level", choices=("x86-64-v2", "x86-64-v3", "x86-64-v4"))),
        "Architecture = the least processor that its programs run on, where that is not the architecture's first.",
    ),
    "module-platform": Field(WORD, "The stream of the module `platform` that it is, as in `platform:el9`."),
    "variants": Field(
        Table({name: Field(Several(CHOICE), f"What the variant {name} is made of.") for name in VARIANTS[1:]}),
        "Variant of a recipe = its packages and groups, all of them: none continues another.",
    ),
}

RELEASE = Table(
    {
        "version": Field(Text("the release's number as a string", r"[0-9]+(\.[0-9]+)*"), "Its number, if it has one."),
        "codename": Field(WORD, "Its name, which never moves to another release; deb: required."),
        "eol": Field(Moment(), "The last day on which it receives security updates."),
        "aliases": Field(Several(WORD), "Other names that always mean this release.", ()),
        "architectures": Field(Several(ARCHITECTURE), "Architectures it can be built for.", required=True),
        "components": Field(Several(COMPONENT), "Components it knows; deb only, and required there."),
        "merged-usr": Field(Flag(), "Whether /bin, /sbin and /lib are links into /usr.", default=True),
        "preselect": Field(Several(PACKAGE), "Packages that are chosen before anything else.", ()),
        "archives": Field(Named(WORD, ARCHIVE), "Its archives; what they say wins over [archives].", required=True),
        **_RPM,
    }
)

DISTRO = Table(
    {
        "id": Field(WORD, "The ID of its os-release file.", required=True),
        "name": Field(Text(), "What people call it.", required=True),
        "format": Field(Text("the name of a package format", r"[a-z]+"), "Its package format.", required=True),
        "moving": Field(Several(WORD), "Suite names that mean another release from time to time.", ()),
        "architectures": Field(
            Named(ARCHITECTURE, Several(Text())),
            "Its architectures, each with the kernel's names for it.",
            required=True,
        ),
        "usr-links": Field(
            Named(ARCHITECTURE, Several(Text("a name", r"[a-z0-9]+"))),
            "Names at the top that are links into /usr in a merged root: `all` for every architecture.",
            {},
        ),
        "keys": Field(
            Named(
                WORD,
                Table(
                    {
                        "file": Field(Text("a path"), "The certificate, relative to this file.", required=True),
                        "fingerprint": Field(FINGERPRINT, "Its fingerprint.", required=True),
                        "origin": Field(Text(), "Where it was taken from.", required=True),
                    }
                ),
            ),
            "Certificates.",
            {},
        ),
        "archives": Field(Named(WORD, ARCHIVE), "What the archives of all releases have in common.", {}),
        "variables": Field(
            Named(Text("a name of lower-case letters", r"[a-z]+"), Named(ARCHITECTURE, Text("a string", r"[^\s{}]*"))),
            "Name = what {NAME} stands for in the URLs of archives, by architecture, or for `all` others; rpm only.",
            {},
        ),
        **_RPM,
        "release": Field(Several(RELEASE), "The releases, oldest first.", required=True),
    }
)
