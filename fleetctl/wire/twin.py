"""`B/twin/desired` and `B/twin/reported`: what a device shall be, and what it says it is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from fleetctl.errors import Malformed
from fleetctl.wire.document import TWIN_LIMIT, Json, dump_json, parse_json
from fleetctl.wire.fields import DIGEST, Fields, object_fields


@dataclass(frozen=True, slots=True)
class Desired:
    """The whole desired document; `generation` names the registry that allotted `version`, `digest` is that of `desired`."""

    generation: int
    version: int
    digest: str
    desired: Mapping[str, Json]
    timestamp: str

    def encode(self) -> bytes:
        return dump_json(
            {
                "generation": self.generation,
                "version": self.version,
                "digest": self.digest,
                "desired": dict(self.desired),
                "timestamp": self.timestamp,
            }
        )

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        fields = object_fields("the desired state", parse_json(payload))
        return cls(
            generation=fields.integer("generation"),
            version=fields.integer("version"),
            digest=fields.text("digest", DIGEST),
            desired=_document(fields, "desired"),
            timestamp=fields.time("timestamp"),
        )


@dataclass(frozen=True, slots=True)
class Reported:
    """All that a device reports; `version` is the desired version it answers."""

    version: int
    reported: Mapping[str, Json]
    timestamp: str | None = None

    def encode(self) -> bytes:
        return dump_json({"version": self.version, "reported": dict(self.reported), "timestamp": self.timestamp})

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        fields = object_fields("the reported state", parse_json(payload))
        return cls(
            version=fields.integer("version"),
            reported=_document(fields, "reported"),
            timestamp=fields.time_or_none("timestamp"),
        )


def lags(held: Desired, said: Desired) -> bool:
    """Whether `held` is an older word of the registry that says `said`, or another one under the same version."""
    if held.generation != said.generation:
        return False
    return held.version < said.version or (held.version == said.version and held.digest != said.digest)


def _document(fields: Fields, key: str) -> dict[str, Json]:
    document = fields.mapping(key)
    if (size := len(dump_json(document))) > TWIN_LIMIT:
        raise Malformed(f"the {key} state has {size} bytes, {TWIN_LIMIT} are allowed")
    return document
