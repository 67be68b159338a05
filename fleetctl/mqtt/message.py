"""Messages as they arrive and wills as they are left, and the bounded place where messages wait."""

from collections import deque
from dataclasses import dataclass

INBOX_LIMIT = 100_000
INBOX_BYTES = 64 << 20


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


class Inbox:
    """Messages in order of arrival; what exceeds the limits is dropped and counted, so that the socket is always drained."""

    def __init__(self, limit: int = INBOX_LIMIT, limit_bytes: int = INBOX_BYTES) -> None:
        self._limit, self._limit_bytes = limit, limit_bytes
        self._messages: deque[Message] = deque()
        self._bytes = 0
        self.dropped = 0

    def put(self, message: Message) -> None:
        if len(self._messages) >= self._limit or self._bytes >= self._limit_bytes:
            self.dropped += 1
            return
        self._messages.append(message)
        self._bytes += len(message.payload)

    def take(self) -> list[Message]:
        """All of them; the inbox is empty afterwards."""
        taken = list(self._messages)
        self._messages.clear()
        self._bytes = 0
        return taken
