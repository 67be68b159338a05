"""Archives that only their receiver opens: for the holder of an RSA key (CMS), or for who knows a passphrase."""

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.ciphers import algorithms
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from fleetctl.errors import UsageError
from fleetctl.keys import secrets
from fleetctl.model.certificate import State
from fleetctl.model.device import printable
from fleetctl.pki.authority import read_certificates, validity_of

MAGIC = b"fleetctl-handover-1\n"
SALT, NONCE = 16, 12
LOG_N, BLOCKS, LANES = 15, 8, 3
"""scrypt: 32 MiB of memory and three rounds of it."""
PASSPHRASE_LIMIT = 12
RSA_BITS = 2048


class Seal(Protocol):
    """How an archive is closed; `suffix` is the end of its name."""

    @property
    def suffix(self) -> str: ...

    def close(self, data: bytes) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Envelope:
    """CMS EnvelopedData (RFC 5652) in DER: AES-256-CBC, its key under the receiver's RSA key; `openssl cms -decrypt` opens it."""

    receiver: x509.Certificate
    suffix: str = ".p7m"

    def close(self, data: bytes) -> bytes:
        builder = pkcs7.PKCS7EnvelopeBuilder().set_data(data).add_recipient(self.receiver)
        chosen = builder.set_content_encryption_algorithm(algorithms.AES256)
        return chosen.encrypt(Encoding.DER, [pkcs7.PKCS7Options.Binary])


@dataclass(frozen=True, slots=True)
class Passphrase:
    """AES-256-GCM under a key that scrypt makes of the passphrase; what is needed to open it stands in front, protected too.

    `MAGIC`, log2 N, r, p (a byte each), 16 bytes of salt, 12 of nonce, then the ciphertext with its tag; all before the
    ciphertext is associated data.
    """

    key: bytes = field(repr=False)
    salt: bytes
    suffix: str = ".sealed"

    def close(self, data: bytes) -> bytes:
        head = MAGIC + bytes((LOG_N, BLOCKS, LANES)) + self.salt + os.urandom(NONCE)
        return head + AESGCM(self.key).encrypt(head[-NONCE:], data, head)


def for_receiver(path: Path, now: float) -> Envelope:
    """Raises `UsageError` for a certificate that cannot receive: expired, or of another kind of key than RSA."""
    certificate = read_certificates(path)[0]
    key = certificate.public_key()
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size < RSA_BITS:
        raise UsageError(
            f"certificate {printable(str(path))} has no RSA key of {RSA_BITS} bits or more, which CMS needs here",
            "openssl req -x509 -newkey rsa:3072 -noenc -keyout factory.key -out factory.pem -subj /CN=factory",
        )
    if validity_of(certificate).state(now) is not State.VALID:
        raise UsageError(f"certificate {printable(str(path))} is not valid now", f"openssl x509 -noout -dates -in {path}")
    return Envelope(certificate)


def with_passphrase(reference: str) -> Passphrase:
    """Raises `UsageError` for a passphrase that is too short to keep the keys of a factory."""
    words = secrets.resolve(reference)
    if len(words) < PASSPHRASE_LIMIT:
        raise UsageError(
            f"the passphrase in {printable(reference)} is shorter than {PASSPHRASE_LIMIT}", "openssl rand -base64 24"
        )
    salt = os.urandom(SALT)
    key = hashlib.scrypt(words.encode(), salt=salt, n=1 << LOG_N, r=BLOCKS, p=LANES, maxmem=1 << 27, dklen=32)
    return Passphrase(key, salt)
