"""Private keys in files: PEM, PKCS #8, mode 0600 from the moment they exist, and never read when others could."""

from pathlib import Path
from typing import Literal, TypeAlias, assert_never

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fleetctl import files
from fleetctl.errors import ConfigError
from fleetctl.model.device import printable

PrivateKey: TypeAlias = Ed25519PrivateKey | ec.EllipticCurvePrivateKey
PublicKey: TypeAlias = Ed25519PublicKey | ec.EllipticCurvePublicKey
KeyType = Literal["ed25519", "p256"]

KEY_FILE_LIMIT = 16384


def generate_key(alg: KeyType = "ed25519") -> PrivateKey:
    """A new key: Ed25519 to sign releases and rollouts, P-256 for certificates (ADR 6)."""
    match alg:
        case "ed25519":
            return Ed25519PrivateKey.generate()
        case "p256":
            return ec.generate_private_key(ec.SECP256R1())
    assert_never(alg)


def private_pem(key: PrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def public_pem(key: PrivateKey | PublicKey) -> bytes:
    """The public half as a SubjectPublicKeyInfo."""
    public = key.public_key() if isinstance(key, PrivateKey) else key
    return public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def save_key(path: Path, key: PrivateKey, *, replace: bool = False) -> None:
    """Write a key file with mode 0600; raises `Conflict` where one exists and `replace` is false."""
    files.write_atomic(path, private_pem(key), 0o600, replace=replace)


def load_key(path: Path) -> PrivateKey:
    """Read a key file.

    Raises:
        Denied: others than its owner may use the file, or we may not.
        NotFound: there is none.
        ConfigError: it holds no unencrypted Ed25519 or P-256 key.
    """
    return parse_key(files.read_private(path, KEY_FILE_LIMIT), f"key file {printable(str(path))}")


def parse_key(pem: bytes, what: str = "the private key") -> PrivateKey:
    """Read a PEM private key that came from elsewhere (a CI secret); raises `ConfigError` naming `what`, never its content."""
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(
            f"{what} holds no unencrypted PEM private key", "look at it with openssl pkey -noout -in FILE"
        ) from error
    if isinstance(key, Ed25519PrivateKey) or (isinstance(key, ec.EllipticCurvePrivateKey) and _is_p256(key.curve)):
        return key
    raise ConfigError(f"{what} is neither Ed25519 nor P-256", "name another key")


def load_public_key(pem: bytes, what: str = "the public key") -> PublicKey:
    """Read a PEM public key; raises `ConfigError` naming `what`."""
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{what} is not a PEM public key", "restore it from where it was published") from error
    if isinstance(key, Ed25519PublicKey) or (isinstance(key, ec.EllipticCurvePublicKey) and _is_p256(key.curve)):
        return key
    raise ConfigError(f"{what} is neither Ed25519 nor P-256", "restore it from where it was published")


def _is_p256(curve: ec.EllipticCurve) -> bool:
    return isinstance(curve, ec.SECP256R1)
