"""What joins one device to the loop: its connection and its reconnecting, its work, its reboots."""

import threading
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from fleetctl.agent.connecting import connecting
from fleetctl.agent.device import Device, Event
from fleetctl.agent.home import Home
from fleetctl.agent.identity import Identity
from fleetctl.agent.keeper import Keeper
from fleetctl.agent.updater import Outcome
from fleetctl.agent.work import Job, perform
from fleetctl.errors import FleetError
from fleetctl.model.device import DevicePath
from fleetctl.mqtt.connection import Connection
from fleetctl.wire.document import Json

if TYPE_CHECKING:
    from fleetctl.agent.loop import Loop

TICK = 5.0
SOON = 0.05
FLUSH = 2.0
"""Seconds that a device waits for its last words to be acknowledged before it reboots."""
NEW_CERTIFICATE = "a new certificate"
PROGRESS = 25
"""Percents between two reports of a download: each is a durable step."""

Value = TypeVar("Value")


class State(StrEnum):
    DOWN = "down"
    CONNECTING = "connecting"
    UP = "up"
    LEAVING = "leaving"
    REBOOTING = "rebooting"


class Actor:
    """Lives as long as the process, its `device` as long as a boot. All but `part` runs in the loop's thread."""

    def __init__(self, loop: "Loop", home: Home, start: Callable[[Identity], Device]) -> None:
        self.state = State.DOWN
        self.alarm = 0.0
        self.watched, self.interest = -1, 0
        self.stop = threading.Event()
        self._loop, self._home, self._start = loop, home, start
        self._keeper = Keeper(loop, home, self, connecting)
        self._device: Device | None = None
        self._connection: Connection | None = None
        self._job: Job | None = None
        self._failures = 0
        self._until = 0.0
        self._left: list[Event] = []
        self._stumbles, self._rest = 0, 0.0
        self._ended: Callable[[], None] | None = None

    @property
    def device(self) -> Device:
        if self._device is None:
            raise RuntimeError("the device has not booted")
        return self._device

    @property
    def path(self) -> DevicePath:
        return self._home.current.config.device

    @property
    def up(self) -> bool:
        return self.state is State.UP

    @property
    def staying(self) -> bool:
        """Whether it is neither about to reboot nor to end."""
        return self.state not in (State.LEAVING, State.REBOOTING) and not self.stop.is_set()

    # -- called by the loop

    def begin(self) -> None:
        """Boot: everything that the device knows comes from disk."""
        device = self._start(self._home.current)
        self._left += self._device.events if self._device else []
        self._device, self._job, self.stop = device, None, threading.Event()
        self._stumbles, self._rest, self._ended = 0, 0.0, None
        self.state, self._until, self._failures = State.DOWN, 0.0, 0
        self.turn()

    def take_events(self) -> list[Event]:
        told, self._left = self._left, []
        if self._device is not None:
            told, self._device.events = told + self._device.events, []
        return told

    def serve(self, readable: bool, writable: bool) -> None:
        """The socket has something to read, or room to write."""
        connection = self._connection
        if connection is None:
            return
        if writable:
            connection.on_writable()
        if readable:
            connection.on_readable()
            for message in connection.take():
                self._guarded(partial(self.device.received, message))
        self.turn()

    def turn(self) -> None:
        """Do what is due now, and say when to be called again."""
        now = self._loop.clock.monotonic()
        match self.state:
            case State.REBOOTING:
                again = self._come_back(now)
            case State.LEAVING:
                again = self._leave(now)
            case _:
                again = self._go_on(now)
        connection = self._connection
        if connection is not None:
            self._loop.watch(self, connection.fileno(), connection.wants_write())
        self._loop.wake(self, min(again, now + TICK))

    def _go_on(self, now: float) -> float:
        if self._is_waiting and now >= self._until:
            self._connect()
        self._guarded(self._check_job)
        self._go_on_working(now)
        again = self._guarded(self.device.tick) or now + SOON
        if self._stumbles:
            again = min(again, self._rest)
        again = min(again, self._keeper.turn(now))
        self._check_connection()
        if self.device.reboots:
            self.state, self._until = State.LEAVING, now + FLUSH
            return now
        return min(again, self._until) if self._is_waiting else again

    @property
    def _is_waiting(self) -> bool:
        """Whether it is to connect in time: not while its new certificate does."""
        return self.state is State.DOWN and not self._keeper.proving

    # -- connecting

    def _connect(self) -> None:
        self.state = State.CONNECTING
        device, boot = self.device, self.stop
        will = device.opening()
        self._loop.connect(connecting(device, device.identity, will), partial(self._opened, boot))

    def _opened(self, boot: threading.Event, found: Connection | FleetError) -> None:
        if boot is not self.stop or boot.is_set() or self.state is not State.CONNECTING:
            if isinstance(found, Connection):
                found.abort()
            return
        if isinstance(found, FleetError):
            self.device.unreachable()
            self._drop(found.message)
        else:
            self._connection, self.state, self._failures = found, State.UP, 0
            self._guarded(partial(self.device.opened, found))
        self.turn()

    def switch(self, connection: Connection) -> None:
        """Go on with a connection that the broker has put in the place of the one there was."""
        old, self._connection = self._connection, connection
        self._loop.watch(self, -1, False)
        if old is not None:
            old.abort()
        self.device.closed(NEW_CERTIFICATE)
        self.device.opening()
        self.state, self._failures = State.UP, 0
        self._guarded(partial(self.device.opened, connection))

    def _check_connection(self) -> None:
        connection = self._connection
        if connection is None:
            return
        connection.tick()
        for refusal in connection.take_refusals():
            self.device.tell("refused", topic=refusal.topic, reason=refusal.error().message)
        if not connection.connected and self._keeper.proving:
            self._make_way(connection)
        elif not connection.connected:
            reason = connection.closed_reason
            self._drop("the connection was lost" if reason is None else reason.message)

    def _make_way(self, connection: Connection) -> None:
        """The broker lets a connection go when the same device comes with its new certificate: that is on its way here."""
        self._connection = None
        self._loop.watch(self, -1, False)
        connection.abort()
        self.device.closed(NEW_CERTIFICATE)
        self.state, self._until = State.DOWN, self._loop.clock.monotonic()

    def _drop(self, reason: str) -> None:
        """Without a connection, wait twice as long each time, each device a little differently: no storm on a broker's return."""
        connection, self._connection = self._connection, None
        self._loop.watch(self, -1, False)
        if connection is not None:
            connection.abort()
            self.device.closed(reason)
        seconds = self._pause(self._failures)
        self._failures += 1
        self.state, self._until = State.DOWN, self._loop.clock.monotonic() + seconds
        self.device.tell("waiting", reason=reason, seconds=round(seconds, 1))

    # -- work

    def _go_on_working(self, now: float) -> None:
        """Fold in how work ended, and begin what is due; where that cannot be stored, wait longer each time (a full disk)."""
        if now < self._rest:
            return
        try:
            if self._ended is not None:
                self._ended()
                self._ended = None
            self._work()
            self._stumbles = 0
        except (FleetError, OSError) as error:
            seconds = self._pause(self._stumbles)
            self._stumbles += 1
            self._rest = now + seconds
            self._tell_error(error, retryIn=round(seconds, 1))

    def _pause(self, failures: int) -> float:
        settings = self.device.settings
        longest: float = min(settings.backoff_limit, settings.backoff * 2 ** min(failures, 20))
        return longest * self._loop.chance.uniform(0.5, 1.0)

    def _work(self) -> None:
        device = self.device
        do = device.work()
        attempt = device.updater.record.attempt
        if do is None or attempt is None or attempt.image is None:
            return
        device.working = True
        self._job = job = Job(
            do=do,
            order=attempt.order,
            image=attempt.image,
            slot=device.updater.record.active.other,
            storage=device.storage,
            artifacts=device.identity.artifacts,
            self_test=device.settings.self_test,
            stop=threading.Event(),
            report=_throttled(lambda percent: self._loop.call_soon(lambda: self._progressed(job, percent))),
        )
        self._loop.work(partial(perform, job), partial(self._worked, job, device))

    def _check_job(self) -> None:
        """Stop work that a cancel or another assignment has made pointless."""
        job = self._job
        if job is not None and not self.device.updater.awaits(job.do, job.order):
            job.stop.set()

    def _progressed(self, job: Job, percent: int) -> None:
        if job is self._job and not job.stop.is_set():
            self._guarded(partial(self.device.progressed, percent))
            self.turn()

    def _worked(self, job: Job, device: Device, outcome: Outcome | None) -> None:
        device.working = False
        if job is self._job and self.state not in (State.LEAVING, State.REBOOTING):
            self._job = None
            self._ended = partial(device.worked, None if job.stop.is_set() else outcome)
            self.turn()

    def halt(self) -> None:
        """Let nothing of this boot go on in the background."""
        self.stop.set()
        if self._job is not None:
            self._job.stop.set()

    # -- leaving

    def _leave(self, now: float) -> float:
        """Reboot: the last words are flushed, work is stopped, and then nothing of this boot is left but the disk."""
        connection = self._connection
        if connection is not None and connection.connected:
            connection.tick()
            if connection.unacknowledged and now < self._until:
                return min(self._until, now + SOON)
            self._guarded(self.device.closing)
            self._loop.watch(self, -1, False)
            self._loop.connect(connection.disconnect, lambda _: None)
        elif connection is not None:
            connection.abort()
        self._connection = None
        self.halt()
        self.device.closed("reboot")
        self.state, self._until = State.REBOOTING, now + self.device.settings.reboot_delay
        return self._until

    def _come_back(self, now: float) -> float:
        if now < self._until:
            return self._until
        if self.device.working:
            return now + SOON
        self._until = now + self.device.settings.backoff_limit
        self._guarded(self.begin)
        return now + SOON

    def part(self) -> None:
        """Go away for good: say so and close. Runs in a thread while the loop waits."""
        connection = self._connection
        if connection is not None:
            self._guarded(self.device.closing)
            connection.disconnect()

    def end(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()
        if self._device is not None:
            self._device.closed("stopped")

    def _guarded(self, call: Callable[[], Value]) -> Value | None:
        """What one device meets with its connection or its disk ends neither the loop nor the other devices."""
        try:
            return call()
        except (FleetError, OSError) as error:
            self._tell_error(error)
            return None

    def _tell_error(self, error: FleetError | OSError, **words: Json) -> None:
        self.device.tell("error", reason=error.message if isinstance(error, FleetError) else str(error), **words)


def _throttled(report: Callable[[int], None]) -> Callable[[int], None]:
    last = 0

    def tell(percent: int) -> None:
        nonlocal last
        if last + PROGRESS <= percent < 100:
            last = percent
            report(percent)

    return tell
