"""What `Twins` does beyond patches, on every platform: history, schemas, waiting and watching."""

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from fleetctl.errors import ConfigError, Conflict, NotFound, Partial, Pending, UsageError
from fleetctl.model.device import Device
from fleetctl.platforms.protocol import Targets
from fleetctl.platforms.twins import TwinConvergence, TwinEvent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.contract.platforms.conftest import Fleet, Side

BASE = "acme/oslo/pump"
SCHEMA = {"properties": {"interval": {"type": "integer", "minimum": 5}}, "additionalProperties": False}


@pytest.fixture
def devices(fleet: "Fleet") -> "Sequence[Device]":
    for name in ("p1", "p2"):
        fleet.devices.add(name, device_type="pump", location="oslo", labels={})
    return fleet.devices.resolve(Targets(("p1", "p2")))


def report(side: "Side", name: str, version: int, reported: dict[str, Any], *, retain: bool = True) -> None:
    said = {"version": version, "reported": reported, "timestamp": None}
    side.say(f"{BASE}/{name}/twin/reported", json.dumps(said).encode(), retain)


def retained(side: "Side", name: str) -> Any:
    payload = side.retained(f"{BASE}/{name}/twin/desired")
    assert payload is not None
    return json.loads(payload)


class TestDocuments:
    def test_a_whole_document_takes_the_place_of_what_was_desired(
        self, side: "Side", fleet: "Fleet", devices: "Sequence[Device]"
    ) -> None:
        fleet.twins.set(devices[:1], {"a": 1, "b": {"c": 2}})
        changes = fleet.twins.replace(devices, {"b": {"d": 3}})

        assert [(each.id, each.version, each.outcome) for each in changes] == [("p1", 2, "published"), ("p2", 1, "published")]
        assert retained(side, "p1")["desired"] == {"b": {"d": 3}}
        assert [each.outcome for each in fleet.twins.replace(devices, {"b": {"d": 3}})] == ["unchanged"] * 2
        with pytest.raises(Conflict):
            fleet.twins.replace(devices, {}, if_version=1)
        for document in ({"firmwareVersion": "2.0.0"}, {"a": None}, {"$a": 1}):
            with pytest.raises(UsageError):
                fleet.twins.replace(devices, document)

    def test_the_history_keeps_what_was_desired_and_why(self, fleet: "Fleet", devices: "Sequence[Device]") -> None:
        assert fleet.twins.history("p1") == []
        fleet.twins.set(devices[:1], {"a": 1}, reason="a trial")
        fleet.twins.set(devices[:1], {"a": 1}, reason="changes nothing")
        fleet.twins.set(devices[:1], {"a": 2})

        found = fleet.twins.history("p1")
        assert [(each.id, each.version, each.desired, each.reason) for each in found] == [
            ("p1", 1, {"a": 1}, "a trial"),
            ("p1", 2, {"a": 2}, None),
        ]
        assert found[1].digest == fleet.twins.get("p1").digest
        with pytest.raises(NotFound):
            fleet.twins.history("p9")

    def test_the_history_has_an_end(self, fleet: "Fleet", devices: "Sequence[Device]", monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("fleetctl.model.twin.HISTORY_LIMIT", 2)
        monkeypatch.setattr("fleetctl.platforms.memory.held.HISTORY_LIMIT", 2)
        for value in (1, 2, 3):
            fleet.twins.set(devices[:1], {"a": value})

        assert [each.version for each in fleet.twins.history("p1")] == [2, 3]
        with pytest.raises(NotFound, match="has no version 1"):
            fleet.twins.revert("p1", 1)

    def test_going_back_is_a_new_version(self, side: "Side", fleet: "Fleet", devices: "Sequence[Device]") -> None:
        fleet.twins.set(devices[:1], {"a": 1})
        fleet.twins.set(devices[:1], {"a": None, "b": 2})
        with pytest.raises(Conflict):
            fleet.twins.revert("p1", 1, if_version=1)
        change = fleet.twins.revert("p1", 1, if_version=2)[0]

        assert (change.version, change.outcome) == (3, "published")
        assert (retained(side, "p1")["version"], retained(side, "p1")["desired"]) == (3, {"a": 1})
        assert fleet.twins.history("p1")[-1].reason == "back to version 1"
        assert fleet.twins.revert("p1", 1)[0].outcome == "unchanged"
        with pytest.raises(NotFound, match="twin of `p1` has no version 9 to go back to"):
            fleet.twins.revert("p1", 9)
        with pytest.raises(NotFound):
            fleet.twins.revert("p9", 1)


class TestSchemas:
    def test_what_the_schema_of_a_type_refuses_is_not_sent(
        self, side: "Side", fleet: "Fleet", devices: "Sequence[Device]"
    ) -> None:
        fleet.twins.set(devices[:1], {"old": True})
        assert fleet.twins.put_schema("pump", SCHEMA).outcome == "stored"
        assert fleet.twins.put_schema("pump", SCHEMA).outcome == "unchanged"
        with pytest.raises(UsageError) as caught:
            fleet.twins.set(devices[1:], {"interval": 1})
        with pytest.raises(UsageError, match="refuses `p1`"):
            fleet.twins.set(devices, {"interval": 60})

        assert caught.value.message.startswith("the schema of type `pump` refuses `interval` of `p2`: 1 is less than")
        assert fleet.twins.get("p2").version == 0
        assert side.retained(f"{BASE}/p2/twin/desired") is None
        assert fleet.twins.replace(devices, {"interval": 60})[0].version == 2
        with pytest.raises(UsageError):
            fleet.twins.revert("p1", 1)

    def test_a_schema_is_shown_and_forgotten(self, fleet: "Fleet", devices: "Sequence[Device]") -> None:
        fleet.twins.put_schema("pump", SCHEMA)
        fleet.twins.put_schema("lamp", {"const": {}})

        assert [each.type for each in fleet.twins.schemas()] == ["lamp", "pump"]
        assert fleet.twins.schema("pump").schema == SCHEMA
        assert fleet.twins.remove_schema("pump").outcome == "removed"
        for call in (fleet.twins.schema, fleet.twins.remove_schema):
            with pytest.raises(NotFound, match="type `pump` has no schema"):
                call("pump")
        assert fleet.twins.set(devices, {"anything": 1})[0].outcome == "published"

    def test_a_schema_of_no_use_is_not_stored(self, fleet: "Fleet") -> None:
        for schema in ({"type": "nothing"}, {"$ref": "https://example.com/x.json"}):
            with pytest.raises(ConfigError):
                fleet.twins.put_schema("pump", schema)
        with pytest.raises(UsageError):
            fleet.twins.put_schema("a/b", {})
        assert fleet.twins.schemas() == []


class TestFollowing:
    def test_waiting_ends_when_the_devices_answer_what_is_desired(
        self, side: "Side", fleet: "Fleet", devices: "Sequence[Device]"
    ) -> None:
        fleet.twins.set(devices, {"a": 1})
        report(side, "p1", 1, {"a": 1, "more": True})
        found = fleet.twins.wait(devices, 30)

        assert next(found) == TwinConvergence("p1", "converged", 1, 1, None)
        report(side, "p2", 1, {"a": 1})
        assert list(found) == [TwinConvergence("p2", "converged", 1, 1, None)]
        assert fleet.twins.get("p2").drift is False

    def test_who_refuses_and_who_is_silent_is_told_apart(self, side: "Side", fleet: "Fleet", devices: "Sequence[Device]") -> None:
        fleet.twins.set(devices, {"a": 1})
        report(side, "p1", 1, {"$errors": {"a": "too small"}})
        with pytest.raises(Pending, match="1 of 1 devices has not converged yet"):
            list(fleet.twins.wait(devices[1:], 0))
        with pytest.raises(Partial, match="1 of 2 devices refused what is desired, 1 did not answer"):
            list(fleet.twins.wait(devices, 0))

        found = fleet.twins.wait(devices, 0)
        assert next(found) == TwinConvergence("p1", "refused", 1, 1, "`a`: too small")
        assert next(found) == TwinConvergence("p2", "waiting", 1, 0, "it has reported nothing")

    def test_an_answer_to_an_earlier_version_is_none(self, side: "Side", fleet: "Fleet", devices: "Sequence[Device]") -> None:
        fleet.twins.set(devices[:1], {"a": 1, "b": 1})
        report(side, "p1", 1, {"a": 1, "b": 1})
        fleet.twins.set(devices[:1], {"b": None})
        found = fleet.twins.wait(devices[:1], 0)

        assert next(found) == TwinConvergence("p1", "waiting", 2, 1, "it answers version 1")
        report(side, "p1", 2, {"a": 1})
        assert [each.outcome for each in fleet.twins.wait(devices[:1], 0)] == ["converged"]

    def test_nothing_to_wait_for_is_said(self, fleet: "Fleet", devices: "Sequence[Device]") -> None:
        with pytest.raises(NotFound, match="nothing is desired of `p1`"):
            list(fleet.twins.wait(devices[:1], 0))
        with pytest.raises(NotFound, match="nothing is desired of these 2 devices"):
            list(fleet.twins.wait(devices, 0))

    def test_waiting_says_first_what_the_broker_does_not_know(
        self, side: "Side", fleet: "Fleet", devices: "Sequence[Device]"
    ) -> None:
        fleet.twins.set(devices[:1], {"a": 1})
        side.say(f"{BASE}/p1/twin/desired", b"", retain=True)
        side.leave()
        with pytest.raises(Pending):
            fleet.twins.set(devices[1:], {"a": 1})
        side.come_back()
        with pytest.raises(Pending):
            list(fleet.twins.wait(devices, 0))

        assert (retained(side, "p1")["version"], retained(side, "p2")["version"]) == (1, 1)

    def test_watching_shows_both_halves_as_they_change(self, side: "Side", fleet: "Fleet", devices: "Sequence[Device]") -> None:
        report(side, "p1", 0, {"before": True})
        stop = threading.Event()

        def go_on() -> None:
            value = 0
            while not stop.wait(0.05):
                value += 1
                report(side, "p2", 3, {"a": value}, retain=False)
                side.say(f"{BASE}/p2/twin/reported", b"{")
                said = {"generation": 1, "version": value, "digest": f"sha256:{'0' * 64}", "desired": {}}
                side.say(f"{BASE}/p1/twin/desired", json.dumps({**said, "timestamp": "2026-01-01T00:00:00.000Z"}).encode())

        thread = threading.Thread(target=go_on)
        thread.start()
        seen: dict[tuple[str, str], TwinEvent] = {}
        events = fleet.twins.watch(devices)
        try:
            while len(seen) < 2:
                event = next(events)
                seen[event.id, event.half] = event
        finally:
            stop.set()
            thread.join()
            events.close()  # type: ignore[attr-defined]

        assert set(seen) == {("p2", "reported"), ("p1", "desired")}
        assert (seen["p2", "reported"].version, set(seen["p2", "reported"].document)) == (3, {"a"})
        assert fleet.twins.get("p2").reported == seen["p2", "reported"].document
