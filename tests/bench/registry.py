"""What a registry of a million devices costs, as ratios and growth, in CPU time. Exits 1 where a limit is passed.

FLEETCTL_BENCH_DEVICES sets another size. The floor of the import is a bare `executemany` of the same rows into the same tables.
"""

import os
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from fleetctl.platforms.local.init import create_context
from fleetctl.registry import Registry
from tests.bench.startup import START, cpu, settings

DEVICES = int(os.environ.get("FLEETCTL_BENCH_DEVICES", "1000000"))
FEW = 10_000
ROUNDS = int(os.environ.get("FLEETCTL_BENCH_ROUNDS", "7"))
LIMITS = {
    "import, of a bare executemany": (0.2, "at least"),
    "selector with --limit 100, of that with few": (1.5, "at most"),
    "list -o jsonl, megabytes": (150.0, "at most"),
    "start, of that with few": (1.2, "at most"),
    "TAB, of python3 -c pass": (2.5, "at most"),
}
SELECTING = ["provision", "list", "-l", "group=canary", "--limit", "100", "-o", "name"]


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds of this process."""
    before = time.process_time()
    work()
    return time.process_time() - before


def environment_of(folder: Path, size: int) -> dict[str, str]:
    return {**settings(folder), "FLEETCTL_HOME": str(folder / f"home-{size}")}


def fill(fleetctl: list[str], folder: Path, size: int) -> float:
    """A context with so many devices, one in twenty a canary; the CPU seconds of their import."""
    rows = folder / "devices.csv"
    with rows.open("w") as file:
        file.write("id,type,location,group\n")
        file.writelines(f"device-{n:07},pump,oslo,{'canary' if n % 20 == 0 else 'rest'}\n" for n in range(size))
    environment = environment_of(folder, size)
    create_context("default", "acme", environ=environment)
    return cpu([*fleetctl, "provision", "import", str(rows)], environment)


def bare(folder: Path) -> float:
    """CPU seconds of writing the same rows into the same tables in one transaction, and nothing else."""
    with closing(sqlite3.connect(folder / f"home-{DEVICES}" / "default" / "registry.db")) as held:
        tables = {name: held.execute(f"SELECT * FROM {name}").fetchall() for name in ("devices", "labels")}  # noqa: S608
    place = folder / "bare.db"
    Registry.create(place, "acme").close()

    def write() -> None:
        with closing(sqlite3.connect(place)) as connection, connection:
            for name, rows in tables.items():
                connection.executemany(f"INSERT INTO {name} VALUES ({', '.join('?' * len(rows[0]))})", rows)  # noqa: S608

    return seconds(write)


def megabytes(command: list[str], environment: dict[str, str]) -> float:
    """The most memory that one run takes."""
    code = "import os, resource, sys; status = os.spawnv(os.P_WAIT, sys.argv[1], sys.argv[1:]); "
    code += "sys.stderr.write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)); sys.exit(status)"
    done = subprocess.run(
        [sys.executable, "-c", code, *command], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True
    )
    return int(done.stderr.split()[-1]) / 1024


def medians(commands: list[tuple[list[str], dict[str, str]]]) -> list[float]:
    """Taking turns, so that a busy machine is busy for all of them."""
    times = [[cpu(*each) for each in commands] for _ in range(ROUNDS)]
    return [statistics.median(column) for column in zip(*times, strict=True)]


def measure(folder: Path) -> dict[str, float]:
    venv.create(folder / "python", with_pip=False)
    (folder / "fleetctl").write_text(START)
    fleetctl = [str(folder / "python" / "bin" / "python3"), str(folder / "fleetctl")]
    fill(fleetctl, folder, FEW)
    imported = fill(fleetctl, folder, DEVICES)
    floor = bare(folder)
    few, many = environment_of(folder, FEW), environment_of(folder, DEVICES)
    tab = {**many, "_FLEETCTL_COMPLETE": "complete_bash", "COMP_WORDS": "fleetctl\nprovision\nshow\ndevice-09", "COMP_CWORD": "3"}
    one = ["provision", "list", "device-0000001"]
    found = medians(
        [
            ([*fleetctl, *SELECTING], few),
            ([*fleetctl, *SELECTING], many),
            ([*fleetctl, *one], few),
            ([*fleetctl, *one], many),
            (fleetctl, tab),
            ([fleetctl[0], "-c", "pass"], many),
        ]
    )
    print(f"{DEVICES} devices: import {imported:.1f} s, bare {floor:.1f} s of CPU")
    print(f"selector {found[1] * 1000:.0f} ms, TAB {found[4] * 1000:.0f} ms")
    values = (floor / imported, found[1] / found[0], 0.0, found[3] / found[2], found[4] / found[5])
    listed = megabytes([*fleetctl, "provision", "list", "-o", "jsonl"], many)
    return {name: listed if "megabytes" in name else value for name, value in zip(LIMITS, values, strict=True)}


def main() -> int:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory() as name:
        found = measure(Path(name))
    good = True
    for name, (limit, kind) in LIMITS.items():
        is_met = found[name] >= limit if kind == "at least" else found[name] <= limit
        good = good and is_met
        print(f"{name:<46}{found[name]:8.2f}   {kind} {limit:g}   {'ok' if is_met else 'TOO SLOW'}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
