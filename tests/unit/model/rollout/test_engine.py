"""Scenes of exposure: offers, places, retries, who leaves and who lies."""

from collections.abc import Callable
from typing import Any

import pytest

from fleetctl.model.rollout import (
    Changed,
    Completed,
    Offer,
    Offered,
    Parameters,
    Promoted,
    Removed,
    Reported,
    Rollout,
    Sighted,
    Superseded,
    Tick,
    Withdraw,
    Withdrawn,
)

NEW, OLD = "sha256:" + "a" * 64, "sha256:" + "b" * 64
HOUR = 3600.0
SceneOf = Callable[..., Any]


def test_nothing_is_asked_for_before_the_first_tick(scene_of: SceneOf) -> None:
    rollout = Rollout(scene_of(3).rollout.plan)
    assert rollout.fold(Sighted(0, OLD, 1, 1, True, 10, 0.5)) == []
    assert [type(act) for act in rollout.fold(Tick(1))] == [Changed, Promoted, Offer]


def test_a_rollout_exposes_wave_by_wave_and_completes(scene_of: SceneOf) -> None:
    scene = scene_of(100)
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


def test_state_is_to_be_published_before_the_offers_that_it_allows(scene_of: SceneOf) -> None:
    scene = scene_of(100)
    for index in range(4):
        scene.succeed(index)
    acts = scene.succeed(4)
    assert [type(act) for act in acts[:3]] == [Changed, Promoted, Offer]


def test_an_offer_that_is_not_accepted_in_time_is_withdrawn_and_the_next_device_takes_its_place(scene_of: SceneOf) -> None:
    scene = scene_of(100)
    for index in range(4):
        scene.accept(index)
    acts = scene.wait(110)
    assert [act for act in acts if isinstance(act, Withdraw | Offer)] == [Withdraw(4, 1), Offer(5, 1)]


def test_a_place_is_not_free_before_the_broker_holds_the_cancel(scene_of: SceneOf) -> None:
    rollout = Rollout(scene_of(100).rollout.plan)
    rollout.fold(Tick(1))
    for index in range(5):
        rollout.fold(Offered(index, 1, 1))
    acts = rollout.fold(Tick(200))
    assert acts == [Withdraw(index, 1) for index in range(5)]
    assert rollout.fold(Withdrawn(3, 1, 201)) == [Offer(5, 1)]


def test_a_withdrawn_device_that_accepted_all_the_same_is_exposed_and_counts(scene_of: SceneOf) -> None:
    scene = scene_of(100)
    scene.wait(110)
    assert scene.stage(0) == "withdrawn"
    scene.accept(0)
    assert scene.stage(0) == "updating"
    assert scene.rollout.counts().exposed == 1


def test_a_device_that_cancels_is_not_exposed_any_more(scene_of: SceneOf) -> None:
    scene = scene_of(100)
    scene.accept(0)
    acts = scene.report(0, "canceled", 2, "CANCELED")
    assert scene.rollout.counts().exposed == 0
    assert Offer(5, 1) in acts


def test_who_was_away_is_offered_the_release_again_when_it_is_back(scene_of: SceneOf) -> None:
    scene = scene_of(6, Parameters(soak=0, heartbeats=0, small_fleet=0, accept_within=100))
    for index in range(1, 5):
        scene.succeed(index)
    scene.wait(110)
    assert scene.offers == [0, 1, 2, 3, 4, 5]
    assert Offer(0, 2) in scene.sight(0, OLD, 1) + scene.succeed(5)
    scene.succeed(0, attempt=2)
    assert scene.rollout.counts().succeeded == 6
    assert scene.state == "completed"


def test_devices_that_never_accept_are_untouched_and_the_rollout_completes(scene_of: SceneOf) -> None:
    scene = scene_of(10)
    for _ in range(20):
        scene.wait(110)
    assert scene.state == "completed"
    assert scene.rollout.counts().untouched == 10
    assert len(scene.offers) == 10


def test_transient_failures_are_tried_again_and_then_are_failures_of_another_kind(scene_of: SceneOf) -> None:
    scene = scene_of(100)
    assert Offer(0, 2) in scene.fail(0, "CONNECTION_LOST")
    assert Offer(0, 3) in scene.fail(0, "CONNECTION_LOST", 2)
    assert Offer(5, 1) not in scene.fail(0, "CONNECTION_LOST", 3)
    assert scene.stage(0) == "other"
    assert scene.rollout.counts().codes == {"CONNECTION_LOST": 1}


def test_a_failure_of_the_firmware_is_never_tried_again(scene_of: SceneOf) -> None:
    scene = scene_of(100)
    scene.fail(0)
    scene.fold(Offered(0, 2, scene.now))
    scene.succeed(0, 2)
    assert scene.stage(0) == "failed"


def test_a_device_that_rejects_was_not_exposed_and_frees_its_place(scene_of: SceneOf) -> None:
    scene = scene_of(100)
    acts = scene.report(0, "rejected", 1, "INCOMPATIBLE")
    assert Offer(5, 1) in acts
    assert (scene.stage(0), scene.rollout.counts().exposed) == ("rejected", 0)


def test_only_a_greater_step_counts_and_a_final_phase_is_final(scene_of: SceneOf) -> None:
    scene = scene_of(100)
    scene.report(0, "downloading", 3)
    scene.report(0, "canceled", 3, "CANCELED")
    assert scene.stage(0) == "updating"
    scene.fail(0)
    scene.report(0, "succeeded", 20)
    assert scene.stage(0) == "failed"


@pytest.mark.parametrize("leave", [Removed, Superseded])
def test_a_device_that_leaves_frees_its_place_and_is_no_failure(scene_of: SceneOf, leave: type[Removed | Superseded]) -> None:
    scene = scene_of(100)
    scene.accept(0)
    assert Offer(5, 1) in scene.fold(leave(0, scene.now))
    assert scene.rollout.counts().removed == 1


def test_what_devices_make_up_is_counted_and_ignored(scene_of: SceneOf) -> None:
    scene = scene_of(100)
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


def test_nothing_is_offered_before_its_time_or_after_it(scene_of: SceneOf) -> None:
    scene = scene_of(100, not_before=50, not_after=80)
    assert scene.offers == []
    scene.wait(60)
    assert len(scene.offers) == 5
    scene.now = 90
    for index in range(5):
        scene.succeed(index)
    assert scene.state == "completed"
    assert scene.rollout.counts().untouched == 95


def test_an_empty_plan_completes_at_once(scene_of: SceneOf) -> None:
    scene = scene_of(0)
    assert scene.state == "completed"
    assert scene.rollout.settled
