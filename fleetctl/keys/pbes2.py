"""Encrypted key files: PKCS #8 with PBES2 (RFC 8018), scrypt (RFC 7914) and AES-256-CBC, which `openssl pkey` reads too."""

import base64
import binascii
import re
from dataclasses import dataclass
from enum import StrEnum

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.hazmat.primitives.padding import PKCS7

N, R, P = 1 << 14, 8, 5
"""The cost of a guess (ADR 8): the largest of OWASP's choices that OpenSSL 3 opens, which allows 32 MiB."""
SALT_LENGTH = IV_LENGTH = 16
MOST_MEMORY, MOST_WORK, MOST_ROUNDS = 256 << 20, 1 << 24, 10_000_000
"""What opening a file may cost: above it the file is somebody's trap."""
LEAST_WORK, LEAST_ROUNDS = 1 << 17, 600_000
"""Below it a passphrase is soon guessed: scrypt's N*r*p as `openssl pkcs8 -scrypt` has it, and rounds of PBKDF2."""

_SEQUENCE, _INTEGER, _OCTETS, _OID = 0x30, 2, 4, 6
_PBES2 = bytes.fromhex("2a864886f70d01050d")
_PBKDF2 = bytes.fromhex("2a864886f70d01050c")
_SCRYPT = bytes.fromhex("2b06010401da47040b")
_AES_256_CBC = bytes.fromhex("60864801650304012a")
_PEM = re.compile(rb"-----BEGIN ENCRYPTED PRIVATE KEY-----\s+([A-Za-z0-9+/=\s]+?)-----END ENCRYPTED PRIVATE KEY-----")
_LEGACY = b"Proc-Type: 4,ENCRYPTED"


class Kdf(StrEnum):
    """How a passphrase becomes a key."""

    SCRYPT = "scrypt"
    PBKDF2 = "pbkdf2"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Derivation:
    """What one guess costs: `work` is N*r*p or rounds, `memory` is bytes."""

    kdf: Kdf
    work: int = 0
    memory: int = 0

    @property
    def strong(self) -> bool:
        return self.work >= {Kdf.SCRYPT: LEAST_WORK, Kdf.PBKDF2: LEAST_ROUNDS, Kdf.OTHER: 1}[self.kdf]

    @property
    def bearable(self) -> bool:
        return self.memory <= MOST_MEMORY and self.work <= (MOST_ROUNDS if self.kdf is Kdf.PBKDF2 else MOST_WORK)


def encrypt(der: bytes, password: bytes, salt: bytes, iv: bytes) -> bytes:
    """The PEM of a PKCS #8 key, encrypted; salt and iv are 16 random bytes each."""
    padder = PKCS7(128).padder()
    cipher = Cipher(algorithms.AES(Scrypt(salt, 32, N, R, P).derive(password)), modes.CBC(iv)).encryptor()
    data = cipher.update(padder.update(der) + padder.finalize()) + cipher.finalize()
    scrypt = _sequence(_one(_OID, _SCRYPT), _sequence(_one(_OCTETS, salt), *map(_integer, (N, R, P))))
    aes = _sequence(_one(_OID, _AES_256_CBC), _one(_OCTETS, iv))
    whole = _sequence(_sequence(_one(_OID, _PBES2), _sequence(scrypt, aes)), _one(_OCTETS, data))
    lines = re.findall(b".{1,64}", base64.b64encode(whole))
    return b"\n".join([b"-----BEGIN ENCRYPTED PRIVATE KEY-----", *lines, b"-----END ENCRYPTED PRIVATE KEY-----", b""])


def is_encrypted(pem: bytes) -> bool:
    return _PEM.search(pem) is not None or _LEGACY in pem


def der_of(pem: bytes) -> bytes:
    """The first encrypted key of a PEM file; raises `ValueError`."""
    found = _PEM.search(pem)
    if found is None:
        raise ValueError("an encryption of before PKCS #8")
    try:
        return base64.b64decode(b"".join(found[1].split()), validate=True)
    except binascii.Error as error:
        raise ValueError("not base64") from error


def derivation(der: bytes) -> Derivation:
    """How an encrypted key is protected, read before any of it is computed; raises `ValueError`."""
    algorithm, _ = _parts(_only(der, _SEQUENCE), _SEQUENCE, _OCTETS)
    scheme, *rest = _elements(algorithm)
    if scheme != (_OID, _PBES2):
        return Derivation(Kdf.OTHER)
    kdf, _ = _parts(_only_of(rest, _SEQUENCE), _SEQUENCE, _SEQUENCE)
    (_, name), *parameters = _elements(kdf)
    numbers = [
        int.from_bytes(content, "big", signed=True)
        for tag, content in _elements(_only_of(parameters, _SEQUENCE))
        if tag == _INTEGER
    ]
    if any(number < 1 for number in numbers):
        raise ValueError("a cost below one")
    if name == _SCRYPT and len(numbers) >= 3:
        n, r, p = numbers[:3]
        return Derivation(Kdf.SCRYPT, n * r * p, 128 * n * r + 128 * r * p)
    if name == _PBKDF2 and numbers:
        return Derivation(Kdf.PBKDF2, numbers[0])
    return Derivation(Kdf.OTHER)


def _one(tag: int, content: bytes) -> bytes:
    length = len(content)
    if length < 128:
        return bytes((tag, length)) + content
    size = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(size))) + size + content


def _sequence(*parts: bytes) -> bytes:
    return _one(_SEQUENCE, b"".join(parts))


def _integer(number: int) -> bytes:
    return _one(_INTEGER, number.to_bytes(number.bit_length() // 8 + 1, "big"))


def _elements(data: bytes) -> list[tuple[int, bytes]]:
    """The elements of a constructed one; raises `ValueError` for what DER does not allow, or is not needed here."""
    found = []
    while data:
        if len(data) < 2:
            raise ValueError("a part is cut off")
        tag, length, start = data[0], data[1], 2
        if length >= 0x80:
            start += length & 0x7F
            if not 1 <= start - 2 <= 4:
                raise ValueError("a length that is none")
            length = int.from_bytes(data[2:start], "big")
        if len(data) < start + length:
            raise ValueError("a part is cut off")
        found.append((tag, data[start : start + length]))
        data = data[start + length :]
    return found


def _parts(data: bytes, *tags: int) -> list[bytes]:
    found = _elements(data)
    if [tag for tag, _ in found] != list(tags):
        raise ValueError("not the parts that it must have")
    return [content for _, content in found]


def _only(data: bytes, tag: int) -> bytes:
    return _only_of(_elements(data), tag)


def _only_of(found: list[tuple[int, bytes]], tag: int) -> bytes:
    if [each for each, _ in found] != [tag]:
        raise ValueError("not the one part that it must have")
    return found[0][1]
