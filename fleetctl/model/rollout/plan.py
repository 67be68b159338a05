"""The plan of a rollout: who, in which order, in which waves, judged by which numbers (docs/protocol.md, "Rollouts" 1)."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256

from fleetctl.errors import Conflict, UsageError
from fleetctl.model import attempt
from fleetctl.model.attempt import Code
from fleetctl.model.device import DevicePath, check_level
from fleetctl.model.release import Release, is_downgrade
from fleetctl.model.rollout.waves import wave_sizes

FIRMWARE_CODES = tuple(str(code) for code in Code if code in attempt.FIRMWARE_CODES)
TRANSIENT_CODES = (str(Code.NO_MEMORY), str(Code.CONNECTION_LOST), str(Code.POWER))
GRID = (0.012, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.35, 0.6, 0.9)
ATTEMPT_LIMIT = 100


class Action(StrEnum):
    """What an assignment asks of a device."""

    INSTALL = "install"
    CANCEL = "cancel"


class SkipReason(StrEnum):
    """Why a device that the selector matched is not a target."""

    ALREADY_INSTALLED = "already_installed"
    INCOMPATIBLE = "incompatible"
    DOWNGRADE = "downgrade"
    OUT_OF_SERVICE = "out_of_service"


@dataclass(frozen=True, slots=True)
class Target:
    """One device of a rollout.

    `digest` is the image that ran at planning, `base_order` the last order that the device was given, `stratum` its class and
    revision, `site` what fails together (empty: nothing else does).
    """

    path: DevicePath
    digest: str | None
    base_order: int
    stratum: str
    site: str

    @property
    def id(self) -> str:
        return self.path.device_id


@dataclass(frozen=True, slots=True)
class Candidate:
    """A device that a selector matched, with the version that it runs where that is known.

    One that is not `in_service` is suspended or revoked: the broker does not let it in.
    """

    target: Target
    version: str | None = None
    in_service: bool = True


@dataclass(frozen=True, slots=True)
class Skipped:
    """A device that was matched and is left out."""

    path: DevicePath
    reason: SkipReason


@dataclass(frozen=True, slots=True)
class Parameters:
    """The numbers that judge a rollout; times are seconds, shares are fractions of one.

    `p0` is the failure rate that is still good firmware, `alpha` the chance of halting such firmware, `grid` the rates that the
    e-value bets on. `heartbeat` stands in for a device that has not said its own, and a device is stale after `stale_after` of
    them. `heartbeats` further sightings make the proof; falling back or going stale within `soak` of it undoes it.
    Failures that are not the firmware's pause above max(`other_floor`, `other_share` of those who answered).
    """

    p0: float = 0.01
    alpha: float = 0.001
    grid: tuple[float, ...] = GRID
    small_fleet: int = 50
    first_wave: int = 5
    growth: int = 3
    accept_within: float = 3600.0
    finish_within: float = 7200.0
    soak: float = 900.0
    heartbeat: float = 900.0
    heartbeats: int = 2
    stale_after: float = 2.5
    failure_share: float = 0.02
    failure_floor: int = 1
    other_share: float = 0.1
    other_floor: int = 2
    max_attempts: int = 3
    firmware_codes: tuple[str, ...] = FIRMWARE_CODES
    transient_codes: tuple[str, ...] = TRANSIENT_CODES

    def __post_init__(self) -> None:
        for good, what in _parameter_rules(self):
            if not good:
                raise UsageError(f"rollout parameters: {what}")


def _parameter_rules(p: Parameters) -> Iterator[tuple[bool, str]]:
    yield 0 < p.p0 < 1, "`p0` is a share above 0 and below 1"
    yield 0 < p.alpha < 1, "`alpha` is a share above 0 and below 1"
    yield bool(p.grid) and all(p.p0 < rate < 1 for rate in p.grid), "every rate of `grid` is above `p0` and below 1"
    yield p.first_wave >= 1 and p.growth >= 1, "`firstWave` and `growth` are at least 1"
    yield p.small_fleet >= 0, "`smallFleet` is not negative"
    durations = (p.accept_within, p.finish_within, p.heartbeat, p.stale_after)
    yield all(0 < seconds < 1e10 for seconds in durations), "deadlines and heartbeats are above 0"
    yield 0 <= p.soak < 1e10 and 0 <= p.heartbeats <= 250, "`soak` is not negative, `heartbeats` at most 250"
    yield 0 <= p.failure_share < 1 and p.failure_floor >= 0, "`failureShare` is a share below 1"
    yield 0 <= p.other_share <= 1 and p.other_floor >= 0, "`otherShare` is a share"
    yield 1 <= p.max_attempts <= ATTEMPT_LIMIT, f"`maxAttempts` is 1 to {ATTEMPT_LIMIT}"
    yield not set(p.firmware_codes) & set(p.transient_codes), "a failure of the firmware is never retried"


@dataclass(frozen=True, slots=True)
class Plan:
    """A rollout as it was decided and signed: immutable, self-contained, the registry of whoever resumes it.

    `targets` are in the order of exposure, `waves` are sizes that sum to their number; times are seconds since 1970,
    `window` is minutes of the UTC day, `jitter` seconds.
    """

    id: str
    tenant: str
    release: str
    image_digest: str
    manifest_digest: str
    targets: Sequence[Target]
    waves: tuple[int, ...]
    parameters: Parameters
    created_at: int
    not_before: int | None = None
    not_after: int | None = None
    jitter: int = 0
    window: tuple[int, int] | None = None
    allow_downgrade: bool = False
    skipped: Sequence[Skipped] = field(default=())

    @property
    def size(self) -> int:
        return len(self.targets)

    @property
    def small(self) -> bool:
        """Whether no test has power and the small-fleet rule stands in for it."""
        return self.size < self.parameters.small_fleet

    @property
    def finish_within(self) -> float:
        """Seconds from acceptance to proof: what the parameters allow, and what window and jitter may add to it."""
        return self.parameters.finish_within + self.jitter + (86400 if self.window else 0)


def assignment_order(target: Target, attempt: int, action: Action | str) -> int:
    """The order of an assignment: a function of plan, attempt and action, so that whoever repeats it repeats the same bytes."""
    return target.base_order + 2 * attempt - (1 if action == Action.INSTALL else 0)


def make_plan(
    rollout_id: str,
    tenant: str,
    release: Release,
    image_digest: str,
    manifest_digest: str,
    candidates: Iterable[Candidate],
    *,
    created_at: int,
    parameters: Parameters | None = None,
    not_before: int | None = None,
    not_after: int | None = None,
    jitter: int = 0,
    window: tuple[int, int] | None = None,
    allow_downgrade: bool = False,
) -> Plan:
    """The plan for these devices; raises `Conflict` for a device named twice, `UsageError` for one of another tenant."""
    check_level("rollout id", rollout_id)
    targets: list[Target] = []
    skipped: list[Skipped] = []
    for candidate in _distinct(tenant, candidates):
        reason = skip_reason(candidate, release, image_digest, allow_downgrade)
        if reason is None:
            targets.append(candidate.target)
        else:
            skipped.append(Skipped(candidate.target.path, reason))
    chosen = parameters or Parameters()
    return Plan(
        rollout_id,
        tenant,
        release.name,
        image_digest,
        manifest_digest,
        tuple(ordered(rollout_id, targets)),
        wave_sizes(len(targets), chosen.small_fleet, chosen.first_wave, chosen.growth),
        chosen,
        created_at,
        not_before,
        not_after,
        jitter,
        window,
        allow_downgrade,
        tuple(sorted(skipped, key=lambda left_out: left_out.path)),
    )


def _distinct(tenant: str, candidates: Iterable[Candidate]) -> Iterator[Candidate]:
    seen: set[str] = set()
    for candidate in candidates:
        path = candidate.target.path
        if path.tenant != tenant:
            raise UsageError(f"device `{path.device_id}` belongs to tenant `{path.tenant}`, not to `{tenant}`")
        if path.device_id in seen:
            raise Conflict(f"device `{path.device_id}` is in the selection twice")
        seen.add(path.device_id)
        yield candidate


def skip_reason(candidate: Candidate, release: Release, image_digest: str, allow_downgrade: bool) -> SkipReason | None:
    """Why the device would not take the release; None where it would."""
    if candidate.target.path.device_type != release.device_type:
        return SkipReason.INCOMPATIBLE
    if not candidate.in_service:
        return SkipReason.OUT_OF_SERVICE
    if candidate.target.digest == image_digest:
        return SkipReason.ALREADY_INSTALLED
    if not allow_downgrade and is_downgrade(candidate.version, release.version):
        return SkipReason.DOWNGRADE
    return None


def ordered(rollout_id: str, targets: Iterable[Target]) -> list[Target]:
    """The order of exposure, the same on every machine: by hash, one of every stratum first, the others in proportion."""
    hashed = sorted(targets, key=lambda target: sha256(f"{rollout_id}/{target.id}".encode()).digest())
    sizes: dict[str, int] = {}
    for target in hashed:
        sizes[target.stratum] = sizes.get(target.stratum, 0) + 1
    ranks = dict.fromkeys(sizes, 0)
    keyed: list[tuple[float, int, Target]] = []
    for position, target in enumerate(hashed):
        rank, size = ranks[target.stratum], sizes[target.stratum]
        ranks[target.stratum] = rank + 1
        keyed.append(((rank + 0.5) / size if rank else -float(size), position, target))
    keyed.sort(key=lambda entry: entry[:2])
    return [target for _, _, target in keyed]
