"""The life of a device: suspended, resumed, removed. Each step is in the registry before anybody else is told of it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from fleetctl.errors import Conflict, Unavailable
from fleetctl.model import topic as topics
from fleetctl.model.device import Device, LifeCycle
from fleetctl.model.topic import Channel
from fleetctl.platforms.device_records import CertificateFact, DeviceDetail, DeviceStatus, Removed, Step, Transition
from fleetctl.wire.document import parse_rfc3339, rfc3339

if TYPE_CHECKING:
    from fleetctl.model.certificate import Reason
    from fleetctl.platforms.local.fleet import LocalFleet
    from fleetctl.platforms.local.revocation import Revocation
    from fleetctl.registry import CertificateRow

HOLD = "certificateHold"
SUSPENDED = "suspended"


def status(fleet: "LocalFleet", shown: DeviceDetail) -> DeviceStatus:
    """Where a device is in its life, from the registry alone."""
    registry, now = fleet.registry, fleet.clock()
    steps = (
        Step(row.at, row.event, row.state_before, row.state_after, row.reason, row.actor) for row in registry.timeline(shown.id)
    )
    return DeviceStatus(
        shown.id,
        shown.path,
        shown.serial,
        shown.batch,
        shown.profile,
        shown.state,
        shown.status,
        shown.last_seen,
        None if shown.last_seen is None else round(max(0.0, now - parse_rfc3339(shown.last_seen)), 3),
        tuple(_fact(row, now) for row in registry.certificates(shown.id)),
        tuple(steps),
    )


def suspend(fleet: "LocalFleet", devices: Sequence[Device], why: str | None) -> list[Transition]:
    """All on hold or none; the broker is told afterwards, and again when it is repeated."""
    registry, at = fleet.registry, rfc3339(fleet.clock())
    done: list[tuple[str, bool, int]] = []
    with registry.transaction():
        for device in devices:
            moved = registry.move_device(device.id, LifeCycle.SUSPENDED, event=SUSPENDED, at=at, reason=why, actor=fleet.actor)
            held = sum(registry.hold_certificate(row.serial, at) for row in registry.certificates(device.id) if _is_good(row))
            done.append((device.id, moved, held))
    reports = enforce(fleet, devices)
    cut, details = _cut_by(reports), _details_by(reports)
    return [
        Transition(name, SUSPENDED if moved else "unchanged", LifeCycle.SUSPENDED.value, held, cut.get(name), details.get(name))
        for name, moved, held in done
    ]


def resume(fleet: "LocalFleet", devices: Sequence[Device], why: str | None) -> list[Transition]:
    """All back or none; a certificate that was revoked for good meanwhile stays revoked."""
    registry, at = fleet.registry, rfc3339(fleet.clock())
    done: list[Transition] = []
    with registry.transaction():
        for device in devices:
            state = _state_before(fleet, device.id)
            moved = registry.move_device(device.id, state, event="resumed", at=at, reason=why, actor=fleet.actor)
            held = [row for row in registry.certificates(device.id) if row.reason == HOLD]
            freed = sum(registry.release_certificate(row.serial) for row in held)
            done.append(Transition(device.id, "resumed" if moved else "unchanged", state.value, freed, None))
    details = _details_by(enforce(fleet, devices))
    return [replace(each, detail=details.get(each.id)) for each in done]


def remove(fleet: "LocalFleet", devices: Sequence[Device], reason: str, why: str | None) -> list[Removed]:
    """Revoke first, then retire, then clear: whatever stops it, repeating it finishes."""
    present = [device for device in devices if fleet.registry.device(device.id).state.present]
    revoked, reports = _revoke(fleet, present, reason)
    cut, details = _cut_by(reports), _details_by(reports)
    outcomes = [(device.id, _retire(fleet, device, why)) for device in devices]
    cleared = flushed(fleet)
    return [Removed(name, outcome, revoked.get(name, 0), cleared, cut.get(name), details.get(name)) for name, outcome in outcomes]


def revoke(fleet: "LocalFleet", devices: Sequence[Device], reason: str) -> tuple[dict[str, int], dict[str, bool | None]]:
    """Revoke for good what is valid or on hold: how many certificates of each device, and whether its sessions are cut."""
    counts, reports = _revoke(fleet, devices, reason)
    return counts, _cut_by(reports)


def _revoke(fleet: "LocalFleet", devices: Sequence[Device], reason: str) -> tuple[dict[str, int], list["Revocation"]]:
    """How many certificates of each device, and what became of them.

    Of a device that has none left, the last one is named again, so that what was interrupted is finished.
    """
    from fleetctl.model.certificate import reason as reason_of

    wanted = reason_of(reason)
    counts: dict[str, int] = {}
    rows: list[CertificateRow] = []
    for device in devices:
        held = fleet.registry.certificates(device.id)
        good = [row for row in held if row.revoked_at is None or row.reason == HOLD]
        counts[device.id] = len(good)
        rows += good or held[-1:]
    return counts, _revoked(fleet, rows, wanted) if rows else []


def _revoked(fleet: "LocalFleet", rows: Sequence["CertificateRow"], reason: "Reason") -> list["Revocation"]:
    """Certificates of registered authorities are on no list of ours: the registry knows them for revoked, sessions are cut."""
    from fleetctl.platforms.local import revocation

    registry, at = fleet.registry, rfc3339(fleet.clock())
    registered = {row.name for row in registry.authorities("registered")}
    ours = [row for row in rows if row.authority not in registered]
    theirs = [row for row in rows if row.authority in registered]
    reports = revocation.revoke(fleet, ours, reason) if ours else []
    if theirs:
        with registry.transaction():
            for row in theirs:
                registry.revoke_certificate(row.serial, reason, at)
        reports += revocation.enforce(fleet, sorted({row.device_id for row in theirs if row.device_id}))
    return reports


def enforce(fleet: "LocalFleet", devices: Sequence[Device]) -> list["Revocation"]:
    """Have the broker obey what the registry says of these devices' certificates."""
    with_certificates = [device.id for device in devices if fleet.registry.certificates(device.id)]
    if fleet.context.certificates == "external" or not with_certificates:
        return []
    from fleetctl.platforms.local import revocation

    return revocation.enforce(fleet, with_certificates)


def _cut_by(reports: Sequence["Revocation"]) -> dict[str, bool | None]:
    """Whether no session of a subject is left, by subject: None where nobody can tell, False if one of its reports says so."""
    found: dict[str, bool | None] = {}
    for report in reports:
        before = found.get(report.subject, report.sessions_cut)
        found[report.subject] = report.sessions_cut and before
    return found


def _details_by(reports: Sequence["Revocation"]) -> dict[str, str]:
    """What did not happen, by subject: each sentence once."""
    found: dict[str, dict[str, None]] = {}
    for report in reports:
        if report.detail is not None:
            found.setdefault(report.subject, {})[report.detail] = None
    return {subject: "; ".join(details) for subject, details in found.items()}


def clear(fleet: "LocalFleet", device: Device, channels: Sequence[Channel], at: str) -> None:
    """Owe the broker an empty retained message in each of these channels."""
    for channel in channels:
        fleet.registry.enqueue(topics.of(device.path, channel), b"", at)


def flushed(fleet: "LocalFleet") -> bool:
    """Whether the broker has taken all that it was owed; what it has not waits."""
    from fleetctl.platforms.local.outbox import flush

    try:
        flush(fleet)
    except Unavailable:
        return False
    return True


def _retire(fleet: "LocalFleet", device: Device, why: str | None) -> str:
    registry, at = fleet.registry, rfc3339(fleet.clock())
    with registry.transaction():
        if not registry.retire_device(device.id, at, reason=why, actor=fleet.actor):
            return "unchanged"
        clear(fleet, device, topics.RETAINED_CHANNELS, at)
    return "removed"


def _state_before(fleet: "LocalFleet", device_id: str) -> LifeCycle:
    """The state to go back to; that of now for a device which is not suspended.

    Raises:
        Conflict: it was revoked or retired.
    """
    device = fleet.registry.device(device_id)
    if device.state.believed:
        return device.state
    if device.state is not LifeCycle.SUSPENDED:
        raise Conflict(f"device `{device_id}` is {device.state}, not suspended", f"see fleetctl provision status {device_id}")
    rows = (row for row in reversed(fleet.registry.timeline(device_id)) if row.event == SUSPENDED and row.state_before)
    return next((LifeCycle(str(row.state_before)) for row in rows), LifeCycle.ACTIVE)


def _is_good(row: "CertificateRow") -> bool:
    return row.revoked_at is None


def _fact(row: "CertificateRow", now: float) -> CertificateFact:
    from fleetctl.model.certificate import Validity

    span = Validity(int(parse_rfc3339(row.not_before)), int(parse_rfc3339(row.not_after)))
    held = row.revoked_at is not None and row.reason == HOLD
    state = "onHold" if held else span.state(now, revoked=row.revoked_at is not None).value
    return CertificateFact(row.serial, row.authority, state, row.not_after, row.proven_at, row.reason)
