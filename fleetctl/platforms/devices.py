"""What a platform can do with devices, and the records that it returns."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fleetctl.model.device import Device, LifeCycle
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
    serial: str | None = None
    batch: str | None = None


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
    serial: str | None = None
    batch: str | None = None
    profile: str | None = None


@dataclass(frozen=True, slots=True)
class CertificateFact:
    """A certificate of a device in a few words; `state` is that of this moment, `proven_at` when it was connected with first."""

    serial: str
    authority: str
    state: str
    not_after: str
    proven_at: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Step:
    """One row of a device's timeline; the states are the same where something was noted only."""

    at: str
    event: str
    before: str | None
    after: str
    reason: str | None
    actor: str | None


@dataclass(frozen=True, slots=True)
class DeviceStatus:
    """Where a device is in its life, and how it came there; `idle` is seconds since it was last heard of."""

    id: str
    path: str
    serial: str | None
    batch: str | None
    profile: str | None
    state: str
    status: str
    last_seen: str | None
    idle: float | None
    certificates: tuple[CertificateFact, ...]
    timeline: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Transition:
    """What became of a device: `certificates` counts those that were put on hold or released.

    `sessions_cut`: the broker has no connection of it any more; None where nobody here can tell.
    """

    id: str
    outcome: str
    state: str
    certificates: int
    sessions_cut: bool | None


@dataclass(frozen=True, slots=True)
class Replaced:
    """A device whose unit was swapped: `was` is the serial of the old one, whose certificates are revoked."""

    id: str
    outcome: str
    serial: str
    was: str | None
    state: str
    revoked: int
    cleared: bool


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
    """What became of a device that was removed: `cleared` is False while its retained messages wait in the outbox.

    `sessions_cut`: the broker has no connection of it any more; None where nobody here can tell.
    """

    id: str
    outcome: str
    revoked: int
    cleared: bool
    sessions_cut: bool | None = None


class Devices(Protocol):
    """The devices of a fleet."""

    def add(
        self, device_id: str, *, device_type: str, location: str, labels: Mapping[str, str], bundle: Path | None = None
    ) -> Provisioned:
        """Adding the same again changes nothing; raises `Conflict` if it differs or the id was used before."""
        ...

    def import_file(
        self,
        path: Path,
        bundles: Path | None = None,
        *,
        atomic: bool = False,
        errors: Path | None = None,
        progress: Callable[[int], None] = lambda _: None,
    ) -> Imported:
        """Add what a .csv or .jsonl file names; `atomic` adds all of it or nothing, `errors` is written all refused lines.

        Raises `Partial` or `FleetError` with the report if lines were refused.
        """
        ...

    def list(self, targets: Targets, *, retired: bool = False, states: Collection[LifeCycle] = ()) -> Iterator[DeviceEntry]:
        """In the order of ids; all of them without a target; raises `NotFound` for an id that is not there."""
        ...

    def show(self, device_id: str) -> DeviceDetail: ...

    def status(self, device_id: str) -> DeviceStatus:
        """Its state with the timeline and its certificates; raises `NotFound`."""
        ...

    def resolve(self, targets: Targets, *, retired: bool = False) -> Sequence[Device]:
        """The devices that a write is meant for; `retired` finds removed ones too, where exact ids are named.

        Raises `NotFound` for none, `UsageError` if nothing was named.
        """
        ...

    def remove(
        self, devices: Sequence[Device], reason: str = "cessationOfOperation", *, why: str | None = None
    ) -> Sequence[Removed]:
        """Revoke, cut, clear what is retained, keep the record; nothing changes for one that was removed before.

        `reason` is for the revocation list, `why` for the timeline.
        """
        ...

    def suspend(self, devices: Sequence[Device], *, why: str | None = None) -> Sequence[Transition]:
        """All of them on hold or none: certificates too, until they are resumed; raises `Conflict` for a retired one."""
        ...

    def resume(self, devices: Sequence[Device], *, why: str | None = None) -> Sequence[Transition]:
        """Each back in the state that it was suspended in; raises `Conflict` for one that was revoked or retired since."""
        ...

    def replace(self, device_id: str, serial: str, *, reason: str = "superseded", why: str | None = None) -> Replaced:
        """Another unit takes the place of the old one, with its id, path, labels and twin.

        Raises:
            Conflict: the serial is another device's, or the device is retired.
        """
        ...

    def refresh(self, devices: Sequence[Device]) -> int:
        """Read presence and reported twins of these devices; how many of them were heard of."""
        ...
