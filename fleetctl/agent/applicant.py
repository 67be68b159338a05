"""A device that has no identity yet, in the loop: it asks, waits, asks again, and then becomes a device or ends."""

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fleetctl.agent.enrolment import Claim, Refused, Waiting, enrol
from fleetctl.agent.identities import Identities
from fleetctl.agent.settings import Settings
from fleetctl.errors import FleetError
from fleetctl.wire.document import Json, rfc3339

if TYPE_CHECKING:
    from fleetctl.agent.actor import Actor
    from fleetctl.agent.device import Event
    from fleetctl.agent.loop import Loop

LONGEST_WAIT = 3600.0


class Applicant:
    """Asks with `claim` as `serial`; `become` makes the device of the identity that is then in `state`."""

    def __init__(
        self, loop: "Loop", claim: Claim, serial: str, state: Path, settings: Settings, become: Callable[[], "Actor"]
    ) -> None:
        self.alarm = 0.0
        self.watched, self.interest = -1, 0
        self._loop, self._claim, self._serial, self._settings, self._become = loop, claim, serial, settings, become
        self._identities = Identities(state)
        self._stop = threading.Event()
        self._tries = 0
        self._again: float | None = None
        self._told: list[Event] = []

    @property
    def up(self) -> bool:
        return False

    def begin(self) -> None:
        self._tell("enrolling", claim=self._claim.config.claim, broker=self._claim.config.broker)
        self._ask()

    def turn(self) -> None:
        if self._again is not None and self._loop.clock.monotonic() >= self._again:
            self._ask()
        if self._again is not None:
            self._loop.wake(self, self._again)

    def serve(self, readable: bool, writable: bool) -> None:
        """It has no socket in the loop."""

    def take_events(self) -> "list[Event]":
        told, self._told = self._told, []
        return told

    def halt(self) -> None:
        self._stop.set()

    def part(self) -> None:
        """It has nobody to say goodbye to."""

    def end(self) -> None:
        """It holds nothing."""

    def _ask(self) -> None:
        self._again = None
        now, timeout = self._loop.clock.wall(), self._settings.enrol_timeout
        work = partial(enrol, self._claim, self._serial, self._identities, now, self._stop, timeout)
        self._loop.connect(work, self._answered)

    def _answered(self, answer: Path | Waiting | Refused) -> None:
        if self._stop.is_set():
            return
        match answer:
            case Waiting():
                self._wait(answer)
            case Refused():
                self._tell("refused", code=answer.code, reason=answer.error.message, final=True)
                self._loop.leave(self, answer.error)
            case _:
                self._enter()

    def _enter(self) -> None:
        try:
            actor = self._become()
            self._tell("enrolled", device=str(actor.path))
            self._loop.join(actor)
        except FleetError as error:
            self._loop.leave(self, error)
        else:
            self._loop.leave(self)

    def _wait(self, waiting: Waiting) -> None:
        """At least as long as the fleet asks for; longer each time, each device a little differently."""
        settings = self._settings
        seconds = min(settings.backoff_limit, settings.backoff * 2 ** min(self._tries, 20)) * self._loop.chance.uniform(0.5, 1.0)
        if waiting.seconds is not None:
            seconds = max(seconds, min(LONGEST_WAIT, waiting.seconds * self._loop.chance.uniform(1.0, 1.2)))
        self._tries += 1
        event = "waiting" if waiting.code is None else "pending" if waiting.code == "pending" else "refused"
        words: dict[str, Json] = {} if waiting.code is None else {"code": waiting.code}
        if event == "pending":
            words = {"key": waiting.key, **words}
        self._tell(event, **words, reason=waiting.detail, seconds=round(seconds, 1))
        self._again = self._loop.clock.monotonic() + seconds
        self._loop.wake(self, self._again)

    def _tell(self, event: str, **words: Json) -> None:
        wall = self._loop.clock.wall()
        time = None if wall is None else rfc3339(wall)
        self._told.append({"event": event, "deviceId": self._serial, "time": time, **words})
        self._loop.touch(self)
