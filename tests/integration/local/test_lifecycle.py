"""Devices that are suspended, come back, are replaced and retired, with a broker that obeys."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fleetctl.config import Context, load_context
from fleetctl.demo.place import free_ports
from fleetctl.demo.processes import child
from fleetctl.errors import Conflict, FleetError, NotFound
from fleetctl.model.device import Device, DevicePath, LifeCycle
from fleetctl.mqtt.broker import find_mosquitto
from fleetctl.mqtt.endpoint import Endpoint
from fleetctl.mqtt.session import Session, open_session
from fleetctl.platforms.local import tokens
from fleetctl.platforms.local.fleet import LocalFleet
from fleetctl.platforms.local.init import create_context
from fleetctl.platforms.protocol import Targets
from fleetctl.registry.enrolments import EnrolmentRow
from fleetctl.registry.tokens import TokenRow
from fleetctl.wire import bundle

PATIENCE = 20.0


@pytest.fixture
def context() -> Context:
    create_context("prod", "acme", f"mqtts://localhost:{free_ports()}", "alice")
    return load_context("prod")


@pytest.fixture
def fleet(context: Context) -> Iterator[LocalFleet]:
    with LocalFleet(context) as opened:
        yield opened


@pytest.fixture(params=["mosquitto", "builtin"])
def engine(request: pytest.FixtureRequest) -> str:
    if request.param == "mosquitto" and find_mosquitto() is None:
        pytest.skip("mosquitto is not installed")
    return str(request.param)


@pytest.fixture
def broker(context: Context, engine: str, tmp_path: Path) -> Iterator[None]:
    home = {"FLEETCTL_HOME": os.environ["FLEETCTL_HOME"]}
    words = ["broker", "run", "--engine", engine, "-o", "jsonl"]
    with child("broker", words, home, tmp_path / "broker.log") as running:
        running.wait_for("listening", PATIENCE)
        yield


def device(fleet: LocalFleet, folder: Path, name: str) -> Endpoint:
    fleet.devices.add(name, device_type="pump", location="oslo", labels={"site": "north"}, bundle=folder / name)
    ca, cert, key = (folder / name / file for file in (bundle.AUTHORITY, bundle.CERTIFICATE, bundle.KEY))
    return Endpoint.parse_url(fleet.context.device_broker, ca=ca, cert=cert, key=key)


def connect(endpoint: Endpoint, name: str) -> Session:
    return open_session(endpoint, "device", client_id=name, timeout=PATIENCE)


def named(fleet: LocalFleet, *names: str) -> list[Device]:
    return list(fleet.devices.resolve(Targets(names), retired=True))


def is_cut(session: Session) -> bool:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            session.receive(0.1)
        except FleetError:
            return True
    return False


@pytest.mark.usefixtures("broker")
def test_a_suspended_device_is_out_until_it_is_resumed(fleet: LocalFleet, tmp_path: Path) -> None:
    bad, good = device(fleet, tmp_path, "p-1"), device(fleet, tmp_path, "p-2")
    with connect(good, "p-2") as neighbour, connect(bad, "p-1") as live:
        (done,) = fleet.devices.suspend(named(fleet, "p-1"), why="stolen?")

        assert (done.outcome, done.state, done.certificates, done.sessions_cut) == ("suspended", "suspended", 1, True)
        assert is_cut(live)
        with pytest.raises(FleetError):
            connect(bad, "p-1").close()
        neighbour.publish("acme/oslo/pump/p-2/status", b"{}")
        neighbour.flush()

        (back,) = fleet.devices.resume(named(fleet, "p-1"))
        assert (back.outcome, back.state, back.certificates) == ("resumed", "active", 1)
        connect(bad, "p-1").close()
    said = [(step.event, step.after, step.reason, step.actor) for step in fleet.devices.status("p-1").timeline]
    assert said[-2:] == [("suspended", "suspended", "stolen?", "op:alice"), ("resumed", "active", None, "op:alice")]


@pytest.mark.usefixtures("broker")
def test_a_decommissioned_device_is_cut_and_forgotten_by_the_broker(fleet: LocalFleet, tmp_path: Path) -> None:
    gone = device(fleet, tmp_path, "p-1")
    with connect(gone, "p-1") as live:
        live.publish("acme/oslo/pump/p-1/status", b'{"status":"online"}', retain=True)
        live.flush()
        (done,) = fleet.devices.remove(named(fleet, "p-1"), why="scrapped")
        assert (done.outcome, done.revoked, done.cleared, done.sessions_cut) == ("removed", 1, True, True)
        assert is_cut(live)
    with pytest.raises(FleetError):
        connect(gone, "p-1").close()
    with fleet.open_session("test") as operator:
        assert not operator.read_retained(["acme/oslo/pump/p-1/status"])
    status = fleet.devices.status("p-1")
    assert (status.state, status.certificates[0].state) == ("retired", "revoked")
    assert (status.timeline[-1].reason, status.timeline[-1].actor) == ("scrapped", "op:alice")
    (again,) = fleet.devices.remove(named(fleet, "p-1"))
    assert (again.outcome, again.revoked) == ("unchanged", 0)


def serial_device(fleet: LocalFleet, name: str, serial: str, state: LifeCycle = LifeCycle.ACTIVE) -> None:
    path = DevicePath("acme", "oslo", "pump", name)
    fleet.registry.add_device(Device(path, {"site": "north"}, state, "2026-01-01T00:00:00.000Z", serial=serial))


def test_a_replaced_unit_keeps_its_id_and_nothing_else(fleet: LocalFleet, tmp_path: Path) -> None:
    serial_device(fleet, "p-1", "OLD")
    fleet.certificates.issue("p-1", tmp_path / "p-1")
    (old,) = fleet.registry.certificates("p-1")
    path = DevicePath("acme", "oslo", "pump", "p-1")
    presence = '{"status":"online","session":"57-3","firmwareVersion":"2.0.0","digest":"","heartbeat":30}'
    fleet.registry.remember_presence(path, presence, 1_790_000_000.0)
    fleet.registry.save_desired("p-1", 1, '{"a":1}', "sha256:" + "0" * 64, "2026-01-01T00:00:00.000Z")

    done = fleet.devices.replace("p-1", "NEW", reason="keyCompromise", why="stolen")

    assert (done.outcome, done.serial, done.was, done.state, done.revoked) == ("replaced", "NEW", "OLD", "manufactured", 1)
    status = fleet.devices.status("p-1")
    assert (status.serial, status.state, status.status, status.last_seen) == ("NEW", "manufactured", "unknown", None)
    assert status.timeline[-1].reason == "serial OLD replaced by NEW: stolen"
    assert fleet.registry.certificate(old.serial).reason == "keyCompromise"
    assert fleet.registry.device("p-1").labels == {"site": "north"}
    assert fleet.registry.twin("p-1").version == 1
    assert {row.topic.removeprefix("acme/oslo/pump/p-1/") for row in fleet.registry.outbox()} == {
        "status",
        "twin/reported",
        "ota/status",
    }
    assert fleet.devices.replace("p-1", "NEW").outcome == "unchanged"
    with pytest.raises(NotFound):
        fleet.registry.device_by_serial("OLD")


def test_what_the_old_unit_asked_for_and_was_promised_ends_when_it_is_replaced(fleet: LocalFleet) -> None:
    serial_device(fleet, "p-1", "OLD", LifeCycle.MANUFACTURED)
    serial_device(fleet, "p-2", "OTHER")
    at = "2026-01-01T00:00:00.000Z"
    for name, state in (("e1", "pending"), ("e2", "approved"), ("e3", "rejected")):
        row = EnrolmentRow(name, "claim", "line", "OLD", "p-1", name * 32, None, state, None, None, at)
        fleet.registry.add_enrolment(row)
    tokens.create(fleet, named(fleet, "p-1", "p-2"), 3600)
    fleet.registry.add_token(TokenRow("ab" * 32, "p-1", at, at, used_at=at, certificate="12"))

    fleet.devices.replace("p-1", "NEW")

    left = {row.id: (row.state, row.code) for row in fleet.registry.enrolments(device_id="p-1")}
    assert left == dict.fromkeys(("e1", "e2", "e3"), ("rejected", "replaced"))
    states = [(each.device_id, each.state) for each in tokens.entries(fleet)]
    assert sorted(states) == [("p-1", "revoked"), ("p-1", "used"), ("p-2", "valid")]
    assert fleet.registry.token("ab" * 32) == TokenRow("ab" * 32, "p-1", at, at, used_at=at, certificate="12")


def test_a_serial_that_is_taken_replaces_nothing(fleet: LocalFleet, tmp_path: Path) -> None:
    serial_device(fleet, "p-1", "ONE")
    serial_device(fleet, "p-2", "TWO")
    fleet.certificates.issue("p-1", tmp_path / "p-1")
    with pytest.raises(Conflict, match="`TWO` is that of device `p-2`"):
        fleet.devices.replace("p-1", "TWO")
    assert fleet.registry.certificates("p-1")[0].revoked_at is None
    assert fleet.registry.device("p-1").serial == "ONE"


def test_what_was_revoked_for_good_stays_revoked_after_a_hold(fleet: LocalFleet, tmp_path: Path) -> None:
    device(fleet, tmp_path, "p-1")
    fleet.certificates.issue("p-1", tmp_path / "second")
    first, second = fleet.registry.certificates("p-1")
    fleet.devices.suspend(named(fleet, "p-1"))
    fleet.registry.revoke_certificate(first.serial, "keyCompromise", "2026-01-01T00:00:00.000Z")

    (done,) = fleet.devices.resume(named(fleet, "p-1"))

    assert done.certificates == 1
    assert fleet.registry.certificate(first.serial).reason == "keyCompromise"
    assert fleet.registry.certificate(second.serial).revoked_at is None


def test_a_suspended_device_can_be_decommissioned(fleet: LocalFleet, tmp_path: Path) -> None:
    device(fleet, tmp_path, "p-1")
    fleet.devices.suspend(named(fleet, "p-1"))
    (done,) = fleet.devices.remove(named(fleet, "p-1"))
    assert (done.outcome, done.revoked) == ("removed", 1)
    assert fleet.registry.certificates("p-1")[0].reason == "cessationOfOperation"


def test_suspending_many_is_all_or_nothing(fleet: LocalFleet, tmp_path: Path) -> None:
    for name in ("p-1", "p-2"):
        serial_device(fleet, name, name)
    fleet.devices.remove(named(fleet, "p-2"))
    with pytest.raises(Conflict, match="retired"):
        fleet.devices.suspend(named(fleet, "p-1", "p-2"))
    assert fleet.devices.show("p-1").state == "active"


def test_a_device_is_resumed_in_the_state_it_was_suspended_in(fleet: LocalFleet) -> None:
    states: dict[str, LifeCycle] = {
        "a": LifeCycle.MANUFACTURED,
        "b": LifeCycle.CLAIMED,
        "c": LifeCycle.RENEWING,
        "d": LifeCycle.ACTIVE,
    }
    for name, state in states.items():
        serial_device(fleet, name, name, state)
    step: Callable[..., object] = fleet.devices.suspend
    step(named(fleet, *states))
    step(named(fleet, *states))
    assert {each.id: each.state for each in fleet.devices.resume(named(fleet, *states))} == states
