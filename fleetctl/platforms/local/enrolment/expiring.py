"""Certificates whose devices never came: they go on the list, and their places are free again."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fleetctl.errors import FleetError
from fleetctl.model.certificate import Reason
from fleetctl.model.device import LifeCycle
from fleetctl.model.enrolment import EnrolmentState
from fleetctl.platforms.local.enrolment.events import ServeEvent, What
from fleetctl.platforms.local.revocation import revoke
from fleetctl.wire.document import rfc3339

if TYPE_CHECKING:
    from fleetctl.platforms.local.fleet import LocalFleet


def expire(fleet: "LocalFleet", after: float) -> Iterator[ServeEvent]:
    """Take back what was issued more than `after` seconds ago to devices that were never seen.

    The list comes first: a certificate that is forgotten must not be good any more. Repeating it finishes what was interrupted.

    Raises:
        FleetError: they are revoked, but the broker that runs has not taken the list.
    """
    registry, now = fleet.registry, fleet.clock()
    with registry.transaction():  # whoever is seen at this very moment is seen before it, or too late
        overdue = registry.overdue_enrolments(rfc3339(now - after))
        rows = [registry.certificate(str(each.certificate)) for each in overdue]
        for row in rows:
            registry.revoke_certificate(row.serial, Reason.CESSATION_OF_OPERATION, rfc3339(now))
    if not overdue:
        return
    failure = None
    try:
        revoke(fleet, rows, Reason.CESSATION_OF_OPERATION)
    except FleetError as error:
        failure = error
    at = rfc3339(now)
    for each in overdue:
        device_id = str(each.device_id)
        with registry.transaction():
            if registry.enrolment(each.id).state != EnrolmentState.ISSUED:
                continue
            registry.settle_enrolment(each.id, EnrolmentState.REJECTED, at=at, code="expired")
            if registry.device(device_id).state is LifeCycle.CLAIMED:
                why = "never seen with its certificate"
                registry.move_device(device_id, LifeCycle.MANUFACTURED, event="expired", at=at, reason=why, actor="fleetctl")
        yield ServeEvent(What.EXPIRED, at, each.serial, device_id, each.claim, "expired", each.certificate)
    if failure is not None:
        raise failure
