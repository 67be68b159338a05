"""From a claim to a device that is active and configured, on a real mosquitto."""

from pathlib import Path

import pytest

from fleetctl.model.profile import ProvisioningProfile
from tests.integration.enrolment.stand import Applicant, Serving, Stand

pytestmark = pytest.mark.usefixtures("service")


def test_a_device_with_a_claim_becomes_active_and_configured(stand: Stand, service: Serving, tmp_path: Path) -> None:
    profile = ProvisioningProfile(
        "fast", heartbeat=7.0, reporting_interval=3.0, twin={"mode": "eco", "led": {"on": True}}, days=90
    )
    stand.batch("whole", 1, profile)
    applicant = Applicant(stand.claim("whole", "whole"), "whole-0")
    stand.fleet.twins.set([stand.fleet.registry.device("dev-whole-0")], {"led": {"on": False}})

    reply = applicant.provision()
    assert stand.state("whole-0") == "claimed"
    device = applicant.become(reply, tmp_path / "device")
    with device.session() as session:
        assert device.obey(session, "configure") is not None
        service.wait_for("configured", device_id="dev-whole-0")

    assert stand.state("whole-0") == "active"
    assert stand.events("whole-0") == ["added", "claimed", "activated", "configured"]
    context = stand.fleet.context
    assert (device.settings["heartbeat"], device.settings["reportingInterval"]) == (7.0, 3.0)
    assert (device.settings["broker"], device.settings["enrol"]) == (context.device_broker, context.enrol)
    assert device.settings["topics"]["status"] == "acme/oslo/pump/dev-whole-0/status"
    assert stand.fleet.registry.twin("dev-whole-0").desired == {"mode": "eco", "led": {"on": False}}
    (row,) = stand.fleet.registry.certificates("dev-whole-0")
    assert row.proven_at is not None
    (enrolment,) = stand.fleet.registry.enrolments(device_id="dev-whole-0")
    assert (enrolment.state, enrolment.certificate) == ("active", row.serial)
