"""The fields of a distribution file: the one table from which it is checked."""

from __future__ import annotations

from rootfsbuild.documents.shapes import Field, Flag, Moment, Named, Several, Table, Text, Whole

WORD = Text("a word of lower-case letters, digits and . + -", r"[a-z0-9][a-z0-9.+-]*")
PACKAGE = Text("a package name", r"[a-z0-9][a-z0-9+.-]+")
ARCHITECTURE = Text("a Debian architecture such as amd64", r"[a-z0-9][a-z0-9-]*")
FINGERPRINT = Text("a fingerprint of 40 or 64 hexadecimal digits", r"[0-9A-Fa-f]{40}|[0-9A-Fa-f]{64}")
URL = Text("a URL (http, https or file) or an absolute path", r"(https?|file)://\S+|/\S*")
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
        "mirrors": Field(Several(URL), "Official mirrors in the order in which they are tried."),
        "keys": Field(Several(WORD), "Names of the keys in [keys] that may sign it."),
        "snapshot": Field(TEMPLATE, "Where past states are served."),
        "snapshot-file": Field(BY_HASH, "Where any file that it ever had is served by its hash."),
        "architectures": Field(Several(ARCHITECTURE), "Architectures it still serves, if fewer than the release has."),
        "threshold": Field(Whole(1, 16), "How many different keys must have signed.", 1),
        "check-valid-until": Field(Flag(), "Whether the Valid-Until of its Release is believed.", default=True),
        "max-age-days": Field(Whole(1, 36500, "a number of days"), "Days after which a Release is too old."),
    }
)

RELEASE = Table(
    {
        "version": Field(Text("the release's number as a string", r"[0-9]+(\.[0-9]+)*"), "Its number, if it has one."),
        "codename": Field(WORD, "Its name, which never moves to another release.", required=True),
        "eol": Field(Moment(), "The last day on which it receives security updates."),
        "aliases": Field(Several(WORD), "Other names that always mean this release.", ()),
        "architectures": Field(Several(ARCHITECTURE), "Architectures it can be built for.", required=True),
        "components": Field(Several(COMPONENT), "Components it knows.", required=True),
        "merged-usr": Field(Flag(), "Whether /bin, /sbin and /lib are links into /usr.", default=True),
        "preselect": Field(Several(PACKAGE), "Packages that are chosen before anything else.", ()),
        "archives": Field(Named(WORD, ARCHIVE), "Its archives; what they say wins over [archives].", required=True),
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
        "release": Field(Several(RELEASE), "The releases, oldest first.", required=True),
    }
)
