"""The rollout state machine: events in, actions out; no clock, no I/O (docs/protocol.md, "Rollouts").

1. Until the first `Tick` what the broker retained is folded in, in any order, and nothing is decided. The first `Tick` ends
   that and begins, or continues where the facts say that the rollout is.
2. Exposure: an `Offer` is made only while the places of the wave that are taken (offered, being withdrawn, exposed) are fewer
   than its size. A place is free again when the broker holds the cancel, or the device has canceled or rejected.
3. The gate is asked when the wave is full, or nobody is left to offer to, and all of it is resolved and has soaked.
4. The test is asked after each failure. What it halts stays halted: no offer, and a cancel for all that can still obey.
5. With nobody left to offer to, the last wave has no gate: the rollout is completed, whatever became of its devices; those
   that never accepted are `untouched`.
6. Actions are in the order in which they are to be carried out; `Changed` comes first, so `/state` is never behind.
"""

from collections.abc import Callable
from math import inf
from typing import Any

from fleetctl.model.rollout import gate, report, resume
from fleetctl.model.rollout.devices import Devices
from fleetctl.model.rollout.events import (
    Abort,
    Act,
    Changed,
    Completed,
    Counts,
    Event,
    Evidence,
    Explanation,
    Halted,
    Offer,
    Offered,
    Paused,
    Promote,
    Promoted,
    Removed,
    Reported,
    Restored,
    Sighted,
    Snapshot,
    State,
    Superseded,
    Tick,
    Withdraw,
    Withdrawn,
)
from fleetctl.model.rollout.ledger import ONLINE, RETURNED
from fleetctl.model.rollout.plan import Plan
from fleetctl.model.rollout.stages import (
    CANCELABLE,
    CANCELED,
    OFFERED,
    OVERDUE,
    QUEUED,
    UPDATING,
    WITHDRAWING,
    WITHDRAWN,
    Stage,
)

STOPPED = (State.HALTED, State.ABORTED)
FAILURE_LIMIT = report.FAILURE_LIMIT


class Rollout:
    """One rollout. Fold what the broker retained in any order, then a `Tick`, then everything as it happens."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.state = State.RUNNING
        self.reason = ""
        self.evidence: Evidence | None = None
        self.starts: list[int] = []
        self.sizes: list[int] = []
        self.held = False
        self.waived = 0
        self.serial = 0
        self.at = float(plan.created_at)
        self.devices = Devices(plan)
        self.ledger = self.devices.ledger
        self.cursor = 0
        self.restored: Snapshot | None = None
        self._acts: list[Act] = []
        self._changed = False
        self._handlers: dict[type, Callable[[Any], None]] = {
            Offered: self.devices.offered,
            Withdrawn: self.devices.withdrawn,
            Reported: self.devices.reported,
            Sighted: self.devices.sighted,
            Superseded: self._left,
            Removed: self._left,
            Restored: self._restored,
            Tick: self._ticked,
            Abort: self._aborted,
            Promote: self._promoted,
        }

    @property
    def wave(self) -> int:
        """The current wave, from 1; 0 before the first."""
        return len(self.sizes)

    @property
    def settled(self) -> bool:
        """Whether nothing is on offer and every exposed device is final or overdue."""
        totals = self.ledger.totals
        return self.devices.live and not (totals[OFFERED] or totals[WITHDRAWING] or totals[UPDATING])

    def fold(self, event: Event) -> list[Act]:
        """Take one event in; the actions are to be carried out in their order."""
        index = getattr(event, "index", None)
        if index is not None and not 0 <= index < self.ledger.size:
            self.devices.ignored += 1
            return []
        self.at = max(self.at, event.at)
        self._handlers[type(event)](event)
        if self.devices.live and (self.ledger.moved or type(event) in _DECISIVE or self._changed):
            self.ledger.moved = False
            self._decide(index)
        if self._changed:
            self._changed = False
            self._acts.insert(0, Changed(self.snapshot()))
        acts, self._acts = self._acts, []
        return acts

    # Events of the whole -----------------------------------------------------------------------------------------------------

    def _left(self, event: Superseded | Removed) -> None:
        self.devices.leave(event.index)

    def _restored(self, event: Restored) -> None:
        snapshot = event.snapshot
        if snapshot.rollout_id != self.plan.id:
            self.devices.ignored += 1
        elif not self.devices.live:
            if self.restored is None or snapshot.serial >= self.restored.serial:
                self.restored = snapshot
        elif snapshot.state in STOPPED and self.state not in STOPPED:
            self._stop(snapshot.state, snapshot.reason, snapshot.evidence)

    def _ticked(self, event: Tick) -> None:
        if not self.devices.live:
            resume.begin(self, event.at)
        for index in self.devices.expired(event.at):
            self._withdraw(index)

    def _aborted(self, event: Abort) -> None:
        if self.state in (State.RUNNING, State.PAUSED):
            self._stop(State.ABORTED, "aborted by a person", None)

    def _promoted(self, event: Promote) -> None:
        if self.state is not State.PAUSED or not self.devices.live:
            return
        self.state, self.reason, self._changed = State.RUNNING, "", True
        self.waived = self.ledger.other_failures
        if self._wave_is_over():
            self._open_next()

    # Decisions ---------------------------------------------------------------------------------------------------------------

    def _decide(self, index: int | None) -> None:
        if self.devices.failed_since:
            self.devices.failed_since = False
            self._test()
        while self.devices.recalled:
            stray = self.devices.recalled.pop()
            self._acts.append(Withdraw(stray, self.ledger.attempt[stray]))
        if self.state in STOPPED:
            if index is not None:
                self._recall(index)
        elif self.state is State.RUNNING:
            self._go_on()

    def _test(self) -> None:
        """Halt when the evidence says so; below `small_fleet` targets the second failure is the evidence."""
        failures = self.ledger.firmware_failures
        self._changed = self._changed or failures <= FAILURE_LIMIT
        if self.state not in (State.RUNNING, State.PAUSED):
            return
        if self.plan.small:
            evidence = Evidence("second-failure", float(failures), 2.0, failures, self.ledger.exposed)
        else:
            evidence = self.devices.trials.evidence()
        if evidence.value >= evidence.bound:
            self._stop(State.HALTED, str(evidence), evidence)

    def _stop(self, state: State, reason: str, evidence: Evidence | None) -> None:
        self.state, self.reason, self.evidence, self._changed = state, reason, evidence, True
        if evidence is not None:
            self._acts.append(Halted(evidence))
        if self.devices.live:
            self.recall_all()

    def recall_all(self) -> None:
        """Take back what can be taken back, everywhere."""
        for index in range(self.ledger.size):
            self._recall(index)

    def _recall(self, index: int) -> None:
        """After a halt: one cancel an attempt for what is on offer and for what has not set its boot flag."""
        ledger, attempt = self.ledger, self.ledger.attempt[index]
        stage = ledger.stage[index]
        if stage == OFFERED:
            self._withdraw(index)
        elif ledger.recalled[index] == attempt:
            return
        elif stage == WITHDRAWING or (stage in (UPDATING, OVERDUE) and ledger.phase[index] in CANCELABLE):
            self._withdraw(index)

    def _withdraw(self, index: int) -> None:
        ledger = self.ledger
        ledger.recalled[index] = ledger.attempt[index]
        if ledger.stage[index] == OFFERED:
            ledger.due[index] = inf
            ledger.move(index, WITHDRAWING)
        self._acts.append(Withdraw(index, ledger.attempt[index]))

    def _go_on(self) -> None:
        objection = gate.other_objection(self.plan, self.ledger, self.waived)
        if objection:
            self._pause(objection)
        elif self.plan.not_before is None or self.at >= self.plan.not_before:
            if not self.sizes:
                self._open_next()
            self._fill()
            while self.state is State.RUNNING and self._wave_is_over():
                self._judge()

    def _fill(self) -> None:
        room = self.sizes[-1] - self.ledger.occupied(self.wave) if self.sizes else 0
        while room > 0 and (index := self._next()) is not None:
            self._acts.append(Offer(index, self.devices.offer(index)))
            room -= 1

    def _wave_is_over(self) -> bool:
        """Whether the wave is full or nobody is left for it, all of it is resolved, and what it proved has soaked."""
        if not (self.sizes and gate.resolved(self.ledger, self.wave)) or self.devices.soaking:
            return False
        return self.ledger.occupied(self.wave) >= self.sizes[-1] or self._next() is None

    def _judge(self) -> None:
        objection = gate.objection(self.plan, self.ledger, self.wave)
        if self._next() is None:
            self.state, self.reason, self._changed = State.COMPLETED, "", True
            self._acts.append(Completed())
        elif objection:
            self._pause(objection)
        else:
            self._open_next()
            self._fill()

    def _pause(self, reason: str) -> None:
        self.state, self.reason, self._changed = State.PAUSED, reason, True
        self._acts.append(Paused(reason))

    def _open_next(self) -> None:
        if self._next() is None and self.sizes:
            return
        self.open_wave(max(self.cursor, *self.starts[-1:], 0), self.next_size())
        self._changed = True
        self._acts.append(Promoted(self.wave, self.sizes[-1]))

    def next_size(self) -> int:
        """The size of the wave after this one; in a small fleet it does not grow after the first failure, once."""
        failures = self.ledger.firmware_failures + self.ledger.totals[OVERDUE]
        if self.plan.small and self.sizes and failures and not self.held:
            self.held = True
            return self.sizes[-1]
        planned = len(self.sizes) - self.held
        return self.plan.waves[min(planned, len(self.plan.waves) - 1)] if self.plan.waves else 0

    def open_wave(self, start: int, size: int) -> None:
        """Begin a wave at a position of the plan."""
        self.starts.append(start)
        self.sizes.append(size)
        self.devices.wave = self.wave
        while len(self.ledger.waves) <= self.wave:
            self.ledger.waves.append([0] * len(Stage))

    # Who is next -------------------------------------------------------------------------------------------------------------

    def _next(self) -> int | None:
        """Who is offered the release next: who must try again, then the order of the plan, then who was away and is back."""
        if self.plan.not_after is not None and self.at >= self.plan.not_after:
            return None
        devices, ledger, most = self.devices, self.ledger, self.plan.parameters.max_attempts
        while devices.again:
            if ledger.stage[devices.again[0]] == QUEUED and ledger.attempt[devices.again[0]] < most:
                return devices.again[0]
            devices.again.popleft()
        while self.cursor < ledger.size:
            if ledger.stage[self.cursor] == QUEUED and not ledger.attempt[self.cursor]:
                return self.cursor
            self.cursor += 1
        while devices.returned:
            index = devices.returned[0]
            if ledger.stage[index] in (WITHDRAWN, CANCELED) and ledger.flags[index] & ONLINE and ledger.attempt[index] < most:
                return index
            devices.returned.popleft()
            ledger.flags[index] &= ~RETURNED
        return None

    # Views -------------------------------------------------------------------------------------------------------------------

    def counts(self) -> Counts:
        """How many targets are where."""
        return report.counts(self.plan, self.devices)

    def explain(self, index: int) -> Explanation:
        """Where one device is, and why."""
        return report.explain(self, index)

    def snapshot(self) -> Snapshot:
        """What `/state` carries, with the next serial number."""
        self.serial += 1
        return report.snapshot(self)


_DECISIVE = frozenset({Tick, Promote, Abort, Restored})
