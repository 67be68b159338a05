"""Takes in what devices say: a message counts only if the registry knows the device at exactly that path."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from fleetctl.errors import Malformed
from fleetctl.model import topic as topics
from fleetctl.model.device import DevicePath
from fleetctl.model.presence import seen_at
from fleetctl.model.topic import Channel
from fleetctl.platforms.local.outbox import flush
from fleetctl.platforms.local.projections import owe_lost
from fleetctl.wire.document import dump_json, parse_json, parse_rfc3339, rfc3339
from fleetctl.wire.presence import Presence
from fleetctl.wire.twin import Reported

if TYPE_CHECKING:
    from fleetctl.mqtt.connection import Message
    from fleetctl.platforms.local.fleet import LocalFleet
    from fleetctl.registry import Registry


CHANNELS = (Channel.STATUS, Channel.TWIN_REPORTED, Channel.TWIN_DESIRED)


def refresh(fleet: "LocalFleet", paths: Iterable[DevicePath]) -> set[str]:
    """Read presence and both halves of the twin of each device; the ids of those that were heard of.

    A desired twin that the broker has lost is published again.
    """
    registry, wanted = fleet.registry, list(paths)
    with fleet.open_session("refresh") as session:
        found = session.read_retained(topics.of(path, channel) for path in wanted for channel in CHANNELS)
    with registry.transaction():
        heard = {path.device_id for message in found.values() if (path := take_in(registry, message)) is not None}
        owed = owe_lost(registry, wanted, found, rfc3339(fleet.clock()))
    if owed:
        flush(fleet)
    return heard


def take_in(registry: "Registry", message: "Message") -> DevicePath | None:
    """The device whose message it was; None for one that does not parse, is not believed, or says nothing that is kept."""
    found = topics.split(message.topic)
    if found is None or not message.payload:
        return None
    path, channel = found
    try:
        if channel == Channel.STATUS:
            return path if _status(registry, path, message) else None
        if channel == Channel.TWIN_REPORTED:
            said = Reported.decode(message.payload)
            document = dump_json(dict(said.reported)).decode()
            known = registry.remember_reported(path, said.version, document, message.received_at)
            return path if known else None
    except Malformed:
        return None
    return None


def _status(registry: "Registry", path: DevicePath, message: "Message") -> bool:
    said = Presence.decode(message.payload)
    stamp = None if said.timestamp is None else parse_rfc3339(said.timestamp)
    if message.retain and stamp is None and parse_json(message.payload) == registry.presence_document(path.device_id):
        return registry.knows(path)
    return registry.remember_presence(path, message.payload, seen_at(message.retain, stamp, message.received_at))
