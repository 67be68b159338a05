"""Drivers that die: another one goes on from the plan and from what the broker retained."""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from fleetctl.model.rollout import (
    Act,
    Changed,
    Event,
    Offer,
    Offered,
    Plan,
    Promote,
    Reported,
    Restored,
    Rollout,
    Sighted,
    Snapshot,
    State,
    Tick,
    Withdraw,
    Withdrawn,
)

NEW = "sha256:" + "a" * 64
SceneOf = Callable[..., Any]


class Broker:
    """What is retained; devices that obey at once, and fail where they are bad."""

    def __init__(self, plan: Plan, bad: set[int]) -> None:
        self.plan, self.bad, self.now = plan, bad, 1.0
        self.state: Snapshot | None = None
        self.desired: dict[int, Event] = {}
        self.status: dict[int, Event] = {}
        self.presence: dict[int, Event] = {}
        self.accepted: Counter[tuple[int, int]] = Counter()

    def carry_out(self, act: Act) -> list[Event]:
        """Publish, and hear what comes of it."""
        self.now += 0.01
        if isinstance(act, Changed):
            self.state = act.snapshot
        elif isinstance(act, Withdraw):
            self.desired[act.index] = Withdrawn(act.index, act.attempt, self.now)
            return [self.desired[act.index]]
        elif isinstance(act, Offer):
            return self.answer(act.index, act.attempt)
        return []

    def answer(self, index: int, attempt: int) -> list[Event]:
        first = self.desired.get(index) != Offered(index, attempt, 0)
        self.desired[index] = Offered(index, attempt, 0)
        if not first:
            return [Offered(index, attempt, self.now)]
        self.accepted[index, attempt] += 1
        accepted = Reported(index, attempt, 1, "accepted", None, 1, 1, self.now)
        end = replace(accepted, step=9, phase="succeeded", boot=2)
        if index in self.bad:
            end = replace(accepted, step=9, phase="rolled_back", code="HEALTH_FAILED", boot=3)
        else:
            self.presence[index] = Sighted(index, NEW, 2, 1, True, 10, self.now)
        self.status[index] = end
        return [Offered(index, attempt, self.now), accepted, end, *([self.presence[index]] if index in self.presence else [])]

    def rebuilt(self, rng: random.Random, with_state: bool) -> list[Event]:
        """What a new driver reads, in any order."""
        retained = [*self.desired.values(), *self.status.values(), *self.presence.values()]
        if with_state and self.state:
            retained.append(Restored(self.state, self.now))
        rng.shuffle(retained)
        return [replace(event, at=self.now) for event in retained]


def drive_and_die(plan: Plan, bad: set[int], seed: int, with_state: bool) -> tuple[Rollout, Broker, int]:
    """Drive to the end with drivers that live for a few actions each."""
    rng, broker, drivers = random.Random(seed), Broker(plan, bad), 0
    while drivers < 500:
        drivers += 1
        rollout, life = Rollout(plan), rng.randint(1, 30)
        for event in broker.rebuilt(rng, with_state):
            assert rollout.fold(event) == []
        acts = rollout.fold(Tick(broker.now))
        while acts and life:
            life -= 1
            for event in broker.carry_out(acts.pop(0)):
                acts += rollout.fold(event)
        if not acts and rollout.state is not State.RUNNING:
            return rollout, broker, drivers
    raise AssertionError("the rollout does not end")


@pytest.mark.parametrize("with_state", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_drivers_that_die_finish_together_and_no_device_accepts_twice(scene_of: SceneOf, seed: int, with_state: bool) -> None:
    plan = scene_of(200).rollout.plan
    rollout, broker, drivers = drive_and_die(plan, set(), seed, with_state)
    assert drivers > 5
    assert (rollout.state, rollout.counts().succeeded) == (State.COMPLETED, 200)
    assert set(broker.accepted.values()) == {1}
    assert {attempt for _, attempt in broker.accepted} == {1}


@pytest.mark.parametrize("with_state", [True, False])
@pytest.mark.parametrize("size", [30, 200])
def test_a_bad_release_is_stopped_by_drivers_that_die_too(scene_of: SceneOf, size: int, with_state: bool) -> None:
    plan = scene_of(size).rollout.plan
    for seed in range(5):
        rollout, broker, _ = drive_and_die(plan, set(range(size)), seed, with_state)
        assert rollout.state is State.HALTED
        assert sum(broker.accepted.values()) <= (2 if size == 30 else 5)


def test_a_resumed_halt_cancels_what_the_dead_driver_could_not(scene_of: SceneOf) -> None:
    first = scene_of(100)
    for index in (0, 1, 2):
        first.fail(index)
    halted = first.rollout.snapshot()
    second = scene_of(100, retained=[Restored(halted, 5), Offered(3, 1, 5), Offered(4, 1, 5)], start=5)
    assert second.state == "halted"
    assert [act.index for act in second.acts if isinstance(act, Withdraw)] == [3, 4]
    assert second.offers == []
    assert second.rollout.counts().failed == 3, "though no device says so any more"


def test_a_resumed_pause_waits_for_the_person_still(scene_of: SceneOf) -> None:
    first = scene_of(100)
    for index in range(4):
        first.succeed(index)
    first.fail(4)
    second = scene_of(100, retained=[Restored(first.rollout.snapshot(), 5)], start=5)
    assert (second.state, second.offers) == ("paused", [])
    assert len([act for act in second.fold(Promote(6)) if isinstance(act, Offer)]) == 15


def test_what_was_proven_needs_no_second_proof_and_what_runs_another_image_has_regressed(scene_of: SceneOf) -> None:
    first = scene_of(100)
    for index in range(4):
        first.succeed(index)
    state = first.rollout.snapshot()
    second = scene_of(100, retained=[Sighted(1, "sha256:" + "b" * 64, 3, 1, True, 10, 5), Restored(state, 5)], start=5)
    assert [second.stage(index) for index in range(4)] == ["succeeded", "regressed", "succeeded", "succeeded"]


def test_the_latest_state_wins_whatever_the_order(scene_of: SceneOf) -> None:
    first = scene_of(100)
    earlier = first.rollout.snapshot()
    for index in (0, 1, 2):
        first.fail(index)
    later = first.rollout.snapshot()
    for states in ([earlier, later], [later, earlier]):
        second = scene_of(100, retained=[Restored(state, 5) for state in states], start=5)
        assert second.state == "halted"
