"""A local fleet without identities of its own on a real mosquitto, and a second look at the broker."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from fleetctl.config import Context
from fleetctl.errors import FleetError
from fleetctl.mqtt.endpoint import Endpoint
from fleetctl.mqtt.session import Session, open_session
from fleetctl.platforms.local.fleet import LocalFleet
from fleetctl.registry import Registry


@dataclass(frozen=True, slots=True)
class Bench:
    """A fleet, and how to reach its broker and its files from outside."""

    fleet: LocalFleet
    endpoint: Endpoint
    folder: Path
    broker: "subprocess.Popen[bytes]"

    def session(self) -> Session:
        return open_session(self.endpoint, "device")

    def add(self, *names: str) -> None:
        for name in names:
            self.fleet.devices.add(name, device_type="pump", location="oslo", labels={})


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    mosquitto = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
    if mosquitto is None:
        pytest.skip("mosquitto is not installed")
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    config = tmp_path / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    with (tmp_path / "mosquitto.log").open("wb") as log:
        process = subprocess.Popen([mosquitto, "-c", str(config)], stdout=log, stderr=log)
    endpoint = Endpoint("127.0.0.1", port, tls=False)
    try:
        _wait_for(endpoint)
        Registry.create(tmp_path / "registry.db", "acme").close()
        with LocalFleet(Context("test", "acme", endpoint.url, endpoint.url, "", tmp_path, certificates="external")) as fleet:
            yield Bench(fleet, endpoint, tmp_path, process)
    finally:
        process.terminate()
        process.wait(10)


def _wait_for(endpoint: Endpoint) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with suppress(FleetError), open_session(endpoint, "probe", timeout=2):
            return
        time.sleep(0.02)
    raise AssertionError("mosquitto did not start")
