"""The account of one command to many devices: who was reached, who answered what, and what that amounts to."""

from collections.abc import Iterator, Mapping
from typing import Any

from fleetctl.errors import FleetError, Partial, Pending, Unavailable
from fleetctl.platforms.messages import CommandResult

GOOD = ("sent", "succeeded")
_OPEN = ("accepted", "timedOut")
_AWAY = ("offline", "unknown")
_WORDS = {"offline": ("is offline", "are offline"), "unknown": ("was never seen", "were never seen")}


def _told(count: int, total: int, status: str) -> str:
    """`2 are offline`, or of one device `it is offline`."""
    if status not in _WORDS:
        return f"{count} {status}"
    return f"{'it' if total == 1 else count} {_WORDS[status][count > 1]}"


class Ledger:
    """Every device ends in exactly one result; `said` holds the status and session that each device retains, if any."""

    def __init__(self, command: str, said: Mapping[str, tuple[str, str] | None]) -> None:
        self._command = command
        self._said = said
        self._accepted: set[str] = set()
        self._results: dict[str, str] = {}
        self.waiting = {device for device, found in said.items() if found is not None and found[0] == "online"}

    def is_waiting(self, device: str) -> bool:
        return device in self.waiting

    def session(self, device: str) -> str:
        found = self._said[device]
        return "" if found is None else found[1]

    def unreachable(self) -> Iterator[CommandResult]:
        """The devices that nothing is sent to."""
        for device, found in self._said.items():
            if device not in self.waiting:
                yield self._close(device, "unknown" if found is None else "offline")

    def reply(self, device: str, status: str, result: Any) -> Iterator[CommandResult]:
        """What a device answered: `accepted` is noted, anything else is its result; a second answer changes nothing."""
        if device not in self.waiting:
            return
        if status == "accepted":
            self._accepted.add(device)
        else:
            yield self._close(device, status, result)

    def rest(self, status: str) -> Iterator[CommandResult]:
        """The devices that gave no final answer: those that accepted say so."""
        for device in [device for device in self._said if device in self.waiting]:
            yield self._close(device, "accepted" if device in self._accepted else status)

    def verdict(self) -> FleetError | None:
        """The error that it all amounts to: None when every device was sent it, or did it."""
        states = list(self._results.values())
        bad = [state for state in states if state not in GOOD]
        if not bad:
            return None
        counted = ", ".join(_told(bad.count(state), len(states), state) for state in dict.fromkeys(bad))
        message = f"command `{self._command}` to {len(states)} {'device' if len(states) == 1 else 'devices'}: {counted}"
        if len(bad) < len(states):
            return Partial(message, "repeat it for those devices when they are ready")
        if all(state in _OPEN for state in bad):
            return Pending(message, "wait longer: --timeout 30s")
        if all(state in _AWAY for state in bad):
            return Unavailable(message, "see who is there: fleetctl provision list --refresh -l status=online")
        kind = Partial if set(bad) & {*_OPEN, *_AWAY} else FleetError
        return kind(message, "see each device's result")

    def _close(self, device: str, status: str, result: Any = None) -> CommandResult:
        self.waiting.discard(device)
        self._results[device] = status
        found = self._said[device]
        return CommandResult(device, self._command, status, None if found is None else found[1], result)
