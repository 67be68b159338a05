"""`broker apply`: tried out before, proven after, taken back where the proof fails."""

import datetime as dt
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fleetctl.errors import ConfigError, Conflict, Denied, Findings, FleetError, NotFound
from fleetctl.keys.store import private_pem
from fleetctl.mqtt.endpoint import Endpoint
from fleetctl.mqtt.session import Session, open_session
from fleetctl.platforms.local.applying import Applied, apply
from fleetctl.platforms.local.authorities import registered_list, write_accepted
from fleetctl.platforms.local.brokercheck import check_broker
from fleetctl.platforms.local.fleet import LocalFleet
from fleetctl.platforms.local.layout import Layout
from fleetctl.platforms.local.lists import write_lists
from fleetctl.platforms.local.reloading import Reload
from fleetctl.platforms.local.rendering import Rendering
from fleetctl.platforms.protocol import Targets
from fleetctl.registry.authorities import AuthorityRow
from tests.integration.broker.conftest import PATIENCE, SERVICE, OtherAuthority, Outside, renew_broker
from tests.integration.local.test_denied import Vendor


def connect(endpoint: Endpoint, name: str) -> Session:
    return open_session(endpoint, "device", client_id=name, timeout=PATIENCE)


def outcomes(applied: Applied) -> list[tuple[str, str]]:
    return [(each.step, each.outcome) for each in applied.steps]


def record_of(error: FleetError) -> Applied:
    assert isinstance(error.record, list)
    (applied,) = error.record
    assert isinstance(applied, Applied)
    return applied


def test_a_revocation_is_brought_to_a_broker_elsewhere_and_proven(
    outside: Outside, fleet: LocalFleet, new_device: Callable[[str], Endpoint]
) -> None:
    bad, good = new_device("p-1"), new_device("p-2")
    first = outside.apply(fleet)
    assert (first.outcome, first.changed, first.restart_needed) == ("applied", ("device.crl.pem",), False)
    connect(bad, "p-1").close()
    fleet.certificates.revoke("p-1")
    applied = outside.apply(fleet)
    assert applied.outcome == "applied"
    steps = ["check", "try", "swap", "reload", "prove"]
    assert outcomes(applied) == [(name, "done") for name in steps]
    with pytest.raises(Denied, match="revoked"):
        connect(bad, "p-1").close()
    connect(good, "p-2").close()
    assert (outside.folder / "device.crl.pem.prev").exists()
    assert outside.apply(fleet).outcome == "unchanged"


def test_a_new_certificate_of_the_broker_is_shown_after_it(outside: Outside, fleet: LocalFleet) -> None:
    renew_broker(fleet)
    applied = outside.apply(fleet)
    assert {"broker.key", "broker.pem"} <= set(applied.changed)
    assert [each.code for each in check_broker(fleet, outside.folder, live=True)] == []


def break_key_mode(outside: Outside, fleet: LocalFleet) -> None:
    """Root's own, as `cp` leaves it, or nobody's."""
    key = outside.folder / "broker.key"
    os.chown(key, os.geteuid(), os.getegid())
    key.chmod(0o600 if os.geteuid() == 0 else 0)


def break_key(outside: Outside, fleet: LocalFleet) -> None:
    key = private_pem(ec.generate_private_key(ec.SECP256R1()))
    Layout(fleet.context.folder).key("broker").write_bytes(key)


def break_certificate(outside: Outside, fleet: LocalFleet) -> None:
    renew_broker(fleet, days=-2)


def break_list(outside: Outside, fleet: LocalFleet) -> None:
    """The services' authority has a list that ended; that of devices is made anew for the canary."""
    layout = Layout(fleet.context.folder)
    authority, now = layout.authority("fleet-ca"), dt.datetime.now(dt.UTC)
    begins, ends = now - dt.timedelta(days=9), now - dt.timedelta(days=1)
    signing = authority.key
    assert isinstance(signing, ec.EllipticCurvePrivateKey)
    made = x509.CertificateRevocationListBuilder(authority.certificate.subject, begins, ends).sign(signing, hashes.SHA256())
    layout.fleet_lists.write_bytes(made.public_bytes(serialization.Encoding.PEM))


@pytest.mark.parametrize(
    ("harm", "code"),
    [
        (break_key_mode, "key_unreadable"),
        (break_key, "key_mismatch"),
        (break_certificate, "certificate_expired"),
        (break_list, "crl_expired"),
    ],
)
def test_files_that_would_lock_everybody_out_are_refused_and_nothing_is_touched(
    outside: Outside,
    fleet: LocalFleet,
    new_device: Callable[[str], Endpoint],
    harm: Callable[[Outside, LocalFleet], None],
    code: str,
) -> None:
    device = new_device("p-1")
    harm(outside, fleet)
    before = outside.contents()
    with connect(device, "p-1") as live:
        with pytest.raises(Findings, match="nothing was touched") as caught:
            outside.apply(fleet, Rendering(outside.folder, user=SERVICE, with_key=harm is not break_key_mode))
        applied = record_of(caught.value)
        assert applied.outcome == "refused"
        assert code in {each.detail.partition(":")[0] for each in applied.steps if each.outcome == "failed"}
        assert outside.contents() == before
        live.publish("acme/oslo/pump/p-1/status", b"{}")
        live.flush()
    connect(device, "p-1").close()
    assert not [path for path in outside.folder.iterdir() if path.name.startswith(".staged")]


def spoiling(outside: Outside, times: int) -> Reload:
    """A reload that spoils the key on its way, so many times: what no check before it can see."""
    script, count = outside.folder.parent / "reload.sh", outside.folder.parent / "count"
    script.write_text(
        f'echo x >> "{count}"; if [ $(wc -l < "{count}") -le {times} ]; then'
        f' cp "{outside.folder}/broker.pem" "{outside.folder}/broker.key"; fi; kill -HUP {outside.process.pid}\n'
    )
    return Reload(command=f"sh {script}", seconds=0.5)


def test_a_reload_that_goes_wrong_is_rolled_back_and_clients_keep_connecting(
    outside: Outside, fleet: LocalFleet, new_device: Callable[[str], Endpoint]
) -> None:
    device = new_device("p-1")
    outside.apply(fleet)
    good = {name: data for name, data in outside.contents().items() if not name.endswith(".prev")}
    renew_broker(fleet)
    with connect(device, "p-1") as live:
        with pytest.raises(FleetError, match="those from before are in force again") as caught:
            outside.apply(fleet, reload=spoiling(outside, 1))
        applied = record_of(caught.value)
        assert applied.outcome == "rolledBack"
        assert [each for each in dict.fromkeys(outcomes(applied)) if each[0] != "check"] == [
            ("try", "done"),
            ("swap", "done"),
            ("reload", "done"),
            ("prove", "failed"),
            ("rollBack", "done"),
            ("prove", "done"),
        ]
        live.publish("acme/oslo/pump/p-1/status", b"{}")
        live.flush()
    now = outside.contents()
    assert {name: now[name] for name in good} == good
    connect(device, "p-1").close()
    assert outside.apply(fleet).outcome == "applied"


def test_a_broker_that_is_not_well_with_the_old_files_either_is_told_of(outside: Outside, fleet: LocalFleet) -> None:
    renew_broker(fleet)
    with pytest.raises(FleetError, match="is not well with those from before either") as caught:
        outside.apply(fleet, reload=spoiling(outside, 2))
    assert record_of(caught.value).outcome == "broken"


def test_a_reload_that_cannot_be_sent_takes_the_files_back(outside: Outside, fleet: LocalFleet) -> None:
    before = outside.contents()
    with pytest.raises(FleetError) as caught:
        outside.apply(fleet, reload=Reload(command="false"))
    assert ("reload", "failed") in outcomes(record_of(caught.value))
    assert outside.contents() == before


def test_only_a_mosquitto_is_sent_a_signal(outside: Outside, fleet: LocalFleet) -> None:
    other = subprocess.Popen(["sleep", "60"])
    before = outside.contents()
    try:
        outside.pid_file.write_text(str(other.pid))
        with pytest.raises(Conflict, match="is `sleep`, no mosquitto"):
            outside.apply(fleet)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()
    with pytest.raises(NotFound, match="does not run"):
        outside.apply(fleet)
    outside.pid_file.write_text("1; rm")
    with pytest.raises(ConfigError, match="holds no process id"):
        outside.apply(fleet)
    assert outside.contents() == before


def test_a_folder_that_was_never_rendered_is_no_brokers(fleet: LocalFleet, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no `.*mosquitto\.conf`") as caught:
        apply(fleet, Rendering(tmp_path), Reload(command="true"))
    assert "broker render" in caught.value.hint


def test_an_authority_comes_and_goes_through_apply(
    outside: Outside, fleet: LocalFleet, new_device: Callable[[str], Endpoint], tmp_path: Path
) -> None:
    """The list that goes with each listener is what makes mosquitto read authorities again."""
    device, layout, other = new_device("p-1"), Layout(fleet.context.folder), OtherAuthority()
    stranger = other.device(device, tmp_path, "p-9")
    outside.apply(fleet)
    with pytest.raises(Denied):
        connect(stranger, "p-9").close()
    fleet.registry.add_authority(
        AuthorityRow("other-ca", "registered", "issuing", "active", None, other.pem.decode(), "2026-01-01T00:00:00Z")
    )
    write_accepted(fleet.registry, layout, "devices")
    with pytest.raises(Findings, match="there is no list of `other-ca`"):
        outside.apply(fleet)
    registered_list(layout, other.certificate).write_bytes(other.crl)
    write_lists(fleet.registry, layout, "device-issuing", fleet.clock())
    assert {"device-ca.pem", "device.crl.pem"} <= set(outside.apply(fleet).changed)
    connect(stranger, "p-9").close()
    connect(device, "p-1").close()
    fleet.registry.set_authority("other-ca", "retired")
    write_accepted(fleet.registry, layout, "devices")
    assert "device-ca.pem" in outside.apply(fleet).changed
    with pytest.raises(Denied):
        connect(stranger, "p-9").close()
    connect(device, "p-1").close()


def test_a_suspended_device_of_a_registered_authority_stays_connected_but_mute(
    outside: Outside, fleet: LocalFleet, tmp_path: Path
) -> None:
    device = Vendor(fleet, tmp_path / "vendor").device("v-1")
    topic = "acme/oslo/pump/v-1/telemetry"
    outside.apply(fleet)
    with connect(device, "v-1") as live:
        live.publish(topic, b"heard")
        live.flush()
        fleet.devices.suspend(list(fleet.devices.resolve(Targets(("v-1",)))), why=None)
        assert "device.acl" in outside.apply(fleet).changed
        live.publish(topic, b"not heard")
        with pytest.raises(Denied):
            live.flush()
        fleet.devices.resume(list(fleet.devices.resolve(Targets(("v-1",)))), why=None)
        assert "device.acl" in outside.apply(fleet).changed
        live.publish(topic, b"heard again")
        live.flush()


def test_a_listener_that_comes_needs_a_restart_and_says_so(outside: Outside, fleet: LocalFleet) -> None:
    layout, claims = Layout(fleet.context.folder), OtherAuthority("claim-ca")
    layout.claim_ca.write_bytes(claims.pem)
    layout.claim_lists.write_bytes(claims.crl)
    applied = outside.apply(fleet)
    assert (applied.outcome, applied.restart_needed) == ("applied", True)
    assert {"claim-ca.pem", "claim.crl.pem", "claims.acl", "mosquitto.conf"} <= set(applied.changed)


def test_files_are_for_the_user_that_the_broker_runs_as(outside: Outside, fleet: LocalFleet) -> None:
    wanted = Rendering(outside.folder, user="nobody", with_key=True)
    if os.geteuid() != 0:  # nobody else's than our own
        assert outside.apply(fleet, wanted).outcome == "applied"
        return
    with pytest.raises(ConfigError, match=f"runs as `{SERVICE}`, but its files would be for `nobody`"):
        outside.apply(fleet, wanted)
