"""Certificates of many devices that end soon: each device that is there is told to renew its own, a few at a time."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from fleetctl.model.certificate import Profile
from fleetctl.model.device import Device
from fleetctl.platforms.messages import CommandResult
from fleetctl.wire.document import rfc3339

if TYPE_CHECKING:
    from fleetctl.platforms.local.fleet import LocalFleet

COMMAND = "renew"


def due(fleet: "LocalFleet", devices: Sequence[Device], within: float) -> list[Device]:
    """Those of the devices whose last good certificate ends within so many seconds; one without any is not among them."""
    before = rfc3339(fleet.clock() + within)
    ending = {row.device_id for row in fleet.registry.expiring(before) if row.profile == Profile.DEVICE}
    return [device for device in devices if device.id in ending and _last_end(fleet, device.id) < before]


def _last_end(fleet: "LocalFleet", device_id: str) -> str:
    return max(row.not_after for row in fleet.registry.certificates(device_id) if row.revoked_at is None)


def order(
    fleet: "LocalFleet", devices: Sequence[Device], *, rekey: bool, timeout: float, pace: float | None
) -> Iterator[CommandResult]:
    """What became of each, as it becomes known; raises `Partial`, `Pending` or `Unavailable` at the end where some did not."""
    return fleet.messages.publish(devices, COMMAND, {"rekey": rekey}, wait=True, timeout=timeout, pace=pace)
