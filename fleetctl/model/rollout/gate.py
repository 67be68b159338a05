"""The gate between two waves: pessimistic, where the test is optimistic (docs/protocol.md, "Rollouts" 3 and 4)."""

from math import floor

from fleetctl.model.rollout.ledger import Ledger
from fleetctl.model.rollout.plan import Plan
from fleetctl.model.rollout.stages import FAILED, OFFERED, OVERDUE, REGRESSED, SUCCEEDED, UPDATING, WITHDRAWING


def resolved(ledger: Ledger, wave: int) -> bool:
    """Whether nothing of the wave is on offer, and every exposed device is final or overdue."""
    row = ledger.waves[wave]
    return not (row[OFFERED] or row[WITHDRAWING] or row[UPDATING])


def objection(plan: Plan, ledger: Ledger, wave: int) -> str:
    """Why a resolved wave is not promoted; empty where it is.

    1. Below `small_fleet` targets one failure in all is borne (the next wave does not grow instead); the second has halted.
    2. The first wave bears no failure of the firmware and no overdue device.
    3. A later wave bears max(`failure_floor`, `failure_share` of its exposed devices), failed and overdue together.
    4. A wave in which no update was proven, for whatever reason, proves nothing.
    """
    row = ledger.waves[wave]
    exposed = ledger.exposed_in(wave)
    failed, overdue = row[FAILED] + row[REGRESSED], row[OVERDUE]
    allowed = 0 if wave == 1 else _allowance(plan, exposed)
    if plan.small:
        failed, overdue, allowed = ledger.firmware_failures, ledger.totals[OVERDUE], 1
    if failed + overdue > allowed:
        return f"wave {wave}: {failed} failed and {overdue} overdue of {exposed} exposed, {allowed} allowed"
    if exposed and not (row[SUCCEEDED] or failed + overdue):
        return f"wave {wave}: none of {exposed} exposed devices has proven the release"
    return ""


def _allowance(plan: Plan, exposed: int) -> int:
    return max(plan.parameters.failure_floor, floor(plan.parameters.failure_share * exposed + 1e-9))


def other_objection(plan: Plan, ledger: Ledger, waived: int) -> str:
    """Why failures that are not the firmware's pause the rollout; empty where they do not."""
    failures, answered = ledger.other_failures, ledger.answered
    allowed = max(plan.parameters.other_floor, floor(plan.parameters.other_share * answered + 1e-9))
    if failures - waived <= allowed:
        return ""
    return f"{failures} of {answered} devices failed for reasons other than the firmware, {allowed + waived} allowed"
