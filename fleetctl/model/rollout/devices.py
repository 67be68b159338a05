"""What each event says of one device (docs/protocol.md, "Updates" and "Rollouts" 2).

Facts commute: of offers, withdrawals and reports only the greatest attempt counts, of reports only the greatest step, of presence
only the latest session. So a resumer may fold what the broker retained in any order and arrives at the same stages.

1. Exposed = accepted. An offer is taken back when it is not accepted in time; a device that accepted all the same is exposed.
2. A failure of the firmware is final, whatever attempt it is of. A transient failure is tried again, others are final.
3. Proof: the device reports success, its presence shows the image, its boot count is above the one at acceptance, and k further
   sightings half a heartbeat or more apart (or as many heartbeats by the device's own clock). A report alone is no proof.
4. Without proof in time it is overdue: a failure for the gate, none for the test. Without a sign of life for `stale_after`
   heartbeats more, as this driver has watched it, it is `SILENT`: a failure of the firmware. A late proof undoes both.
5. One that runs another image again within its soak, or goes stale, has regressed: a failure of the firmware, for good.
"""

from collections import deque
from math import inf, isfinite, isnan, nan

from fleetctl.model.rollout.events import Offered, Reported, Sighted, Withdrawn
from fleetctl.model.rollout.halting import Trials
from fleetctl.model.rollout.ledger import CONFIRMED, ONLINE, RETURNED, RUNNING, SEEN, SOAKING, Ledger, Timers
from fleetctl.model.rollout.plan import Plan
from fleetctl.model.rollout.stages import (
    CANCELED,
    CANCELED_PHASE,
    CODE_NUMBER,
    ENDED,
    FAILED,
    INTERNAL,
    OFFERED,
    OTHER,
    OVERDUE,
    PHASE_NUMBER,
    QUEUED,
    REGRESSED,
    REJECTED,
    REMOVED,
    ROLLED_BACK,
    ROLLED_BACK_PHASE,
    SILENT,
    SUCCEEDED,
    SUCCEEDED_PHASE,
    UPDATING,
    WITHDRAWING,
    WITHDRAWN,
)

NUMBER_LIMIT = 1 << 53
HEARTBEAT_LIMIT = 30 * 86400.0
_PATIENCE = 64


class Devices:
    """The facts of every target; decisions are the engine's. `live` is false while retained state is replayed."""

    def __init__(self, plan: Plan) -> None:
        numbers = plan.parameters
        self.plan = plan
        self.ledger = Ledger(plan)
        self.trials = Trials(plan, self.ledger)
        waits = (numbers.accept_within, numbers.finish_within, numbers.soak or inf, numbers.stale_after * numbers.heartbeat)
        self.timers = Timers(min(waits) / _PATIENCE)
        self.again: deque[int] = deque()
        self.returned: deque[int] = deque()
        self.live = False
        self.wave = 0
        self.soaking = 0
        self.last_proof = -inf
        self.ignored = 0
        self.recalled: list[int] = []
        self.failed_since = False
        self._firmware = frozenset(CODE_NUMBER[code] for code in numbers.firmware_codes if code in CODE_NUMBER)
        self._transient = frozenset(CODE_NUMBER[code] for code in numbers.transient_codes if code in CODE_NUMBER)

    def offer(self, index: int) -> int:
        """Put the next attempt of a target on offer in the current wave; its number."""
        ledger = self.ledger
        self._new_attempt(index, ledger.attempt[index] + 1)
        ledger.move(index, OFFERED)
        ledger.enroll(index, self.wave)
        ledger.due[index] = inf
        return ledger.attempt[index]

    def offered(self, event: Offered) -> None:
        ledger, index, attempt = self.ledger, event.index, event.attempt
        if not self._plausible(attempt) or self._decided(index):
            return
        if attempt > ledger.attempt[index]:
            self._new_attempt(index, attempt)
            ledger.move(index, OFFERED)
            self._join(index)
        if attempt == ledger.attempt[index] and ledger.stage[index] == OFFERED and not ledger.flags[index] & CONFIRMED:
            ledger.flags[index] |= CONFIRMED
            self.wait_since(index, event.at)

    def withdrawn(self, event: Withdrawn) -> None:
        ledger, index, attempt = self.ledger, event.index, event.attempt
        if not self._plausible(attempt) or self._decided(index) or attempt < ledger.attempt[index]:
            return
        if attempt > ledger.attempt[index]:
            self._new_attempt(index, attempt)
            ledger.move(index, OFFERED)
        ledger.recalled[index] = attempt
        if ledger.stage[index] in (OFFERED, WITHDRAWING):
            self._rest(index, WITHDRAWN)

    def _new_attempt(self, index: int, attempt: int) -> None:
        ledger = self.ledger
        ledger.attempt[index] = attempt
        ledger.step[index] = -1
        ledger.phase[index] = ledger.sightings[index] = 0
        ledger.blame(index, 0)
        ledger.accepted_boot[index] = -1
        ledger.since[index] = ledger.proof_stamp[index] = ledger.counted_at[index] = nan
        ledger.flags[index] &= ~(CONFIRMED | RETURNED)

    def _rest(self, index: int, stage: int) -> None:
        """The device is not exposed (any more); it may be offered the release again once it is seen."""
        self._settle(index, stage)
        self._return(index)

    def _settle(self, index: int, stage: int) -> None:
        """Move to a stage that waits for nothing and is no failure of the firmware."""
        self.trials.forget(index)
        self.ledger.found.discard(index)
        self.ledger.due[index] = inf
        self.ledger.move(index, stage)

    def _return(self, index: int) -> None:
        ledger = self.ledger
        if ledger.flags[index] & (ONLINE | RETURNED) == ONLINE and ledger.attempt[index] < self.plan.parameters.max_attempts:
            ledger.flags[index] |= RETURNED
            ledger.moved = True
            self.returned.append(index)

    def reported(self, event: Reported) -> None:
        ledger, index = self.ledger, event.index
        phase = PHASE_NUMBER.get(event.phase, 0)
        unasked = self.live and event.attempt > ledger.attempt[index]
        if unasked or not (phase and self._plausible(event.attempt) and 0 <= event.step < NUMBER_LIMIT):
            self.ignored += 1
            return
        if self._decided(index):
            return
        code = self._code(phase, event.code)
        if event.attempt < ledger.attempt[index]:
            if phase in ENDED and code in self._firmware:
                if ledger.stage[index] in (OFFERED, WITHDRAWING):
                    self.recalled.append(index)
                self.fail(index, FAILED, code, event.at)
            return
        if event.attempt > ledger.attempt[index]:
            self._new_attempt(index, event.attempt)
        elif event.step <= ledger.step[index] or ledger.phase[index] in ENDED:
            return
        ledger.step[index], ledger.phase[index] = event.step, phase
        if code or ledger.stage[index] != FAILED:
            ledger.blame(index, code)
        boot = event.accepted_boot
        if boot is not None and 0 <= boot < NUMBER_LIMIT:
            ledger.accepted_boot[index] = boot
        self._follow(index, phase, code, event)

    def _follow(self, index: int, phase: int, code: int, event: Reported) -> None:
        if phase == SUCCEEDED_PHASE:
            self.ledger.proof_stamp[index] = nan if event.stamp is None else event.stamp
            self._expose(index, event.at)
            self._prove(index, event.at)
        elif phase not in ENDED:
            self._expose(index, event.at)
        elif phase == CANCELED_PHASE:
            self._rest(index, CANCELED)
        elif code in self._firmware:
            self.fail(index, FAILED, code, event.at)
        elif code in self._transient and event.attempt < self.plan.parameters.max_attempts:
            self._settle(index, QUEUED)
            self.again.append(index)
        else:
            self._join(index)
            self._settle(index, REJECTED if self.ledger.accepted_boot[index] < 0 else OTHER)

    def _code(self, phase: int, code: str | None) -> int:
        if code is None:
            return ROLLED_BACK if phase == ROLLED_BACK_PHASE else INTERNAL if phase in ENDED - {SUCCEEDED_PHASE} else 0
        return CODE_NUMBER.get(code, INTERNAL)

    def _expose(self, index: int, at: float) -> None:
        ledger = self.ledger
        if ledger.stage[index] in (UPDATING, OVERDUE, FAILED):
            return
        self._join(index)
        ledger.move(index, UPDATING)
        self.wait_since(index, at)

    def fail(self, index: int, stage: int, code: int, at: float) -> None:
        """A failure of the firmware."""
        ledger = self.ledger
        self._end_soak(index)
        self._join(index)
        ledger.since[index], ledger.due[index] = at, inf
        ledger.blame(index, code)
        ledger.move(index, stage)
        ledger.found.add(index)
        if self.live:
            self.trials.count(index, at)
            self.failed_since = True

    def sighted(self, event: Sighted) -> None:
        ledger, index = self.ledger, event.index
        session = (event.boot, event.session_count)
        if not (0 <= event.boot < NUMBER_LIMIT and 0 <= event.session_count < NUMBER_LIMIT):
            self.ignored += 1
            return
        if session < (ledger.boot[index], ledger.session[index]):
            return
        ledger.boot[index], ledger.session[index] = session
        if isfinite(event.heartbeat) and event.heartbeat > 0:
            ledger.heartbeat[index] = min(event.heartbeat, HEARTBEAT_LIMIT)
        ran = ledger.flags[index] & RUNNING
        runs = RUNNING if event.digest == self.plan.image_digest else 0
        online = ONLINE if event.online else 0
        ledger.flags[index] = ledger.flags[index] & ~(RUNNING | ONLINE) | runs | online | SEEN
        ledger.seen_stamp[index] = nan if event.stamp is None else event.stamp
        if online:
            ledger.seen_at[index] = event.at
        stage = ledger.stage[index]
        if stage in (UPDATING, OVERDUE, FAILED):
            if ran and not runs and ledger.phase[index] == SUCCEEDED_PHASE and stage != FAILED:
                self.fail(index, REGRESSED, ROLLED_BACK, event.at)
            else:
                self._prove(index, event.at)
        elif stage == SUCCEEDED:
            if not runs and ledger.flags[index] & SOAKING:
                self.fail(index, REGRESSED, ROLLED_BACK, event.at)
        elif online and stage in (WITHDRAWN, CANCELED):
            self._return(index)

    def _prove(self, index: int, at: float) -> None:
        ledger = self.ledger
        runs = ledger.flags[index] & RUNNING and 0 <= ledger.accepted_boot[index] < ledger.boot[index]
        silent = ledger.stage[index] != FAILED or ledger.code[index] == SILENT
        if not (runs and silent and ledger.phase[index] == SUCCEEDED_PHASE):
            return
        heartbeat = ledger.heartbeat[index]
        if isnan(ledger.counted_at[index]):
            ledger.counted_at[index] = at
        elif ledger.flags[index] & ONLINE and at - ledger.counted_at[index] >= heartbeat / 2:
            ledger.counted_at[index] = at
            ledger.sightings[index] = min(255, ledger.sightings[index] + 1)
        beats = (ledger.seen_stamp[index] - ledger.proof_stamp[index]) / heartbeat + 0.5
        if isfinite(beats):
            ledger.sightings[index] = max(ledger.sightings[index], int(min(255.0, max(0.0, beats))))
        if ledger.sightings[index] >= self.plan.parameters.heartbeats:
            self.succeed(index, at)

    def succeed(self, index: int, at: float) -> None:
        """The update is proven; its soak begins."""
        ledger = self.ledger
        self.trials.forget(index)
        ledger.move(index, SUCCEEDED)
        ledger.blame(index, 0)
        ledger.found.discard(index)
        ledger.since[index], ledger.due[index] = at, inf
        self.last_proof = max(self.last_proof, at)
        if self.plan.parameters.soak > 0:
            self.soaking += not ledger.flags[index] & SOAKING
            ledger.flags[index] |= SOAKING
            self._watch_soak(index, at)

    def _watch_soak(self, index: int, at: float) -> None:
        ends = self.ledger.since[index] + self.plan.parameters.soak
        stale = self._stale_at(index)
        if min(ends, stale) > at:
            self._schedule(index, min(ends, stale))
        elif stale <= at:
            self.fail(index, REGRESSED, SILENT, at)
        else:
            self._end_soak(index)

    def _end_soak(self, index: int) -> None:
        if self.ledger.flags[index] & SOAKING:
            self.ledger.flags[index] &= ~SOAKING
            self.ledger.due[index] = inf
            self.soaking -= 1

    def _stale_at(self, index: int) -> float:
        seen, since = self.ledger.seen_at[index], self.ledger.since[index]
        last = since if isnan(seen) else max(seen, since)
        return last + self.plan.parameters.stale_after * self.ledger.heartbeat[index]

    def expired(self, at: float) -> list[int]:
        """What time has decided by now; returned are the devices whose offer is to be withdrawn."""
        ledger = self.ledger
        late: list[int] = []
        for index in self.timers.take(at):
            if ledger.due[index] > at:
                continue
            ledger.due[index] = inf
            stage = ledger.stage[index]
            if stage == OFFERED:
                late.append(index)
            elif stage == UPDATING:
                self.overdue(index, at)
            elif stage == OVERDUE and self._stale_at(index) > at:
                self._schedule(index, self._stale_at(index))
            elif stage == OVERDUE:
                self.fail(index, FAILED, SILENT, at)
            elif ledger.flags[index] & SOAKING:
                self._watch_soak(index, at)
        return late

    def overdue(self, index: int, at: float) -> None:
        """No proof in time."""
        self.ledger.move(index, OVERDUE)
        self.ledger.since[index] = at
        self._schedule(index, self._stale_at(index))

    def wait_since(self, index: int, since: float) -> None:
        """Set when the wait for acceptance or for proof began."""
        offered = self.ledger.stage[index] == OFFERED
        self.ledger.since[index] = since
        self._schedule(index, since + (self.plan.parameters.accept_within if offered else self.plan.finish_within))

    def _schedule(self, index: int, at: float) -> None:
        self.ledger.due[index] = at
        self.timers.add(index, at)

    def leave(self, index: int) -> None:
        """The device is gone from this rollout; what it has proved or failed stays."""
        if self.ledger.stage[index] not in (SUCCEEDED, FAILED, REGRESSED, OTHER, REJECTED):
            self.ledger.due[index] = inf
            self.ledger.move(index, REMOVED)

    def _join(self, index: int) -> None:
        if self.live and self.ledger.wave[index] != self.wave:
            self.ledger.enroll(index, self.wave)

    def _decided(self, index: int) -> bool:
        """Whether nothing that device or broker say can change the stage (presence can)."""
        stage = self.ledger.stage[index]
        if stage == FAILED:
            return self.ledger.code[index] != SILENT
        return stage in (SUCCEEDED, REGRESSED, REMOVED)

    def _plausible(self, attempt: int) -> bool:
        return 1 <= attempt <= self.plan.parameters.max_attempts
