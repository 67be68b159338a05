"""One MQTT 5 connection without threads: its owner watches the socket and says when to read and write."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fleetctl.errors import FleetError
from fleetctl.mqtt.endpoint import Endpoint


@dataclass(frozen=True, slots=True)
class Message:
    """One message as it arrived; `received_at` is seconds since the epoch."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    received_at: float
    response_topic: str | None = None
    correlation: bytes | None = None


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes when the connection ends without a goodbye."""

    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = True


class Connection:
    """Signatures first; the body follows in the next commits.

    `publish`, `subscribe` raise the `closed_reason` when the connection has ended; everything else is recorded, never raised.
    """

    connected: bool
    acknowledged: int
    unacknowledged: int
    closed_reason: FleetError | None
    dropped: int

    def __init__(
        self,
        endpoint: Endpoint,
        client_id: str,
        *,
        will: Will | None = None,
        keepalive: int = 30,
        clean_start: bool = True,
        session_expiry: int = 0,
    ) -> None:
        raise NotImplementedError

    def connect(self, timeout: float = 10.0) -> None:
        """Block until the broker has said yes; raises what `tls.explain` and the CONNACK reason say."""

    def fileno(self) -> int:
        """The socket to watch; -1 when there is none."""
        raise NotImplementedError

    def wants_write(self) -> bool:
        raise NotImplementedError

    def on_readable(self) -> None: ...

    def on_writable(self) -> None: ...

    def tick(self) -> None:
        """Keep-alive: call it about once a second."""

    def publish(
        self,
        topic: str,
        payload: bytes,
        qos: int = 1,
        retain: bool = False,
        response_topic: str | None = None,
        correlation: bytes | None = None,
        *,
        more: bool = False,
    ) -> int:
        """Hand over one message and return its packet id; with `more` it may wait in the buffer for the next one."""
        raise NotImplementedError

    def subscribe(self, filters: Sequence[str], qos: int = 1) -> int:
        raise NotImplementedError

    def unsubscribe(self, filters: Iterable[str]) -> int:
        raise NotImplementedError

    def take(self) -> list[Message]:
        """The messages that arrived since the last call."""
        raise NotImplementedError

    def disconnect(self) -> None:
        """Say goodbye: the broker forgets the will."""

    def abort(self) -> None:
        """Drop the socket: the broker publishes the will."""
