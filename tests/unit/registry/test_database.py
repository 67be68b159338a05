"""The registry file: made whole, opened or refused in words, written together or not at all."""

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from fleetctl.errors import ConfigError, Conflict, Denied, FleetError, Unavailable
from fleetctl.registry import Registry, schema, sqlite


def test_a_new_registry_knows_its_tenant_and_only_its_owner_reads_it(registry: Registry, path: Path) -> None:
    assert registry.tenant == "acme"
    assert registry.generation == 1
    assert {file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {0o600}


def test_creating_leaves_nothing_else_and_never_overwrites(registry: Registry, path: Path) -> None:
    with pytest.raises(Conflict, match="exists already"):
        Registry.create(path, "other")

    assert registry.tenant == "acme"
    assert {file.name.removeprefix("registry.db") for file in path.parent.iterdir()} <= {"", "-wal", "-shm"}


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(FleetError, match="cannot be written"):
        Registry.create(tmp_path / "no" / "registry.db", "acme")


def test_a_registry_that_is_not_there_is_a_matter_of_configuration(path: Path) -> None:
    with pytest.raises(ConfigError, match="no registry at"):
        Registry.open(path)

    assert not path.exists()


def test_a_registry_of_a_newer_fleetctl_is_refused_with_what_to_install(registry: Registry, path: Path) -> None:
    registry.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 7")

    with pytest.raises(FleetError) as caught:
        Registry.open(path)

    assert (
        caught.value.message == f"registry `{path}` was written by a newer fleetctl (schema 7, this one knows {schema.VERSION})"
    )
    assert caught.value.hint == "pip install --upgrade fleetctl"
    assert caught.value.status == 1


@pytest.mark.parametrize("content", [b"", b"hello", b"SQLite format 3\0" + b"\xff" * 4096, b"\0" * 8192])
def test_a_file_that_is_no_registry_is_named_with_a_way_out(path: Path, content: bytes) -> None:
    path.write_bytes(content)

    with pytest.raises(FleetError) as caught:
        Registry.open(path)

    assert f"registry `{path}` is damaged" in caught.value.message
    assert ".recover" in caught.value.hint
    assert path.read_bytes() == content


def test_somebody_elses_database_is_no_registry(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE devices (id)")

    with pytest.raises(FleetError, match="it is not a fleetctl registry"):
        Registry.open(path)


def test_damage_that_shows_only_later_is_named_too(registry: Registry, path: Path) -> None:
    registry.close()
    content = bytearray(path.read_bytes())
    content[4096:] = b"\x5a" * (len(content) - 4096)
    path.write_bytes(content)

    with Registry.open(path) as opened, pytest.raises(FleetError, match="is damaged"):
        list(opened.records())


def test_a_registry_that_may_not_be_opened_says_so(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(Denied, match="cannot be opened"):
        Registry.open(tmp_path)


def test_a_busy_registry_is_unavailable(registry: Registry, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.01)
    with Registry.open(path) as other, registry.transaction(), pytest.raises(Unavailable, match="is busy"):
        other.raise_order("pump-1", 1)


def test_a_transaction_that_fails_leaves_nothing(registry: Registry) -> None:
    def write_and_fail() -> None:
        with registry.transaction():
            registry.raise_order("pump-1", 1)
            with registry.transaction():
                registry.raise_order("pump-2", 1)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_and_fail()

    assert registry.orders(["pump-1", "pump-2"]) == {"pump-1": 0, "pump-2": 0}
    registry.raise_order("pump-1", 2)
    assert registry.orders(["pump-1"]) == {"pump-1": 2}


def test_a_part_that_fails_takes_only_itself_back(registry: Registry) -> None:
    def part() -> None:
        with registry.transaction():
            registry.raise_order("pump-2", 1)
            raise RuntimeError

    with registry.transaction():
        registry.raise_order("pump-1", 1)
        with pytest.raises(RuntimeError):
            part()
        registry.raise_order("pump-3", 1)

    assert registry.orders(["pump-1", "pump-2", "pump-3"]) == {"pump-1": 1, "pump-2": 0, "pump-3": 1}


def test_an_older_registry_is_migrated(registry: Registry, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.close()
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, ("CREATE TABLE later (x)", "INSERT INTO later VALUES (1)")))
    monkeypatch.setattr(schema, "VERSION", schema.VERSION + 1)

    with Registry.open(path) as migrated:
        assert migrated.read("SELECT x FROM later") == [(1,)]
    with Registry.open(path) as again:
        assert again.read("SELECT x FROM later") == [(1,)]


def test_a_migration_that_fails_changes_nothing(registry: Registry, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.close()
    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, ("CREATE TABLE later (x)", "CREATE TABLE later (x)")))
        patch.setattr(schema, "VERSION", schema.VERSION + 1)
        with pytest.raises(FleetError):
            Registry.open(path)

    with Registry.open(path) as opened:
        assert opened.read("SELECT name FROM sqlite_master WHERE name = 'later'") == []


def test_the_registry_imports_nothing_heavy() -> None:
    heavy = "{'yaml', 'cryptography', 'paho', 'asyncio', 'rich', 'ssl', 'cbor2', 'httpx', 'keyring', 'socket'}"
    code = f"import sys, fleetctl.registry, fleetctl.config, fleetctl.model.selector; print(sorted({heavy} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert run.stdout.strip() == "[]"
