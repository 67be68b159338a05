"""Factory batches and provisioning profiles in the registry."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from fleetctl.errors import Conflict, NotFound
from fleetctl.model.device import LifeCycle, printable
from fleetctl.registry.database import Database, Row, upsert

if TYPE_CHECKING:
    from fleetctl.model.batch import Batch
    from fleetctl.model.profile import ProvisioningProfile

_BATCH = """SELECT name, profile, location, type, quota, not_before, not_after, state, labels, created_at, closed_at
    FROM batches"""


class Sum(NamedTuple):
    """How far the devices of a batch are: how many in each state, when the first and the last of them came further."""

    states: Mapping[str, int]
    first: str | None
    last: str | None

    @property
    def serials(self) -> int:
        return sum(self.states.values())


class Batches(Database):
    def profile(self, name: str) -> "ProvisioningProfile":
        """Raises `NotFound`."""
        row = self.read_one("SELECT document FROM profiles WHERE name = ?", (name,))
        if row is None:
            raise NotFound(
                f"no profile named {printable(name)}", f"see fleetctl provision profile list, or make it: profile set {name}"
            )
        return self._profile(name, row[0])

    def profiles(self) -> "list[ProvisioningProfile]":
        """In the order of their names."""
        rows = self.read("SELECT name, document FROM profiles ORDER BY name")
        return [self._profile(name, document) for name, document in rows]

    def put_profile(self, profile: "ProvisioningProfile") -> bool:
        """Add or replace a profile; False if it is there just so."""
        document = json.dumps(profile.document(), sort_keys=True)
        with self.transaction():
            held = self.read_one("SELECT document FROM profiles WHERE name = ?", (profile.name,))
            if held is not None and held[0] == document:
                return False
            self.write(upsert("profiles", "name", "document"), (profile.name, document))
        return True

    def add_batch(self, batch: "Batch") -> bool:
        """True if it was added, False if the same one was there.

        Raises:
            Conflict: a batch has that name and differs.
            NotFound: there is no such profile.
        """
        from fleetctl.model.batch import checked  # late, as in the whole of this file: `provision list` starts without it

        checked(batch)
        with self.transaction():
            if batch.profile is not None:
                self.profile(batch.profile)
            held = self._batch(batch.name)
            if held is not None:
                _check_same(held, batch)
                return False
            self.write(
                "INSERT INTO batches VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)",
                (
                    *(batch.name, batch.profile, batch.location, batch.device_type, batch.quota),
                    *(batch.not_before, batch.not_after, batch.state, json.dumps(dict(batch.labels)), batch.created_at),
                ),
            )
        return True

    def batch(self, name: str) -> "Batch":
        """Raises `NotFound`."""
        found = self._batch(name)
        if found is None:
            raise NotFound(f"no batch named {printable(name)}", "see fleetctl provision batch list")
        return found

    def batches(self) -> "list[Batch]":
        """In the order of their names."""
        return [self._batch_of(row) for row in self.read(_BATCH + " ORDER BY name")]

    def close_batch(self, name: str, at: str) -> bool:
        """Let nobody in any more; False if it was closed already."""
        from fleetctl.model.batch import BatchState

        with self.transaction():
            if self.batch(name).state is BatchState.CLOSED:
                return False
            self.write("UPDATE batches SET state = ?, closed_at = ? WHERE name = ?", (BatchState.CLOSED, at, name))
        return True

    def batch_used(self, name: str) -> int:
        """How many devices of a batch have enrolled or were made: what its quota counts. One that is reset counts no more."""
        row = self.read_one(
            """SELECT count(*) FROM devices d WHERE d.batch = ? AND d.state <> ? AND (
                d.state IN (?, ?, ?) OR EXISTS (SELECT 1 FROM certificates c WHERE c.device_id = d.id))""",
            (name, LifeCycle.MANUFACTURED, LifeCycle.CLAIMED, LifeCycle.ACTIVE, LifeCycle.RENEWING),
        )
        return int(row[0]) if row else 0

    def batch_sum(self, name: str) -> Sum:
        counted = self.read("SELECT state, count(*) FROM devices WHERE batch = ? GROUP BY state", (name,))
        states = {str(state): int(count) for state, count in counted}
        row = self.read_one(
            """SELECT min(t.at), max(t.at) FROM devices d JOIN timeline t ON t.device_id = d.id
            WHERE d.batch = ? AND t.state_after <> t.state_before AND t.state_after <> ?""",
            (name, LifeCycle.MANUFACTURED),
        )
        first, last = row or (None, None)
        return Sum({state.value: states[state] for state in LifeCycle if state in states}, first, last)

    def refusals(self, name: str) -> dict[str, int]:
        """How many enrolments of serials and claims of this batch were rejected, by their code."""
        rows = self.read(
            """SELECT coalesce(code, 'rejected'), count(*) FROM enrolments WHERE state = 'rejected' AND (
                claim IN (SELECT name FROM claims WHERE batch = ?) OR device_id IN (SELECT id FROM devices WHERE batch = ?))
            GROUP BY 1 ORDER BY 1""",
            (name, name),
        )
        return {str(code): int(count) for code, count in rows}

    def waiting_in_batch(self, name: str, limit: int) -> list[str]:
        """Ids of devices of a batch that were made in nobody's factory yet, in the order of their serials."""
        rows = self.read(
            """SELECT d.id FROM devices d WHERE d.batch = ? AND d.state = ? AND NOT EXISTS (
                SELECT 1 FROM certificates c WHERE c.device_id = d.id AND c.revoked_at IS NULL)
            ORDER BY d.serial LIMIT ?""",
            (name, LifeCycle.MANUFACTURED, limit),
        )
        return [str(row[0]) for row in rows]

    def forget_unit(self, device_id: str) -> None:
        """Drop what the unit itself has said: another one takes its place, and would not be believed after it."""
        with self.transaction():
            self.write("DELETE FROM presence WHERE device_id = ?", (device_id,))
            self.write("DELETE FROM reported WHERE device_id = ?", (device_id,))
            self.write("DELETE FROM update_status WHERE device_id = ?", (device_id,))

    def _profile(self, name: str, document: str) -> "ProvisioningProfile":
        from fleetctl.model.profile import parse

        return parse(name, self.parse(document))

    def _batch(self, name: str) -> "Batch | None":
        row = self.read_one(_BATCH + " WHERE name = ?", (name,))
        return None if row is None else self._batch_of(row)

    def _batch_of(self, row: Row) -> "Batch":
        from fleetctl.model.batch import Batch, BatchState

        values = (*row[:7], BatchState(row[7]), self.parse(row[8]), *row[9:])
        return Batch(*values)


def _check_same(held: "Batch", wanted: "Batch") -> None:
    facts = ("profile", "location", "device_type", "quota", "not_before", "not_after", "labels")
    differing = [name for name in facts if getattr(held, name) != getattr(wanted, name)]
    if differing:
        raise Conflict(
            f"batch `{wanted.name}` exists already and differs: {differing[0].replace('_', ' ')}",
            f"see fleetctl provision batch report {wanted.name}; or choose another name",
        )
