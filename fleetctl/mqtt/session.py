"""One connection driven synchronously: publish in a window, wait for answers, receive, read what is retained."""

import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from time import monotonic
from types import TracebackType
from typing import Self

from fleetctl.errors import Unavailable
from fleetctl.model import topic as topics_of
from fleetctl.mqtt.connection import Connection, Message, Will
from fleetctl.mqtt.endpoint import Endpoint
from fleetctl.mqtt.message import Inbox
from fleetctl.mqtt.reasons import BROKER_HINT

BATCH = 500
STEP_SECONDS = 1.0
TIMEOUT_SECONDS = 30.0


class Session:
    """A context manager: leaving it waits for acknowledgements and says goodbye.

    Every method raises the connection's `closed_reason` once that has ended, and the error of a publish that the broker refused.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._filters: dict[str, int] = {}
        self._wildcards: set[str] = set()
        self._kept = Inbox()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        try:
            if kind is None and self.connection.connected:
                self.flush()
        finally:
            self.close()

    def close(self) -> None:
        """Say goodbye without waiting for acknowledgements."""
        self.connection.disconnect()

    @property
    def client_id(self) -> str:
        return self.connection.client_id

    @property
    def dropped(self) -> int:
        """Messages that arrived faster than they were taken, beyond what is kept."""
        return self.connection.dropped + self._kept.dropped

    @property
    def malformed(self) -> int:
        """Messages without a readable topic."""
        return self.connection.malformed

    # -- publishing

    def publish(
        self,
        topic: str,
        payload: bytes,
        qos: int = 1,
        retain: bool = False,
        *,
        response_topic: str | None = None,
        correlation: bytes | None = None,
        more: bool = False,
        timeout: float = TIMEOUT_SECONDS,
    ) -> int:
        """Hand over one message, waiting while the window is full; with `more` it may wait for the next one or for `flush`."""
        deadline = monotonic() + timeout
        while self.connection.unacknowledged >= self.connection.window:
            self._step(deadline, self._not_acknowledged)
        packet_id = self.connection.publish(
            topic, payload, qos, retain, response_topic=response_topic, correlation=correlation, more=more
        )
        self._raise_refusal()
        return packet_id

    def flush(self, timeout: float = TIMEOUT_SECONDS) -> None:
        """Return when every message is acknowledged; raises `Unavailable` when that takes longer than `timeout` seconds."""
        deadline = monotonic() + timeout
        self.connection.on_writable()
        while self.connection.unacknowledged:
            self._step(deadline, self._not_acknowledged)
        self._raise_refusal()

    def _not_acknowledged(self) -> Unavailable:
        count = self.connection.unacknowledged
        return Unavailable(
            f"the broker at `{self.connection.endpoint}` did not acknowledge {count} messages in time", BROKER_HINT
        )

    # -- subscribing

    def subscribe(self, filters: Sequence[str], qos: int = 1, timeout: float = TIMEOUT_SECONDS) -> None:
        """Return when the broker has granted every filter; raises `Denied` naming the one that it refused."""
        deadline = monotonic() + timeout
        for batch in _batches(filters, BATCH):
            self._await(self.connection.subscribe(batch, qos), deadline)
            self._filters.update(dict.fromkeys(batch, qos))
            self._wildcards.update(text for text in batch if not topics_of.is_topic(text))

    def unsubscribe(self, filters: Sequence[str], timeout: float = TIMEOUT_SECONDS) -> None:
        """Return when the broker has forgotten the filters."""
        deadline = monotonic() + timeout
        for batch in _batches(filters, BATCH):
            self._await(self.connection.unsubscribe(batch), deadline)
            for text in batch:
                self._filters.pop(text, None)
                self._wildcards.discard(text)

    def _await(self, packet_id: int, deadline: float) -> None:
        while not self.connection.answered(packet_id):
            self._step(deadline, self._no_answer)
        self._raise_refusal()

    def _no_answer(self) -> Unavailable:
        return Unavailable(f"the broker at `{self.connection.endpoint}` did not answer in time", BROKER_HINT)

    # -- receiving

    def receive(self, timeout: float) -> list[Message]:
        """What has arrived, else what arrives within `timeout` seconds, else nothing."""
        deadline = monotonic() + timeout
        while not (found := self._kept.take() + self.connection.take()):
            self._raise_closed()
            left = deadline - monotonic()
            if left <= 0:
                break
            self.connection.drive(min(left, STEP_SECONDS))
            self._raise_refusal()
        return found

    def messages(self, deadline: float | None = None) -> Iterator[Message]:
        """What arrives until the monotonic `deadline`; for ever without one."""
        while (left := STEP_SECONDS if deadline is None else deadline - monotonic()) > 0:
            yield from self.receive(min(left, STEP_SECONDS))

    # -- retained messages

    def read_retained(self, topics: Iterable[str], timeout: float = TIMEOUT_SECONDS, batch: int = BATCH) -> dict[str, Message]:
        """The retained message of each exact topic that has one; `timeout` is for each batch.

        A wildcard read would silently lose what exceeds the broker's queue; here every batch ends with a sentinel of our own.
        What other subscriptions deliver meanwhile is kept for `receive`.
        """
        found: dict[str, Message] = {}
        for wanted in _batches(dict.fromkeys(topics), batch):
            found.update(self._read_batch(wanted, monotonic() + timeout))
        return found

    def _read_batch(self, wanted: Sequence[str], deadline: float) -> dict[str, Message]:
        sentinel = topics_of.sentinel(wanted[0].split("/", 1)[0], self.client_id)
        token = secrets.token_bytes(8)
        passing = [topic for topic in wanted if topic not in self._filters]
        for message in self.connection.take():
            self._kept.put(message)
        for qos in (0, 1):  # subscribing anew to what is followed anyway repeats its retained message and keeps its QoS
            if again := [topic for topic in wanted if self._filters.get(topic) == qos]:
                self.connection.subscribe(again, qos)
        if passing:
            self.connection.subscribe(passing, 0)
        passing.append(sentinel)
        # at QoS 0 it would overtake what a broker holds back at QoS 1 until the client has acknowledged enough
        self.connection.subscribe([sentinel], max(self._filters.get(topic, 0) for topic in wanted))
        self.connection.publish(sentinel, token)
        found: dict[str, Message] = {}
        expected = frozenset(wanted)
        while not self._sort(expected, sentinel, token, found):
            self._step(deadline, self._no_answer)
            self._raise_refusal()
        self._await(self.connection.unsubscribe(passing), deadline)
        self._sort(expected, sentinel, token, found)
        return found

    def _sort(self, expected: frozenset[str], sentinel: str, token: bytes, found: dict[str, Message]) -> bool:
        """Put retained messages into `found`, keep live ones for `receive`; whether the sentinel was among them."""
        seen = False
        for message in self.connection.take():
            if message.topic == sentinel:
                seen = seen or message.payload == token
            elif message.retain and message.topic in expected:
                found[message.topic] = message
            elif message.topic not in expected or self._follows(message.topic):
                self._kept.put(message)
        return seen

    def _follows(self, topic: str) -> bool:
        return topic in self._filters or any(topics_of.matches(text, topic) for text in self._wildcards)

    # -- steps

    def _step(self, deadline: float, late: Callable[[], Unavailable]) -> None:
        self._raise_closed()
        left = deadline - monotonic()
        if left <= 0:
            raise late()
        self.connection.drive(min(left, STEP_SECONDS))

    def _raise_closed(self) -> None:
        if not self.connection.connected:
            self._raise_refusal()
            raise self.connection.closed_reason or Unavailable(f"there is no connection to `{self.connection.endpoint}`")

    def _raise_refusal(self) -> None:
        refusals = self.connection.take_refusals()
        for refusal in refusals:
            if refusal.subscription:
                self._filters.pop(refusal.topic, None)
                self._wildcards.discard(refusal.topic)
        if refusals:
            raise refusals[0].error()


def open_session(
    endpoint: Endpoint,
    purpose: str,
    *,
    client_id: str | None = None,
    will: Will | None = None,
    keepalive: int = 30,
    timeout: float = 10.0,
) -> Session:
    """A connected session, `fleetctl-{purpose}-{4 hex}` unless a client id is given: two commands never evict each other."""
    name = client_id or f"fleetctl-{purpose}-{secrets.token_hex(2)}"
    connection = Connection(endpoint, name, will=will, keepalive=keepalive, sole=client_id is not None)
    connection.connect(timeout)
    return Session(connection)


def evict(endpoint: Endpoint, client_id: str, timeout: float = 10.0) -> None:
    """Cut whoever is connected as `client_id`, and forget their queued messages: what a revocation list alone does not do."""
    with open_session(endpoint, "evict", client_id=client_id, timeout=timeout):
        return


def _batches(items: Iterable[str], size: int) -> Iterator[list[str]]:
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
