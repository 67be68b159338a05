import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fleetctl.errors import Malformed
from fleetctl.model.device import DevicePath
from fleetctl.wire.bundle import BundleConfig, parse_yaml, render_yaml

PATH = DevicePath("acme", "oslo", "pump", "pump-1")
CONFIG = BundleConfig.of(PATH, "mqtts://localhost:8883", "https://localhost:8885", 900)


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
    ],
)
def test_a_wrong_bundle_configuration_is_malformed(text: str) -> None:
    with pytest.raises(Malformed):
        parse_yaml(text)


@given(st.text(max_size=200))
def test_random_text_is_malformed(text: str) -> None:
    with pytest.raises(Malformed):
        parse_yaml(text)
