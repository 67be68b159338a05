"""Presence: what a reader makes of a device's status, and which status counts (docs/protocol.md, "Presence")."""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from fleetctl.errors import Malformed
from fleetctl.model.device import printable

PATIENCE = 2.5
"""How many heartbeats may stay away before a device that is online counts as stale."""

_SESSION = re.compile(r"(0|[1-9][0-9]{0,17})-(0|[1-9][0-9]{0,17})")


class View(StrEnum):
    """What a reader says of a device."""

    ONLINE = "online"
    OFFLINE = "offline"
    STALE = "stale"
    UNKNOWN = "unknown"


class Status(Protocol):
    """What a status document says, whoever parsed it."""

    @property
    def status(self) -> str: ...
    @property
    def session(self) -> str: ...
    @property
    def heartbeat(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Sighting:
    """The last status that counted, and when it was received (seconds since 1970)."""

    status: str
    session: str
    firmware_version: str
    digest: str
    heartbeat: float
    received_at: float


def view(status: Status | None, received_at: float | None, now: float) -> View:
    """What the status received then means now; times are seconds since 1970."""
    if status is None or received_at is None:
        return View.UNKNOWN
    if status.status != "online":
        return View.OFFLINE
    return View.STALE if now - received_at > PATIENCE * status.heartbeat else View.ONLINE


def session_order(session: str) -> tuple[int, int]:
    """`12-3` as (boot, count), which orders the sessions of a device; raises `Malformed`."""
    found = _SESSION.fullmatch(session)
    if found is None:
        raise Malformed(f"{printable(session)} is not a session", "a session is BOOT-COUNT, such as 12-3")
    return int(found[1]), int(found[2])


def supersedes(new: Status, held: Status | None) -> bool:
    """Whether `new` replaces what is held: everything does, except the `offline` of an older session."""
    if held is None or new.status == "online":
        return True
    return session_order(new.session) >= session_order(held.session)


def seen_at(retained: bool, timestamp: float | None, now: float) -> float:
    """When a status was sent, as well as it can be known: a retained one may be old, and only its own clock tells how old."""
    if not retained or timestamp is None:
        return now
    return max(0.0, min(now, timestamp))
