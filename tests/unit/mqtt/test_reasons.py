"""Reason codes as errors: each with a remedy, whatever the code."""

import pytest

from fleetctl.errors import Conflict, Denied, Unavailable
from fleetctl.mqtt import reasons


@pytest.mark.parametrize("code", range(0x80, 0x100))
def test_every_refusal_names_its_subject_and_has_a_hint(code: int) -> None:
    refused = reasons.refused_connection(code, "mqtts://localhost:8884", "fleetctl-tail-1")
    ended = reasons.ended_connection(code, "mqtts://localhost:8884", "fleetctl-tail-1")
    denied = reasons.Refusal(1, "acme/x", code).error()
    for error in (refused, ended, denied):
        assert error.hint
        assert "`" in error.message
    assert isinstance(ended, Conflict | Denied | Unavailable)
