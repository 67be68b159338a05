"""Following the twins of a local fleet through its broker."""

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fleetctl.model import topic as topics
from fleetctl.model.device import Device
from fleetctl.model.topic import Channel
from fleetctl.model.twin import convergence
from fleetctl.platforms.converging import event_of, until_converged
from fleetctl.platforms.local.believed import refresh, take_in
from fleetctl.platforms.local.outbox import flush
from fleetctl.platforms.twins import TwinConvergence, TwinEvent

if TYPE_CHECKING:
    from fleetctl.mqtt.session import Session
    from fleetctl.platforms.local.fleet import LocalFleet


@dataclass(frozen=True, slots=True)
class Heard:
    """`Source`: what comes in is taken into the registry, and the registry is asked."""

    fleet: "LocalFleet"
    session: "Session"

    def now(self) -> float:
        return time.monotonic()

    def read(self, devices: Sequence[Device]) -> None:
        """What the broker has lost, and what waits for it, is published: nobody converges to what was not said."""
        flush(self.fleet)
        refresh(self.fleet, [device.path for device in devices])

    def listen(self, timeout: float) -> Collection[str]:
        messages = self.session.receive(timeout)
        if not messages:
            return ()
        with self.fleet.registry.transaction():
            return {path.device_id for each in messages if (path := take_in(self.fleet.registry, each)) is not None}

    def state(self, device: Device) -> TwinConvergence:
        row = self.fleet.registry.twin(device.id)
        outcome, detail = convergence(row.version, row.desired, row.reported_version, row.reported)
        return TwinConvergence(device.id, outcome, row.version, row.reported_version, detail)


def wait(fleet: "LocalFleet", devices: Sequence[Device], timeout: float) -> Iterator[TwinConvergence]:
    """As `Twins.wait` says."""
    with fleet.open_session("twin") as session:
        _follow(session, devices, (Channel.TWIN_REPORTED,))
        yield from until_converged(Heard(fleet, session), devices, timeout)


def watch(fleet: "LocalFleet", devices: Sequence[Device]) -> Iterator[TwinEvent]:
    """As `Twins.watch` says."""
    known = {str(device.path): device.id for device in devices}
    with fleet.open_session("twin") as session:
        _follow(session, devices, (Channel.TWIN_REPORTED, Channel.TWIN_DESIRED))
        for message in session.messages():
            if message.retain:
                continue
            take_in(fleet.registry, message)
            event = event_of(message.topic, message.payload, message.received_at, known)
            if event is not None:
                yield event


def _follow(session: "Session", devices: Sequence[Device], channels: Sequence[Channel]) -> None:
    session.subscribe([topics.of(device.path, channel) for device in devices for channel in channels])
