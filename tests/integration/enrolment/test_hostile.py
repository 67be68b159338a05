"""Whoever may speak to the service tries to stop it, to wear others out, or to use what was taken back."""

import base64
import datetime
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from fleetctl.errors import FleetError
from fleetctl.keys.store import generate_key
from fleetctl.model.certificate import Reason
from fleetctl.model.device import DevicePath
from fleetctl.mqtt.broker import find_mosquitto
from fleetctl.mqtt.message import Message
from fleetctl.pki.authority import CLAIM_CA, common_names
from fleetctl.pki.csr import make_csr
from fleetctl.platforms.local import est_proof, revocation
from fleetctl.platforms.local.enrolment import vouching
from fleetctl.platforms.local.enrolment.answering import CLAIM_BURST, Answer, Answering, Case
from fleetctl.platforms.local.enrolment.expiring import expire
from fleetctl.platforms.local.enrolment.serving import Service
from fleetctl.platforms.local.fleet import LocalFleet
from fleetctl.platforms.local.succession import Wanted, rotate
from fleetctl.wire.document import rfc3339
from fleetctl.wire.provision import ProvisionReply, ProvisionRequest, Step, request_topic
from tests.integration.enrolment.stand import Applicant, Stand, serving


class Counter:
    """The service without a broker, on a clock that stands still."""

    def __init__(self, stand: Stand) -> None:
        self.stand, self.answering = stand, Answering(stand.fleet, lambda: 0.0)

    def ask(self, serial: str, step: Step, csr: bytes | None = None) -> ProvisionReply:
        said = ProvisionRequest("1", step, None if csr is None else csr.decode())
        message = Message(request_topic("acme", "line", serial), said.encode(), 1, False, 0.0)
        (answer,) = self.answering.answer_all([message])
        return answer.reply

    def enrol(self, serial: str) -> ProvisionReply:
        hello = self.ask(serial, "hello")
        return hello if hello.nonce is None else self.ask(serial, "enrol", make_csr(generate_key("p256"), "x", hello.nonce))


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Stand]:
    with ExitStack() as stack:
        made = Stand(tmp_path, stack)
        made.batch("b", 3)
        made.claim("line", "b")
        yield made


@pytest.fixture
def counter(own: Stand) -> Counter:
    return Counter(own)


def of_another_version(der: bytes) -> bytes:
    assert der.count(b"\x02\x01\x00") == 1
    return der.replace(b"\x02\x01\x00", b"\x02\x01\x05")


def test_a_request_of_a_version_that_is_none_stops_nobody(counter: Counter) -> None:
    nonce = counter.ask("b-0", "hello").nonce
    der = x509.load_pem_x509_csr(make_csr(generate_key("p256"), "x", nonce)).public_bytes(serialization.Encoding.DER)
    odd = b"-----BEGIN CERTIFICATE REQUEST-----\n%s\n-----END CERTIFICATE REQUEST-----\n"
    assert counter.ask("b-0", "enrol", odd % base64.b64encode(of_another_version(der))).code == "bad_csr"
    assert counter.enrol("b-1").status == "accepted"


class Faulty(Answering):
    def _hello(self, case: Case, request: ProvisionRequest) -> Answer:
        if case.serial == "b-0":
            raise RuntimeError("nobody thought of this")
        return super()._hello(case, request)


def test_a_fault_of_ours_refuses_one_and_stops_nothing(counter: Counter) -> None:
    counter.answering = Faulty(counter.stand.fleet, lambda: 0.0)
    reply = counter.ask("b-0", "hello")
    assert (reply.code, reply.retry_after) == ("failed", 60.0)
    assert "nobody thought" not in str(reply.detail)
    assert counter.enrol("b-1").status == "accepted"


def shown(name: str, broken: bytes = b"", mended: bytes = b"") -> str:
    """A certificate that a device has made for itself, with some of its bytes exchanged."""
    key, subject = generate_key("p256"), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), 77)
    dated = builder.not_valid_before(_time(2020)).not_valid_after(_time(2100))
    extended = dated.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    made = extended.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
    assert broken in made
    body = base64.b64encode(made.replace(broken, mended)).decode()
    return f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n"


def _time(year: int) -> datetime.datetime:
    return datetime.datetime(year, 1, 1, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("broken", "mended"),
    [
        (bytes.fromhex("a003020102"), bytes.fromhex("a003020107")),
        (bytes.fromhex("0603551d13"), bytes.fromhex("0603551d0f")),
        (bytes.fromhex("0101ff04023000"), bytes.fromhex("0101ff04023100")),
        (bytes.fromhex("2a8648ce3d030107"), bytes.fromhex("2a8648ce3d030177")),
    ],
    ids=["version", "another extension", "constraints", "curve"],
)
def test_a_certificate_that_does_not_parse_is_refused_as_any_other(broken: bytes, mended: bytes) -> None:
    with pytest.raises(FleetError):
        vouching.check(
            DevicePath("acme", "oslo", "pump", "vp-1"), vouching.read_chain(shown("vp-1", broken, mended)), [], 1_800_000_000.0
        )


def test_a_request_that_was_left_with_the_broker_is_not_answered_when_the_service_comes(own: Stand) -> None:
    if find_mosquitto() is None:
        pytest.skip("mosquitto is not installed")
    own.run_broker("mosquitto")
    applicant = Applicant(own.folder / "claims" / "line", "b-0")
    with applicant.session() as session:
        session.publish(f"{applicant.topics}/request", ProvisionRequest("stale", "hello").encode(), 1, True)
        session.flush()
        with serving(own):
            assert session.receive(0.5) == []
            assert applicant.enrol(session).status == "accepted"


def test_a_claim_whose_certificate_was_revoked_by_its_serial_is_over(own: Stand, counter: Counter) -> None:
    registry = own.fleet.registry
    revocation.revoke(own.fleet, [registry.certificate(registry.claim("line").certificate)], Reason.KEY_COMPROMISE)
    assert counter.enrol("b-0").code == "claim_revoked"


def test_a_claim_of_an_authority_that_was_retired_is_over(own: Stand, counter: Counter) -> None:
    own.fleet.registry.set_authority(CLAIM_CA, "retired")
    assert counter.enrol("b-0").code == "claim_revoked"


def test_a_service_signs_with_the_authority_that_another_process_has_made_active(own: Stand, counter: Counter) -> None:
    before = counter.enrol("b-0")
    with LocalFleet(own.fleet.context) as other:
        rotate(other, "devices", Wanted())
    after = counter.enrol("b-1")
    leaves = [x509.load_pem_x509_certificates((reply.certificate or "").encode()) for reply in (before, after)]
    for leaf, issuing in leaves:
        leaf.verify_directly_issued_by(issuing)
    assert [common_names(issuing) for _, issuing in leaves] == [["device-issuing"], ["device-issuing-2"]]


def test_one_device_that_asks_without_end_leaves_its_batch_alone(counter: Counter) -> None:
    codes = {counter.ask("b-0", "hello").code for _ in range(int(CLAIM_BURST) + 10)}
    assert codes == {None, "rate_limited"}
    assert counter.enrol("b-1").status == "accepted"


def test_a_clock_that_is_set_forward_takes_nothing_back(own: Stand) -> None:
    ahead = [0.0]
    with LocalFleet(own.fleet.context, lambda: time.time() + ahead[0]) as fleet:
        counter = Counter(own)
        counter.answering = Answering(fleet, lambda: 0.0)
        assert counter.enrol("b-0").status == "accepted"
        service = Service(fleet, threading.Event(), SimpleQueue(), pending_for=86400.0, sweep=0.0)
        assert list(service._sweep()) == []
        ahead[0] = 2 * 86400.0
        (told,) = service._sweep()
        assert (told.event, told.code) == ("failed", "clock")
        assert list(service._sweep()) == []
    assert own.state("b-0") == "claimed"


def test_a_certificate_that_was_taken_back_meanwhile_makes_nobody_active(own: Stand, counter: Counter) -> None:
    assert counter.enrol("b-0").status == "accepted"
    registry = own.fleet.registry
    (row,) = registry.certificates("dev-b-0")
    registry.revoke_certificate(row.serial, Reason.CESSATION_OF_OPERATION, rfc3339(own.fleet.clock()))
    assert not est_proof.prove(own.fleet, row)
    assert own.state("b-0") == "claimed"
    assert [event.event for event in expire(own.fleet, -1.0)] == ["expired"]
    assert own.state("b-0") == "manufactured"
