"""The trail of a local fleet: every change, in records."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fleetctl.registry.audit import AuditFilter
from fleetctl.wire.document import rfc3339

if TYPE_CHECKING:
    from fleetctl.platforms.local.fleet import LocalFleet


@dataclass(frozen=True, slots=True)
class Change:
    """One row of the trail; `device_id` is the device, if the change was made to one."""

    id: int
    at: str
    actor: str | None
    action: str
    subject: str
    device_id: str | None
    reason: str | None
    detail: Mapping[str, Any] | None


def trail(
    fleet: "LocalFleet",
    device: str | None = None,
    *,
    since: float | None = None,
    actor: str | None = None,
    action: str | None = None,
) -> Iterator[Change]:
    """Oldest first, in bounded memory; `since` is seconds before now. Raises `NotFound` for a device that never was."""
    if device is not None:
        fleet.registry.device(device)
    after = None if since is None else rfc3339(fleet.clock() - since)
    return (Change(*row) for row in fleet.registry.audit(AuditFilter(device, actor, action, after)))
