"""When a certificate is renewed."""

import pytest

from fleetctl.agent.certificate import Credential
from fleetctl.agent.renewal import renewal_point, seconds_left

YEAR = 365 * 86400.0
HELD = Credential("0a", 1_000_000.0, 1_000_000.0 + YEAR)


def test_devices_renew_between_half_and_two_thirds_of_the_life_each_at_its_own_moment() -> None:
    points = [renewal_point(HELD, f"pump-{number}") for number in range(2000)]
    assert min(points) >= HELD.at(1 / 2)
    assert max(points) < HELD.at(2 / 3)
    assert len(set(points)) > 1990
    tenths = [int((point - HELD.at(1 / 2)) / (YEAR / 6) * 10) for point in points]
    assert all(120 < tenths.count(tenth) < 290 for tenth in range(10))


def test_the_moment_is_the_same_at_every_start() -> None:
    assert renewal_point(HELD, "pump-1") == renewal_point(HELD, "pump-1")


@pytest.mark.parametrize(("age", "due"), [(0.0, False), (0.49, False), (0.67, True), (1.5, True)])
def test_the_clock_says_when(age: float, due: bool) -> None:
    assert (seconds_left(HELD, "pump-1", HELD.at(age), 0.0) <= 0) is due


@pytest.mark.parametrize(("share", "due"), [(0.1, False), (0.49, False), (0.67, True)])
def test_a_device_without_a_clock_counts_from_when_it_started(share: float, due: bool) -> None:
    assert (seconds_left(HELD, "pump-1", None, YEAR * share) <= 0) is due
