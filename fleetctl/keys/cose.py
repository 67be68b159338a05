"""Sign and verify COSE_Sign1 (RFC 9052) with Ed25519 and ES256: the key pins the algorithm, the message has no say."""

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from fleetctl.errors import ConfigError, Malformed, Untrusted
from fleetctl.keys.store import PrivateKey, PublicKey
from fleetctl.wire.cose import EDDSA, ES256, SIGNATURE_LENGTH, Sign1, join, protect, split, to_be_signed
from fleetctl.wire.document import PAYLOAD_LIMIT, rfc3339
from fleetctl.wire.trust import TrustDocument, TrustKey, key_id

_HALF = SIGNATURE_LENGTH // 2


class UnknownKey(Untrusted):
    """What signed it is not, or no longer, a key that may; any other `Untrusted` means that the proof itself is broken."""


class Signer:
    """Signs with one private key; Ed25519 makes the same bytes each time, ES256 does not (ADR 6)."""

    def __init__(self, key: PrivateKey) -> None:
        if isinstance(key, rsa.RSAPrivateKey):
            raise ConfigError("an RSA key signs certificates only", "name an Ed25519 or P-256 key")
        if isinstance(key, ec.EllipticCurvePrivateKey) and not isinstance(key.curve, ec.SECP256R1):
            raise ConfigError(f"a key on the curve {key.curve.name} signs certificates only", "name an Ed25519 or P-256 key")
        self._key = key
        self.public_key: PublicKey = key.public_key()
        self.alg, raw = _pinned(self.public_key)
        self.kid = key_id(self.alg, raw)

    def sign(self, payload: bytes, aad: bytes) -> bytes:
        """A COSE_Sign1 that is good at the place that `aad` names, and nowhere else."""
        protected = protect(self.alg, self.kid)
        message = to_be_signed(protected, aad, payload)
        if isinstance(self._key, ec.EllipticCurvePrivateKey):
            r, s = decode_dss_signature(self._key.sign(message, ec.ECDSA(hashes.SHA256())))
            signature = r.to_bytes(_HALF, "big") + s.to_bytes(_HALF, "big")
        else:
            signature = self._key.sign(message)
        return join(protected, payload, signature)


def trust_key(key: PublicKey, role: str, not_after: int | None = None) -> TrustKey:
    """The entry of a public key in a trust document; `not_after` is Unix seconds."""
    alg, raw = _pinned(key)
    return TrustKey(role, key_id(alg, raw), alg, raw, not_after)


def verify(data: bytes, aad: bytes, key: TrustKey | PublicKey, what: str = "the message", limit: int = PAYLOAD_LIMIT) -> bytes:
    """The payload of `data`, proved to be signed by `key` for the place `aad`; `what` names it in messages.

    Raises:
        UnknownKey: another key signed it.
        Untrusted: any other step of the proof fails.
    """
    return _prove(_taken_apart(data, what, limit), aad, key, what)


def verify_by_role(
    data: bytes,
    aad: bytes,
    trust: TrustDocument,
    role: str,
    now: float | None,
    what: str = "the message",
    limit: int = PAYLOAD_LIMIT,
) -> bytes:
    """The payload of `data`, proved to be signed for the place `aad` by a key that `trust` gives `role` at `now`.

    1. `data` is a COSE_Sign1 in the one spelling that is allowed: tag 18, canonical, empty unprotected header.
    2. The trust document has keys for the role: a policy with nothing in it refuses.
    3. The protected kid names one of them.
    4. That key is not past its `not_after`. A device without a clock (`now` is None) skips this step: what removes a key for
       it is the next trust document.
    5. The algorithm is the one that the key pins, and the signature covers header, place and payload.

    Raises:
        UnknownKey: step 2, 3 or 4 fails.
        Untrusted: step 1 or 5 fails.
    """
    # 1
    message = _taken_apart(data, what, limit)
    # 2
    keys = {key.kid: key for key in trust.keys if key.role == role}
    if not keys:
        raise UnknownKey(
            f"{what} cannot be verified: trust document version {trust.version} has no {role} key",
            f"publish a trust document with a {role} key",
        )
    # 3
    key = keys.get(message.kid)
    if key is None:
        raise UnknownKey(
            f"{what} is signed by key `{message.kid.hex()}`, which is no {role} key of trust document version {trust.version}",
            f"sign it with one of: {', '.join(kid.hex() for kid in keys)}",
        )
    # 4
    if now is not None and key.not_after is not None and now > key.not_after:
        raise UnknownKey(
            f"{what} is signed by {role} key `{key.kid.hex()}`, which expired at {rfc3339(key.not_after)}",
            "sign it with a current key, or check the clock: date -u",
        )
    # 5
    return _prove(message, aad, key, what)


def _taken_apart(data: bytes, what: str, limit: int) -> Sign1:
    try:
        return split(data, limit)
    except Malformed as error:
        raise Untrusted(
            f"{what} is not signed as it must be: {error.message}", "fetch it again from whoever signed it"
        ) from error


def _prove(message: Sign1, aad: bytes, key: TrustKey | PublicKey, what: str) -> bytes:
    alg, raw = (key.alg, key.key) if isinstance(key, TrustKey) else _pinned(key)
    kid = key_id(alg, raw)
    if message.kid != kid:
        raise UnknownKey(
            f"{what} is signed by key `{message.kid.hex()}`, not by `{kid.hex()}`",
            f"sign it with key {kid.hex()}",
        )
    if message.alg != alg:
        raise Untrusted(
            f"{what} claims algorithm {message.alg}, but key `{kid.hex()}` signs with {alg}",
            f"sign it again with key {kid.hex()}",
        )
    signed = to_be_signed(message.protected, aad, message.payload)
    try:
        _check_signature(alg, raw, message.signature, signed)
    except (InvalidSignature, ValueError) as error:
        raise Untrusted(
            f"the signature of {what} by key `{kid.hex()}` does not match its content and its place",
            "it was changed or moved: fetch it again from whoever signed it",
        ) from error
    return message.payload


def _check_signature(alg: int, raw: bytes, signature: bytes, signed: bytes) -> None:
    if alg == EDDSA:
        Ed25519PublicKey.from_public_bytes(raw).verify(signature, signed)
        return
    r, s = (int.from_bytes(half, "big") for half in (signature[:_HALF], signature[_HALF:]))
    point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), raw)
    point.verify(encode_dss_signature(r, s), signed, ec.ECDSA(hashes.SHA256()))


def _pinned(key: PublicKey) -> tuple[int, bytes]:
    """The algorithm that a key pins, and its raw bytes."""
    if isinstance(key, Ed25519PublicKey):
        return EDDSA, key.public_bytes_raw()
    return ES256, key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
