"""What a platform can do with devices, and what it lists of them; its other records are in `device_records`."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from fleetctl.model.device import Device, LifeCycle
from fleetctl.platforms.protocol import Targets

if TYPE_CHECKING:
    from fleetctl.platforms.device_records import DeviceDetail, DeviceStatus, Imported, Provisioned, Removed, Replaced, Transition


@dataclass(frozen=True, slots=True)
class DeviceEntry:
    """A device in a list; `status` is a reader's view, `drift` None until something is desired and reported.

    `certificate_ends` is when the last of its certificates that is not revoked does.
    """

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
    certificate_ends: str | None = None


class Devices(Protocol):
    """The devices of a fleet."""

    def add(
        self, device_id: str, *, device_type: str, location: str, labels: Mapping[str, str], bundle: Path | None = None
    ) -> "Provisioned":
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
    ) -> "Imported":
        """Add what a .csv or .jsonl file names; `atomic` adds all of it or nothing, `errors` is written all refused lines.

        Raises `Partial` or `FleetError` with the report if lines were refused.
        """
        ...

    def list(self, targets: Targets, *, retired: bool = False, states: Collection[LifeCycle] = ()) -> Iterator[DeviceEntry]:
        """In the order of ids; all of them without a target; raises `NotFound` for an id that is not there."""
        ...

    def show(self, device_id: str) -> "DeviceDetail": ...

    def status(self, device_id: str) -> "DeviceStatus":
        """Its state with the timeline and its certificates; raises `NotFound`."""
        ...

    def resolve(self, targets: Targets, *, retired: bool = False) -> Sequence[Device]:
        """The devices that a write is meant for; `retired` finds removed ones too, where exact ids are named.

        Raises `NotFound` for none, `UsageError` if nothing was named.
        """
        ...

    def candidates(self, targets: Targets) -> Iterator[Device]:
        """The devices that may be meant once they are heard of: whom to read before a selector asks for what they report."""
        ...

    def remove(
        self, devices: Sequence[Device], reason: str = "cessationOfOperation", *, why: str | None = None
    ) -> "Sequence[Removed]":
        """Revoke, cut, clear what is retained, keep the record; nothing changes for one that was removed before.

        `reason` is for the revocation list, `why` for the timeline.
        """
        ...

    def suspend(self, devices: Sequence[Device], *, why: str | None = None) -> "Sequence[Transition]":
        """All of them on hold or none: certificates too, until they are resumed; raises `Conflict` for a retired one."""
        ...

    def resume(self, devices: Sequence[Device], *, why: str | None = None) -> "Sequence[Transition]":
        """Each back in the state that it was suspended in; raises `Conflict` for one that was revoked or retired since."""
        ...

    def replace(self, device_id: str, serial: str, *, reason: str = "superseded", why: str | None = None) -> "Replaced":
        """Another unit takes the place of the old one, with its id, path, labels and twin.

        Raises:
            Conflict: the serial is another device's, or the device is retired.
        """
        ...

    def refresh(self, devices: Sequence[Device]) -> int:
        """Read presence and reported twins of these devices; how many of them were heard of."""
        ...
