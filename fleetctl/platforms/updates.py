"""What a platform can do about firmware, and the records that it returns."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from fleetctl.model.device import Device
from fleetctl.model.rollout import Parameters

RolloutEvent = Mapping[str, object]
"""One event of a rollout: `event`, `rolloutId`, `timestamp` and its facts; names and keys are documented in the reference."""


@dataclass(frozen=True, slots=True)
class ReleaseEntry:
    """A release: `outcome` is `published`, `unchanged`, `listed` or `verified`."""

    name: str
    type: str
    version: str
    size: int
    digest: str
    manifest_digest: str
    security_counter: int
    sequence: int
    outcome: str = "listed"


@dataclass(frozen=True, slots=True)
class PlannedDevice:
    """A device of a plan: its wave, or why it is skipped."""

    id: str
    wave: int | None
    skipped: str | None
    runs: str | None


@dataclass(frozen=True, slots=True)
class PlanEntry:
    """A plan as a person reads it; `file` is where it was written."""

    id: str
    release: str
    digest: str
    targets: int
    skipped: int
    waves: Sequence[int]
    devices: Sequence[PlannedDevice]
    parameters: Parameters
    file: str | None = None


@dataclass(frozen=True, slots=True)
class RolloutEntry:
    """A rollout as its last controller left it; the counts from `succeeded` to `untouched` sum to `devices`.

    `ignored` counts the messages that said nothing that could be believed, as far as this command has seen them.
    """

    id: str
    release: str
    state: str
    reason: str | None
    devices: int
    succeeded: int
    failed: int
    updating: int
    untouched: int
    exposed: int
    overdue: int
    skipped: int
    wave: int
    waves: int
    codes: Mapping[str, int]
    settled: bool
    attended: bool
    unattended_since: str | None
    updated_at: str
    plan: str
    ignored: int = 0


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """What a person may choose about a rollout; times are seconds, `not_before` and `not_after` since 1970."""

    parameters: Parameters = field(default_factory=Parameters)
    not_before: int | None = None
    not_after: int | None = None
    jitter: int = 0
    allow_downgrade: bool = False
    supersede: bool = False


@dataclass(frozen=True, slots=True)
class RolloutRef:
    """Which rollout is meant: its id, or the plan file that it was made from; `key` is a reference to a rollout key."""

    id: str | None = None
    plan: Path | None = None
    key: str | None = None


class Updates(Protocol):
    """Releases and rollouts."""

    def publish(self, file: Path, device_type: str, version: str, *, security_counter: int = 0) -> ReleaseEntry: ...

    def releases(self) -> Sequence[ReleaseEntry]: ...

    def show(self, name: str) -> ReleaseEntry: ...

    def verify(self, name: str) -> ReleaseEntry:
        """Read the image in full; raises `Untrusted` if it is not what was signed."""
        ...

    def plan(self, release: str, devices: Sequence[Device], options: PlanOptions, *, file: Path | None = None) -> PlanEntry: ...

    def start(
        self, ref: RolloutRef, *, wait: bool = False, timeout: float | None = None
    ) -> Iterator[RolloutEvent | RolloutEntry]:
        """Begin or continue; the last record is the rollout's entry. Raises `Halted`, `Partial` or `Pending` after it."""
        ...

    def step(self, ref: RolloutRef) -> Iterator[RolloutEvent | RolloutEntry]: ...

    def resume(
        self, ref: RolloutRef, *, wait: bool = True, timeout: float | None = None
    ) -> Iterator[RolloutEvent | RolloutEntry]: ...

    def abort(self, ref: RolloutRef) -> Iterator[RolloutEvent | RolloutEntry]: ...

    def watch(self, ref: RolloutRef, *, timeout: float | None = None) -> Iterator[RolloutEvent | RolloutEntry]: ...

    def status(self, ref: RolloutRef) -> RolloutEntry: ...

    def rollouts(self) -> Sequence[RolloutEntry]: ...

    def serve(self) -> Iterator[RolloutEvent]:
        """Serve the release store until interrupted."""
        ...
