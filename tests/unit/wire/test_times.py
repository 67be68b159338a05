"""Times that a device may claim, and what nobody can print."""

import pytest

from fleetctl.errors import Malformed
from fleetctl.model.presence import seen_at
from fleetctl.wire.document import parse_rfc3339, rfc3339


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-13-01T00:00:00Z"])
def test_a_time_that_could_not_be_written_again_is_refused(text: str) -> None:
    with pytest.raises(Malformed, match="not a time of the calendar"):
        parse_rfc3339(text)


def test_a_retained_status_was_seen_neither_before_1970_nor_in_the_future() -> None:
    assert seen_at(True, parse_rfc3339("0001-01-02T00:00:00Z"), 100.0) == 0.0
    assert seen_at(True, 1e9, 100.0) == 100.0
    assert rfc3339(seen_at(True, -6e10, 100.0)) == "1970-01-01T00:00:00.000Z"
