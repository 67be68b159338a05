"""What must not leak, and how commands end that are cut short: secrets, modes, Ctrl-C, closed pipes."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.console import Console, interrupt
from tests.e2e.running import RunningFleet


def secrets_of(folder: Path) -> list[bytes]:
    """The lines of every private key below a folder."""
    found = [line for path in folder.rglob("*.key") for line in path.read_bytes().splitlines()[1:-1]]
    assert found
    return found


def test_keys_are_for_their_owner_alone_and_in_no_other_file(running_fleet: RunningFleet) -> None:
    keys = list(running_fleet.folder.rglob("*.key"))
    assert {path.stat().st_mode & 0o777 for path in keys} == {0o600}
    assert running_fleet.console.folder.joinpath("keys").stat().st_mode & 0o777 == 0o700
    private = secrets_of(running_fleet.folder)
    for path in running_fleet.folder.rglob("*"):
        if path.is_file() and path not in keys:
            data = path.read_bytes()
            assert b"PRIVATE KEY" not in data, path
            assert not any(line in data for line in private), path


def test_no_process_is_started_with_a_secret_in_its_words(running_fleet: RunningFleet) -> None:
    private = secrets_of(running_fleet.folder)
    told = b"".join(path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if _readable(path))
    assert not any(line in told for line in private)


def _readable(path: Path) -> bool:
    try:
        return bool(path.read_bytes())
    except OSError:
        return False


def test_errors_and_debug_output_hold_no_secret(console: Console, tmp_path: Path) -> None:
    private = secrets_of(console.folder)
    opened, broken = tmp_path / "opened.key", tmp_path / "broken.key"
    opened.write_bytes((console.folder / "keys" / "operator.key").read_bytes())
    broken.write_bytes(b"\n".join(opened.read_bytes().splitlines()[:-1]))
    broken.chmod(0o600)
    pki = console.folder / "pki"
    adopt = ["init", "x", "--tenant", "acme", "--external", "--broker", "mqtts://localhost:1", "--ca", pki / "fleet-ca.pem"]
    for key in (opened, broken, console.folder / "keys" / "broker.key"):
        said = console.run(*adopt, "--cert", pki / "operator.pem", "--key", key, "--debug")
        assert said.status in (2, 4)
        assert not any(line.decode() in said.out + said.err for line in private)
    words = ["init", "y", "--tenant", "acme", "--external", "--broker", "mqtts://localhost:1", "--username", "me"]
    for reference in ("hunter2", "env:NOT_THERE", f"file:{tmp_path}/none", "keyring:x"):
        said = console.run(*words, "--password-ref", reference, "-o", "json")
        assert "hunter2" not in said.out + said.err
    assert not any(b"hunter2" in path.read_bytes() for path in console.home.rglob("*") if path.is_file())


def test_a_password_in_an_address_is_neither_kept_nor_repeated(unchanged: Console) -> None:
    said = unchanged.run(
        "init", "z", "--tenant", "acme", "--external", "--broker", "mqtts://me:hunter2@localhost:1", "-o", "json"
    )
    said.error(2, "")
    assert "hunter2" not in said.out + said.err


LONG = [
    ["tail"],
    ["agent", "run", "{bundle}", "--state", "{state}"],
    ["ota", "resume", "{rollout}"],
    ["ota", "watch", "{rollout}"],
]


@pytest.mark.parametrize("words", LONG, ids=lambda words: "-".join(words[:2]))
def test_ctrl_c_is_130_in_one_line(running_fleet: RunningFleet, words: list[str], tmp_path: Path) -> None:
    console = running_fleet.console
    filled = {
        "bundle": str(running_fleet.bundle("pump-9")),
        "state": str(tmp_path / "state"),
        "rollout": _rollout(running_fleet, tmp_path) if words[0] == "ota" else "",
    }
    with console.start(*(word.format(**filled) for word in words), "-o", "jsonl") as running:
        assert running.stdout is not None
        if words[1:2] != ["watch"]:  # nobody has started it: there is nothing to tell
            running.stdout.readline()
        time.sleep(1.5)
        said = interrupt(running)
    assert said.status == 130, said.err
    assert "Traceback" not in said.err
    assert said.err.startswith("\ninterrupted\n")
    assert ("fleetctl ota resume" in said.err) == (words[1:2] == ["resume"])


def _rollout(fleet: RunningFleet, folder: Path) -> str:
    """A rollout to a device that never answers."""
    version = f"5.0.{time.time_ns()}"
    image = folder / "image"
    image.write_bytes(version.encode())
    assert fleet.console.run("ota", "publish", image, "--type", "pump", "--version", version).status == 0
    made = fleet.console.run("ota", "plan", f"pump@{version}", "pump-9", "--supersede", "-o", "json")
    return str(made.json["id"])


@pytest.mark.parametrize("verb", [["broker", "run"], ["ota", "serve"]], ids="-".join)
def test_servers_end_with_ctrl_c_and_can_be_started_again(console: Console, verb: list[str]) -> None:
    for _ in range(2):
        with console.start(*verb, "-o", "jsonl") as running:
            assert running.stdout is not None
            assert running.stdout.readline()
            said = interrupt(running)
        assert said.status in (0, 130), said.err
        assert "Traceback" not in said.err
    assert not list(console.folder.glob("broker*.pid"))


@pytest.mark.parametrize(
    "words", ["provision list -o jsonl", "tail -o jsonl", "agent run {bundle} --state {state}", "certs list"]
)
def test_a_reader_that_goes_away_ends_it_silently(running_fleet: RunningFleet, words: str, tmp_path: Path) -> None:
    filled = words.format(bundle=running_fleet.bundle("pump-9"), state=tmp_path / "state")
    line = f"set -o pipefail; {sys.executable} -m fleetctl {filled} | true"
    with subprocess.Popen(
        ["bash", "-c", line], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=running_fleet.console.environ, text=True
    ) as piped:
        try:
            _, errors = piped.communicate(timeout=30)
        finally:
            piped.send_signal(signal.SIGKILL)
    assert (piped.returncode, errors) == (141, "")
