"""The reference agent with nothing but a claim: active, configured and renewed, without a person, on one `provision serve`."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from fleetctl.model.profile import ProvisioningProfile
from fleetctl.mqtt.broker import find_mosquitto
from tests.integration.enrolment.stand import PATIENCE, Stand, eventually

LIFE = 0.00015
"""Days: 13 seconds, of which an agent lets at least 5 and at most 9 go by."""


@pytest.fixture(params=["mosquitto", "builtin"])
def own(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stand]:
    if request.param == "mosquitto" and find_mosquitto() is None:
        pytest.skip("mosquitto is not installed")
    with ExitStack() as stack:
        made = Stand(tmp_path, stack)
        made.run_broker(request.param)
        yield made


def test_an_agent_with_a_claim_becomes_active_configured_and_renewed(own: Stand, tmp_path: Path) -> None:
    profile = ProvisioningProfile("quick", heartbeat=2.0, reporting_interval=0.5, twin={"mode": "eco"}, days=LIFE)
    own.batch("b", 1, profile)
    claim = own.claim("line", "b", quota=1)
    service = own.run("serve", "provision", "serve")
    service.wait_for("listening", PATIENCE)

    agent = own.run("agent", "agent", "run", str(claim), "--serial", "b-0", "--state", str(tmp_path / "state"))
    agent.wait_for("enrolled", PATIENCE)
    assert service.wait_for("configured", PATIENCE)["deviceId"] == "dev-b-0"

    assert own.state("b-0") == "active"
    assert own.events("b-0") == ["added", "claimed", "activated", "configured"]
    assert own.fleet.registry.twin("dev-b-0").desired == {"mode": "eco"}
    (first,) = own.fleet.registry.certificates("dev-b-0")
    assert first.proven_at is not None
    assert sessions(own, 1) == ["1-1"]

    assert agent.wait_for("renewed", PATIENCE)["serial"] != first.serial
    (second,) = [row for row in own.fleet.registry.certificates("dev-b-0") if row.serial != first.serial]
    assert (second.replaces, second.spki == first.spki) == (first.serial, False)
    assert first.not_before < second.not_before < first.not_after
    eventually(lambda: own.state("b-0") == "active" or None)
    assert own.fleet.registry.certificate(second.serial).proven_at is not None
    issued, seen = own.fleet.registry.timeline("dev-b-0")[4:]
    assert (issued.event, issued.state_before, issued.state_after) == ("renewing", "active", "renewing")
    assert (seen.state_before, seen.state_after) == ("renewing", "active")
    assert seen.event in ("proven", "renewed"), "shown over EST, or seen in its status, whichever comes first"
    assert sessions(own, 2) == ["1-2", "1-2"]
    assert not list(claim.glob("device.*"))


def sessions(own: Stand, count: int) -> list[str]:
    """The sessions of the device in which its next measurements are taken."""
    with own.fleet.open_session("test") as session:
        session.subscribe(["acme/oslo/pump/dev-b-0/telemetry"])
        found: list[str] = []
        for message in session.messages():
            found.append(json.loads(message.payload)["messageId"].rpartition("-")[0])
            if len(found) == count:
                break
    return found
