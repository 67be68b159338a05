"""The platform `memory`."""

import time
from collections.abc import Callable, Sequence

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
from fleetctl.wire.twin import Reported


class MemoryFleet:
    """The platform `memory`."""

    def __init__(self, tenant: str, clock: Callable[[], float] = time.time) -> None:
        self.tenant = tenant
        self.clock = clock
        self.broker = MemoryBroker()
        self.held: dict[str, Held] = {}
        self.outbox: dict[str, bytes] = {}
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
        if found is None or held is None or held.device.path != found[0] or held.device.state is LifeCycle.RETIRED:
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
        return len({name for said in drained(inbox) if (name := self.take_in(*said)) is not None})

    def find(self, device_id: str) -> Held:
        if device_id not in self.held:
            raise NotFound(f"no device named {printable(device_id)}", "see fleetctl provision list")
        return self.held[device_id]

    def active(self, device_id: str) -> Held:
        held = self.find(device_id)
        if held.device.state is LifeCycle.RETIRED:
            raise NotFound(f"device `{device_id}` was removed from the fleet", f"see fleetctl provision show {device_id}")
        return held
