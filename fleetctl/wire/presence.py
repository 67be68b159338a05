"""`B/status`: whether a device is there, since when, and what it runs."""

from dataclasses import dataclass
from typing import Literal, Self, cast

from fleetctl.model.presence import session_order
from fleetctl.wire.document import dump_json, parse_json
from fleetctl.wire.fields import DIGEST, TOKEN, object_fields

LONGEST_HEARTBEAT = 31 * 86400.0
SHORTEST_HEARTBEAT = 0.001


@dataclass(frozen=True, slots=True)
class Presence:
    """One status document; `heartbeat` is in seconds, `digest` that of the image that runs. The will is its `offline` twin."""

    status: Literal["online", "offline"]
    session: str
    firmware_version: str
    digest: str
    clock: Literal["none", "set"]
    heartbeat: float
    connected_at: str | None = None
    timestamp: str | None = None

    @property
    def boot(self) -> int:
        return session_order(self.session)[0]

    @property
    def count(self) -> int:
        return session_order(self.session)[1]

    def encode(self) -> bytes:
        return dump_json(
            {
                "status": self.status,
                "session": self.session,
                "firmwareVersion": self.firmware_version,
                "digest": self.digest,
                "clock": self.clock,
                "heartbeat": self.heartbeat,
                "connectedAt": self.connected_at,
                "timestamp": self.timestamp,
            }
        )

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        fields = object_fields("the status", parse_json(payload))
        session = fields.text("session", limit=40)
        session_order(session)
        return cls(
            status=cast(Literal["online", "offline"], fields.choice("status", ("online", "offline"))),
            session=session,
            firmware_version=fields.text("firmwareVersion", TOKEN),
            digest=fields.text("digest", DIGEST),
            clock=cast(Literal["none", "set"], fields.choice("clock", ("none", "set"))),
            heartbeat=fields.number("heartbeat", SHORTEST_HEARTBEAT, LONGEST_HEARTBEAT),
            connected_at=fields.time_or_none("connectedAt"),
            timestamp=fields.time_or_none("timestamp"),
        )
