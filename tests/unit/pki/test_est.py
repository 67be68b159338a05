"""What EST puts into bodies, and what it takes out of them."""

import base64

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from fleetctl.errors import Malformed
from fleetctl.pki.est import Credentials, csr_attributes, read_credentials, read_request, wants_encryption


def basic(text: str | bytes) -> str:
    return "Basic " + base64.b64encode(text if isinstance(text, bytes) else text.encode()).decode()


@given(st.binary(min_size=1, max_size=200), st.sampled_from(["", "\n", "\r\n", " \t"]))
def test_base64_is_read_whatever_white_space_is_in_it(der: bytes, space: str) -> None:
    text = space.join(base64.b64encode(b"\x30" + der).decode()).encode()
    assert read_request(text) == b"\x30" + der


@pytest.mark.parametrize("body", [b"!", b"QQ", b"QQ==QQ", "ä".encode()])
def test_what_is_no_base64_is_refused(body: bytes) -> None:
    with pytest.raises(Malformed):
        read_request(body)


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (basic("p-1:secret"), Credentials("p-1", "secret")),
        (basic("p-1:a:b").replace("Basic", "bAsIc"), Credentials("p-1", "a:b")),
        (basic(":"), Credentials("", "")),
        (basic("p-1"), None),
        (basic(b"\xff:x"), None),
        (basic("p-1:" + "x" * 1000), None),
        ("Basic", None),
        ("Basic *", None),
        ("Bearer x", None),
        ("", None),
        (None, None),
    ],
)
def test_credentials_are_basic_or_none(header: str | None, found: Credentials | None) -> None:
    assert read_credentials(header) == found


def test_a_token_is_not_in_the_words_for_its_credentials() -> None:
    assert "secret" not in repr(Credentials("p-1", "secret"))


def test_the_attributes_are_one_line_of_der() -> None:
    body = csr_attributes()
    assert base64.b64decode(body.content, validate=True)[:2] == b"\x30\x21"


@pytest.mark.parametrize(("number", "wants"), [("37", True), ("54", True), ("7", False)])
def test_a_request_that_wants_its_key_encrypted_is_known(number: str, wants: bool) -> None:
    oid = x509.ObjectIdentifier(f"1.2.840.113549.1.9.16.2.{number}")
    builder = x509.CertificateSigningRequestBuilder(x509.Name([])).add_attribute(oid, b"x")
    request = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    assert wants_encryption(request.public_bytes(serialization.Encoding.DER)) is wants
