"""A registry of an earlier fleetctl keeps what it held."""

import contextlib
import sqlite3
from pathlib import Path

import pytest

from fleetctl.errors import Conflict
from fleetctl.model.device import Device, DevicePath, LifeCycle
from fleetctl.registry import Registry, schema


def first_schema(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as old:
        old.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
        for statement in schema.MIGRATIONS[0]:
            old.execute(statement)
        old.execute("INSERT INTO meta VALUES ('tenant', 'acme'), ('generation', '1')")
        old.execute("INSERT INTO devices VALUES ('pump-1', 'acme', 'oslo', 'pump', 'active', '2026-01-01T00:00:00.000Z', NULL)")
        old.execute("INSERT INTO labels VALUES ('pump-1', 'site', 'oslo')")
        for serial, name, profile, device in (
            ("01", "pump-1", "device", "pump-1"),
            ("02", "device-issuing", "authority", None),
            ("03", "fleet-ca", "authority", None),
        ):
            old.execute(
                "INSERT INTO certificates VALUES (?, 'device-root', ?, ?, ?, '2026', '2030', 'sha256:0', 'PEM', NULL, NULL)",
                (serial, profile, name, device),
            )
        old.execute("INSERT INTO crls VALUES ('device-issuing', 7, 1000)")
        old.execute("PRAGMA user_version = 1")


def test_schema_one_becomes_the_present_one_with_all_it_held(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    first_schema(path)
    with Registry.open(path) as registry:
        device = registry.device("pump-1")
        assert (device.state, device.labels, device.serial) == (LifeCycle.ACTIVE, {"site": "oslo"}, None)
        assert registry.certificates("pump-1")[0].spki is None
        assert registry.next_crl_number("device-issuing", 5.0) == (8, 1001)
        rows = registry.read("SELECT name, role, kind, state FROM authorities ORDER BY name")
        assert rows == [("device-issuing", "devices", "issuing", "active"), ("fleet-ca", "people", "root", "active")]
        assert registry.read("PRAGMA foreign_key_check") == []
        assert registry.move_device("pump-1", LifeCycle.SUSPENDED, event="suspended", at="2026", reason="lost", actor="op:a")
        assert [row.reason for row in registry.timeline("pump-1")] == ["lost"]


def test_a_serial_belongs_to_one_device(tmp_path: Path) -> None:
    with Registry.create(tmp_path / "registry.db", "acme") as registry:
        for name, serial in (("pump-1", "SN1"), ("pump-2", "SN2")):
            path = DevicePath("acme", "oslo", "pump", name)
            registry.add_device(Device(path, {}, LifeCycle.MANUFACTURED, "2026", serial, "spring"))
        assert registry.device_by_serial("SN2").id == "pump-2"
        with pytest.raises(Conflict, match=r"serial `SN1` is that of device `pump-1`"):
            registry.bind_serial("pump-2", "SN1")
        registry.bind_serial("pump-2", "SN3")
        assert registry.device("pump-2").serial == "SN3"
        assert [(row.event, row.state_after) for row in registry.timeline("pump-2")] == [("added", "manufactured")]


def test_a_retired_device_never_comes_back(tmp_path: Path) -> None:
    with Registry.create(tmp_path / "registry.db", "acme") as registry:
        path = DevicePath("acme", "oslo", "pump", "pump-1")
        registry.add_device(Device(path, created_at="2026"))
        assert registry.retire_device("pump-1", "2027", reason="scrapped")
        assert not registry.retire_device("pump-1", "2028")
        with pytest.raises(Conflict, match="is retired, and cannot become active"):
            registry.move_device("pump-1", LifeCycle.ACTIVE, event="reset", at="2029")
        assert not registry.knows(path)


@pytest.mark.parametrize(
    ("state", "known"), [(LifeCycle.CLAIMED, True), (LifeCycle.SUSPENDED, False), (LifeCycle.REVOKED, False)]
)
def test_what_a_suspended_or_revoked_device_says_is_not_taken_in(tmp_path: Path, state: LifeCycle, known: bool) -> None:
    with Registry.create(tmp_path / "registry.db", "acme") as registry:
        path = DevicePath("acme", "oslo", "pump", "pump-1")
        registry.add_device(Device(path, {}, LifeCycle.MANUFACTURED, "2026"))
        registry.move_device("pump-1", state, event="test", at="2026")
        assert registry.knows(path) is known
        for status, believed in (("online", known), ("offline", True)):
            document = f'{{"status": "{status}", "session": "1-1", "heartbeat": 1}}'
            assert registry.remember_presence(path, document, 5.0) is believed
