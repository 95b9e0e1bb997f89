"""Time our build against mmdebstrap and debootstrap on one machine, from one mirror, in one run.

The mirror is filled first, with exactly the files that the three ask for, and served on loopback; so the network's
mood is nobody's advantage. The programs alternate, each run starts from nothing (no cache), and the output is a
directory. Figures are whole-process: wall seconds, processor seconds, peak memory of the largest process.

    benchmarks/bootstrap.py [--runs 5] [--release bookworm] [--work DIR]

DIR should lie on tmpfs or a journaled file system, and is named in the result.
"""

from __future__ import annotations

import argparse
import http.server
import importlib.util
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MERGED_USR = "/usr/share/mmdebstrap/hooks/merged-usr"


@dataclass(frozen=True)
class Timed:
    """One run of one program."""

    wall: float
    cpu: float
    memory: float
    """MB of the largest process."""


def main() -> int:
    """Fill the mirror, run, print."""
    parser = argparse.ArgumentParser(description="Time rootfsbuild against mmdebstrap and debootstrap.")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--release", default="bookworm")
    parser.add_argument("--mirror", help="what to fill the local mirror from (default: the host's apt sources)")
    parser.add_argument("--work", help="where the roots are made (default: /dev/shm)")
    arguments = parser.parse_args()
    missing = [name for name in ("mmdebstrap", "debootstrap") if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        sys.exit(f"needs root and {', '.join(missing or ['nothing else'])}")
    with tempfile.TemporaryDirectory(dir=arguments.work or "/dev/shm") as work:
        mirror = Path(work, "mirror")
        upstream = arguments.mirror or host_mirror()
        server = serve(mirror, upstream)
        url = f"http://127.0.0.1:{server.server_address[1]}/debian"
        programs = {
            "rootfsbuild": lambda out: ours(work, arguments.release, url, out, warm=False),
            "rootfsbuild, warm store": lambda out: ours(work, arguments.release, url, out, warm=True),
            "mmdebstrap": lambda out: mmdebstrap(arguments.release, url, out),
            "debootstrap": lambda out: debootstrap(arguments.release, url, out),
        }
        results: dict[str, list[Timed]] = {name: [] for name in programs}
        for number in range(arguments.runs + 1):
            for name, command in programs.items():
                timed = run(command(f"{work}/out"), work)
                if number:  # the first round fills the mirror and warms what the kernel caches
                    results[name].append(timed)
                    print(f"{name:<24} {timed.wall:6.2f} s", file=sys.stderr)
        server.shutdown()
        report(results, work, arguments.release)
    return 0


def host_mirror() -> str:
    """Return the Debian mirror of the host's own apt sources."""
    sources = [*Path("/etc/apt").glob("sources.list"), *Path("/etc/apt/sources.list.d").glob("*")]
    text = "\n".join(path.read_text() for path in sources)
    found = re.search(r"https?://[^\s\]]+/debian/?(?=\s|$)", text)
    if found is None:
        sys.exit("no Debian mirror in the host's apt sources: name one with --mirror")
    return found[0].rstrip("/")


def serve(folder: Path, upstream: str) -> http.server.ThreadingHTTPServer:
    """Serve `folder` on loopback, filling it from upstream when a file is first asked for."""
    lock = threading.Lock()

    class Handler(http.server.SimpleHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def __init__(self, *words: object, **named: object) -> None:
            super().__init__(*words, directory=str(folder), **named)  # type: ignore[arg-type]

        def send_head(self) -> object:  # type: ignore[override]
            path = urllib.parse.unquote(self.path.split("?")[0]).removeprefix("/debian/")
            local = folder / "debian" / path
            with lock:
                if not local.exists():
                    fill(local, f"{upstream}/{urllib.parse.quote(path)}")
            return super().send_head()

        def log_message(self, *_: object) -> None:
            return

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            return  # a client that has read enough hangs up

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def fill(local: Path, url: str) -> None:
    """Fetch one file into the mirror; what upstream does not have stays absent."""
    try:
        with urllib.request.urlopen(url) as answer:
            data = answer.read()
    except OSError:
        return
    local.parent.mkdir(parents=True, exist_ok=True)
    local.write_bytes(data)


def ours(work: str, release: str, url: str, out: str, *, warm: bool) -> Sequence[str]:
    """Return our command, for the same single suite that the others are given."""
    recipe = Path(work, "recipe.toml")
    recipe.write_text(
        f'distro = "debian"\nrelease = "{release}"\n'
        f'[[archive]]\nname = "debian"\nsuites = ["{release}"]\n'
        '[[archive]]\nname = "debian-security"\nenabled = false\n'
    )
    cache = f"{work}/store" if warm else f"{work}/cold"
    if not warm:
        shutil.rmtree(cache, ignore_errors=True)
    program = [sys.executable, "-m", "rootfsbuild", "-q", str(recipe), "-o", out]
    return [*program, "--mirror", f"debian={url}", "--cache-dir", cache]


def mmdebstrap(release: str, url: str, out: str) -> Sequence[str]:
    """Return mmdebstrap's command for the same packages."""
    hook = [f"--hook-dir={MERGED_USR}"]
    return ["mmdebstrap", "--quiet", "--variant=minbase", *hook, release, out, f"deb {url} {release} main"]


def debootstrap(release: str, url: str, out: str) -> Sequence[str]:
    """Return debootstrap's command for the same packages."""
    return ["debootstrap", "--variant=minbase", "--merged-usr", release, out, url]


def run(command: Sequence[str], work: str) -> Timed:
    """Run one command to its end and remove what it made."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.monotonic()
    done = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output = done.stdout.read() if done.stdout else b""
    _, status, usage = os.wait4(done.pid, 0)
    wall = time.monotonic() - start
    if status:
        sys.exit(f"{' '.join(command)} failed:\n{output.decode(errors='replace')}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    shutil.rmtree(f"{work}/out")
    for leftover in Path(work).glob("out.*"):
        leftover.unlink()
    return Timed(wall, cpu, usage.ru_maxrss / 1024)


def report(results: dict[str, list[Timed]], work: str, release: str) -> None:
    """Print medians, and the ratio to us of each run beside its neighbour."""
    kind = subprocess.run(["stat", "-f", "-c", "%T", work], capture_output=True, text=True, check=True).stdout.strip()
    xz = "lzma_mt" if importlib.util.find_spec("lzma_mt") else "the standard library"
    print(
        f"minbase {release}, directory on {kind}, {os.cpu_count()} cores, {len(results['mmdebstrap'])} runs, xz by {xz}"
    )
    print(f"{'':<24}  wall s   cpu s  memory MB  wall / mmdebstrap's, run by run")
    for name, runs in results.items():
        ratios = [mine.wall / peer.wall for mine, peer in zip(runs, results["mmdebstrap"], strict=True)]
        print(
            f"{name:<24} {statistics.median(item.wall for item in runs):7.2f}"
            f" {statistics.median(item.cpu for item in runs):7.2f}"
            f" {max(item.memory for item in runs):10.0f}"
            f"  {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        )


if __name__ == "__main__":
    sys.exit(main())
