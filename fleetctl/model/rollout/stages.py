"""Where a device can be in a rollout, and which phases and codes are known."""

from enum import IntEnum

from fleetctl.model.attempt import FINAL as FINAL_PHASES
from fleetctl.model.attempt import Code, Phase


class Stage(IntEnum):
    """What the fleet holds of one target."""

    QUEUED = 0
    OFFERED = 1
    WITHDRAWING = 2
    WITHDRAWN = 3
    CANCELED = 4
    UPDATING = 5
    SUCCEEDED = 6
    FAILED = 7
    REGRESSED = 8
    OVERDUE = 9
    OTHER = 10
    REJECTED = 11
    REMOVED = 12


QUEUED, OFFERED, WITHDRAWING, WITHDRAWN, CANCELED, UPDATING, SUCCEEDED, FAILED, REGRESSED, OVERDUE, OTHER, REJECTED, REMOVED = (
    range(13)
)

EXPOSED = bytes(stage in (UPDATING, SUCCEEDED, FAILED, REGRESSED, OVERDUE, OTHER) for stage in range(13))
FAILING = bytes(stage in (FAILED, REGRESSED, OTHER, REJECTED) for stage in range(13))
OCCUPYING = bytes(stage in (OFFERED, WITHDRAWING) or EXPOSED[stage] for stage in range(13))
"""Stages that take a place in the wave: dispatched and not withdrawn, or exposed."""

PHASES: tuple[Phase, ...] = tuple(Phase)
PHASE_NUMBER = {str(phase): number for number, phase in enumerate(PHASES, 1)}
CODES: tuple[Code, ...] = tuple(Code)
CODE_NUMBER = {str(code): number for number, code in enumerate(CODES, 1)}

ENDED = frozenset(PHASE_NUMBER[phase] for phase in FINAL_PHASES)
CANCELABLE = frozenset(
    PHASE_NUMBER[phase]
    for phase in (Phase.ACCEPTED, Phase.DEFERRED, Phase.DOWNLOADING, Phase.DOWNLOADED, Phase.VERIFIED, Phase.INSTALLING)
)
"""Phases in which a device has not set its boot flag, and takes a cancel."""

SUCCEEDED_PHASE = PHASE_NUMBER[Phase.SUCCEEDED]
CANCELED_PHASE = PHASE_NUMBER[Phase.CANCELED]
ROLLED_BACK_PHASE = PHASE_NUMBER[Phase.ROLLED_BACK]
SILENT, ROLLED_BACK, INTERNAL = CODE_NUMBER[Code.SILENT], CODE_NUMBER[Code.ROLLED_BACK], CODE_NUMBER[Code.INTERNAL]
