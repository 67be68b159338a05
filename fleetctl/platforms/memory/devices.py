"""The devices of a fleet in memory."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fleetctl.errors import Conflict, Unavailable
from fleetctl.model import topic as topics
from fleetctl.model.criteria import DeviceView
from fleetctl.model.device import Device, DevicePath, LifeCycle, check_labels
from fleetctl.model.presence import view
from fleetctl.model.twin import drift
from fleetctl.platforms.devices import DeviceDetail, DeviceEntry, Imported, Provisioned, Removed
from fleetctl.platforms.importing import import_file
from fleetctl.platforms.memory.held import Held
from fleetctl.platforms.protocol import Missing, Targets
from fleetctl.platforms.targets import choose, exact_ids, require_any, require_named
from fleetctl.wire.document import rfc3339

if TYPE_CHECKING:
    from fleetctl.platforms.memory.fleet import MemoryFleet


@dataclass(frozen=True, slots=True)
class MemoryDevices:
    """`Devices` in memory; it owns no identities, so that a bundle is `Missing`."""

    fleet: "MemoryFleet"

    def add(
        self, device_id: str, *, device_type: str, location: str, labels: Mapping[str, str], bundle: Path | None = None
    ) -> Provisioned:
        if bundle is not None:
            raise Missing("a fleet in memory issues no certificates", "leave the bundle away")
        path = DevicePath(self.fleet.tenant, location, device_type, device_id)
        device = Device(path, check_labels(labels), created_at=rfc3339(self.fleet.clock()))
        held = self.fleet.held.get(device_id)
        if held is None:
            self.fleet.held[device_id] = Held(device)
            return Provisioned(device_id, str(path), "added")
        if held.device.state is LifeCycle.RETIRED:
            raise Conflict(f"device id `{device_id}` was used before and is retired", "choose another id")
        if (held.device.path, dict(held.device.labels)) != (path, dict(device.labels)):
            raise Conflict(f"device `{device_id}` exists already and differs", f"see fleetctl provision show {device_id}")
        return Provisioned(device_id, str(path), "unchanged")

    def import_file(self, path: Path, bundles: Path | None = None) -> Imported:
        whole: Callable[[], AbstractContextManager[None]] = nullcontext
        return import_file(self, path, bundles, whole)

    def list(self, targets: Targets, *, retired: bool = False) -> Iterator[DeviceEntry]:
        return (self._entry(held) for held in self._chosen(targets, retired=retired))

    def show(self, device_id: str) -> DeviceDetail:
        held = self.fleet.find(device_id)
        entry, said = self._entry(held), held.presence
        return DeviceDetail(
            path=str(held.device.path),
            session=None if said is None else said.session,
            digest=None if said is None else said.digest,
            heartbeat=None if said is None else said.heartbeat,
            desired_version=held.version,
            reported_version=held.reported.version if held.reported else 0,
            **asdict(entry),
        )

    def resolve(self, targets: Targets, *, retired: bool = False) -> Sequence[Device]:
        return require_any(
            [held.device for held in self._chosen(require_named(targets), retired=retired and exact_ids(targets) is not None)],
            targets,
        )

    def remove(self, devices: Sequence[Device], reason: str = "cessationOfOperation") -> Sequence[Removed]:
        outcomes = [(device.id, self._retire(device)) for device in devices]
        try:
            self.fleet.flush()
        except Unavailable:
            return [Removed(name, outcome, 0, False) for name, outcome in outcomes]
        return [Removed(name, outcome, 0, True) for name, outcome in outcomes]

    def refresh(self, devices: Sequence[Device]) -> int:
        return self.fleet.refresh(devices)

    def _retire(self, device: Device) -> str:
        held = self.fleet.find(device.id)
        if held.device.state is LifeCycle.RETIRED:
            return "unchanged"
        held.device = replace(held.device, state=LifeCycle.RETIRED)
        self.fleet.outbox.update({topics.of(device.path, channel): b"" for channel in topics.RETAINED_CHANNELS})
        return "removed"

    def _chosen(self, targets: Targets, *, retired: bool = False) -> Iterator[Held]:
        names = exact_ids(targets)
        for name in names or ():
            self.fleet.find(name) if retired else self.fleet.active(name)
        held = [self.fleet.held[name] for name in (sorted(self.fleet.held) if names is None else names)]
        live = [each for each in held if retired or each.device.state is LifeCycle.ACTIVE]
        return choose(live, targets, self._view)

    def _view(self, held: Held) -> DeviceView:
        now = self.fleet.clock()
        return DeviceView(
            held.device.path,
            held.device.labels,
            None if held.presence is None else held.presence.firmware_version,
            view(held.presence, held.seen_at, now),
            None if held.seen_at is None else max(0.0, now - held.seen_at),
            None if held.reported is None else held.reported.reported,
        )

    def _entry(self, held: Held) -> DeviceEntry:
        seen, device = self._view(held), held.device
        return DeviceEntry(
            device.id,
            device.path.device_type,
            device.path.location,
            device.labels,
            str(seen.status),
            seen.firmware,
            None if held.seen_at is None else rfc3339(held.seen_at),
            bool(drift(held.desired, held.reported.reported)) if held.version and held.reported else None,
            device.state.value,
            device.created_at,
        )
