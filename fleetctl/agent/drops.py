"""What a device did not take: dropped, counted, and told of without a flood of words."""

from collections.abc import Callable
from typing import Protocol

from fleetctl.errors import FleetError, Malformed, Untrusted
from fleetctl.wire.document import Json

QUIET = 1.0
"""Seconds between two events about dropped messages, so that a flood of garbage does not become a flood of words."""


class Tell(Protocol):
    def __call__(self, event: str, **words: Json) -> None: ...


class Drops:
    """Counts them, and remembers the last that was not told yet."""

    def __init__(self, monotonic: Callable[[], float], tell: Tell) -> None:
        self.count = 0
        self._monotonic, self._tell = monotonic, tell
        self._untold: tuple[str, str] | None = None
        self._quiet_until = monotonic()
        self._faults: set[str] = set()

    def guard(self, name: str, take: Callable[[], object]) -> None:
        """A fault of ours that a message brings to light drops this message: a retained one would come back at every start."""
        try:
            take()
        except (Malformed, Untrusted) as error:
            self._drop(name, error.message)
        except (FleetError, OSError):
            raise
        except Exception as error:
            kind = type(error).__name__
            self._drop(name, f"a fault of the agent: {kind}: {error}")
            if kind not in self._faults:
                self._faults.add(kind)
                self._tell("error", reason=f"a message on `{name}` met a fault of the agent: {kind}: {error}")

    def tell(self) -> float | None:
        """Say what a quiet time kept back; the monotonic time at which there will be more to say."""
        now = self._monotonic()
        if self._untold is not None and now >= self._quiet_until:
            name, reason = self._untold
            self._untold = None
            self._quiet_until = now + QUIET
            self._tell("dropped", topic=name, reason=reason, count=self.count)
        return None if self._untold is None else self._quiet_until

    def _drop(self, name: str, reason: str) -> None:
        self.count += 1
        self._untold = name, reason
        self.tell()
