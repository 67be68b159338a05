"""The life of a device in memory; it has no certificates, so that nobody can be cut off."""

from collections.abc import Sequence
from dataclasses import replace as changed
from typing import TYPE_CHECKING

from fleetctl.errors import Conflict, Unavailable
from fleetctl.model import topic as topics
from fleetctl.model.device import Device, LifeCycle, check_level
from fleetctl.model.topic import Channel
from fleetctl.platforms.device_records import DeviceDetail, DeviceStatus, Removed, Replaced, Transition
from fleetctl.platforms.memory.held import Held
from fleetctl.wire.document import rfc3339

if TYPE_CHECKING:
    from fleetctl.platforms.memory.fleet import MemoryFleet


def status(fleet: "MemoryFleet", shown: DeviceDetail) -> DeviceStatus:
    held = fleet.find(shown.id)
    idle = None if held.seen_at is None else round(max(0.0, fleet.clock() - held.seen_at), 3)
    facts = (shown.id, shown.path, shown.serial, shown.batch, shown.profile, shown.state, shown.status, shown.last_seen, idle)
    return DeviceStatus(*facts, (), tuple(held.timeline))


def suspend(fleet: "MemoryFleet", devices: Sequence[Device], why: str | None) -> list[Transition]:
    done = []
    for device in devices:
        moved = fleet.find(device.id).move(LifeCycle.SUSPENDED, "suspended", rfc3339(fleet.clock()), why)
        done.append(Transition(device.id, "suspended" if moved else "unchanged", LifeCycle.SUSPENDED.value, 0, None))
    return done


def resume(fleet: "MemoryFleet", devices: Sequence[Device], why: str | None) -> list[Transition]:
    done = []
    for device in devices:
        held = fleet.find(device.id)
        state = _state_before(held)
        moved = held.move(state, "resumed", rfc3339(fleet.clock()), why)
        done.append(Transition(device.id, "resumed" if moved else "unchanged", state.value, 0, None))
    return done


def remove(fleet: "MemoryFleet", devices: Sequence[Device], why: str | None) -> list[Removed]:
    outcomes = []
    for device in devices:
        moved = fleet.find(device.id).move(LifeCycle.RETIRED, "retired", rfc3339(fleet.clock()), why)
        if moved:
            _clear(fleet, device, topics.RETAINED_CHANNELS)
        outcomes.append((device.id, "removed" if moved else "unchanged"))
    cleared = _flushed(fleet)
    return [Removed(name, outcome, 0, cleared) for name, outcome in outcomes]


def replace(fleet: "MemoryFleet", device_id: str, serial: str, why: str | None) -> Replaced:
    held = fleet.active(device_id)
    check_level("serial", serial)
    taken = next((each.device.id for each in fleet.held.values() if each.device.serial == serial), None)
    if taken not in (None, device_id):
        raise Conflict(f"serial `{serial}` is that of device `{taken}`", f"see fleetctl provision status {taken}")
    was = held.device.serial
    if was == serial:
        return Replaced(device_id, "unchanged", serial, None, held.device.state.value, 0, _flushed(fleet))
    held.device = changed(held.device, serial=serial)
    held.presence = held.seen_at = held.reported = held.reported_at = None
    reason, at = f"{was or 'no serial'} replaced by {serial}" + (f": {why}" if why else ""), rfc3339(fleet.clock())
    if not held.move(LifeCycle.MANUFACTURED, "replaced", at, reason):
        held.note("replaced", at, reason, held.device.state)
    _clear(fleet, held.device, (Channel.STATUS, Channel.TWIN_REPORTED, Channel.OTA_STATUS))
    return Replaced(device_id, "replaced", serial, was, LifeCycle.MANUFACTURED.value, 0, _flushed(fleet))


def _state_before(held: Held) -> LifeCycle:
    state = held.device.state
    if state.believed:
        return state
    if state is not LifeCycle.SUSPENDED:
        raise Conflict(f"device `{held.device.id}` is {state}, not suspended", f"see fleetctl provision status {held.device.id}")
    return next(LifeCycle(step.before) for step in reversed(held.timeline) if step.event == "suspended" and step.before)


def _clear(fleet: "MemoryFleet", device: Device, channels: Sequence[Channel]) -> None:
    fleet.outbox.update({topics.of(device.path, channel): b"" for channel in channels})


def _flushed(fleet: "MemoryFleet") -> bool:
    try:
        fleet.flush()
    except Unavailable:
        return False
    return True
