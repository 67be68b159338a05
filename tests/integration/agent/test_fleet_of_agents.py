"""Many agents in one process, and what befalls their connections."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest

from fleetctl.agent import run as agents
from fleetctl.agent.identity import Identity
from fleetctl.agent.settings import Settings
from fleetctl.errors import ConfigError, Conflict, Denied, NotFound, Untrusted
from fleetctl.keys.store import generate_key, public_pem
from fleetctl.model.topic import Channel
from fleetctl.mqtt.connection import Connection
from fleetctl.mqtt.endpoint import Endpoint

COUNT = 30
QUICK = Settings(heartbeat=0.5, telemetry=60.0, reboot_delay=0.1, backoff=0.1)


@pytest.fixture(scope="module")
def bundles(fleet: Any) -> list[Path]:
    return [fleet.bundle(f"many-{number}") for number in range(COUNT)]


def test_thirty_devices_are_up_in_seconds_and_take_an_update_together(fleet: Any, bundles: list[Path], tmp_path: Path) -> None:
    stop = threading.Event()
    release = fleet.release("2.0.0", b"exit 0 # " + os.urandom(1000).hex().encode())
    online: set[str] = set()
    updated: set[str] = set()
    began = monotonic()
    settings = replace(QUICK, reboot_delay=0.2)
    for event in agents.simulate(bundles, tmp_path, "sh {image}", settings=settings, stop=stop):
        assert monotonic() < began + 60
        assert event["event"] not in ("error", "dropped", "waiting"), event
        device = str(event["deviceId"])
        if event["event"] == "online" and device not in online:
            online.add(device)
            if len(online) == COUNT:
                assert monotonic() - began < 10
                with fleet.session() as session:
                    for name in online:
                        payload = fleet.assignment(name, release, 1)
                        session.publish(f"{fleet.path(name)}/ota/desired", payload, retain=True)
        if event.get("phase") == "succeeded":
            updated.add(device)
            if len(updated) == COUNT:
                stop.set()
    assert len(updated) == COUNT
    assert {fleet.retained(name, Channel.STATUS)["status"] for name in sorted(online)[:3]} == {"offline"}


def test_an_agent_that_is_abandoned_says_goodbye(fleet: Any, tmp_path: Path) -> None:
    events = agents.run(fleet.bundle("abandoned"), tmp_path / "state", settings=QUICK)
    for event in events:
        if event["event"] == "online":
            break
    assert isinstance(events, Iterator)
    events.close()  # type: ignore[attr-defined]
    assert fleet.retained("abandoned", Channel.STATUS)["status"] == "offline"
    again = agents.run(fleet.folder / "bundles" / "abandoned", tmp_path / "state", settings=QUICK)
    assert next(again)["boot"] == 2
    again.close()  # type: ignore[attr-defined]


def test_ctrl_c_says_goodbye(fleet: Any, process: Any, tmp_path: Path) -> None:
    log = tmp_path / "log"
    agent = process(fleet.bundle("interrupted"), log)
    deadline = monotonic() + 20
    while b'"online"' not in log.read_bytes():
        assert monotonic() < deadline
        sleep(0.05)
    agent.send_signal(signal.SIGINT)
    agent.wait(10)
    assert fleet.retained("interrupted", Channel.STATUS)["status"] == "offline"


def test_a_second_client_of_the_same_name_cuts_the_first_which_comes_back(fleet: Any, start: Any) -> None:
    place = fleet.bundle("twofold")
    agent = start(place)
    agent.wait("online")
    endpoint = Identity.load(place).endpoint
    rival = Connection(endpoint, "twofold")
    rival.connect()
    agent.wait("offline")
    agent.wait("online", count=2)
    rival.abort()
    assert fleet.retained("twofold", Channel.STATUS)["session"] == "1-2"


def test_a_broker_that_restarts_finds_its_devices_again(fleet: Any, start: Any) -> None:
    agent = start(fleet.bundle("patient"))
    agent.wait("online")
    fleet.engine.stop()
    agent.wait("waiting", count=2)
    fleet.engine.start()
    agent.wait("online", count=2)
    assert fleet.retained("patient", Channel.STATUS)["status"] == "online"


def test_a_twin_of_the_state_folder_is_a_conflict(fleet: Any, start: Any, tmp_path: Path) -> None:
    place = fleet.bundle("shared")
    start(place).wait("online")
    with pytest.raises(Conflict, match="another agent runs on"):
        next(agents.run(place, settings=QUICK))
    with pytest.raises(Conflict, match="two bundles are of device `shared`"):
        next(agents.simulate([place, place], tmp_path, settings=QUICK))


# -- bundles that are not whole


def _without(name: str) -> Any:
    return lambda place: (place / name).unlink()


def _replaced(name: str, content: bytes) -> Any:
    return lambda place: (place / name).write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "error", "words"),
    [
        (_without("device.yaml"), NotFound, "device.yaml"),
        (_without("device.pem"), ConfigError, "device.pem"),
        (_without("trust.cose"), NotFound, "trust.cose"),
        (lambda place: (place / "device.key").chmod(0o644), Denied, "device.key"),
        (_replaced("device.yaml", b"\xff"), ConfigError, "not UTF-8"),
        (_replaced("device.yaml", b"device: a/b/c\n"), ConfigError, "names no device"),
        (_replaced("ca.pem", b"no pem"), ConfigError, "ca.pem"),
        (_replaced("root.pub", public_pem(generate_key())), Untrusted, "the trust document"),
        (_replaced("trust.cose", b"\xd2"), Untrusted, "the trust document"),
    ],
)
def test_a_bundle_that_is_not_whole_is_named_before_anything_connects(
    fleet: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Any, error: type[Exception], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    place = Path("bundle")
    subprocess.run(["cp", "-rp", _whole(fleet), place], check=True)
    spoil(place)
    with pytest.raises(error, match=words):
        next(agents.run(place, settings=QUICK))
    assert not (place / "state").exists()


def _whole(fleet: Any) -> Path:
    place: Path = fleet.folder / "bundles" / "whole"
    return place if place.exists() else Path(fleet.bundle("whole"))


def test_a_broker_that_never_answers_is_told_of_and_ends_nothing(fleet: Any, tmp_path: Path) -> None:
    place = tmp_path / "bundle"
    subprocess.run(["cp", "-rp", _whole(fleet), place], check=True)
    text = (place / "device.yaml").read_text().replace(str(fleet.config.device.port), "9")
    (place / "device.yaml").write_text(text)
    stop = threading.Event()
    seen = []
    for event in agents.run(place, settings=QUICK, stop=stop):
        seen.append(event)
        if [e["event"] for e in seen].count("waiting") == 3:
            stop.set()
    assert "no broker answers at" in str(seen[-1]["reason"])


def test_importing_the_agent_starts_nothing() -> None:
    code = "import sys, threading, fleetctl.agent.run; sys.exit(threading.active_count() - 1)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_identity_dials_what_its_bundle_says(fleet: Any) -> None:
    identity = Identity.load(_whole(fleet))
    assert isinstance(identity.endpoint, Endpoint)
    assert identity.endpoint.port == fleet.config.device.port
    assert identity.artifacts.base == f"https://localhost:{fleet.server.port}"
