"""Signing requests (PKCS #10): what may be believed of them is the key, that its owner asked, and the challenge; nothing else."""

import base64
import hashlib
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.x509.oid import AttributeOID, NameOID

from fleetctl.errors import Malformed, Untrusted, UsageError
from fleetctl.pki.extensions import AuthorityKey, SubjectKey, digest_for

CSR_LIMIT = 16384
CHALLENGE_LIMIT = 255
RSA_BITS = (2048, 4096)
RSA_EXPONENT_BITS = 33
_CURVES = ("secp256r1", "secp384r1")
_WEAK_DIGESTS = ("md5", "sha1")
_LOOK = "look at it with openssl req -noout -text -verify -in FILE"
_POLICY = "make a P-256 key: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out NEW.key"

# ecdsa-with-SHA256 with NULL parameters, as tpm2-openssl before 1.3 writes it, and as RFC 5758 section 3.2 wants it
_WITH_NULL = bytes.fromhex("300c06082a8648ce3d0403020500")
_WITHOUT = bytes.fromhex("300a06082a8648ce3d040302")


class WeakKey(Untrusted):
    """A key that no certificate is given to."""


@dataclass(frozen=True, slots=True)
class SigningRequest:
    """A request whose owner holds the key: `spki` identifies that, `challenge` was signed with it, `common_name` is a wish."""

    public_key: SubjectKey
    spki: str
    challenge: str | None
    common_name: str | None


def parse_csr(data: bytes) -> SigningRequest:
    """Read a request, PEM or DER.

    Raises:
        Malformed: it is none, or larger than 16 KiB.
        WeakKey: its key is not strong enough.
        Untrusted: its signature does not fit.
    """
    request = _load(data)
    public_key = _public_key(request)
    if not _is_signed(request):
        raise Untrusted("the signature of the request is not that of its key", _LOOK)
    return SigningRequest(public_key, spki_of(public_key), _challenge(request), _common_name(request))


def make_csr(key: AuthorityKey, common_name: str, challenge: str | None = None) -> bytes:
    """A request in PEM, signed by `key`; `challenge` proves that it was made after the other side chose that."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    builder = x509.CertificateSigningRequestBuilder(subject_name=name)
    if challenge is not None:
        builder = builder.add_attribute(AttributeOID.CHALLENGE_PASSWORD, challenge.encode())
    return builder.sign(key, digest_for(key)).public_bytes(serialization.Encoding.PEM)


def spki_of(public_key: object) -> str:
    """SHA-256 in hex over the SubjectPublicKeyInfo in the one form that this program writes."""
    return hashlib.sha256(_spki_der(public_key)).hexdigest()


def weakness(public_key: object) -> str | None:
    """Why no certificate is given to a key; None for a good one."""
    match public_key:
        case ec.EllipticCurvePublicKey():
            name = public_key.curve.name
            return None if name in _CURVES else f"the curve {name} is not accepted"
        case Ed25519PublicKey():
            return None
        case rsa.RSAPublicKey():
            least, most = RSA_BITS
            if not least <= public_key.key_size <= most:
                return f"an RSA key of {public_key.key_size} bits is not accepted, only {least} to {most}"
            exponent = public_key.public_numbers().e
            usual = exponent >= 65537 and exponent.bit_length() <= RSA_EXPONENT_BITS
            return None if usual else "its RSA exponent is not accepted"
    return "its kind is not accepted"


def checked_key(public_key: object) -> SubjectKey:
    """Raises `WeakKey`."""
    flaw = weakness(public_key)
    if flaw is not None or not isinstance(public_key, SubjectKey):
        raise WeakKey(f"the key is too weak: {flaw}", _POLICY)
    return public_key


def normalised(der: bytes) -> bytes:
    """The request without the parameters that tpm2-openssl writes beside the signature: the signature does not cover them."""
    try:
        body, end = _header(der, 0)
        info_body, info_end = _header(der, body)
    except IndexError:
        return der
    at = info_end
    if end != len(der) or info_body > info_end or der[at : at + len(_WITH_NULL)] != _WITH_NULL:
        return der
    inner = der[body:at] + _WITHOUT + der[at + len(_WITH_NULL) :]
    return b"\x30" + _length(len(inner)) + inner


def _load(data: bytes) -> x509.CertificateSigningRequest:
    if len(data) > CSR_LIMIT:
        raise Malformed(f"the request has more than {CSR_LIMIT} bytes", _LOOK)
    try:
        der = _unarmoured(data) if b"-----BEGIN" in data else data
        return x509.load_der_x509_csr(normalised(der))
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise Malformed("that is no signing request", _LOOK) from error


def _unarmoured(data: bytes) -> bytes:
    """The DER of the one request in a PEM text; raises `ValueError`."""
    for label in (b"CERTIFICATE REQUEST", b"NEW CERTIFICATE REQUEST"):
        _, found, rest = data.partition(b"-----BEGIN " + label + b"-----")
        body, ended, after = rest.partition(b"-----END " + label + b"-----")
        if found and ended:
            if b"-----BEGIN" in after:
                raise ValueError("more than one request")
            return base64.b64decode(b"".join(body.split()), validate=True)
    raise ValueError("no request")


def _public_key(request: x509.CertificateSigningRequest) -> SubjectKey:
    try:
        public_key = request.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise WeakKey("the key of the request is of no kind that is accepted", _POLICY) from error
    return checked_key(public_key)


def _is_signed(request: x509.CertificateSigningRequest) -> bool:
    try:
        digest, valid = request.signature_hash_algorithm, request.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return valid and (digest is None or digest.name not in _WEAK_DIGESTS)


def _challenge(request: x509.CertificateSigningRequest) -> str | None:
    try:
        value = request.attributes.get_attribute_for_oid(AttributeOID.CHALLENGE_PASSWORD).value
        text = value.decode()
    except x509.AttributeNotFound:
        return None
    except (ValueError, TypeError) as error:
        raise Malformed("the challenge of the request is no text", _LOOK) from error
    if len(text) > CHALLENGE_LIMIT:
        raise Malformed(f"the challenge of the request has more than {CHALLENGE_LIMIT} characters", _LOOK)
    return text


def _common_name(request: x509.CertificateSigningRequest) -> str | None:
    try:
        names = request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except (ValueError, TypeError) as error:
        raise Malformed("the subject of the request does not parse", _LOOK) from error
    return str(names[0].value) if len(names) == 1 else None


def _spki_der(public_key: object) -> bytes:
    encode = getattr(public_key, "public_bytes", None)
    if encode is None:
        raise UsageError("that is no public key", "name a file that holds one")
    der: bytes = encode(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return der


def _header(der: bytes, at: int) -> tuple[int, int]:
    """Where the content of the SEQUENCE at `at` begins and ends; raises `IndexError`."""
    if der[at] != 0x30:
        raise IndexError
    first = der[at + 1]
    if first < 0x80:
        return at + 2, at + 2 + first
    count = first & 0x7F
    begin = at + 2 + count
    if not 1 <= count <= 3 or begin > len(der):
        raise IndexError
    return begin, begin + int.from_bytes(der[at + 2 : begin], "big")


def _length(size: int) -> bytes:
    if size < 0x80:
        return bytes([size])
    body = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([0x80 | len(body)]) + body
