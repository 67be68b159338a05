"""A client's session: subscriptions, what waits for it, what it has not acknowledged (MQTT 5.0 section 4.1)."""

from collections import deque
from dataclasses import dataclass
from typing import Protocol

from fleetctl.mqtt.builtin.limits import Limits
from fleetctl.mqtt.builtin.message import Delivery, Message
from fleetctl.mqtt.builtin.policy import Policy
from fleetctl.mqtt.builtin.router import Subscription

PACKET_IDS = 65535


class Link(Protocol):
    """The connection that serves a session at the moment."""

    @property
    def window(self) -> int:
        """How many messages of QoS 1 the client takes unacknowledged."""

    @property
    def ready(self) -> bool:
        """Whether it takes more now."""

    def transmit(self, delivery: Delivery, *, again: bool) -> bool:
        """Send it; False where it is larger than the client takes."""

    def end(self, reason: int) -> None:
        """Say why, and close."""


@dataclass(slots=True)
class Ledger:
    """The bytes that wait in all sessions together."""

    limit: int
    used: int = 0


@dataclass(frozen=True, slots=True)
class Testament:
    """A will and how long after the connection's end it is published."""

    message: Message
    lifetime: int | None
    delay: int


class Session:
    """It outlives its connection for `expiry` seconds. Compared by identity: a client id may have had others before."""

    def __init__(self, client_id: str, policy: Policy, limits: Limits, ledger: Ledger) -> None:
        self.client_id = client_id
        self.policy = policy
        self.expiry = 0
        self.link: Link | None = None
        self.ended_at: float | None = None
        self.will: Testament | None = None
        self.subscriptions: dict[str, Subscription] = {}
        self.dropped = 0
        self._limits = limits
        self._ledger = ledger
        self._queue: deque[Delivery] = deque()
        self._bytes = 0
        self._inflight: dict[int, Delivery] = {}
        self._last_id = 0

    @property
    def waiting(self) -> int:
        return len(self._queue) + len(self._inflight)

    @property
    def congested(self) -> bool:
        """Whether it is connected and falls behind: whoever publishes to it should slow down before anything is dropped."""
        return self.link is not None and len(self._queue) > self._limits.queue_messages // 10

    def offer(self, delivery: Delivery, now: float) -> None:
        """Send it, or keep it for later where there is room; what has no room is dropped, as mosquitto does."""
        if self.link is None and delivery.qos == 0:
            return
        size = delivery.message.size
        if (
            len(self._queue) >= self._limits.queue_messages
            or self._bytes + size > self._limits.queue_bytes
            or self._ledger.used + size > self._ledger.limit
        ):
            self.dropped += 1
            return
        self._queue.append(delivery)
        self._account(size)
        self.pump(now)

    def pump(self, now: float) -> None:
        """Send what waits, in order, as far as connection and window allow."""
        while self._queue and self.link is not None and self.link.ready:
            delivery = self._queue[0]
            again = delivery.packet_id != 0
            if delivery.qos and len(self._inflight) >= self.link.window:
                return
            self._queue.popleft()
            self._account(-delivery.message.size)
            if delivery.message.expired(now) and not again:
                continue
            if delivery.qos:
                delivery.packet_id = delivery.packet_id or self._free_id()
                self._inflight[delivery.packet_id] = delivery
            if not self.link.transmit(delivery, again=again):
                self._inflight.pop(delivery.packet_id, None)
                self.dropped += 1

    def acknowledge(self, packet_id: int, now: float) -> None:
        self._inflight.pop(packet_id, None)
        self.pump(now)

    def resume(self) -> None:
        """Put what was never acknowledged before the rest; it keeps its packet ids and goes out with DUP (section 4.4)."""
        for delivery in reversed(self._inflight.values()):
            self._queue.appendleft(delivery)
            self._account(delivery.message.size)
        self._inflight.clear()

    def rest(self) -> None:
        """Forget what nobody needs once the connection has ended: QoS 0."""
        self._account(-sum(delivery.message.size for delivery in self._queue if delivery.qos == 0))
        self._queue = deque(delivery for delivery in self._queue if delivery.qos)

    def clear(self) -> None:
        self._queue.clear()
        self._inflight.clear()
        self._account(-self._bytes)

    def _account(self, size: int) -> None:
        self._bytes += size
        self._ledger.used += size

    def _free_id(self) -> int:
        """The next packet id that no message uses; queued ones that were sent before have theirs already."""
        taken = self._inflight.keys() | {delivery.packet_id for delivery in self._sent_before()}
        while True:
            self._last_id = self._last_id % PACKET_IDS + 1
            if self._last_id not in taken:
                return self._last_id

    def _sent_before(self) -> list[Delivery]:
        """They are at the head of the queue."""
        found = []
        for delivery in self._queue:
            if not delivery.packet_id:
                break
            found.append(delivery)
        return found
