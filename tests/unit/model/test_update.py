"""The update state machine: what it takes and refuses, and that no power cut leaves neither image."""

import itertools
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from fleetctl.model import update
from fleetctl.model.attempt import COMMITTED, FINAL, Code, Image, Offer, Phase, Record, Slot, Terms
from fleetctl.model.update import Do, Moment, Verdict

OLD = Image("sha256:old", "1.0.0", 10)
NEW = Image("sha256:new", "2.0.0", 20, 5)
NOON = 12 * 3600.0
SIZE = 100
IDLE = Record(a=OLD, boot=1)


def offer(order: int = 1, **changes: Any) -> Offer:
    attempt = (order + 1) // 2
    base = Offer("r1", order, attempt, cancel=False, content=f"c{order}", manifest="sha256:m", image=NEW)
    return replace(base, **changes)


def cancel(order: int = 2) -> Offer:
    return offer(order, cancel=True, attempt=order // 2, image=None)


def receive(record: Record, one: Offer, now: float | None = NOON) -> tuple[Verdict, Record]:
    verdict, records = update.receive(record, one, Moment(now), SIZE)
    return verdict, records[-1] if records else record


def phase_of(record: Record) -> Phase | None:
    return record.attempt.phase if record.attempt else None


def at(phase: Phase) -> Record:
    """A record that has come as far as `phase` on the way of a good update."""
    record = receive(IDLE, offer())[1]
    way = {Do.START, Do.FETCH, Do.VERIFY, Do.BEGIN, Do.WRITE, Do.COMMIT, Do.REBOOT}
    while phase_of(record) is not phase:
        do = update.due(record, Moment(NOON), confirmed=True)
        if do is Do.TEST or phase_of(record) is Phase.REBOOTING:
            record = update.boot(record)[-1] if phase_of(record) is Phase.REBOOTING else update.judged(record, True, "")
        else:
            assert do in way
            record = update.done(record, do)
    return record


# -- orders


def test_the_same_assignment_again_is_nothing_new() -> None:
    record = receive(IDLE, offer())[1]
    assert receive(record, offer()) == (Verdict.REPEATED, record)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_an_order_that_does_not_rise_is_refused(order: int) -> None:
    record = replace(IDLE, order=3, content="c3")
    assert receive(record, offer(order, content="other")) == (Verdict.REFUSED, record)


def test_an_attempt_counts_once_whatever_its_order() -> None:
    record = receive(IDLE, offer())[1]
    assert receive(record, offer(7, attempt=1)) == (Verdict.REFUSED, record)


def test_a_flawed_manifest_fails_and_is_never_accepted() -> None:
    verdict, record = receive(IDLE, offer(image=None, flaw=Code.UNTRUSTED_KEY))
    assert (verdict, phase_of(record)) == (Verdict.DECLINED, Phase.FAILED)
    assert record.attempt is not None
    assert (record.attempt.code, record.attempt.accepted_boot) == (Code.UNTRUSTED_KEY, None)


@pytest.mark.parametrize(
    ("record", "changes", "now", "code"),
    [
        (IDLE, {"compatible": False}, NOON, Code.INCOMPATIBLE),
        (replace(IDLE, security_counter=6), {"allow_downgrade": True}, NOON, Code.DOWNGRADE),
        (IDLE, {"image": replace(NEW, version="0.9.0")}, NOON, Code.DOWNGRADE),
        (IDLE, {"image": replace(NEW, version="1.0.0-rc.1")}, NOON, Code.DOWNGRADE),
        (IDLE, {"image": replace(NEW, size=101)}, NOON, Code.NO_SPACE),
        (IDLE, {"terms": Terms(not_before=1)}, None, Code.NO_CLOCK),
        (IDLE, {"terms": Terms(window=(0, 1))}, None, Code.NO_CLOCK),
        (IDLE, {"terms": Terms(not_after=NOON - 1)}, NOON, Code.EXPIRED),
    ],
)
def test_what_must_not_be_installed_is_rejected(record: Record, changes: dict[str, Any], now: float | None, code: Code) -> None:
    verdict, after = receive(record, offer(**changes), now)
    assert (verdict, phase_of(after)) == (Verdict.DECLINED, Phase.REJECTED)
    assert after.attempt is not None
    assert after.attempt.code is code
    assert after.order == 1


def test_a_downgrade_that_is_allowed_and_a_version_without_an_order_are_accepted() -> None:
    older = replace(NEW, version="0.9.0")
    assert receive(IDLE, offer(image=older, allow_downgrade=True))[0] is Verdict.ACCEPTED
    assert receive(IDLE, offer(image=replace(NEW, version="nightly")))[0] is Verdict.ACCEPTED


# -- cancelling


@pytest.mark.parametrize("phase", [Phase.ACCEPTED, Phase.DOWNLOADING, Phase.DOWNLOADED, Phase.VERIFIED, Phase.INSTALLING])
def test_a_cancel_stops_what_has_no_boot_flag(phase: Phase) -> None:
    verdict, record = receive(at(phase), cancel())
    assert (verdict, phase_of(record)) == (Verdict.CANCELED, Phase.CANCELED)
    assert record.attempt is not None
    assert (record.attempt.order, record.attempt.code) == (2, Code.CANCELED)
    assert record.trial is None
    assert update.due(record, Moment(NOON), confirmed=True) is Do.NOTHING


@pytest.mark.parametrize("phase", sorted(COMMITTED - {Phase.ROLLING_BACK}))
def test_a_cancel_after_the_boot_flag_waits_for_the_end(phase: Phase) -> None:
    assert receive(at(phase), cancel()) == (Verdict.POSTPONED, at(phase))


def test_a_cancel_of_a_finished_attempt_changes_only_the_order() -> None:
    done = at(Phase.SUCCEEDED)
    verdict, record = receive(done, cancel())
    assert (verdict, record.attempt, record.order) == (Verdict.CANCELED, done.attempt, 2)


def test_a_cancel_of_an_attempt_never_seen_says_that_it_was_received() -> None:
    record = receive(IDLE, cancel())[1]
    assert record.attempt is not None
    assert (record.attempt.phase, record.attempt.number, record.attempt.accepted_boot) == (Phase.CANCELED, 1, None)
    assert receive(record, offer(1))[0] is Verdict.REFUSED


def test_a_higher_install_supersedes_and_both_are_reported() -> None:
    verdict, records = update.receive(at(Phase.DOWNLOADING), offer(3, rollout_id="r2"), Moment(NOON), SIZE)
    assert verdict is Verdict.ACCEPTED
    told = [(record.attempt.rollout_id, record.attempt.phase) for record in records if record.attempt]
    assert told == [("r1", Phase.CANCELED), ("r2", Phase.ACCEPTED)]


# -- when


def test_an_assignment_not_seen_in_this_session_never_sets_the_boot_flag() -> None:
    record = update.done(at(Phase.INSTALLING), Do.WRITE)
    assert update.due(record, Moment(NOON), confirmed=False) is Do.WAIT
    assert update.due(record, Moment(NOON), confirmed=True) is Do.COMMIT


@pytest.mark.parametrize(
    ("terms", "moment", "seconds"),
    [
        (Terms(), Moment(NOON), 0),
        (Terms(delay=30), Moment(None, 10), 20),
        (Terms(not_before=NOON + 60), Moment(NOON), 60),
        (Terms(window=(11 * 60, 13 * 60)), Moment(NOON), 0),
        (Terms(window=(13 * 60, 14 * 60)), Moment(NOON), 3600),
        (Terms(window=(22 * 60, 2 * 60)), Moment(NOON), 36000),
        (Terms(window=(22 * 60, 2 * 60)), Moment(3600.0), 0),
        (Terms(window=(11 * 60, 12 * 60), delay=60), Moment(NOON - 30), 23 * 3600 + 30),
    ],
)
def test_terms_say_how_long_to_wait(terms: Terms, moment: Moment, seconds: float) -> None:
    assert update.hold(terms, moment) == pytest.approx(seconds)


def test_what_must_wait_is_deferred_and_then_goes_on() -> None:
    record = receive(IDLE, offer(terms=Terms(delay=30)))[1]
    assert update.due(record, Moment(NOON), confirmed=True) is Do.DEFER
    record = update.done(record, Do.DEFER)
    assert update.due(record, Moment(NOON, 29), confirmed=True) is Do.WAIT
    assert update.due(record, Moment(NOON, 30), confirmed=True) is Do.START


def test_time_that_runs_out_before_the_boot_flag_ends_the_attempt() -> None:
    record = receive(IDLE, offer(terms=Terms(not_after=NOON + 1)))[1]
    assert update.due(record, Moment(NOON + 2), confirmed=True) is Do.EXPIRE
    assert phase_of(update.done(record, Do.EXPIRE)) is Phase.FAILED


@given(st.sampled_from(list(Phase)), st.sampled_from(list(Do)))
def test_what_is_not_due_is_refused_or_leaves_the_slots_alone(phase: Phase, do: Do) -> None:
    if phase in {Phase.DEFERRED, Phase.ROLLING_BACK, Phase.ROLLED_BACK, Phase.CANCELED, Phase.REJECTED, Phase.FAILED}:
        return
    record = at(phase)
    try:
        after = update.done(record, do)
    except ValueError:
        return
    assert after.sound()
    assert after.image(record.active) == record.image(record.active)


# -- power cuts


class PowerCut(Exception):
    pass


@dataclass
class Machine:
    """A device with flash: `slots` is what its bytes are, `disk` its record; power fails before the steps in `cuts`."""

    cuts: set[int]
    healthy: bool = True
    hangs: bool = False
    slots: dict[Slot, str] = field(default_factory=lambda: {Slot.A: OLD.digest, Slot.B: ""})
    disk: Record = field(default_factory=lambda: Record(a=OLD))
    steps: int = 0
    accepted: int = 0
    confirmed: bool = False
    assignment: Offer = field(default_factory=offer)

    def durable(self) -> None:
        """A place where power may fail."""
        self.steps += 1
        if self.steps in self.cuts:
            raise PowerCut

    def write(self, *records: Record) -> None:
        self.durable()
        if not records:
            return
        if phase_of(records[-1]) is Phase.ACCEPTED and self.disk.attempt is None:
            self.accepted += 1
        assert records[-1].sound()
        self.disk = records[-1]

    def run(self) -> None:
        """Until nothing is due; every boot is one turn."""
        for _ in range(20):
            try:
                if self.one_boot():
                    return
            except PowerCut:
                pass
        raise AssertionError("it never comes to rest")

    def one_boot(self) -> bool:
        trial = self.disk.trial
        image = self.disk.image(trial) if trial else None
        self.write(*update.boot(self.disk, image is None or trial is None or self.slots[trial] == image.digest))
        assert self.slots[self.disk.running] == self.disk.current.digest, "what runs is neither old nor new"
        self.write(*update.receive(self.disk, self.assignment, Moment(NOON), SIZE)[1])
        while True:
            do = update.due(self.disk, Moment(NOON), confirmed=True)
            if do is Do.NOTHING:
                return True
            if do is Do.REBOOT:
                self.write(update.done(self.disk, do))
                return False
            self.work(do)

    def work(self, do: Do) -> None:
        if do is Do.TEST:
            if self.hangs:
                raise PowerCut
            self.write(update.judged(self.disk, self.healthy, ""))
            return
        if do is Do.WRITE:
            inactive = self.disk.active.other
            assert self.disk.image(inactive) is None, "a slot is overwritten that counts as good"
            assert inactive is not self.disk.running
            self.slots[inactive] = "half written"
            self.durable()
            self.slots[inactive] = NEW.digest
        self.write(update.done(self.disk, do))


def check(machine: Machine) -> None:
    record = machine.disk
    assert record.trial is None
    assert record.running is record.active
    assert record.attempt is not None
    assert record.attempt.phase in FINAL
    assert machine.accepted == 1
    new = record.current == NEW
    assert new == (record.attempt.phase is Phase.SUCCEEDED)
    assert record.security_counter == (NEW.security_counter if new else 0)
    if machine.hangs or not machine.healthy:
        assert record.attempt.phase is Phase.ROLLED_BACK
        assert record.attempt.code in (Code.HEALTH_FAILED, Code.BOOT_FAILED)


@pytest.mark.parametrize(("healthy", "hangs"), [(True, False), (False, False), (True, True)])
def test_any_two_power_cuts_leave_the_old_or_the_new_image_and_it_says_which(healthy: bool, hangs: bool) -> None:
    whole = Machine(set(), healthy, hangs)
    whole.run()
    check(whole)
    for cuts in itertools.combinations(range(1, whole.steps + 6), 2):
        machine = Machine(set(cuts), healthy, hangs)
        machine.run()
        check(machine)
        if healthy and not hangs:
            assert machine.disk.current == NEW


@settings(max_examples=300, deadline=None)
@given(st.sets(st.integers(1, 60), max_size=12), st.booleans())
def test_many_power_cuts_still_come_to_rest(cuts: set[int], healthy: bool) -> None:
    machine = Machine(cuts, healthy)
    machine.run()
    check(machine)


def test_a_damaged_trial_image_is_never_started() -> None:
    falling, fallen = update.boot(at(Phase.REBOOTING), trial_intact=False)
    assert phase_of(falling) is Phase.ROLLING_BACK
    assert (fallen.running, fallen.trial, phase_of(fallen)) == (Slot.A, None, Phase.ROLLED_BACK)
    assert fallen.attempt is not None
    assert fallen.attempt.code is Code.BOOT_FAILED


def test_the_security_counter_rises_only_after_the_confirmation() -> None:
    confirmed = update.judged(at(Phase.TESTING), True, "")
    assert confirmed.security_counter == 0
    assert update.due(confirmed, Moment(NOON), confirmed=False) is Do.RAISE_COUNTER
    assert update.done(confirmed, Do.RAISE_COUNTER).security_counter == NEW.security_counter


class Life(RuleBasedStateMachine):
    """Anything may come at any time: offers, cancels, replays, sessions, power cuts, good and bad images."""

    def __init__(self) -> None:
        super().__init__()
        self.record = Record(a=OLD)
        self.order = 0
        self.told: dict[tuple[str, int], int] = {}
        self.finals: dict[tuple[str, int], Phase] = {}
        self.accepted: set[tuple[str, int]] = set()
        self.confirmed = False
        self.heard: list[Offer] = []
        self.reboot()

    def keep(self, *records: Record) -> None:
        for record in records:
            attempt = record.attempt
            if attempt is None or attempt == self.record.attempt:
                continue
            key = (attempt.rollout_id, attempt.number)
            assert attempt.step > self.told.get(key, 0), "a report that does not count"
            assert key not in self.finals, "a final phase was not final"
            self.told[key] = attempt.step
            if attempt.phase is Phase.ACCEPTED:
                assert key not in self.accepted
                self.accepted.add(key)
            if attempt.final:
                self.finals[key] = attempt.phase
            self.record = record
        if records:
            self.record = records[-1]

    def hear(self, one: Offer) -> None:
        before = self.record
        verdict, records = update.receive(before, one, Moment(NOON), SIZE)
        if verdict in (Verdict.REFUSED, Verdict.POSTPONED, Verdict.REPEATED):
            assert records == ()
        self.keep(*records)
        self.confirmed = (self.record.order, self.record.content) == (one.order, one.content) or self.confirmed
        if records:
            self.confirmed = True

    def attempt_at(self, order: int, known: bool) -> tuple[str, int]:
        """A controller never uses an attempt under two orders; a mistaken one may repeat the last."""
        held = self.record.attempt
        return (held.rollout_id, held.number) if known and held else (f"r{order % 2}", order)

    @rule(skip=st.integers(0, 2), known=st.booleans(), older=st.booleans())
    def assign(self, skip: int, known: bool, older: bool) -> None:
        self.order += 1 + skip
        rollout, attempt = self.attempt_at(self.order, known)
        image = replace(NEW, digest=f"sha256:{self.order}", version="0.1.0" if older else "2.0.0", security_counter=0)
        one = offer(self.order, rollout_id=rollout, attempt=attempt, image=image)
        self.heard.append(one)
        self.hear(one)

    @rule(known=st.booleans())
    def cancel(self, known: bool) -> None:
        self.order += 1
        rollout, attempt = self.attempt_at(self.order, known)
        one = offer(self.order, rollout_id=rollout, attempt=attempt, cancel=True, image=None)
        self.heard.append(one)
        self.hear(one)

    @rule(which=st.integers(0, 50))
    def replay(self, which: int) -> None:
        if self.heard:
            self.hear(self.heard[which % len(self.heard)])

    @rule()
    def lose_session(self) -> None:
        self.confirmed = False

    @rule()
    def reboot(self) -> None:
        self.confirmed = False
        self.keep(*update.boot(self.record))

    @rule(healthy=st.booleans(), steps=st.integers(1, 12))
    def go_on(self, healthy: bool, steps: int) -> None:
        for _ in range(steps):
            do = update.due(self.record, Moment(NOON), self.confirmed)
            match do:
                case Do.NOTHING | Do.WAIT:
                    return
                case Do.TEST:
                    self.keep(update.judged(self.record, healthy, ""))
                case Do.REBOOT:
                    self.keep(update.done(self.record, do))
                    self.reboot()
                case Do.COMMIT:
                    assert self.confirmed
                    self.keep(update.done(self.record, do))
                case _:
                    self.keep(update.done(self.record, do))

    @rule()
    def fail(self) -> None:
        if update.due(self.record, Moment(NOON), self.confirmed) in (Do.FETCH, Do.VERIFY, Do.WRITE):
            self.keep(update.failed(self.record, Code.INTEGRITY))

    @invariant()
    def it_is_sound(self) -> None:
        assert self.record.sound()
        assert self.record.image(self.record.active) is not None
        if self.record.attempt is None or self.record.attempt.final:
            assert self.record.trial is None


Life.TestCase.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestLife = Life.TestCase
