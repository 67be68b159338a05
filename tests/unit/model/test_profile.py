"""Profiles and batches: what they take, and what they refuse."""

import time
from typing import Any

import pytest

from fleetctl.errors import UsageError
from fleetctl.model import batch as batches
from fleetctl.model import profile as profiles
from fleetctl.model.batch import Batch, BatchState, Refusal, check_batch
from fleetctl.model.profile import Approval, check_ids

NOON = 1_790_000_000.0


def test_a_profile_is_what_its_document_says() -> None:
    document: dict[str, Any] = {
        "type": "pump",
        "location": "oslo",
        "heartbeat": 30,
        "reportingInterval": 5.5,
        "twin": {"network": {"apn": "iot"}},
        "days": 90,
        "approval": "manual",
        "ids": "SN[0-9]{4}",
        "labels": {"site": "north"},
    }
    profile = profiles.parse("line-1", document)

    assert profile.document() == {**document, "heartbeat": 30.0}
    assert profiles.parse("line-1", profile.document()) == profile
    assert profile.approval is Approval.MANUAL


def test_what_a_profile_leaves_out_has_its_default() -> None:
    profile = profiles.parse("bare", {"days": None})
    assert (profile.heartbeat, profile.reporting_interval, profile.approval) == (60.0, 60.0, Approval.AUTO)
    assert profile.takes("anything-goes")


@pytest.mark.parametrize(("days", "read"), [(1, "1"), (1.0, "1"), (0.5, "0.5"), (0.0001, "0.0001"), (7300, "7300")])
def test_certificates_are_good_for_days_or_a_part_of_one(days: float, read: str) -> None:
    profile = profiles.parse("short", {"days": days})
    assert str(profile.document()["days"]) == read


@pytest.mark.parametrize(
    "document",
    [
        {"typ": "pump"},
        {"type": "a/b"},
        {"type": 7.5, "location": "#"},
        {"heartbeat": 0},
        {"heartbeat": True},
        {"heartbeat": float("nan")},
        {"reportingInterval": 1e9},
        {"days": 0},
        {"days": 0.00001},
        {"days": True},
        {"days": "90"},
        {"days": float("nan")},
        {"days": 100_000},
        {"approval": "later"},
        {"twin": []},
        {"twin": {"$x": 1}},
        {"twin": {"firmwareVersion": "2"}},
        {"labels": {"a": 1}},
        {"labels": {"": "x"}},
        {"ids": 5},
    ],
)
def test_a_profile_that_says_nonsense_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        profiles.parse("line-1", document)


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+b",
        "(a*)*",
        "(a|a)*b",
        "((a)(b)(c))",
        "a*a*a*a*b",
        "a?a?a?a?b",
        "(a)\\1",
        "(?=a)b",
        "(?P<x>a)",
        "a{1000}",
        "a{1,200}",
        "[",
        "(a",
        "a)",
        "*",
        "",
        "a" * 129,
        "[[a]",
        "a**",
        "|".join("a" * 18),
        "\\Aa",
    ],
)
def test_a_pattern_that_could_run_for_ever_is_refused(pattern: str) -> None:
    with pytest.raises(UsageError, match="not one for ids"):
        check_ids(pattern)


@pytest.mark.parametrize("pattern", ["[a-z]*[a-z]*[a-z]*!", ".*(a|a|a|a|a|a).*(a|a|a|a|a|a).*b", "a{0,64}a{0,64}a{0,64}b"])
def test_the_worst_pattern_that_is_taken_answers_soon(pattern: str) -> None:
    profile = profiles.parse("p", {"ids": pattern})
    before = time.perf_counter()
    assert not profile.takes("a" * 64)
    assert time.perf_counter() - before < 2.0


@pytest.mark.parametrize(
    ("pattern", "good", "bad"),
    [
        ("SN[0-9]{6}", "SN000001", "SN0000010"),
        ("(pump|valve)-[a-z]+", "valve-a", "cam-a"),
        ("^pump\\.\\d+$", "pump.7", "pump-7"),
        ("a.c", "abc", "ac"),
    ],
)
def test_a_pattern_is_for_the_whole_id(pattern: str, good: str, bad: str) -> None:
    profile = profiles.parse("p", {"ids": pattern})
    assert profile.takes(good)
    assert not profile.takes(bad)
    assert not profile.takes(good + "\n")


def test_a_batch_lets_devices_in_while_it_is_open() -> None:
    batch = Batch("b", quota=2, not_before="2026-09-21T12:00:00.000Z", not_after="2026-09-22T12:00:00.000Z")
    inside = 1_790_040_000.0
    assert check_batch(batch, inside, 1) is None
    assert check_batch(batch, inside, 2) is Refusal.QUOTA
    assert check_batch(batch, inside - 86400, 0) is Refusal.NOT_YET_OPEN
    assert check_batch(batch, inside + 2 * 86400, 0) is Refusal.CLOSED
    assert check_batch(Batch("b", state=BatchState.CLOSED), NOON, 0) is Refusal.CLOSED
    assert check_batch(Batch("b"), NOON, 10**6) is None


@pytest.mark.parametrize(
    "batch",
    [
        Batch("a/b"),
        Batch("b", quota=0),
        Batch("b", location="x y"),
        Batch("b", labels={"": "x"}),
        Batch("b", not_before="2026-09-22T00:00:00.000Z", not_after="2026-09-22T00:00:00.000Z"),
    ],
)
def test_a_batch_that_could_never_be_used_is_refused(batch: Batch) -> None:
    with pytest.raises(UsageError):
        batches.checked(batch)


def test_serials_are_named_by_ranges() -> None:
    assert list(batches.serials("SN0009..SN0011")) == ["SN0009", "SN0010", "SN0011"]
    assert list(batches.serials("SN8..SN10")) == ["SN8", "SN9", "SN10"]
    assert list(batches.serials("A-7")) == ["A-7"]


@pytest.mark.parametrize(
    "text", ["", "SN1..", "..SN2", "SN2..SN1", "SN8..10", "A1..B2", "SN1..SN9999999", "SN1..SN٣", "SNx..SNy"]
)
def test_what_is_no_range_of_serials_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        batches.serials(text)
