"""The reference agent with nothing but a claim: active and configured, without a person, on one `provision serve`."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from fleetctl.model.profile import ProvisioningProfile
from fleetctl.mqtt.broker import find_mosquitto
from tests.integration.enrolment.stand import PATIENCE, Stand


@pytest.fixture(params=["mosquitto", "builtin"])
def own(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stand]:
    if request.param == "mosquitto" and find_mosquitto() is None:
        pytest.skip("mosquitto is not installed")
    with ExitStack() as stack:
        made = Stand(tmp_path, stack)
        made.run_broker(request.param)
        yield made


def test_an_agent_with_a_claim_becomes_active_and_configured(own: Stand, tmp_path: Path) -> None:
    own.batch("b", 1, ProvisioningProfile("quick", heartbeat=2.0, reporting_interval=1.0, twin={"mode": "eco"}))
    claim = own.claim("line", "b", quota=1)
    service = own.run("serve", "provision", "serve")
    service.wait_for("listening", PATIENCE)

    agent = own.run("agent", "agent", "run", str(claim), "--serial", "b-0", "--state", str(tmp_path / "state"))
    agent.wait_for("enrolled", PATIENCE)
    assert service.wait_for("configured", PATIENCE)["deviceId"] == "dev-b-0"

    assert own.state("b-0") == "active"
    assert own.events("b-0") == ["added", "claimed", "activated", "configured"]
    assert own.fleet.registry.twin("dev-b-0").desired == {"mode": "eco"}
    (row,) = own.fleet.registry.certificates("dev-b-0")
    assert row.proven_at is not None

    assert not list(claim.glob("device.*"))
