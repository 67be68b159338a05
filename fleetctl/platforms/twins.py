"""What a platform can do with twins, and the records that it returns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from fleetctl.model.device import Device


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
    """What became of one twin that was set.

    `published`, `unchanged`, `republished` where the broker had lost it, or `queued` until the broker is back.
    """

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


class Twins(Protocol):
    """Desired and reported state."""

    def get(self, device_id: str, *, refresh: bool = False) -> Twin: ...

    def set(self, devices: Sequence[Device], patch: Mapping[str, Any], *, if_version: int | None = None) -> Sequence[TwinChange]:
        """Apply a merge patch to all of them or to none; raises `Pending` with the changes while the broker is away."""
        ...

    def diff(self, devices: Sequence[Device], *, refresh: bool = False) -> Sequence[TwinDifference]: ...
