"""How much of everything the broker takes: it lives in memory, and any client may be hostile."""

from dataclasses import dataclass

from fleetctl.wire.document import PAYLOAD_LIMIT

HEADERS = 4096
LEVEL_LIMIT = 200
TOPIC_LIMIT = 1024
SLICE = 500
DEVICES_SHARE = 0.75


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds; `device_filters` is for one SUBSCRIBE, the rest of `device_` for one identity.

    Of `connections`, `fleet_reserve` are kept for the fleet listener; `device_connections`, `fleet_connections` and
    `claim_connections` are for one certificate, `all_claim_connections` for all claims together.
    """

    packet: int = PAYLOAD_LIMIT + HEADERS
    window: int = 100
    queue_messages: int = 10_000
    queue_bytes: int = 64 << 20
    all_queues_bytes: int = 256 << 20
    retained_messages: int = 200_000
    retained_bytes: int = 256 << 20
    device_retained_messages: int = 64
    device_retained_bytes: int = 1 << 20
    subscriptions: int = 50_000
    device_subscriptions: int = 256
    device_filters: int = 64
    sessions: int = 20_000
    connections: int = 4_096
    fleet_reserve: int = 64
    device_connections: int = 8
    fleet_connections: int = 256
    claim_connections: int = 256
    all_claim_connections: int = 384
    session_expiry: int = 7 * 86_400
    connect_seconds: float = 10.0
    stalled_seconds: float = 60.0


def oversized(name: str) -> bool:
    """Whether a topic or filter is longer or deeper than the broker keeps."""
    return name.count("/") >= LEVEL_LIMIT or len(name.encode()) > TOPIC_LIMIT
