"""Devices of a file in a registry: each line answered for itself, one line of the trail for a page of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetctl.config import Context
from fleetctl.errors import FleetError, Partial
from fleetctl.platforms.local.fleet import LocalFleet
from fleetctl.platforms.protocol import Targets
from fleetctl.registry import Registry
from fleetctl.registry.audit import AuditFilter

GOOD = "id,type,location,site\n" + "".join(f"p-{number:05},pump,oslo,s{number % 3}\n" for number in range(6000))
BAD = "bad/1,pump,oslo,\np-00001,pump,bergen,s1\np-6000,pump,oslo,s0\np-6000,pump,oslo,s1\np-6000,pump,oslo,s0\n"


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[LocalFleet]:
    Registry.create(tmp_path / "registry.db", "acme").close()
    with LocalFleet(Context("test", "acme", "mqtt://x:1", "mqtt://x:1", "", tmp_path, certificates="external")) as made:
        yield made


def test_a_page_is_one_line_of_the_trail_and_a_bad_line_stops_no_other(fleet: LocalFleet, tmp_path: Path) -> None:
    path = tmp_path / "devices.csv"
    path.write_text(GOOD)
    assert fleet.devices.import_file(path).added == 6000
    assert [row.detail and row.detail["count"] for row in fleet.registry.audit(AuditFilter(action="imported"))] == [5000, 1000]

    path.write_text(GOOD + BAD)
    with pytest.raises(Partial) as caught:
        fleet.devices.import_file(path)
    record = caught.value.record
    assert isinstance(record, dict)
    assert (record["added"], record["unchanged"], record["refused"]) == (1, 6001, 3)
    assert [(each["line"], each["id"]) for each in record["errors"]] == [(6002, "bad/1"), (6003, "p-00001"), (6005, "p-6000")]
    assert "location is `oslo`, not `bergen`" in record["errors"][1]["error"]
    assert len(list(fleet.registry.audit(AuditFilter(action="imported")))) == 3
    assert [step.event for step in fleet.registry.timeline("p-6000")] == ["added"]
    assert len(list(fleet.devices.list(Targets((), "site=s1")))) == 2000


def test_all_or_nothing_leaves_no_trail_of_nothing(fleet: LocalFleet, tmp_path: Path) -> None:
    path = tmp_path / "devices.csv"
    path.write_text(GOOD + BAD)
    with pytest.raises(FleetError, match="nothing was added"):
        fleet.devices.import_file(path, atomic=True)
    assert fleet.registry.count_devices() == 0
    assert list(fleet.registry.audit(AuditFilter())) == []
