"""Twins of a local fleet: several processes at once, and one that is killed."""

import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from fleetctl.platforms.protocol import Targets

if TYPE_CHECKING:
    from tests.integration.local.conftest import Bench

SETTER = """
import sys; from pathlib import Path
from fleetctl.config import Context; from fleetctl.platforms.local.fleet import LocalFleet
from fleetctl.platforms.protocol import Targets
folder, url, key, count = sys.argv[1:]
with LocalFleet(Context("test", "acme", url, url, "", Path(folder), certificates="external")) as fleet:
    devices = fleet.devices.resolve(Targets(("p*",)))
    print("ready", flush=True)
    for value in range(int(count)):
        fleet.twins.set(devices, {key: value})
"""


def start(bench: "Bench", key: str, count: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", SETTER, str(bench.folder), bench.endpoint.url, key, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def retained(bench: "Bench", name: str) -> dict[str, object]:
    topic = f"acme/oslo/pump/{name}/twin/desired"
    with bench.session() as session:
        document: dict[str, object] = json.loads(session.read_retained([topic])[topic].payload)
    return document


def test_two_processes_lose_no_version_and_the_newest_one_is_retained(bench: "Bench") -> None:
    bench.add("p1")
    processes = [start(bench, key, 15) for key in ("a", "b")]
    for process in processes:
        process.communicate(timeout=60)

    assert [process.returncode for process in processes] == [0, 0]
    assert bench.fleet.twins.get("p1").desired == {"a": 14, "b": 14}
    assert (bench.fleet.twins.get("p1").version, retained(bench, "p1")["version"]) == (30, 30)
    assert bench.fleet.registry.outbox() == []


def test_what_a_killed_process_left_is_sent_by_the_next_write(bench: "Bench") -> None:
    names = [f"p{number}" for number in range(40)]
    bench.add(*names, "other")
    with start(bench, "a", 10_000) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with bench.session() as session:
            session.subscribe(["acme/oslo/pump/p39/twin/desired"])
            assert session.receive(20)
        process.send_signal(signal.SIGKILL)

    bench.fleet.twins.set(bench.fleet.devices.resolve(Targets(("other",))), {"after": True})

    for name in names:
        twin = bench.fleet.twins.get(name)
        said = retained(bench, name)
        assert (said["version"], said["desired"], said["digest"]) == (twin.version, twin.desired, twin.digest)
