"""The trust document: which keys may sign what, itself signed by the root key that every device holds."""

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from fleetctl.errors import Malformed
from fleetctl.wire.cose import EDDSA, ES256, KID_LENGTH
from fleetctl.wire.document import canonical_cbor, parse_cbor
from fleetctl.wire.fields import LEVEL, Fields, map_fields

KEYS_LIMIT = 64
_KEY_LENGTHS = {EDDSA: 32, ES256: 65}
_SPKI_PREFIXES = {
    EDDSA: bytes.fromhex("302a300506032b6570032100"),
    ES256: bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200"),
}


class Role(StrEnum):
    """What a key may sign."""

    RELEASE = "release"
    ROLLOUT = "rollout"
    COMMAND = "command"


_ROLES = dict(enumerate(Role, 1))
_ROLE_NUMBERS = {str(role): number for number, role in _ROLES.items()}


def key_id(alg: int, key: bytes) -> bytes:
    """The kid: the first 8 bytes of SHA-256 over the SubjectPublicKeyInfo in DER (`openssl pkey -pubout -outform DER`)."""
    return hashlib.sha256(_SPKI_PREFIXES[alg] + key).digest()[:KID_LENGTH]


@dataclass(frozen=True, slots=True)
class TrustKey:
    """One key: `alg` pins the algorithm, `key` is 32 bytes (Ed25519) or an uncompressed point (P-256), `not_after` Unix time."""

    role: str
    kid: bytes
    alg: int
    key: bytes
    not_after: int | None = None

    @classmethod
    def read(cls, document: object) -> Self:
        fields = map_fields("a key of the trust document", document, known=5)
        alg = fields.integer(3, low=EDDSA, high=ES256)
        key = fields.data(4, _KEY_LENGTHS[alg])
        kid = fields.data(2, KID_LENGTH)
        if kid != key_id(alg, key):
            raise Malformed(f"`{kid.hex()}` in the trust document is not the kid of its key")
        return cls(_role(fields), kid, alg, key, fields.integer_or_none(5))

    def to_map(self) -> dict[int, object]:
        members: dict[int, object] = {1: _ROLE_NUMBERS[self.role], 2: self.kid, 3: self.alg, 4: self.key}
        return members if self.not_after is None else {**members, 5: self.not_after}


@dataclass(frozen=True, slots=True)
class TrustDocument:
    """The keys of one tenant; only a greater `version` replaces the one held."""

    version: int
    tenant: str
    keys: tuple[TrustKey, ...]

    def encode(self) -> bytes:
        return canonical_cbor({1: self.version, 2: self.tenant, 3: [key.to_map() for key in self.keys]})

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        fields = map_fields("the trust document", parse_cbor(payload), known=3)
        keys = tuple(TrustKey.read(entry) for entry in fields.array(3, KEYS_LIMIT))
        if len({(key.role, key.kid) for key in keys}) != len(keys):
            raise Malformed("the trust document names a key twice for one role")
        return cls(fields.integer(1, low=1), fields.text(2, LEVEL), keys)


def _role(fields: Fields) -> Role:
    return _ROLES[fields.integer(1, 1, len(_ROLES))]
