"""The twins of a local fleet: what is desired is decided in the registry, and the broker is told until it has acknowledged."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from fleetctl.errors import Conflict, Pending, Unavailable
from fleetctl.model import topic as topics
from fleetctl.model.device import Device
from fleetctl.model.topic import Channel
from fleetctl.model.twin import ABSENT, Difference, check_patch, check_size, drift, merge, same
from fleetctl.platforms.local.believed import refresh as refresh_all
from fleetctl.platforms.local.outbox import flush
from fleetctl.platforms.local.projections import owe, read_lost
from fleetctl.platforms.twins import Twin, TwinChange, TwinDifference
from fleetctl.wire.document import digest, dump_json, rfc3339
from fleetctl.wire.twin import Desired

if TYPE_CHECKING:
    from fleetctl.platforms.local.fleet import LocalFleet


@dataclass(frozen=True, slots=True)
class LocalTwins:
    """`Twins` on registry and broker of a local fleet."""

    fleet: "LocalFleet"

    def get(self, device_id: str, *, refresh: bool = False) -> Twin:
        """From the registry; `refresh` takes in what the broker retains first."""
        registry = self.fleet.registry
        device = registry.device(device_id)
        if refresh:
            refresh_all(self.fleet, [device.path])
        row = registry.twin(device_id)
        return Twin(
            device_id,
            row.version,
            row.desired,
            row.digest or None,
            registry.generation,
            row.updated_at,
            row.reported_version,
            row.reported,
            None if row.received_at is None else rfc3339(row.received_at),
            None if row.reported is None else bool(drift(row.desired, row.reported)),
        )

    def set(self, devices: Sequence[Device], patch: Mapping[str, Any], *, if_version: int | None = None) -> Sequence[TwinChange]:
        """Apply a merge patch to all of them or to none, then publish what changed, was left over, or was lost by the broker.

        Raises:
            Conflict: a twin is not at `if_version`.
            UsageError: the patch is not one that a fleet may send, or a document would grow too large.
            Pending: it is decided, but the broker does not know yet (the changes are in the error).
        """
        checked = check_patch(patch)
        at = rfc3339(self.fleet.clock())
        with self.fleet.registry.transaction():
            changes = [self._decide(device, checked, if_version, at) for device in devices]
        try:
            flush(self.fleet)
            lost = self._lost([device for device, change in zip(devices, changes, strict=True) if _is_held(change)], at)
        except Unavailable as error:
            raise self._pending(devices, changes, at, error) from error
        return [replace(change, outcome="republished") if change.id in lost else change for change in changes]

    def diff(self, devices: Sequence[Device], *, refresh: bool = False) -> Sequence[TwinDifference]:
        """Every desired value that a device does not report."""
        if refresh:
            refresh_all(self.fleet, [each.path for each in devices])
        return [
            TwinDifference(device.id, each.path, each.desired, None if each.reported is ABSENT else each.reported)
            for device in devices
            for each in self._drift(device)
        ]

    def _drift(self, device: Device) -> list[Difference]:
        row = self.fleet.registry.twin(device.id)
        return drift(row.desired, row.reported)

    def _lost(self, devices: Sequence[Device], at: str) -> Collection[str]:
        """Publish again which of these the broker does not retain as they are; their ids."""
        if not devices:
            return ()
        with self.fleet.open_session("twin") as session:
            lost = read_lost(self.fleet, session, [device.path for device in devices], at)
        flush(self.fleet)
        return lost

    def _pending(self, devices: Sequence[Device], changes: Sequence[TwinChange], at: str, error: Unavailable) -> Pending:
        """What nobody could look after is published again when the broker is back."""
        registry = self.fleet.registry
        with registry.transaction():
            for device, change in zip(devices, changes, strict=True):
                if _is_held(change):
                    owe(registry, device.path, at)
        queued = sum(change.version > 0 for change in changes)
        words = "1 change is decided and waits" if queued == 1 else f"{queued} changes are decided and wait"
        return Pending(
            f"{words} for the broker: {error.message}",
            "repeat the command when the broker is back: every twin write sends what waits",
            record=[asdict(replace(change, outcome="queued") if change.version else change) for change in changes],
        )

    def _decide(self, device: Device, patch: Mapping[str, Any], if_version: int | None, at: str) -> TwinChange:
        registry = self.fleet.registry
        registry.active_device(device.id)
        row = registry.twin(device.id)
        if if_version is not None and row.version != if_version:
            raise Conflict(
                f"twin of `{device.id}` is at version {row.version}, not {if_version}",
                f"look at it and decide again: fleetctl twin get {device.id}",
            )
        desired = merge(row.desired, patch)
        if same(desired, row.desired):
            return TwinChange(device.id, row.version, "unchanged")
        document = check_size(device.id, dump_json(desired))
        said = Desired(registry.generation, row.version + 1, digest(document), desired, at)
        registry.save_desired(device.id, said.version, document.decode(), said.digest, at)
        registry.enqueue(topics.of(device.path, Channel.TWIN_DESIRED), said.encode(), at)
        return TwinChange(device.id, said.version, "published")


def _is_held(change: TwinChange) -> bool:
    """Whether the broker should retain this version since an earlier call."""
    return change.outcome == "unchanged" and change.version > 0
