"""Devices: added once, retired for ever, heard of."""

import json

import pytest

from fleetctl.errors import Conflict, NotFound, UsageError
from fleetctl.model.device import Device, DevicePath, LifeCycle
from fleetctl.registry import Registry

AT = "2026-01-15T10:30:00.000Z"


def device(name: str = "pump-1", location: str = "oslo", kind: str = "pump", **labels: str) -> Device:
    return Device(DevicePath("acme", location, kind, name), labels, created_at=AT)


def presence(status: str = "online", session: str = "1-1", **more: object) -> str:
    return json.dumps({"status": status, "session": session, "firmwareVersion": "2.0.0", "heartbeat": 30, **more})


def test_a_device_that_is_added_is_found_as_it_was(registry: Registry) -> None:
    assert registry.add_device(device(site="north", floor="2"))

    assert registry.device("pump-1") == device(floor="2", site="north")
    assert [record.device.id for record in registry.records()] == ["pump-1"]
    assert registry.count_devices() == 1


def test_adding_the_same_again_changes_nothing(registry: Registry) -> None:
    registry.add_device(device(site="north"))

    assert not registry.add_device(Device(device().path, {"site": "north"}, created_at="later"))
    assert registry.device("pump-1").created_at == AT


def test_adding_it_differently_is_a_conflict_that_names_what_differs(registry: Registry) -> None:
    registry.add_device(device(site="north", floor="2"))

    with pytest.raises(Conflict) as caught:
        registry.add_device(device(location="bergen", site="south", group="canary"))

    assert caught.value.message == (
        "device `pump-1` exists already and differs: location is `oslo`, not `bergen`; "
        "label `floor` is `2`, not absent; label `group` is absent, not `canary`; label `site` is `north`, not `south`"
    )


def test_a_bad_label_adds_nothing(registry: Registry) -> None:
    with pytest.raises(UsageError):
        registry.add_device(Device(device().path, {"9": "x"}))

    assert registry.count_devices() == 0


def test_a_retired_id_is_never_given_out_again(registry: Registry) -> None:
    registry.add_device(device())
    assert registry.retire_device("pump-1", AT)
    assert not registry.retire_device("pump-1", AT)

    with pytest.raises(Conflict, match="was used before and is retired"):
        registry.add_device(device())
    with pytest.raises(NotFound, match="was removed"):
        registry.active_device("pump-1")
    assert registry.device("pump-1").state is LifeCycle.RETIRED
    assert list(registry.records()) == []
    assert len(list(registry.records(retired=True))) == 1
    assert not registry.knows(device().path)


def test_an_unknown_device_is_not_found(registry: Registry) -> None:
    for lookup in (registry.device, registry.active_device):
        with pytest.raises(NotFound, match="no device named `pump-9`"):
            lookup("pump-9")
    with pytest.raises(NotFound):
        registry.retire_device("pump-9", AT)


def test_records_come_in_the_order_of_ids_or_in_the_order_asked_for(registry: Registry) -> None:
    names = [f"d-{number:04}" for number in range(1203)]
    with registry.transaction():
        for name in reversed(names):
            registry.add_device(device(name))

    assert [record.device.id for record in registry.records()] == names
    wanted = [*names[::-2], "unknown", names[-1]]
    assert [record.device.id for record in registry.records(wanted)] == names[::-2]
    assert registry.device_ids("d-12", 2) == ["d-1200", "d-1201"]


def test_only_a_device_at_exactly_its_path_is_believed(registry: Registry) -> None:
    registry.add_device(device())

    assert registry.knows(device().path)
    for path in (
        DevicePath("other", "oslo", "pump", "pump-1"),
        DevicePath("acme", "bergen", "pump", "pump-1"),
        DevicePath("acme", "oslo", "sensor", "pump-1"),
        DevicePath("acme", "oslo", "pump", "pump-2"),
    ):
        assert not registry.knows(path)
        assert not registry.remember_presence(path, presence(), 1.0)
        assert not registry.remember_reported(path, 1, "{}", 1.0)


def test_a_status_is_remembered_unless_a_newer_session_was_heard_of(registry: Registry) -> None:
    registry.add_device(device())
    path = device().path

    assert registry.remember_presence(path, presence(session="2-1", digest="sha256:aa"), 10.0)
    assert not registry.remember_presence(path, presence("offline", "1-9"), 11.0)
    sighting = registry.sighting("pump-1")
    assert sighting is not None
    assert (sighting.status, sighting.session, sighting.received_at) == ("online", "2-1", 10.0)
    assert (sighting.firmware_version, sighting.digest, sighting.heartbeat) == ("2.0.0", "sha256:aa", 30.0)

    assert registry.remember_presence(path, presence("offline", "2-1").encode(), 12.0)
    (record,) = registry.records()
    assert record.sighting == registry.sighting("pump-1")
    assert record.sighting is not None
    assert record.sighting.status == "offline"
    document = registry.presence_document("pump-1")
    assert document is not None
    assert document["session"] == "2-1"


def test_many_are_added_at_once_and_each_is_answered_for_itself(registry: Registry) -> None:
    registry.add_devices([device("old"), device("gone")])
    registry.retire_device("gone", AT)
    asked = [
        device("new", site="a"),
        device("old"),
        device("old", "bergen"),
        device("gone"),
        device("new", site="a"),
        device("new", site="b"),
        Device(device("bad").path, {"9": "x"}),
        Device(device("first").path, {}, created_at=AT, serial="S1"),
        Device(device("second").path, {}, created_at=AT, serial="S1"),
    ]
    outcomes = registry.add_devices(asked, actor="op:a")
    assert outcomes[:2] == [True, False]
    assert [type(each) for each in outcomes[2:]] == [Conflict, Conflict, bool, Conflict, UsageError, bool, Conflict]
    assert (outcomes[4], outcomes[7]) == (False, True)
    assert registry.device("new") == device("new", site="a")
    assert [(step.event, step.actor) for step in registry.timeline("new")] == [("added", "op:a")]
    assert [record.device.id for record in registry.records()] == ["first", "new", "old"]
