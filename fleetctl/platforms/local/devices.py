"""The devices of a local fleet: provisioned in the registry, given an identity, found again, removed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fleetctl.errors import Unavailable
from fleetctl.model import topic as topics
from fleetctl.model.criteria import DeviceView
from fleetctl.model.device import Device, DevicePath, LifeCycle
from fleetctl.model.presence import view as presence_view
from fleetctl.model.twin import drift
from fleetctl.platforms.devices import DeviceDetail, DeviceEntry, Imported, Provisioned, Removed
from fleetctl.platforms.protocol import Targets
from fleetctl.platforms.targets import choose, exact_ids, require_any, require_named

if TYPE_CHECKING:
    from fleetctl.platforms.local.fleet import LocalFleet
    from fleetctl.registry import DeviceRecord


@dataclass(frozen=True, slots=True)
class LocalDevices:
    """`Devices` on the registry of a local fleet."""

    fleet: "LocalFleet"

    def add(
        self, device_id: str, *, device_type: str, location: str, labels: Mapping[str, str], bundle: Path | None = None
    ) -> Provisioned:
        """Adding the same again changes nothing; a bundle is issued with it, or not even the device is added."""
        registry = self.fleet.registry
        path = DevicePath(registry.tenant, location, device_type, device_id)
        device = Device(path, labels, created_at=_time(self.fleet.clock()))
        with registry.transaction():
            is_new = registry.add_device(device)
            if bundle is not None:
                self.fleet.certificates.issue_bundle(registry.device(device_id), bundle)
        return Provisioned(device_id, str(path), "added" if is_new else "unchanged", None if bundle is None else str(bundle))

    def import_file(self, path: Path, bundles: Path | None = None) -> Imported:
        """Add what a .csv or .jsonl file names; with `bundles`, each new device gets a folder there.

        Raises:
            Partial: some lines were refused (the report is in the error); FleetError: all of them.
        """
        from fleetctl.platforms.importing import import_file

        return import_file(self, path, bundles, self.fleet.registry.transaction)

    def list(self, targets: Targets, *, retired: bool = False) -> Iterator[DeviceEntry]:
        now = self.fleet.clock()
        for record in self._chosen(targets, now, retired=retired):
            yield _entry(record, now)

    def show(self, device_id: str) -> DeviceDetail:
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

    def remove(self, devices: Sequence[Device], reason: str = "cessationOfOperation") -> Sequence[Removed]:
        """Revoke first, then retire, then clear: whatever stops it, repeating it finishes."""
        revoked = self._revoke(devices, reason)
        retired = [(device.id, self._retire(device)) for device in devices]
        try:
            self._flush()
            cleared = True
        except Unavailable:
            cleared = False
        return [Removed(name, outcome, revoked.get(name, 0), cleared) for name, outcome in retired]

    def refresh(self, devices: Sequence[Device]) -> int:
        """Read what the broker retains of these devices, and put back what it has lost; how many of them were heard of."""
        from fleetctl.platforms.local.believed import refresh

        return len(refresh(self.fleet, [device.path for device in devices]))

    def view(self, record: "DeviceRecord", now: float) -> DeviceView:
        """What a selector sees of a device."""
        seen = record.sighting
        return DeviceView(
            record.device.path,
            record.device.labels,
            None if seen is None else seen.firmware_version or None,
            presence_view(seen, None if seen is None else seen.received_at, now),
            None if seen is None else max(0.0, now - seen.received_at),
            record.reported,
        )

    def _chosen(self, targets: Targets, now: float, *, retired: bool = False) -> Iterator["DeviceRecord"]:
        ids = exact_ids(targets)
        if not retired:
            for name in ids or ():
                self.fleet.registry.active_device(name)
        return choose(self.fleet.registry.records(ids, retired=retired), targets, lambda record: self.view(record, now))

    def _revoke(self, devices: Sequence[Device], reason: str) -> dict[str, int]:
        """How many certificates of each device were good until now."""
        registry = self.fleet.registry
        live = {
            device.id: sum(row.revoked_at is None for row in rows)
            for device in devices
            if registry.device(device.id).state is LifeCycle.ACTIVE and (rows := registry.certificates(device.id))
        }
        if live:
            self.fleet.certificates.revoke_all(list(live), reason)
        return live

    def _retire(self, device: Device) -> str:
        registry = self.fleet.registry
        at = _time(self.fleet.clock())
        with registry.transaction():
            if not registry.retire_device(device.id, at):
                return "unchanged"
            for channel in topics.RETAINED_CHANNELS:
                registry.enqueue(topics.of(device.path, channel), b"", at)
        return "removed"

    def _flush(self) -> None:
        from fleetctl.platforms.local.outbox import flush

        flush(self.fleet)


def _time(seconds: float) -> str:
    from fleetctl.wire.document import rfc3339

    return rfc3339(seconds)


def _drift(record: "DeviceRecord") -> bool | None:
    if record.desired is None or record.reported is None:
        return None
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
    )


def _detail(record: "DeviceRecord", now: float) -> DeviceDetail:
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
    )
