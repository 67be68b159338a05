"""Desired and reported twins, and the outbox of what the broker must still be told."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from fleetctl.errors import Conflict
from fleetctl.model.device import DevicePath
from fleetctl.registry.database import Database, Row


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

    def save_desired(self, device_id: str, version: int, desired_json: str, digest: str, at: str) -> None:
        """Store the next version; raises `Conflict` unless it follows the one that is held."""
        with self.transaction():
            held = self.twin(device_id).version
            if version != held + 1:
                raise Conflict(
                    f"twin of `{device_id}` is at version {held}: {version} cannot follow", f"see fleetctl twin get {device_id}"
                )
            self.write("INSERT OR REPLACE INTO twins VALUES (?, ?, ?, ?, ?)", (device_id, version, desired_json, digest, at))

    def remember_reported(self, path: DevicePath, version: int, reported_json: str, received_at: float) -> bool:
        """Keep what a device reports of itself; False if no active device lives at that path."""
        with self.transaction():
            if not self.read_one(
                "SELECT 1 FROM devices WHERE id = ? AND tenant = ? AND location = ? AND type = ? AND state <> 'retired'",
                (path.device_id, path.tenant, path.location, path.device_type),
            ):
                return False
            row = (path.device_id, version, reported_json, received_at)
            self.write("INSERT OR REPLACE INTO reported VALUES (?, ?, ?, ?)", row)
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
