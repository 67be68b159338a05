"""Desired and reported twins, and the outbox of what the broker must still be told."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from fleetctl.errors import Conflict, NotFound
from fleetctl.model.device import DevicePath
from fleetctl.registry.database import Database, Row, upsert

_TWIN = upsert("twins", "device_id", "version", "desired", "digest", "updated_at")
_REPORTED = upsert("reported", "device_id", "version", "reported", "received_at")


class TwinRow(NamedTuple):
    """Both halves of a twin as the registry holds them; version 0 stands for nothing desired, or nothing reported."""

    version: int
    desired: Mapping[str, Any]
    digest: str
    updated_at: str | None
    reported_version: int
    reported: Mapping[str, Any] | None
    received_at: float | None


class OutboxRow(NamedTuple):
    """A retained message that the broker has not acknowledged yet; an empty payload clears its topic."""

    id: int
    topic: str
    payload: bytes


class VersionRow(NamedTuple):
    """One version of what was desired, and who wanted it so."""

    version: int
    desired: Mapping[str, Any]
    digest: str
    at: str
    actor: str | None
    reason: str | None


class Projections(Database):
    def twin(self, device_id: str) -> TwinRow:
        row = self.read_one(
            """SELECT t.version, t.desired, t.digest, t.updated_at, r.version, r.reported, r.received_at
            FROM devices d LEFT JOIN twins t ON t.device_id = d.id LEFT JOIN reported r ON r.device_id = d.id WHERE d.id = ?""",
            (device_id,),
        )
        return self._twin_row(row or (None,) * 7)

    def desired_page(self, after: str = "", limit: int = 500) -> list[tuple[DevicePath, TwinRow]]:
        """The twins of active devices of which something is desired, in the order of their ids, from the one behind `after`."""
        rows = self.read(
            """SELECT d.tenant, d.location, d.type, d.id, t.version, t.desired, t.digest, t.updated_at, NULL, NULL, NULL
            FROM twins t JOIN devices d ON d.id = t.device_id WHERE d.state <> 'retired' AND d.id > ? ORDER BY d.id LIMIT ?""",
            (after, limit),
        )
        return [(DevicePath(*row[:4]), self._twin_row(row[4:])) for row in rows]

    def save_desired(
        self,
        device_id: str,
        version: int,
        desired_json: str,
        digest: str,
        at: str,
        *,
        actor: str | None = None,
        reason: str | None = None,
    ) -> None:
        """Store the next version and remember it; raises `Conflict` unless it follows the one that is held."""
        with self.transaction():
            held = self.twin(device_id).version
            if version != held + 1:
                raise Conflict(
                    f"twin of `{device_id}` is at version {held}: {version} cannot follow", f"see fleetctl twin get {device_id}"
                )
            self.write(_TWIN, (device_id, version, desired_json, digest, at))
            row = (device_id, version, desired_json, digest, at, actor, reason)
            self.write("INSERT INTO twin_history VALUES (?, ?, ?, ?, ?, ?, ?)", row)
            from fleetctl.model.twin import HISTORY_LIMIT

            if version > HISTORY_LIMIT:
                self.write("DELETE FROM twin_history WHERE device_id = ? AND version <= ?", (device_id, version - HISTORY_LIMIT))

    def twin_history(self, device_id: str) -> list[VersionRow]:
        """The newest versions, oldest first."""
        rows = self.read(
            "SELECT version, desired, digest, at, actor, reason FROM twin_history WHERE device_id = ? ORDER BY version",
            (device_id,),
        )
        return [VersionRow(row[0], self.parse(row[1]), *row[2:]) for row in rows]

    def twin_version(self, device_id: str, version: int) -> VersionRow:
        """Raises `NotFound`."""
        found = next((row for row in self.twin_history(device_id) if row.version == version), None)
        if found is None:
            raise NotFound(
                f"twin of `{device_id}` has no version {version} to go back to", f"see fleetctl twin history {device_id}"
            )
        return found

    def twin_schema(self, device_type: str) -> dict[str, Any] | None:
        """The JSON Schema that desired documents of a type must meet, if there is one."""
        row = self.read_one("SELECT document FROM twin_schemas WHERE type = ?", (device_type,))
        return None if row is None else dict(self.parse(row[0]))

    def twin_schemas(self) -> dict[str, dict[str, Any]]:
        rows = self.read("SELECT type, document FROM twin_schemas ORDER BY type")
        return {row[0]: dict(self.parse(row[1])) for row in rows}

    def put_twin_schema(self, device_type: str, document: str | None) -> None:
        """Keep the schema of a type, or forget it."""
        if document is None:
            self.write("DELETE FROM twin_schemas WHERE type = ?", (device_type,))
        else:
            self.write(upsert("twin_schemas", "type", "document"), (device_type, document))

    def remember_reported(self, path: DevicePath, version: int, reported_json: str, received_at: float) -> bool:
        """Keep what a device reports of itself; False if no active device lives at that path."""
        with self.transaction():
            if not self.read_one(
                "SELECT 1 FROM devices WHERE id = ? AND tenant = ? AND location = ? AND type = ? AND state <> 'retired'",
                (path.device_id, path.tenant, path.location, path.device_type),
            ):
                return False
            row = (path.device_id, version, reported_json, received_at)
            self.write(_REPORTED, row)
        return True

    def enqueue(self, topic: str, payload: bytes, at: str) -> int:
        """Note a retained message to send; it takes the place of an older one for the same topic."""
        with self.transaction():
            self.write("DELETE FROM outbox WHERE topic = ?", (topic,))
            self.write("INSERT INTO outbox (topic, payload, created_at) VALUES (?, ?, ?)", (topic, payload, at))
            row = self.read_one("SELECT max(id) FROM outbox")
        return int(row[0]) if row else 0

    def outbox(self, after: int = 0, limit: int = 500) -> list[OutboxRow]:
        """What waits to be sent, oldest first."""
        rows = self.read("SELECT id, topic, payload FROM outbox WHERE id > ? ORDER BY id LIMIT ?", (after, limit))
        return [OutboxRow(*row) for row in rows]

    def sent(self, outbox_id: int) -> None:
        """The broker has acknowledged it; a newer message for the same topic has another id and stays."""
        self.write("DELETE FROM outbox WHERE id = ?", (outbox_id,))

    def _twin_row(self, row: Row) -> TwinRow:
        version, desired, digest, updated_at, reported_version, reported, received_at = row
        return TwinRow(
            version or 0,
            {} if desired is None else self.parse(desired),
            digest or "",
            updated_at,
            reported_version or 0,
            None if reported is None else self.parse(reported),
            received_at,
        )
