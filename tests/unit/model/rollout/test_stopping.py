"""Scenes of stopping: gates, pauses, halts and aborts."""

from collections.abc import Callable
from typing import Any

import pytest

from fleetctl.model.release import Release
from fleetctl.model.rollout import (
    Abort,
    Changed,
    Halted,
    Offer,
    Parameters,
    Paused,
    Promote,
    Restored,
    Rollout,
    State,
    Withdraw,
    make_plan,
)

NEW, OLD = "sha256:" + "a" * 64, "sha256:" + "b" * 64
HOUR = 3600.0
SceneOf = Callable[..., Any]


def test_the_first_wave_bears_no_failure_of_the_firmware(scene_of: SceneOf) -> None:
    scene = scene_of(100)
    for index in range(4):
        scene.succeed(index)
    scene.fail(4)
    assert scene.state == "paused"
    assert "1 failed and 0 overdue of 5 exposed, 0 allowed" in scene.rollout.reason


@pytest.mark.parametrize(("failures", "state"), [(1, State.RUNNING), (2, State.PAUSED)])
def test_a_later_wave_bears_one_failure_or_two_percent(scene_of: SceneOf, failures: int, state: State) -> None:
    scene = scene_of(1000)
    for index in range(5):
        scene.succeed(index)
    for index in range(5, 20):
        scene.fail(index) if index < 5 + failures else scene.succeed(index)
    assert scene.state == state


def test_a_person_passes_the_gate(scene_of: SceneOf) -> None:
    scene = scene_of(100)
    for index in range(4):
        scene.succeed(index)
    scene.fail(4)
    acts = scene.fold(Promote(scene.now))
    assert isinstance(acts[0], Changed)
    assert sum(isinstance(act, Offer) for act in acts) == 15
    assert scene.state == "running"


def test_a_paused_rollout_offers_nothing(scene_of: SceneOf) -> None:
    scene = scene_of(100)
    for index in range(4):
        scene.succeed(index)
    scene.fail(4)
    assert not [act for act in scene.wait(HOUR) + scene.wait(HOUR) if isinstance(act, Offer)]


def test_a_small_fleet_does_not_grow_after_its_first_failure_and_halts_at_the_second(scene_of: SceneOf) -> None:
    scene = scene_of(30)
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


def test_the_bad_release_of_the_demo_stops_at_the_second_device(scene_of: SceneOf) -> None:
    scene = scene_of(30)
    scene.fail(0)
    scene.fail(1)
    assert scene.offers == [0, 1]
    assert scene.state == "halted"


def test_a_halt_cancels_what_has_not_set_its_boot_flag_and_leaves_the_others(scene_of: SceneOf) -> None:
    scene = scene_of(100)
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


def test_a_halted_rollout_never_offers_again(scene_of: SceneOf) -> None:
    scene = scene_of(100)
    for index in range(3):
        scene.fail(index)
    before = len(scene.offers)
    scene.fold(Promote(scene.now))
    scene.succeed(3)
    scene.sight(4, OLD, 1)
    scene.wait(10 * HOUR)
    assert len(scene.offers) == before


def test_an_abort_withdraws_what_is_on_offer(scene_of: SceneOf) -> None:
    scene = scene_of(100)
    acts = scene.fold(Abort(scene.now))
    assert [act for act in acts if isinstance(act, Withdraw)] == [Withdraw(index, 1) for index in range(5)]
    assert scene.state == "aborted"
    assert scene.rollout.settled


def test_failures_that_are_not_the_firmwares_pause_at_a_rate_of_their_own(scene_of: SceneOf) -> None:
    scene = scene_of(100)
    for index in range(3):
        scene.fail(index, "NO_SPACE")
    assert scene.state == "paused"
    assert "3 of 3 devices failed for reasons other than the firmware" in scene.rollout.reason
    scene.fold(Promote(scene.now))
    assert scene.state == "running"


def test_a_wave_that_proved_nothing_is_not_promoted(scene_of: SceneOf) -> None:
    calm = Parameters(soak=0, heartbeats=0, other_floor=100)
    scene = scene_of(100, calm)
    for index in range(5):
        scene.fail(index, "NO_SPACE")
    assert scene.state == "paused"
    assert "none of 5 exposed devices" in scene.rollout.reason


def test_another_drivers_halt_stops_this_one(scene_of: SceneOf) -> None:
    first, second = scene_of(100), scene_of(100)
    first.fold(Abort(first.now))
    acts = second.fold(Restored(first.rollout.snapshot(), second.now))
    assert second.state == "aborted"
    assert sum(isinstance(act, Withdraw) for act in acts) == 5


def test_the_state_of_another_rollout_is_ignored(scene_of: SceneOf) -> None:
    scene = scene_of(100)
    foreign = make_plan("r2", "acme", Release.parse("pump@2.0.0"), NEW, OLD, [], created_at=0)
    scene.fold(Restored(Rollout(foreign).snapshot(), scene.now))
    assert scene.rollout.counts().ignored == 1


def test_a_paused_rollout_announces_it_once(scene_of: SceneOf) -> None:
    scene = scene_of(100)
    for index in range(4):
        scene.succeed(index)
    scene.fail(4)
    scene.wait(HOUR)
    assert sum(isinstance(act, Paused) for act in scene.acts) == 1
