"""Following twins: until devices are what they should be, or for as long as somebody looks."""

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from fleetctl.errors import Malformed, NotFound, Partial, Pending
from fleetctl.model import topic as topics
from fleetctl.model.device import Device
from fleetctl.model.topic import Channel
from fleetctl.model.twin import convergence
from fleetctl.platforms.local.believed import take_in
from fleetctl.platforms.twins import TwinConvergence, TwinEvent
from fleetctl.wire.document import rfc3339
from fleetctl.wire.twin import Desired, Reported

if TYPE_CHECKING:
    from fleetctl.mqtt.connection import Message
    from fleetctl.mqtt.session import Session
    from fleetctl.platforms.local.fleet import LocalFleet

FILTERS = 100
"""How many filters one SUBSCRIBE names."""


def wait(fleet: "LocalFleet", devices: Sequence[Device], timeout: float) -> Iterator[TwinConvergence]:
    """Each device once it has converged or refused; at the end those that still wait.

    Raises:
        NotFound: nothing is desired of one of them.
        Partial: some refused. Pending: some did not answer within `timeout` seconds.
    """
    registry = fleet.registry
    for device in devices:
        if not registry.twin(device.id).version:
            raise NotFound(f"nothing is desired of `{device.id}`", f"set it: fleetctl twin set {device.id} KEY=VALUE")
    deadline = time.monotonic() + timeout
    waiting = {str(device.path): device for device in devices}
    refused = 0
    with fleet.open_session("twin") as session:
        _follow(session, devices, (Channel.TWIN_REPORTED,))
        heard: list[Message] = []
        while True:
            with registry.transaction():
                for message in heard:
                    take_in(registry, message)
            for path, device in list(waiting.items()):
                state = _state(fleet, device)
                if state.outcome != "waiting":
                    del waiting[path]
                    refused += state.outcome == "refused"
                    yield state
            rest = deadline - time.monotonic()
            if not waiting or rest <= 0:
                break
            heard = session.receive(rest)
    yield from (_state(fleet, device) for device in waiting.values())
    if refused:
        raise Partial(
            f"{refused} of {len(devices)} devices refused what is desired", "see fleetctl twin diff, and twin get DEVICE"
        )
    if waiting:
        raise Pending(f"{len(waiting)} of {len(devices)} devices have not converged yet", "wait again: fleetctl twin wait")


def watch(fleet: "LocalFleet", devices: Sequence[Device]) -> Iterator[TwinEvent]:
    """What changes from now on, without an end."""
    known = {str(device.path): device.id for device in devices}
    with fleet.open_session("twin") as session:
        _follow(session, devices, (Channel.TWIN_REPORTED, Channel.TWIN_DESIRED))
        for message in session.messages():
            if message.retain:
                continue
            take_in(fleet.registry, message)
            event = _event(message, known)
            if event is not None:
                yield event


def _follow(session: "Session", devices: Sequence[Device], channels: Sequence[Channel]) -> None:
    filters = [topics.of(device.path, channel) for device in devices for channel in channels]
    for start in range(0, len(filters), FILTERS):
        session.subscribe(filters[start : start + FILTERS])


def _state(fleet: "LocalFleet", device: Device) -> TwinConvergence:
    row = fleet.registry.twin(device.id)
    outcome, detail = convergence(row.version, row.desired, row.reported_version, row.reported)
    return TwinConvergence(device.id, row.version, row.reported_version, outcome, detail)


def _event(message: "Message", known: dict[str, str]) -> TwinEvent | None:
    found = topics.split(message.topic)
    if found is None or str(found[0]) not in known or not message.payload:
        return None
    path, channel = found
    try:
        if channel == Channel.TWIN_REPORTED:
            reported = Reported.decode(message.payload)
            return TwinEvent(path.device_id, "reported", reported.version, reported.reported, rfc3339(message.received_at))
        desired = Desired.decode(message.payload)
    except Malformed:
        return None
    return TwinEvent(path.device_id, "desired", desired.version, desired.desired, rfc3339(message.received_at))
