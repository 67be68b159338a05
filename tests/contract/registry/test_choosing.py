"""What a registry's indexes choose, and what one would choose who looked at every device: the same devices in the same order."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleetctl.errors import NotFound, UsageError
from fleetctl.model.device import Device, DevicePath
from fleetctl.platforms.local.choosing import candidates, chosen
from fleetctl.platforms.local.choosing import seen as seen_at
from fleetctl.platforms.protocol import Targets
from fleetctl.platforms.targets import choose
from fleetctl.registry import Registry
from fleetctl.registry.groups import GroupRow
from tests.contract.registry.test_selecting import NOW, SELECTORS, WORDS, devices, filled, seen

LIMITS = st.none() | st.sampled_from(("1", "3", "100", "10%", "50%", "100%"))
NAMES = st.lists(
    st.sampled_from((*(f"{word}{number}" for word in WORDS for number in range(3)), "p*", "*2", "[ab]*")), max_size=3
)


def outcome(found: Any) -> list[str] | type[Exception]:
    try:
        return [record.device.id for record in found()]
    except (NotFound, UsageError) as error:
        return type(error)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    fleet=devices(),
    asked=st.lists(st.tuples(NAMES, st.none() | SELECTORS, LIMITS), min_size=2, max_size=6),
)
def test_indexes_choose_what_a_look_at_every_device_would(
    registry: Registry, fleet: list[dict[str, Any]], asked: list[tuple[list[str], str | None, str | None]]
) -> None:
    with filled(registry, fleet):
        for words, selector, limit in asked:
            targets = Targets(tuple(words), selector, limit)
            records = list(registry.records())
            if words and not any(set(word) & set("*?[") for word in words):
                records.sort(key=lambda record: words.index(record.device.id) if record.device.id in words else -1)
            by_looking = outcome(lambda: choose(records, targets, seen))  # noqa: B023
            assert outcome(lambda: chosen(registry, targets, NOW)) == by_looking, targets  # noqa: B023


@pytest.fixture
def fleet(registry: Registry) -> Registry:
    paths = [DevicePath("acme", "oslo", "pump", f"p-{number:04}") for number in range(1500)]
    labels = [{"site": f"s{number % 3}", "group": f"g{number % 5}"} for number in range(1500)]
    registry.add_devices([Device(path, said, created_at="2026") for path, said in zip(paths, labels, strict=True)])
    return registry


def ids(registry: Registry, selector: str | None = None, limit: str | None = None, *words: str) -> list[str]:
    return [record.device.id for record in chosen(registry, Targets(words, selector, limit), NOW)]


@pytest.mark.parametrize("selector", ["site=s1", "type=pump", "site=s*", "site=s1,id=p-0*", None])
def test_a_smaller_share_is_a_part_of_a_larger_one(fleet: Registry, selector: str | None) -> None:
    everything = ids(fleet, selector)
    small, large = ids(fleet, selector, "10%"), ids(fleet, selector, "20%")
    assert set(small) < set(large) < set(everything)
    assert (len(small), len(large)) == (-(-len(everything) // 10), -(-len(everything) // 5))
    assert small == sorted(small)
    assert ids(fleet, selector, str(len(small))) == small


def test_pages_of_any_size_leave_nothing_out(fleet: Registry) -> None:
    assert ids(fleet, "site in (s0,s1,s2)") == [f"p-{number:04}" for number in range(1500)]
    assert ids(fleet, "site=s0 or site=s2,id!=p-0002") == [f"p-{n:04}" for n in range(1500) if n % 3 != 1 and n != 2]


def test_a_saved_group_stands_for_its_selector(fleet: Registry) -> None:
    fleet.add_group(GroupRow("canary", "site=s1,id=p-00*", "2026"))
    fleet.add_group(GroupRow("early", "group=canary or id=p-1499", "2026"))
    wanted = [f"p-{number:04}" for number in range(100) if number % 3 == 1]
    assert ids(fleet, "group=canary") == wanted
    assert ids(fleet, "group=early") == [*wanted, "p-1499"]
    assert ids(fleet, "type=pump,group!=early") == [f"p-{n:04}" for n in range(1499) if f"p-{n:04}" not in wanted]
    assert ids(fleet, "group in (canary,g0),id=p-000*") == ["p-0000", "p-0001", "p-0004", "p-0005", "p-0007"]


def test_what_is_no_group_is_a_label(fleet: Registry) -> None:
    assert len(ids(fleet, "group=g1")) == 300
    fleet.add_group(GroupRow("g1", "id=p-0000", "2026"))
    assert ids(fleet, "group=g1") == ["p-0000"]
    assert len(ids(fleet, "label.group=g1")) == 300


def test_the_ids_that_are_named_must_be_there(fleet: Registry) -> None:
    fleet.retire_device("p-0003", "2026")
    assert ids(fleet, None, None, "p-0002", "p-0001") == ["p-0002", "p-0001"]
    with pytest.raises(NotFound, match="no device named `nobody`"):
        ids(fleet, None, None, "p-0*", "nobody")
    with pytest.raises(NotFound, match="`p-0003` was removed"):
        ids(fleet, None, None, "p-0003")
    assert [record.device.id for record in chosen(fleet, Targets(("p-0003",)), NOW, retired=True)] == ["p-0003"]


def test_a_selector_sees_what_was_heard(fleet: Registry) -> None:
    record = next(iter(fleet.records(["p-0001"])))
    assert seen_at(record, NOW) == seen(record)


@pytest.mark.parametrize(
    ("selector", "count"),
    [
        ("site=s1,status=online", 500),
        ("site=s1,(status=online or firmware<2.0.0)", 500),
        ("site=s1 or status=online", 1500),
        ("status=online", 1500),
        ("site=s1", 500),
        ("site=s1,group!=fresh", 500),
    ],
)
def test_whom_to_read_before_a_selector_asks_for_what_they_report(fleet: Registry, selector: str, count: int) -> None:
    fleet.add_group(GroupRow("fresh", "site=s2,idle<1h", "2026"))
    assert len(list(candidates(fleet, Targets((), selector, None), NOW))) == count
    assert len(list(candidates(fleet, Targets(("p-0001",), selector, "10%"), NOW))) <= 1
