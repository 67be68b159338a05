"""Following twins, the same on every platform: until devices are what they should be, or for as long as somebody looks."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Protocol

from fleetctl.errors import FleetError, Malformed, NotFound, Partial, Pending
from fleetctl.model import topic as topics
from fleetctl.model.device import Device
from fleetctl.model.topic import Channel
from fleetctl.platforms.twins import TwinConvergence, TwinEvent
from fleetctl.wire.document import rfc3339
from fleetctl.wire.twin import Desired, Reported

LOOK_AGAIN = 10.0
"""After so many seconds of silence all are read: a message may be lost, and somebody may desire something else by now."""
WAITING, REFUSED = "waiting", "refused"


class Source(Protocol):
    """Where twins are followed: `listen` tells what happens, `read` accounts for what may have been missed."""

    def now(self) -> float:
        """Monotonic seconds."""

    def read(self, devices: Sequence[Device]) -> None: ...

    def listen(self, timeout: float) -> Collection[str]:
        """The ids of those that said something, as soon as somebody did."""

    def state(self, device: Device) -> TwinConvergence: ...


def until_converged(source: Source, devices: Sequence[Device], timeout: float) -> Iterator[TwinConvergence]:
    """Each device once it has converged or refused; at the end those that still wait.

    Raises:
        NotFound: nothing is desired of any of them.
        Partial: some refused. Pending: some did not answer within `timeout` seconds.
    """
    waiting = {device.id: device for device in devices}
    if not any(source.state(device).version for device in devices):
        named = f"`{devices[0].id}`" if len(devices) == 1 else f"these {len(devices)} devices"
        raise NotFound(f"nothing is desired of {named}", f"set it: fleetctl twin set {devices[0].id} KEY=VALUE")
    deadline = source.now() + timeout
    heard: Collection[str] = ()
    refused, is_over = 0, False
    while waiting and not is_over:
        if source.now() >= deadline:
            heard, is_over = (), True
        if not heard:
            source.read(list(waiting.values()))
        for state in _settled(source, waiting, heard or list(waiting)):
            refused += state.outcome == REFUSED
            yield state
        heard = source.listen(min(max(0.0, deadline - source.now()), LOOK_AGAIN)) if waiting and not is_over else ()
    yield from (source.state(device) for device in waiting.values())
    if (verdict := _verdict(len(devices), refused, len(waiting))) is not None:
        raise verdict


def event_of(topic: str, payload: bytes, received_at: float, known: Mapping[str, str]) -> TwinEvent | None:
    """What a message says of the twins at the paths that are `known`; None for one that says nothing, or does not parse."""
    found = topics.split(topic)
    if found is None or str(found[0]) not in known or not payload:
        return None
    path, channel = found
    try:
        if channel == Channel.TWIN_REPORTED:
            reported = Reported.decode(payload)
            return TwinEvent(path.device_id, "reported", reported.version, reported.reported, rfc3339(received_at))
        desired = Desired.decode(payload)
    except Malformed:
        return None
    return TwinEvent(path.device_id, "desired", desired.version, desired.desired, rfc3339(received_at))


def _settled(source: Source, waiting: dict[str, Device], heard: Collection[str]) -> Iterator[TwinConvergence]:
    """Those of whom the outcome is known now; they do not wait any longer."""
    for name in heard:
        device = waiting.get(name)
        if device is not None and (state := source.state(device)).outcome != WAITING:
            del waiting[name]
            yield state


def _verdict(count: int, refused: int, waiting: int) -> FleetError | None:
    if refused:
        late = f", {waiting} did not answer" if waiting else ""
        return Partial(
            f"{refused} of {count} devices refused what is desired{late}", "see what one refused: fleetctl twin get DEVICE"
        )
    if waiting:
        have = "has" if waiting == 1 else "have"
        return Pending(
            f"{waiting} of {count} devices {have} not converged yet", "wait again, or see what differs: fleetctl twin diff"
        )
    return None
