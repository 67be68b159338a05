"""The demo as a person meets it: one command, piped into jq, interrupted, kept."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

FLEETCTL = [sys.executable, "-m", "fleetctl"]
ENGINES = ["mosquitto", "builtin"]


def environ(folder: Path) -> Mapping[str, str]:
    return {**os.environ, "TMPDIR": str(folder)}


def processes_of(folder: Path) -> list[str]:
    """Command lines of everything that runs below this folder."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            variables = (entry / "environ").read_bytes()
        except OSError:
            continue
        if str(folder).encode() in variables or str(folder) in command:
            found.append(command)
    return found


def assert_nothing_is_left(folder: Path) -> None:
    deadline = time.monotonic() + 10
    while processes_of(folder) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes_of(folder) == []
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("engine", ENGINES)
def test_the_demo_completes_one_rollout_and_halts_the_other(engine: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [*FLEETCTL, "demo", "--engine", engine, "-o", "json"], capture_output=True, text=True, env=environ(tmp_path), check=False
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert set(summary) == {"broker", "devices", "rollouts", "seconds"}
    assert set(summary["broker"]) == {"engine", "url"}
    assert summary["broker"]["engine"] == engine
    assert summary["devices"] == 30
    good, bad = summary["rollouts"]
    assert set(good) == {"id", "release", "state", "succeeded", "failed", "untouched"}
    assert (good["release"], good["state"]) == ("pump@2.0.0", "completed")
    assert (good["succeeded"], good["failed"], good["untouched"]) == (30, 0, 0)
    assert (bad["release"], bad["state"]) == ("pump@3.0.0", "halted")
    assert (bad["succeeded"], bad["failed"], bad["untouched"]) == (0, 2, 28)
    assert_nothing_is_left(tmp_path)


def test_the_summary_pipes_into_jq(tmp_path: Path) -> None:
    line = f"{sys.executable} -m fleetctl demo -o json | jq -e '.rollouts[1].state==\"halted\"'"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line], capture_output=True, text=True, env=environ(tmp_path), check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "true"), done.stderr


def read_until(stream: Any, event: str) -> dict[str, Any]:
    for line in stream:
        found: dict[str, Any] = json.loads(line)
        if found.get("event") == event:
            return found
    raise AssertionError(f"the demo ended without {event}")


@pytest.mark.parametrize("moment", ["began", "broker", "provisioned", "wave"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing_behind(moment: str, number: signal.Signals, tmp_path: Path) -> None:
    with subprocess.Popen(
        [*FLEETCTL, "demo", "-o", "jsonl"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ(tmp_path), text=True
    ) as demo:
        read_until(demo.stdout, moment)
        demo.send_signal(number)
        _, errors = demo.communicate(timeout=30)
    assert demo.returncode == 130
    assert "Traceback" not in errors
    assert_nothing_is_left(tmp_path)


def test_a_killed_demo_leaves_no_process_behind(tmp_path: Path) -> None:
    with subprocess.Popen(
        [*FLEETCTL, "demo", "-o", "jsonl"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environ(tmp_path), text=True
    ) as demo:
        read_until(demo.stdout, "wave")
        demo.kill()
    deadline = time.monotonic() + 10
    while processes_of(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes_of(tmp_path) == []


def test_a_kept_demo_talks_to_another_terminal_and_its_controller_stays_small(tmp_path: Path) -> None:
    with subprocess.Popen(
        [*FLEETCTL, "demo", "--keep", "-o", "jsonl"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environ(tmp_path),
        text=True,
    ) as demo:
        lines = read_until(demo.stdout, "kept")["lines"]
        peak = next(line for line in Path(f"/proc/{demo.pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
        assert int(peak.split()[1]) < 100_000, "kB of the demo's controller at its peak"
        script = "set -e\n" + "\n".join(lines).replace("fleetctl ", f"{sys.executable} -m fleetctl ")
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        assert "pump-01" in done.stdout
        demo.send_signal(signal.SIGINT)
        demo.communicate(timeout=30)
    assert_nothing_is_left(tmp_path)
