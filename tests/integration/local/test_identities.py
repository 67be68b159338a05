"""Devices with identities of the fleet's own: bundles come and go with the device, or nothing does."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetctl.config import locate
from fleetctl.errors import Conflict, FleetError, Partial
from fleetctl.platforms.local.fleet import LocalFleet
from fleetctl.platforms.local.init import create_context
from fleetctl.platforms.protocol import Targets


@pytest.fixture
def fleet() -> Iterator[LocalFleet]:
    create_context("test", "acme", "mqtts://localhost:1")
    with LocalFleet(locate("test")) as made:
        yield made


def add(fleet: LocalFleet, bundle: Path, name: str = "p1", **labels: str) -> str:
    return fleet.devices.add(name, device_type="pump", location="oslo", labels=labels, bundle=bundle).outcome


def test_a_device_is_added_with_its_bundle(fleet: LocalFleet, tmp_path: Path) -> None:
    assert add(fleet, tmp_path / "p1") == "added"

    assert (tmp_path / "p1" / "device.key").stat().st_mode & 0o777 == 0o600
    (row,) = fleet.registry.certificates("p1")
    assert row.subject == "p1"


def test_adding_it_again_keeps_key_and_certificate(fleet: LocalFleet, tmp_path: Path) -> None:
    add(fleet, tmp_path / "p1")
    before = (tmp_path / "p1" / "device.key").read_bytes()

    assert add(fleet, tmp_path / "p1") == "unchanged"
    assert (tmp_path / "p1" / "device.key").read_bytes() == before
    assert len(fleet.registry.certificates("p1")) == 1


def test_a_folder_that_holds_something_else_adds_no_device(fleet: LocalFleet, tmp_path: Path) -> None:
    (tmp_path / "p1").mkdir()
    (tmp_path / "p1" / "thesis.txt").write_text("mine")

    with pytest.raises(Conflict, match="exists already"):
        add(fleet, tmp_path / "p1")

    assert list(fleet.devices.list(Targets())) == []
    assert fleet.registry.certificates("p1") == []
    assert [file.name for file in (tmp_path / "p1").iterdir()] == ["thesis.txt"]


def test_a_conflict_issues_nothing(fleet: LocalFleet, tmp_path: Path) -> None:
    add(fleet, tmp_path / "p1", site="north")

    with pytest.raises(Conflict, match="differs"):
        add(fleet, tmp_path / "again", site="south")

    assert not (tmp_path / "again").exists()
    assert len(fleet.registry.certificates("p1")) == 1


def test_an_imported_line_whose_bundle_fails_adds_no_device(fleet: LocalFleet, tmp_path: Path) -> None:
    (tmp_path / "bundles" / "p2").mkdir(parents=True)
    (tmp_path / "bundles" / "p2" / "thesis.txt").write_text("mine")
    (tmp_path / "devices.csv").write_text("id,type,location\np1,pump,oslo\np2,pump,oslo\np3,pump,oslo\n")

    with pytest.raises(Partial, match="line 3"):
        fleet.devices.import_file(tmp_path / "devices.csv", tmp_path / "bundles")

    assert [entry.id for entry in fleet.devices.list(Targets())] == ["p1", "p3"]
    assert sorted(row.device_id for row in fleet.registry.certificates() if row.device_id is not None) == ["p1", "p3"]


def test_removing_revokes_and_a_broker_that_is_away_is_told_later(fleet: LocalFleet, tmp_path: Path) -> None:
    for name in ("p1", "p2"):
        add(fleet, tmp_path / name, name)
    devices = fleet.devices.resolve(Targets(("p1", "p2")))

    removed = fleet.devices.remove(devices)

    assert [(each.outcome, each.revoked, each.cleared) for each in removed] == [("removed", 1, False)] * 2
    assert {row.reason for row in fleet.registry.certificates("p1")} == {"cessationOfOperation"}
    assert len(fleet.registry.outbox()) == 10
    assert [(each.outcome, each.revoked) for each in fleet.devices.remove(devices)] == [("unchanged", 0)] * 2
    with pytest.raises(FleetError):
        fleet.certificates.issue("p1", tmp_path / "new")
