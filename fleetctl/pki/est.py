"""What EST puts into HTTP bodies (RFC 7030, corrected by RFC 8951): base64 on one line out, anything reasonable in."""

import base64
import binascii
from collections.abc import Sequence
from http import HTTPStatus
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs7

from fleetctl.errors import Malformed

REQUEST_TYPE = "application/pkcs10"
CERTS = "application/pkcs7-mime"
CERTS_ONLY = "application/pkcs7-mime; smime-type=certs-only"
ATTRIBUTES = "application/csrattrs"
BOUNDARY = "fleetctl-est-key-and-certificate"
CREDENTIALS_LIMIT = 512

# SEQUENCE { SEQUENCE { id-ecPublicKey, SET { prime256v1 } }, ecdsa-with-SHA256 } (RFC 7030 section 4.5.2)
_ATTRIBUTES = bytes.fromhex("3021" + "3015" + "06072a8648ce3d0201" + "310a" + "06082a8648ce3d030107" + "06082a8648ce3d040302")
# id-aa-decryptKeyID and id-aa-asymmDecryptKeyID: the key shall be encrypted beyond TLS (RFC 7030 section 4.4.1)
_ENCRYPT = (bytes.fromhex("060b2a864886f70d0109100225"), bytes.fromhex("060b2a864886f70d0109100236"))


class Refusal(Exception):
    """What is answered instead of a certificate: one line of words."""

    def __init__(self, status: HTTPStatus, words: str, *, code: str, retry_after: int | None = None) -> None:
        super().__init__(words)
        self.status = status
        self.words = words
        self.code = code
        self.retry_after = retry_after


class Credentials(NamedTuple):
    """The device that somebody says to be, and its token."""

    device_id: str
    token: str

    def __repr__(self) -> str:
        return f"Credentials({self.device_id!r}, …)"


class Body(NamedTuple):
    """A reply's type and content."""

    type: str
    content: bytes


def certs_only(certificates: Sequence[x509.Certificate], media_type: str = CERTS_ONLY) -> Body:
    """A certs-only PKCS #7 message (RFC 7030 sections 4.1.3 and 4.2.3)."""
    der = pkcs7.serialize_certificates(list(certificates), serialization.Encoding.DER)
    return Body(media_type, base64.b64encode(der))


def csr_attributes() -> Body:
    """The key and the signature that are wanted; no challenge, because TLS 1.3 has nothing that it could be."""
    return Body(ATTRIBUTES, base64.b64encode(_ATTRIBUTES))


def key_and_certificate(key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> Body:
    """What `/serverkeygen` returns (RFC 7030 section 4.4.2)."""
    secret = key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    parts = [Body("application/pkcs8", base64.b64encode(secret)), certs_only([certificate])]
    lines = b"".join(
        b"--%s\r\nContent-Type: %s\r\nContent-Transfer-Encoding: base64\r\n\r\n%s\r\n"
        % (BOUNDARY.encode(), part.type.encode(), part.content)
        for part in parts
    )
    return Body(f"multipart/mixed; boundary={BOUNDARY}", lines + b"--%s--\r\n" % BOUNDARY.encode())


def read_request(body: bytes) -> bytes:
    """A signing request in DER or PEM, out of DER, PEM or base64 with any white space; raises `Malformed`."""
    if body[:1] == b"\x30" or b"-----BEGIN" in body:
        return body
    try:
        return base64.b64decode(b"".join(body.split()), validate=True)
    except binascii.Error as error:
        raise Malformed("the body is no base64", "openssl req -in REQUEST -outform DER | openssl base64 -A") from error


def wants_encryption(request: bytes) -> bool:
    """Whether a request for a key asks that it be encrypted beyond TLS."""
    return any(oid in request for oid in _ENCRYPT)


def read_credentials(header: str | None) -> Credentials | None:
    """What an `Authorization` header says (RFC 7617); None where it says nothing that counts here."""
    scheme, _, encoded = (header or "").strip().partition(" ")
    if scheme.lower() != "basic" or len(encoded) > CREDENTIALS_LIMIT:
        return None
    try:
        text = base64.b64decode(encoded.strip(), validate=True).decode()
    except ValueError:
        return None
    device_id, colon, token = text.partition(":")
    return Credentials(device_id, token) if colon else None
