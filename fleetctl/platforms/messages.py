"""What a platform can do with messages, and the records that it returns."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from fleetctl.model.device import Device


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What became of a command: `sent`, `accepted`, `succeeded`, `failed`, `rejected`, `timedOut`, `offline` or `unknown`."""

    id: str
    command: str
    status: str
    session: str | None = None
    result: Any = None


@dataclass(frozen=True, slots=True)
class RawPublished:
    """A message that the broker has acknowledged."""

    topic: str
    bytes: int
    qos: int
    retain: bool


@dataclass(frozen=True, slots=True)
class TailRecord:
    """One message: `payload` is what it says in JSON, else its text, else `{"base64": …}`."""

    topic: str
    device_id: str | None
    timestamp: str | None
    received_at: str
    payload: Any


@dataclass(slots=True)
class Dropped:
    """Counts what a stream left out, for whoever looks when it has ended."""

    malformed: int = 0
    overflow: int = 0


class Messages(Protocol):
    """Commands, raw messages, and what passes by."""

    def publish(
        self, devices: Sequence[Device], command: str, args: Mapping[str, Any], *, wait: bool = False, timeout: float = 5.0
    ) -> Iterator[CommandResult]:
        """A result for each device; when all are out, raises `Partial`, `Pending`, `Unavailable` or `FleetError` if need be."""
        ...

    def publish_raw(self, topic: str, payload: bytes, *, retain: bool = False, qos: int = 1) -> RawPublished: ...

    def tail(
        self,
        devices: Sequence[Device] | None = None,
        filters: Iterable[str] = (),
        *,
        channel: str | None = None,
        count: int | None = None,
        duration: float | None = None,
        dropped: Dropped | None = None,
    ) -> Iterator[TailRecord]:
        """What these devices say (all of the fleet without any), or what matches the filters, as it arrives."""
        ...
