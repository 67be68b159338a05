"""Puts back what a broker has lost: retained messages are projections of the registry, which remains the record."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fleetctl import files
from fleetctl.errors import Malformed
from fleetctl.model import topic as topics
from fleetctl.model.device import DevicePath
from fleetctl.model.topic import Channel
from fleetctl.platforms.local.layout import Layout
from fleetctl.platforms.local.outbox import BATCH, flush, publishing
from fleetctl.wire.document import PAYLOAD_LIMIT
from fleetctl.wire.twin import Desired, lags

if TYPE_CHECKING:
    from fleetctl.mqtt.connection import Message
    from fleetctl.mqtt.session import Session
    from fleetctl.platforms.local.fleet import LocalFleet
    from fleetctl.registry import Registry


@dataclass(frozen=True, slots=True)
class Restored:
    """What a broker was told anew: how many desired twins, and whether the trust document."""

    twins: int
    trust: bool


def desired_topic(path: DevicePath) -> str:
    return topics.of(path, Channel.TWIN_DESIRED)


def owe(registry: "Registry", path: DevicePath, at: str) -> bool:
    """Note its desired twin to be published again; False for a device that is gone, or of which nothing is desired."""
    said = _desired(registry, path)
    if said is None:
        return False
    registry.enqueue(desired_topic(path), said.encode(), at)
    return True


def owe_lost(registry: "Registry", paths: Iterable[DevicePath], found: Mapping[str, "Message"], at: str) -> set[str]:
    """Note every desired twin that the broker has not retained as it is; `found` is what it retains. The ids of these devices."""
    owed = set()
    with registry.transaction():
        for path in paths:
            said, message = _desired(registry, path), found.get(desired_topic(path))
            if said is not None and _is_lost(said, message):
                registry.enqueue(desired_topic(path), said.encode(), at)
                owed.add(path.device_id)
    return owed


def restore(fleet: "LocalFleet", is_over: Callable[[], bool]) -> Restored:
    """Tell a broker that begins empty all that the registry and the trust document say, and what waits for it.

    Page by page under the outbox's lock, so that a command never waits long and no older version follows a newer one.
    Gives up between two pages when `is_over`.
    """
    count, after = 0, ""
    with fleet.open_session("restore") as session:
        trust = files.read_limited(Layout(fleet.context.folder).trust, PAYLOAD_LIMIT)
        session.publish(topics.trust(fleet.tenant), trust, 1, True)
        session.flush()
        while not is_over():
            with publishing(fleet.registry):
                page = fleet.registry.desired_page(after, BATCH)
                for path, row in page:
                    said = Desired(fleet.registry.generation, row.version, row.digest, row.desired, row.updated_at or "")
                    session.publish(desired_topic(path), said.encode(), 1, True, more=True)
                session.flush()
            count += len(page)
            if len(page) < BATCH:
                break
            after = page[-1][0].device_id
    if not is_over():
        flush(fleet)
    return Restored(count, trust=True)


def read_lost(fleet: "LocalFleet", session: "Session", paths: Iterable[DevicePath], at: str) -> set[str]:
    """Look which desired twins the broker retains, and note those that it has lost."""
    wanted = list(paths)
    return owe_lost(fleet.registry, wanted, session.read_retained(map(desired_topic, wanted)), at)


def _desired(registry: "Registry", path: DevicePath) -> Desired | None:
    row = registry.twin(path.device_id)
    if not row.version or not registry.knows(path):
        return None
    return Desired(registry.generation, row.version, row.digest, row.desired, row.updated_at or "")


def _is_lost(said: Desired, message: "Message | None") -> bool:
    if message is None:
        return True
    try:
        return lags(Desired.decode(message.payload), said)
    except Malformed:
        return True
