"""Time our build of an RPM root against `dnf --installroot`, on one machine, from the same repositories, in one run.

The distribution is the one that the tests make of Debian's programs; it is served on loopback. The programs alternate,
each run starts from nothing (no cache) but for the one that is said to be warm, and the output is a directory. dnf is
let off verifying signatures, which we do: rpm 4.18 cannot import the tests' key. Figures are whole-process: wall
and processor seconds.

    benchmarks/rpm.py [--runs 5] [--work DIR]

DIR should lie on tmpfs or a journaled file system, and is named in the result.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "tests")]

from making.rpmdistro import DATABASE, make_rpm_distro  # noqa: E402 - lies where the line above says
from making.server import serve  # noqa: E402 - the same

NAMES = ("@core", "example-release", "meta", "daemon-one", "daemon-two", "kinds")


@dataclass(frozen=True)
class Timed:
    """One run of one program."""

    wall: float
    cpu: float


def main() -> int:
    """Make the distribution, run, print."""
    parser = argparse.ArgumentParser(description="Time rootfsbuild against dnf.")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--work", help="where the roots are made (default: /dev/shm)")
    arguments = parser.parse_args()
    missing = [name for name in ("dnf", "rpmbuild", "createrepo_c") if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        sys.exit(f"needs root and {', '.join(missing or ['nothing else'])}")
    with tempfile.TemporaryDirectory(dir=arguments.work or "/dev/shm") as folder:
        work = Path(folder)
        (work / "made").mkdir()
        distro = make_rpm_distro(work / "made", work / "debs")
        with serve(folder=distro.folder) as server:
            distro.describe(work, server.url)
            write_settings(work, server.url)
            programs = {
                "rootfsbuild": ours(work, warm=False),
                "rootfsbuild, warm store": ours(work, warm=True),
                "dnf": dnf(work),
            }
            results: dict[str, list[Timed]] = {name: [] for name in programs}
            for number in range(arguments.runs + 1):
                for name, command in programs.items():
                    timed = run(command, work, warm="warm" in name)
                    if number:  # the first round warms what the kernel caches
                        results[name].append(timed)
                        print(f"{name:<24} {timed.wall:6.2f} s", file=sys.stderr)
        report(results, work)
    return 0


def write_settings(work: Path, url: str) -> None:
    """Write what both are told: a recipe, and dnf's configuration."""
    names = ", ".join(f'"{name}"' for name in NAMES)
    (work / "recipe.toml").write_text(
        f'distro = "./example.toml"\nrelease = "1"\npackages.variant = "custom"\npackages.include = [{names}]\n'
    )
    repositories = "".join(f"[{name}]\nname={name}\nbaseurl={url}/{name}\n" for name in ("base", "extras"))
    settings = "gpgcheck=0\nreposdir=/nonexistent\nplugins=0\ninstall_weak_deps=0\n"
    (work / "dnf.conf").write_text(f"[main]\n{settings}{repositories}")
    (work / "home").mkdir()
    (work / "home/.rpmmacros").write_text(f"%_dbpath /{DATABASE}\n")


def ours(work: Path, *, warm: bool) -> Sequence[str]:
    """Return our command."""
    program = [sys.executable, "-m", "rootfsbuild", "-q", f"{work}/recipe.toml", "-o", f"{work}/out"]
    return [*program, "--cache-dir", f"{work}/{'store' if warm else 'cold'}"]


def dnf(work: Path) -> Sequence[str]:
    """Return dnf's command for the same packages."""
    program = ["dnf", "-q", "-y", "--config", f"{work}/dnf.conf", "--installroot", f"{work}/out", "--releasever", "1"]
    return [*program, "install", *NAMES]


def run(command: Sequence[str], work: Path, *, warm: bool) -> Timed:
    """Run one command to its end and remove what it made."""
    if not warm:
        shutil.rmtree(work / "cold", ignore_errors=True)
    environment: Mapping[str, str] = os.environ
    if command[0] == "dnf":
        environment = {**os.environ, "HOME": str(work / "home")}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.monotonic()
    done = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment)
    output = done.stdout.read() if done.stdout else b""
    status = done.wait()
    wall = time.monotonic() - start
    if status or b"Error in" in output:
        sys.exit(f"{' '.join(command)} failed:\n{output.decode(errors='replace')}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    shutil.rmtree(work / "out")
    for leftover in work.glob("out.*"):
        leftover.unlink()
    return Timed(wall, cpu)


def report(results: dict[str, list[Timed]], work: Path) -> None:
    """Print medians, and the ratio to dnf of each run beside its neighbour."""
    kind = subprocess.run(["stat", "-f", "-c", "%T", work], capture_output=True, text=True, check=True).stdout.strip()
    print(f"{len(NAMES)} names asked for, directory on {kind}, {os.cpu_count()} cores, {len(results['dnf'])} runs")
    print(f"{'':<24}  wall s   cpu s  wall / dnf's, run by run")
    for name, runs in results.items():
        ratios = [mine.wall / peer.wall for mine, peer in zip(runs, results["dnf"], strict=True)]
        print(
            f"{name:<24} {statistics.median(item.wall for item in runs):7.2f}"
            f" {statistics.median(item.cpu for item in runs):7.2f}"
            f"  {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        )


if __name__ == "__main__":
    sys.exit(main())
