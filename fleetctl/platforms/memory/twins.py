"""The twins of a fleet in memory."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from fleetctl.errors import Conflict, NotFound, Pending, Unavailable
from fleetctl.model import topic as topics
from fleetctl.model.device import Device, check_level, printable
from fleetctl.model.topic import Channel
from fleetctl.model.twin import ABSENT, check_document, check_patch, check_size, drift, merge, same
from fleetctl.platforms.memory import converging
from fleetctl.platforms.memory.held import Held
from fleetctl.platforms.schemas import Schemas, validator
from fleetctl.platforms.twins import Twin, TwinChange, TwinConvergence, TwinDifference, TwinEvent, TwinSchema, TwinVersion
from fleetctl.wire.document import digest, dump_json, rfc3339
from fleetctl.wire.twin import Desired

if TYPE_CHECKING:
    from fleetctl.platforms.memory.fleet import MemoryFleet

Decide = Callable[[Held], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class MemoryTwins:
    """`Twins` in memory."""

    fleet: "MemoryFleet"

    def get(self, device_id: str, *, refresh: bool = False) -> Twin:
        held = self.fleet.find(device_id)
        if refresh:
            self.fleet.refresh([held.device])
        said = held.reported
        return Twin(
            device_id,
            held.version,
            held.desired,
            held.said.digest if held.said else None,
            1,
            held.said.timestamp if held.said else None,
            said.version if said else 0,
            None if said is None else said.reported,
            None if held.reported_at is None else rfc3339(held.reported_at),
            bool(drift(held.desired, said.reported)) if said else None,
        )

    def set(
        self,
        devices: Sequence[Device],
        patch: Mapping[str, Any],
        *,
        if_version: int | None = None,
        reason: str | None = None,
    ) -> Sequence[TwinChange]:
        checked = check_patch(patch)
        return self._write(devices, lambda held: merge(held.desired, checked), if_version, reason)

    def replace(
        self,
        devices: Sequence[Device],
        document: Mapping[str, Any],
        *,
        if_version: int | None = None,
        reason: str | None = None,
    ) -> Sequence[TwinChange]:
        checked = check_document(document)
        return self._write(devices, lambda _: checked, if_version, reason)

    def history(self, device_id: str) -> Sequence[TwinVersion]:
        return list(self.fleet.find(device_id).versions)

    def revert(
        self, device_id: str, version: int, *, if_version: int | None = None, reason: str | None = None
    ) -> Sequence[TwinChange]:
        held = self.fleet.active(device_id)
        found = next((each.desired for each in held.versions if each.version == version), None)
        if found is None:
            raise NotFound(
                f"twin of `{device_id}` has no version {version} to go back to", f"see fleetctl twin history {device_id}"
            )
        return self._write([held.device], lambda _: found, if_version, reason or f"back to version {version}")

    def wait(self, devices: Sequence[Device], timeout: float) -> Iterator[TwinConvergence]:
        return converging.wait(self.fleet, devices, timeout)

    def watch(self, devices: Sequence[Device]) -> Iterator[TwinEvent]:
        return converging.watch(self.fleet, devices)

    def diff(self, devices: Sequence[Device], *, refresh: bool = False) -> Sequence[TwinDifference]:
        if refresh:
            self.fleet.refresh(devices)
        return [
            TwinDifference(device.id, each.path, each.desired, None if each.reported is ABSENT else each.reported)
            for device in devices
            for held in [self.fleet.find(device.id)]
            for each in drift(held.desired, held.reported.reported if held.reported else None)
        ]

    def schemas(self) -> Sequence[TwinSchema]:
        return [TwinSchema(kind, schema) for kind, schema in sorted(self.fleet.schemas.items())]

    def schema(self, device_type: str) -> TwinSchema:
        if device_type not in self.fleet.schemas:
            raise NotFound(
                f"type {printable(device_type)} has no schema", f"give it one: fleetctl twin schema {device_type} -f FILE"
            )
        return TwinSchema(device_type, self.fleet.schemas[device_type])

    def put_schema(self, device_type: str, schema: Mapping[str, Any], *, reason: str | None = None) -> TwinSchema:
        validator(check_level("device type", device_type), schema)
        before, self.fleet.schemas[device_type] = self.fleet.schemas.get(device_type), dict(schema)
        return TwinSchema(device_type, schema, "unchanged" if same(before, schema) else "stored")

    def remove_schema(self, device_type: str, *, reason: str | None = None) -> TwinSchema:
        held = self.schema(device_type)
        del self.fleet.schemas[device_type]
        return replace(held, outcome="removed")

    def _write(
        self, devices: Sequence[Device], decide: Decide, if_version: int | None, reason: str | None
    ) -> Sequence[TwinChange]:
        schemas = Schemas(self.fleet.schemas.get)
        decided = [self._decide(self.fleet.active(device.id), decide, if_version, schemas) for device in devices]
        for held, said in decided:
            if said is not None:
                held.say(said, reason)
                self._owe(held)
        changes = [TwinChange(held.device.id, held.version, "published" if said else "unchanged") for held, said in decided]
        unchanged = [held for held, said in decided if said is None and held.said is not None]
        try:
            self.fleet.flush()
            lost = self.fleet.republish([held.device for held in unchanged]) if unchanged else set()
        except Unavailable as error:
            queued = [replace(each, outcome="queued") if each.version else each for each in changes]
            for held in unchanged:
                self._owe(held)
            raise Pending(
                "changes wait for the broker", "repeat the command", record=[asdict(each) for each in queued]
            ) from error
        return [replace(each, outcome="republished") if each.id in lost else each for each in changes]

    def _owe(self, held: Held) -> None:
        if held.said is not None:
            self.fleet.outbox[topics.of(held.device.path, Channel.TWIN_DESIRED)] = held.said.encode()

    def _decide(self, held: Held, decide: Decide, if_version: int | None, schemas: Schemas) -> tuple[Held, Desired | None]:
        if if_version is not None and held.version != if_version:
            raise Conflict(f"twin of `{held.device.id}` is at version {held.version}, not {if_version}", "look at it again")
        desired = decide(held)
        if same(desired, held.desired):
            return held, None
        document = check_size(held.device.id, dump_json(dict(desired)))
        schemas.check(held.device, desired)
        return held, Desired(1, held.version + 1, digest(document), desired, rfc3339(self.fleet.clock()))
