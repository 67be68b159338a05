"""What revoking, issuing and renewing do to the state of a device, and what a rollout makes of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetctl.config import load_context
from fleetctl.errors import Conflict
from fleetctl.keys.store import generate_key
from fleetctl.model import topic as topics
from fleetctl.model.certificate import Profile
from fleetctl.model.device import Device, DevicePath, LifeCycle
from fleetctl.mqtt.message import Message
from fleetctl.pki.csr import checked_key
from fleetctl.platforms.local.believed import take_in
from fleetctl.platforms.local.fleet import LocalFleet
from fleetctl.platforms.local.init import create_context
from fleetctl.platforms.protocol import Targets
from fleetctl.registry import AuthorityRow, CertificateRow
from fleetctl.wire.presence import Presence

AT = "2026-01-01T00:00:00.000Z"


@pytest.fixture
def fleet() -> Iterator[LocalFleet]:
    create_context("prod", "acme", "mqtts://localhost:1", "alice")
    with LocalFleet(load_context("prod")) as opened:
        yield opened


def device(fleet: LocalFleet, folder: Path, name: str = "p-1") -> CertificateRow:
    fleet.devices.add(name, device_type="pump", location="oslo", labels={}, bundle=folder / name)
    return fleet.registry.certificates(name)[-1]


def named(fleet: LocalFleet, *names: str) -> list[Device]:
    return list(fleet.devices.resolve(Targets(names), retired=True))


def state(fleet: LocalFleet, name: str = "p-1") -> LifeCycle:
    return fleet.registry.device(name).state


def test_a_device_is_revoked_with_the_last_of_its_certificates(fleet: LocalFleet, tmp_path: Path) -> None:
    first = device(fleet, tmp_path)
    fleet.certificates.issue("p-1", tmp_path / "second")

    fleet.certificates.revoke(first.serial, "superseded")
    assert state(fleet) is LifeCycle.ACTIVE
    fleet.certificates.revoke("p-1", "keyCompromise")

    assert state(fleet) is LifeCycle.REVOKED
    last = fleet.devices.status("p-1").timeline[-1]
    assert (last.event, last.before, last.after) == ("revoked", "active", "revoked")
    assert (last.reason, last.actor) == ("keyCompromise", "op:alice")
    fleet.certificates.revoke("p-1", "keyCompromise")
    assert fleet.devices.status("p-1").timeline[-1] == last


def test_a_revoked_device_comes_back_with_a_new_certificate(fleet: LocalFleet, tmp_path: Path) -> None:
    device(fleet, tmp_path)
    fleet.certificates.revoke("p-1")

    fleet.certificates.issue("p-1", tmp_path / "second")

    assert state(fleet).believed
    last = fleet.devices.status("p-1").timeline[-1]
    assert (last.event, last.before, last.actor) == ("issued", "revoked", "op:alice")


def test_what_is_on_hold_is_revoked_for_good_with_its_device(fleet: LocalFleet, tmp_path: Path) -> None:
    device(fleet, tmp_path)
    fleet.certificates.issue("p-1", tmp_path / "second")
    fleet.devices.suspend(named(fleet, "p-1"))

    fleet.certificates.revoke(fleet.registry.certificates("p-1")[0].serial)
    assert state(fleet) is LifeCycle.SUSPENDED
    fleet.certificates.revoke("p-1", "keyCompromise")

    assert state(fleet) is LifeCycle.REVOKED
    assert "certificateHold" not in {row.reason for row in fleet.registry.certificates("p-1")}
    with pytest.raises(Conflict, match="revoked, not suspended"):
        fleet.devices.resume(named(fleet, "p-1"))


def test_an_expired_certificate_keeps_no_device_in(fleet: LocalFleet, tmp_path: Path) -> None:
    row = device(fleet, tmp_path)
    old = CertificateRow("ab", row.authority, row.profile, "p-1", "p-1", "2025-01-01T00:00:00.000Z", AT, "f", "")
    fleet.registry.add_certificate(old)
    fleet.certificates.revoke(row.serial)
    assert state(fleet) is LifeCycle.REVOKED


def test_a_retired_device_stays_retired(fleet: LocalFleet, tmp_path: Path) -> None:
    row = device(fleet, tmp_path)
    fleet.registry.retire_device("p-1", AT)
    fleet.certificates.revoke(row.serial)
    assert state(fleet) is LifeCycle.RETIRED


def test_operators_have_no_state(fleet: LocalFleet, tmp_path: Path) -> None:
    fleet.certificates.issue("op:bob", tmp_path / "bob")
    (report,) = fleet.certificates.revoke("op:bob")
    assert report.outcome == "revoked"


def test_a_renewing_device_whose_old_certificate_is_revoked_is_still_renewing(fleet: LocalFleet, tmp_path: Path) -> None:
    old = device(fleet, tmp_path)
    fleet.certificates.issuer.issue(fleet.registry.device("p-1"), generate_key("p256").public_key(), replaces=old.serial)
    fleet.certificates.revoke(old.serial, "superseded")
    assert state(fleet) is LifeCycle.RENEWING


PATH = DevicePath("acme", "oslo", "pump", "v-1")


def status_of(session: str) -> Message:
    payload = Presence("online", session, "2.0.0", f"sha256:{'0' * 64}", "set", 30.0).encode()
    return Message(topics.of(PATH, topics.Channel.STATUS), payload, 1, True, 1_790_000_000.0)


def test_a_decommissioned_device_of_a_registered_authority_is_not_believed_and_the_record_says_what_is_left(
    fleet: LocalFleet,
) -> None:
    fleet.registry.add_authority(AuthorityRow("vendor-ca", "registered", "root", "active", None, "", AT))
    fleet.registry.add_device(Device(PATH, {}, LifeCycle.ACTIVE, AT))
    row = CertificateRow("ab12", "vendor-ca", Profile.DEVICE, "v-1", "v-1", AT, "2099-01-01T00:00:00.000Z", "f", "")
    fleet.registry.add_certificate(row)
    assert take_in(fleet.registry, status_of("57-3")) == PATH

    (done,) = fleet.devices.remove(named(fleet, "v-1"), why="scrapped")

    assert (done.outcome, done.revoked, done.sessions_cut) == ("removed", 1, None)
    assert (done.detail or "").startswith("no list of ours names certificates of `vendor-ca`; no broker runs here")
    assert take_in(fleet.registry, status_of("57-4")) is None
    shown = fleet.devices.status("v-1")
    assert (shown.state, shown.certificates[0].state) == ("retired", "revoked")


def test_a_key_that_was_stolen_takes_along_what_it_was_renewed_to(fleet: LocalFleet, tmp_path: Path) -> None:
    stolen = device(fleet, tmp_path)
    other = fleet.certificates.issue("p-1", tmp_path / "other").serial
    serials, registry = [stolen.serial], fleet.registry
    for _ in range(2):
        with registry.transaction():
            key = generate_key("p256").public_key()
            serials.append(fleet.certificates.issuer.issue(registry.device("p-1"), checked_key(key), replaces=serials[-1]).serial)

    fleet.certificates.revoke(serials[0], "superseded")
    assert [registry.certificate(each).reason for each in serials] == ["superseded", None, None]
    fleet.certificates.revoke(serials[1], "keyCompromise")
    assert [registry.certificate(each).reason for each in serials] == ["superseded", "keyCompromise", "keyCompromise"]
    assert registry.certificate(other).revoked_at is None
