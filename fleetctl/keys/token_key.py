"""Private keys that stay where they are: to `cryptography` they are keys like others, but they sign and do nothing else."""

from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import AsymmetricPadding, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature

from fleetctl.errors import ConfigError, Denied

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.utils import NoDigestInfo
    from cryptography.utils import Buffer

Sign = Callable[[bytes, str], bytes]
"""Signs data with the mechanism of that name."""


class _Kept:
    """What no key on a token does."""

    def private_bytes(
        self,
        encoding: serialization.Encoding,
        format: serialization.PrivateFormat,  # noqa: A002 # the name that cryptography gives it
        encryption_algorithm: serialization.KeySerializationEncryption,
    ) -> NoReturn:
        raise _never()

    def private_bytes_raw(self) -> NoReturn:
        raise _never()

    def private_numbers(self) -> NoReturn:
        raise _never()


class TokenEcKey(_Kept, ec.EllipticCurvePrivateKey):
    """A P-256 key on a token; its signatures differ each time."""

    def __init__(self, public: ec.EllipticCurvePublicKey, sign: Sign) -> None:
        self._public = public
        self._sign = sign

    def sign(self, data: "Buffer", signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        algorithm = signature_algorithm.algorithm
        if isinstance(algorithm, Prehashed):
            digest = bytes(data)
        else:
            digesting = hashes.Hash(algorithm)
            digesting.update(data)
            digest = digesting.finalize()
        raw = self._sign(digest, "ECDSA")
        half = len(raw) // 2
        return encode_dss_signature(int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big"))

    def public_key(self) -> ec.EllipticCurvePublicKey:
        return self._public

    @property
    def curve(self) -> ec.EllipticCurve:
        return self._public.curve

    @property
    def key_size(self) -> int:
        return self._public.key_size

    def exchange(self, algorithm: ec.ECDH, peer_public_key: ec.EllipticCurvePublicKey) -> NoReturn:
        raise _never()

    def __copy__(self) -> "TokenEcKey":
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> "TokenEcKey":
        return self


class TokenEd25519Key(_Kept, Ed25519PrivateKey):
    """An Ed25519 key on a token."""

    def __init__(self, public: Ed25519PublicKey, sign: Sign) -> None:
        self._public = public
        self._sign = sign

    def sign(self, data: "Buffer") -> bytes:
        return self._sign(bytes(data), "EDDSA")

    def public_key(self) -> Ed25519PublicKey:
        return self._public

    def __copy__(self) -> "TokenEd25519Key":
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> "TokenEd25519Key":
        return self


_RSA = {"sha256": "SHA256_RSA_PKCS", "sha384": "SHA384_RSA_PKCS", "sha512": "SHA512_RSA_PKCS"}


class TokenRsaKey(_Kept, rsa.RSAPrivateKey):
    """An RSA key on a token, for authorities."""

    def __init__(self, public: rsa.RSAPublicKey, sign: Sign) -> None:
        self._public = public
        self._sign = sign

    def sign(
        self, data: bytes, padding: AsymmetricPadding, algorithm: "Prehashed | hashes.HashAlgorithm | NoDigestInfo"
    ) -> bytes:
        mechanism = _RSA.get(getattr(algorithm, "name", ""))
        if mechanism is None or not isinstance(padding, PKCS1v15):
            raise ConfigError("a token signs with RSA as certificates need it only", "use PKCS #1 v1.5 with SHA-256")
        return self._sign(bytes(data), mechanism)

    def public_key(self) -> rsa.RSAPublicKey:
        return self._public

    @property
    def key_size(self) -> int:
        return self._public.key_size

    def decrypt(self, ciphertext: bytes, padding: AsymmetricPadding) -> NoReturn:
        raise _never()

    def __copy__(self) -> "TokenRsaKey":
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> "TokenRsaKey":
        return self


def _never() -> Denied:
    return Denied("a key on a token never leaves it", "have it sign where it is")
