"""What a rollout shows: counts, why a device is where it is, and the state that outlives its driver."""

import re
from collections.abc import Iterator
from itertools import islice
from math import isfinite
from typing import TYPE_CHECKING

from fleetctl.model.rollout.devices import Devices
from fleetctl.model.rollout.events import Counts, Explanation, Failure, Pending, Snapshot
from fleetctl.model.rollout.ledger import COUNTED, RUNNING, Ledger
from fleetctl.model.rollout.plan import Plan
from fleetctl.model.rollout.stages import (
    CODES,
    FAILED,
    OFFERED,
    OVERDUE,
    PHASES,
    REGRESSED,
    SUCCEEDED,
    SUCCEEDED_PHASE,
    UPDATING,
    Stage,
)

if TYPE_CHECKING:
    from fleetctl.model.rollout.engine import Rollout

FAILURE_LIMIT = 1000
RANGE_LIMIT = 2000
PENDING_LIMIT = 1000
_PENDING = re.compile(b"[" + re.escape(bytes([OFFERED, UPDATING, OVERDUE])) + b"]")
_PROVEN = re.compile(re.escape(bytes([SUCCEEDED])) + b"+")

_WHY = {
    Stage.QUEUED: "it has not been offered the release",
    Stage.OFFERED: "it has been offered the release and has not answered",
    Stage.WITHDRAWING: "the offer is being withdrawn",
    Stage.WITHDRAWN: "it did not accept in time, or the rollout stopped before it did",
    Stage.CANCELED: "it has canceled the update and runs what it ran",
    Stage.UPDATING: "it has accepted the release and is at work",
    Stage.SUCCEEDED: "it runs the release, by digest, boot count and sightings",
    Stage.FAILED: "the firmware failed on it",
    Stage.REGRESSED: "it ran the release and then fell back or went stale",
    Stage.OVERDUE: "it accepted the release and has not proved it in time",
    Stage.OTHER: "the update failed for a reason that is not the firmware's",
    Stage.REJECTED: "it refused the release",
    Stage.REMOVED: "it has left the rollout",
}


def counts(plan: Plan, devices: Devices) -> Counts:
    """How many targets are where."""
    ledger = devices.ledger
    totals = {stage.name.lower(): ledger.totals[stage] for stage in Stage}
    return Counts(
        **{**totals, "other": ledger.other_failures},
        targets=plan.size,
        skipped=len(plan.skipped),
        ignored=devices.ignored,
        codes=ledger.code_counts(),
    )


def explain(rollout: "Rollout", index: int) -> Explanation:
    """Where one device is, and why."""
    ledger = rollout.ledger
    stage = Stage(ledger.stage[index])
    phase, code = ledger.phase[index], ledger.code[index]
    return Explanation(
        rollout.plan.targets[index].id,
        stage.name.lower(),
        ledger.wave[index],
        ledger.attempt[index],
        str(PHASES[phase - 1]) if phase else None,
        str(CODES[code - 1]) if code else None,
        _missing_proof(rollout, index) or _WHY[stage],
    )


def _missing_proof(rollout: "Rollout", index: int) -> str:
    ledger = rollout.ledger
    if ledger.stage[index] != UPDATING or ledger.phase[index] != SUCCEEDED_PHASE:
        return ""
    if not ledger.flags[index] & RUNNING:
        return "it reports success, and its presence does not show the image"
    if ledger.accepted_boot[index] < 0:
        return "it reports success, and has not said its boot count at acceptance"
    if ledger.boot[index] <= ledger.accepted_boot[index]:
        return "it reports success, and has not restarted since it accepted"
    wanted = rollout.plan.parameters.heartbeats
    return f"it reports success and runs the image; {ledger.sightings[index]} of {wanted} further sightings so far"


def snapshot(rollout: "Rollout") -> Snapshot:
    """What no device can tell a resumer."""
    ledger = rollout.ledger
    return Snapshot(
        rollout.plan.id,
        rollout.serial,
        rollout.at,
        rollout.state,
        rollout.reason,
        tuple(rollout.starts),
        tuple(rollout.sizes),
        rollout.held,
        rollout.waived,
        rollout.devices.last_proof if rollout.devices.last_proof > 0 else None,
        tuple(islice(_failures(ledger), FAILURE_LIMIT)),
        tuple(islice(_ranges(ledger), RANGE_LIMIT)),
        tuple(islice(_pending(ledger), PENDING_LIMIT)),
        rollout.evidence,
        counts(rollout.plan, rollout.devices),
    )


def _failures(ledger: Ledger) -> Iterator[Failure]:
    for index in sorted(ledger.found):
        if ledger.stage[index] in (FAILED, REGRESSED):
            code = str(CODES[ledger.code[index] - 1])
            yield Failure(index, code, ledger.stage[index] == REGRESSED, bool(ledger.flags[index] & COUNTED))


def _ranges(ledger: Ledger) -> Iterator[tuple[int, int]]:
    for run in _PROVEN.finditer(ledger.stage):
        yield run.start(), run.end() - run.start()


def _pending(ledger: Ledger) -> Iterator[Pending]:
    for found in _PENDING.finditer(ledger.stage):
        index = found.start()
        if isfinite(ledger.since[index]):
            yield Pending(index, Stage(ledger.stage[index]).name.lower(), ledger.since[index])
