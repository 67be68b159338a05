"""Puts back what a fresh broker does not know, beside the broker's supervisor, which stays free to obey signals."""

import threading
from collections.abc import Callable
from queue import SimpleQueue

from fleetctl.config import Context
from fleetctl.errors import FleetError
from fleetctl.platforms.local.fleet import LocalFleet
from fleetctl.platforms.local.projections import Restored, restore

Requests = SimpleQueue[int]
"""Signal numbers: SIGHUP to read the lists again, SIGTERM or SIGINT to end; or `DONE`."""

DONE = 0
"""What restoring says when it is over; no signal has this number."""
GRACE_SECONDS = 2.0
JOIN_SECONDS = 10.0


class Restoring:
    """One attempt in a thread of its own; a failure is an `outcome`, never fatal."""

    def __init__(self, context: Context, requests: Requests) -> None:
        self.outcome: Restored | str = "it has not ended"
        self._context = context
        self._requests = requests
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="restore", daemon=True)

    def begin(self) -> None:
        self._thread.start()

    def end(self, stop: Callable[[], None]) -> None:
        """Give up after the page that is on its way, and `stop` the broker, which ends our session if that took too long."""
        self._over.set()
        self._join(GRACE_SECONDS)
        try:
            stop()
        finally:
            self._join(JOIN_SECONDS)

    def _join(self, seconds: float) -> None:
        if self._thread.ident is not None:
            self._thread.join(seconds)

    def _run(self) -> None:
        try:
            with LocalFleet(self._context) as fleet:
                self.outcome = restore(fleet, self._over.is_set)
        except FleetError as error:
            self.outcome = error.message
        except Exception as error:  # a defect here must not leave the supervisor without an answer
            self.outcome = f"{type(error).__name__}: {error}"
        self._requests.put(DONE)
