"""How a driver that has only the plan and what the broker retained goes on (docs/protocol.md, "Rollouts" 5).

1. Decisions (halted, paused, where the waves began) come from the signed `/state`, and so do the findings that no device reports.
2. Without it the waves are laid over the plan in its order, as if each had been filled by the first that answered.
3. A device that is not resolved belongs to the current wave, whichever it was offered the release in.
4. Failures are counted for the test again: those that an earlier driver counted first, then by time.
"""

from bisect import bisect_right
from typing import TYPE_CHECKING

from fleetctl.model.rollout.events import Snapshot, State
from fleetctl.model.rollout.ledger import RUNNING, SEEN
from fleetctl.model.rollout.stages import (
    CODE_NUMBER,
    FAILED,
    INTERNAL,
    OCCUPYING,
    OFFERED,
    QUEUED,
    REGRESSED,
    ROLLED_BACK,
    SUCCEEDED,
    UPDATING,
    WITHDRAWING,
    Stage,
)

if TYPE_CHECKING:
    from fleetctl.model.rollout.engine import Rollout


def begin(rollout: "Rollout", at: float) -> None:
    """End the replay: from here on every event may lead to actions."""
    devices, found = rollout.devices, rollout.restored
    if found is not None:
        _decisions(rollout, found)
        _failures(rollout, found, at)
        _proofs(rollout, found, at)
        _deadlines(rollout, found, at)
    if rollout.sizes:
        _recall_waves(rollout)
    else:
        _lay_waves(rollout)
    devices.wave = rollout.wave
    devices.live = True
    _count_again(rollout, found)
    if rollout.state in (State.HALTED, State.ABORTED):
        rollout.recall_all()


def _decisions(rollout: "Rollout", found: Snapshot) -> None:
    rollout.state, rollout.reason, rollout.evidence = found.state, found.reason, found.evidence
    rollout.held, rollout.waived, rollout.serial = found.held, found.waived, found.serial
    for start, size in zip(found.starts, found.sizes, strict=True):
        rollout.open_wave(start, size)


def _failures(rollout: "Rollout", found: Snapshot, at: float) -> None:
    """What the fleet found; a device that was silent may have proved its update since."""
    for failure in found.failures:
        index, code = failure.index, CODE_NUMBER.get(failure.code, INTERNAL)
        if 0 <= index < rollout.plan.size and not (rollout.ledger.stage[index] == SUCCEEDED and not failure.regressed):
            rollout.devices.fail(index, REGRESSED if failure.regressed else FAILED, code, at)


def _proofs(rollout: "Rollout", found: Snapshot, at: float) -> None:
    """What was proven needs no second proof, but what runs another image by now has regressed."""
    devices, ledger = rollout.devices, rollout.ledger
    proven_at = at if found.last_proof is None else found.last_proof
    for start, length in found.proven:
        for index in range(max(0, start), min(start + length, ledger.size)):
            if ledger.stage[index] in (FAILED, REGRESSED):
                continue
            if ledger.flags[index] & (SEEN | RUNNING) == SEEN:
                devices.fail(index, REGRESSED, ROLLED_BACK, at)
            else:
                devices.succeed(index, proven_at)


def _deadlines(rollout: "Rollout", found: Snapshot, at: float) -> None:
    """Time that an earlier driver has seen pass counts; the grace before an overdue device is silent begins again."""
    devices, ledger = rollout.devices, rollout.ledger
    for pending in found.pending:
        index = pending.index
        if not 0 <= index < ledger.size or pending.since > at:
            continue
        stage = Stage(ledger.stage[index]).name.lower()
        if pending.stage == stage:
            devices.wait_since(index, pending.since)
        elif (pending.stage, stage) == ("overdue", "updating"):
            devices.overdue(index, at)


def _recall_waves(rollout: "Rollout") -> None:
    ledger = rollout.ledger
    for index in range(ledger.size):
        stage = ledger.stage[index]
        if stage in (OFFERED, WITHDRAWING, UPDATING):
            ledger.enroll(index, rollout.wave)
        elif stage != QUEUED or ledger.attempt[index]:
            ledger.enroll(index, max(1, bisect_right(rollout.starts, index)))


def _lay_waves(rollout: "Rollout") -> None:
    ledger = rollout.ledger
    filled = 0
    unresolved: list[int] = []
    for index in range(ledger.size):
        stage = ledger.stage[index]
        if stage == QUEUED and not ledger.attempt[index]:
            continue
        if not rollout.sizes or (filled >= rollout.sizes[-1] and OCCUPYING[stage]):
            rollout.open_wave(index if rollout.sizes else 0, rollout.next_size())
            filled = 0
        filled += OCCUPYING[stage]
        ledger.enroll(index, rollout.wave)
        if stage in (OFFERED, WITHDRAWING, UPDATING):
            unresolved.append(index)
    for index in unresolved:
        ledger.enroll(index, rollout.wave)


def _count_again(rollout: "Rollout", found: Snapshot | None) -> None:
    devices, ledger = rollout.devices, rollout.ledger
    failed = sorted(ledger.found, key=lambda index: (ledger.since[index], index))
    counted = {failure.index for failure in found.failures if failure.counted} if found else set()
    for index in failed:
        if index in counted:
            devices.trials.count(index, ledger.since[index], known=True)
    for index in failed:
        devices.trials.count(index, ledger.since[index])
    devices.failed_since = bool(failed)
