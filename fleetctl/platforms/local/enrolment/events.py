"""What `provision serve` says while it works."""

from dataclasses import dataclass
from enum import StrEnum


class What(StrEnum):
    """The events there are."""

    LISTENING = "listening"
    ISSUED = "issued"
    REPEATED = "repeated"
    PENDING = "pending"
    REFUSED = "refused"
    ALERT = "alert"
    EXPIRED = "expired"
    ACTIVATED = "activated"
    CONFIGURED = "configured"
    NOT_CONFIGURED = "notConfigured"
    REGISTERED = "registered"
    RENEWED = "renewed"
    FAILED = "failed"
    DISCONNECTED = "disconnected"
    CONNECTED = "connected"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class ServeEvent:
    """One thing that happened; `code` is a reason that programs read, `detail` the same for people."""

    event: str
    timestamp: str
    serial: str | None = None
    device_id: str | None = None
    claim: str | None = None
    code: str | None = None
    detail: str | None = None
