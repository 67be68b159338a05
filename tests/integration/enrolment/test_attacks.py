"""Whoever holds a claim may ask, and gets nothing that the registry does not say is theirs."""

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from fleetctl.errors import FleetError
from fleetctl.keys.store import generate_key, load_key
from fleetctl.mqtt.endpoint import Endpoint
from fleetctl.mqtt.session import Session, open_session
from fleetctl.pki.authority import common_names
from fleetctl.pki.csr import make_csr
from fleetctl.platforms.local.enrolment.claims import revoke_claim
from fleetctl.wire.document import rfc3339
from tests.integration.enrolment.stand import PATIENCE, Applicant, Serving, Stand

pytestmark = pytest.mark.usefixtures("service")
Line = Callable[..., Applicant]


@pytest.fixture
def line(stand: Stand, request: pytest.FixtureRequest) -> Line:
    """A batch of three with a claim of its own; the applicant for its first serial."""
    name = f"b{abs(hash(request.node.name)) % 10**9}"

    def make(serials: int = 3, **facts: int) -> Applicant:
        stand.batch(name, serials)
        return Applicant(stand.claim(name, name, **facts), f"{name}-0")

    return make


def sibling(applicant: Applicant, number: int) -> Applicant:
    return Applicant(applicant.folder, applicant.serial.removesuffix("0") + str(number))


def test_a_stolen_claim_does_not_take_a_device_that_is_active(line: Line, stand: Stand, tmp_path: Path) -> None:
    applicant = line()
    with applicant.become(applicant.provision(), tmp_path / "own").session():
        wait_for_state(stand, applicant.serial, "active")

    thief = Applicant(applicant.folder, applicant.serial)
    assert thief.provision().code == "already_active"
    assert len(stand.fleet.registry.certificates(f"dev-{applicant.serial}")) == 1


def wait_for_state(stand: Stand, serial: str, wanted: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while stand.state(serial) != wanted:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_thief_does_not_take_a_serial_that_another_key_has_claimed(line: Line, stand: Stand) -> None:
    applicant = line()
    assert applicant.provision().status == "accepted"

    assert Applicant(applicant.folder, applicant.serial).provision().code == "already_claimed"
    assert len(stand.fleet.registry.certificates(f"dev-{applicant.serial}")) == 1


def test_asking_again_with_the_same_key_yields_the_same_certificate(line: Line, stand: Stand) -> None:
    applicant = line(quota=1)
    first, second = applicant.provision(), applicant.provision()

    assert first.certificate == second.certificate is not None
    assert stand.fleet.registry.claim_used(applicant.config.claim) == 1
    assert len(stand.fleet.registry.certificates(f"dev-{applicant.serial}")) == 1


def test_a_serial_outside_the_batch_is_refused(line: Line, stand: Stand) -> None:
    applicant = line()
    stand.batch("others", ["other-1"])

    for serial in ("unheard-of", "other-1"):
        assert Applicant(applicant.folder, serial).provision().code == "serial_not_in_batch"
    assert stand.state("other-1") == "manufactured"


@pytest.mark.parametrize(
    ("window", "code"),
    [({"not_after": -60.0}, "batch_closed"), ({"not_before": 600.0}, "not_yet_open")],
    ids=["ended", "not yet begun"],
)
def test_a_batch_lets_nobody_in_outside_its_time(stand: Stand, window: dict[str, float], code: str) -> None:
    name, now = f"window-{code}", time.time()
    stand.batch(name, 1)
    folder = stand.claim(name, name)
    (key, offset), *_ = window.items()
    update = {"not_after": "UPDATE batches SET not_after = ?", "not_before": "UPDATE batches SET not_before = ?"}[key]
    stand.fleet.registry.write(f"{update} WHERE name = ?", (rfc3339(now + offset), name))

    assert Applicant(folder, f"{name}-0").provision().code == code


def test_a_closed_batch_lets_nobody_in(line: Line, stand: Stand) -> None:
    applicant = line()
    stand.fleet.registry.close_batch(applicant.config.claim, rfc3339(time.time()))

    assert applicant.provision().code == "batch_closed"


def test_a_claim_that_has_ended_lets_nobody_in(line: Line, stand: Stand) -> None:
    applicant = line()
    with applicant.session() as session:
        ended = rfc3339(time.time() - 1)
        stand.fleet.registry.write("UPDATE claims SET not_after = ? WHERE name = ?", (ended, applicant.config.claim))
        assert applicant.enrol(session).code == "claim_expired"


def test_a_revoked_claim_is_refused_by_the_service_at_once_and_by_the_broker_too(line: Line, stand: Stand) -> None:
    applicant = line()
    with applicant.session() as session:
        revoked = revoke_claim(stand.fleet, applicant.config.claim, "keyCompromise")
        assert (revoked.outcome, revoked.broker_reloaded) == ("revoked", True)
        with suppress(FleetError):  # a broker that cuts whom it refuses has done more
            assert applicant.enrol(session).code == "claim_revoked"

    with pytest.raises(FleetError):
        applicant.provision()
    assert revoke_claim(stand.fleet, applicant.config.claim).outcome == "unchanged"


def test_the_quota_is_exact_when_all_come_at_once(line: Line, stand: Stand) -> None:
    applicant = line(serials=10, quota=7)
    with ThreadPoolExecutor(10) as pool:
        replies = list(pool.map(lambda number: sibling(applicant, number).provision(), range(10)))

    assert sorted(reply.code or reply.status for reply in replies) == ["accepted"] * 7 + ["quota"] * 3
    assert stand.fleet.registry.claim_used(applicant.config.claim) == 7


def test_the_quota_of_a_batch_holds_over_all_its_claims(stand: Stand) -> None:
    stand.batch("shared", 3, quota=2)
    folders = [stand.claim(f"shared-{number}", "shared") for number in range(3)]
    codes = [Applicant(folder, f"shared-{number}").provision().code for number, folder in enumerate(folders)]

    assert codes == [None, None, "quota"]


def test_the_subject_is_the_registrys_whatever_the_request_says(line: Line) -> None:
    applicant = line()
    with applicant.session() as session:
        hello = applicant.ask(session, "hello")
        reply = applicant.ask(session, "enrol", applicant.csr(hello.nonce, "admin"))

    leaf = x509.load_pem_x509_certificates((reply.certificate or "").encode())[0]
    assert common_names(leaf) == [f"dev-{applicant.serial}"]
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [name.value for name in names] == [f"urn:fleetctl:acme/oslo/pump/dev-{applicant.serial}"]


def test_a_replayed_request_is_refused(line: Line) -> None:
    applicant = line()
    with applicant.session() as session:
        hello = applicant.ask(session, "hello")
        csr = applicant.csr(hello.nonce)
        assert applicant.ask(session, "enrol", csr).status == "accepted"
        assert applicant.ask(session, "enrol", csr).code == "no_nonce"
        assert applicant.ask(session, "hello").nonce not in (None, hello.nonce)
        assert applicant.ask(session, "enrol", csr).code == "stale_csr"
        assert applicant.ask(session, "enrol", applicant.csr(None)).code == "stale_csr"


def test_a_nonce_of_one_serial_is_none_of_another(line: Line) -> None:
    applicant = line()
    other = sibling(applicant, 1)
    with applicant.session() as session, other.session() as others:
        nonce = other.ask(others, "hello").nonce
        assert applicant.ask(session, "enrol", applicant.csr(nonce)).code == "no_nonce"


def test_a_key_that_another_device_has_is_refused(line: Line) -> None:
    applicant = line()
    assert applicant.provision().status == "accepted"

    assert Applicant(applicant.folder, sibling(applicant, 1).serial, applicant.key).provision().code == "duplicate_key"


def test_the_key_of_the_claim_itself_is_refused(line: Line) -> None:
    applicant = line()
    claim = load_key(applicant.folder / "claim.key")

    assert Applicant(applicant.folder, applicant.serial, claim).provision().code == "duplicate_key"


def test_a_weak_key_is_refused(line: Line) -> None:
    applicant = line()
    weak = rsa.generate_private_key(65537, 1024)  # noqa: S505

    assert Applicant(applicant.folder, applicant.serial, weak).provision().code == "weak_key"


def test_a_request_that_another_key_has_signed_is_refused(line: Line) -> None:
    applicant = line()
    with applicant.session() as session:
        csr = make_csr(applicant.key, "x", applicant.ask(session, "hello").nonce)
        der = x509.load_pem_x509_csr(csr).public_bytes(serialization.Encoding.DER)
        own = applicant.key.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
        other = generate_key("p256").public_key()
        theirs = other.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
        forged = x509.load_der_x509_csr(der.replace(own, theirs)).public_bytes(serialization.Encoding.PEM)
        assert applicant.ask(session, "enrol", forged).code == "bad_csr"
        assert applicant.ask(session, "enrol", b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n").code == "bad_csr"


def test_what_is_no_request_is_answered_and_harms_nobody(line: Line) -> None:
    applicant = line()
    with applicant.session() as session:
        for payload in (
            b"not json",
            b"[]",
            b'{"id":"x"}',
            b'{"id":"x","step":"sudo"}',
            b'{"id":{},"step":"hello"}',
            b"\xff" * 9000,
        ):
            assert applicant.say(session, payload).code == "bad_request"
        assert applicant.enrol(session).status == "accepted"


def test_a_serial_that_keeps_asking_is_slowed_down_and_its_neighbour_is_not(line: Line) -> None:
    applicant = line()
    with applicant.session() as session:
        codes = [applicant.ask(session, "hello").code for _ in range(30)]
        assert codes.count("rate_limited") >= 15
        assert codes[:10] == [None] * 10
    assert sibling(applicant, 1).provision().status == "accepted"


def test_a_claim_that_asks_for_many_foreign_serials_raises_an_alert(line: Line, service: Serving) -> None:
    applicant = line()
    for number in range(8):
        Applicant(applicant.folder, f"guess-{number}").provision()

    service.wait_for("alert", claim=applicant.config.claim, code="serial_not_in_batch")
    alerts = [each for each in service.events if each.event == "alert" and each.claim == applicant.config.claim]
    assert len(alerts) == 1


def test_a_request_under_another_claims_name_reaches_nobody(line: Line, stand: Stand) -> None:
    applicant = line()
    stand.batch("victim", 2)
    victim = Applicant(stand.claim("victim", "victim"), "victim-0")
    with applicant.session() as session:
        forged = (f"{victim.topics}/request", f"{victim.topics.rpartition('/')[0]}/{applicant.serial}/request")
        for topic in (*forged, f"{sibling(applicant, 1).topics}/request", f"{applicant.topics}/reply", "acme/oslo/pump/x/status"):
            with pytest.raises(FleetError):
                push(session, topic, b'{"id":"forged","step":"hello"}')


def push(session: Session, topic: str, payload: bytes) -> None:
    session.publish(topic, payload)
    session.flush()


def test_nobody_overhears_the_replies_to_others(line: Line) -> None:
    applicant = line()
    spy = sibling(applicant, 1)
    with open_session(spy.endpoint(), "device", client_id=spy.serial, timeout=PATIENCE) as session:
        for wanted in ("#", "acme/_fleet/provision/#", f"{applicant.topics}/reply", "acme/#", "acme/+/+/+/status"):
            try:
                session.subscribe([wanted])
            except FleetError:
                continue
        assert applicant.provision().status == "accepted"
        assert [message.topic for message in session.receive(0.5)] == []


def test_a_claim_opens_no_other_listener_and_no_device_certificate_opens_this_one(line: Line, tmp_path: Path) -> None:
    applicant = line()
    claims = applicant.endpoint()
    devices = Endpoint.parse_url(applicant.config.device_broker)
    for port in (devices.port, devices.port + 1):
        with pytest.raises(FleetError):
            open_session(replace(claims, port=port), "device", client_id=applicant.serial, timeout=PATIENCE).close()

    own = applicant.become(applicant.provision(), tmp_path / "own")
    endpoint = replace(claims, cert=own.folder / "device.pem", key=own.folder / "device.key")
    with pytest.raises(FleetError):
        open_session(endpoint, "device", client_id=applicant.serial, timeout=PATIENCE).close()


def test_nothing_but_the_identity_travels_over_the_session_of_a_claim(line: Line) -> None:
    applicant = line()
    with applicant.session() as session:
        hello = applicant.ask(session, "hello")
        session.publish(
            f"{applicant.topics}/request",
            b'{"id":"r","step":"enrol","csr":%s}' % json.dumps(applicant.csr(hello.nonce).decode()).encode(),
        )
        (message,) = session.receive(PATIENCE)
        assert set(json.loads(message.payload)) == {
            *("id", "step", "status", "code", "detail", "nonce", "deviceId", "path", "certificate", "retryAfter")
        }
        assert b"PRIVATE" not in message.payload
        assert session.receive(0.5) == []
