"""From where to where the life of a device may go."""

from fleetctl.errors import Conflict, UsageError
from fleetctl.model.device import LifeCycle, printable

REASON_LIMIT = 200

_S = LifeCycle
_MOVES: dict[LifeCycle, tuple[LifeCycle, ...]] = {
    _S.MANUFACTURED: (_S.CLAIMED, _S.ACTIVE, _S.SUSPENDED, _S.REVOKED, _S.RETIRED),
    _S.CLAIMED: (_S.MANUFACTURED, _S.ACTIVE, _S.SUSPENDED, _S.REVOKED, _S.RETIRED),
    _S.ACTIVE: (_S.MANUFACTURED, _S.RENEWING, _S.SUSPENDED, _S.REVOKED, _S.RETIRED),
    _S.RENEWING: (_S.MANUFACTURED, _S.ACTIVE, _S.SUSPENDED, _S.REVOKED, _S.RETIRED),
    _S.SUSPENDED: (_S.MANUFACTURED, _S.CLAIMED, _S.ACTIVE, _S.RENEWING, _S.REVOKED, _S.RETIRED),
    _S.REVOKED: (_S.MANUFACTURED, _S.CLAIMED, _S.ACTIVE, _S.SUSPENDED, _S.RETIRED),
    _S.RETIRED: (),
}


def check_move(device_id: str, before: LifeCycle, after: LifeCycle) -> None:
    """Raise `Conflict` for a step that no device takes: a retired one never comes back, a revoked one never renews."""
    if after in _MOVES[before]:
        return
    raise Conflict(
        f"device {printable(device_id)} is {before}, and cannot become {after}",
        f"see fleetctl provision show {device_id}",
    )


def life_cycle(text: str) -> LifeCycle:
    """The state that a word names; raises `UsageError`."""
    try:
        return LifeCycle(text)
    except ValueError as error:
        raise UsageError(f"{printable(text)} is no state of a device", f"one of: {', '.join(LifeCycle)}") from error


def check_reason(text: str) -> str:
    """Return what a person says about a step, if it fits on a line; raises `UsageError`."""
    if not text.isprintable() or not 0 < len(text) <= REASON_LIMIT:
        raise UsageError(f"{printable(text)} is no reason", f"write 1 to {REASON_LIMIT} printable characters")
    return text
