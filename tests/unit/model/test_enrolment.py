"""The verdict on who asks for an identity: each check by itself, and the order in which they are made."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetctl.model.batch import Batch, BatchState
from fleetctl.model.device import LifeCycle
from fleetctl.model.enrolment import (
    CANDIDATES,
    Asked,
    Buckets,
    Caller,
    ClaimFacts,
    Code,
    EnrolmentState,
    Verdict,
    beneath,
    check_caller,
    decide,
    has_room,
)

NOW = 1_800_000_000.0
BATCH = Batch("b", quota=10)
CLAIM = ClaimFacts(active=True, not_after=NOW + 60, quota=5, used=0)
CALLER = Caller(CLAIM, BATCH, 0, in_batch=True, state=LifeCycle.MANUFACTURED)
ASKED = Asked(nonce=True)


def code_of(caller: Caller = CALLER, asked: Asked = ASKED) -> Code | None:
    return decide("SN1", caller, asked, NOW).code


def test_who_passes_every_check_gets_a_certificate() -> None:
    assert decide("SN1", CALLER, ASKED, NOW) == Verdict("accepted", issues=True)


@pytest.mark.parametrize(
    ("caller", "code"),
    [
        (replace(CALLER, claim=None), Code.CLAIM_REVOKED),
        (replace(CALLER, claim=replace(CLAIM, active=False)), Code.CLAIM_REVOKED),
        (replace(CALLER, claim=replace(CLAIM, not_after=NOW - 1)), Code.CLAIM_EXPIRED),
        (replace(CALLER, batch=None), Code.BATCH_CLOSED),
        (replace(CALLER, batch=replace(BATCH, state=BatchState.CLOSED)), Code.BATCH_CLOSED),
        (replace(CALLER, batch=replace(BATCH, not_after="2020-01-01T00:00:00Z")), Code.BATCH_CLOSED),
        (replace(CALLER, batch=replace(BATCH, not_before="2100-01-01T00:00:00Z")), Code.NOT_YET_OPEN),
        (replace(CALLER, in_batch=False), Code.SERIAL_NOT_IN_BATCH),
        (replace(CALLER, state=None), Code.SERIAL_NOT_IN_BATCH),
        (replace(CALLER, state=LifeCycle.ACTIVE), Code.ALREADY_ACTIVE),
        (replace(CALLER, state=LifeCycle.RENEWING), Code.ALREADY_ACTIVE),
        (replace(CALLER, state=LifeCycle.SUSPENDED), Code.REJECTED),
        (replace(CALLER, state=LifeCycle.REVOKED), Code.REJECTED),
        (replace(CALLER, state=LifeCycle.RETIRED), Code.REJECTED),
        (replace(CALLER, banned=True), Code.REJECTED),
    ],
)
def test_what_the_registry_knows_is_checked_at_hello_already(caller: Caller, code: Code) -> None:
    verdict = check_caller("SN1", caller, NOW)
    assert verdict is not None
    assert verdict.code is code
    assert code_of(caller) is code


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (Asked(nonce=None), Code.NO_NONCE),
        (Asked(nonce=False), Code.STALE_CSR),
        (Asked(nonce=True, fault=Code.BAD_CSR), Code.BAD_CSR),
        (Asked(nonce=True, fault=Code.WEAK_KEY), Code.WEAK_KEY),
        (Asked(nonce=True, key_is_foreign=True), Code.DUPLICATE_KEY),
        (Asked(nonce=True, held=EnrolmentState.REJECTED), Code.REJECTED),
        (Asked(nonce=True, turned_away=True), Code.REJECTED),
        (Asked(nonce=True, taken=True), Code.ALREADY_CLAIMED),
        (Asked(nonce=True, manual=True), Code.PENDING),
        (Asked(nonce=True, manual=True, held=EnrolmentState.PENDING, rivals=9), Code.PENDING),
        (Asked(nonce=True, manual=True, rivals=CANDIDATES), Code.RATE_LIMITED),
    ],
)
def test_what_the_request_says_is_checked_then(asked: Asked, code: Code) -> None:
    assert code_of(asked=asked) is code


@pytest.mark.parametrize("full", [replace(CALLER, claim=replace(CLAIM, used=5)), replace(CALLER, used=10)])
def test_a_full_claim_or_batch_takes_nobody_but_whoever_has_a_place(full: Caller) -> None:
    assert code_of(full) is Code.QUOTA
    for held in (EnrolmentState.APPROVED, EnrolmentState.ISSUED):
        assert decide("SN1", full, replace(ASKED, held=held), NOW).accepted


def test_asking_again_issues_nothing_new() -> None:
    for manual in (False, True):
        again = Asked(nonce=True, held=EnrolmentState.ISSUED, taken=True, manual=manual)
        assert decide("SN1", replace(CALLER, state=LifeCycle.CLAIMED), again, NOW) == Verdict("accepted")


def test_what_was_approved_is_issued() -> None:
    assert decide("SN1", CALLER, Asked(nonce=True, held=EnrolmentState.APPROVED, manual=True), NOW).issues


@given(
    st.builds(Asked, nonce=st.sampled_from([None, False]), held=st.sampled_from([None, *EnrolmentState]), manual=st.booleans())
)
def test_nothing_is_granted_without_a_fresh_nonce(asked: Asked) -> None:
    assert decide("SN1", CALLER, asked, NOW).status == "rejected"


def test_no_quota_is_room_for_all() -> None:
    assert has_room(None, None, 10**9)
    assert not has_room(replace(CLAIM, quota=1, used=1), None, 0)


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    buckets = Buckets(3, 0.5)
    assert [buckets.take("a", 0.0) for _ in range(4)] == [True, True, True, False]
    assert buckets.take("b", 0.0)
    assert [buckets.take("a", 1.9), buckets.take("a", 2.0), buckets.take("a", 2.0)] == [False, True, False]
    assert [buckets.take("a", 1000.0) for _ in range(4)] == [True, True, True, False]


def test_a_clock_that_goes_back_fills_no_bucket() -> None:
    buckets = Buckets(1, 1.0)
    assert buckets.take("a", 100.0)
    assert not buckets.take("a", 0.0)


def test_the_table_of_buckets_is_bounded() -> None:
    buckets = Buckets(1, 1.0, limit=10)
    for number in range(1000):
        assert buckets.take(str(number), 0.0)
    assert len(buckets) == 10


def test_defaults_lie_beneath_what_is_desired() -> None:
    desired = {"mode": "fast", "led": {"on": False}, "flat": 1}
    defaults = {"mode": "eco", "led": {"on": True, "dim": 3}, "new": [1], "flat": {"deep": 1}}
    assert beneath(defaults, desired) == {"led": {"dim": 3}, "new": [1]}
    assert beneath(defaults, {}) == defaults
    assert beneath({}, desired) == {}
