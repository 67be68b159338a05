"""COSE_Sign1 (RFC 9052 section 4.2) in the one spelling that the contract allows: no cryptography here, only the envelope."""

from dataclasses import dataclass

from fleetctl.errors import Malformed
from fleetctl.wire.document import PAYLOAD_LIMIT, canonical_cbor, parse_cbor

ALG, KID = 1, 4
EDDSA, ES256 = -8, -7
KID_LENGTH = 8
SIGNATURE_LENGTH = 64
"""Of Ed25519 and, as raw r || s (RFC 9053 section 2.1), of ES256."""

_TAG_18 = b"\xd2"


@dataclass(frozen=True, slots=True)
class Sign1:
    """An envelope taken apart and not verified; `protected` is the encoded header, which is what is signed."""

    protected: bytes
    payload: bytes
    signature: bytes

    @property
    def alg(self) -> int:
        """The algorithm that the message claims; the one that counts is pinned by the key."""
        return _header(self.protected)[0]

    @property
    def kid(self) -> bytes:
        return _header(self.protected)[1]


def protect(alg: int, kid: bytes) -> bytes:
    """The encoded protected header."""
    return canonical_cbor({ALG: alg, KID: kid})


def join(protected: bytes, payload: bytes, signature: bytes) -> bytes:
    """The envelope: tag 18 and an array of the protected header, an empty unprotected one, the payload and the signature."""
    return _TAG_18 + canonical_cbor([protected, {}, payload, signature])


def split(data: bytes, limit: int = PAYLOAD_LIMIT) -> Sign1:
    """Take an envelope apart; raises `Malformed` for every spelling but that of `join`."""
    if data[:1] != _TAG_18:
        raise Malformed("the envelope is not a COSE_Sign1 with tag 18")
    items = parse_cbor(data[1:], limit)
    if not isinstance(items, list) or len(items) != 4:
        raise Malformed("the envelope is not an array of four")
    protected, unprotected, payload, signature = items
    if not (isinstance(protected, bytes) and isinstance(payload, bytes) and isinstance(signature, bytes)):
        raise Malformed("the envelope holds something else than byte strings")
    if unprotected != {}:
        raise Malformed("the unprotected header is not empty")
    if len(signature) != SIGNATURE_LENGTH:
        raise Malformed(f"the signature has {len(signature)} bytes instead of {SIGNATURE_LENGTH}")
    _header(protected)
    return Sign1(protected, payload, signature)


def to_be_signed(protected: bytes, external_aad: bytes, payload: bytes) -> bytes:
    """The Sig_structure (RFC 9052 section 4.4)."""
    return canonical_cbor(["Signature1", protected, external_aad, payload])


def _header(protected: bytes) -> tuple[int, bytes]:
    """Algorithm and kid; any other key would be critical, so there may be none."""
    header = parse_cbor(protected)
    if not isinstance(header, dict) or set(header) != {ALG, KID}:
        raise Malformed("the protected header is not exactly algorithm and kid")
    alg, kid = header[ALG], header[KID]
    if type(alg) is not int or type(kid) is not bytes or len(kid) != KID_LENGTH:
        raise Malformed(f"the protected header has no integer algorithm and kid of {KID_LENGTH} bytes")
    return alg, kid
