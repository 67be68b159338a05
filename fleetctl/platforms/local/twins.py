"""The twins of a local fleet: what is desired is decided in the registry, and the broker is told until it has acknowledged."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from fleetctl.errors import Conflict, NotFound, Pending, Unavailable
from fleetctl.model import topic as topics
from fleetctl.model.device import Device, check_level, printable
from fleetctl.model.topic import Channel
from fleetctl.model.twin import ABSENT, Difference, check_document, check_patch, check_size, drift, merge, same
from fleetctl.platforms.local.believed import refresh as refresh_all
from fleetctl.platforms.local.outbox import flush
from fleetctl.platforms.local.projections import owe, read_lost
from fleetctl.platforms.schemas import Schemas, validator
from fleetctl.platforms.twins import Twin, TwinChange, TwinConvergence, TwinDifference, TwinEvent, TwinSchema, TwinVersion
from fleetctl.wire.document import digest, dump_json, rfc3339
from fleetctl.wire.twin import Desired

if TYPE_CHECKING:
    from fleetctl.platforms.local.fleet import LocalFleet
    from fleetctl.registry import TwinRow

Decide = Callable[["TwinRow"], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Why:
    """What a change is conditional on, and what is written down with it."""

    if_version: int | None
    reason: str | None


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

    def set(
        self,
        devices: Sequence[Device],
        patch: Mapping[str, Any],
        *,
        if_version: int | None = None,
        reason: str | None = None,
    ) -> Sequence[TwinChange]:
        """Apply a merge patch to all of them or to none, then publish what changed, was left over, or was lost by the broker.

        Raises:
            Conflict: a twin is not at `if_version`.
            UsageError: no fleet may send the patch, a document would grow too large, or its type's schema refuses it.
            Pending: it is decided, but the broker does not know yet (the changes are in the error).
        """
        checked = check_patch(patch)
        return self._write(devices, lambda row: merge(row.desired, checked), Why(if_version, reason))

    def replace(
        self,
        devices: Sequence[Device],
        document: Mapping[str, Any],
        *,
        if_version: int | None = None,
        reason: str | None = None,
    ) -> Sequence[TwinChange]:
        """The same with a whole document in the place of the one that is desired."""
        checked = check_document(document)
        return self._write(devices, lambda _: checked, Why(if_version, reason))

    def history(self, device_id: str) -> Sequence[TwinVersion]:
        """The newest versions of what was desired, oldest first."""
        registry = self.fleet.registry
        registry.device(device_id)
        return [TwinVersion(device_id, *row) for row in registry.twin_history(device_id)]

    def revert(
        self, device_id: str, version: int, *, if_version: int | None = None, reason: str | None = None
    ) -> Sequence[TwinChange]:
        """Desire again what an earlier version said, as a new version; raises `NotFound` where that is not kept."""
        registry = self.fleet.registry
        device = registry.active_device(device_id)
        document = registry.twin_version(device_id, version).desired
        return self._write([device], lambda _: document, Why(if_version, reason or f"back to version {version}"))

    def diff(self, devices: Sequence[Device], *, refresh: bool = False) -> Sequence[TwinDifference]:
        """Every desired value that a device does not report."""
        if refresh:
            refresh_all(self.fleet, [each.path for each in devices])
        return [
            TwinDifference(device.id, each.path, each.desired, None if each.reported is ABSENT else each.reported)
            for device in devices
            for each in self._drift(device)
        ]

    def wait(self, devices: Sequence[Device], timeout: float) -> Iterator[TwinConvergence]:
        from fleetctl.platforms.local.converging import wait

        return wait(self.fleet, devices, timeout)

    def watch(self, devices: Sequence[Device]) -> Iterator[TwinEvent]:
        from fleetctl.platforms.local.converging import watch

        return watch(self.fleet, devices)

    def schemas(self) -> Sequence[TwinSchema]:
        """The schemas of all device types that have one."""
        return [TwinSchema(kind, schema) for kind, schema in self.fleet.registry.twin_schemas().items()]

    def schema(self, device_type: str) -> TwinSchema:
        """Raises `NotFound`."""
        schema = self.fleet.registry.twin_schema(device_type)
        if schema is None:
            raise NotFound(
                f"type {printable(device_type)} has no schema", f"give it one: fleetctl twin schema {device_type} -f FILE"
            )
        return TwinSchema(device_type, schema)

    def put_schema(self, device_type: str, schema: Mapping[str, Any], *, reason: str | None = None) -> TwinSchema:
        """What it refuses is not sent from now on; raises `ConfigError` for what is no schema, or refers to another place."""
        validator(check_level("device type", device_type), schema)
        registry = self.fleet.registry
        with registry.transaction():
            if same(registry.twin_schema(device_type), schema):
                return TwinSchema(device_type, schema, "unchanged")
            registry.put_twin_schema(device_type, dump_json(dict(schema)).decode())
            self._record_schema(device_type, "stored", reason)
        return TwinSchema(device_type, schema, "stored")

    def remove_schema(self, device_type: str, *, reason: str | None = None) -> TwinSchema:
        """Raises `NotFound`."""
        with self.fleet.registry.transaction():
            held = self.schema(device_type)
            self.fleet.registry.put_twin_schema(device_type, None)
            self._record_schema(device_type, "removed", reason)
        return replace(held, outcome="removed")

    def _record_schema(self, device_type: str, outcome: str, reason: str | None) -> None:
        at, actor = rfc3339(self.fleet.clock()), self.fleet.actor
        self.fleet.registry.record("twin.schema", device_type, at=at, actor=actor, reason=reason, detail={"outcome": outcome})

    def _drift(self, device: Device) -> list[Difference]:
        row = self.fleet.registry.twin(device.id)
        return drift(row.desired, row.reported)

    def _write(self, devices: Sequence[Device], decide: Decide, why: Why) -> Sequence[TwinChange]:
        at, schemas = rfc3339(self.fleet.clock()), Schemas(self.fleet.registry.twin_schema)
        with self.fleet.registry.transaction():
            changes = [self._decide(device, decide, why, at, schemas) for device in devices]
        try:
            flush(self.fleet)
            lost = self._lost([device for device, change in zip(devices, changes, strict=True) if _is_held(change)], at)
        except Unavailable as error:
            raise self._pending(devices, changes, at, error) from error
        return [replace(change, outcome="republished") if change.id in lost else change for change in changes]

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

    def _decide(self, device: Device, decide: Decide, why: Why, at: str, schemas: Schemas) -> TwinChange:
        registry = self.fleet.registry
        registry.active_device(device.id)
        row = registry.twin(device.id)
        if why.if_version is not None and row.version != why.if_version:
            raise Conflict(
                f"twin of `{device.id}` is at version {row.version}, not {why.if_version}",
                f"look at it and decide again: fleetctl twin get {device.id}",
            )
        desired = decide(row)
        if same(desired, row.desired):
            return TwinChange(device.id, row.version, "unchanged")
        document = check_size(device.id, dump_json(dict(desired)))
        schemas.check(device, desired)
        said = Desired(registry.generation, row.version + 1, digest(document), desired, at)
        actor = self.fleet.actor
        registry.save_desired(device.id, said.version, document.decode(), said.digest, at, actor=actor, reason=why.reason)
        registry.record("twin.set", device.id, at=at, actor=actor, reason=why.reason, device_id=device.id)
        registry.enqueue(topics.of(device.path, Channel.TWIN_DESIRED), said.encode(), at)
        return TwinChange(device.id, said.version, "published")


def _is_held(change: TwinChange) -> bool:
    """Whether the broker should retain this version since an earlier call."""
    return change.outcome == "unchanged" and change.version > 0
