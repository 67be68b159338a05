"""Has revocation lists signed again in time, beside the broker's supervisor: one that runs out locks the fleet out."""

import threading
from types import TracebackType
from typing import Self

from fleetctl.config import Context
from fleetctl.errors import FleetError
from fleetctl.platforms.local.fleet import LocalFleet
from fleetctl.platforms.local.lists import refresh_due
from fleetctl.platforms.local.restoring import Requests

FAILED = -1
"""What refreshing says when it could not; no signal has this number."""
HOUR = 3600.0
JOIN_SECONDS = 10.0


class Refreshing:
    """Looks at once, and every `period` seconds after; whoever signs a list tells the broker too.

    Leaving it waits for the look that is under way, which ends when the broker's state is gone.
    """

    def __init__(self, context: Context, requests: Requests, period: float = HOUR) -> None:
        self.failure: str | None = None
        self._context = context
        self._requests = requests
        self._period = period
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="refresh", daemon=True)

    def begin(self) -> None:
        self._thread.start()

    def end(self) -> None:
        """Do not look again."""
        self._over.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.end()
        if self._thread.ident is not None:
            self._thread.join(JOIN_SECONDS)

    def _run(self) -> None:
        while not self._over.is_set():
            before, self.failure = self.failure, self._look()
            if self.failure is not None and self.failure != before:
                self._requests.put(FAILED)
            self._over.wait(self._period)

    def _look(self) -> str | None:
        try:
            with LocalFleet(self._context) as fleet:
                refresh_due(fleet)
        except FleetError as error:
            return error.message
        except Exception as error:  # a defect here must not end a broker that works
            return f"{type(error).__name__}: {error}"
        return None
