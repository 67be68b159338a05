"""Rollouts in the registry: their records, the order numbers given to devices, and what devices said of their updates."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from fleetctl.errors import NotFound
from fleetctl.model.device import DevicePath, printable
from fleetctl.registry.database import Database, marks, pages, upsert

_ROLLOUT = upsert("rollouts", "id", "release", "state", "plan_digest", "record")


class RolloutRow(NamedTuple):
    """A rollout as its last controller left it; `record` is what `ota status` shows."""

    id: str
    release: str
    state: str
    plan_digest: str
    record: dict[str, Any]


class UpdateStatusRow(NamedTuple):
    """The newest word of a device on an update (`document` is the `ota/status` payload)."""

    device_id: str
    rollout: str
    attempt: int
    step: int
    document: dict[str, Any]
    received_at: float


class Rollouts(Database):
    def save_rollout(self, rollout: str, release: str, state: str, plan_digest: str, record_json: str) -> None:
        self.write(_ROLLOUT, (rollout, release, state, plan_digest, record_json))

    def rollout(self, rollout: str) -> RolloutRow:
        """Raises `NotFound`."""
        row = self.read_one("SELECT id, release, state, plan_digest, record FROM rollouts WHERE id = ?", (rollout,))
        if row is None:
            raise NotFound(f"no rollout named {printable(rollout)}", "see fleetctl ota list")
        return RolloutRow(row[0], row[1], row[2], row[3], self.parse(row[4]))

    def rollouts(self) -> list[RolloutRow]:
        rows = self.read("SELECT id, release, state, plan_digest, record FROM rollouts ORDER BY id")
        return [RolloutRow(row[0], row[1], row[2], row[3], self.parse(row[4])) for row in rows]

    def orders(self, device_ids: Iterable[str]) -> dict[str, int]:
        """The highest order number given to each device, 0 where none was."""
        wanted = list(device_ids)
        found = dict.fromkeys(wanted, 0)
        for page in pages(wanted):
            found.update(self.read(f"SELECT device_id, number FROM orders WHERE device_id IN ({marks(page)})", page))  # noqa: S608
        return found

    def raise_order(self, device_id: str, order: int) -> None:
        """Note that `order` was given out; a lower one than is known changes nothing."""
        self.write(
            """INSERT INTO orders VALUES (?, ?)
            ON CONFLICT (device_id) DO UPDATE SET number = excluded.number WHERE excluded.number > orders.number""",
            (device_id, order),
        )

    def remember_update_status(self, path: DevicePath, status_json: str | bytes, received_at: float) -> bool:
        """Keep a device's `ota/status`; False unless its (attempt, step) is greater than what the rollout heard of it."""
        text = status_json if isinstance(status_json, str) else status_json.decode()
        document = self.parse(text)
        rollout, attempt, step = document["rolloutId"], int(document["attempt"]), int(document["step"])
        changed = self.write(
            """INSERT INTO update_status VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (rollout, device_id)
            DO UPDATE SET attempt = excluded.attempt, step = excluded.step, document = excluded.document,
                received_at = excluded.received_at
            WHERE (excluded.attempt, excluded.step) > (update_status.attempt, update_status.step)""",
            (path.device_id, rollout, attempt, step, text, received_at),
        )
        return changed > 0

    def update_statuses(self, rollout: str) -> list[UpdateStatusRow]:
        rows = self.read(
            """SELECT device_id, rollout, attempt, step, document, received_at FROM update_status
            WHERE rollout = ? ORDER BY device_id""",
            (rollout,),
        )
        return [UpdateStatusRow(row[0], row[1], row[2], row[3], self.parse(row[4]), row[5]) for row in rows]
