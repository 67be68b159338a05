"""Renewing with the certificate that a device has: proven by use, never without one that works, refused once it is revoked."""

import ssl
import time
from pathlib import Path

import pytest

from fleetctl.errors import FleetError
from fleetctl.model.device import LifeCycle
from fleetctl.model.enrolment import Buckets
from fleetctl.pki.authority import common_names, serial_of
from fleetctl.pki.csr import make_csr
from fleetctl.platforms.local.enrolment.events import ServeEvent
from fleetctl.platforms.local.est import EstService
from fleetctl.platforms.local.fleet import LocalFleet
from fleetctl.platforms.local.layout import Layout
from fleetctl.platforms.local.succession import Wanted, rotate
from tests.integration.est.stand import Stand, ask, new_key


@pytest.mark.parametrize("rekey", [False, True])
def test_a_device_renews_and_its_new_certificate_is_proven_by_its_use(stand: Stand, rekey: bool) -> None:
    stand.add()
    key = new_key()
    old, holding = stand.enrolled(key=key)
    fresh = new_key() if rekey else key
    new = stand.ask("simplereenroll", make_csr(fresh, "p-1"), holding=holding).certificate
    assert common_names(new) == ["p-1"]
    assert new.public_key() == fresh.public_key()
    assert stand.state() is LifeCycle.RENEWING
    assert stand.ask("cacerts", holding=holding).status == 200, "the old one is good until then"
    assert stand.state() is LifeCycle.RENEWING
    assert stand.ask("cacerts", holding=stand.holding("new", new, fresh)).status == 200
    assert stand.state() is LifeCycle.ACTIVE
    assert stand.steps() == ["added", "enrolled", "proven", "renewing", "proven"]
    rows = {row.serial: row for row in stand.fleet.registry.certificates("p-1")}
    assert rows[serial_of(new)].replaces == serial_of(old)
    assert rows[serial_of(old)].revoked_at is None
    assert [event.event for event in stand.events] == ["issued", "activated", "issued", "renewed"]


def test_the_same_request_gets_the_same_certificate_until_that_is_proven(stand: Stand) -> None:
    stand.add()
    _, holding = stand.enrolled()
    key = new_key()
    csr = make_csr(key, "p-1")
    first = stand.ask("simplereenroll", csr, holding=holding).certificate
    stand.restart()
    assert stand.ask("simplereenroll", make_csr(key, "p-1"), holding=holding).certificate == first
    assert len(stand.serials()) == 2
    newer = stand.holding("new", first, key)
    second = stand.ask("simplereenroll", csr, holding=newer).certificate
    assert second != first
    assert len(stand.serials()) == 3


def test_renewing_needs_the_certificate_and_a_token_is_none(stand: Stand) -> None:
    stand.add()
    csr = make_csr(new_key(), "p-1")
    for user in (None, f"p-1:{stand.token()}"):
        reply = stand.ask("simplereenroll", csr, user=user)
        assert (reply.status, reply.words) == (401, "show the certificate of the device")


def test_nobody_renews_for_another_name(stand: Stand) -> None:
    stand.add("p-1")
    stand.add("p-2")
    _, holding = stand.enrolled("p-1")
    for name in ("p-2", "op:alice"):
        assert stand.ask("simplereenroll", make_csr(new_key(), name), holding=holding).status == 403
    reply = stand.ask("simpleenroll", make_csr(new_key(), "p-2"), holding=holding, user=f"p-2:{stand.token('p-2')}")
    assert (reply.status, reply.words) == (403, "the token and the certificate are not of one device")
    assert stand.serials("p-2") == set()


def test_a_certificate_enrols_too_where_there_is_no_token(stand: Stand) -> None:
    stand.add()
    old, holding = stand.enrolled()
    new = stand.ask("simpleenroll", make_csr(new_key(), "p-1"), holding=holding).certificate
    assert stand.fleet.registry.certificate(serial_of(new)).replaces == serial_of(old)
    assert stand.ask("serverkeygen", make_csr(new_key(), "p-1"), holding=holding).status == 200


def test_a_revocation_takes_effect_without_a_restart_and_on_connections_that_are_open(stand: Stand) -> None:
    stand.add("p-1")
    stand.add("p-2")
    _, holding = stand.enrolled("p-1")
    _, good = stand.enrolled("p-2")
    with stand.connection(holding) as connection:
        assert ask(connection, "cacerts").status == 200
        stand.fleet.certificates.revoke("p-1", "keyCompromise")
        reply = ask(connection, "simplereenroll", make_csr(new_key(), "p-1"))
        assert reply.status == 403
        assert "revoked" in reply.words
    refused_by_tls(stand, holding, "certificate revoked")
    assert stand.ask("cacerts", holding=good).status == 200
    assert stand.ask("cacerts").status == 200


def test_an_operator_and_a_stranger_are_no_devices(stand: Stand) -> None:
    layout = Layout(stand.fleet.context.folder)
    pair = stand.folder / "operator.pem"
    pair.write_bytes(layout.key("operator").read_bytes() + layout.public("operator.pem").read_bytes())
    refused_by_tls(stand, pair, "certificate")


def test_a_certificate_that_the_registry_does_not_know_is_refused(stand: Stand) -> None:
    stand.add()
    certificate, holding = stand.enrolled()
    with stand.fleet.registry.transaction():
        stand.fleet.registry.write("UPDATE tokens SET certificate = NULL", ())
        stand.fleet.registry.write("DELETE FROM certificates WHERE serial = ?", (serial_of(certificate),))
    assert stand.ask("simplereenroll", make_csr(new_key(), "p-1"), holding=holding).status == 403


def test_a_suspended_device_does_not_renew(stand: Stand) -> None:
    stand.add()
    _, holding = stand.enrolled()
    stand.fleet.registry.move_device("p-1", LifeCycle.SUSPENDED, event="suspended", at="2026-11-24T00:00:00.000Z")
    reply = stand.ask("simplereenroll", make_csr(new_key(), "p-1"), holding=holding)
    assert (reply.status, reply.words) == (403, "the device is suspended")


@pytest.mark.parametrize("what", ["suspended", "revoked"])
def test_who_is_shut_out_while_the_service_decides_gets_nothing(stand: Stand, what: str) -> None:
    stand.add()
    _, holding = stand.enrolled()
    serials = stand.serials()

    def shut_out(event: ServeEvent) -> None:
        with LocalFleet(stand.fleet.context) as other, other.registry.transaction():
            if event.event == "activated" and what == "suspended":
                other.registry.move_device("p-1", LifeCycle.SUSPENDED, event="suspended", at="2026-11-24T00:00:00.000Z")
            elif event.event == "activated":
                other.registry.revoke_certificate(min(serials), "keyCompromise", "2026-11-24T00:00:00.000Z")

    stand.service.stop()
    stand.service = EstService(stand.fleet, "localhost:0", shut_out)
    stand.service.start()
    assert stand.ask("simplereenroll", make_csr(new_key(), "p-1"), holding=holding).status == 403
    assert stand.serials() == serials


def test_an_authority_that_was_retired_renews_nothing_on_connections_that_are_open(stand: Stand) -> None:
    stand.add()
    _, holding = stand.enrolled()
    with stand.connection(holding) as connection:
        assert ask(connection, "cacerts").status == 200
        stand.fleet.registry.set_authority("device-issuing", "retired")
        reply = ask(connection, "simplereenroll", make_csr(new_key(), "p-1"))
        assert (reply.status, len(stand.serials())) == (403, 1)


def test_an_authority_that_another_process_has_rotated_signs_nothing_more(stand: Stand) -> None:
    stand.add()
    _, holding = stand.enrolled()
    with LocalFleet(stand.fleet.context) as other:
        rotate(other, "devices", Wanted())
    reply = stand.ask("simplereenroll", make_csr(new_key(), "p-1"), holding=holding)
    assert reply.certificate.issuer.rfc4514_string().startswith("CN=device-issuing-2")


def test_a_device_that_makes_keys_without_end_is_slowed_down(stand: Stand) -> None:
    stand.add()
    _, holding = stand.enrolled()
    stand.service.stop()
    stand.service = EstService(stand.fleet, "localhost:0", stand.events.append, renewals=Buckets(3, 0.001))
    stand.service.start()
    same = make_csr(new_key(), "p-1")
    replies = [stand.ask("simplereenroll", csr, holding=holding) for csr in [same, same, *_csrs(3), same]]
    assert [reply.status for reply in replies] == [200, 200, 200, 200, 429, 200]
    assert replies[4].headers["Retry-After"] == "60"


def test_a_registry_that_is_busy_is_a_reason_to_come_back(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    stand.add()
    _, holding = stand.enrolled()
    monkeypatch.setattr("fleetctl.platforms.local.est.PATIENCE", 0.2)
    with stand.fleet.registry.transaction():
        reply = stand.ask("simplereenroll", make_csr(new_key(), "p-1"), holding=holding)
    assert (reply.status, reply.headers["Retry-After"]) == (503, "5")
    assert [event.code for event in stand.events if event.event == "failed"] == ["unavailable"]
    assert stand.ask("simplereenroll", make_csr(new_key(), "p-1"), holding=holding).status == 200


def test_a_port_that_is_taken_is_named(stand: Stand) -> None:
    listen = stand.service.url.removeprefix("https://")
    second = EstService(stand.fleet, listen, stand.events.append)
    with pytest.raises(FleetError, match="cannot serve EST on"):
        second.start()


def refused_by_tls(stand: Stand, holding: Path, why: str) -> None:
    """A client of TLS 1.3 has sent its request by then, and may or may not see the alert; the fleet is told why."""
    stand.events.clear()
    with pytest.raises((ConnectionError, ssl.SSLError)):
        stand.ask("cacerts", holding=holding)
    deadline = time.monotonic() + 5
    while not stand.events and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [(event.event, event.code) for event in stand.events] == [("refused", "certificate")]
    assert why in str(stand.events[0].detail)


def _csrs(count: int) -> list[bytes]:
    return [make_csr(new_key(), "p-1") for _ in range(count)]
