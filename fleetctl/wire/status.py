"""`B/ota/status`: how far a device is with an update."""

import re
from dataclasses import dataclass
from typing import Self

from fleetctl.wire.document import dump_json, parse_json
from fleetctl.wire.fields import DIGEST, LEVEL, TOKEN, object_fields

DETAIL_LIMIT = 1024
PHASES = frozenset(
    {
        "queued",
        "accepted",
        "deferred",
        "downloading",
        "downloaded",
        "verified",
        "installing",
        "installed",
        "rebooting",
        "testing",
        "succeeded",
        "canceled",
        "rejected",
        "failed",
        "rolling_back",
        "rolled_back",
    }
)
"""The phases that a device may report; the fleet's own (`withdrawn`, `timed_out`, …) never travel."""

_CODE = re.compile(r"[A-Z][A-Z0-9_]{0,31}")


@dataclass(frozen=True, slots=True)
class UpdateStatus:
    """One report; `progress` is in percent, `accepted_boot` the boot count at which the device accepted this attempt."""

    rollout_id: str
    order: int
    attempt: int
    step: int
    phase: str
    code: str | None
    progress: int | None
    from_version: str
    to_version: str | None
    manifest: str
    slot: str | None
    boot: int
    accepted_boot: int | None
    timestamp: str | None = None
    detail: str | None = None

    def encode(self) -> bytes:
        return dump_json(
            {
                "rolloutId": self.rollout_id,
                "order": self.order,
                "attempt": self.attempt,
                "step": self.step,
                "phase": self.phase,
                "code": self.code,
                "progress": self.progress,
                "from": self.from_version,
                "to": self.to_version,
                "manifest": self.manifest,
                "slot": self.slot,
                "boot": self.boot,
                "acceptedBoot": self.accepted_boot,
                "timestamp": self.timestamp,
                "detail": self.detail,
            }
        )

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        fields = object_fields("the update status", parse_json(payload))
        return cls(
            rollout_id=fields.text("rolloutId", LEVEL),
            order=fields.integer("order"),
            attempt=fields.integer("attempt"),
            step=fields.integer("step"),
            phase=fields.choice("phase", PHASES),
            code=fields.text_or_none("code", _CODE),
            progress=fields.integer_or_none("progress", 0, 100),
            from_version=fields.text("from", TOKEN),
            to_version=fields.text_or_none("to", TOKEN),
            manifest=fields.text("manifest", DIGEST),
            slot=fields.text_or_none("slot", TOKEN),
            boot=fields.integer("boot"),
            accepted_boot=fields.integer_or_none("acceptedBoot"),
            timestamp=fields.time_or_none("timestamp"),
            detail=fields.text_or_none("detail", limit=DETAIL_LIMIT),
        )
