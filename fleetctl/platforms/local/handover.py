"""One unit takes the place of another: same id, same path, another serial, and nothing of the old one is believed any more."""

from typing import TYPE_CHECKING

from fleetctl.errors import Conflict
from fleetctl.model.device import Device, LifeCycle, check_level
from fleetctl.model.topic import Channel
from fleetctl.platforms.device_records import Replaced
from fleetctl.platforms.local.enrolment.approval import forget
from fleetctl.platforms.local.lifecycle import clear, flushed, revoke
from fleetctl.wire.document import rfc3339

if TYPE_CHECKING:
    from fleetctl.platforms.local.fleet import LocalFleet

SAID_BY_THE_UNIT = (Channel.STATUS, Channel.TWIN_REPORTED, Channel.OTA_STATUS)


def replace(fleet: "LocalFleet", device_id: str, serial: str, reason: str, why: str | None) -> Replaced:
    """Revoke first, then change the serial, then clear what the old unit said: repeating it finishes what was interrupted."""
    check_level("serial", serial)
    old = fleet.registry.active_device(device_id)
    _check_free(fleet, device_id, serial)
    if old.serial == serial:
        return Replaced(device_id, "unchanged", serial, None, old.state.value, 0, flushed(fleet))
    revoked, _ = revoke(fleet, [old], reason)
    _swap(fleet, old, serial, why)
    return Replaced(
        device_id, "replaced", serial, old.serial, LifeCycle.MANUFACTURED.value, revoked.get(device_id, 0), flushed(fleet)
    )


def _check_free(fleet: "LocalFleet", device_id: str, serial: str) -> None:
    """Before anything is revoked: the serial is nobody else's."""
    row = fleet.registry.read_one("SELECT id FROM devices WHERE serial = ? AND id <> ?", (serial, device_id))
    if row is not None:
        raise Conflict(f"serial `{serial}` is that of device `{row[0]}`", f"see fleetctl provision status {row[0]}")


def _swap(fleet: "LocalFleet", old: Device, serial: str, why: str | None) -> None:
    registry, at = fleet.registry, rfc3339(fleet.clock())
    was = f"serial {old.serial}" if old.serial else "a unit without a serial"
    reason = f"{was} replaced by {serial}" + (f": {why}" if why else "")
    with registry.transaction():
        registry.bind_serial(old.id, serial)
        registry.forget_unit(old.id)
        registry.revoke_tokens(old.id, at)
        forget(fleet, old, at, "replaced")
        clear(fleet, old, SAID_BY_THE_UNIT, at)
        if not registry.move_device(old.id, LifeCycle.MANUFACTURED, event="replaced", at=at, reason=reason, actor=fleet.actor):
            registry.note(old.id, "replaced", at=at, reason=reason, actor=fleet.actor)
