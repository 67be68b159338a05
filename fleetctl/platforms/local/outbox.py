"""Sends what the registry still owes the broker: every retained message is a row until the broker has acknowledged it."""

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fleetctl.platforms.local.fleet import LocalFleet
    from fleetctl.registry import Registry

BATCH = 500


def publishing(registry: "Registry") -> AbstractContextManager[None]:
    """The right to publish what the registry says; others wait."""
    return registry.exclusive("outbox")


def flush(fleet: "LocalFleet") -> None:
    """Return when the outbox is empty; raises `Unavailable` or `Denied`, and what was not acknowledged stays.

    One at a time: otherwise a slower command could publish an older version of a topic after a newer one.
    """
    registry = fleet.registry
    if not registry.outbox(limit=1):
        return
    with publishing(registry), fleet.open_session("outbox") as session:
        while rows := registry.outbox(limit=BATCH):
            for row in rows:
                session.publish(row.topic, row.payload, 1, True, more=True)
            session.flush()
            with registry.transaction():
                for row in rows:
                    registry.sent(row.id)
