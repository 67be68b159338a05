"""Looking at certificates, requests and lists: what is shown, and that nothing hostile gets further than an error."""

import random
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fleetctl.errors import Malformed
from fleetctl.keys.store import private_pem
from fleetctl.model.certificate import Reason
from fleetctl.model.device import DevicePath
from fleetctl.pki import crl
from fleetctl.pki.authority import DEVICE_ISSUING, DEVICE_ROOT, create_issuing, create_root, device_request, issue, pem
from fleetctl.pki.csr import make_csr, spki_of
from fleetctl.pki.inspect import LIMIT, inspect

NOW = 1_800_000_000.0
KEY = ec.generate_private_key(ec.SECP256R1())
ROOT = create_root(DEVICE_ROOT, "acme", ec.generate_private_key(ec.SECP256R1()), NOW, 1)
ISSUING = create_issuing(ROOT, DEVICE_ISSUING, "acme", ec.generate_private_key(ec.SECP256R1()), NOW)
LEAF = issue(ISSUING, device_request(DevicePath("acme", "oslo", "pump", "p-1")), KEY.public_key(), NOW)
DER = serialization.Encoding.DER
NOT_DER = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


def test_a_chain_is_shown_from_the_leaf_on() -> None:
    leaf, issuing = inspect(pem(LEAF, ISSUING.certificate))
    assert (leaf.kind, leaf.subject, leaf.issuer) == ("certificate", "CN=p-1", "CN=device-issuing,O=acme")
    assert (leaf.key_type, leaf.spki, leaf.is_authority) == ("secp256r1", spki_of(KEY.public_key()), False)
    assert leaf.san == ("uri:urn:fleetctl:acme/oslo/pump/p-1",)
    assert leaf.signature_algorithm == "ecdsa-with-SHA256"
    assert leaf.usages == ("digitalSignature", "clientAuth")
    assert leaf.problems == ()
    assert (issuing.is_authority, issuing.path_length) == (True, 0)


def test_a_request_says_whether_it_carries_a_challenge_but_not_which() -> None:
    for challenge in (None, "s3cret"):
        (found,) = inspect(make_csr(KEY, "p-1", challenge))
        assert (found.kind, found.subject, found.challenge) == ("request", "CN=p-1", challenge is not None)
        assert "s3cret" not in repr(found)


def test_a_list_says_its_number_and_how_much_it_names() -> None:
    line = crl.Revoked(7, NOW, Reason.UNSPECIFIED)
    (found,) = inspect(crl.build(ISSUING, [line], 3, int(NOW)))
    assert (found.kind, found.number, found.entries, found.issuer) == ("list", 3, 1, "CN=device-issuing,O=acme")


def test_der_is_read_as_well() -> None:
    request = x509.load_pem_x509_csr(make_csr(KEY, "p-1")).public_bytes(DER)
    assert [inspect(data)[0].kind for data in (LEAF.public_bytes(DER), request)] == ["certificate", "request"]


def test_of_a_private_key_nothing_is_shown() -> None:
    key, leaf = inspect(private_pem(KEY) + pem(LEAF))
    assert (key.kind, key.spki, key.subject) == ("privateKey", None, None)
    assert leaf.kind == "certificate"


def test_a_weak_key_is_a_problem() -> None:
    weak = ec.generate_private_key(ec.SECP256K1())
    data = x509.CertificateSigningRequestBuilder(x509.Name([])).sign(weak, LEAF.signature_hash_algorithm)  # type: ignore[arg-type]
    (found,) = inspect(data.public_bytes(serialization.Encoding.PEM))
    assert found.problems == ("its key is too weak: the curve secp256k1 is not accepted",)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"text",
        b"\x30\x84\xff\xff\xff\xff",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        b"\x30\x80" * 9999,
    ],
    ids=["nothing", "text", "huge-length", "no-der", "nested"],
)
def test_what_is_none_of_these_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        inspect(data)


def test_more_than_anybody_reads_is_malformed() -> None:
    with pytest.raises(Malformed):
        inspect(pem(LEAF) * 1001)
    with pytest.raises(Malformed):
        inspect(b"\0" * (LIMIT + 1))


def test_whatever_bits_are_turned_it_is_shown_or_malformed() -> None:
    chance = random.Random(5)
    request = x509.load_pem_x509_csr(make_csr(KEY, "p-1", "nonce")).public_bytes(DER)
    revocations = x509.load_pem_x509_crl(crl.build(ISSUING, [], 3, int(NOW))).public_bytes(DER)
    for whole in (LEAF.public_bytes(DER), request, revocations):
        for _ in range(700):
            data = bytearray(whole)
            for _ in range(chance.randint(1, 3)):
                data[chance.randrange(len(data))] = chance.randrange(256)
            try:
                inspect(bytes(data))
            except Malformed:
                continue


@pytest.mark.parametrize(
    "part", [b"-----BEGIN CERTIFICATE-----", b"-----BEGIN A-----\n-----BEGIN ", b"-----BEGIN X-----\n-----END X-----\n"]
)
def test_no_text_takes_longer_than_its_length_allows(part: bytes) -> None:
    begin = time.process_time()
    with pytest.raises(Malformed):
        inspect(part * (4_000_000 // len(part)))
    assert time.process_time() - begin < 5


def test_a_list_with_an_endless_number_is_shown_without_it() -> None:
    number = x509.Extension(x509.CRLNumber.oid, False, x509.CRLNumber(1 << 20_000))
    whole = x509.CertificateRevocationListBuilder(LEAF.subject, LEAF.not_valid_before_utc, LEAF.not_valid_after_utc, [number], [])
    (found,) = inspect(whole.sign(KEY, LEAF.signature_hash_algorithm).public_bytes(DER))  # type: ignore[arg-type]
    assert (found.number, found.problems) == (None, ("its number is too long",))


def test_what_does_not_apply_is_null() -> None:
    (found,) = inspect(crl.build(ISSUING, [], 3, int(NOW)))
    assert (found.subject, found.serial, found.key_type, found.san, found.usages, found.is_authority) == (None,) * 6
