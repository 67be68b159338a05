"""What a registry keeps of desired twins: versions, why, and the schemas of types."""

import pytest

from fleetctl.errors import Conflict, NotFound
from fleetctl.model.device import Device, DevicePath
from fleetctl.model.twin import HISTORY_LIMIT
from fleetctl.registry import Registry

AT = "2026-01-01T00:00:00.000Z"


@pytest.fixture
def pump(registry: Registry) -> str:
    registry.add_device(Device(DevicePath("acme", "oslo", "pump", "p1"), created_at=AT))
    return "p1"


def test_every_version_is_kept_with_who_and_why(registry: Registry, pump: str) -> None:
    registry.save_desired(pump, 1, '{"a":1}', "sha256:1", AT, actor="op:alice", reason="a trial")
    registry.save_desired(pump, 2, '{"a":2}', "sha256:2", AT)
    with pytest.raises(Conflict, match="is at version 2: 2 cannot follow"):
        registry.save_desired(pump, 2, "{}", "sha256:3", AT)

    assert [tuple(row) for row in registry.twin_history(pump)] == [
        (1, {"a": 1}, "sha256:1", AT, "op:alice", "a trial"),
        (2, {"a": 2}, "sha256:2", AT, None, None),
    ]
    assert registry.twin_version(pump, 1).desired == {"a": 1}
    with pytest.raises(NotFound):
        registry.twin_version(pump, 3)


def test_only_the_newest_versions_are_kept(registry: Registry, pump: str) -> None:
    with registry.transaction():
        for version in range(1, HISTORY_LIMIT + 3):
            registry.save_desired(pump, version, "{}", "sha256:1", AT)

    assert [row.version for row in registry.twin_history(pump)] == list(range(3, HISTORY_LIMIT + 3))


def test_a_type_has_one_schema_or_none(registry: Registry) -> None:
    assert registry.twin_schema("pump") is None
    registry.put_twin_schema("pump", '{"b":1,"a":2}')
    registry.put_twin_schema("lamp", "{}")
    registry.put_twin_schema("pump", '{"b":2}')

    assert registry.twin_schemas() == {"lamp": {}, "pump": {"b": 2}}
    registry.put_twin_schema("pump", None)
    assert registry.twin_schema("pump") is None
