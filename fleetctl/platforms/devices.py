"""What a platform can do with devices, and the records that it returns."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fleetctl.model.device import Device
from fleetctl.platforms.protocol import Targets


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

    def resolve(self, targets: Targets, *, retired: bool = False) -> Sequence[Device]:
        """The devices that a write is meant for; `retired` finds removed ones too, where exact ids are named.

        Raises `NotFound` for none, `UsageError` if nothing was named.
        """
        ...

    def remove(self, devices: Sequence[Device], reason: str = "cessationOfOperation") -> Sequence[Removed]:
        """Revoke, clear what is retained, keep the record; nothing changes for one that was removed before."""
        ...

    def refresh(self, devices: Sequence[Device]) -> int:
        """Read presence and reported twins of these devices; how many of them were heard of."""
        ...
