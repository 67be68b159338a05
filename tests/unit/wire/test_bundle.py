import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fleetctl.errors import Malformed
from fleetctl.model.device import DevicePath
from fleetctl.wire.bundle import (
    BundleConfig,
    ClaimConfig,
    parse_claim_yaml,
    parse_yaml,
    render_claim_yaml,
    render_yaml,
)

PATH = DevicePath("acme", "oslo", "pump", "pump-1")
CONFIG = BundleConfig.of(PATH, "mqtts://localhost:8883", "https://localhost:8885", 900)
FULL = BundleConfig.of(
    PATH, "mqtts://localhost:8883", "https://localhost:8885", 900, enrol="https://localhost:8887", reporting_interval=30.0
)
CLAIM = ClaimConfig(
    "acme", "line-1", "mqtts://localhost:8886", "mqtts://localhost:8883", "https://localhost:8885", 900, "https://localhost:8887"
)


def with_member(**members: object) -> str:
    return yaml.safe_dump({**yaml.safe_load(render_yaml(CONFIG)), **members})


def test_a_bundle_configuration_comes_back_as_it_went() -> None:
    assert parse_yaml(render_yaml(CONFIG)) == CONFIG


def test_a_bundle_configuration_spells_out_every_topic() -> None:
    assert yaml.safe_load(render_yaml(CONFIG)) == {
        "device": "acme/oslo/pump/pump-1",
        "broker": "mqtts://localhost:8883",
        "artifacts": "https://localhost:8885",
        "heartbeat": 900,
        "topics": {
            "status": "acme/oslo/pump/pump-1/status",
            "telemetry": "acme/oslo/pump/pump-1/telemetry",
            "alerts": "acme/oslo/pump/pump-1/alerts",
            "twinDesired": "acme/oslo/pump/pump-1/twin/desired",
            "twinReported": "acme/oslo/pump/pump-1/twin/reported",
            "otaDesired": "acme/oslo/pump/pump-1/ota/desired",
            "otaStatus": "acme/oslo/pump/pump-1/ota/status",
            "commands": "acme/oslo/pump/pump-1/commands/+",
            "trust": "acme/_fleet/trust",
        },
    }


def test_a_configuration_with_renewal_and_reporting_comes_back_as_it_went() -> None:
    assert parse_yaml(render_yaml(FULL)) == FULL
    document = yaml.safe_load(render_yaml(FULL))
    assert (document["enrol"], document["reportingInterval"]) == ("https://localhost:8887", 30.0)


def test_a_claim_comes_back_as_it_went() -> None:
    assert parse_claim_yaml(render_claim_yaml(CLAIM)) == CLAIM
    assert CLAIM.common_name == "claim:line-1"


def test_a_claim_spells_out_every_address() -> None:
    assert yaml.safe_load(render_claim_yaml(CLAIM)) == {
        "tenant": "acme",
        "claim": "line-1",
        "broker": "mqtts://localhost:8886",
        "deviceBroker": "mqtts://localhost:8883",
        "artifacts": "https://localhost:8885",
        "enrol": "https://localhost:8887",
        "heartbeat": 900,
    }


def test_a_claim_becomes_the_configuration_of_a_device() -> None:
    assert CLAIM.device(PATH) == BundleConfig.of(
        PATH, "mqtts://localhost:8883", "https://localhost:8885", 900, enrol="https://localhost:8887"
    )


def test_topics_may_be_left_out() -> None:
    assert parse_yaml(with_member(topics=None)) == CONFIG


@pytest.mark.parametrize(
    "text",
    [
        "",
        "- a",
        "a: [",
        "device: 2026-99-99",
        "!!python/object/apply:os.system [id]",
        "[" * 10000,
        "{" * 2000,
        "x" * 20000,
        "\x00",
        with_member(device="acme/oslo/pump"),
        with_member(device="acme/_fleet/pump/pump-1"),
        with_member(device=5),
        with_member(broker="localhost:8883"),
        with_member(broker="https://localhost"),
        with_member(broker="mqtts://user:secret@localhost"),
        with_member(broker="mqtts://localhost:99999"),
        with_member(broker="mqtts://[::1"),
        with_member(artifacts="file:///etc"),
        with_member(heartbeat=0),
        with_member(heartbeat=float("nan")),
        with_member(heartbeat=True),
        with_member(topics={"status": "acme/oslo/pump/pump-2/status"}),
        with_member(topics=["status"]),
        with_member(enrol="http://localhost:8887"),
        with_member(enrol=7),
        with_member(enrol="https://localhost/ x"),
        with_member(reportingInterval=0),
        with_member(reportingInterval=True),
        with_member(reportingInterval="60"),
        with_member(reportingInterval=1e9),
    ],
)
def test_a_wrong_bundle_configuration_is_malformed(text: str) -> None:
    with pytest.raises(Malformed):
        parse_yaml(text)


@pytest.mark.parametrize(
    "changes",
    [
        {"tenant": "_fleet"},
        {"tenant": None},
        {"claim": "claim:line-1"},
        {"claim": "x" * 59},
        {"claim": 5},
        {"broker": "https://localhost"},
        {"deviceBroker": None},
        {"artifacts": "ftp://localhost"},
        {"enrol": "http://localhost"},
        {"heartbeat": "900"},
    ],
)
def test_a_wrong_claim_is_malformed(changes: dict[str, object]) -> None:
    with pytest.raises(Malformed):
        parse_claim_yaml(yaml.safe_dump({**yaml.safe_load(render_claim_yaml(CLAIM)), **changes}))


@given(st.text(max_size=200))
def test_random_text_is_malformed(text: str) -> None:
    with pytest.raises(Malformed):
        parse_yaml(text)
