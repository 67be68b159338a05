"""Devices of a local fleet: what only files and a real broker can show."""

import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from fleetctl.errors import ConfigError, FleetError, Unavailable
from fleetctl.model.device import Device
from fleetctl.platforms.local.fleet import LocalFleet
from fleetctl.platforms.protocol import Missing, Targets

if TYPE_CHECKING:
    from tests.integration.local.conftest import Bench

DIGEST = b"sha256:" + b"0" * 64
STATUS = b'{"status":"online","session":"%d-1","firmwareVersion":"1.0.0","digest":"%s","clock":"none","heartbeat":30}'


def test_more_devices_than_a_batch_are_refreshed(bench: "Bench") -> None:
    names = [f"p{number:04}" for number in range(700)]
    with bench.fleet.registry.transaction():
        bench.add(*names)
    with bench.session() as session:
        for number, name in enumerate(names):
            session.publish(f"acme/oslo/pump/{name}/status", STATUS % (number, DIGEST), 1, True, more=True)

    assert bench.fleet.devices.refresh(bench.fleet.devices.resolve(Targets(("*",)))) == 700
    assert {entry.status for entry in bench.fleet.devices.list(Targets())} == {"online"}
    assert bench.fleet.devices.show("p0699").session == "699-1"


def test_listing_devices_reads_neither_configuration_nor_libraries(bench: "Bench") -> None:
    bench.add("p1")
    heavy = "{'yaml', 'cbor2', 'cryptography', 'paho', 'ssl', 'asyncio', 'rich', 'socket'}"
    code = f"""
import sys; from pathlib import Path
from fleetctl.config import Place, home; from fleetctl.platforms.local.fleet import LocalFleet
from fleetctl.platforms.protocol import Targets
with LocalFleet(Place("test", Path(sys.argv[1]), home())) as fleet:
    print([entry.id for entry in fleet.devices.list(Targets())], sorted({heavy} & set(sys.modules)))
"""
    run = subprocess.run([sys.executable, "-c", code, str(bench.folder)], capture_output=True, text=True, check=True)

    assert run.stdout.strip() == "['p1'] []"


def test_a_fleet_with_external_certificates_says_what_it_lacks(bench: "Bench") -> None:
    with pytest.raises(Missing, match="does not own identities") as caught:
        bench.fleet.devices.add("p1", device_type="pump", location="oslo", labels={}, bundle=bench.folder / "p1")

    assert isinstance(caught.value, ConfigError)
    assert list(bench.fleet.devices.list(Targets())) == []
    assert not (bench.folder / "p1").exists()


def test_a_damaged_registry_ends_in_one_line(bench: "Bench") -> None:
    bench.fleet.close()
    (bench.folder / "registry.db").write_bytes(b"not a registry")

    with LocalFleet(bench.fleet.context) as fleet, pytest.raises(FleetError, match="is damaged"):
        list(fleet.devices.list(Targets()))


def test_a_broker_that_is_down_is_unavailable(bench: "Bench") -> None:
    bench.add("p1")
    context = bench.fleet.context
    closed = replace(context, broker="mqtt://127.0.0.1:1")

    with LocalFleet(closed) as fleet:
        devices: list[Device] = list(fleet.devices.resolve(Targets(("p1",))))
        with pytest.raises(Unavailable):
            fleet.devices.refresh(devices)
        with pytest.raises(Unavailable):
            fleet.messages.publish_raw("acme/x", b"")
        with pytest.raises(Unavailable):
            list(fleet.messages.tail(devices))
        assert fleet.devices.remove(devices)[0].cleared is False
