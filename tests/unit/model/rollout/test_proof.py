"""Scenes of proof: what makes an update proven, overdue, silent or regressed."""

from collections.abc import Callable
from typing import Any

from fleetctl.model.rollout import (
    Event,
    Offered,
    Parameters,
    Reported,
    Restored,
    Sighted,
)

NEW, OLD = "sha256:" + "a" * 64, "sha256:" + "b" * 64
HOUR = 3600.0
SceneOf = Callable[..., Any]


def test_a_report_alone_is_no_proof(scene_of: SceneOf) -> None:
    scene = scene_of(10)
    scene.accept(0)
    scene.report(0, "succeeded", 9, boot=2)
    assert scene.stage(0) == "updating"
    scene.sight(0, OLD)
    assert scene.stage(0) == "updating"
    assert "presence does not show the image" in scene.rollout.explain(0).why


def test_the_right_image_without_a_restart_is_no_proof(scene_of: SceneOf) -> None:
    scene = scene_of(10)
    scene.accept(0)
    scene.report(0, "succeeded", 9)
    scene.sight(0, NEW, boot=1)
    assert scene.stage(0) == "updating"
    scene.sight(0, NEW, boot=2)
    assert scene.stage(0) == "succeeded"


def test_a_device_that_never_said_its_boot_count_at_acceptance_proves_nothing(scene_of: SceneOf) -> None:
    scene = scene_of(10)
    scene.fold(Reported(0, 1, 9, "succeeded", None, 2, None, scene.now))
    scene.sight(0)
    assert scene.stage(0) == "updating"
    assert "boot count at acceptance" in scene.rollout.explain(0).why


def test_k_further_sightings_half_a_heartbeat_apart_make_the_proof(scene_of: SceneOf) -> None:
    scene = scene_of(10, Parameters(heartbeats=2, soak=0))
    scene.succeed(0)
    for seconds in (1, 1, 4, 1):
        scene.now += seconds
        scene.sight(0)
    assert scene.rollout.explain(0).why.endswith("1 of 2 further sightings so far")
    scene.now += 5
    scene.sight(0)
    assert scene.stage(0) == "succeeded"


def test_heartbeats_by_the_devices_own_clock_prove_to_a_driver_that_looks_once(scene_of: SceneOf) -> None:
    for late_first in (False, True):
        events: list[Event] = [
            Reported(0, 1, 9, "succeeded", None, 2, 1, 500, stamp=1000.0),
            Sighted(0, NEW, 2, 1, True, 10, 500, stamp=1019.0),
        ]
        scene = scene_of(10, Parameters(heartbeats=2, soak=0), retained=events[::-1] if late_first else events)
        assert scene.stage(0) == "succeeded"


def test_an_older_session_says_nothing(scene_of: SceneOf) -> None:
    scene = scene_of(10)
    scene.succeed(0)
    scene.sight(0, OLD, boot=1, online=False)
    assert scene.stage(0) == "succeeded"


def test_a_device_that_falls_back_in_its_soak_has_regressed(scene_of: SceneOf) -> None:
    scene = scene_of(10, Parameters(heartbeats=0, soak=100))
    scene.succeed(0)
    assert scene.offers == [0], "the gate waits for the soak"
    scene.sight(0, OLD, boot=3)
    assert scene.stage(0) == "regressed"
    assert scene.rollout.counts().codes == {"ROLLED_BACK": 1}


def test_a_device_that_goes_stale_in_its_soak_has_regressed(scene_of: SceneOf) -> None:
    scene = scene_of(10, Parameters(heartbeats=0, soak=100))
    scene.succeed(0)
    scene.wait(30)
    assert scene.stage(0) == "regressed"
    assert scene.rollout.counts().codes == {"SILENT": 1}


def test_a_device_that_is_seen_through_its_soak_lets_the_gate_open(scene_of: SceneOf) -> None:
    scene = scene_of(10, Parameters(heartbeats=0, soak=100, heartbeat=10))
    scene.succeed(0)
    for _ in range(11):
        scene.sight(0)
        scene.wait(10)
    assert scene.rollout.wave == 2
    assert len(scene.offers) == 3


def test_an_overdue_device_pauses_and_a_late_proof_undoes_it(scene_of: SceneOf) -> None:
    scene = scene_of(100)
    for index in range(4):
        scene.succeed(index)
    scene.accept(4)
    scene.wait(1020)
    assert (scene.state, scene.stage(4)) == ("paused", "overdue")
    assert scene.rollout.settled
    scene.succeed(4)
    assert scene.stage(4) == "succeeded"
    assert scene.rollout.counts().overdue == 0


def test_an_overdue_device_without_a_sign_of_life_becomes_silent(scene_of: SceneOf) -> None:
    scene = scene_of(100)
    scene.accept(0)
    scene.wait(1020)
    scene.wait(20)
    assert scene.stage(0) == "overdue"
    scene.wait(10)
    assert (scene.stage(0), scene.rollout.counts().codes) == ("failed", {"SILENT": 1})
    assert scene.rollout.devices.trials.failures == 1
    scene.succeed(0)
    assert (scene.stage(0), scene.rollout.devices.trials.failures) == ("succeeded", 0)


def test_an_overdue_device_that_lives_is_never_silent(scene_of: SceneOf) -> None:
    scene = scene_of(100)
    scene.accept(0)
    scene.wait(1020)
    for _ in range(10):
        scene.sight(0, OLD, 1)
        scene.wait(20)
    assert scene.stage(0) == "overdue"


def test_deadlines_do_not_begin_anew_with_each_driver(scene_of: SceneOf) -> None:
    first = scene_of(100)
    first.accept(0)
    first.now += 60
    left = Restored(first.rollout.snapshot(), 61)
    retained = [left, Offered(1, 1, 90), Offered(0, 1, 90), Reported(0, 1, 1, "accepted", None, 1, 1, 90)]
    second = scene_of(100, retained=retained, start=110)
    assert second.stage(1) == "withdrawn", "offered at 1, not at 90"
    second.wait(1000)
    assert second.stage(0) == "overdue"
    third = scene_of(100, retained=[Restored(second.rollout.snapshot(), 1200), *retained[1:]], start=1200)
    assert third.stage(0) == "overdue"
    assert third.rollout.counts().updating == 0
