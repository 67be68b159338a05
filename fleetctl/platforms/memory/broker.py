"""Retained messages and subscriptions, as a broker keeps them."""

import queue
import threading
from collections.abc import Iterator, Sequence

from fleetctl.errors import Unavailable
from fleetctl.model import topic as topics

Received = tuple[str, bytes, bool]


class MemoryBroker:
    """Retained messages and subscriptions; `is_up` False is a broker that cannot be reached."""

    def __init__(self) -> None:
        self.retained: dict[str, bytes] = {}
        self.is_up = True
        self._subscribers: list[tuple[Sequence[str], queue.Queue[Received]]] = []
        self._lock = threading.RLock()

    def publish(self, topic: str, payload: bytes, retain: bool = False) -> None:
        with self._lock:
            self._check()
            if retain and payload:
                self.retained[topic] = payload
            elif retain:
                self.retained.pop(topic, None)
            for filters, inbox in list(self._subscribers):
                if any(topics.matches(text, topic) for text in filters):
                    inbox.put((topic, payload, False))

    def subscribe(self, filters: Sequence[str]) -> queue.Queue[Received]:
        """The inbox that they fill, beginning with what is retained."""
        inbox: queue.Queue[Received] = queue.Queue()
        with self._lock:
            self._check()
            for topic, payload in self.retained.items():
                if any(topics.matches(text, topic) for text in filters):
                    inbox.put((topic, payload, True))
            self._subscribers.append((filters, inbox))
        return inbox

    def unsubscribe(self, inbox: queue.Queue[Received]) -> None:
        with self._lock:
            self._subscribers = [each for each in self._subscribers if each[1] is not inbox]

    def _check(self) -> None:
        if not self.is_up:
            raise Unavailable("the broker in memory is away", "bring it back")


def drained(inbox: queue.Queue[Received]) -> Iterator[Received]:
    while not inbox.empty():
        yield inbox.get_nowait()
