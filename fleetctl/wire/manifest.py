"""The manifest: what a release is, signed by a release key."""

import re
from dataclasses import dataclass
from typing import Self

from fleetctl.errors import Malformed
from fleetctl.wire.document import canonical_cbor, parse_cbor
from fleetctl.wire.fields import LEVEL, TOKEN, map_fields

_KEYS = 10
_VENDOR = re.compile(r"[^\x00-\x1f\x7f-\x9f]{1,64}")


@dataclass(frozen=True, slots=True)
class Manifest:
    """One release for one device type.

    `size` (bytes) and `sha256` are those of the image; `security_counter` is the anti-rollback floor, raised once the image
    is confirmed; `sequence` counts the releases of the store; `name` is `{device_class}@{version}`.
    """

    vendor: str
    device_class: str
    version: str
    slot: str
    size: int
    sha256: bytes
    native_format: str
    security_counter: int
    sequence: int
    name: str

    @property
    def image_digest(self) -> str:
        return f"sha256:{self.sha256.hex()}"

    def encode(self) -> bytes:
        values = (
            self.vendor,
            self.device_class,
            self.version,
            self.slot,
            self.size,
            self.sha256,
            self.native_format,
            self.security_counter,
            self.sequence,
            self.name,
        )
        return canonical_cbor(dict(enumerate(values, 1)))

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        fields = map_fields("the manifest", parse_cbor(payload), _KEYS)
        manifest = cls(
            vendor=fields.text(1, _VENDOR),
            device_class=fields.text(2, LEVEL),
            version=fields.text(3, TOKEN),
            slot=fields.text(4, TOKEN),
            size=fields.integer(5, low=1),
            sha256=fields.data(6, 32),
            native_format=fields.text(7, TOKEN),
            security_counter=fields.integer(8, high=0xFFFFFFFF),
            sequence=fields.integer(9),
            name=fields.text(10),
        )
        if manifest.name != f"{manifest.device_class}@{manifest.version}":
            raise Malformed("the name of the manifest is not that of its device type and version")
        return manifest
