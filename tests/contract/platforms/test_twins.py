"""`Twins`, on every platform."""

import json
from typing import TYPE_CHECKING

import pytest

from fleetctl.errors import Conflict, NotFound, Pending, UsageError
from fleetctl.model.device import Device
from fleetctl.platforms.protocol import Targets
from fleetctl.platforms.twins import TwinDifference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.contract.platforms.conftest import Fleet, Side

BASE = "acme/oslo/pump"


@pytest.fixture
def devices(fleet: "Fleet") -> "Sequence[Device]":
    for name in ("p1", "p2"):
        fleet.devices.add(name, device_type="pump", location="oslo", labels={})
    return fleet.devices.resolve(Targets(("p1", "p2")))


def desired(side: "Side", name: str) -> dict[str, object]:
    payload = side.retained(f"{BASE}/{name}/twin/desired")
    assert payload is not None
    document: dict[str, object] = json.loads(payload)
    return document


class TestTwins:
    def test_a_twin_begins_empty(self, fleet: "Fleet", devices: "Sequence[Device]") -> None:
        twin = fleet.twins.get("p1")

        assert (twin.version, twin.desired, twin.digest, twin.generation) == (0, {}, None, 1)
        assert (twin.reported_version, twin.reported, twin.drift) == (0, None, None)
        with pytest.raises(NotFound):
            fleet.twins.get("p9")

    def test_what_is_desired_is_merged_versioned_and_retained(
        self, side: "Side", fleet: "Fleet", devices: "Sequence[Device]"
    ) -> None:
        fleet.twins.set(devices, {"interval": 60, "network": {"apn": "a"}})
        changes = fleet.twins.set(devices[:1], {"interval": None, "network": {"roaming": False}})

        assert [(change.id, change.version, change.outcome) for change in changes] == [("p1", 2, "published")]
        assert fleet.twins.get("p1").desired == {"network": {"apn": "a", "roaming": False}}
        said = desired(side, "p1")
        assert said.keys() == {"generation", "version", "digest", "desired", "timestamp"}
        assert (said["generation"], said["version"], said["desired"]) == (1, 2, {"network": {"apn": "a", "roaming": False}})
        assert said["digest"] == fleet.twins.get("p1").digest
        assert desired(side, "p2")["version"] == 1

    def test_setting_what_is_so_already_changes_nothing(self, side: "Side", fleet: "Fleet", devices: "Sequence[Device]") -> None:
        fleet.twins.set(devices, {"interval": 60})

        assert [change.outcome for change in fleet.twins.set(devices, {"interval": 60.0, "gone": None})] == ["unchanged"] * 2
        assert desired(side, "p1")["version"] == 1

    def test_a_version_that_has_moved_on_is_a_conflict_and_nothing_changes(
        self, fleet: "Fleet", devices: "Sequence[Device]"
    ) -> None:
        fleet.twins.set(devices[:1], {"a": 1})
        with pytest.raises(Conflict, match="twin of `p2` is at version 0, not 1"):
            fleet.twins.set(devices, {"a": 2}, if_version=1)

        assert (fleet.twins.get("p1").version, fleet.twins.get("p2").version) == (1, 0)
        assert fleet.twins.set(devices[:1], {"a": 2}, if_version=1)[0].version == 2

    def test_a_patch_that_no_fleet_may_send_changes_nothing(self, fleet: "Fleet", devices: "Sequence[Device]") -> None:
        patches: list[dict[str, object]] = [{"firmwareVersion": "3.0.0"}, {"$errors": {}}, {"a": "x" * 9000}]
        for patch in patches:
            with pytest.raises(UsageError):
                fleet.twins.set(devices, patch)
        assert fleet.twins.get("p1").version == 0

    def test_without_a_broker_it_is_decided_and_sent_by_the_next_write(
        self, side: "Side", fleet: "Fleet", devices: "Sequence[Device]"
    ) -> None:
        side.leave()
        with pytest.raises(Pending) as caught:
            fleet.twins.set(devices[:1], {"a": 1})
        record = caught.value.record
        assert isinstance(record, list)
        assert record == [{"id": "p1", "version": 1, "outcome": "queued"}]
        assert fleet.twins.get("p1").version == 1

        side.come_back()
        assert side.retained(f"{BASE}/p1/twin/desired") is None
        assert fleet.twins.set(devices[:1], {"a": 1})[0].outcome == "unchanged"
        assert desired(side, "p1")["version"] == 1

    def test_only_the_newest_version_is_sent_after_an_absence(
        self, side: "Side", fleet: "Fleet", devices: "Sequence[Device]"
    ) -> None:
        side.leave()
        for value in (1, 2):
            with pytest.raises(Pending):
                fleet.twins.set(devices, {"a": value})
        side.come_back()
        fleet.twins.set(devices, {"a": 2})

        assert (desired(side, "p1")["version"], desired(side, "p2")["version"]) == (2, 2)

    def test_drift_is_what_a_device_does_not_report(self, side: "Side", fleet: "Fleet", devices: "Sequence[Device]") -> None:
        fleet.twins.set(devices[:1], {"interval": 60, "network": {"apn": "a"}})
        reported = {"version": 1, "reported": {"interval": 30, "network": {"apn": "a"}, "uptime": 9}, "timestamp": None}
        side.say(f"{BASE}/p1/twin/reported", json.dumps(reported).encode(), retain=True)

        assert fleet.twins.get("p1").reported is None
        assert fleet.twins.diff(devices, refresh=True) == [TwinDifference("p1", "interval", 60, 30)]
        twin = fleet.twins.get("p1")
        assert (twin.reported_version, twin.drift) == (1, True)
        assert next(fleet.devices.list(Targets(("p1",)))).drift is True

        reported["reported"] = {"interval": 60, "network": {"apn": "a"}}
        side.say(f"{BASE}/p1/twin/reported", json.dumps(reported).encode(), retain=True)
        assert fleet.twins.get("p1", refresh=True).drift is False
        assert fleet.twins.diff(devices) == []

    def test_what_does_not_parse_is_not_believed(self, side: "Side", fleet: "Fleet", devices: "Sequence[Device]") -> None:
        for payload in (b"", b"{", b'{"version":-1,"reported":{}}', b'{"version":1,"reported":{"a":NaN}}', b"\xff"):
            side.say(f"{BASE}/p1/twin/reported", payload, retain=True)
            assert fleet.twins.get("p1", refresh=True).reported is None

    def test_what_the_broker_has_lost_is_published_again_by_the_next_write(
        self, side: "Side", fleet: "Fleet", devices: "Sequence[Device]"
    ) -> None:
        fleet.twins.set(devices, {"a": 1})
        before = side.retained(f"{BASE}/p1/twin/desired")
        side.say(f"{BASE}/p1/twin/desired", b"", retain=True)

        outcomes = [(each.id, each.version, each.outcome) for each in fleet.twins.set(devices, {"a": 1})]
        assert outcomes == [("p1", 1, "republished"), ("p2", 1, "unchanged")]
        assert side.retained(f"{BASE}/p1/twin/desired") == before

    def test_what_the_broker_has_lost_is_published_again_by_whoever_reads_it(
        self, side: "Side", fleet: "Fleet", devices: "Sequence[Device]"
    ) -> None:
        fleet.twins.set(devices, {"a": 1})
        old = side.retained(f"{BASE}/p1/twin/desired")
        assert old is not None
        fleet.twins.set(devices, {"a": 2})
        new = side.retained(f"{BASE}/p1/twin/desired")
        reads = (
            lambda: fleet.twins.get("p1", refresh=True),
            lambda: fleet.twins.diff(devices, refresh=True),
            lambda: fleet.devices.refresh(devices),
        )
        for read in reads:
            for lost in (b"", old, b"{"):
                side.say(f"{BASE}/p1/twin/desired", lost, retain=True)
                read()
                assert side.retained(f"{BASE}/p1/twin/desired") == new

    def test_the_word_of_another_registry_and_a_removed_device_are_left_alone(
        self, side: "Side", fleet: "Fleet", devices: "Sequence[Device]"
    ) -> None:
        fleet.twins.set(devices, {"a": 1})
        other = json.dumps({**desired(side, "p1"), "generation": 9}).encode()
        side.say(f"{BASE}/p1/twin/desired", other, retain=True)
        fleet.devices.remove(devices[1:])
        fleet.devices.refresh(devices)

        assert side.retained(f"{BASE}/p1/twin/desired") == other
        assert side.retained(f"{BASE}/p2/twin/desired") is None

    def test_what_nobody_could_look_after_waits_for_the_broker(
        self, side: "Side", fleet: "Fleet", devices: "Sequence[Device]"
    ) -> None:
        fleet.twins.set(devices[:1], {"a": 1})
        side.say(f"{BASE}/p1/twin/desired", b"", retain=True)
        side.leave()
        with pytest.raises(Pending) as caught:
            fleet.twins.set(devices[:1], {"a": 1})
        assert caught.value.record == [{"id": "p1", "version": 1, "outcome": "queued"}]

        side.come_back()
        fleet.twins.set(devices[1:], {"b": 1})
        assert desired(side, "p1")["version"] == 1
