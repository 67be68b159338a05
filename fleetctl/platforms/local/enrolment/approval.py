"""Decisions of people about enrolments, each written down with who took it and why."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from fleetctl.errors import Conflict, FleetError, NotFound
from fleetctl.model.certificate import Reason
from fleetctl.model.device import Device, LifeCycle, printable
from fleetctl.model.enrolment import ClaimFacts, Code, EnrolmentState, has_room
from fleetctl.model.topic import RETAINED_CHANNELS
from fleetctl.platforms.local import lifecycle
from fleetctl.registry.enrolments import EnrolmentRow
from fleetctl.wire.document import rfc3339

if TYPE_CHECKING:
    from fleetctl.platforms.local.fleet import LocalFleet

FORGOTTEN = ("reset", "replaced")


@dataclass(frozen=True, slots=True)
class PendingEnrolment:
    """One key that waits for a decision; `key` is the SHA-256 of its SubjectPublicKeyInfo."""

    id: str
    serial: str | None
    device_id: str | None
    method: str
    claim: str | None
    key: str | None
    requested_at: str


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of one enrolment; `outcome` is approved, rejected or unchanged."""

    id: str
    serial: str | None
    device_id: str | None
    outcome: str


@dataclass(frozen=True, slots=True)
class Reset:
    """A device that may enrol anew; `revoked` counts its certificates that were good until now."""

    id: str
    serial: str | None
    outcome: str
    state: str
    revoked: int
    sessions_cut: bool | None


def pending(fleet: "LocalFleet") -> Sequence[PendingEnrolment]:
    """What waits for a person, oldest first."""
    return [_shown(row) for row in fleet.registry.enrolments(states=(EnrolmentState.PENDING,))]


def choose(fleet: "LocalFleet", words: Iterable[str], devices: Sequence[Device] | None, action: str) -> list[EnrolmentRow]:
    """The pending enrolments that words mean (ids, serials or globs of serials), and those of `devices`.

    A word may also name one about which `action` (approve or reject) has been said already, so that it can be repeated.

    Raises:
        NotFound: a word means none.
        Conflict: several keys wait for one serial, and only an id says which.
    """
    rows = fleet.registry.enrolments(states=(EnrolmentState.PENDING,))
    settled = (EnrolmentState.REJECTED,) if action == "reject" else (EnrolmentState.APPROVED, EnrolmentState.ISSUED)
    done = fleet.registry.enrolments(states=settled)
    found: dict[str, EnrolmentRow] = {}
    for word in words:
        named = [row for row in (*rows, *done) if row.id == word and row.spki]
        matching = named or [row for row in rows if fnmatchcase(row.serial or "", word)]
        matching = matching or [row for row in done if row.serial == word and row.spki][-1:]
        if not matching:
            raise NotFound(f"nothing pending is called {printable(word)}", "see fleetctl provision pending")
        found |= {row.id: row for row in matching}
    if devices is not None:
        ids = {device.id for device in devices}
        found |= {row.id: row for row in rows if row.device_id in ids}
    return list(found.values())


def approve(fleet: "LocalFleet", rows: Sequence[EnrolmentRow], reason: str | None) -> list[Decision]:
    """All or none: each device fetches its certificate the next time it asks.

    Raises:
        Conflict: two keys of one serial, now or one after the other, or more devices than claim and batch let in.
    """
    registry, at = fleet.registry, rfc3339(fleet.clock())
    _check_single(rows)
    decisions = []
    with registry.transaction():
        for row in rows:
            held = registry.enrolment(row.id)
            if held.state == EnrolmentState.PENDING:
                _check_first(fleet, held)
                _check_room(fleet, held)
                registry.settle_enrolment(row.id, EnrolmentState.APPROVED, at=at, actor=fleet.actor, reason=reason)
            decisions.append(_decided(held, "approved"))
            _note(fleet, held, "approved", at, reason)
    return decisions


def reject(fleet: "LocalFleet", rows: Sequence[EnrolmentRow], reason: str) -> list[Decision]:
    """All or none: these keys get no certificate, nor does another one for their serials until `reset`."""
    registry, at = fleet.registry, rfc3339(fleet.clock())
    decisions = []
    with registry.transaction():
        for row in rows:
            held = registry.enrolment(row.id)
            if held.state == EnrolmentState.PENDING:
                code = Code.REJECTED.value
                registry.settle_enrolment(row.id, EnrolmentState.REJECTED, at=at, code=code, actor=fleet.actor, reason=reason)
            decisions.append(_decided(held, "rejected"))
            _note(fleet, held, "rejected", at, reason)
    return decisions


def reset(fleet: "LocalFleet", devices: Sequence[Device], reason: str) -> list[Reset]:
    """Let devices enrol anew: revoke what they have, forget what was decided, clear what they retain. Repeating it finishes it.

    Raises:
        Conflict: one of them is retired or suspended; nothing is changed.
        FleetError: it is done, but the broker that runs has not taken the list.
    """
    for device in devices:
        if device.state in (LifeCycle.RETIRED, LifeCycle.SUSPENDED):
            hint = "fleetctl provision resume" if device.state is LifeCycle.SUSPENDED else "fleetctl provision show"
            raise Conflict(f"device `{device.id}` is {device.state}, and cannot enrol anew", f"{hint} {device.id}")
    revoked, cut, failure = _revoked(fleet, devices)
    moved = {device.id: _restart(fleet, device, reason) for device in devices}
    lifecycle.flushed(fleet)
    if failure is not None:
        raise failure
    return [
        Reset(
            device.id,
            device.serial,
            "reset" if moved[device.id] or revoked.get(device.id) else "unchanged",
            LifeCycle.MANUFACTURED.value,
            revoked.get(device.id, 0),
            cut.get(device.id),
        )
        for device in devices
    ]


def _revoked(fleet: "LocalFleet", devices: Sequence[Device]) -> tuple[dict[str, int], dict[str, bool | None], FleetError | None]:
    """First of all, so that no status of its old life makes it active again; a broker that does not obey stops nothing here."""
    try:
        return *lifecycle.revoke(fleet, devices, Reason.SUPERSEDED), None
    except FleetError as error:
        return {}, {}, error


def _restart(fleet: "LocalFleet", device: Device, reason: str) -> bool:
    registry, at, actor = fleet.registry, rfc3339(fleet.clock()), fleet.actor
    with registry.transaction():
        registry.revoke_tokens(device.id, at)
        moved = registry.move_device(device.id, LifeCycle.MANUFACTURED, event="reset", at=at, reason=reason, actor=actor)
        if forget(fleet, device, at, "reset") and not moved:
            registry.note(device.id, "reset", at=at, reason=reason, actor=actor)
            moved = True
        lifecycle.clear(fleet, device, RETAINED_CHANNELS[:1], at)
    return moved


def forget(fleet: "LocalFleet", device: Device, at: str, code: str) -> bool:
    """Whether there was anything that would have kept it from enrolling; `code` says from now on what became of it."""
    rows = [row for row in fleet.registry.enrolments(device_id=device.id) if row.spki and row.code not in FORGOTTEN]
    for row in rows:
        fleet.registry.settle_enrolment(row.id, EnrolmentState.REJECTED, at=at, code=code)
    return bool(rows)


def _check_single(rows: Sequence[EnrolmentRow]) -> None:
    by_device: dict[str | None, list[str]] = {}
    for row in rows:
        by_device.setdefault(row.device_id, []).append(row.id)
    for row in rows:
        if row.device_id is not None and len(by_device[row.device_id]) > 1:
            raise Conflict(
                f"{len(by_device[row.device_id])} keys wait for serial {printable(str(row.serial))}",
                "compare the keys in fleetctl provision pending, and approve one by its id",
            )


def _check_first(fleet: "LocalFleet", row: EnrolmentRow) -> None:
    """Of two keys that were approved for one serial neither would be let in."""
    approved = (EnrolmentState.APPROVED,)
    if row.device_id is not None and fleet.registry.enrolments(device_id=row.device_id, states=approved):
        raise Conflict(
            f"another key was approved for serial {printable(str(row.serial))}",
            f"begin anew if that was wrong: fleetctl provision reset {row.device_id}",
        )


def _check_room(fleet: "LocalFleet", row: EnrolmentRow) -> None:
    registry = fleet.registry
    device = None if row.device_id is None or row.method == "jit" else registry.device(row.device_id)
    batch = None if device is None or device.batch is None else registry.batch(device.batch)
    used = 0 if batch is None else registry.batch_held(batch.name, without=row.device_id)
    claim = None
    if row.claim is not None:
        held = registry.claim(row.claim)
        claim = ClaimFacts(held.state == "active", None, held.quota, registry.claim_used(held.name, without=row.device_id))
    if not has_room(claim, batch, used):
        raise Conflict(
            f"serial {printable(str(row.serial))} is one more than claim and batch let in",
            "see fleetctl provision claim list",
        )


def _note(fleet: "LocalFleet", row: EnrolmentRow, event: str, at: str, reason: str | None) -> None:
    if row.device_id is not None and row.method != "jit" and row.state == EnrolmentState.PENDING:
        fleet.registry.note(row.device_id, event, at=at, reason=reason, actor=fleet.actor)


def _decided(row: EnrolmentRow, outcome: str) -> Decision:
    return Decision(row.id, row.serial, row.device_id, outcome if row.state == EnrolmentState.PENDING else "unchanged")


def _shown(row: EnrolmentRow) -> PendingEnrolment:
    return PendingEnrolment(row.id, row.serial, row.device_id, row.method, row.claim, row.spki, row.requested_at)
