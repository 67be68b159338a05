"""The devices of a local fleet: provisioned in the registry, given an identity, found again, removed."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fleetctl.model.device import Device, DevicePath, LifeCycle
from fleetctl.model.presence import view as presence_view
from fleetctl.platforms.devices import DeviceEntry
from fleetctl.platforms.protocol import Targets
from fleetctl.platforms.targets import exact_ids, require_any, require_named

if TYPE_CHECKING:
    from fleetctl.platforms.device_records import DeviceDetail, DeviceStatus, Imported, Provisioned, Removed, Replaced, Transition
    from fleetctl.platforms.local.fleet import LocalFleet
    from fleetctl.registry import DeviceRecord


@dataclass(frozen=True, slots=True)
class LocalDevices:
    """`Devices` on the registry of a local fleet."""

    fleet: "LocalFleet"

    def add(
        self, device_id: str, *, device_type: str, location: str, labels: Mapping[str, str], bundle: Path | None = None
    ) -> "Provisioned":
        """Adding the same again changes nothing; a bundle is issued with it, or not even the device is added."""
        from fleetctl.platforms.device_records import Provisioned

        registry = self.fleet.registry
        path = DevicePath(registry.tenant, location, device_type, device_id)
        device = Device(path, labels, created_at=_time(self.fleet.clock()))
        if bundle is None:
            return Provisioned(device_id, str(path), _outcome(registry.add_device(device, actor=self.fleet.actor)))
        with registry.transaction():
            is_new = registry.add_device(device, actor=self.fleet.actor)
            self.fleet.certificates.issue_bundle(registry.device(device_id), bundle)
        return Provisioned(device_id, str(path), _outcome(is_new), str(bundle))

    def import_file(
        self,
        path: Path,
        bundles: Path | None = None,
        *,
        atomic: bool = False,
        errors: Path | None = None,
        progress: Callable[[int], None] = lambda _: None,
    ) -> "Imported":
        """Add what a .csv or .jsonl file names; with `bundles`, each new device gets a folder there.

        Raises:
            Partial: some lines were refused (the report is in the error); FleetError: all of them.
        """
        from fleetctl.platforms.importing import Intake, import_file
        from fleetctl.platforms.local.taking import taker

        intake = Intake(self.fleet.registry.transaction, atomic, errors, progress)
        return import_file(self, path, bundles, intake, taker(self.fleet, path.name))

    def list(self, targets: Targets, *, retired: bool = False, states: Collection[LifeCycle] = ()) -> Iterator[DeviceEntry]:
        now = self.fleet.clock()
        for record in self._chosen(targets, now, retired=retired or LifeCycle.RETIRED in states):
            if not states or record.device.state in states:
                yield _entry(record, now)

    def show(self, device_id: str) -> "DeviceDetail":
        """Raises `NotFound`; a removed device is shown too."""
        registry = self.fleet.registry
        registry.device(device_id)
        (record,) = registry.records([device_id], retired=True)
        return _detail(record, self.fleet.clock())

    def resolve(self, targets: Targets, *, retired: bool = False) -> Sequence[Device]:
        """The devices that a write is meant for; what it selects on is as old as the registry's knowledge.

        `retired` finds removed devices too, where they are named.
        """
        records = self._chosen(require_named(targets), self.fleet.clock(), retired=retired and exact_ids(targets) is not None)
        return require_any([record.device for record in records], targets)

    def candidates(self, targets: Targets) -> Iterator[Device]:
        from fleetctl.platforms.local.choosing import candidates

        return (record.device for record in candidates(self.fleet.registry, targets, self.fleet.clock()))

    def status(self, device_id: str) -> "DeviceStatus":
        """Its state with the timeline and its certificates; raises `NotFound`."""
        from fleetctl.platforms.local.lifecycle import status

        return status(self.fleet, self.show(device_id))

    def remove(
        self, devices: Sequence[Device], reason: str = "cessationOfOperation", *, why: str | None = None
    ) -> "Sequence[Removed]":
        """Revoke first, then retire, then clear: whatever stops it, repeating it finishes."""
        from fleetctl.platforms.local.lifecycle import remove

        return remove(self.fleet, devices, reason, why)

    def suspend(self, devices: Sequence[Device], *, why: str | None = None) -> "Sequence[Transition]":
        """All of them on hold or none: certificates too, until they are resumed; raises `Conflict` for a retired one."""
        from fleetctl.platforms.local.lifecycle import suspend

        return suspend(self.fleet, devices, why)

    def resume(self, devices: Sequence[Device], *, why: str | None = None) -> "Sequence[Transition]":
        """Each back in the state that it was suspended in; raises `Conflict` for one that was revoked or retired since."""
        from fleetctl.platforms.local.lifecycle import resume

        return resume(self.fleet, devices, why)

    def replace(self, device_id: str, serial: str, *, reason: str = "superseded", why: str | None = None) -> "Replaced":
        """Another unit takes the place of the old one, with its id, path, labels and twin."""
        from fleetctl.platforms.local.handover import replace

        return replace(self.fleet, device_id, serial, reason, why)

    def refresh(self, devices: Sequence[Device]) -> int:
        """Read what the broker retains of these devices, and put back what it has lost; how many of them were heard of."""
        from fleetctl.platforms.local.believed import refresh

        return len(refresh(self.fleet, [device.path for device in devices]))

    def _chosen(self, targets: Targets, now: float, *, retired: bool = False) -> Iterator["DeviceRecord"]:
        from fleetctl.platforms.local.choosing import chosen

        return chosen(self.fleet.registry, targets, now, retired=retired)


def _outcome(is_new: bool) -> str:
    return "added" if is_new else "unchanged"


def _time(seconds: float) -> str:
    from fleetctl.wire.document import rfc3339

    return rfc3339(seconds)


def _drift(record: "DeviceRecord") -> bool | None:
    if record.desired is None or record.reported is None:
        return None
    from fleetctl.model.twin import drift

    return bool(drift(record.desired, record.reported))


def _entry(record: "DeviceRecord", now: float) -> DeviceEntry:
    device, seen = record.device, record.sighting
    return DeviceEntry(
        device.id,
        device.path.device_type,
        device.path.location,
        device.labels,
        presence_view(seen, None if seen is None else seen.received_at, now).value,
        None if seen is None else seen.firmware_version or None,
        None if seen is None else _time(seen.received_at),
        _drift(record),
        LifeCycle(device.state).value,
        device.created_at,
        device.serial,
        device.batch,
        record.certificate_ends,
    )


def _detail(record: "DeviceRecord", now: float) -> "DeviceDetail":
    from fleetctl.platforms.device_records import DeviceDetail

    entry, seen = _entry(record, now), record.sighting
    return DeviceDetail(
        entry.id,
        str(record.device.path),
        entry.type,
        entry.location,
        entry.labels,
        entry.status,
        None if seen is None else seen.session,
        entry.firmware,
        None if seen is None else seen.digest or None,
        None if seen is None else seen.heartbeat,
        entry.last_seen,
        entry.drift,
        record.desired_version or 0,
        record.reported_version or 0,
        entry.state,
        entry.created_at,
        entry.serial,
        entry.batch,
        record.device.profile,
        entry.certificate_ends,
    )
