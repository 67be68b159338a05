"""Takes many devices of a file into the registry at once, and writes one line of the trail for all of them."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from fleetctl.errors import FleetError, UsageError
from fleetctl.model.device import Device, DevicePath
from fleetctl.platforms.device_records import RefusedRow
from fleetctl.platforms.importing import Taken, refused
from fleetctl.platforms.rows import Row
from fleetctl.wire.document import rfc3339

if TYPE_CHECKING:
    from fleetctl.platforms.local.fleet import LocalFleet


def taker(fleet: "LocalFleet", source: str) -> Callable[[Sequence[Row]], Sequence[Taken]]:
    """What adds a page of rows, and says of each `added`, `unchanged` or why it is refused; `source` names their file."""
    tenant = fleet.registry.tenant

    def take(rows: Sequence[Row]) -> Sequence[Taken]:
        at = rfc3339(fleet.clock())
        parsed = [_device(row, tenant, at) for row in rows]
        devices = [each for each in parsed if isinstance(each, Device)]
        done = iter(fleet.registry.add_devices(devices, actor=fleet.actor))
        outcomes = [
            each if isinstance(each, RefusedRow) else _outcome(row, next(done)) for row, each in zip(rows, parsed, strict=True)
        ]
        _note(fleet, source, at, rows, outcomes)
        return outcomes

    return take


def _device(row: Row, tenant: str, at: str) -> Device | RefusedRow:
    fields = row.fields
    try:
        return Device(DevicePath(tenant, fields["location"], fields["type"], fields["id"]), row.labels, created_at=at)
    except UsageError as error:
        return refused(row, error.message)


def _outcome(row: Row, done: bool | FleetError) -> Taken:
    if isinstance(done, FleetError):
        return refused(row, done.message)
    return "added" if done else "unchanged"


def _note(fleet: "LocalFleet", source: str, at: str, rows: Sequence[Row], outcomes: Sequence[Taken]) -> None:
    added = [row.fields["id"] for row, outcome in zip(rows, outcomes, strict=True) if outcome == "added"]
    if added:
        detail = {"count": len(added), "first": added[0], "last": added[-1]}
        fleet.registry.record("imported", source, at=at, actor=fleet.actor, detail=detail)
