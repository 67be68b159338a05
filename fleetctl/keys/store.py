"""Private keys in files: PEM, PKCS #8, mode 0600 from the moment they exist, and never read when others could.

A key that is kept on a token leaves a `.uri` file in the place of its `.key` file; `load_key` opens either.
"""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Literal, TypeAlias, assert_never

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fleetctl import files
from fleetctl.errors import ConfigError, Denied
from fleetctl.keys import pbes2
from fleetctl.model.device import printable

SigningKey: TypeAlias = Ed25519PrivateKey | ec.EllipticCurvePrivateKey
PrivateKey: TypeAlias = SigningKey | rsa.RSAPrivateKey
"""RSA is for authorities only."""
PublicKey: TypeAlias = Ed25519PublicKey | ec.EllipticCurvePublicKey
KeyType = Literal["ed25519", "p256", "p384", "rsa3072"]

KEY_FILE_LIMIT = 16384
LEAST_RSA = 3072
_CURVES = ("secp256r1", "secp384r1")
_PLAIN = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


class Protection(StrEnum):
    """What somebody who has a key's file still needs: nothing, a soon guessed passphrase, a passphrase, or the token."""

    PLAIN = "plain"
    WEAK = "weak"
    ENCRYPTED = "encrypted"
    HARDWARE = "hardware"


def generate_key(alg: KeyType = "ed25519") -> PrivateKey:
    """A new key: Ed25519 to sign releases and rollouts, P-256 for certificates (ADR 6), RSA for authorities that need it."""
    match alg:
        case "ed25519":
            return Ed25519PrivateKey.generate()
        case "p256":
            return ec.generate_private_key(ec.SECP256R1())
        case "p384":
            return ec.generate_private_key(ec.SECP384R1())
        case "rsa3072":
            return rsa.generate_private_key(65537, LEAST_RSA)
    assert_never(alg)


def private_pem(key: PrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, *_PLAIN)


def private_der(key: PrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.DER, *_PLAIN)


def public_pem(key: PrivateKey | PublicKey | rsa.RSAPublicKey) -> bytes:
    """The public half as a SubjectPublicKeyInfo."""
    public = key.public_key() if isinstance(key, PrivateKey) else key
    return public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def save_key(path: Path, key: PrivateKey, *, replace: bool = False) -> None:
    """Write a key file with mode 0600; raises `Conflict` where one exists and `replace` is false."""
    files.write_atomic(path, private_pem(key), 0o600, replace=replace)


def uri_file(path: Path) -> Path:
    """Where the place of a key on a token is written, instead of `path`."""
    return path.with_suffix(".uri")


def has_key(path: Path) -> bool:
    """Whether `load_key` would find something to open."""
    return path.exists() or uri_file(path).exists()


def load_key(path: Path) -> PrivateKey:
    """Open a key: a file, plain or encrypted, or the key on a token that a file `NAME.uri` in its place names.

    Raises:
        Denied: others than its owner may use the file, or we may not; the passphrase or the PIN is wrong.
        NotFound: there is none.
        ConfigError: it holds no Ed25519, P-256 or RSA key, or the passphrase or PIN is nowhere.
        Unavailable: the token does not do its work.
    """
    from fleetctl.keys import stores

    if not path.exists() and uri_file(path).exists():
        return stores.open_token(files.read_private(uri_file(path), KEY_FILE_LIMIT).decode(errors="replace").strip())
    what = f"key file {printable(str(path))}"
    return parse_key(files.read_private(path, KEY_FILE_LIMIT), what, lambda: stores.password_of(path.parent))


def protection(path: Path) -> Protection:
    """How the key of a file is protected at rest, without opening it; raises `NotFound`, `Denied` or `ConfigError`."""
    if not path.exists() and uri_file(path).exists():
        return Protection.HARDWARE
    pem = files.read_limited(path, KEY_FILE_LIMIT)
    if not pbes2.is_encrypted(pem):
        return Protection.PLAIN
    try:
        strong = pbes2.derivation(pbes2.der_of(pem)).strong
    except ValueError:
        strong = False
    return Protection.ENCRYPTED if strong else Protection.WEAK


def parse_key(pem: bytes, what: str = "the private key", password: Callable[[], bytes] | None = None) -> PrivateKey:
    """Read a PEM private key; `password` is called for one that is encrypted, without it such a key is refused.

    Raises:
        ConfigError: it is no such key; the message names `what`, never its content.
        Denied: the password is wrong.
    """
    key = _plain(pem, what) if password is None or not pbes2.is_encrypted(pem) else _decrypted(pem, what, password)
    if isinstance(key, Ed25519PrivateKey) or (isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _CURVES):
        return key
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= LEAST_RSA:
        return key
    raise ConfigError(f"{what} is neither Ed25519 nor P-256, nor RSA of at least {LEAST_RSA} bits", "name another key")


def _plain(pem: bytes, what: str) -> object:
    try:
        return serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(
            f"{what} holds no unencrypted PEM private key", "look at it with openssl pkey -noout -in FILE"
        ) from error


def _decrypted(pem: bytes, what: str, password: Callable[[], bytes]) -> object:
    """1. It is an encrypted PKCS #8 key. 2. Opening it costs what such a file may cost. 3. The password opens it."""
    # 1
    try:
        der = pbes2.der_of(pem)
        cost = pbes2.derivation(der)
    except ValueError as error:
        raise ConfigError(
            f"{what} is encrypted in a way that is not read here", "convert it: openssl pkcs8 -topk8 -scrypt"
        ) from error
    # 2
    if not cost.bearable:
        raise ConfigError(f"{what} costs too much to open: {cost.work} rounds, {cost.memory} bytes", "restore it from a backup")
    # 3
    secret = password()
    try:
        return serialization.load_der_private_key(der, secret)
    except UnsupportedAlgorithm as error:
        raise ConfigError(
            f"{what} is encrypted in a way that is not read here", "convert it: openssl pkcs8 -topk8 -scrypt"
        ) from error
    except (ValueError, TypeError) as error:
        raise Denied(
            f"{what} cannot be decrypted: the passphrase is wrong, or the file is damaged",
            "check FLEETCTL_PASSPHRASE_FILE or FLEETCTL_PASSPHRASE, or type it again",
        ) from error


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
