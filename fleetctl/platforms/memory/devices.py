"""The devices of a fleet in memory."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fleetctl.errors import Conflict
from fleetctl.model.criteria import DeviceView
from fleetctl.model.device import Device, DevicePath, LifeCycle, check_labels
from fleetctl.model.presence import view
from fleetctl.model.twin import drift
from fleetctl.platforms.device_records import DeviceDetail, DeviceStatus, Imported, Provisioned, Removed, Replaced, Transition
from fleetctl.platforms.devices import DeviceEntry
from fleetctl.platforms.importing import Intake, import_file
from fleetctl.platforms.memory import lifecycle
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
            held = self.fleet.held[device_id] = Held(device)
            held.note("added", device.created_at)
            return Provisioned(device_id, str(path), "added")
        if held.device.state is LifeCycle.RETIRED:
            raise Conflict(f"device id `{device_id}` was used before and is retired", "choose another id")
        if (held.device.path, dict(held.device.labels)) != (path, dict(device.labels)):
            raise Conflict(f"device `{device_id}` exists already and differs", f"see fleetctl provision show {device_id}")
        return Provisioned(device_id, str(path), "unchanged")

    def import_file(
        self,
        path: Path,
        bundles: Path | None = None,
        *,
        atomic: bool = False,
        errors: Path | None = None,
        progress: Callable[[int], None] = lambda _: None,
    ) -> Imported:
        return import_file(self, path, bundles, Intake(self._transaction, atomic, errors, progress))

    def list(self, targets: Targets, *, retired: bool = False, states: Collection[LifeCycle] = ()) -> Iterator[DeviceEntry]:
        chosen = self._chosen(targets, retired=retired or LifeCycle.RETIRED in states)
        return (self._entry(held) for held in chosen if not states or held.device.state in states)

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
            profile=held.device.profile,
            **asdict(entry),
        )

    def resolve(self, targets: Targets, *, retired: bool = False) -> Sequence[Device]:
        return require_any(
            [held.device for held in self._chosen(require_named(targets), retired=retired and exact_ids(targets) is not None)],
            targets,
        )

    def candidates(self, targets: Targets) -> Iterator[Device]:
        return (held.device for held in self._chosen(replace(targets, selector=None, limit=None)))

    def status(self, device_id: str) -> DeviceStatus:
        return lifecycle.status(self.fleet, self.show(device_id))

    def remove(
        self, devices: Sequence[Device], reason: str = "cessationOfOperation", *, why: str | None = None
    ) -> Sequence[Removed]:
        return lifecycle.remove(self.fleet, devices, why)

    def suspend(self, devices: Sequence[Device], *, why: str | None = None) -> Sequence[Transition]:
        with self._transaction():
            return lifecycle.suspend(self.fleet, devices, why)

    def resume(self, devices: Sequence[Device], *, why: str | None = None) -> Sequence[Transition]:
        with self._transaction():
            return lifecycle.resume(self.fleet, devices, why)

    def replace(self, device_id: str, serial: str, *, reason: str = "superseded", why: str | None = None) -> Replaced:
        return lifecycle.replace(self.fleet, device_id, serial, why)

    def refresh(self, devices: Sequence[Device]) -> int:
        return self.fleet.refresh(devices)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """What fails inside changes no device."""
        before = {name: (held, held.device, len(held.timeline)) for name, held in self.fleet.held.items()}
        try:
            yield
        except BaseException:
            for held, device, steps in before.values():
                held.device = device
                del held.timeline[steps:]
            self.fleet.held = {name: held for name, (held, _, _) in before.items()}
            raise

    def _chosen(self, targets: Targets, *, retired: bool = False) -> Iterator[Held]:
        names = exact_ids(targets)
        for name in names or ():
            self.fleet.find(name) if retired else self.fleet.active(name)
        held = [self.fleet.held[name] for name in (sorted(self.fleet.held) if names is None else names)]
        live = [each for each in held if retired or each.device.state.present]
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
            device.serial,
            device.batch,
        )
