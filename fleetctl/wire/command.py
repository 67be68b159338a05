"""`B/commands/{name}` and its reply."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Self, cast

from fleetctl.model.presence import session_order
from fleetctl.wire.document import Json, dump_json, parse_json
from fleetctl.wire.fields import TOKEN, object_fields

ReplyStatus = Literal["accepted", "succeeded", "failed", "rejected"]
_REPLY_STATUSES = ("accepted", "succeeded", "failed", "rejected")


@dataclass(frozen=True, slots=True)
class Command:
    """One command, meant for one `session` of the device: any other ignores it."""

    id: str
    session: str
    args: Mapping[str, Json] = field(default_factory=dict)
    expires: str | None = None

    def encode(self) -> bytes:
        return dump_json({"id": self.id, "session": self.session, "args": dict(self.args), "expires": self.expires})

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        fields = object_fields("the command", parse_json(payload))
        session = fields.text("session", limit=40)
        session_order(session)
        return cls(
            id=fields.text("id", TOKEN),
            session=session,
            args={} if fields.absent("args") else fields.mapping("args"),
            expires=fields.time_or_none("expires"),
        )


@dataclass(frozen=True, slots=True)
class Reply:
    """What a device answers: `accepted` before it acts, then how it went."""

    id: str
    status: ReplyStatus
    result: Json = None
    timestamp: str | None = None

    def encode(self) -> bytes:
        return dump_json({"id": self.id, "status": self.status, "result": self.result, "timestamp": self.timestamp})

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        document = parse_json(payload)
        fields = object_fields("the reply", document)
        return cls(
            id=fields.text("id", TOKEN),
            status=cast(ReplyStatus, fields.choice("status", _REPLY_STATUSES)),
            result=document.get("result"),
            timestamp=fields.time_or_none("timestamp"),
        )
