from dataclasses import replace
from hashlib import sha256

import pytest

from fleetctl.errors import Conflict, UsageError
from fleetctl.model.device import DevicePath
from fleetctl.model.release import Release
from fleetctl.model.rollout import Candidate, Parameters, Plan, SkipReason, Target, assignment_order, make_plan

NEW, OLD = "sha256:" + "a" * 64, "sha256:" + "b" * 64
RELEASE = Release.parse("pump@2.0.0")


def candidate(
    number: int, stratum: str = "pump", *, kind: str = "pump", image: str = OLD, version: str | None = None
) -> Candidate:
    return Candidate(Target(DevicePath("acme", "hall", kind, f"p{number}"), image, 10, stratum, "hall"), version)


def plan(candidates: list[Candidate], rollout: str = "r1", *, allow_downgrade: bool = False) -> Plan:
    return make_plan(rollout, "acme", RELEASE, NEW, OLD, candidates, created_at=0, allow_downgrade=allow_downgrade)


def test_the_order_is_the_same_on_every_machine_and_another_in_every_rollout() -> None:
    fleet = [candidate(number) for number in range(100)]
    order = [target.id for target in plan(fleet).targets]
    assert order == [target.id for target in plan(fleet[::-1]).targets]
    assert order != [target.id for target in plan(fleet, "r2").targets]
    assert order == sorted(order, key=lambda name: sha256(f"r1/{name}".encode()).digest()), "the contract's order"


def test_each_stratum_is_seen_as_early_as_possible() -> None:
    fleet = [candidate(number, "common" if number >= 20 else f"rare{number % 4}") for number in range(1000)]
    order = [target.stratum for target in plan(fleet).targets]
    assert set(order[:5]) == {"common", "rare0", "rare1", "rare2", "rare3"}
    assert order[0] == "common"
    for rare in ("rare0", "rare1"):
        places = [place for place, stratum in enumerate(order) if stratum == rare]
        assert places[1] < 500 < places[4], "after the first, in proportion"


def test_who_would_not_take_the_release_is_left_out_with_the_reason() -> None:
    made = plan(
        [
            candidate(1),
            candidate(2, image=NEW),
            candidate(3, kind="fan"),
            candidate(4, version="2.0.1"),
            candidate(5, version="?"),
            replace(candidate(6), in_service=False),
        ]
    )
    assert {target.id for target in made.targets} == {"p1", "p5"}
    assert {skipped.path.device_id: skipped.reason for skipped in made.skipped} == {
        "p2": SkipReason.ALREADY_INSTALLED,
        "p3": SkipReason.INCOMPATIBLE,
        "p4": SkipReason.DOWNGRADE,
        "p6": SkipReason.OUT_OF_SERVICE,
    }
    assert plan([candidate(4, version="2.0.1")], allow_downgrade=True).size == 1


def test_a_device_twice_or_of_another_tenant_is_refused() -> None:
    with pytest.raises(Conflict, match="`p1` is in the selection twice"):
        plan([candidate(1), candidate(1)])
    with pytest.raises(UsageError, match="belongs to tenant"):
        make_plan("r1", "other", RELEASE, NEW, OLD, [candidate(1)], created_at=0)
    with pytest.raises(UsageError, match="rollout id"):
        plan([], "a/b")


def test_orders_rise_with_attempts_and_a_cancel_comes_after_its_install() -> None:
    target = candidate(1).target
    orders = [assignment_order(target, attempt, action) for attempt in (1, 2) for action in ("install", "cancel")]
    assert orders == [11, 12, 13, 14]


@pytest.mark.parametrize(
    "numbers",
    [
        {"p0": 0.0},
        {"p0": 0.5},
        {"alpha": 1.0},
        {"grid": ()},
        {"grid": (1.0,)},
        {"first_wave": 0},
        {"accept_within": 0.0},
        {"soak": -1.0},
        {"max_attempts": 0},
        {"heartbeats": 251},
        {"transient_codes": ("SILENT",)},
        {"failure_share": 1.0},
    ],
)
def test_numbers_that_would_judge_nothing_are_refused(numbers: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="rollout parameters"):
        Parameters(**numbers)  # type: ignore[arg-type]
