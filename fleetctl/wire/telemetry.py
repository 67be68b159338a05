"""`B/telemetry`: readings with their units and quality."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self, cast

from fleetctl.errors import Malformed
from fleetctl.model.device import printable
from fleetctl.wire.document import Json, dump_json, parse_json
from fleetctl.wire.fields import LEVEL, TOKEN, object_fields

READINGS_LIMIT = 256
METADATA_LIMIT = 64
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}")


class Quality(StrEnum):
    """How far a reading may be believed."""

    GOOD = "good"
    UNCERTAIN = "uncertain"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Reading:
    """One value; `unit` is an RFC 8428 or UCUM name."""

    value: float | bool | str
    unit: str | None = None
    quality: Quality = Quality.GOOD


@dataclass(frozen=True, slots=True)
class Telemetry:
    """One message; `message_id` is unique per device and the key for de-duplication."""

    device_id: str
    timestamp: str | None
    message_id: str
    readings: Mapping[str, Reading]
    metadata: Mapping[str, Json] = field(default_factory=dict)

    def encode(self) -> bytes:
        return dump_json(
            {
                "deviceId": self.device_id,
                "timestamp": self.timestamp,
                "messageId": self.message_id,
                "readings": {
                    name: {"value": reading.value, "unit": reading.unit, "quality": reading.quality}
                    for name, reading in self.readings.items()
                },
                "metadata": dict(self.metadata),
            }
        )

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        fields = object_fields("the telemetry", parse_json(payload))
        readings = fields.mapping("readings")
        metadata = {} if fields.absent("metadata") else fields.mapping("metadata")
        if len(readings) > READINGS_LIMIT or len(metadata) > METADATA_LIMIT:
            raise Malformed(f"the telemetry has more than {READINGS_LIMIT} readings or {METADATA_LIMIT} metadata")
        return cls(
            device_id=fields.text("deviceId", LEVEL),
            timestamp=fields.time_or_none("timestamp"),
            message_id=fields.text("messageId", TOKEN),
            readings={name: _reading(name, value) for name, value in readings.items()},
            metadata=metadata,
        )


def _reading(name: str, document: Json) -> Reading:
    if not _NAME.fullmatch(name) or not isinstance(document, dict):
        raise Malformed(f"the telemetry has a wrong reading {printable(name)}")
    fields = object_fields(f"reading `{name}`", document)
    value = document.get("value")
    if not isinstance(value, bool | int | float):
        value = fields.text("value")
    quality = "good" if fields.absent("quality") else fields.choice("quality", tuple(Quality))
    return Reading(cast(float | bool | str, value), fields.text_or_none("unit", limit=32), Quality(quality))
