"""Groups and the audit trail."""

import pytest

from fleetctl.errors import Conflict, NotFound
from fleetctl.registry import Registry
from fleetctl.registry.audit import AuditFilter
from fleetctl.registry.groups import GroupRow


def test_a_group_is_a_name_for_one_selector(registry: Registry) -> None:
    canary = GroupRow("canary", "type=pump,site=oslo", "2026")
    assert registry.add_group(canary)
    assert not registry.add_group(GroupRow("canary", "type=pump,site=oslo", "2027"))
    with pytest.raises(Conflict, match="group `canary` exists already"):
        registry.add_group(GroupRow("canary", "type=sensor", "2027"))
    assert registry.groups() == [canary]
    registry.delete_group("canary")
    with pytest.raises(NotFound, match="no group named `canary`"):
        registry.delete_group("canary")


def test_the_trail_is_read_in_its_order_and_by_what_is_asked(registry: Registry) -> None:
    for number in range(1200):
        registry.record(
            "twin.set", f"pump-{number % 3}", at=f"2026-01-{number // 50 + 1:02d}", actor="op:a", device_id=f"pump-{number % 3}"
        )
    registry.record("twins", "all", at="2026-02", actor="op:b", reason="spring", detail={"count": 3})
    assert [row.id for row in registry.audit(AuditFilter())] == sorted(row.id for row in registry.audit(AuditFilter()))
    assert len(list(registry.audit(AuditFilter(device_id="pump-1")))) == 400
    assert len(list(registry.audit(AuditFilter(action="twin")))) == 1200
    (last,) = registry.audit(AuditFilter(actor="op:b"))
    assert (last.action, last.reason, last.detail) == ("twins", "spring", {"count": 3})
    assert len(list(registry.audit(AuditFilter(since="2026-01-24", action="twin.set")))) == 50


def test_what_is_taken_back_leaves_no_trail(registry: Registry) -> None:
    def change() -> None:
        with registry.transaction():
            registry.record("twin.set", "pump-1", at="2026", actor=None)
            registry.device("nobody")

    with pytest.raises(NotFound):
        change()
    assert list(registry.audit(AuditFilter())) == []
