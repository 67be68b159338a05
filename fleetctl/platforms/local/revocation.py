"""Revocation in four steps: the lists, the broker that reads them, the sessions that are cut, the proof; each as it happened."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fleetctl.errors import ConfigError, Conflict, FleetError, NotFound
from fleetctl.model.certificate import Reason
from fleetctl.model.device import LifeCycle
from fleetctl.pki import crl
from fleetctl.platforms.local import running
from fleetctl.platforms.local.cutting import cut
from fleetctl.platforms.local.layout import Layout
from fleetctl.platforms.local.listeners import denied, digest
from fleetctl.platforms.local.lists import check_obeyed, lists_of, refresh_due, write_lists
from fleetctl.platforms.local.running import Obedience, have_it_read
from fleetctl.registry import CertificateRow
from fleetctl.registry.certificates import HOLD
from fleetctl.wire.document import rfc3339

if TYPE_CHECKING:
    from fleetctl.platforms.local.canary import Canary, Proof
    from fleetctl.platforms.local.fleet import LocalFleet

_UNLISTED = "no list of ours names certificates of `{}`"
ELSEWHERE = "no broker runs here: a broker elsewhere obeys after fleetctl broker apply, one of this context when it starts"


@dataclass(frozen=True, slots=True)
class Revocation:
    """What became of the certificates of one subject; `outcome` is `revoked`, `held`, `released` or `unchanged`.

    `crl_number` is that of the list that names them. `broker_running` speaks of the local broker. `sessions_cut`: it has no
    connection of this identity any more. `refusal_proven` and `acceptance_proven`: a certificate revoked by the same list was
    refused, and a good one let in. None where it does not run, or was not asked. `detail` is what did not happen, and what to do.
    """

    subject: str
    serials: tuple[str, ...]
    outcome: str
    reason: str
    revoked_at: str
    crl_number: int
    broker_running: bool
    broker_reloaded: bool
    sessions_cut: bool | None
    refusal_proven: bool | None = None
    acceptance_proven: bool | None = None
    detail: str | None = None


def revoke(fleet: "LocalFleet", rows: Sequence[CertificateRow], reason: Reason, *, moves: bool = False) -> list[Revocation]:
    """Revoke certificates for good: one list and one word to the broker, however many they are.

    Repeating it changes nothing, but finishes what was interrupted. Where it `moves` devices, those that have no good
    certificate left are `revoked` from now on.

    Raises:
        Conflict: one is of a registered authority, whose list is not ours to make.
        FleetError: they are revoked, but the broker that runs did not take the list; the error carries the report.
    """
    _check_ours(fleet, rows)
    with fleet.registry.transaction():
        fresh = [fleet.registry.revoke_certificate(row.serial, reason, rfc3339(fleet.clock())) for row in rows]
        if moves:
            _move(fleet, sorted({row.device_id for row, new in zip(rows, fresh, strict=True) if new and row.device_id}), reason)
        step = _publish(fleet, rows)
    reports = _told(fleet, rows, step, dict(zip((row.serial for row in rows), fresh, strict=True)))
    refresh_due(fleet)
    return reports


def enforce(fleet: "LocalFleet", device_ids: Sequence[str]) -> list[Revocation]:
    """Have lists and broker say of these devices' certificates what the registry says now: after a hold, or its end.

    A registered authority's certificates are on no list of ours: the broker keeps their devices out by name.

    Raises:
        FleetError: the lists are made, but the broker that runs did not take them; the error carries the report.
    """
    rows = [row for device_id in device_ids for row in fleet.registry.certificates(device_id)]
    with fleet.registry.transaction():
        step = _publish(fleet, rows, anew=True)
    return _told(fleet, rows, step, {row.serial: True for row in rows})


@dataclass(frozen=True, slots=True)
class _Step:
    """What was written: numbers by authority, and the canaries that stand on the lists."""

    numbers: dict[str, int]
    canaries: "dict[str, Canary]"


def _check_ours(fleet: "LocalFleet", rows: Iterable[CertificateRow]) -> None:
    registered = {row.name for row in fleet.registry.authorities("registered")}
    for row in rows:
        if row.authority in registered:
            raise Conflict(
                f"certificate `{row.serial}` of `{row.subject}` is for the registered authority `{row.authority}` to revoke",
                f"keep the device out here: fleetctl provision suspend {row.device_id or row.subject}",
            )


def _move(fleet: "LocalFleet", device_ids: Iterable[str], reason: Reason) -> None:
    """A certificate on hold may come back, so its device stays suspended; one that has run out is good for nothing."""
    registry, at = fleet.registry, rfc3339(fleet.clock())
    for device_id in device_ids:
        held = registry.certificates(device_id)
        good = [row for row in held if row.not_after > at and (row.revoked_at is None or row.reason == HOLD)]
        if not good and registry.device(device_id).state.present:
            registry.move_device(device_id, LifeCycle.REVOKED, event="revoked", at=at, reason=reason, actor=fleet.actor)


def _publish(fleet: "LocalFleet", rows: Sequence[CertificateRow], *, anew: bool = False) -> _Step:
    """The lists of the authorities of these certificates, inside the transaction that revokes them.

    Where a broker runs they name a canary too: proof needs a certificate that this very list revokes.
    """
    registry, layout, now = fleet.registry, Layout(fleet.context.folder), fleet.clock()
    ours = {row.name: row.role for row in registry.authorities() if row.role != "registered" and row.state != "retired"}
    authorities = sorted({row.authority for row in rows} & ours.keys())
    canaries = _hatched(fleet, {name: ours[name] for name in authorities})
    numbers: dict[str, int] = {}
    for name in authorities:
        serials = {int(row.serial, 16) for row in rows if row.authority == name}
        extra = {name: [canaries[name].line(now)]} if name in canaries else {}
        held = {} if anew or extra else _held(fleet, name, serials)
        numbers |= held or write_lists(registry, layout, name, now, extra=extra)
    return _Step(numbers, canaries)


def _hatched(fleet: "LocalFleet", roles: dict[str, str]) -> "dict[str, Canary]":
    if running.running(fleet.context.folder) is None:
        return {}
    from fleetctl.platforms.local.canary import hatch

    layout, now = Layout(fleet.context.folder), fleet.clock()
    found: dict[str, Canary] = {}
    for name, role in roles.items():
        try:
            found[name] = hatch(layout.authority(name), role, fleet.tenant, now)
        except FleetError:
            continue
    return found


def _held(fleet: "LocalFleet", authority: str, serials: set[int]) -> dict[str, int]:
    """The numbers in the authority's file, if that names all of the serials already; a damaged file names none."""
    path, _ = lists_of(fleet.registry, Layout(fleet.context.folder), authority)
    try:
        return crl.read_numbers(path) if serials <= crl.read_serials(path) else {}
    except (ConfigError, NotFound):
        return {}


def _told(fleet: "LocalFleet", rows: Sequence[CertificateRow], step: _Step, fresh: dict[str, bool]) -> list[Revocation]:
    """Broker, sessions, proof; the sessions are cut before anything is proven."""
    registered = {row.name for row in fleet.registry.authorities("registered")}
    by_name = any(row.authority in registered for row in rows)
    told = have_it_read(fleet.context.folder, step.numbers, denied=(lambda: _denied(fleet)) if by_name else None)
    subjects: dict[tuple[str, str], list[CertificateRow]] = {}
    for row in rows:
        subjects.setdefault((row.authority, row.subject), []).append(row)
    names = {(row.subject, row.device_id) for row in rows if _is_out(fleet, row)}
    gone = cut(fleet, names, told) if told.running else {}
    proofs = _proofs(fleet, step, told)
    reports = [
        _report(fleet, group, step.numbers.get(authority, 0), told, gone.get(subject), proofs.get(authority), fresh)
        for (authority, subject), group in subjects.items()
    ]
    check_obeyed(told, [*reports])
    return reports


def _denied(fleet: "LocalFleet") -> str:
    return digest(denied(fleet.context))


def _is_out(fleet: "LocalFleet", row: CertificateRow) -> bool:
    return fleet.registry.certificate(row.serial).revoked_at is not None


def _proofs(fleet: "LocalFleet", step: _Step, told: Obedience) -> "dict[str, Proof]":
    if not told.reloaded or not step.canaries:
        return {}
    from fleetctl.platforms.local.canary import prove

    return {name: prove(fleet, canary) for name, canary in step.canaries.items()}


def _report(
    fleet: "LocalFleet",
    rows: Sequence[CertificateRow],
    number: int,
    told: Obedience,
    gone: bool | None,
    proof: "Proof | None",
    fresh: dict[str, bool],
) -> Revocation:
    held = fleet.registry.certificate(rows[-1].serial)
    outcome = "released" if held.revoked_at is None else "held" if held.reason == HOLD else "revoked"
    return Revocation(
        subject=held.subject,
        serials=tuple(row.serial for row in rows),
        outcome=outcome if any(fresh[row.serial] for row in rows) else "unchanged",
        reason=held.reason or Reason.UNSPECIFIED,
        revoked_at=held.revoked_at or "",
        crl_number=number,
        broker_running=told.running,
        broker_reloaded=told.reloaded,
        sessions_cut=gone,
        refusal_proven=None if proof is None else proof.refused,
        acceptance_proven=None if proof is None else proof.accepted,
        detail=_detail(held, number, told, gone, proof),
    )


def _detail(row: CertificateRow, number: int, told: Obedience, gone: bool | None, proof: "Proof | None") -> str | None:
    """What did not happen, and what to do; None where everything did."""
    if not told.running:
        return ELSEWHERE if number else f"{_UNLISTED.format(row.authority)}; {ELSEWHERE}"
    if not told.reloaded:
        return f"the broker has not taken the list: {told.error}"
    if gone is False:
        return "a session of it may be open still: start the broker again with fleetctl broker run"
    if not number:
        return None if row.revoked_at is None else f"{_UNLISTED.format(row.authority)}: {_by_name(told)}"
    if proof is None:
        return "nothing was proven: the key of its authority is not here"
    return proof.detail


def _by_name(told: Obedience) -> str:
    """How a broker keeps out who is on no list."""
    if told.engine == "mosquitto":
        return "mosquitto lets it connect, but nothing that it says reaches anybody, and nothing reaches it"
    return "the broker refuses it by its name"
