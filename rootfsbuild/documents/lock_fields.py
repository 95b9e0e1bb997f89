"""The fields of a lock: the table from which one is checked."""

from __future__ import annotations

from rootfsbuild.documents.distro_fields import WORD
from rootfsbuild.documents.recipe_fields import NAME
from rootfsbuild.documents.shapes import Either, Field, Flag, Named, Several, Table, Text, Whole

SCHEMA = 1
"""Raised when an older program could no longer read what is written."""

DIGEST = Text("sha256: and 64 hexadecimal digits", r"sha256:[0-9a-f]{64}")
_FINGERPRINT = Text("a fingerprint", r"[0-9A-F]{40}([0-9A-F]{24})?")
_PATH = Text(
    "a path below an archive's root, without . or .. parts",
    r"(?!/)(?:(?!\.{1,2}/)[^/\0\n]+/)*(?!\.{1,2}$)[^/\0\n]+",
)
_TEXT = Text("text")
_NUMBER = Whole(0, 1 << 62)
_VALUE = Either((_TEXT, _NUMBER, Flag(), Several(_TEXT)))

INDEX = Table(
    {
        "path": Field(_PATH, "Its path beside the signed document.", required=True),
        "size": Field(_NUMBER, "Bytes.", required=True),
        "hash": Field(DIGEST, "Its digest.", required=True),
    }
)

ARCHIVE = Table(
    {
        "name": Field(WORD, "The archive.", required=True),
        "suite": Field(Text("a suite", r"[^\0\n]+"), "The suite asked for.", required=True),
        "codename": Field(_TEXT, "What the document calls itself.", required=True),
        "components": Field(Several(_TEXT), "Components in use.", required=True),
        "architecture": Field(_TEXT, "The architecture.", required=True),
        "date": Field(_NUMBER, "Its Date, in seconds since 1970.", required=True),
        "valid-until": Field(_NUMBER, "The end of its validity, if it sets one."),
        "hash": Field(DIGEST, "Digest of the signed document.", required=True),
        "signers": Field(Several(_FINGERPRINT), "Whose signatures were good.", required=True),
        "keyring": Field(DIGEST, "Digest of the certificates that might have signed.", required=True),
        "index": Field(Several(INDEX), "The indexes that were read.", ()),
    }
)

PACKAGE = Table(
    {
        "name": Field(Text("a package name", r"[A-Za-z0-9][A-Za-z0-9+.~_-]*"), "The package.", required=True),
        "version": Field(Text("a version", r"\S+"), "Its full version.", required=True),
        "architecture": Field(Text("an architecture", r"[a-z0-9_-]+"), "Its architecture.", required=True),
        "source": Field(_TEXT, "Its source package, where that is called otherwise."),
        "source-version": Field(_TEXT, "The source package's version, where it is another."),
        "archive": Field(WORD, "The archive that it comes from.", required=True),
        "suite": Field(_TEXT, "The suite in it.", required=True),
        "component": Field(_TEXT, "The component in it.", required=True),
        "filename": Field(_PATH, "Its path in the archive.", required=True),
        "size": Field(_NUMBER, "Bytes of the file.", required=True),
        "installed-size": Field(_NUMBER, "Bytes on disk, as its index estimates them.", required=True),
        "hash": Field(DIGEST, "Digest of the file.", required=True),
        "why": Field(
            Text("a reason", choices=("requested", "essential", "priority", "distribution", "dependency")),
            "The kind of reason it is there for.",
            required=True,
        ),
        "detail": Field(_TEXT, "The request, the priority or the relation.", ""),
        "by": Field(_TEXT, "The package whose relation it is.", ""),
        "rejected": Field(Several(Several(_TEXT)), "Options that lost, each with the rule.", ()),
        "automatic": Field(Flag(), "Whether it is marked as automatically installed.", default=False),
        "wave": Field(Whole(0, 1000), "0 for the base, above it what comes on top.", 0),
        "depends": Field(Several(_TEXT), "Packages of this lock that it needs.", ()),
        "pre-depends": Field(Several(_TEXT), "Those of them that must work before it is unpacked.", ()),
        "control": Field(Named(_TEXT, _TEXT), "Fields of its control data that a choice can depend on.", {}),
    }
)

LOCK = Table(
    {
        "schema": Field(Whole(1, 1 << 30), "The version of this format.", required=True),
        "tool": Field(_TEXT, "The program that wrote it, with its version.", required=True),
        "digest": Field(DIGEST, "Digest of everything else in the file.", required=True),
        "name": Field(NAME, "The recipe's name.", required=True),
        "format": Field(Text("a package format", r"[a-z]+"), "The package format.", required=True),
        "distro": Field(WORD, "The distribution.", required=True),
        "release": Field(_TEXT, "The release's codename.", required=True),
        "architecture": Field(Text("an architecture", r"[a-z0-9_-]+"), "The architecture.", required=True),
        "epoch": Field(_NUMBER, "The time of the image, in seconds since 1970.", required=True),
        "weakened": Field(Several(_TEXT), "Checks that were switched off by name.", required=True),
        "recipe": Field(Named(_TEXT, _VALUE), "What the recipe said.", required=True),
        "archive": Field(Several(ARCHIVE), "What was trusted.", ()),
        "package": Field(Several(PACKAGE), "What is installed, in that order.", ()),
    }
)
