"""Following the twins of a fleet in memory."""

import queue
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fleetctl.model import topic as topics
from fleetctl.model.device import Device
from fleetctl.model.topic import Channel
from fleetctl.model.twin import convergence
from fleetctl.platforms.converging import event_of, until_converged
from fleetctl.platforms.memory.broker import Received
from fleetctl.platforms.twins import TwinConvergence, TwinEvent

if TYPE_CHECKING:
    from fleetctl.platforms.memory.fleet import MemoryFleet


@dataclass(frozen=True, slots=True)
class Heard:
    """`Source` in memory."""

    fleet: "MemoryFleet"
    inbox: "queue.Queue[Received]"

    def now(self) -> float:
        return time.monotonic()

    def read(self, devices: Sequence[Device]) -> None:
        self.fleet.flush()
        self.fleet.refresh(devices)

    def listen(self, timeout: float) -> Collection[str]:
        try:
            name = self.fleet.take_in(*self.inbox.get(timeout=timeout))
        except queue.Empty:
            return ()
        return () if name is None else (name,)

    def state(self, device: Device) -> TwinConvergence:
        held = self.fleet.find(device.id)
        version = held.reported.version if held.reported else 0
        outcome, detail = convergence(held.version, held.desired, version, held.reported.reported if held.reported else None)
        return TwinConvergence(device.id, outcome, held.version, version, detail)


def wait(fleet: "MemoryFleet", devices: Sequence[Device], timeout: float) -> Iterator[TwinConvergence]:
    inbox = fleet.broker.subscribe([topics.of(device.path, Channel.TWIN_REPORTED) for device in devices])
    try:
        yield from until_converged(Heard(fleet, inbox), devices, timeout)
    finally:
        fleet.broker.unsubscribe(inbox)


def watch(fleet: "MemoryFleet", devices: Sequence[Device]) -> Iterator[TwinEvent]:
    known = {str(device.path): device.id for device in devices}
    halves = (Channel.TWIN_REPORTED, Channel.TWIN_DESIRED)
    inbox = fleet.broker.subscribe([topics.of(device.path, half) for device in devices for half in halves])
    try:
        while True:
            topic, payload, retained = inbox.get()
            if retained:
                continue
            fleet.take_in(topic, payload, retained)
            event = event_of(topic, payload, fleet.clock(), known)
            if event is not None:
                yield event
    finally:
        fleet.broker.unsubscribe(inbox)
