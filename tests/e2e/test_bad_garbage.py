"""Garbage on any topic: counted where somebody sees it, and never fatal."""

import base64
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from fleetctl.demo import firmware
from tests.e2e.running import ROGUE, RunningFleet

GARBAGE = (b"\x00\xff\xfe" * 20, b"{", b'{"status":"online"}', b'{"a":1e999}', b"[" * 2000, b"\xd2\x84\x43\xa1\x01\x27", b"null")
TO_DEVICES = ("status", "twin/desired", "ota/desired", "commands/ping", "commands/reboot", "commands/unknown")


@contextmanager
def flooding(fleet: RunningFleet, *topics: str) -> Iterator[None]:
    """An operator's program that has gone mad and says garbage on these topics, all the time."""
    folder = fleet.console.folder
    files = [
        "--cafile",
        folder / "pki/fleet-ca.pem",
        "--cert",
        folder / "pki/operator.pem",
        "--key",
        folder / "keys/operator.key",
    ]
    common = ["mosquitto_pub", "-V", "5", "-h", "localhost", "-p", str(fleet.port + 1), *map(str, files)]
    mad = ["-m", '{"status":"\x7f","session":[]}', "--repeat", "2000", "--repeat-delay", "0.02"]
    running = [subprocess.Popen([*common, "-i", f"mad-{number}", "-t", topic, *mad]) for number, topic in enumerate(topics)]
    try:
        yield
    finally:
        for each in running:
            each.kill()
            each.wait()


def test_a_device_counts_garbage_in_its_events_and_telemetry_and_goes_on(running_fleet: RunningFleet) -> None:
    before = running_fleet.dropped("pump-2")
    for index, channel in enumerate(TO_DEVICES):
        running_fleet.say(running_fleet.topic("pump-2", channel), GARBAGE[index % len(GARBAGE)])
    seen = running_fleet.event("dropped", "pump-2")
    assert set(seen) == {"event", "deviceId", "time", "topic", "reason", "count"}
    assert seen["reason"]
    assert running_fleet.dropped("pump-2") == before + len(TO_DEVICES)
    assert running_fleet.is_alive("pump-2")


def test_tail_shows_garbage_as_what_it_is(running_fleet: RunningFleet) -> None:
    console, topic = running_fleet.console, "acme/garbage"
    with console.start("tail", "-t", topic, "--count", str(len(GARBAGE)), "-o", "jsonl") as tail:
        for _ in range(50):
            if tail.poll() is not None:
                break
            for payload in GARBAGE:
                running_fleet.say(topic, payload)
        out, err = tail.communicate(timeout=20)
    assert (tail.returncode, err) == (0, "")
    shown = [json.loads(line)["payload"] for line in out.splitlines()]
    assert len(shown) == len(GARBAGE)
    assert {"base64": base64.b64encode(GARBAGE[0]).decode()} in shown


def test_what_a_rogue_device_retains_changes_nothing_that_is_known(running_fleet: RunningFleet) -> None:
    console = running_fleet.console
    known = console.run("provision", "show", ROGUE, "-o", "json").json
    channels = ("status", "twin/reported", "ota/status")
    for channel, payload in zip(channels, GARBAGE, strict=False):
        running_fleet.say_as_rogue(channel, payload, retain=True)
    assert console.run("provision", "list", "--refresh", "-o", "json").status == 0
    assert console.run("provision", "show", ROGUE, "--refresh", "-o", "json").json == known
    assert console.run("twin", "get", ROGUE, "--refresh", "-o", "json").json["reported"] is None
    asked = console.run("publish", ROGUE, "commands/ping", "--wait", "--timeout", "1s", "-o", "jsonl")
    assert json.loads(asked.out)["status"] == "unknown"
    asked.error(6, "ping")
    for channel in channels:
        running_fleet.say_as_rogue(channel, b"", retain=True)


def test_garbage_among_replies_hides_no_answer(running_fleet: RunningFleet) -> None:
    with flooding(running_fleet, running_fleet.topic("pump-1", "commands/ping/reply")):
        assert running_fleet.is_alive("pump-1")


@pytest.mark.parametrize("verb", ["start", "watch"])
def test_a_rollout_goes_on_among_garbage(running_fleet: RunningFleet, verb: str) -> None:
    """What devices say that is none; the rollout's own decisions must be signed (test_bad_signatures.py)."""
    console, name = running_fleet.console, f"pump-{verb}"
    running_fleet.add(name)
    running_fleet.play(name)
    version = {"start": "4.0.0", "watch": "4.1.0"}[verb]
    image = running_fleet.folder / f"{version}.bin"
    image.write_bytes(firmware.image(version, firmware.HEALTHY))
    assert console.run("ota", "publish", image, "--type", "pump", "--version", version).status == 0
    words = [name, "--soak", "0s", "--heartbeats", "1"]
    plan = running_fleet.folder / f"{version}.json"
    made = console.run("ota", "plan", f"pump@{version}", *words, "-f", plan, "-o", "json").json
    topics = [running_fleet.topic(name, channel) for channel in ("ota/status", "status", "ota/desired")]
    controller = f"acme/_fleet/rollouts/{made['id']}/controller"
    with (
        flooding(running_fleet, *topics, controller),
        console.start("ota", "watch", made["id"], "--timeout", "40s", "-o", "jsonl") as watch,
    ):
        done = console.run("ota", "start", "-f", plan, "--wait", "--timeout", "40s", "-o", "json")
        assert done.json["succeeded"] == 1
        if verb == "watch":
            out, err = watch.communicate(timeout=40)
            assert (watch.returncode, err) == (0, "")
            assert json.loads(out.splitlines()[-1])["state"] == "completed"
    assert running_fleet.dropped(name) > 0


def test_garbage_on_topics_of_nobody_is_nobody_s_business(running_fleet: RunningFleet) -> None:
    for topic in (
        "acme",
        "acme/_fleet",
        "acme/_fleet/trust/x",
        "acme/oslo/pump/nobody/status",
        "acme/a/b/c/d/e/f/g",
        "acme/$SYS//",
    ):
        running_fleet.say(topic, GARBAGE[0])
    denied = running_fleet.console.run("publish", "-t", "other/oslo/pump/pump-1/status", "x", "-o", "json")
    denied.error(4, "other/oslo/pump/pump-1/status")
    assert running_fleet.is_alive("pump-1")
