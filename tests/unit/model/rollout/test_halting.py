"""The test that halts: its numbers, and what they cost a model fleet (notes of the design: p0 = 0.6 % is what was measured)."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetctl.model.device import DevicePath
from fleetctl.model.rollout import (
    Act,
    Event,
    Offer,
    Offered,
    Parameters,
    Plan,
    Reported,
    Rollout,
    Sighted,
    State,
    Target,
    Tick,
    Withdraw,
    Withdrawn,
)
from fleetctl.model.rollout.halting import Bets
from fleetctl.model.rollout.plan import GRID
from fleetctl.model.rollout.waves import cumulative, wave_sizes

NEW, OLD = "sha256:" + "a" * 64, "sha256:" + "b" * 64
NUMBERS = Parameters(p0=0.006, soak=0, heartbeats=0, heartbeat=60, accept_within=300, finish_within=3600)


def failures_that_halt(exposed: int, p0: float = 0.006, alpha: float = 0.001) -> int:
    bets = Bets(p0, GRID)
    return next(failures for failures in count() if bets.value(failures, exposed) >= 1 / alpha)


@pytest.mark.parametrize(("exposed", "failures"), [(5, 3), (20, 4), (45, 5), (135, 7), (405, 12), (1000, 20), (10000, 100)])
def test_the_numbers_that_halt_are_those_that_were_measured(exposed: int, failures: int) -> None:
    assert failures_that_halt(exposed) == failures


@given(st.integers(0, 100), st.integers(0, 5000))
def test_more_failures_are_more_evidence_and_more_exposed_devices_are_less(failures: int, successes: int) -> None:
    bets, exposed = Bets(0.01, GRID), failures + successes
    assert bets.value(failures + 1, exposed + 1) > bets.value(failures, exposed + 1)
    assert bets.value(failures, exposed + 1) < bets.value(failures, exposed)


@given(st.integers(1, 60))
def test_good_firmware_expects_no_gain(exposed: int) -> None:
    """The mean over all outcomes is exactly 1 at p0: a fair bet, whatever the number of devices."""
    bets, chance, mean = Bets(0.01, GRID), (1 - 0.01) ** exposed, 0.0
    for failures in range(exposed + 1):
        mean += chance * bets.value(failures, exposed)
        chance *= (exposed - failures) / (failures + 1) * 0.01 / 0.99
    assert mean == pytest.approx(1)


def test_waves_are_geometric_and_small_fleets_double() -> None:
    assert wave_sizes(100, 50, 5, 3) == (5, 15, 45, 35)
    assert wave_sizes(30, 50, 5, 3) == (1, 2, 4, 8, 15)
    assert wave_sizes(0, 50, 5, 3) == ()
    assert cumulative((1, 2, 4)) == (1, 3, 7)


@dataclass(frozen=True)
class World:
    """Chances of failing, by stratum; how long failures and successes take; the sites that devices share."""

    chance: Callable[[int], float]
    fails_after: Callable[[random.Random], float]
    succeeds_after: Callable[[random.Random], float]
    away: float = 0.0
    accepts_within: float = 30.0
    silent: bool = False


def mixed(rng: random.Random) -> float:
    return rng.uniform(60, 600)


def quick(rng: random.Random) -> float:
    return rng.uniform(1, 10)


GOOD = World(lambda _: 0.005, mixed, mixed)


def fleet(size: int, strata: int = 1, sites: int = 0) -> Plan:
    """Targets in the order given, so that a stratum can come last on purpose."""
    path = DevicePath("acme", "hall", "pump", "p")
    targets = tuple(
        Target(replace(path, device_id=f"p{n}"), OLD, 0, f"rev{n * strata // size}", f"s{n % sites}" if sites else "")
        for n in range(size)
    )
    return Plan("r1", "acme", "pump@2.0.0", NEW, OLD, targets, wave_sizes(size, 50, 5, 3), NUMBERS, 0)


class ModelFleet:
    """Devices that answer what a rollout asks for, in the order of a seeded agenda."""

    def __init__(self, plan: Plan, world: World, seed: int) -> None:
        self.world, self.rng, self.order = world, random.Random(seed), count()
        self.rollout = Rollout(plan)
        self.agenda: list[tuple[float, int, Event]] = []
        self.expect(Tick(1.0))

    def expect(self, event: Event) -> None:
        heappush(self.agenda, (event.at, next(self.order), event))

    def answers(self, index: int, attempt: int, now: float) -> Iterator[Event]:
        world, rng = self.world, self.rng
        yield Offered(index, attempt, now)
        if rng.random() < world.away:
            return
        accepted = now + rng.uniform(0, world.accepts_within)
        yield Reported(index, attempt, 1, "accepted", None, 1, 1, accepted)
        if rng.random() >= world.chance(index):
            at = accepted + world.succeeds_after(rng)
            yield Reported(index, attempt, 9, "succeeded", None, 2, 1, at)
            yield Sighted(index, NEW, 2, 1, True, 60, at)
        elif not world.silent:
            yield Reported(index, attempt, 9, "rolled_back", "HEALTH_FAILED", 3, 1, accepted + world.fails_after(rng))

    def carry_out(self, act: Act, now: float) -> None:
        if isinstance(act, Offer):
            for event in self.answers(act.index, act.attempt, now):
                self.expect(event)
        elif isinstance(act, Withdraw):
            self.expect(Withdrawn(act.index, act.attempt, now))


def play(plan: Plan, world: World, seed: int) -> Rollout:
    """Drive a rollout with a model fleet to its end, or until it waits for a person."""
    fleet = ModelFleet(plan, world, seed)
    while fleet.rollout.state is State.RUNNING or fleet.agenda:
        if not fleet.agenda:
            fleet.expect(Tick(fleet.rollout.at + 30))
        now, _, event = heappop(fleet.agenda)
        assert now < 1e6, "the rollout does not end"
        for act in fleet.rollout.fold(event):
            fleet.carry_out(act, now)
    return fleet.rollout


@pytest.mark.parametrize("size", [1000, 10000])
def test_five_percent_of_bad_devices_stop_a_rollout_after_a_handful(size: int) -> None:
    bad = World(lambda _: 0.05, mixed, mixed)
    failed = sorted(play(fleet(size), bad, seed).counts().firmware_failures for seed in range(15))
    assert failed[7] <= 12
    assert failed[-1] <= 60


def test_a_release_that_kills_everything_stops_in_the_first_wave() -> None:
    rollout = play(fleet(1000), World(lambda _: 1.0, mixed, mixed), 1)
    assert (rollout.state, rollout.counts().firmware_failures) == (State.HALTED, 5)


@pytest.mark.parametrize("order", ["mixed", "failures first", "failures last"])
@pytest.mark.parametrize("sites", [0, 20])
def test_good_firmware_with_flaky_devices_is_not_halted_in_any_reporting_order(order: str, sites: int) -> None:
    orders = {"mixed": (mixed, mixed), "failures first": (quick, mixed), "failures last": (mixed, quick)}
    world = replace(GOOD, fails_after=orders[order][0], succeeds_after=orders[order][1])
    states = [play(fleet(1500, 3, sites), world, seed).state for seed in range(12)]
    assert State.HALTED not in states


def test_a_bad_revision_that_comes_last_costs_a_few_devices() -> None:
    plan = fleet(4000, 4)
    world = World(lambda index: 1.0 if index >= 3000 else 0.0, quick, mixed, accepts_within=250)
    rollout = play(plan, world, 3)
    assert rollout.state is State.HALTED
    assert rollout.evidence is not None
    assert rollout.evidence.failures <= 5, "3,000 good devices before them hide nothing"
    assert rollout.evidence.scope == "stratum rev3"


def test_silent_bricks_pause_at_the_gate_and_then_halt() -> None:
    rollout = play(fleet(1000), World(lambda _: 1.0, mixed, mixed, silent=True), 1)
    assert rollout.state is State.PAUSED
    rollout.fold(Tick(rollout.at + 1000))
    assert (rollout.state, rollout.counts().codes) == (State.HALTED, {"SILENT": 5})


def test_devices_that_are_away_neither_stall_nor_blind_a_rollout() -> None:
    rollout = play(fleet(500), World(lambda _: 0.0, mixed, mixed, away=0.3), 5)
    counts = rollout.counts()
    assert rollout.state is State.COMPLETED
    assert counts.succeeded + counts.untouched == 500
    assert 100 < counts.untouched < 200


def test_failures_of_one_site_within_a_heartbeat_are_one_failure() -> None:
    rollout = Rollout(fleet(100, 1, 1))
    acts = rollout.fold(Tick(1))
    offered = [act.index for act in acts if isinstance(act, Offer)]
    for index in offered:
        rollout.fold(Reported(index, 1, 9, "rolled_back", "HEALTH_FAILED", 3, 1, 10))
    assert rollout.devices.trials.failures == 1
    assert rollout.counts().firmware_failures == 5
    assert rollout.state is State.PAUSED, "the gate counts them all"
