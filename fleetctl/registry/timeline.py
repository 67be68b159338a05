"""What became of each device: every step of its life with who took it and why, written together with the step itself."""

from collections.abc import Sequence
from typing import NamedTuple

from fleetctl.errors import NotFound
from fleetctl.model.device import LifeCycle, printable
from fleetctl.model.lifecycle import check_move
from fleetctl.registry.database import Database

_STEP = """INSERT INTO timeline (device_id, at, event, state_before, state_after, reason, actor)
    VALUES (?, ?, ?, ?, ?, ?, ?)"""


class TimelineRow(NamedTuple):
    """One step: `at` is RFC 3339 UTC; the states are the same where something was noted only."""

    at: str
    event: str
    state_before: str | None
    state_after: str
    reason: str | None
    actor: str | None


class Timeline(Database):
    def move_device(
        self, device_id: str, to: LifeCycle, *, event: str, at: str, reason: str | None = None, actor: str | None = None
    ) -> bool:
        """Take a step; False, and nothing is written, if the device is there already. Revoked and retired ones lose their tokens.

        Raises:
            NotFound: no such device.
            Conflict: no device takes that step.
        """
        with self.transaction():
            before = self._state(device_id)
            if before is to:
                return False
            check_move(device_id, before, to)
            retired = at if to is LifeCycle.RETIRED else None
            self.write("UPDATE devices SET state = ?, retired_at = ? WHERE id = ?", (to, retired, device_id))
            self._add(device_id, TimelineRow(at, event, before, to, reason, actor))
            if to in (LifeCycle.REVOKED, LifeCycle.RETIRED):
                self.write("UPDATE tokens SET used_at = ? WHERE device_id = ? AND used_at IS NULL", (at, device_id))
        return True

    def note(self, device_id: str, event: str, *, at: str, reason: str | None = None, actor: str | None = None) -> None:
        """Write down what changed no state; raises `NotFound`."""
        with self.transaction():
            state = self._state(device_id)
            self._add(device_id, TimelineRow(at, event, state, state, reason, actor))

    def timeline(self, device_id: str) -> list[TimelineRow]:
        """Oldest first."""
        rows = self.read(
            "SELECT at, event, state_before, state_after, reason, actor FROM timeline WHERE device_id = ? ORDER BY id",
            (device_id,),
        )
        return [TimelineRow(*row) for row in rows]

    def device_state(self, device_id: str) -> LifeCycle:
        """Where a device stands now; raises `NotFound`."""
        return self._state(device_id)

    def _state(self, device_id: str) -> LifeCycle:
        row = self.read_one("SELECT state FROM devices WHERE id = ?", (device_id,))
        if row is None:
            raise NotFound(f"no device named {printable(device_id)}", "see fleetctl provision list")
        return LifeCycle(row[0])

    def _add(self, device_id: str, row: TimelineRow) -> None:
        self.write(_STEP, (device_id, *row))

    def _begin_lives(self, devices: Sequence[tuple[str, str, LifeCycle]], actor: str | None) -> None:
        """The first step of each device: its id, when it was added, and in what state."""
        self.write_many(_STEP, [(name, at, "added", None, state, None, actor) for name, at, state in devices])
