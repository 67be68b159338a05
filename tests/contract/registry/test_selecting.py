"""What SQL says of a selector and what the selector itself says, of the same devices: law by law, on fleets made up by chance."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleetctl.errors import UsageError
from fleetctl.model import selector
from fleetctl.model.criteria import DeviceView
from fleetctl.model.device import Device, DevicePath
from fleetctl.model.presence import view
from fleetctl.registry import DeviceRecord, Registry
from fleetctl.registry.selecting import compiled, label_of

NOW = 1_000_000.0
DEVICES = "SELECT d.id FROM devices d LEFT JOIN presence p ON p.device_id = d.id"
WORDS = ("pump", "pum", "sensor", "a", "A", "a-b", "b7")
VALUES = ("1", "7", "north", "North", "nor_h", "nor%h", "n*h", "9.5", "x")
FIRMWARE = ("", "1.0.0", "2.0.5", "2.0.5-rc.1", "2.10.0", "odd")
FIELDS = ("id", "type", "location", "status", "firmware", "idle", "site", "label.floor", "twin.n")


@st.composite
def devices(draw: st.DrawFn) -> list[dict[str, Any]]:
    size = draw(st.integers(1, 8))
    return [
        {
            "id": f"{draw(st.sampled_from(WORDS))}{number}",
            "type": draw(st.sampled_from(WORDS)),
            "location": draw(st.sampled_from(WORDS)),
            "labels": draw(st.dictionaries(st.sampled_from(("site", "floor")), st.sampled_from(VALUES))),
            "presence": draw(
                st.none()
                | st.fixed_dictionaries(
                    {
                        "status": st.sampled_from(("online", "offline")),
                        "firmware": st.sampled_from(FIRMWARE),
                        "heartbeat": st.sampled_from((0.1, 60.0, 3600.0)),
                        "age": st.sampled_from((-5.0, 0.0, 0.25, 150.0, 150.1, 3600.0, 90000.0)),
                    }
                )
            ),
            "reported": draw(st.none() | st.fixed_dictionaries({"n": st.sampled_from((1, 60, "60", True, None))})),
        }
        for number in range(size)
    ]


@st.composite
def comparisons(draw: st.DrawFn) -> str:
    field = draw(st.sampled_from(FIELDS))
    value = st.sampled_from(
        (*WORDS, *VALUES, *FIRMWARE[1:], "p*", "pump?", "[a-n]*", '"n*h"', "*", "online", "stale", "30m", "150s")
    )
    form = draw(st.sampled_from(("exists", "absent", "one", "order", "many")))
    if form == "exists":
        return field
    if form == "absent":
        return f"!{field}"
    if form == "many":
        return f"{field} {draw(st.sampled_from(('in', 'notin')))} ({', '.join(draw(st.lists(value, min_size=1, max_size=3)))})"
    operator = draw(st.sampled_from(("=", "!=") if form == "one" else ("<", "<=", ">", ">=")))
    return f"{field}{operator}{draw(value)}"


SELECTORS = st.recursive(
    comparisons(),
    lambda inner: st.builds(
        lambda parts, word: f"({word.join(parts)})", st.lists(inner, min_size=2, max_size=3), st.sampled_from((",", " or "))
    ),
    max_leaves=5,
)


class Undone(Exception):
    """Takes back what an example has written."""


@contextmanager
def filled(registry: Registry, fleet: list[dict[str, Any]]) -> Iterator[None]:
    """The fleet in the registry, for as long as the block lasts."""
    with suppress(Undone), registry.transaction():
        for each in fleet:
            path = DevicePath("acme", each["location"], each["type"], each["id"])
            registry.add_device(Device(path, each["labels"], created_at="2026"))
            said = each["presence"]
            if said is not None:
                document = {
                    "status": said["status"],
                    "session": "1-1",
                    "firmwareVersion": said["firmware"],
                    "heartbeat": said["heartbeat"],
                }
                registry.remember_presence(path, json.dumps(document), NOW - said["age"])
            if each["reported"] is not None:
                registry.remember_reported(path, 1, json.dumps(each["reported"]), NOW)
        yield
        raise Undone


def seen(record: DeviceRecord) -> DeviceView:
    said = record.sighting
    return DeviceView(
        record.device.path,
        record.device.labels,
        None if said is None else said.firmware_version or None,
        view(said, None if said is None else said.received_at, NOW),
        None if said is None else max(0.0, NOW - said.received_at),
        record.reported,
    )


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fleet=devices(), texts=st.lists(SELECTORS, min_size=5, max_size=12))
def test_sql_never_leaves_out_what_a_selector_matches_and_an_exact_condition_adds_nothing(
    registry: Registry, fleet: list[dict[str, Any]], texts: list[str]
) -> None:
    with filled(registry, fleet):
        records = list(registry.records())
        for text in texts:
            try:
                asked = selector.parse(text)
            except UsageError:
                continue
            condition = compiled(asked, NOW)
            rows = registry.read(f"{DEVICES} WHERE {condition.sql}", condition.parameters)
            by_sql = {row[0] for row in rows}
            by_predicate = {record.device.id for record in records if asked.matches(seen(record))}
            assert by_predicate <= by_sql, text
            assert not condition.exact or by_sql == by_predicate, text


@pytest.mark.parametrize(
    "text", ["type=pump,site=north", "site!=north", "status in (online,stale)", "idle>30m", "firmware=2.0.5 or !site", 'id="n*h"']
)
def test_what_indexes_can_decide_is_exact(text: str) -> None:
    assert compiled(selector.parse(text), NOW).exact


@pytest.mark.parametrize("text", ["type=pu*", "firmware<2.1.0", "floor>9", "twin.n=60", "site!=n*"])
def test_what_they_cannot_is_not(text: str) -> None:
    assert not compiled(selector.parse(text), NOW).exact


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("type=pump,site=north", ("site", "north")),
        ('label.site in ("n*")', ("site", "n*")),
        ("site=n*", None),
        ("site=a or site=b", None),
        ("site!=a", None),
    ],
)
def test_the_label_that_all_devices_of_a_selector_have(text: str, label: tuple[str, str] | None) -> None:
    assert label_of(selector.parse(text)) == label
