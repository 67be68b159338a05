"""Messages of a local fleet: what MQTT 5 carries along, and what other tools see."""

import json
import shutil
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest

from fleetctl.errors import Pending, Unavailable
from fleetctl.platforms.messages import Dropped
from fleetctl.platforms.protocol import Targets

if TYPE_CHECKING:
    from fleetctl.mqtt.connection import Message
    from tests.integration.local.conftest import Bench

BASE = "acme/oslo/pump/p1"
STATUS = json.dumps(
    {
        "status": "online",
        "session": "3-1",
        "firmwareVersion": "1.0.0",
        "digest": "sha256:" + "0" * 64,
        "clock": "none",
        "heartbeat": 30,
    }
).encode()


def test_a_command_carries_response_topic_and_correlation(bench: "Bench") -> None:
    bench.add("p1")
    found: list[Message] = []
    with bench.session() as device:
        device.publish(f"{BASE}/status", STATUS, 1, True)
        device.subscribe([f"{BASE}/commands/+"])
        results = list(bench.fleet.messages.publish(bench.fleet.devices.resolve(Targets(("p1",))), "ping", {}))
        found += device.receive(10)

    assert [result.status for result in results] == ["sent"]
    assert found[0].response_topic == f"{BASE}/commands/ping/reply"
    assert found[0].correlation == json.loads(found[0].payload)["id"].encode()
    assert not found[0].retain
    assert bench.fleet.devices.show("p1").session == "3-1"


def test_a_reply_on_another_devices_topic_is_not_believed(bench: "Bench") -> None:
    bench.add("p1", "p2")
    devices = bench.fleet.devices.resolve(Targets(("p1", "p2")))
    ready = threading.Event()

    def liar() -> None:
        with bench.session() as device:
            device.publish(f"{BASE}/status", STATUS, 1, True)
            device.publish("acme/oslo/pump/p2/status", STATUS, 1, True)
            device.flush()
            device.subscribe([f"{BASE}/commands/ping"])
            ready.set()
            for message in device.receive(20):
                said = {"id": json.loads(message.payload)["id"], "status": "succeeded", "result": None, "timestamp": None}
                device.publish("acme/oslo/pump/p2/commands/ping/reply", json.dumps(said).encode())

    thread = threading.Thread(target=liar)
    thread.start()
    ready.wait(20)
    results = bench.fleet.messages.publish(devices, "ping", {}, wait=True, timeout=1.0)
    statuses = [next(results).status, next(results).status]
    with pytest.raises(Pending, match="2 timedOut"):
        next(results)
    thread.join()

    assert statuses == ["timedOut", "timedOut"]


def test_other_tools_see_what_is_published(bench: "Bench") -> None:
    tool = shutil.which("mosquitto_sub")
    if tool is None:
        pytest.skip("mosquitto_sub is not installed")
    bench.fleet.messages.publish_raw("acme/notes", '{"é":1}'.encode(), retain=True)
    command = [tool, "-h", "127.0.0.1", "-p", str(bench.endpoint.port), "-V", "5", "-t", "acme/notes", "-C", "1", "-W", "10"]
    run = subprocess.run(command, capture_output=True, check=True)

    assert run.stdout == '{"é":1}\n'.encode()


def test_a_tail_ends_with_the_broker(bench: "Bench") -> None:
    dropped = Dropped()
    with bench.session() as device:
        device.publish("acme/notes", b"one", 1, True)
    records = bench.fleet.messages.tail(filters=["acme/#"], dropped=dropped)

    assert next(records).payload == "one"
    bench.broker.kill()
    with pytest.raises(Unavailable):
        next(records)
    assert (dropped.malformed, dropped.overflow) == (0, 0)
