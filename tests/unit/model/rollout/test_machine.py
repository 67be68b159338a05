"""Laws of the engine, against a model broker and model devices that do whatever devices may do, with drivers that die."""

import random
from collections import deque
from dataclasses import dataclass

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fleetctl.model.device import DevicePath
from fleetctl.model.release import Release
from fleetctl.model.rollout import (
    Abort,
    Act,
    Candidate,
    Changed,
    Event,
    Halted,
    Offer,
    Offered,
    Parameters,
    Promote,
    Promoted,
    Reported,
    Restored,
    Rollout,
    Sighted,
    State,
    Target,
    Tick,
    Withdraw,
    Withdrawn,
    make_plan,
)
from fleetctl.model.rollout.stages import EXPOSED, FAILED, REGRESSED, Stage
from fleetctl.wire.rollout import decode_state, encode_state

NEW, OLD = "sha256:" + "a" * 64, "sha256:" + "b" * 64
NUMBERS = Parameters(soak=20, heartbeats=1, heartbeat=10, accept_within=50, finish_within=200, small_fleet=10)
INDEX = st.integers(0, 1 << 16)


@dataclass
class Device:
    """What a device holds; `status` is retained by the broker as it is."""

    attempt: int = 0
    step: int = 0
    phase: str = ""
    code: str | None = None
    boot: int = 1
    accepted_boot: int | None = None
    image: str = OLD
    online: bool = True
    refused: int = 0
    """The greatest attempt whose cancel it has seen."""

    @property
    def busy(self) -> bool:
        return self.phase in {"accepted", "downloading", "installed"}


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 1.0
        self.outbox: deque[Act] = deque()
        self.unacknowledged: deque[Event] = deque()
        self.desired: dict[int, tuple[str, int]] = {}
        self.state: bytes | None = None
        self.over = False
        self.raced: set[int] = set()

    @initialize(size=st.sampled_from([1, 4, 9, 12, 30]), strata=st.integers(1, 3), sites=st.integers(0, 3))
    def begin(self, size: int, strata: int, sites: int) -> None:
        targets = [
            Target(DevicePath("acme", "hall", "pump", f"p{n}"), OLD, 0, f"rev{n % strata}", f"s{n % sites}" if sites else "")
            for n in range(size)
        ]
        release = Release.parse("pump@2.0.0")
        found = [Candidate(target) for target in targets]
        self.plan = make_plan("r1", "acme", release, NEW, OLD, found, created_at=0, parameters=NUMBERS)
        self.fleet = [Device() for _ in targets]
        self.rollout = Rollout(self.plan)
        self.fold(Tick(self.now))

    # The driver --------------------------------------------------------------------------------------------------------------

    def fold(self, event: Event) -> None:
        person = isinstance(event, Promote)
        for act in self.rollout.fold(event):
            if isinstance(act, Offer):
                self.check_offer(act)
            elif isinstance(act, Promoted):
                self.check_promotion(act, person)
            elif isinstance(act, Halted):
                self.over = True
            self.outbox.append(act)
        self.over = self.over or self.rollout.state is State.ABORTED

    def check_offer(self, act: Offer) -> None:
        device = self.fleet[act.index]
        assert not self.over, "a stopped rollout offered"
        assert act.attempt <= NUMBERS.max_attempts
        assert not (device.attempt >= act.attempt and device.phase), "an attempt that the device has answered was offered again"
        assert device.image == OLD or device.phase != "succeeded"
        room = self.rollout.sizes[-1]
        assert self.rollout.ledger.occupied(self.rollout.wave) <= room + len(self.raced)

    def check_promotion(self, act: Promoted, person: bool) -> None:
        if act.wave == 1 or person:
            return
        ledger, before = self.rollout.ledger, act.wave - 1
        stages = [Stage(ledger.stage[index]) for index in range(ledger.size) if ledger.wave[index] == before]
        assert not {Stage.OFFERED, Stage.WITHDRAWING, Stage.UPDATING} & set(stages)
        if self.plan.small:
            stages = [Stage(stage) for stage in ledger.stage]
        bad = sum(stage in (Stage.FAILED, Stage.REGRESSED, Stage.OVERDUE) for stage in stages)
        assert bad <= (1 if self.plan.small or before > 1 else 0), "waves of this size bear one failure, the first bears none"

    @rule(count=st.integers(1, 50))
    def publish(self, count: int) -> None:
        for _ in range(min(count, len(self.outbox))):
            act = self.outbox.popleft()
            if isinstance(act, Changed):
                self.state = encode_state(act.snapshot)
            elif isinstance(act, Offer):
                self.desired[act.index] = ("install", act.attempt)
                self.unacknowledged.append(Offered(act.index, act.attempt, self.now))
            elif isinstance(act, Withdraw):
                self.desired[act.index] = ("cancel", act.attempt)
                self.unacknowledged.append(Withdrawn(act.index, act.attempt, self.now))

    @rule(count=st.integers(1, 50))
    def acknowledge(self, count: int) -> None:
        for _ in range(min(count, len(self.unacknowledged))):
            self.fold(self.unacknowledged.popleft())

    @rule(seconds=st.sampled_from([0.5, 5.0, 15.0, 60.0, 250.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.fold(Tick(self.now))

    @rule(seed=st.integers(0, 1 << 20))
    def crash(self, seed: int) -> None:
        """Another driver goes on from what the broker retained, read in any order."""
        self.outbox.clear()
        self.unacknowledged.clear()
        failed = {i for i in range(self.plan.size) if self.rollout.ledger.stage[i] in (FAILED, REGRESSED)}
        known = {f.index for f in decode_state(self.state).failures} if self.state else set()
        retained: list[Event] = [Restored(decode_state(self.state), self.now)] if self.state else []
        for index, (action, attempt) in self.desired.items():
            retained.append((Offered if action == "install" else Withdrawn)(index, attempt, self.now))
        for index, device in enumerate(self.fleet):
            retained.append(self.sighting(index))
            if device.phase:
                retained.append(self.report(index))
        random.Random(seed).shuffle(retained)
        self.rollout = Rollout(self.plan)
        for event in retained * 2:
            assert self.rollout.fold(event) == []
        self.fold(Tick(self.now))
        for index in failed:
            device = self.fleet[index]
            if index in known or device.phase == "rolled_back":
                assert self.rollout.ledger.stage[index] in (FAILED, REGRESSED) or device.image == NEW, "a failure was forgotten"
        for index, device in enumerate(self.fleet):
            if device.busy and device.attempt == self.rollout.ledger.attempt[index]:
                assert self.rollout.ledger.stage[index] not in (Stage.QUEUED, Stage.OFFERED)

    @precondition(lambda self: self.rollout.state is State.PAUSED)
    @rule()
    def promote(self) -> None:
        self.fold(Promote(self.now))

    @precondition(lambda self: self.rollout.wave > 1)
    @rule(really=st.integers(0, 99))
    def abort(self, really: int) -> None:
        if really == 57:
            self.fold(Abort(self.now))

    # The devices -------------------------------------------------------------------------------------------------------------

    def report(self, index: int) -> Reported:
        d = self.fleet[index]
        return Reported(index, d.attempt, d.step, d.phase, d.code, d.boot, d.accepted_boot, self.now)

    def sighting(self, index: int) -> Sighted:
        d = self.fleet[index]
        return Sighted(index, d.image, d.boot, 1, d.online, 10, self.now)

    def become(self, index: int, phase: str, code: str | None = None) -> None:
        device = self.fleet[index]
        device.phase, device.code, device.step = phase, code, device.step + 1
        self.fold(self.report(index))

    @rule()
    def everything_goes_well_for_a_while(self) -> None:
        """What is asked for is published and acknowledged, and everyone who is online obeys."""
        self.publish(1000)
        self.acknowledge(1000)
        for index, device in enumerate(self.fleet):
            if device.online:
                self.listen(index)

    @rule(
        ends=st.lists(
            st.sampled_from(["succeeded"] * 12 + ["rolled_back", "rolled_back", "NO_SPACE", "CONNECTION_LOST"]),
            min_size=1,
            max_size=30,
        )
    )
    def everyone_proceeds(self, ends: list[str]) -> None:
        self.everything_goes_well_for_a_while()
        for _ in range(3):
            for position, device in enumerate(self.fleet):
                if device.busy:
                    self.proceed_with(position, ends[position % len(ends)])
        for _ in range(6):
            self.everyone_is_sighted()
            self.fold(Tick(self.now))

    @rule(which=INDEX)
    def listen(self, which: int) -> None:
        """A device obeys what is retained for it."""
        index = which % self.plan.size
        device = self.fleet[index]
        action, attempt = self.desired.get(index, ("", 0))
        if action == "install" and attempt > max(device.attempt, device.refused) and not device.busy:
            device.attempt, device.step, device.accepted_boot = attempt, 0, device.boot
            self.become(index, "accepted")
        elif action == "cancel" and attempt > device.refused and device.phase != "installed":
            device.refused = attempt
            if device.busy or attempt > device.attempt:
                device.attempt, device.step = max(device.attempt, attempt), device.step
                self.become(index, "canceled", "CANCELED")

    @rule(which=INDEX, attempts=st.integers(1, 3))
    def accept_in_a_race(self, which: int, attempts: int) -> None:
        """A device accepts what was withdrawn a moment ago: its report and the cancel cross."""
        index = which % self.plan.size
        device = self.fleet[index]
        action, attempt = self.desired.get(index, ("", 0))
        if action == "cancel" and attempt > max(device.attempt, device.refused) and not device.busy:
            self.raced.add(index)
            device.attempt, device.step, device.accepted_boot = attempt, 0, device.boot
            self.become(index, "accepted")

    @rule(which=INDEX, end=st.sampled_from(["succeeded", "succeeded", "succeeded", "rolled_back", "NO_SPACE", "CONNECTION_LOST"]))
    def proceed(self, which: int, end: str) -> None:
        busy = [index for index, device in enumerate(self.fleet) if device.busy]
        if not busy:
            return
        self.proceed_with(busy[which % len(busy)], end)

    def proceed_with(self, index: int, end: str) -> None:
        device = self.fleet[index]
        if device.phase == "accepted":
            self.become(index, "downloading")
        elif device.phase == "downloading" and end.isupper():
            self.become(index, "failed", end)
        elif device.phase == "downloading":
            self.become(index, "installed")
        else:
            device.boot += 1
            device.image = NEW if end == "succeeded" else OLD
            if end == "succeeded":
                self.become(index, end)
            else:
                self.become(index, "rolled_back", "HEALTH_FAILED")

    @rule(which=INDEX)
    def fall_back_late(self, which: int) -> None:
        device = self.fleet[which % self.plan.size]
        if device.phase == "succeeded" and which % 7 == 0:
            device.boot, device.image = device.boot + 1, OLD
            self.fold(self.sighting(which % self.plan.size))

    @rule()
    def everyone_is_sighted(self) -> None:
        self.now += 6
        for index, device in enumerate(self.fleet):
            if device.online:
                self.fold(self.sighting(index))

    @rule(which=INDEX)
    def come_and_go(self, which: int) -> None:
        device = self.fleet[which % self.plan.size]
        device.online = not device.online
        self.fold(self.sighting(which % self.plan.size))

    # Laws --------------------------------------------------------------------------------------------------------------------

    @invariant()
    def a_stopped_rollout_stays_stopped(self) -> None:
        if self.over and self.state and decode_state(self.state).state in (State.HALTED, State.ABORTED):
            assert self.rollout.state in (State.HALTED, State.ABORTED)

    @invariant()
    def counts_add_up(self) -> None:
        c = self.rollout.counts()
        parts = (c.queued, c.offered, c.withdrawing, c.withdrawn, c.canceled, c.updating, c.succeeded, c.failed, c.regressed)
        assert sum(parts) + c.overdue + c.other + c.removed == c.targets == self.plan.size
        assert sum(c.codes.values()) == c.failed + c.regressed + c.other

    @invariant()
    def counters_agree_with_the_arrays(self) -> None:
        ledger = self.rollout.ledger
        for stage in Stage:
            members = [index for index in range(ledger.size) if ledger.stage[index] == stage]
            assert ledger.totals[stage] == len(members)
            for wave, row in enumerate(ledger.waves):
                assert row[stage] == sum(ledger.wave[index] == wave for index in members)
        assert ledger.exposed == sum(EXPOSED[stage] for stage in ledger.stage)
        assert self.rollout.devices.soaking >= 0

    @invariant()
    def nothing_is_exposed_outside_a_wave(self) -> None:
        ledger = self.rollout.ledger
        assert all(ledger.wave[index] for index in range(ledger.size) if EXPOSED[ledger.stage[index]])


# A crash may lose a halt that was decided and not yet published; the facts then decide again.
class CrashingMachine(Machine):
    @rule(seed=st.integers(0, 1 << 20))
    def crash(self, seed: int) -> None:
        if not (self.state and decode_state(self.state).state in (State.HALTED, State.ABORTED)):
            self.over = False
        super().crash(seed)


TestMachine = CrashingMachine.TestCase
TestMachine.settings = settings(max_examples=80, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck))
