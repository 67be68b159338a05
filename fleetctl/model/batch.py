"""Factory batches: which serials may enrol, how many of them, and when."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from fleetctl.errors import Conflict, UsageError
from fleetctl.model.device import check_labels, check_level, printable

SERIALS_LIMIT = 1_000_000
"""How many serials one range may name."""


class BatchState(StrEnum):
    """A closed batch stays closed."""

    OPEN = "open"
    CLOSED = "closed"


class Refusal(StrEnum):
    """Why a batch lets nobody in."""

    CLOSED = "batch_closed"
    NOT_YET_OPEN = "not_yet_open"
    QUOTA = "quota"


@dataclass(frozen=True, slots=True)
class Batch:
    """Devices that are made together; times are RFC 3339 UTC, `quota` None is as many as there are serials."""

    name: str
    profile: str | None = None
    location: str | None = None
    device_type: str | None = None
    quota: int | None = None
    not_before: str | None = None
    not_after: str | None = None
    state: BatchState = BatchState.OPEN
    labels: Mapping[str, str] = field(default_factory=dict)
    created_at: str = ""
    closed_at: str | None = None


def checked(batch: Batch) -> Batch:
    """The same with its labels sorted; raises `UsageError` for a name, a quota or a window that is none."""
    check_level("batch", batch.name)
    for what, text in (("profile", batch.profile), ("location", batch.location), ("device type", batch.device_type)):
        if text is not None:
            check_level(what, text)
    if batch.quota is not None and batch.quota < 1:
        raise UsageError(f"a quota of {batch.quota} lets nobody in", "leave it away, or name 1 or more")
    if batch.not_before and batch.not_after and _seconds(batch.not_before) >= _seconds(batch.not_after):
        raise UsageError(f"batch `{batch.name}` would end before it begins", "--from TIME --until TIME, or --for 30d")
    check_labels(batch.labels)
    return batch


def check_batch(batch: Batch, now: float, used: int) -> Refusal | None:
    """Why one more device may not enrol now, None if it may; `used` is how many did, `now` seconds since 1970."""
    if batch.state is not BatchState.OPEN or (batch.not_after is not None and now > _seconds(batch.not_after)):
        return Refusal.CLOSED
    if batch.not_before is not None and now < _seconds(batch.not_before):
        return Refusal.NOT_YET_OPEN
    if batch.quota is not None and used >= batch.quota:
        return Refusal.QUOTA
    return None


def explained(batch: Batch, refusal: Refusal, used: int) -> Conflict:
    """The same for a person."""
    match refusal:
        case Refusal.CLOSED:
            why = "is closed" if batch.state is BatchState.CLOSED else f"ended at {batch.not_after}"
        case Refusal.NOT_YET_OPEN:
            why = f"begins at {batch.not_before}"
        case Refusal.QUOTA:
            why = f"is full: {used} of {batch.quota} devices have a certificate"
    return Conflict(f"batch `{batch.name}` {why}", f"see fleetctl provision batch report {batch.name}")


def serials(text: str) -> Iterator[str]:
    """What `SN0001..SN2000` names, or `SN0001` alone; raises `UsageError` at once for what is no range."""
    first, dots, last = text.partition("..")
    if not dots:
        return iter([check_level("serial", text)])
    prefix = first.rstrip("0123456789")
    low, high = first[len(prefix) :], last.removeprefix(prefix)
    if not low.isascii() or not low or not (high.isascii() and high.isdigit()) or not last.startswith(prefix):
        raise UsageError(f"{printable(text)} is not a range of serials", "as in SN0001..SN2000: one beginning, two numbers")
    check_level("serial", first)
    check_level("serial", last)
    count = int(high) - int(low) + 1
    if not 1 <= count <= SERIALS_LIMIT:
        raise UsageError(f"{printable(text)} names {max(count, 0)} serials", f"name 1 to {SERIALS_LIMIT}, the lowest first")
    width = len(low)
    return (f"{prefix}{number:0{width}d}" for number in range(int(low), int(high) + 1))


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
