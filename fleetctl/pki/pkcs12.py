"""PKCS #12 that keeps its secret: PBES2 with AES-256 and many rounds, never the ciphers of 1996.

The library lets nobody choose the rounds of the MAC, and 2,048 of them would be the shortest way to the passphrase; so the MAC
is made anew here with as many rounds as the rest has (RFC 7292 section 4 and appendix B.2).
"""

import hashlib
import hmac
import secrets
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import PrivateFormat, pkcs12

from fleetctl.errors import ConfigError, FleetError
from fleetctl.pki.extensions import AuthorityKey

ROUNDS = 600_000
LEAST_LENGTH = 8
_BLOCK = 64
_MAC_KEY = 3
_SHA256 = bytes.fromhex("300d06096086480165030402010500")


def archive(name: str, key: AuthorityKey, chain: Sequence[x509.Certificate], passphrase: str, rounds: int = ROUNDS) -> bytes:
    """Key and certificate with those above it, called `name`; raises `ConfigError` for a passphrase that protects nothing."""
    if len(passphrase) < LEAST_LENGTH:
        hint = "take a longer one: openssl rand -base64 18"
        raise ConfigError(f"the passphrase has fewer than {LEAST_LENGTH} characters", hint)
    protection = (
        PrivateFormat.PKCS12.encryption_builder()
        .kdf_rounds(rounds)
        .key_cert_algorithm(pkcs12.PBES.PBESv2SHA256AndAES256CBC)
        .hmac_hash(hashes.SHA256())
        .build(passphrase.encode())
    )
    made = pkcs12.serialize_key_and_certificates(name.encode(), key, chain[0], list(chain[1:]), protection)
    return _sealed(made, passphrase, rounds)


def _sealed(made: bytes, passphrase: str, rounds: int) -> bytes:
    """The same with a MAC of `rounds` rounds: PFX ::= SEQUENCE { version, authSafe, macData }."""
    body, _ = _enter(made, 0)
    version_end = _end(made, body)
    safe_end = _end(made, version_end)
    content = _content_of(made, version_end)
    salt = secrets.token_bytes(16)
    digest = hmac.digest(_mac_key(passphrase, salt, rounds), content, "sha256")
    mac = _node(0x30, _node(0x30, _SHA256 + _node(0x04, digest)) + _node(0x04, salt) + _integer(rounds))
    return _node(0x30, made[body:safe_end] + mac)


def _content_of(made: bytes, at: int) -> bytes:
    """What the MAC covers: the octets in ContentInfo ::= SEQUENCE { id-data, [0] OCTET STRING }."""
    info, _ = _enter(made, at)
    explicit, _ = _enter(made, _end(made, info))
    if made[explicit] != 0x04:
        raise FleetError("the library wrote PKCS #12 of another form", "report it")
    begin, end = _enter(made, explicit)
    return made[begin:end]


def _mac_key(passphrase: str, salt: bytes, rounds: int) -> bytes:
    """RFC 7292 appendix B.2 with SHA-256, for a key as long as one digest."""
    text = passphrase.encode("utf-16-be") + b"\0\0"
    digest = bytes([_MAC_KEY]) * _BLOCK + _repeated(salt) + _repeated(text)
    for _ in range(rounds):
        digest = hashlib.sha256(digest).digest()
    return digest


def _repeated(text: bytes) -> bytes:
    """As often as it takes to fill whole blocks."""
    size = -(-len(text) // _BLOCK) * _BLOCK
    return (text * (size // len(text) + 1))[:size]


def _enter(der: bytes, at: int) -> tuple[int, int]:
    """Where the content of the element at `at` begins and ends."""
    first = der[at + 1]
    if first < 0x80:
        return at + 2, at + 2 + first
    begin = at + 2 + (first & 0x7F)
    return begin, begin + int.from_bytes(der[at + 2 : begin], "big")


def _end(der: bytes, at: int) -> int:
    return _enter(der, at)[1]


def _node(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def _integer(number: int) -> bytes:
    return _node(0x02, number.to_bytes(number.bit_length() // 8 + 1, "big"))
