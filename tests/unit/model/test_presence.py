"""Online, offline, stale, unknown; and which of two statuses counts."""

import pytest

from fleetctl.errors import Malformed
from fleetctl.model.presence import Sighting, View, seen_at, session_order, supersedes, view


def sighting(status: str = "online", session: str = "12-3", heartbeat: float = 10.0) -> Sighting:
    return Sighting(status, session, "2.0.0", "sha256:00", heartbeat, 100.0)


@pytest.mark.parametrize(
    ("status", "now", "expected"),
    [
        (sighting(), 100.0, View.ONLINE),
        (sighting(), 125.0, View.ONLINE),
        (sighting(), 125.1, View.STALE),
        (sighting("offline"), 100.0, View.OFFLINE),
        (sighting("offline"), 9999.0, View.OFFLINE),
        (None, 100.0, View.UNKNOWN),
    ],
)
def test_a_device_is_stale_after_two_and_a_half_heartbeats(status: Sighting | None, now: float, expected: View) -> None:
    assert view(status, 100.0, now) is expected


def test_a_status_without_a_time_of_reception_says_nothing() -> None:
    assert view(sighting(), None, 0.0) is View.UNKNOWN


def test_sessions_are_ordered_by_boot_then_count() -> None:
    sessions = ["2-1", "10-0", "2-10", "2-9"]

    assert sorted(sessions, key=session_order) == ["2-1", "2-9", "2-10", "10-0"]


@pytest.mark.parametrize("session", ["", "1", "1-", "-1", "a-1", "1-1-1", "01-1", "1-\u0661", "1" * 30 + "-1"])
def test_what_is_no_session_is_malformed(session: str) -> None:
    with pytest.raises(Malformed, match="is not a session"):
        session_order(session)


def test_an_offline_of_an_older_session_never_wins() -> None:
    held = sighting(session="12-3")

    assert not supersedes(sighting("offline", "12-2"), held)
    assert not supersedes(sighting("offline", "9-99"), held)
    assert supersedes(sighting("offline", "12-3"), held)
    assert supersedes(sighting("offline", "13-0"), held)
    assert supersedes(sighting("online", "1-0"), held)
    assert supersedes(sighting("offline", "1-0"), None)


def test_a_retained_status_is_as_old_as_its_clock_says() -> None:
    assert seen_at(retained=False, timestamp=50.0, now=100.0) == 100.0
    assert seen_at(retained=True, timestamp=50.0, now=100.0) == 50.0
    assert seen_at(retained=True, timestamp=500.0, now=100.0) == 100.0
    assert seen_at(retained=True, timestamp=None, now=100.0) == 100.0
