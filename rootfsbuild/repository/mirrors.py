"""Where an archive is served: an ordered list of mirrors, never a part of a recipe's identity."""

from __future__ import annotations

import datetime as dt
import os
import shlex
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

from rootfsbuild.errors import RecipeError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from rootfsbuild.distro import Archive

SCHEMES = ("http", "https", "file")
_COPIED_WITHIN = 5 * 3600


@dataclass(frozen=True)
class Mirror:
    """One place that serves an archive."""

    url: str
    """`http`, `https` or `file`, without a slash at the end; `dists/` and `pool/` lie below it."""
    origin: str
    """What named it: `--mirror`, a variable, a file, `the host's apt sources` or `distribution`."""


def past_url(archive: Archive, date: int) -> str:
    """Return the URL of an archive as it was when its document of `date` (seconds) was current."""
    # The service takes its copies some hours after a push; one is followed by the next after six.
    moment = dt.datetime.fromtimestamp(date + _COPIED_WITHIN, dt.UTC)
    return archive.snapshot.format(archive=archive.name, timestamp=f"{moment:%Y%m%dT%H%M%SZ}").rstrip("/")


def find_mirrors(
    archive: str,
    official: Sequence[str],
    *,
    distro: str,
    suites: Sequence[str],
    overrides: Mapping[str, str],
    environ: Mapping[str, str],
    host_root: str = "/",
) -> tuple[Mirror, ...]:
    """Return the mirrors of one archive, in the order in which they are to be tried.

    `--mirror` (`overrides`, by archive name) and `ROOTFSBUILD_MIRROR_<NAME>` are orders: what they name is
    used alone, so that a build meant for one mirror never talks to another. A mirrors file is a preference:
    its mirrors come first, then the host's own apt sources if the host runs `distro`, then the `official`
    ones.
    Nothing but addresses is taken from the host: its keys, pins and `trusted=yes` mean nothing here.

    Raises UsageError for an order that is no address and RecipeError for a mirrors file that cannot be read.
    """
    if archive in overrides:
        return (Mirror(_ordered(overrides[archive], f"--mirror {archive}"), "--mirror"),)
    variable = "ROOTFSBUILD_MIRROR_" + archive.upper().replace("-", "_")
    if environ.get(variable):
        return (Mirror(_ordered(environ[variable], variable), variable),)
    found = [*_from_files(archive, environ, host_root)]
    if host_distro(host_root) == distro:
        urls = _host_urls(archive, suites, host_root)
        found += [Mirror(url, "the host's apt sources") for url in urls]
    found += [Mirror(_ordered(url, f"the official mirrors of {archive}"), "distribution") for url in official]
    return tuple({mirror.url: mirror for mirror in reversed(found)}[url] for url in _unique(found))


def host_distro(host_root: str = "/") -> str:
    """Return the ID in the host's os-release(5), empty when there is none."""
    for name in ("etc/os-release", "usr/lib/os-release"):
        text = _read(os.path.join(host_root, name))
        for line in (text or "").splitlines():
            key, _, value = line.partition("=")
            if key.strip() == "ID":
                return "".join(shlex.split(value)[:1])
        if text is not None:
            return "linux"  # the default that os-release(5) gives
    return ""


def address(text: str) -> str:
    """Return a mirror's URL from a URL or a path; raise ValueError with what is wrong with it."""
    if not text or any(character.isspace() and character != " " for character in text) or "\0" in text:
        raise ValueError("is not an address")
    if text.startswith(("/", "./", "../", "~")) or text in {".", ".."}:
        return "file://" + quote(os.path.abspath(os.path.expanduser(text)).rstrip("/"))
    parts = urlsplit(text)
    if parts.scheme == "file":
        if parts.netloc not in {"", "localhost"} or not parts.path.startswith("/"):
            raise ValueError("names a file on another machine")
        return "file://" + quote(unquote(parts.path).rstrip("/"))
    if parts.scheme not in SCHEMES:
        raise ValueError(f"has the scheme {parts.scheme!r}" if parts.scheme else "is no URL and no absolute path")
    if not parts.hostname or " " in text or parts.query or parts.fragment:
        raise ValueError("is not the address of a directory on a server")
    return text.rstrip("/")


def without_password(url: str) -> str:
    """Return a URL as it may be shown and recorded: without user name and password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if "@" in parts.netloc else url


def _ordered(text: str, where: str) -> str:
    try:
        return address(text)
    except ValueError as error:
        raise UsageError(
            f"{where}: {text!r} {error}", hint="give an http, https or file URL, or a path that begins with /"
        ) from None


def _unique(mirrors: Iterable[Mirror]) -> list[str]:
    return list(dict.fromkeys(mirror.url for mirror in mirrors))


def _from_files(archive: str, environ: Mapping[str, str], host_root: str) -> Iterator[Mirror]:
    home = environ.get("XDG_CONFIG_HOME") or (os.path.join(environ["HOME"], ".config") if environ.get("HOME") else "")
    paths = [os.path.join(home, "rootfsbuild/mirrors.toml")] if home else []
    for path in (*paths, os.path.join(host_root, "etc/rootfsbuild/mirrors.toml")):
        text = _read(path)
        if text is not None:
            yield from (Mirror(url, path) for url in _listed(archive, path, text))


def _listed(archive: str, path: str, text: str) -> Iterator[str]:
    try:
        mirrors = tomllib.loads(text).get("mirrors", {})
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(path, f"is not TOML: {error}") from None
    if not isinstance(mirrors, dict):
        raise RecipeError(path, "is not a table", where="mirrors", expected='[mirrors] with lines `debian = "URL"`')
    urls = mirrors.get(archive, [])
    for url in urls if isinstance(urls, list) else [urls]:
        try:
            yield address(url if isinstance(url, str) else "")
        except ValueError as error:
            expected = "a URL or an absolute path, or a list of them"
            raise RecipeError(path, f"{url!r} {error}", where=f"mirrors.{archive}", expected=expected) from None


def _host_urls(archive: str, suites: Sequence[str], host_root: str) -> list[str]:
    """Return the host's mirrors of an archive: paths that end in its name, then those with its suites."""
    named, suited = [], []
    for uri, suite in _host_sources(host_root):
        try:
            url = address(uri)
        except ValueError:
            continue
        if url.rpartition("/")[2] == archive:
            named.append(url)
        elif suite in suites:
            suited.append(url)
    return list(dict.fromkeys(named + suited))


def _host_sources(host_root: str) -> Iterator[tuple[str, str]]:
    folder = os.path.join(host_root, "etc/apt/sources.list.d")
    try:
        parts = sorted(os.listdir(folder))
    except OSError:
        parts = []
    for path in [
        os.path.join(host_root, "etc/apt/sources.list"),
        *(os.path.join(folder, part) for part in parts),
    ]:
        text = _read(path) if path.endswith((".list", ".sources")) else None
        if text is not None:
            yield from _deb822(text) if path.endswith(".sources") else _one_line(text)


def _one_line(text: str) -> Iterator[tuple[str, str]]:
    """Yield (URI, suite) of `deb [options] uri suite component…` lines, as sources.list(5) has them."""
    for line in text.splitlines():
        kind, *rest = line.partition("#")[0].split(None, 1) or [""]
        options = rest[:1] and rest[0].startswith("[")
        words = (rest[0].partition("]")[2] if options else "".join(rest)).split()
        if kind == "deb" and len(words) >= 2:
            yield words[0], words[1]


def _deb822(text: str) -> Iterator[tuple[str, str]]:
    """Yield (URI, suite) of the enabled `deb` stanzas of a deb822 file, as sources.list(5) has them."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for stanza in "\n".join(line.rstrip() for line in lines).split("\n\n"):
        fields: dict[str, list[str]] = {}
        name = ""
        for line in stanza.splitlines():
            if line[:1].isspace():
                fields.setdefault(name, []).extend(line.split())
            else:
                name, _, value = line.partition(":")
                name = name.strip().lower()
                fields[name] = value.split()
        enabled = "".join(fields.get("enabled", ["yes"])).lower() not in {
            "no",
            "false",
            "0",
            "off",
            "without",
        }
        if enabled and "deb" in fields.get("types", []):
            yield from ((uri, suite) for uri in fields.get("uris", []) for suite in fields.get("suites", []))


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(1 << 20)
    except OSError:
        return None
