"""How much CPU starting costs, as ratios to `python3 -c pass` in the same run. Exits 1 where a limit is passed.

Everything, `-c pass` included, runs in a bare virtual environment with the packages on PYTHONPATH: an editable install (and
whatever else has put a .pth file into this machine's Python) works at every start and would flatter the ratios.
"""

import os
import resource
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

ROUNDS = int(os.environ.get("FLEETCTL_BENCH_ROUNDS", "21"))
DEVICES = 10
START = "import sys\nfrom fleetctl.__main__ import main\nif __name__ == '__main__':\n    sys.exit(main())\n"
LIMITS = {("--version",): 2.0, ("--help",): 7.0, ("provision", "list"): 10.0}


def cpu(command: list[str], environment: dict[str, str]) -> float:
    """User and system seconds of one run."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def prepare(fleetctl: list[str], environment: dict[str, str], folder: Path) -> None:
    """A context with ten devices."""
    rows = "".join(f"pump-{index},pump,oslo\n" for index in range(DEVICES))
    (folder / "devices.csv").write_text("id,type,location\n" + rows)
    for words in (["init", "--tenant", "acme"], ["provision", "import", str(folder / "devices.csv")]):
        subprocess.run([*fleetctl, *words], check=True, env=environment, stdout=subprocess.DEVNULL)


def measure(fleetctl: list[str], environment: dict[str, str]) -> dict[tuple[str, ...], float]:
    """Median ratios; commands and floor take turns, so that a busy machine is busy for all of them."""
    floors: list[float] = []
    seen: dict[tuple[str, ...], list[float]] = {words: [] for words in LIMITS}
    for _ in range(ROUNDS):
        floors.append(cpu([fleetctl[0], "-c", "pass"], environment))
        for words, times in seen.items():
            times.append(cpu([*fleetctl, *words], environment))
    floor = statistics.median(floors)
    print(f"python3 -c pass: {floor * 1000:.1f} ms CPU, median of {ROUNDS}")
    return {words: statistics.median(times) / floor for words, times in seen.items()}


def settings(folder: Path) -> dict[str, str]:
    """An environment in which bytecode is kept, outside the project."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "FLEETCTL"))}
    path = os.pathsep.join([str(Path(__file__).parents[2]), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
    return {**kept, "FLEETCTL_HOME": str(folder / "home"), "PYTHONPATH": path, "PYTHONPYCACHEPREFIX": str(folder / "bytecode")}


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        venv.create(folder / "python", with_pip=False)
        (folder / "fleetctl").write_text(START)
        fleetctl = [str(folder / "python" / "bin" / "python3"), str(folder / "fleetctl")]
        environment = settings(folder)
        prepare(fleetctl, environment, folder)
        ratios = measure(fleetctl, environment)
    for words, ratio in ratios.items():
        print(f"{' '.join(words):<16}{ratio:6.2f}x   limit {LIMITS[words]:g}x   {'ok' if ratio <= LIMITS[words] else 'TOO SLOW'}")
    return 1 if any(ratio > LIMITS[words] for words, ratio in ratios.items()) else 0


if __name__ == "__main__":
    sys.exit(main())
