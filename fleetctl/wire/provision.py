"""`{tenant}/_fleet/provision/{claim}/{serial}/request` and `…/reply`: how a device with nothing but a claim gets its identity."""

from dataclasses import dataclass
from typing import Literal, Self, cast

from fleetctl.errors import Malformed, UsageError
from fleetctl.model.device import DevicePath, is_level
from fleetctl.model.enrolment import CLAIM_PREFIX
from fleetctl.wire.document import dump_json, parse_json
from fleetctl.wire.fields import TOKEN, object_fields

REQUEST_LIMIT = 24576
REPLY_LIMIT = 65536
CSR_LIMIT = 16384
CHAIN_LIMIT = 49152
LONGEST_RETRY = 31 * 86400.0

Step = Literal["hello", "enrol"]
Status = Literal["accepted", "pending", "rejected"]
_STEPS = ("hello", "enrol")
_STATUSES = ("accepted", "pending", "rejected")


def request_topic(tenant: str, claim: str, serial: str) -> str:
    """`claim` is the claim's name."""
    return f"{tenant}/_fleet/provision/{CLAIM_PREFIX}{claim}/{serial}/request"


def reply_topic(tenant: str, claim: str, serial: str) -> str:
    return f"{tenant}/_fleet/provision/{CLAIM_PREFIX}{claim}/{serial}/reply"


def request_filter(tenant: str) -> str:
    """Every request to this tenant."""
    return f"{tenant}/_fleet/provision/+/+/request"


def split_request(topic: str) -> tuple[str, str] | None:
    """Claim and serial, which the broker has authenticated; None for a topic that is no request's."""
    levels = topic.split("/")
    if len(levels) != 6 or levels[1:3] != ["_fleet", "provision"] or levels[5] != "request":
        return None
    claim, serial = levels[3].removeprefix(CLAIM_PREFIX), levels[4]
    if not levels[3].startswith(CLAIM_PREFIX) or not is_level(claim) or not is_level(serial):
        return None
    return claim, serial


@dataclass(frozen=True, slots=True)
class ProvisionRequest:
    """`hello` asks for a nonce; `enrol` brings a signing request (PEM) that carries it as its challenge."""

    id: str
    step: Step
    csr: str | None = None

    def encode(self) -> bytes:
        return dump_json({"id": self.id, "step": self.step} | ({} if self.csr is None else {"csr": self.csr}))

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        fields = object_fields("the request", parse_json(payload, REQUEST_LIMIT))
        step = cast(Step, fields.choice("step", _STEPS))
        csr = fields.text("csr", limit=CSR_LIMIT) if step == "enrol" else None
        return cls(fields.text("id", TOKEN), step, csr)


@dataclass(frozen=True, slots=True)
class ProvisionReply:
    """`path` is the device's address, `certificate` its chain (PEM, leaf first) without the root; `retry_after` is seconds."""

    id: str | None
    step: Step | None
    status: Status
    code: str | None = None
    detail: str | None = None
    nonce: str | None = None
    path: DevicePath | None = None
    certificate: str | None = None
    retry_after: float | None = None

    def encode(self) -> bytes:
        return dump_json(
            {
                "id": self.id,
                "step": self.step,
                "status": self.status,
                "code": self.code,
                "detail": self.detail,
                "nonce": self.nonce,
                "deviceId": None if self.path is None else self.path.device_id,
                "path": None if self.path is None else str(self.path),
                "certificate": self.certificate,
                "retryAfter": self.retry_after,
            }
        )

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        fields = object_fields("the reply", parse_json(payload, REPLY_LIMIT))
        text = fields.text_or_none("path", limit=300)
        try:
            path = None if text is None else DevicePath.parse(text)
        except UsageError as error:
            raise Malformed("the reply has a wrong `path`") from error
        if path is not None and not fields.absent("deviceId") and fields.text("deviceId") != path.device_id:
            raise Malformed("the `deviceId` of the reply is not that of its `path`")
        return cls(
            fields.text_or_none("id", TOKEN),
            None if fields.absent("step") else cast(Step, fields.choice("step", _STEPS)),
            cast(Status, fields.choice("status", _STATUSES)),
            fields.text_or_none("code", TOKEN),
            fields.text_or_none("detail", limit=1024),
            fields.text_or_none("nonce"),
            path,
            fields.text_or_none("certificate", limit=CHAIN_LIMIT),
            None if fields.absent("retryAfter") else fields.number("retryAfter", 0, LONGEST_RETRY),
        )
