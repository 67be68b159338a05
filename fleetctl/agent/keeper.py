"""Keeps the certificate of one device in date: obtain a new one, prove it by connecting, exchange, tell the fleet."""

from collections.abc import Callable
from enum import StrEnum
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Protocol

from fleetctl.agent.commands import Call
from fleetctl.agent.device import Device
from fleetctl.agent.home import Home
from fleetctl.agent.identities import UNANNOUNCED
from fleetctl.agent.identity import Identity
from fleetctl.agent.renewal import LATEST, Failed, announce, obtain, seconds_left
from fleetctl.errors import FleetError, Unavailable
from fleetctl.mqtt.connection import Connection
from fleetctl.wire.document import Json, rfc3339

if TYPE_CHECKING:
    from fleetctl.agent.loop import Loop

LOOK = 60.0
"""Seconds between two looks at the clock, which may be set at any time."""
SHORTEST_WAIT = 1.0
MISSES = 5
"""Tries after which a new certificate that no broker answers is given up, while the old one works."""

Connect = Callable[[Device, Identity], Callable[[], Connection | FleetError]]


class Step(StrEnum):
    IDLE = "idle"
    OBTAINING = "obtaining"
    PROVING = "proving"
    ANNOUNCING = "announcing"


class Owner(Protocol):
    """The actor whose device it is."""

    @property
    def device(self) -> Device: ...

    @property
    def up(self) -> bool: ...

    @property
    def staying(self) -> bool: ...

    def switch(self, connection: Connection) -> None: ...

    def turn(self) -> None: ...


class Keeper:
    """Lives as long as the actor. All runs in the loop's thread but `obtain`, `announce` and what `connect` makes."""

    def __init__(self, loop: "Loop", home: Home, owner: Owner, connect: Connect) -> None:
        self._loop, self._home, self._owner, self._connect = loop, home, owner, connect
        self._step = Step.IDLE
        self._held_since = loop.clock.monotonic()
        self._next = 0.0
        self._failures = self._misses = 0
        self._call: Call | None = None
        self._said: set[str] = set()
        self._waits = home.identities.whole_candidate is not None
        self._unannounced = _is_unannounced(home.current)

    @property
    def proving(self) -> bool:
        """Whether a connection with a new certificate is being made, which ends the one there is."""
        return self._step is Step.PROVING

    def turn(self, now: float) -> float:
        """Begin what is due; the monotonic time at which to ask again."""
        if self._step is not Step.IDLE:
            return inf
        device = self._owner.device
        if device.asked is not None:
            self._call, rekey = device.asked
            device.asked = None
            self._begin(rekey)
        elif now >= self._next:
            self._consider(now)
        return self._next if self._step is Step.IDLE else inf

    def _consider(self, now: float) -> None:
        device, credential = self._owner.device, self._home.current.credential
        self._next = now + LOOK
        if credential is None or device.working or device.reboots:
            return
        wall = self._loop.clock.wall()
        self._warn(wall)
        if device.identity.config.enrol is None:
            return
        if self._unannounced:
            self._step = Step.ANNOUNCING
            self._loop.work(partial(announce, device.identity), self._announced)
            return
        left = seconds_left(credential, device.id, wall, now - self._held_since)
        if self._waits or left <= 0:
            self._begin(rekey=True)
        else:
            self._next = now + min(left, LOOK)

    def _begin(self, rekey: bool) -> None:
        device = self._owner.device
        self._step, device.renewing = Step.OBTAINING, True
        self._tell("renewing", rekey=rekey)
        work = partial(obtain, device.identity, self._home.identities, rekey, self._loop.clock.wall())
        self._loop.work(work, self._obtained)

    def _obtained(self, found: Identity | Failed) -> None:
        if isinstance(found, Failed):
            self._fail(found.reason, found.seconds)
        elif not self._owner.staying:
            self._fail("the device reboots")
        else:
            self._step, self._waits = Step.PROVING, True
            device = self._owner.device
            trial = device.configuration.applied(found)
            self._loop.connect(self._connect(device, trial), partial(self._proven, found))
        self._owner.turn()

    def _proven(self, found: Identity, answer: Connection | FleetError) -> None:
        """The broker has taken the new certificate, or not; only then the old one is let go."""
        if isinstance(answer, FleetError):
            self._refused(answer)
        elif not self._owner.staying:
            answer.abort()
            self._fail("the device reboots")
        else:
            try:
                self._home.identities.commit()
            except (FleetError, OSError) as error:
                answer.abort()
                self._fail(f"the new certificate cannot be stored: {error}")
            else:
                self._exchange(found, answer)
        self._owner.turn()

    def _refused(self, error: FleetError) -> None:
        self._misses += 1
        if not isinstance(error, Unavailable) or (self._misses >= MISSES and self._owner.up):
            self._misses, self._waits = 0, False
            try:
                self._home.identities.drop_candidate()
            except OSError as problem:
                self._tell("error", reason=str(problem))
        self._fail(error.message)

    def _exchange(self, found: Identity, connection: Connection) -> None:
        device, now = self._owner.device, self._loop.clock.monotonic()
        self._home.current = found
        device.renewed(found)
        self._owner.switch(connection)
        self._rest()
        self._failures = self._misses = 0
        self._waits, self._unannounced, self._held_since = False, True, now
        self._said.clear()
        self._next = now
        self._tell("renewed")
        if self._call is not None and found.credential is not None:
            device.answer(self._call, "succeeded", {"serial": found.credential.serial})
        self._call = None

    def _fail(self, reason: str, seconds: float | None = None) -> None:
        """Keep the certificate there is, and try again later, each time later."""
        pause = self._pause(seconds)
        self._rest()
        self._next = self._loop.clock.monotonic() + pause
        self._tell("renewFailed", reason=reason, seconds=round(pause, 1))
        if self._call is not None:
            self._owner.device.answer(self._call, "failed", {"error": reason})
        self._call = None

    def _rest(self) -> None:
        self._step, self._owner.device.renewing = Step.IDLE, False

    def _announced(self, done: bool) -> None:
        self._step, self._unannounced = Step.IDLE, not done
        pause = min(self._owner.device.settings.renewal_retry, self._patience) if done else self._pause(None)
        if done:
            self._failures = 0
        self._next = self._loop.clock.monotonic() + pause
        self._owner.turn()

    def _pause(self, seconds: float | None) -> float:
        settings = self._owner.device.settings
        longest: float = min(settings.renewal_limit, settings.renewal_retry * 2 ** min(self._failures, 20), self._patience)
        self._failures += 1
        wait = longest * self._loop.chance.uniform(0.5, 1.0)
        return wait if seconds is None else max(wait, min(seconds, settings.renewal_limit))

    @property
    def _patience(self) -> float:
        """Seconds that one wait may take of the certificate's life: a tenth, or one that is short would end meanwhile."""
        credential = self._home.current.credential
        return inf if credential is None else max(SHORTEST_WAIT, credential.at(0.1) - credential.not_before)

    def _warn(self, wall: float | None) -> None:
        """Say once that the certificate expires and nobody renews it, and once that it has."""
        device, credential = self._owner.device, self._home.current.credential
        if credential is None or wall is None:
            return
        hint = f"fleetctl certs issue {device.id} --bundle FOLDER"
        if wall >= credential.not_after:
            self._once("expired", hint)
        elif wall >= credential.at(LATEST) and (device.identity.config.enrol is None or self._failures):
            self._once("expiring", hint)

    def _once(self, event: str, hint: str) -> None:
        if event not in self._said:
            self._said.add(event)
            self._tell(event, hint=hint)

    def _tell(self, event: str, **words: Json) -> None:
        credential = self._home.current.credential
        if credential is not None:
            words = {"serial": credential.serial, "notAfter": rfc3339(credential.not_after), **words}
        self._owner.device.tell(event, **words)


def _is_unannounced(identity: Identity) -> bool:
    return (identity.folder / UNANNOUNCED).exists()
