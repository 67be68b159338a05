"""What a platform can do with twins, and the records that it returns."""

from collections.abc import Iterator, Mapping, Sequence
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


@dataclass(frozen=True, slots=True)
class TwinVersion:
    """One version of what was desired of a device, with who wanted it so and why."""

    id: str
    version: int
    desired: Mapping[str, Any]
    digest: str
    at: str
    actor: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class TwinConvergence:
    """How far a device is on the way to what is desired of it.

    `converged`, `refused` where it reports errors for the version that is desired, or `waiting`.
    """

    id: str
    outcome: str
    version: int
    reported_version: int
    detail: str | None


@dataclass(frozen=True, slots=True)
class TwinEvent:
    """One half of a twin that changed: `desired` or `reported`, as `document`."""

    id: str
    half: str
    version: int
    document: Mapping[str, Any]
    received_at: str


@dataclass(frozen=True, slots=True)
class TwinSchema:
    """The JSON Schema that desired documents of a device type must meet; `outcome` is that of storing or removing it."""

    type: str
    schema: Mapping[str, Any]
    outcome: str | None = None


class Twins(Protocol):
    """Desired and reported state."""

    def get(self, device_id: str, *, refresh: bool = False) -> Twin: ...

    def set(
        self,
        devices: Sequence[Device],
        patch: Mapping[str, Any],
        *,
        if_version: int | None = None,
        reason: str | None = None,
    ) -> Sequence[TwinChange]:
        """Apply a merge patch to all of them or to none; raises `Pending` with the changes while the broker is away."""
        ...

    def replace(
        self,
        devices: Sequence[Device],
        document: Mapping[str, Any],
        *,
        if_version: int | None = None,
        reason: str | None = None,
    ) -> Sequence[TwinChange]:
        """The same with a whole document in the place of the one that is desired."""
        ...

    def history(self, device_id: str) -> Sequence[TwinVersion]:
        """The newest versions of what was desired, oldest first."""
        ...

    def revert(
        self, device_id: str, version: int, *, if_version: int | None = None, reason: str | None = None
    ) -> Sequence[TwinChange]:
        """Desire again what an earlier version said, as a new version; raises `NotFound` where that is not kept."""
        ...

    def wait(self, devices: Sequence[Device], timeout: float) -> Iterator[TwinConvergence]:
        """Each device once it has converged or refused; at the end those that still wait.

        Raises:
            NotFound: nothing is desired of any of them.
            Partial: some refused. Pending: some did not answer within `timeout` seconds. The records came before.
        """
        ...

    def watch(self, devices: Sequence[Device]) -> Iterator[TwinEvent]:
        """What changes from now on, without an end."""
        ...

    def diff(self, devices: Sequence[Device], *, refresh: bool = False) -> Sequence[TwinDifference]: ...

    def schemas(self) -> Sequence[TwinSchema]:
        """The schemas of all device types that have one."""
        ...

    def schema(self, device_type: str) -> TwinSchema:
        """Raises `NotFound`."""
        ...

    def put_schema(self, device_type: str, schema: Mapping[str, Any], *, reason: str | None = None) -> TwinSchema:
        """What it refuses is not sent from now on; raises `ConfigError` for what is no schema, or refers to another place."""
        ...

    def remove_schema(self, device_type: str, *, reason: str | None = None) -> TwinSchema:
        """Raises `NotFound`."""
        ...
