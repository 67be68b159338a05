"""What a device says of itself, as documents of the contract and as records for whoever runs the agent."""

from fleetctl.model.attempt import Attempt, Record
from fleetctl.wire.document import Json
from fleetctl.wire.status import UpdateStatus

DETAIL_LIMIT = 500


def update_status(record: Record, attempt: Attempt, timestamp: str | None) -> UpdateStatus:
    """The `ota/status` of an attempt."""
    return UpdateStatus(
        rollout_id=attempt.rollout_id,
        order=attempt.order,
        attempt=attempt.number,
        step=attempt.step,
        phase=str(attempt.phase),
        code=None if attempt.code is None else str(attempt.code),
        progress=attempt.progress,
        from_version=attempt.from_version,
        to_version=None if attempt.image is None else attempt.image.version,
        manifest=attempt.manifest,
        slot=None if attempt.slot is None else str(attempt.slot),
        boot=record.boot,
        accepted_boot=attempt.accepted_boot,
        timestamp=timestamp,
        detail=attempt.detail[:DETAIL_LIMIT] or None,
    )


def update_event(record: Record, attempt: Attempt) -> dict[str, Json]:
    """The same for the log of the agent, what matters first: a narrow terminal cuts the rest."""
    return {
        "phase": str(attempt.phase),
        "code": None if attempt.code is None else str(attempt.code),
        "rolloutId": attempt.rollout_id,
        "order": attempt.order,
        "attempt": attempt.number,
        "step": attempt.step,
        "progress": attempt.progress,
        "from": attempt.from_version,
        "to": None if attempt.image is None else attempt.image.version,
        "boot": record.boot,
        "detail": attempt.detail[:DETAIL_LIMIT] or None,
    }
