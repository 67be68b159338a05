"""Signing requests: what is read from them, and which are refused."""

import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

from fleetctl.errors import Malformed, Untrusted, UsageError
from fleetctl.pki.csr import CSR_LIMIT, WeakKey, checked_key, make_csr, normalised, parse_csr, spki_of
from fleetctl.pki.extensions import AuthorityKey

DER, PEM = serialization.Encoding.DER, serialization.Encoding.PEM


def p256() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def as_der(pem: bytes) -> bytes:
    return x509.load_pem_x509_csr(pem).public_bytes(DER)


def as_tpm2_openssl_writes(der: bytes) -> bytes:
    """The same request with NULL parameters beside the signature."""
    plain, null = bytes.fromhex("300a06082a8648ce3d040302"), bytes.fromhex("300c06082a8648ce3d0403020500")
    assert der[:2] == b"\x30\x81", "a request of this size has a length of one byte"
    head, tail = der[3:].rsplit(plain, 1)
    inner = head + null + tail
    return bytes([0x30, 0x81, len(inner)]) + inner


@pytest.mark.parametrize(
    "key",
    [
        p256(),
        ec.generate_private_key(ec.SECP384R1()),
        Ed25519PrivateKey.generate(),
        rsa.generate_private_key(public_exponent=65537, key_size=2048),
    ],
    ids=["p256", "p384", "ed25519", "rsa2048"],
)
def test_a_request_is_read_as_pem_and_as_der(key: AuthorityKey) -> None:
    pem = make_csr(key, "pump-7", "nonce")
    for data in (pem, as_der(pem), b"some words before it\n" + pem):
        request = parse_csr(data)
        assert request.spki == spki_of(key.public_key())
        assert (request.challenge, request.common_name) == ("nonce", "pump-7")


def test_a_request_of_a_tpm_is_read_although_its_library_writes_a_null_too_many() -> None:
    key = p256()
    odd = as_tpm2_openssl_writes(as_der(make_csr(key, "tpm")))
    with pytest.raises(ValueError, match=r"."):
        x509.load_der_x509_csr(odd)
    assert parse_csr(odd).spki == spki_of(key.public_key())


def test_taking_the_null_away_changes_no_other_request() -> None:
    der = as_der(make_csr(p256(), "pump-7"))
    assert normalised(der) == der
    assert normalised(as_tpm2_openssl_writes(der)) == der
    for cut in range(len(der)):
        assert normalised(der[:cut]) == der[:cut]


def test_a_request_without_a_challenge_has_none() -> None:
    assert parse_csr(make_csr(p256(), "pump-7")).challenge is None


def test_two_common_names_are_no_wish() -> None:
    key = p256()
    names = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, each) for each in ("admin", "pump-7")])
    data = x509.CertificateSigningRequestBuilder(names).sign(key, hashes.SHA256()).public_bytes(PEM)
    assert parse_csr(data).common_name is None


def test_a_request_without_a_subject_is_read() -> None:
    data = x509.CertificateSigningRequestBuilder(x509.Name([])).sign(p256(), hashes.SHA256()).public_bytes(DER)
    assert parse_csr(data).common_name is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x30",
        b"\x30\x84\xff\xff\xff\xff",
        b"garbage",
        b"\x30\x80" * 5000,
        b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
        b"-----BEGIN CERTIFICATE REQUEST-----\n!!!!\n-----END CERTIFICATE REQUEST-----\n",
        b"-----BEGIN CERTIFICATE REQUEST-----\n",
        make_csr(p256(), "one") + make_csr(p256(), "two"),
        p256().private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
        b"\0" * (CSR_LIMIT + 1),
    ],
    ids=["nothing", "cut", "huge-length", "text", "nested", "no-der", "no-base64", "no-end", "two", "a-key", "too-large"],
)
def test_what_is_no_request_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        parse_csr(data)


def test_every_bit_that_is_turned_is_noticed() -> None:
    der = bytearray(as_der(make_csr(p256(), "pump-7", "nonce")))
    for at in range(0, len(der), 3):
        der[at] ^= 0x20
        with pytest.raises((Malformed, Untrusted)):
            parse_csr(bytes(der))
        der[at] ^= 0x20
    parse_csr(bytes(der))


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(public_exponent=65537, key_size=1024),  # noqa: S505
        rsa.generate_private_key(public_exponent=3, key_size=2048),
        ec.generate_private_key(ec.SECP192R1()),
        ec.generate_private_key(ec.SECP256K1()),
        Ed448PrivateKey.generate(),
    ],
    ids=["rsa1024", "exponent3", "p192", "secp256k1", "ed448"],
)
def test_a_weak_or_unusual_key_is_refused(
    key: "rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | Ed448PrivateKey",
) -> None:
    digest = None if isinstance(key, Ed448PrivateKey) else hashes.SHA256()
    data = x509.CertificateSigningRequestBuilder(x509.Name([])).sign(key, digest).public_bytes(PEM)
    with pytest.raises(WeakKey):
        parse_csr(data)
    with pytest.raises(WeakKey):
        checked_key(key.public_key())


def test_a_signature_over_sha1_proves_nothing(tmp_path: Path) -> None:
    words = ["req", "-new", "-newkey", "rsa:2048", "-sha1", "-nodes", "-subj", "/CN=a", "-keyout", str(tmp_path / "k")]
    subprocess.run(["openssl", *words, "-out", str(tmp_path / "r")], check=True, capture_output=True)
    with pytest.raises(Untrusted):
        parse_csr((tmp_path / "r").read_bytes())


def test_an_endless_challenge_is_malformed() -> None:
    with pytest.raises(Malformed):
        parse_csr(make_csr(p256(), "pump-7", "x" * 300))


def test_one_key_has_one_name_however_its_point_is_written() -> None:
    key = p256().public_key()
    short = key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint)
    assert spki_of(ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), short)) == spki_of(key)


def test_something_else_has_no_name() -> None:
    with pytest.raises(UsageError):
        spki_of("a key")


def test_a_request_of_another_version_is_malformed() -> None:
    der = as_der(make_csr(p256(), "x")).replace(b"\x02\x01\x00", b"\x02\x01\x05")
    with pytest.raises(Malformed, match="that is no signing request"):
        parse_csr(der)
