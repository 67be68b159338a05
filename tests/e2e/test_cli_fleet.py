"""A fleet from the command line: broker, devices, commands, twins and revocation, each a process of its own."""

import json
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

Fleetctl = Callable[..., Any]
PROGRAM = [sys.executable, "-m", "fleetctl"]


def free_ports() -> int:
    """The first of three ports in a row that nobody uses."""
    for port in range(21000 + secrets.randbelow(9000), 32000, 3):
        with ExitStack() as held:
            try:
                for each in range(port, port + 3):
                    held.enter_context(socket.socket()).bind(("127.0.0.1", each))
            except OSError:
                continue
        return port
    raise AssertionError("no free ports")


class Running:
    """A process that prints an event a line."""

    def __init__(self, words: tuple[str, ...], log: Path) -> None:
        self.log = log
        with log.open("wb") as errors:
            self.process = subprocess.Popen(
                [*PROGRAM, *words, "-o", "jsonl"], stdout=subprocess.PIPE, stderr=errors, stdin=subprocess.DEVNULL, text=True
            )

    def until(self, **wanted: object) -> dict[str, Any]:
        """The next event with these values."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            event: dict[str, Any] = json.loads(line)
            if all(event.get(key) == value for key, value in wanted.items()):
                return event
        raise AssertionError(self.log.read_text())

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        self.process.communicate(timeout=20)
        return self.process.returncode


@contextmanager
def running(log: Path, *words: str) -> Iterator[Running]:
    started = Running(words, log)
    try:
        yield started
    finally:
        if started.process.poll() is None:
            started.process.kill()
        started.process.wait()
        if started.process.stdout is not None:
            started.process.stdout.close()


@pytest.fixture
def fleet(fleetctl: Fleetctl, tmp_path: Path) -> Iterator[Fleetctl]:
    """A context whose broker runs, with two devices online."""
    port = free_ports()
    assert fleetctl("init", "--tenant", "acme", "--broker", f"mqtts://127.0.0.1:{port}").status == 0
    with running(tmp_path / "broker.log", "broker", "run") as broker:
        listening = broker.until(event="listening")
        keys = {"event", "engine", "deviceUrl", "fleetUrl", "claimsUrl", "crlNumbers", "inMemory", "error", "twins", "trust"}
        assert set(listening) == keys
        words = ("agent", "simulate", "-n", "2", "--heartbeat", "1s", "--reboot-delay", "100ms")
        with running(tmp_path / "agents.log", *words) as agents:
            for _ in range(2):
                agents.until(event="online")
            yield fleetctl
            assert agents.end(signal.SIGINT) == 130, agents.log.read_text()
        assert broker.end() == 0, broker.log.read_text()


def eventually(check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 15
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_day_with_a_fleet(fleet: Fleetctl, tmp_path: Path) -> None:
    listed = fleet("provision", "list", "--refresh", "-o", "json").json()
    assert [(each["id"], each["status"]) for each in listed] == [("sim-001", "online"), ("sim-002", "online")]

    pong = fleet("publish", "sim-001", "commands/ping", "--wait", "-o", "json").json()
    assert [set(each) for each in pong] == [{"id", "command", "status", "session", "result"}]
    assert (pong[0]["id"], pong[0]["status"]) == ("sim-001", "succeeded")
    both = fleet("publish", "-l", "type=sensor", "commands/ping", "--wait", "--yes", "-o", "name")
    assert sorted(both.out.split()) == ["sim-001", "sim-002"]
    refused = fleet("publish", "sim-001", "commands/dance", "--wait", "-o", "json")
    assert (refused.status, json.loads(refused.out)[0]["status"]) == (1, "rejected")

    changed = fleet("twin", "set", "sim-001", "reportingInterval=60", "-o", "json").json()
    assert changed == [{"id": "sim-001", "version": 1, "outcome": "published"}]
    eventually(lambda: fleet("twin", "diff", "sim-001", "--refresh").status == 0)
    assert fleet("twin", "get", "sim-001", "-o", "json").json()["reported"]["reportingInterval"] == 60

    with running(tmp_path / "tail.log", "tail", "-t", "acme/#", "--count", "100") as tail:
        tail.until(deviceId="sim-002")
        raw = fleet("publish", "-t", "acme/lab/hello", '{"a":"\x1b[2J"}', "-o", "json").json()
        assert raw == {"topic": "acme/lab/hello", "bytes": 12, "qos": 1, "retain": False}
        seen = tail.until(topic="acme/lab/hello")
        assert set(seen) == {"topic", "deviceId", "timestamp", "receivedAt", "payload"}
        assert tail.end(signal.SIGINT) == 130
    shown = fleet("tail", "-t", "acme/+/+/+/status", "--count", "1")
    assert shown.status == 0
    assert "\x1b" not in shown.out

    revoked = fleet("certs", "revoke", "sim-002", "-o", "json").json()[0]
    assert (revoked["brokerRunning"], revoked["brokerReloaded"]) == (True, True)
    eventually(lambda: fleet("provision", "list", "sim-002", "--refresh", "-o", "json").json()[0]["status"] == "offline")
    again = fleet("broker", "run", "-o", "jsonl")
    assert (again.status, again.out, again.error()["code"]) == (5, "", "conflict")


def test_the_port_of_a_broker_that_is_taken_is_named(fleetctl: Fleetctl) -> None:
    port = free_ports()
    assert fleetctl("init", "--tenant", "acme", "--broker", f"mqtts://127.0.0.1:{port}").status == 0
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        refused = fleetctl("broker", "run", "-o", "jsonl")
    assert (refused.status, refused.out, refused.error()["code"]) == (6, "", "unavailable")
    assert str(port) in refused.error()["message"]
