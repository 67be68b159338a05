"""Enrolling with a token: one certificate for one device, whatever is asked for, lost or asked again."""

import base64
import ssl
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import pkcs7

from fleetctl.errors import Conflict
from fleetctl.model.certificate import Reason
from fleetctl.model.device import Device, DevicePath, LifeCycle
from fleetctl.model.enrolment import EnrolmentState
from fleetctl.model.profile import Approval, ProvisioningProfile
from fleetctl.pki.authority import common_names, serial_of
from fleetctl.pki.csr import make_csr, parse_csr, spki_of
from fleetctl.platforms.local import revocation, tokens
from fleetctl.platforms.local.enrolment import approval
from fleetctl.platforms.local.est import EstService
from tests.integration.est.stand import Stand, ask, new_key


def manufactured(stand: Stand, name: str = "p-1", profile: str | None = None) -> None:
    path, at = DevicePath("acme", "oslo", "pump", name), "2026-11-24T00:00:00.000Z"
    stand.fleet.registry.add_device(Device(path, {}, LifeCycle.MANUFACTURED, at, serial=f"SN-{name}", profile=profile))


def test_a_token_gets_the_device_a_certificate_of_its_own_name(stand: Stand) -> None:
    stand.add()
    key = new_key()
    reply = stand.ask("simpleenroll", make_csr(key, "p-1"), user=f"p-1:{stand.token()}")
    assert reply.headers["Content-Type"] == "application/pkcs7-mime; smime-type=certs-only"
    assert b"\n" not in reply.body
    assert common_names(reply.certificate) == ["p-1"]
    assert reply.certificate.public_key() == key.public_key()
    assert stand.serials() == {serial_of(reply.certificate)}
    assert stand.steps() == ["added", "enrolled"]


def test_der_base64_and_pem_are_taken_with_any_white_space_and_without_a_type(stand: Stand) -> None:
    key = new_key()
    pem = make_csr(key, "p-1")
    der = x509.load_pem_x509_csr(pem).public_bytes(serialization.Encoding.DER)
    wrapped = base64.encodebytes(der).replace(b"\n", b"\r\n\t ")
    stand.add()
    user = f"p-1:{stand.token()}"
    got = {stand.ask("simpleenroll", body, user=user).certificate for body in (pem, der, wrapped, base64.b64encode(der))}
    assert len(got) == 1
    with stand.connection() as connection:
        connection.request(
            "POST",
            "/.well-known/est/simpleenroll",
            der,
            {"Authorization": "Basic " + base64.b64encode(user.encode()).decode()},
        )
        assert connection.getresponse().status == 200


def test_a_manufactured_device_is_claimed_until_it_comes_with_its_certificate(stand: Stand) -> None:
    manufactured(stand)
    _, holding = stand.enrolled()
    assert stand.state() is LifeCycle.CLAIMED
    assert stand.ask("cacerts", holding=holding).status == 200
    assert stand.state() is LifeCycle.ACTIVE
    stand.ask("cacerts", holding=holding)
    assert stand.steps() == ["added", "enrolled", "proven"]
    assert [event.event for event in stand.events] == ["issued", "activated"]


@pytest.mark.parametrize("user", [None, "p-1:", "p-1:wrong", "p-2:{token}", ":{token}", "nobody:{token}"])
def test_nobody_is_let_in_without_a_good_token_of_that_device(stand: Stand, user: str | None) -> None:
    stand.add("p-1")
    stand.add("p-2")
    shown = user and user.format(token=stand.token("p-1"))
    reply = stand.ask("simpleenroll", make_csr(new_key(), "p-1"), user=shown)
    assert reply.status == 401
    assert reply.headers["WWW-Authenticate"].startswith("Basic realm=")
    assert stand.serials() == set()


@pytest.mark.parametrize("header", ["Bearer x", "Basic", "Basic !!!", "Basic " + "QQ" * 400, "Basic /w=="])
def test_garbled_credentials_are_none(stand: Stand, header: str) -> None:
    stand.add()
    assert stand.ask("simpleenroll", make_csr(new_key(), "p-1"), headers={"Authorization": header}).status == 401


def test_expired_and_revoked_tokens_are_refused(stand: Stand) -> None:
    stand.add()
    csr = make_csr(new_key(), "p-1")
    revoked = stand.token()
    tokens.revoke(stand.fleet, ["p-1"])
    assert stand.ask("simpleenroll", csr, user=f"p-1:{revoked}").words == "the token was revoked"
    late = stand.token(seconds=60)
    stand.service.stop()
    stand.fleet.clock = lambda: time.time() + 61
    stand.restart()
    assert stand.ask("simpleenroll", csr, user=f"p-1:{late}").words == "the token has expired"


def test_a_used_token_gets_the_same_key_the_same_certificate_and_another_key_nothing(stand: Stand) -> None:
    stand.add()
    user, csr = f"p-1:{stand.token()}", make_csr(new_key(), "p-1")
    first = stand.ask("simpleenroll", csr, user=user).certificate
    stand.restart()
    assert stand.ask("simpleenroll", csr, user=user).certificate == first
    again = stand.ask("simpleenroll", make_csr(new_key(), "p-1"), user=user)
    assert (again.status, again.words) == (401, "the token was used already")
    assert stand.serials() == {serial_of(first)}
    assert [event.event for event in stand.events] == ["issued", "repeated", "refused"]


def test_one_token_makes_one_certificate_under_parallel_requests(stand: Stand) -> None:
    stand.add()
    user = f"p-1:{stand.token()}"
    requests = [make_csr(new_key(), "p-1") for _ in range(12)]
    with ThreadPoolExecutor(12) as pool:
        statuses = list(pool.map(lambda csr: stand.ask("simpleenroll", csr, user=user).status, requests))
    assert sorted(statuses) == [200] + [401] * 11
    assert len(stand.serials()) == 1


def test_two_services_on_one_registry_share_the_use_of_a_token(stand: Stand) -> None:
    stand.add()
    user = f"p-1:{stand.token()}"
    other = EstService(stand.fleet, "localhost:0", stand.events.append)
    other.start()
    urls = [stand.service.url, other.url]

    def enrol(index: int) -> int:
        with stand.connection(url=urls[index % 2]) as connection:
            return ask(connection, "simpleenroll", make_csr(new_key(), "p-1"), user=user).status

    try:
        with ThreadPoolExecutor(8) as pool:
            statuses = list(pool.map(enrol, range(8)))
    finally:
        other.stop()
    assert sorted(statuses) == [200] + [401] * 7


def test_the_request_names_the_device_that_was_believed_or_nobody(stand: Stand) -> None:
    stand.add()
    user = f"p-1:{stand.token()}"
    for name in ("p-2", "admin", "op:alice"):
        assert stand.ask("simpleenroll", make_csr(new_key(), name), user=user).status == 403
    nameless = x509.CertificateSigningRequestBuilder(x509.Name([])).sign(new_key(), hashes.SHA256())
    reply = stand.ask("simpleenroll", nameless.public_bytes(serialization.Encoding.DER), user=user)
    assert common_names(reply.certificate) == ["p-1"]


def weak() -> bytes:
    key = rsa.generate_private_key(65537, 1024)  # noqa: S505 - what is refused
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "p-1")])
    return x509.CertificateSigningRequestBuilder(name).sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def forged() -> bytes:
    der = x509.load_pem_x509_csr(make_csr(new_key(), "p-1")).public_bytes(serialization.Encoding.DER)
    return der[:-1] + bytes([der[-1] ^ 1])


@pytest.mark.parametrize("body", [b"", b"hello", b"0", b"\x30\x82", make_csr(new_key(), "p-1")[:200], weak(), forged()])
def test_a_request_that_is_none_or_weak_or_forged_is_refused_and_the_token_stays(stand: Stand, body: bytes) -> None:
    stand.add()
    user = f"p-1:{stand.token()}"
    reply = stand.ask("simpleenroll", body, user=user)
    assert reply.status == 400
    assert len(reply.words.splitlines()) == 1
    assert stand.ask("simpleenroll", make_csr(new_key(), "p-1"), user=user).status == 200


def test_a_key_of_another_certificate_is_refused_without_a_word_of_whose(stand: Stand) -> None:
    stand.add("p-1")
    stand.add("p-2")
    key = new_key()
    stand.enrolled("p-1", key)
    reply = stand.ask("simpleenroll", make_csr(key, "p-2"), user=f"p-2:{stand.token('p-2')}")
    assert (reply.status, reply.words) == (409, "the key is that of another certificate: make a new one")


def test_a_device_may_enrol_anew_with_the_key_that_it_cannot_change(stand: Stand) -> None:
    stand.add()
    key = new_key()
    first, _ = stand.enrolled(key=key)
    second, _ = stand.enrolled(key=key)
    assert first != second
    assert stand.fleet.registry.certificate(serial_of(second)).replaces == serial_of(first)
    stand.fleet.certificates.revoke("p-1", "keyCompromise")
    assert stand.ask("simpleenroll", make_csr(key, "p-1"), user=f"p-1:{stand.token()}").status == 409


def test_suspended_and_retired_devices_get_neither_tokens_nor_certificates(stand: Stand) -> None:
    stand.add()
    user = f"p-1:{stand.token()}"
    stand.fleet.registry.move_device("p-1", LifeCycle.SUSPENDED, event="suspended", at="2026-11-24T00:00:00.000Z")
    reply = stand.ask("simpleenroll", make_csr(new_key(), "p-1"), user=user)
    assert (reply.status, reply.words) == (403, "the device is suspended")
    with pytest.raises(Conflict, match="`p-1` is suspended"):
        stand.token()


def test_a_token_from_before_a_revocation_is_over_and_a_newer_one_is_not(stand: Stand) -> None:
    stand.add()
    stand.enrolled()
    early = stand.token()
    registry = stand.fleet.registry
    revocation.revoke(stand.fleet, registry.certificates("p-1"), Reason.KEY_COMPROMISE, moves=True)
    assert stand.state() is LifeCycle.REVOKED
    assert stand.ask("simpleenroll", make_csr(new_key(), "p-1"), user=f"p-1:{early}").status == 401
    assert stand.state() is LifeCycle.REVOKED
    assert stand.ask("simpleenroll", make_csr(new_key(), "p-1"), user=f"p-1:{stand.token()}").status == 200


def test_a_reset_ends_the_tokens_that_there_are(stand: Stand) -> None:
    manufactured(stand)
    early = stand.token()
    approval.reset(stand.fleet, [stand.fleet.registry.device("p-1")], "lost on the way")
    assert stand.ask("simpleenroll", make_csr(new_key(), "p-1"), user=f"p-1:{early}").status == 401


def test_a_key_that_the_server_makes_fits_its_certificate_and_is_kept_nowhere(stand: Stand) -> None:
    stand.add()
    user, csr = f"p-1:{stand.token()}", make_csr(new_key(), "p-1")
    reply = stand.ask("serverkeygen", csr, user=user)
    kind, _, boundary = reply.headers["Content-Type"].partition("; boundary=")
    _, key_part, certificate_part, end = reply.body.split(b"--" + boundary.encode())
    assert kind == "multipart/mixed"
    assert end.strip() == b"--"
    head, _, encoded = key_part.strip().partition(b"\r\n\r\n")
    assert b"Content-Type: application/pkcs8" in head
    key = serialization.load_der_private_key(base64.b64decode(encoded, validate=True), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    head, _, encoded = certificate_part.strip().partition(b"\r\n\r\n")
    (certificate,) = pkcs7.load_der_pkcs7_certificates(base64.b64decode(encoded, validate=True))
    assert certificate.public_key() == key.public_key()
    secret = key.private_numbers().private_value.to_bytes(32, "big")
    for path in stand.fleet.context.folder.rglob("*"):
        assert not path.is_file() or secret not in path.read_bytes()
    assert stand.ask("serverkeygen", csr, user=user).status == 401


def test_a_key_that_shall_be_encrypted_beyond_tls_is_refused(stand: Stand) -> None:
    stand.add()
    key, oid = new_key(), x509.ObjectIdentifier("1.2.840.113549.1.9.16.2.37")
    builder = x509.CertificateSigningRequestBuilder(x509.Name([])).add_attribute(oid, b"some key")
    body = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
    assert stand.ask("serverkeygen", body, user=f"p-1:{stand.token()}").status == 400


def test_the_challenge_binds_a_request_to_a_connection_where_tls_can(stand: Stand) -> None:
    stand.add()
    user, key = f"p-1:{stand.token()}", new_key()
    with stand.connection(newest=ssl.TLSVersion.TLSv1_2) as connection:
        wrong = ask(connection, "simpleenroll", make_csr(key, "p-1", "a habit from SCEP"), user=user)
        assert wrong.status == 400
        assert "tls-unique" in wrong.words
        assert isinstance(connection.sock, ssl.SSLSocket)
        unique = base64.b64encode(connection.sock.get_channel_binding("tls-unique") or b"").decode()
        assert ask(connection, "simpleenroll", make_csr(key, "p-1", unique), user=user).status == 200
    assert stand.ask("simpleenroll", make_csr(key, "p-1", "anything"), user=user).status == 200  # TLS 1.3 has no such thing


def test_a_person_approves_where_the_profile_says_so(stand: Stand) -> None:
    stand.fleet.registry.put_profile(ProvisioningProfile("careful", days=30, approval=Approval.MANUAL))
    manufactured(stand, profile="careful")
    key = new_key()
    user, csr = f"p-1:{stand.token()}", make_csr(key, "p-1")
    for _ in range(2):
        reply = stand.ask("simpleenroll", csr, user=user)
        assert (reply.status, reply.headers["Retry-After"]) == (202, "30")
    (waiting,) = approval.pending(stand.fleet)
    assert (waiting.method, waiting.device_id, waiting.key) == ("est", "p-1", spki_of(key.public_key()))
    rows = approval.choose(stand.fleet, [waiting.id], None, EnrolmentState.APPROVED)
    approval.approve(stand.fleet, rows, None)
    certificate = stand.ask("simpleenroll", csr, user=user).certificate
    assert (certificate.not_valid_after_utc - certificate.not_valid_before_utc).days == 30
    stand.ask("cacerts", holding=stand.holding("p-1", certificate, key))
    assert stand.fleet.registry.enrolment(waiting.id).state == "active"


def test_who_was_turned_away_is_told_so(stand: Stand) -> None:
    stand.fleet.registry.put_profile(ProvisioningProfile("careful", approval=Approval.MANUAL))
    manufactured(stand, profile="careful")
    user, csr = f"p-1:{stand.token()}", make_csr(new_key(), "p-1")
    stand.ask("simpleenroll", csr, user=user)
    approval.reject(stand.fleet, stand.fleet.registry.enrolments(device_id="p-1"), "not ours")
    assert stand.ask("simpleenroll", csr, user=user).status == 403
    assert stand.ask("simpleenroll", make_csr(new_key(), "p-1"), user=user).status == 403
    assert stand.serials() == set()


def by_hand(stand: Stand) -> None:
    stand.fleet.registry.put_profile(ProvisioningProfile("by-hand", approval=Approval.MANUAL))
    manufactured(stand, profile="by-hand")


def test_what_a_claim_was_refused_turns_no_device_away(stand: Stand) -> None:
    by_hand(stand)
    stand.fleet.registry.record_refusal("line", "SN-p-1", "p-1", "rejected", "2026-11-24T00:00:00.000Z")
    assert stand.ask("simpleenroll", make_csr(new_key(), "p-1"), user=f"p-1:{stand.token()}").status == 202


def test_the_key_that_was_approved_is_let_in_when_its_rival_was_turned_away(stand: Stand) -> None:
    by_hand(stand)
    user, mine, theirs = f"p-1:{stand.token()}", make_csr(new_key(), "p-1"), make_csr(new_key(), "p-1")
    assert [stand.ask("simpleenroll", csr, user=user).status for csr in (mine, theirs)] == [202, 202]
    first, second = sorted(approval.pending(stand.fleet), key=lambda each: each.key != parse_csr(mine).spki)
    approval.approve(stand.fleet, approval.choose(stand.fleet, [first.id], None, "approve"), None)
    with pytest.raises(Conflict, match="another key was approved"):
        approval.approve(stand.fleet, approval.choose(stand.fleet, [second.id], None, "approve"), None)
    approval.reject(stand.fleet, approval.choose(stand.fleet, [second.id], None, "reject"), "not ours")
    assert stand.ask("simpleenroll", theirs, user=user).status == 403
    assert stand.ask("simpleenroll", mine, user=user).status == 200
