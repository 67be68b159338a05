"""What a platform can do: small capabilities, and the records that they return (`last_seen` is `lastSeen` on the screen)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from fleetctl.errors import ConfigError
from fleetctl.model.device import Device


class Missing(ConfigError):
    """The platform or the context has no such capability; raised before anything is sent."""

    code = "missing"


@dataclass(frozen=True, slots=True)
class Targets:
    """The devices that a verb is given: ids and globs, a selector, a share; a device must satisfy all that is given."""

    words: Sequence[str] = ()
    selector: str | None = None
    limit: str | None = None

    @property
    def is_everything(self) -> bool:
        return not self.words and self.selector is None


@dataclass(frozen=True, slots=True)
class DeviceEntry:
    """A device in a list; `status` is a reader's view, `drift` None until something is desired and reported."""

    id: str
    type: str
    location: str
    labels: Mapping[str, str]
    status: str
    firmware: str | None
    last_seen: str | None
    drift: bool | None
    state: str
    created_at: str


@dataclass(frozen=True, slots=True)
class DeviceDetail:
    """All that the registry knows of one device."""

    id: str
    path: str
    type: str
    location: str
    labels: Mapping[str, str]
    status: str
    session: str | None
    firmware: str | None
    digest: str | None
    heartbeat: float | None
    last_seen: str | None
    drift: bool | None
    desired_version: int
    reported_version: int
    state: str
    created_at: str


@dataclass(frozen=True, slots=True)
class Provisioned:
    """What became of one device that was added: `outcome` is `added` or `unchanged`."""

    id: str
    path: str
    outcome: str
    bundle: str | None = None


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """A line of an imported file that was not taken."""

    line: int
    id: str | None
    error: str


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of a file of devices; `errors` holds the first hundred refused lines."""

    added: int
    unchanged: int
    refused: int
    errors: tuple[RefusedRow, ...] = ()


@dataclass(frozen=True, slots=True)
class Removed:
    """What became of a device that was removed: `cleared` is False while its retained messages wait in the outbox."""

    id: str
    outcome: str
    revoked: int
    cleared: bool


@dataclass(frozen=True, slots=True)
class Twin:
    """Both halves of a twin; `drift` is None until the device has reported."""

    id: str
    version: int
    desired: Mapping[str, Any]
    digest: str | None
    generation: int
    updated_at: str | None
    reported_version: int
    reported: Mapping[str, Any] | None
    received_at: str | None
    drift: bool | None


@dataclass(frozen=True, slots=True)
class TwinChange:
    """What became of one twin that was set: `published`, `unchanged`, or `queued` until the broker is back."""

    id: str
    version: int
    outcome: str


@dataclass(frozen=True, slots=True)
class TwinDifference:
    """One desired value that a device does not report; `reported` is None where it reports nothing."""

    id: str
    path: str
    desired: Any
    reported: Any


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


class Devices(Protocol):
    """The devices of a fleet."""

    def add(
        self, device_id: str, *, device_type: str, location: str, labels: Mapping[str, str], bundle: Path | None = None
    ) -> Provisioned:
        """Adding the same again changes nothing; raises `Conflict` if it differs or the id was used before."""
        ...

    def import_file(self, path: Path, bundles: Path | None = None) -> Imported:
        """Add what a .csv or .jsonl file names; raises `Partial` or `FleetError` with the report if lines were refused."""
        ...

    def list(self, targets: Targets, *, retired: bool = False) -> Iterator[DeviceEntry]:
        """In the order of ids; all of them without a target; raises `NotFound` for an id that is not there."""
        ...

    def show(self, device_id: str) -> DeviceDetail: ...

    def resolve(self, targets: Targets) -> Sequence[Device]:
        """The devices that a write is meant for; raises `NotFound` for none, `UsageError` if nothing was named."""
        ...

    def remove(self, devices: Sequence[Device], reason: str = "cessationOfOperation") -> Sequence[Removed]:
        """Revoke, clear what is retained, keep the record; nothing changes for one that was removed before."""
        ...

    def refresh(self, devices: Sequence[Device]) -> int:
        """Read presence and reported twins of these devices; how many of them were heard of."""
        ...


class Twins(Protocol):
    """Desired and reported state."""

    def get(self, device_id: str, *, refresh: bool = False) -> Twin: ...

    def set(self, devices: Sequence[Device], patch: Mapping[str, Any], *, if_version: int | None = None) -> Sequence[TwinChange]:
        """Apply a merge patch to all of them or to none; raises `Pending` with the changes while the broker is away."""
        ...

    def diff(self, devices: Sequence[Device], *, refresh: bool = False) -> Sequence[TwinDifference]: ...


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
