"""What becomes of devices, in records: apart from those of a list, because a list should begin at once."""

from collections.abc import Mapping
from dataclasses import dataclass


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
    certificate_ends: str | None = None


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

    `sessions_cut`: the broker has no connection of it any more; None where nobody here can tell. `detail` is what did not happen,
    or not in the usual way.
    """

    id: str
    outcome: str
    state: str
    certificates: int
    sessions_cut: bool | None
    detail: str | None = None


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

    `sessions_cut`: the broker has no connection of it any more; None where nobody here can tell. `detail` is what did not happen
    to its certificates, and what to do; None where everything did.
    """

    id: str
    outcome: str
    revoked: int
    cleared: bool
    sessions_cut: bool | None = None
    detail: str | None = None
