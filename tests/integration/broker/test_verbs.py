"""The verbs for brokers as they are typed; their keys written out once more: changing them must hurt."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetctl.config import Context
from fleetctl.demo.processes import child
from fleetctl.mqtt.broker import find_mosquitto
from fleetctl.mqtt.endpoint import Endpoint
from fleetctl.platforms.local.brokercheck import check_broker
from fleetctl.platforms.local.brokerprobe import Canary, probe_canary
from fleetctl.platforms.local.fleet import LocalFleet
from fleetctl.platforms.local.layout import Layout
from fleetctl.platforms.local.lists import write_lists
from tests.conftest import Fleetctl
from tests.integration.broker.conftest import PATIENCE, SERVICE, Outside


@pytest.fixture(params=["mosquitto", "builtin"])
def own(request: pytest.FixtureRequest, context: Context, tmp_path: Path) -> Iterator[str]:
    """The broker of the context, as a process of its own."""
    if request.param == "mosquitto" and find_mosquitto() is None:
        pytest.skip("mosquitto is not installed")
    words = ["broker", "run", "--engine", request.param, "-o", "jsonl"]
    with child("broker", words, {}, tmp_path / "broker.log") as running:
        running.wait_for("listening", PATIENCE)
        running.wait_for("restored", PATIENCE)
        yield request.param


def test_render_says_each_file_and_check_what_is_wrong_with_it(
    fleetctl: Fleetctl, context: Context, fleet: LocalFleet, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    made = json.loads(fleetctl("broker", "render", str(folder), "--prefix", "/srv/broker", "-o", "json").out)
    assert [set(each) for each in made] == [{"name", "path", "mode", "outcome"}] * 8
    assert made[0] == {"name": "broker.pem", "path": "/srv/broker/broker.pem", "mode": "0644", "outcome": "rendered"}
    assert json.loads(fleetctl("broker", "check", str(folder), "-o", "json").out) == []
    (folder / "device.crl.pem").unlink()
    ran = fleetctl("broker", "check", str(folder), "-o", "json")
    assert ran.status == 11
    (found,) = json.loads(ran.out)
    assert set(found) == {"code", "severity", "listener", "detail", "hint"}
    assert (found["code"], found["severity"]) == ("file_missing", "error")


def test_apply_says_each_step(fleetctl: Fleetctl, outside: Outside) -> None:
    words = ["broker", "apply", str(outside.folder), "--with-key", "--user", SERVICE, "--pid-file", str(outside.pid_file)]
    ran = fleetctl(*words, "-o", "json")
    assert ran.status == 0, ran.err
    applied = json.loads(ran.out)
    assert set(applied) == {"folder", "outcome", "changed", "restartNeeded", "steps"}
    assert (applied["outcome"], applied["changed"], applied["restartNeeded"]) == ("applied", ["device.crl.pem"], False)
    assert [set(each) for each in applied["steps"]] == [{"step", "outcome", "detail"}] * 5


def test_check_proves_to_the_broker_that_runs_here_whom_it_refuses(fleetctl: Fleetctl, own: str, fleet: LocalFleet) -> None:
    ran = fleetctl("broker", "check", "-o", "json")
    assert (ran.status, json.loads(ran.out)) == (0, []), ran.err
    folder = fleet.context.broker_folder / "canary"
    good, revoked = ((folder / f"{name}.pem", folder / f"{name}.key") for name in ("good", "revoked"))
    device, ca = Endpoint.parse_url(fleet.context.device_broker), Layout(fleet.context.folder).fleet_ca
    assert list(probe_canary(Canary("canary", good, revoked), device.host, device.port, ca)) == []
    found = probe_canary(Canary("canary", revoked, good), device.host, device.port, ca)
    assert [each.code for each in found] == ["canary_refused", "revoked_accepted"]
    before = (folder / "revoked.pem").read_bytes()
    assert check_broker(fleet, None, live=False) == []
    assert (folder / "revoked.pem").read_bytes() == before, "it is good for a day"
    write_lists(fleet.registry, Layout(fleet.context.folder), "device-issuing", fleet.clock())
    assert check_broker(fleet, None, live=False) == []
    assert (folder / "revoked.pem").read_bytes() != before, "the newest list does not name it"


@pytest.mark.parametrize("own", ["builtin"], indirect=True)
def test_where_the_key_of_the_authority_is_elsewhere_nothing_is_proven_and_nothing_is_wrong(own: str, fleet: LocalFleet) -> None:
    layout = Layout(fleet.context.folder)
    layout.key("device-issuing").rename(layout.key("device-issuing").with_suffix(".away"))
    assert check_broker(fleet, None, live=False) == []
    assert not (fleet.context.broker_folder / "canary").exists()
