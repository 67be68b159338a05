"""The twins of a fleet in memory."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from fleetctl.errors import Conflict, Pending, Unavailable
from fleetctl.model import topic as topics
from fleetctl.model.device import Device
from fleetctl.model.topic import Channel
from fleetctl.model.twin import ABSENT, check_patch, check_size, drift, merge, same
from fleetctl.platforms.memory.held import Held
from fleetctl.platforms.twins import Twin, TwinChange, TwinDifference
from fleetctl.wire.document import digest, dump_json, rfc3339
from fleetctl.wire.twin import Desired

if TYPE_CHECKING:
    from fleetctl.platforms.memory.fleet import MemoryFleet


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

    def set(self, devices: Sequence[Device], patch: Mapping[str, Any], *, if_version: int | None = None) -> Sequence[TwinChange]:
        checked = check_patch(patch)
        decided = [self._decide(self.fleet.active(device.id), checked, if_version) for device in devices]
        for held, said in decided:
            if said is not None:
                held.said = said
                self.fleet.outbox[topics.of(held.device.path, Channel.TWIN_DESIRED)] = said.encode()
        changes = [TwinChange(held.device.id, held.version, "published" if said else "unchanged") for held, said in decided]
        unchanged = [held for held, said in decided if said is None and held.said is not None]
        try:
            self.fleet.flush()
            lost = self.fleet.republish([held.device for held in unchanged]) if unchanged else set()
        except Unavailable as error:
            queued = [replace(each, outcome="queued") if each.version else each for each in changes]
            for held in unchanged:
                if held.said is not None:
                    self.fleet.outbox[topics.of(held.device.path, Channel.TWIN_DESIRED)] = held.said.encode()
            raise Pending(
                "changes wait for the broker", "repeat the command", record=[asdict(each) for each in queued]
            ) from error
        return [replace(each, outcome="republished") if each.id in lost else each for each in changes]

    def diff(self, devices: Sequence[Device], *, refresh: bool = False) -> Sequence[TwinDifference]:
        if refresh:
            self.fleet.refresh(devices)
        return [
            TwinDifference(device.id, each.path, each.desired, None if each.reported is ABSENT else each.reported)
            for device in devices
            for held in [self.fleet.find(device.id)]
            for each in drift(held.desired, held.reported.reported if held.reported else None)
        ]

    def _decide(self, held: Held, patch: Mapping[str, Any], if_version: int | None) -> tuple[Held, Desired | None]:
        if if_version is not None and held.version != if_version:
            raise Conflict(f"twin of `{held.device.id}` is at version {held.version}, not {if_version}", "look at it again")
        desired = merge(held.desired, patch)
        if same(desired, held.desired):
            return held, None
        document = check_size(held.device.id, dump_json(desired))
        return held, Desired(1, held.version + 1, digest(document), desired, rfc3339(self.fleet.clock()))
