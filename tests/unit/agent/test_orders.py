"""The commands of the fleet: what is taken, and what is turned away with a reason."""

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from fleetctl.agent.configuration import FILE
from fleetctl.keys.store import generate_key, save_key

BROKER, OTHER = "mqtts://localhost:1", "mqtts://elsewhere:8883"
DIGEST = f"sha256:{'0' * 64}"
TIME = "2026-01-01T00:00:00Z"
NONCE = base64.b64encode(b"n" * 32).decode()


def call(bench: Any, name: str, **args: Any) -> list[dict[str, Any]]:
    """The replies to a command, as status and result."""
    before = len(bench.link.on(f"commands/{name}/reply"))
    bench.hear_json(f"commands/{name}", id=f"c{bench.now}{before}{name}", session=bench.device.session, args=args)
    found: list[dict[str, Any]] = bench.link.on(f"commands/{name}/reply")[before:]
    return found


def statuses(replies: list[dict[str, Any]]) -> list[str]:
    return [reply["status"] for reply in replies]


def test_a_configuration_is_stored_before_it_is_confirmed(bench: Any) -> None:
    replies = call(bench, "configure", heartbeat=30, reportingInterval=7.5, enrol="https://localhost:8887")
    assert statuses(replies) == ["accepted", "succeeded"]
    assert replies[-1]["result"] == {"configured": True}
    stored = json.loads((bench.folder / FILE).read_bytes())
    assert (stored["heartbeat"], stored["reportingInterval"], stored["enrol"]) == (30, 7.5, "https://localhost:8887")
    bench.boot()
    assert bench.link.on("status")[-1]["heartbeat"] == 30
    assert bench.device.identity.config.enrol == "https://localhost:8887"


def test_intervals_count_at_once(bench: Any) -> None:
    call(bench, "configure", heartbeat=5, reportingInterval=2)
    count = len(bench.link.on("status"))
    bench.now += 5.1
    bench.device.tick()
    assert bench.link.on("status")[count:][0]["heartbeat"] == 5
    assert bench.link.on("telemetry")


def test_the_twin_says_more_about_reporting_than_the_configuration(bench: Any) -> None:
    call(bench, "configure", reportingInterval=500)
    bench.hear_json("twin/desired", generation=1, version=1, digest=DIGEST, desired={"reportingInterval": 3}, timestamp=TIME)
    bench.device.tick()
    bench.now += 4
    bench.device.tick()
    assert bench.link.on("telemetry")


@pytest.mark.parametrize(
    "args",
    [
        {"broker": "mqtt://localhost:1"},
        {"broker": "mqtts://user:secret@localhost"},
        {"broker": "mqtts://localhost/path"},
        {"broker": 5},
        {"broker": None},
        {"artifacts": "http://localhost:2"},
        {"enrol": "http://localhost:3"},
        {"enrol": ["https://localhost"]},
        {"heartbeat": 0},
        {"heartbeat": 0.01},
        {"heartbeat": True},
        {"heartbeat": "60"},
        {"heartbeat": 1e12},
        {"reportingInterval": 0},
        {"topics": {"status": "acme/hall/pump/other/status"}},
        {"topics": "status"},
        {"broker": "mqtts://" + "x" * 5000},
    ],
)
def test_a_hostile_configuration_is_rejected_and_changes_nothing(bench: Any, args: dict[str, Any]) -> None:
    replies = call(bench, "configure", **args)
    assert statuses(replies) == ["rejected"]
    assert replies[0]["result"]["error"]
    assert not (bench.folder / FILE).exists()
    assert bench.device.identity == bench.identity


def test_a_new_broker_counts_at_the_next_connection_and_is_kept_when_it_answers(bench: Any) -> None:
    call(bench, "configure", broker=OTHER)
    assert bench.device.identity.endpoint.url == BROKER
    bench.connect()
    assert bench.device.identity.endpoint.url == OTHER
    assert json.loads((bench.folder / FILE).read_bytes())["fallback"] is None
    bench.boot()
    assert bench.device.identity.endpoint.url == OTHER


def test_a_broker_that_never_answers_does_not_lock_the_device_out(bench: Any) -> None:
    call(bench, "configure", broker=OTHER)
    bench.device.closed("gone")
    bench.device.opening()
    bench.device.unreachable()
    assert bench.device.identity.endpoint.url == OTHER
    bench.now += 121
    bench.device.unreachable()
    bench.device.opening()
    assert bench.device.identity.endpoint.url == BROKER
    assert bench.told("fallback")[0]["broker"] == BROKER
    bench.device.unreachable()
    bench.device.opening()
    assert bench.device.identity.endpoint.url == OTHER
    bench.device.unreachable()
    bench.connect()
    assert bench.told("fellBack") == [
        {**bench.told("fellBack")[0], "broker": BROKER, "unreachable": OTHER},
    ]
    bench.boot()
    assert bench.device.identity.endpoint.url == BROKER


def test_the_way_back_survives_a_restart(bench: Any) -> None:
    call(bench, "configure", broker=OTHER)
    bench.connect = lambda: None
    device = bench.boot()
    device.opening()
    assert device.identity.endpoint.url == OTHER
    device.unreachable()
    bench.now += 121
    device.unreachable()
    device.opening()
    assert device.identity.endpoint.url == BROKER


@pytest.mark.parametrize("garbage", [b"", b"{", b"[]", b'{"device":"acme/hall/pump/p1"}', b'{"device":5}', b"\xff" * 99])
def test_a_damaged_configuration_does_not_count(bench: Any, garbage: bytes) -> None:
    (bench.folder / FILE).write_bytes(garbage)
    bench.boot()
    assert bench.device.identity == bench.identity


def test_a_device_signs_a_nonce_for_its_own_address(bench: Any, tmp_path: Path) -> None:
    key = generate_key("p256")
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    save_key(tmp_path / "device.key", key)
    (tmp_path / "device.pem").write_text("a chain")
    bench.identity = replace(bench.identity, folder=tmp_path)
    bench.boot()
    replies = call(bench, "identify", nonce=NONCE)
    assert statuses(replies) == ["accepted", "succeeded"]
    result = replies[-1]["result"]
    assert result["certificate"] == "a chain"
    said = b"fleetctl/identify\0acme/hall/pump/p1\0" + b"n" * 32
    key.public_key().verify(base64.b64decode(result["signature"]), said, ec.ECDSA(hashes.SHA256()))


@pytest.mark.parametrize("nonce", [None, 5, "", "not base64!", "QUJD", base64.b64encode(b"n" * 300).decode()])
def test_a_nonce_that_is_none_is_not_signed(bench: Any, nonce: Any) -> None:
    assert statuses(call(bench, "identify", nonce=nonce)) == ["rejected"]


def test_a_key_that_cannot_be_read_fails_the_command_and_nothing_else(bench: Any, tmp_path: Path) -> None:
    bench.identity = replace(bench.identity, folder=tmp_path)
    bench.boot()
    assert statuses(call(bench, "identify", nonce=NONCE)) == ["accepted", "failed"]


def test_renewing_needs_an_address_and_happens_once_at_a_time(bench: Any) -> None:
    assert statuses(call(bench, "renew")) == ["rejected"]
    call(bench, "configure", enrol="https://localhost:8887")
    bench.connect()
    assert statuses(call(bench, "renew", rekey="yes")) == ["rejected"]
    assert statuses(call(bench, "renew", rekey=False)) == ["accepted"]
    assert bench.device.asked[1] is False
    assert "under way" in call(bench, "renew")[0]["result"]["error"]


def test_commands_for_another_session_are_ignored(bench: Any) -> None:
    bench.hear_json("commands/configure", id="x", session="9-9", args={"heartbeat": 1})
    assert bench.link.on("commands/configure/reply") == []


def test_the_commands_that_there_are_are_named(bench: Any) -> None:
    found = call(bench, "sing")[0]
    assert found["status"] == "rejected"
    assert found["result"]["commands"] == ["ping", "reboot", "configure", "identify", "renew"]
