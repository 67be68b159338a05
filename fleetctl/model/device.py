"""Devices: what they are called, where they live, and what becomes of them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from fleetctl.errors import UsageError

LEVEL_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
_LEVEL = re.compile(LEVEL_PATTERN)
_LABEL_KEY = re.compile(r"[A-Za-z][A-Za-z0-9._/-]{0,62}")
LABEL_VALUE_LIMIT = 128


def is_level(text: str) -> bool:
    """Whether `text` may be a tenant, a location, a device type or a device id (docs/protocol.md, "Names and identity")."""
    return _LEVEL.fullmatch(text) is not None


def check_level(what: str, text: str) -> str:
    """Return `text`, or raise `UsageError` naming `what` it was meant for."""
    if not is_level(text):
        raise UsageError(
            f"{what} {printable(text)} is not a name",
            "use letters, digits, `.`, `_` and `-`, at most 64 characters, beginning with a letter or a digit",
        )
    return text


CLIENT_PREFIX = "fleetctl-"
"""How the client ids of fleetctl's own connections begin: they share one name space with those of devices."""


def check_device_id(text: str) -> str:
    """Return `text`, or raise `UsageError`: a device called as a rollout's controller is could cut that off."""
    if text.startswith(CLIENT_PREFIX):
        raise UsageError(f"device id {printable(text)} is reserved for fleetctl's own connections", "choose another id")
    return check_level("device id", text)


def rank(device_id: str) -> int:
    """The place of a device in every share of a fleet: 63 bits of the hash of its id, so that 10 % are always among 20 %."""
    from hashlib import sha256  # late: it costs a tenth of what `provision list` takes to start

    return int.from_bytes(sha256(device_id.encode()).digest()[:8]) >> 1


def check_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Return the labels sorted by key; raise `UsageError` for a key or a value that no selector could name."""
    for key, value in labels.items():
        if not _LABEL_KEY.fullmatch(key):
            raise UsageError(
                f"label key {printable(key)} is not a name",
                "begin with a letter; then letters, digits, `.`, `_`, `/`, `-`",
            )
        if len(value) > LABEL_VALUE_LIMIT or not value.isprintable():
            raise UsageError(
                f"the value of label `{key}` is not printable text of at most {LABEL_VALUE_LIMIT} characters",
                f"choose another value for `{key}`",
            )
    return dict(sorted(labels.items()))


def printable(text: str, limit: int = 120) -> str:
    """`text` in backticks as it can be shown on a terminal: control characters escaped, the middle of what is too long left out.

    The end stays, because that of a path is what names the file.
    """
    kept = text if len(text) <= limit else f"{text[: limit // 2]}…{text[-limit // 2 :]}"
    return f"`{''.join(c if c.isprintable() else c.encode('unicode_escape', 'backslashreplace').decode() for c in kept)}`"


@dataclass(frozen=True, slots=True, order=True)
class DevicePath:
    """The address of a device, fixed at provisioning: `{tenant}/{location}/{device_type}/{device_id}`."""

    tenant: str
    location: str
    device_type: str
    device_id: str

    def __post_init__(self) -> None:
        check_level("tenant", self.tenant)
        check_level("location", self.location)
        check_level("device type", self.device_type)
        check_device_id(self.device_id)

    def __str__(self) -> str:
        return f"{self.tenant}/{self.location}/{self.device_type}/{self.device_id}"

    @classmethod
    def parse(cls, text: str) -> "DevicePath":
        """The path that `text` spells; raises `UsageError` unless it has exactly four good levels."""
        levels = text.split("/")
        if len(levels) != 4:
            raise UsageError(f"{printable(text)} is not a device path", "write tenant/location/type/device")
        return cls(*levels)


class LifeCycle(StrEnum):
    """How far a device has come; `lifecycle` says from where to where it may go.

    manufactured: known by its serial, not seen yet. claimed: it was given a certificate, and was not seen with it yet.
    active: it was, or somebody vouched for it. renewing: a newer certificate is not proven yet. suspended: on hold.
    revoked: it has no good certificate. retired: its record and its id are kept for ever.
    """

    MANUFACTURED = "manufactured"
    CLAIMED = "claimed"
    ACTIVE = "active"
    RENEWING = "renewing"
    SUSPENDED = "suspended"
    REVOKED = "revoked"
    RETIRED = "retired"

    @property
    def present(self) -> bool:
        """Whether it is part of the fleet."""
        return self is not LifeCycle.RETIRED

    @property
    def believed(self) -> bool:
        """Whether what it says is taken in."""
        return self in BELIEVED


BELIEVED = (LifeCycle.MANUFACTURED, LifeCycle.CLAIMED, LifeCycle.ACTIVE, LifeCycle.RENEWING)


@dataclass(frozen=True, slots=True)
class Device:
    """One device as the registry knows it. `created_at` is RFC 3339 UTC; `serial` is its maker's."""

    path: DevicePath
    labels: Mapping[str, str] = field(default_factory=dict)
    state: LifeCycle = LifeCycle.ACTIVE
    created_at: str = ""
    serial: str | None = None
    batch: str | None = None
    profile: str | None = None

    @property
    def id(self) -> str:
        return self.path.device_id
