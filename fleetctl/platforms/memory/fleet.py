"""The platform `memory`."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fleetctl.errors import Malformed, NotFound
from fleetctl.model import topic as topics
from fleetctl.model.device import Device, LifeCycle, printable
from fleetctl.model.presence import seen_at, supersedes
from fleetctl.model.topic import Channel
from fleetctl.platforms.memory.broker import MemoryBroker, drained
from fleetctl.platforms.memory.devices import MemoryDevices
from fleetctl.platforms.memory.held import Held
from fleetctl.platforms.memory.messages import MemoryMessages
from fleetctl.platforms.memory.twins import MemoryTwins
from fleetctl.wire.document import parse_rfc3339
from fleetctl.wire.presence import Presence
from fleetctl.wire.twin import Desired, Reported, lags


class MemoryFleet:
    """The platform `memory`."""

    def __init__(self, tenant: str, clock: Callable[[], float] = time.time) -> None:
        self.tenant = tenant
        self.clock = clock
        self.broker = MemoryBroker()
        self.held: dict[str, Held] = {}
        self.outbox: dict[str, bytes] = {}
        self.schemas: dict[str, Mapping[str, Any]] = {}
        self.devices = MemoryDevices(self)
        self.twins = MemoryTwins(self)
        self.messages = MemoryMessages(self)

    def flush(self) -> None:
        for topic, payload in list(self.outbox.items()):
            self.broker.publish(topic, payload, retain=True)
            del self.outbox[topic]

    def take_in(self, topic: str, payload: bytes, retained: bool) -> str | None:
        """The id of the device that said it; None if it is not believed."""
        found = topics.split(topic)
        held = self.held.get(found[0].device_id) if found else None
        if found is None or held is None or held.device.path != found[0] or not held.device.state.believed:
            return None
        try:
            if found[1] == Channel.TWIN_REPORTED:
                held.reported, held.reported_at = Reported.decode(payload), self.clock()
            elif found[1] == Channel.STATUS:
                said = Presence.decode(payload)
                if not supersedes(said, held.presence):
                    return None
                stamp = None if said.timestamp is None else parse_rfc3339(said.timestamp)
                if not (retained and stamp is None and said == held.presence):
                    held.presence, held.seen_at = said, seen_at(retained, stamp, self.clock())
        except Malformed:
            return None
        return held.device.id

    def refresh(self, devices: Sequence[Device]) -> int:
        wanted = [topics.of(device.path, channel) for device in devices for channel in (Channel.STATUS, Channel.TWIN_REPORTED)]
        inbox = self.broker.subscribe(wanted)
        self.broker.unsubscribe(inbox)
        self.republish(devices)
        return len({name for said in drained(inbox) if (name := self.take_in(*said)) is not None})

    def republish(self, devices: Sequence[Device]) -> set[str]:
        """Publish the desired twins again that the broker does not retain as they are; the ids of these devices."""
        self.broker.unsubscribe(self.broker.subscribe([]))
        lost = {device.id for device in devices if self._is_lost(device)}
        for name in lost:
            held = self.held[name]
            if held.said is not None:
                self.outbox[topics.of(held.device.path, Channel.TWIN_DESIRED)] = held.said.encode()
        self.flush()
        return lost

    def _is_lost(self, device: Device) -> bool:
        held = self.held[device.id]
        if held.said is None or held.device.state is LifeCycle.RETIRED:
            return False
        payload = self.broker.retained.get(topics.of(device.path, Channel.TWIN_DESIRED))
        try:
            return payload is None or lags(Desired.decode(payload), held.said)
        except Malformed:
            return True

    def find(self, device_id: str) -> Held:
        if device_id not in self.held:
            raise NotFound(f"no device named {printable(device_id)}", "see fleetctl provision list")
        return self.held[device_id]

    def active(self, device_id: str) -> Held:
        held = self.find(device_id)
        if held.device.state is LifeCycle.RETIRED:
            raise NotFound(f"device `{device_id}` was removed from the fleet", f"see fleetctl provision show {device_id}")
        return held
