"""The program as a process: pipes, signals, exit statuses, what reaches a terminal."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

Fleetctl = Callable[..., Any]
PROGRAM = [sys.executable, "-m", "fleetctl"]


@pytest.fixture
def fleet(fleetctl: Fleetctl, tmp_path: Path) -> Fleetctl:
    """A context with a thousand devices."""
    assert fleetctl("init", "--tenant", "acme", "--broker", "mqtts://localhost:1").status == 0
    table = tmp_path / "devices.csv"
    table.write_text("id,type,location\n" + "".join(f"device-number-{index:04d},pump,oslo\n" for index in range(1000)))
    assert fleetctl("provision", "import", str(table)).status == 0
    return fleetctl


def test_the_version_is_one_line() -> None:
    done = subprocess.run([*PROGRAM, "--version"], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"fleetctl \d+\.\d+\.\d+\n", done.stdout)


def test_a_closed_pipe_is_silent_and_141(fleet: Fleetctl) -> None:
    command = f"set -o pipefail; {' '.join(PROGRAM)} provision list -o jsonl | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 141
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1
    helped = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {' '.join(PROGRAM)} ota start --help | true"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert helped.returncode in (0, 141)
    assert helped.stderr == ""


def test_a_full_disk_is_said_to_be_one(fleet: Fleetctl) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*PROGRAM, "provision", "list"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "error: the output cannot be written: no space left\n\nhint: df -h\n"


def test_bytes_that_are_no_text_are_no_devices(fleet: Fleetctl) -> None:
    strict = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run([*PROGRAM, "provision", "list", "-"], input=b"\xff\xfe\n", capture_output=True, check=False, env=strict)
    assert done.returncode == 2, done.stderr
    assert done.stdout == b""


def test_a_character_that_the_locale_lacks_is_escaped(fleet: Fleetctl) -> None:
    ran = fleet("provision", "list", "device-number-0000", "no-é", PYTHONIOENCODING="ascii")
    assert ran.status == 3
    assert "no-\\xe9" in ran.err


def test_output_reads_the_same_in_a_pipe_and_in_jq(fleet: Fleetctl) -> None:
    command = f"{' '.join(PROGRAM)} provision list -o json | jq -e 'length == 1000 and .[0].id == \"device-number-0000\"'"
    assert subprocess.run(["bash", "-c", command], capture_output=True, check=False).returncode == 0


def in_terminal(words: list[str], columns: int = 60) -> str:
    """What the program prints on a terminal of that width."""
    terminal, end = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns)}
    seen = b""
    with subprocess.Popen([*PROGRAM, *words], stdin=end, stdout=end, stderr=end, env=environment):
        os.close(end)
        # Linux reports the end of a terminal as an error
        with suppress(OSError):
            while chunk := os.read(terminal, 65536):
                seen += chunk
        os.close(terminal)
    return seen.decode()


def test_tables_are_cut_on_a_terminal_only(fleet: Fleetctl) -> None:
    on_screen = in_terminal(["provision", "list", "device-number-000*"])
    assert all(len(line) <= 60 for line in on_screen.splitlines())
    assert "…" in on_screen
    assert "…" not in fleet("provision", "list", "device-number-000*").out


def test_json_is_the_same_on_a_terminal(fleet: Fleetctl) -> None:
    words = ["provision", "list", "device-number-0000", "-o", "json"]
    assert in_terminal(words, 20).replace("\r\n", "\n") == fleet(*words).out


def test_ctrl_c_is_130_and_no_traceback(fleet: Fleetctl) -> None:
    waiting = subprocess.Popen(
        [*PROGRAM, "provision", "list", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    time.sleep(1.0)
    waiting.send_signal(signal.SIGINT)
    out, err = waiting.communicate(timeout=20)
    assert (waiting.returncode, out) == (130, "")
    assert err == "\ninterrupted\n"


@pytest.mark.parametrize(
    ("words", "status", "code"),
    [
        (["nonsense"], 2, "usage"),
        (["provision", "list", "--nonsense"], 2, "usage"),
        (["provision", "add", "pump-1"], 2, "usage"),
        (["provision", "list", "--context", "nowhere"], 3, "notFound"),
        (["publish", "device-number-0000", "ping"], 2, "usage"),
        (["publish", "device-number-0000", "commands/ping", "[1]"], 2, "usage"),
        (["publish", "-t", "a/+/b", "x"], 2, "usage"),
        (["tail", "-t", "a/#/b"], 2, "usage"),
        (["tail", "--duration", "5"], 2, "usage"),
        (["ota", "start"], 2, "usage"),
        (["ota", "show", "pump@9.9.9"], 3, "notFound"),
        (["ota", "status", "r-none"], 6, "unavailable"),
        (["certs", "show", "device-number-0000"], 3, "notFound"),
        (["certs", "revoke", "nobody"], 3, "notFound"),
        (["agent", "run", "/nonexistent"], 3, "notFound"),
        (["init", "--tenant", "acme"], 5, "conflict"),
        (["init", "x/y", "--tenant", "acme"], 2, "usage"),
        (["init", "other", "--tenant", "_fleet"], 2, "usage"),
    ],
)
def test_what_goes_wrong_is_one_line_a_hint_and_a_status(fleet: Fleetctl, words: list[str], status: int, code: str) -> None:
    ran = fleet(*words, "-o", "jsonl")
    assert (ran.status, ran.out) == (status, ""), ran.err
    assert ran.error()["code"] == code
    human = ran.err.splitlines()
    assert human[0].startswith("error: ")
    assert human[1] == ""
    assert human[2].startswith("hint: ")
    assert len(human) == 4
    assert "Traceback" not in ran.err


def test_an_operator_gets_a_folder_and_a_revocation_a_number(fleet: Fleetctl, tmp_path: Path) -> None:
    issued = fleet("certs", "issue", "op:alice", "--bundle", str(tmp_path / "alice"), "-o", "json").json()
    assert set(issued) == {"subject", "serial", "outcome", "notAfter", "bundle"}
    assert (tmp_path / "alice" / "operator.key").stat().st_mode & 0o777 == 0o600
    listed = fleet("certs", "list", "op:alice", "-o", "json").json()
    assert set(listed[0]) == {
        "serial",
        "subject",
        "profile",
        "deviceId",
        "authority",
        "state",
        "notBefore",
        "notAfter",
        "fingerprint",
        "revokedAt",
        "reason",
    }
    shown = fleet("certs", "show", "op:alice", "-o", "json").json()
    assert shown["pem"].startswith("-----BEGIN CERTIFICATE-----")
    revoked = fleet("certs", "revoke", "op:alice", "--reason", "keyCompromise", "-o", "json").json()
    assert set(revoked[0]) == {
        "subject",
        "serials",
        "outcome",
        "reason",
        "revokedAt",
        "crlNumber",
        "brokerRunning",
        "brokerReloaded",
        "sessionsCut",
        "refusalProven",
        "acceptanceProven",
        "detail",
    }
    assert fleet("certs", "list", "op:alice", "-o", "json").json()[0]["state"] == "revoked"


def test_ctrl_c_in_the_middle_of_making_a_class_is_130_too(tmp_path: Path) -> None:
    code = """
import sys
from fleetctl.cli import main

def stopped(words):
    exec("raise KeyboardInterrupt")

main._dispatch = stopped
sys.exit(main.run([]))
"""
    (tmp_path / "stopped.py").write_text(code)
    words = [sys.executable, "-m", "stopped"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "\ninterrupted\n")


def test_a_release_is_published_once_and_verified(fleet: Fleetctl, tmp_path: Path) -> None:
    image = tmp_path / "firmware.bin"
    image.write_bytes(b"firmware" * 1000)
    words = ["ota", "publish", str(image), "--type", "pump", "--version", "2.0.0", "-o", "json"]
    made = fleet(*words).json()
    assert (made["name"], made["size"], made["outcome"]) == ("pump@2.0.0", 8000, "published")
    assert set(made) == {
        "name",
        "type",
        "version",
        "size",
        "digest",
        "manifestDigest",
        "securityCounter",
        "sequence",
        "outcome",
    }
    assert fleet(*words).json()["outcome"] == "unchanged"
    assert fleet("ota", "releases", "-o", "name").out == "pump@2.0.0\n"
    assert fleet("ota", "verify", "pump@2.0.0", "-o", "json").json()["outcome"] == "verified"
    folder = Path(fleet("context", "show", "-o", "json").json()["folder"])
    blob = folder / "releases" / made["digest"].replace(":", "/")
    blob.chmod(0o644)
    blob.write_bytes(b"firmware" * 999 + b"FIRMWARE")
    changed = fleet("ota", "verify", "pump@2.0.0", "-o", "json")
    assert (changed.status, changed.out, changed.error()["code"]) == (7, "", "untrusted")
    image.write_bytes(b"other")
    assert fleet(*words).status == 5


def test_a_defect_is_reported_as_one(fleetctl: Fleetctl, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import fleetctl.config\n\n\ndef broken(*_):\n    raise RuntimeError('password=hunter2')\n\n\n"
        "fleetctl.config.contexts = broken\n"
    )
    ran = fleetctl("context", "list", "-o", "json", PYTHONPATH=str(tmp_path))
    assert (ran.status, ran.out) == (70, "")
    assert ran.error()["code"] == "defect"
    assert "hunter2" not in ran.err
    log = Path(ran.error()["hint"].rsplit(" ", 1)[-1])
    assert "RuntimeError" in log.read_text()
    assert "hunter2" not in log.read_text()


def test_secrets_do_not_reach_the_configuration(fleetctl: Fleetctl, tmp_path: Path) -> None:
    words = ["init", "plant", "--tenant", "acme", "--external", "--broker", "mqtts://localhost:1", "--username", "me"]
    refused = fleetctl(*words, "--password-ref", "hunter2", "-o", "json")
    assert refused.status == 2
    assert "hunter2" not in json.dumps(refused.error()["hint"])
    made = fleetctl(*words, "--password-ref", "env:SECRET", "-o", "json", SECRET="hunter2")
    assert made.status == 0, made.err
    home = Path(os.environ["FLEETCTL_HOME"])
    assert not any(b"hunter2" in path.read_bytes() for path in home.rglob("*") if path.is_file())
