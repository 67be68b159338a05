"""What a rollout is told, and what it asks for.

Times are seconds by the driver's clock and never fall, except in a replay: there `at` is when it happened, as far as that is
known (the registry's time of receipt, the device's own timestamp), and otherwise now.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class State(StrEnum):
    """What a rollout as a whole is doing."""

    RUNNING = "running"
    PAUSED = "paused"
    HALTED = "halted"
    ABORTED = "aborted"
    COMPLETED = "completed"


# What it is told ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Offered:
    """The broker holds the install assignment of this attempt: our PUBACK, or a retained one that a resumer found."""

    index: int
    attempt: int
    at: float


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """The broker holds the cancel assignment of this attempt: our PUBACK, or a retained one that a resumer found."""

    index: int
    attempt: int
    at: float


@dataclass(frozen=True, slots=True)
class Reported:
    """The device's `ota/status` of this rollout; `stamp` is the time on the device's own clock, where it has one."""

    index: int
    attempt: int
    step: int
    phase: str
    code: str | None
    boot: int | None
    accepted_boot: int | None
    at: float
    stamp: float | None = None


@dataclass(frozen=True, slots=True)
class Sighted:
    """The device's presence; `boot` and `session_count` are its session, `stamp` the time on the device's own clock."""

    index: int
    digest: str
    boot: int
    session_count: int
    online: bool
    heartbeat: float
    at: float
    stamp: float | None = None


@dataclass(frozen=True, slots=True)
class Superseded:
    """Another rollout has taken the device over, by an explicit act."""

    index: int
    at: float


@dataclass(frozen=True, slots=True)
class Removed:
    """The device is no longer part of the fleet."""

    index: int
    at: float


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed. The first one ends the replay of what the broker retained, and only then does anything begin."""

    at: float


@dataclass(frozen=True, slots=True)
class Abort:
    """A person ends the rollout."""

    at: float


@dataclass(frozen=True, slots=True)
class Promote:
    """A person passes the gate of a paused rollout."""

    at: float


# What it remembers across drivers -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Failure:
    """A firmware failure that the fleet has found: the device's own report may say otherwise, or nothing."""

    index: int
    code: str
    regressed: bool
    counted: bool


@dataclass(frozen=True, slots=True)
class Pending:
    """A device that time will decide, and since when it is where it is: so deadlines do not begin anew with each driver."""

    index: int
    stage: str
    since: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """Why the test halts: the e-value against its bound, or the small-fleet rule, and the scope that says most."""

    rule: str
    value: float
    bound: float
    failures: int
    exposed: int
    scope: str = "rollout"

    def __str__(self) -> str:
        seen = f"{self.failures} of {self.exposed} devices failed"
        if self.rule == "second-failure":
            return f"{seen}, and a small fleet halts at the second failure"
        return f"{seen} (e-value {self.value:.3g}, bound {self.bound:.3g}, most in {self.scope})"


@dataclass(frozen=True, slots=True)
class Counts:
    """How many targets are where; the first twelve fields sum to `targets`."""

    queued: int = 0
    offered: int = 0
    withdrawing: int = 0
    withdrawn: int = 0
    canceled: int = 0
    updating: int = 0
    succeeded: int = 0
    failed: int = 0
    regressed: int = 0
    overdue: int = 0
    other: int = 0
    removed: int = 0
    targets: int = 0
    rejected: int = 0
    skipped: int = 0
    ignored: int = 0
    codes: Mapping[str, int] = field(default_factory=dict)

    @property
    def exposed(self) -> int:
        """Devices that accepted the release, and did not cancel it."""
        return self.updating + self.succeeded + self.failed + self.regressed + self.overdue + self.other - self.rejected

    @property
    def untouched(self) -> int:
        """Devices that run what they ran: never offered, not accepted, withdrawn or canceled."""
        return self.queued + self.offered + self.withdrawing + self.withdrawn + self.canceled

    @property
    def firmware_failures(self) -> int:
        return self.failed + self.regressed


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What no device can tell a resumer: decisions, where the waves began, and what the fleet found out by itself.

    `starts` are the positions in the plan at which the waves so far began, `sizes` their sizes; `proven` are ranges (start,
    length) of positions whose update is proven, the last one at `last_proof`; `waived` is the number of other failures that a
    person has passed.
    """

    rollout_id: str
    serial: int
    at: float
    state: State
    reason: str
    starts: tuple[int, ...]
    sizes: tuple[int, ...]
    held: bool
    waived: int
    last_proof: float | None
    failures: tuple[Failure, ...]
    proven: tuple[tuple[int, int], ...]
    pending: tuple[Pending, ...]
    evidence: Evidence | None
    counts: Counts

    @property
    def wave(self) -> int:
        """The current wave, from 1; 0 before the first."""
        return len(self.sizes)


@dataclass(frozen=True, slots=True)
class Restored:
    """The signed `/state` that an earlier driver left; after the first tick it can only stop the rollout."""

    snapshot: Snapshot
    at: float


Event = Offered | Withdrawn | Reported | Sighted | Superseded | Removed | Tick | Abort | Promote | Restored

# What it asks for -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Offer:
    """Publish the install assignment of this attempt, and fold `Offered` when the broker has acknowledged it."""

    index: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Publish the cancel assignment of this attempt, and fold `Withdrawn` when the broker has acknowledged it."""

    index: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Changed:
    """Publish this state, signed, before carrying out the actions that follow it."""

    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class Promoted:
    """The gate opened: `wave` (from 1) begins, with room for `size` devices."""

    wave: int
    size: int


@dataclass(frozen=True, slots=True)
class Halted:
    """The test stopped the rollout, for good."""

    evidence: Evidence


@dataclass(frozen=True, slots=True)
class Paused:
    """The rollout waits for a person."""

    reason: str


@dataclass(frozen=True, slots=True)
class Completed:
    """Nothing is left to offer and every exposed device has settled."""


Act = Offer | Withdraw | Changed | Promoted | Halted | Paused | Completed


@dataclass(frozen=True, slots=True)
class Explanation:
    """Where one device is, and why."""

    device: str
    stage: str
    wave: int
    attempt: int
    phase: str | None
    code: str | None
    why: str
