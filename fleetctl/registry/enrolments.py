"""Enrolments and claims in the registry."""

from collections.abc import Collection
from typing import TYPE_CHECKING, NamedTuple

from fleetctl.errors import Conflict, NotFound
from fleetctl.model.device import DevicePath, LifeCycle, printable
from fleetctl.registry.database import Database

if TYPE_CHECKING:
    from fleetctl.model.enrolment import EnrolmentState

_ENROLMENT = """SELECT id, method, claim, serial, device_id, spki, csr, state, code, certificate, requested_at, decided_at, actor,
    reason FROM enrolments"""
_CLAIM = "SELECT name, batch, certificate, quota, not_after, state, created_at FROM claims"
_AWAITS = """(coalesce((SELECT max(id) FROM timeline t WHERE t.device_id = d.id AND t.state_after = 'active'
        AND t.state_before IN ('manufactured', 'claimed')), 0)
    > coalesce((SELECT max(id) FROM timeline t WHERE t.device_id = d.id AND t.event = 'configured'), 0))"""
"""Became active by itself, and was not configured since."""
REFUSALS = 1000
_HOLDS = "state IN ('approved', 'issued', 'active')"


class EnrolmentRow(NamedTuple):
    """One key that asked to be one device; `method` is claim, est or jit, `certificate` the serial of what it was given."""

    id: str
    method: str
    claim: str | None
    serial: str | None
    device_id: str | None
    spki: str | None
    csr: str | None
    state: str
    code: str | None
    certificate: str | None
    requested_at: str
    decided_at: str | None = None
    actor: str | None = None
    reason: str | None = None


class ClaimRow(NamedTuple):
    """A claim; `certificate` is the serial of its certificate, `quota` None as many as its batch lets in."""

    name: str
    batch: str
    certificate: str
    quota: int | None
    not_after: str | None
    state: str
    created_at: str


class Standing(NamedTuple):
    """How a device stands that has just been heard of; `configured`: it has answered since it became active."""

    path: DevicePath
    state: LifeCycle
    configured: bool


class Enrolments(Database):
    def add_claim(self, row: ClaimRow) -> None:
        """Raises `Conflict` if the name was used before."""
        with self.transaction():
            if self.read_one("SELECT 1 FROM claims WHERE name = ?", (row.name,)):
                raise Conflict(f"claim `{row.name}` exists already", "choose another name: fleetctl provision claim list")
            self.write("INSERT INTO claims VALUES (?, ?, ?, ?, ?, ?, ?)", row)

    def claim(self, name: str) -> ClaimRow:
        """Raises `NotFound`."""
        row = self.read_one(_CLAIM + " WHERE name = ?", (name,))
        if row is None:
            raise NotFound(f"no claim named {printable(name)}", "see fleetctl provision claim list")
        return ClaimRow(*row)

    def claims(self, batch: str | None = None) -> list[ClaimRow]:
        """All of them, or those of one batch, in the order of their names."""
        where, parameters = ("", ()) if batch is None else (" WHERE batch = ?", (batch,))
        return [ClaimRow(*row) for row in self.read(_CLAIM + where + " ORDER BY name", parameters)]

    def revoke_claim(self, name: str) -> bool:
        """False if it was revoked already."""
        return self.write("UPDATE claims SET state = 'revoked' WHERE name = ? AND state = 'active'", (name,)) > 0

    def claim_used(self, name: str, *, without: str | None = None) -> int:
        """How many devices hold a place of a claim, `without` one."""
        row = self.read_one(
            f"SELECT count(DISTINCT device_id) FROM enrolments WHERE claim = ? AND {_HOLDS} AND device_id IS NOT ?",  # noqa: S608
            (name, without),
        )
        return int(row[0]) if row else 0

    def batch_held(self, name: str, *, without: str | None = None) -> int:
        """How many devices of a batch have an identity, or may fetch one, `without` one."""
        row = self.read_one(
            f"""SELECT count(*) FROM devices d WHERE batch = ? AND d.id IS NOT ? AND (state <> 'manufactured' OR EXISTS (
                SELECT 1 FROM enrolments e WHERE e.device_id = d.id AND e.{_HOLDS}))""",  # noqa: S608
            (name, without),
        )
        return int(row[0]) if row else 0

    def add_enrolment(self, row: EnrolmentRow) -> None:
        self.write("INSERT INTO enrolments VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)

    def record_refusal(self, claim: str | None, serial: str, device_id: str | None, code: str, at: str) -> None:
        """Keep that a serial was refused with a code, once, and of each claim no more than `REFUSALS`: a thief fills no disk."""
        name = f"refused:{claim}:{serial}:{code}"
        self.write(
            """INSERT INTO enrolments (id, method, claim, serial, device_id, state, code, requested_at)
            SELECT ?, ?, ?, ?, ?, 'rejected', ?, ? WHERE ? >
                (SELECT count(*) FROM enrolments WHERE state = 'rejected' AND claim IS NOT DISTINCT FROM ? AND spki IS NULL)
            ON CONFLICT DO NOTHING""",
            (name, "jit" if claim is None else "claim", claim, serial, device_id, code, at, REFUSALS, claim),
        )

    def enrolment(self, enrolment_id: str) -> EnrolmentRow:
        """Raises `NotFound`."""
        row = self.read_one(_ENROLMENT + " WHERE id = ?", (enrolment_id,))
        if row is None:
            raise NotFound(f"no enrolment {printable(enrolment_id)}", "see fleetctl provision pending")
        return EnrolmentRow(*row)

    def enrolments(self, *, device_id: str | None = None, states: "Collection[EnrolmentState]" = ()) -> list[EnrolmentRow]:
        """Those of one device, or of all, in some states or in any; oldest first."""
        asked = [f"state IN ({', '.join('?' * len(states))})"] if states else []
        asked += [] if device_id is None else ["device_id = ?"]
        rows = self.read(
            f"{_ENROLMENT} WHERE {' AND '.join(asked) or '1 = 1'} ORDER BY requested_at, id",
            (*states, *(() if device_id is None else (device_id,))),
        )
        return [EnrolmentRow(*row) for row in rows]

    def settle_enrolment(
        self,
        enrolment_id: str,
        state: "EnrolmentState",
        *,
        at: str,
        code: str | None = None,
        certificate: str | None = None,
        actor: str | None = None,
        reason: str | None = None,
    ) -> None:
        """Decide about it; a certificate, actor or reason that is not named here stays."""
        self.write(
            """UPDATE enrolments SET state = ?, code = ?, certificate = coalesce(?, certificate), decided_at = ?,
            actor = coalesce(?, actor), reason = coalesce(?, reason) WHERE id = ?""",
            (state, code, certificate, at, actor, reason, enrolment_id),
        )

    def overdue_enrolments(self, before: str) -> list[EnrolmentRow]:
        """The oldest whose certificate was issued before a time and whose device was never seen."""
        which = "device_id IN (SELECT id FROM devices WHERE state = 'claimed')"
        rows = self.read(
            f"{_ENROLMENT} WHERE state = 'issued' AND decided_at < ? AND {which} ORDER BY decided_at LIMIT 500", (before,)
        )
        return [EnrolmentRow(*row) for row in rows]

    def standing(self, device_id: str) -> Standing | None:
        """None for an id that nobody has; added by hand counts as configured."""
        row = self.read_one(
            f"SELECT d.tenant, d.location, d.type, d.id, d.state, NOT {_AWAITS} FROM devices d WHERE d.id = ?",  # noqa: S608
            (device_id,),
        )
        return None if row is None else Standing(DevicePath(*row[:4]), LifeCycle(row[4]), bool(row[5]))

    def unsettled(self, after: str = "", limit: int = 500) -> list[DevicePath]:
        """Devices that were given a certificate and not seen with it, or not configured since, in the order of their ids."""
        rows = self.read(
            f"""SELECT d.tenant, d.location, d.type, d.id FROM devices d WHERE d.id > ? AND (
                (d.state IN ('claimed', 'manufactured') AND EXISTS (
                    SELECT 1 FROM certificates c WHERE c.device_id = d.id AND c.revoked_at IS NULL))
                OR (d.state IN ('active', 'renewing') AND {_AWAITS}))
            ORDER BY d.id LIMIT ?""",  # noqa: S608
            (after, limit),
        )
        return [DevicePath(*row) for row in rows]
