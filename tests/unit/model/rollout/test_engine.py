"""Scenes of a rollout, told event by event."""

from collections.abc import Sequence

import pytest

from fleetctl.model.device import DevicePath
from fleetctl.model.release import Release
from fleetctl.model.rollout import (
    Abort,
    Act,
    Candidate,
    Changed,
    Completed,
    Event,
    Halted,
    Offer,
    Offered,
    Parameters,
    Paused,
    Plan,
    Promote,
    Promoted,
    Removed,
    Reported,
    Restored,
    Rollout,
    Sighted,
    State,
    Superseded,
    Target,
    Tick,
    Withdraw,
    Withdrawn,
    make_plan,
)

NEW, OLD = "sha256:" + "a" * 64, "sha256:" + "b" * 64
QUICK = Parameters(soak=0, heartbeats=0, heartbeat=10, accept_within=100, finish_within=1000)
HOUR = 3600.0


def plan_of(size: int, parameters: Parameters = QUICK, not_before: int | None = None, not_after: int | None = None) -> Plan:
    targets = [Target(DevicePath("acme", "hall", "pump", f"p{number}"), OLD, 7, "pump", "") for number in range(size)]
    release = Release.parse("pump@2.0.0")
    found = [Candidate(target) for target in targets]
    return make_plan(
        "r1",
        "acme",
        release,
        NEW,
        OLD,
        found,
        created_at=0,
        parameters=parameters,
        not_before=not_before,
        not_after=not_after,
    )


class Scene:
    """A rollout whose broker acknowledges at once; `acts` is all that it asked for."""

    def __init__(self, plan: Plan, retained: Sequence[Event] = ()) -> None:
        self.rollout = Rollout(plan)
        self.acts: list[Act] = []
        self.now = 1.0
        for event in retained:
            self.fold(event)
        self.wait(0)

    def fold(self, event: Event) -> list[Act]:
        waiting, asked = [event], []
        while waiting:
            for act in self.rollout.fold(waiting.pop(0)):
                asked.append(act)
                if isinstance(act, Offer):
                    waiting.append(Offered(act.index, act.attempt, self.now))
                elif isinstance(act, Withdraw):
                    waiting.append(Withdrawn(act.index, act.attempt, self.now))
        self.acts += asked
        return asked

    def wait(self, seconds: float) -> list[Act]:
        self.now += seconds
        return self.fold(Tick(self.now))

    def report(
        self, index: int, phase: str, step: int = 5, code: str | None = None, attempt: int = 1, boot: int = 1
    ) -> list[Act]:
        return self.fold(Reported(index, attempt, step, phase, code, boot, None if phase == "rejected" else 1, self.now))

    def accept(self, index: int, attempt: int = 1) -> list[Act]:
        return self.report(index, "accepted", 1, attempt=attempt)

    def fail(self, index: int, code: str = "HEALTH_FAILED", attempt: int = 1) -> list[Act]:
        self.accept(index, attempt)
        return self.report(index, "rolled_back" if code in {"HEALTH_FAILED", "SILENT"} else "failed", 9, code, attempt)

    def sight(self, index: int, image: str = NEW, boot: int = 2, online: bool = True, heartbeat: float = 10) -> list[Act]:
        return self.fold(Sighted(index, image, boot, 1, online, heartbeat, self.now))

    def succeed(self, index: int, attempt: int = 1) -> list[Act]:
        self.accept(index, attempt)
        return self.report(index, "succeeded", 9, attempt=attempt, boot=2) + self.sight(index)

    @property
    def state(self) -> str:
        return str(self.rollout.state)

    @property
    def offers(self) -> list[int]:
        return [act.index for act in self.acts if isinstance(act, Offer)]

    def stage(self, index: int) -> str:
        return self.rollout.explain(index).stage


def test_nothing_is_asked_for_before_the_first_tick() -> None:
    rollout = Rollout(plan_of(3))
    assert rollout.fold(Sighted(0, OLD, 1, 1, True, 10, 0.5)) == []
    assert [type(act) for act in rollout.fold(Tick(1))] == [Changed, Promoted, Offer]


def test_a_rollout_exposes_wave_by_wave_and_completes() -> None:
    scene = Scene(plan_of(100))
    for size in (5, 15, 45, 35):
        wave = scene.offers[-size:]
        assert scene.rollout.sizes[-1] == size
        for index in wave:
            assert scene.state == "running"
            scene.succeed(index)
    assert scene.state == "completed"
    assert scene.rollout.settled
    assert scene.rollout.counts().succeeded == 100
    assert sorted(scene.offers) == list(range(100))
    assert isinstance(scene.acts[-1], Completed)


def test_state_is_to_be_published_before_the_offers_that_it_allows() -> None:
    scene = Scene(plan_of(100))
    for index in range(4):
        scene.succeed(index)
    acts = scene.succeed(4)
    assert [type(act) for act in acts[:3]] == [Changed, Promoted, Offer]


def test_an_offer_that_is_not_accepted_in_time_is_withdrawn_and_the_next_device_takes_its_place() -> None:
    scene = Scene(plan_of(100))
    for index in range(4):
        scene.accept(index)
    acts = scene.wait(110)
    assert [act for act in acts if isinstance(act, Withdraw | Offer)] == [Withdraw(4, 1), Offer(5, 1)]


def test_a_place_is_not_free_before_the_broker_holds_the_cancel() -> None:
    rollout = Rollout(plan_of(100))
    rollout.fold(Tick(1))
    for index in range(5):
        rollout.fold(Offered(index, 1, 1))
    acts = rollout.fold(Tick(200))
    assert acts == [Withdraw(index, 1) for index in range(5)]
    assert rollout.fold(Withdrawn(3, 1, 201)) == [Offer(5, 1)]


def test_a_withdrawn_device_that_accepted_all_the_same_is_exposed_and_counts() -> None:
    scene = Scene(plan_of(100))
    scene.wait(110)
    assert scene.stage(0) == "withdrawn"
    scene.accept(0)
    assert scene.stage(0) == "updating"
    assert scene.rollout.counts().exposed == 1


def test_a_device_that_cancels_is_not_exposed_any_more() -> None:
    scene = Scene(plan_of(100))
    scene.accept(0)
    acts = scene.report(0, "canceled", 2, "CANCELED")
    assert scene.rollout.counts().exposed == 0
    assert Offer(5, 1) in acts


def test_who_was_away_is_offered_the_release_again_when_it_is_back() -> None:
    scene = Scene(plan_of(6, Parameters(soak=0, heartbeats=0, small_fleet=0, accept_within=100)))
    for index in range(1, 5):
        scene.succeed(index)
    scene.wait(110)
    assert scene.offers == [0, 1, 2, 3, 4, 5]
    assert Offer(0, 2) in scene.sight(0, OLD, 1) + scene.succeed(5)
    scene.succeed(0, attempt=2)
    assert scene.rollout.counts().succeeded == 6
    assert scene.state == "completed"


def test_devices_that_never_accept_are_untouched_and_the_rollout_completes() -> None:
    scene = Scene(plan_of(10))
    for _ in range(20):
        scene.wait(110)
    assert scene.state == "completed"
    assert scene.rollout.counts().untouched == 10
    assert len(scene.offers) == 10


def test_a_report_alone_is_no_proof() -> None:
    scene = Scene(plan_of(10))
    scene.accept(0)
    scene.report(0, "succeeded", 9, boot=2)
    assert scene.stage(0) == "updating"
    scene.sight(0, OLD)
    assert scene.stage(0) == "updating"
    assert "presence does not show the image" in scene.rollout.explain(0).why


def test_the_right_image_without_a_restart_is_no_proof() -> None:
    scene = Scene(plan_of(10))
    scene.accept(0)
    scene.report(0, "succeeded", 9)
    scene.sight(0, NEW, boot=1)
    assert scene.stage(0) == "updating"
    scene.sight(0, NEW, boot=2)
    assert scene.stage(0) == "succeeded"


def test_a_device_that_never_said_its_boot_count_at_acceptance_proves_nothing() -> None:
    scene = Scene(plan_of(10))
    scene.fold(Reported(0, 1, 9, "succeeded", None, 2, None, scene.now))
    scene.sight(0)
    assert scene.stage(0) == "updating"
    assert "boot count at acceptance" in scene.rollout.explain(0).why


def test_k_further_sightings_half_a_heartbeat_apart_make_the_proof() -> None:
    scene = Scene(plan_of(10, Parameters(heartbeats=2, soak=0)))
    scene.succeed(0)
    for seconds in (1, 1, 4, 1):
        scene.now += seconds
        scene.sight(0)
    assert scene.rollout.explain(0).why.endswith("1 of 2 further sightings so far")
    scene.now += 5
    scene.sight(0)
    assert scene.stage(0) == "succeeded"


def test_heartbeats_by_the_devices_own_clock_prove_to_a_driver_that_looks_once() -> None:
    for late_first in (False, True):
        events: list[Event] = [
            Reported(0, 1, 9, "succeeded", None, 2, 1, 500, stamp=1000.0),
            Sighted(0, NEW, 2, 1, True, 10, 500, stamp=1019.0),
        ]
        scene = Scene(plan_of(10, Parameters(heartbeats=2, soak=0)), events[::-1] if late_first else events)
        assert scene.stage(0) == "succeeded"


def test_an_older_session_says_nothing() -> None:
    scene = Scene(plan_of(10))
    scene.succeed(0)
    scene.sight(0, OLD, boot=1, online=False)
    assert scene.stage(0) == "succeeded"


def test_a_device_that_falls_back_in_its_soak_has_regressed() -> None:
    scene = Scene(plan_of(10, Parameters(heartbeats=0, soak=100)))
    scene.succeed(0)
    assert scene.offers == [0], "the gate waits for the soak"
    scene.sight(0, OLD, boot=3)
    assert scene.stage(0) == "regressed"
    assert scene.rollout.counts().codes == {"ROLLED_BACK": 1}


def test_a_device_that_goes_stale_in_its_soak_has_regressed() -> None:
    scene = Scene(plan_of(10, Parameters(heartbeats=0, soak=100)))
    scene.succeed(0)
    scene.wait(30)
    assert scene.stage(0) == "regressed"
    assert scene.rollout.counts().codes == {"SILENT": 1}


def test_a_device_that_is_seen_through_its_soak_lets_the_gate_open() -> None:
    scene = Scene(plan_of(10, Parameters(heartbeats=0, soak=100, heartbeat=10)))
    scene.succeed(0)
    for _ in range(11):
        scene.sight(0)
        scene.wait(10)
    assert scene.rollout.wave == 2
    assert len(scene.offers) == 3


def test_the_first_wave_bears_no_failure_of_the_firmware() -> None:
    scene = Scene(plan_of(100))
    for index in range(4):
        scene.succeed(index)
    scene.fail(4)
    assert scene.state == "paused"
    assert "1 failed and 0 overdue of 5 exposed, 0 allowed" in scene.rollout.reason


@pytest.mark.parametrize(("failures", "state"), [(1, State.RUNNING), (2, State.PAUSED)])
def test_a_later_wave_bears_one_failure_or_two_percent(failures: int, state: State) -> None:
    scene = Scene(plan_of(1000))
    for index in range(5):
        scene.succeed(index)
    for index in range(5, 20):
        scene.fail(index) if index < 5 + failures else scene.succeed(index)
    assert scene.state == state


def test_a_person_passes_the_gate() -> None:
    scene = Scene(plan_of(100))
    for index in range(4):
        scene.succeed(index)
    scene.fail(4)
    acts = scene.fold(Promote(scene.now))
    assert isinstance(acts[0], Changed)
    assert sum(isinstance(act, Offer) for act in acts) == 15
    assert scene.state == "running"


def test_a_paused_rollout_offers_nothing() -> None:
    scene = Scene(plan_of(100))
    for index in range(4):
        scene.succeed(index)
    scene.fail(4)
    assert not [act for act in scene.wait(HOUR) + scene.wait(HOUR) if isinstance(act, Offer)]


def test_an_overdue_device_pauses_and_a_late_proof_undoes_it() -> None:
    scene = Scene(plan_of(100))
    for index in range(4):
        scene.succeed(index)
    scene.accept(4)
    scene.wait(1020)
    assert (scene.state, scene.stage(4)) == ("paused", "overdue")
    assert scene.rollout.settled
    scene.succeed(4)
    assert scene.stage(4) == "succeeded"
    assert scene.rollout.counts().overdue == 0


def test_an_overdue_device_without_a_sign_of_life_becomes_silent() -> None:
    scene = Scene(plan_of(100))
    scene.accept(0)
    scene.wait(1020)
    scene.wait(20)
    assert scene.stage(0) == "overdue"
    scene.wait(10)
    assert (scene.stage(0), scene.rollout.counts().codes) == ("failed", {"SILENT": 1})
    assert scene.rollout.devices.trials.failures == 1
    scene.succeed(0)
    assert (scene.stage(0), scene.rollout.devices.trials.failures) == ("succeeded", 0)


def test_an_overdue_device_that_lives_is_never_silent() -> None:
    scene = Scene(plan_of(100))
    scene.accept(0)
    scene.wait(1020)
    for _ in range(10):
        scene.sight(0, OLD, 1)
        scene.wait(20)
    assert scene.stage(0) == "overdue"


def test_a_small_fleet_does_not_grow_after_its_first_failure_and_halts_at_the_second() -> None:
    scene = Scene(plan_of(30))
    scene.succeed(0)
    scene.fail(1)
    scene.succeed(2)
    assert scene.rollout.sizes == [1, 2, 2], "the first failure neither pauses nor grows"
    scene.succeed(3)
    scene.succeed(4)
    assert scene.rollout.sizes == [1, 2, 2, 4]
    acts = scene.fail(5)
    assert scene.state == "halted"
    assert [type(act) for act in acts] == [Changed, Halted, Withdraw, Withdraw, Withdraw]
    assert scene.rollout.settled
    counts = scene.rollout.counts()
    assert (counts.succeeded, counts.failed, counts.untouched) == (4, 2, 24)


def test_the_bad_release_of_the_demo_stops_at_the_second_device() -> None:
    scene = Scene(plan_of(30))
    scene.fail(0)
    scene.fail(1)
    assert scene.offers == [0, 1]
    assert scene.state == "halted"


def test_a_halt_cancels_what_has_not_set_its_boot_flag_and_leaves_the_others() -> None:
    scene = Scene(plan_of(100))
    scene.report(0, "downloading", 3)
    scene.report(1, "installed", 6)
    for index in (2, 3, 4):
        scene.fail(index)
    withdrawn = [act.index for act in scene.acts if isinstance(act, Withdraw)]
    assert scene.state == "halted"
    assert withdrawn == [0]
    assert scene.rollout.counts().updating == 2
    scene.report(0, "canceled", 4, "CANCELED")
    scene.report(1, "rolled_back", 9, "HEALTH_FAILED")
    assert scene.rollout.settled
    assert scene.rollout.counts().untouched == 96


def test_a_halted_rollout_never_offers_again() -> None:
    scene = Scene(plan_of(100))
    for index in range(3):
        scene.fail(index)
    before = len(scene.offers)
    scene.fold(Promote(scene.now))
    scene.succeed(3)
    scene.sight(4, OLD, 1)
    scene.wait(10 * HOUR)
    assert len(scene.offers) == before


def test_an_abort_withdraws_what_is_on_offer() -> None:
    scene = Scene(plan_of(100))
    acts = scene.fold(Abort(scene.now))
    assert [act for act in acts if isinstance(act, Withdraw)] == [Withdraw(index, 1) for index in range(5)]
    assert scene.state == "aborted"
    assert scene.rollout.settled


def test_transient_failures_are_tried_again_and_then_are_failures_of_another_kind() -> None:
    scene = Scene(plan_of(100))
    assert Offer(0, 2) in scene.fail(0, "CONNECTION_LOST")
    assert Offer(0, 3) in scene.fail(0, "CONNECTION_LOST", 2)
    assert Offer(5, 1) not in scene.fail(0, "CONNECTION_LOST", 3)
    assert scene.stage(0) == "other"
    assert scene.rollout.counts().codes == {"CONNECTION_LOST": 1}


def test_a_failure_of_the_firmware_is_never_tried_again() -> None:
    scene = Scene(plan_of(100))
    scene.fail(0)
    scene.fold(Offered(0, 2, scene.now))
    scene.succeed(0, 2)
    assert scene.stage(0) == "failed"


def test_failures_that_are_not_the_firmwares_pause_at_a_rate_of_their_own() -> None:
    scene = Scene(plan_of(100))
    for index in range(3):
        scene.fail(index, "NO_SPACE")
    assert scene.state == "paused"
    assert "3 of 3 devices failed for reasons other than the firmware" in scene.rollout.reason
    scene.fold(Promote(scene.now))
    assert scene.state == "running"


def test_a_device_that_rejects_was_not_exposed_and_frees_its_place() -> None:
    scene = Scene(plan_of(100))
    acts = scene.report(0, "rejected", 1, "INCOMPATIBLE")
    assert Offer(5, 1) in acts
    assert (scene.stage(0), scene.rollout.counts().exposed) == ("rejected", 0)


def test_a_wave_that_proved_nothing_is_not_promoted() -> None:
    calm = Parameters(soak=0, heartbeats=0, other_floor=100)
    scene = Scene(plan_of(100, calm))
    for index in range(5):
        scene.fail(index, "NO_SPACE")
    assert scene.state == "paused"
    assert "none of 5 exposed devices" in scene.rollout.reason


def test_only_a_greater_step_counts_and_a_final_phase_is_final() -> None:
    scene = Scene(plan_of(100))
    scene.report(0, "downloading", 3)
    scene.report(0, "canceled", 3, "CANCELED")
    assert scene.stage(0) == "updating"
    scene.fail(0)
    scene.report(0, "succeeded", 20)
    assert scene.stage(0) == "failed"


@pytest.mark.parametrize("leave", [Removed, Superseded])
def test_a_device_that_leaves_frees_its_place_and_is_no_failure(leave: type[Removed | Superseded]) -> None:
    scene = Scene(plan_of(100))
    scene.accept(0)
    assert Offer(5, 1) in scene.fold(leave(0, scene.now))
    assert scene.rollout.counts().removed == 1


def test_what_devices_make_up_is_counted_and_ignored() -> None:
    scene = Scene(plan_of(100))
    for event in (
        Reported(0, 99, 1, "accepted", None, 1, 1, 2.0),
        Reported(0, 1, -1, "accepted", None, 1, 1, 2.0),
        Reported(0, 1, 1 << 70, "accepted", None, 1, 1, 2.0),
        Reported(0, 1, 1, "exploded", None, 1, 1, 2.0),
        Reported(100, 1, 1, "accepted", None, 1, 1, 2.0),
        Sighted(0, NEW, 1 << 70, 1, True, 10, 2.0),
        Sighted(0, NEW, -1, 1, True, 10, 2.0),
    ):
        scene.fold(event)
    assert scene.rollout.counts().ignored == 7
    assert scene.rollout.counts().exposed == 0
    scene.fold(Sighted(0, OLD, 1, 1, True, float("nan"), 2.0))
    scene.report(0, "failed", 1, "MADE_UP")
    assert scene.rollout.counts().codes == {"INTERNAL": 1}


def test_nothing_is_offered_before_its_time_or_after_it() -> None:
    scene = Scene(plan_of(100, not_before=50, not_after=80))
    assert scene.offers == []
    scene.wait(60)
    assert len(scene.offers) == 5
    scene.now = 90
    for index in range(5):
        scene.succeed(index)
    assert scene.state == "completed"
    assert scene.rollout.counts().untouched == 95


def test_an_empty_plan_completes_at_once() -> None:
    scene = Scene(plan_of(0))
    assert scene.state == "completed"
    assert scene.rollout.settled


def test_another_drivers_halt_stops_this_one() -> None:
    first, second = Scene(plan_of(100)), Scene(plan_of(100))
    first.fold(Abort(first.now))
    acts = second.fold(Restored(first.rollout.snapshot(), second.now))
    assert second.state == "aborted"
    assert sum(isinstance(act, Withdraw) for act in acts) == 5


def test_the_state_of_another_rollout_is_ignored() -> None:
    scene = Scene(plan_of(100))
    foreign = make_plan("r2", "acme", Release.parse("pump@2.0.0"), NEW, OLD, [], created_at=0)
    scene.fold(Restored(Rollout(foreign).snapshot(), scene.now))
    assert scene.rollout.counts().ignored == 1


def test_a_paused_rollout_announces_it_once() -> None:
    scene = Scene(plan_of(100))
    for index in range(4):
        scene.succeed(index)
    scene.fail(4)
    scene.wait(HOUR)
    assert sum(isinstance(act, Paused) for act in scene.acts) == 1
