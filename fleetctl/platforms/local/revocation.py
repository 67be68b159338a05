"""Revocation in three steps: the lists, the broker that reads them, the sessions that are cut; each reported as it happened."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fleetctl.errors import ConfigError, FleetError, NotFound
from fleetctl.model.certificate import Reason
from fleetctl.pki import crl
from fleetctl.platforms.local.layout import Layout
from fleetctl.platforms.local.lists import check_obeyed, lists_of, write_lists
from fleetctl.platforms.local.running import Obedience, have_it_read
from fleetctl.registry import CertificateRow
from fleetctl.wire.document import rfc3339

if TYPE_CHECKING:
    from fleetctl.platforms.local.fleet import LocalFleet


@dataclass(frozen=True, slots=True)
class Revocation:
    """What became of the certificates of one subject; `outcome` is `revoked` or `unchanged`.

    `crl_number` is that of the list that names them. `broker_running` speaks of the local broker. `sessions_cut`: it has no
    connection of this identity any more; None where it does not run.
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


def revoke(fleet: "LocalFleet", rows: Sequence[CertificateRow], reason: Reason) -> list[Revocation]:
    """Revoke certificates for good: one list and one word to the broker, however many they are.

    Repeating it changes nothing, but finishes what was interrupted.

    Raises:
        FleetError: they are revoked, but the broker that runs did not take the list; the error carries the report.
    """
    numbers = _record(fleet, rows, reason)
    told = have_it_read(fleet.context.folder, numbers)
    subjects: dict[tuple[str, str], list[CertificateRow]] = {}
    for row in rows:
        subjects.setdefault((row.authority, row.subject), []).append(row)
    reports = [_report(fleet, group, numbers[authority], told) for (authority, _), group in subjects.items()]
    check_obeyed(told, [*reports])
    return reports


def _record(fleet: "LocalFleet", rows: Sequence[CertificateRow], reason: Reason) -> dict[str, int]:
    """Registry and lists, together or not at all; the numbers of the lists that name these certificates."""
    registry, layout, now = fleet.registry, Layout(fleet.context.folder), fleet.clock()
    numbers: dict[str, int] = {}
    with registry.transaction():
        for row in rows:
            registry.revoke_certificate(row.serial, reason, rfc3339(now))
        for authority in sorted({row.authority for row in rows}):
            if authority not in numbers:
                serials = {int(row.serial, 16) for row in rows if row.authority == authority}
                numbers |= _held(fleet, authority, serials) or write_lists(registry, layout, authority, now)
    return numbers


def _held(fleet: "LocalFleet", authority: str, serials: set[int]) -> dict[str, int]:
    """The numbers in the authority's file, if that names all of the serials already; a damaged file names none."""
    path, _ = lists_of(fleet.registry, Layout(fleet.context.folder), authority)
    try:
        return crl.read_numbers(path) if serials <= crl.read_serials(path) else {}
    except (ConfigError, NotFound):
        return {}


def _report(fleet: "LocalFleet", rows: Sequence[CertificateRow], number: int, told: Obedience) -> Revocation:
    held = fleet.registry.certificate(rows[-1].serial)
    return Revocation(
        subject=held.subject,
        serials=tuple(row.serial for row in rows),
        outcome="unchanged" if all(row.revoked_at for row in rows) else "revoked",
        reason=held.reason or Reason.UNSPECIFIED,
        revoked_at=held.revoked_at or "",
        crl_number=number,
        broker_running=told.running,
        broker_reloaded=told.reloaded,
        sessions_cut=_cut(fleet, held, told) if told.running else None,
    )


def _cut(fleet: "LocalFleet", row: CertificateRow, told: Obedience) -> bool:
    """The built-in broker cuts by itself; mosquitto keeps whom it knows, so we take the client id that a device must have."""
    if not told.reloaded or told.engine != "mosquitto":
        return told.reloaded
    if row.device_id is None:
        return False
    from fleetctl.mqtt.session import evict

    try:
        evict(fleet.endpoint, row.device_id)
    except FleetError:
        return False
    return True
