"""A certificate is proven by its first use: what that means for the device that holds it."""

from fleetctl.model.device import LifeCycle
from fleetctl.model.enrolment import EnrolmentState
from fleetctl.platforms.local.fleet import LocalFleet
from fleetctl.registry import CertificateRow
from fleetctl.wire.document import rfc3339

ACTOR = "est"


def prove(fleet: LocalFleet, row: CertificateRow) -> bool:
    """Write down that a device has used its certificate; False where that is known.

    A device that waited for it is active from now on. One that renews stays so while it uses the certificate that it replaces.
    """
    registry, at, reason = fleet.registry, rfc3339(fleet.clock()), f"certificate {row.serial}"
    if row.device_id is None:
        return False
    with registry.transaction():
        if registry.certificate(row.serial).revoked_at is not None or not registry.prove_certificate(row.serial, at):
            return False
        state = registry.device(row.device_id).state
        renewed = state is LifeCycle.RENEWING and not _is_replaced(fleet, row)
        if renewed or state in (LifeCycle.MANUFACTURED, LifeCycle.CLAIMED):
            registry.move_device(row.device_id, LifeCycle.ACTIVE, event="proven", at=at, reason=reason, actor=ACTOR)
        else:
            registry.note(row.device_id, "proven", at=at, reason=reason, actor=ACTOR)
        for each in registry.enrolments(device_id=row.device_id, states=(EnrolmentState.ISSUED,)):
            if each.certificate == row.serial:
                registry.settle_enrolment(each.id, EnrolmentState.ACTIVE, at=at)
    return True


def _is_replaced(fleet: LocalFleet, row: CertificateRow) -> bool:
    return any(each.replaces == row.serial and each.revoked_at is None for each in fleet.registry.certificates(row.device_id))
