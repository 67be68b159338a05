"""`provision serve`: answers claims, takes devices in just in time, makes them active and configures them, until it is ended."""

import fcntl
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING

from fleetctl.errors import Conflict, Denied, FleetError, Malformed, Unavailable
from fleetctl.model import topic as topics
from fleetctl.model.device import LifeCycle
from fleetctl.model.enrolment import PENDING_SECONDS
from fleetctl.model.topic import Channel
from fleetctl.platforms.local.enrolment.activation import ACTOR, Activation
from fleetctl.platforms.local.enrolment.activation import COMMAND as CONFIGURE
from fleetctl.platforms.local.enrolment.answering import Answering
from fleetctl.platforms.local.enrolment.events import ServeEvent, What
from fleetctl.platforms.local.enrolment.expiring import expire
from fleetctl.platforms.local.enrolment.justintime import COMMAND as IDENTIFY
from fleetctl.platforms.local.enrolment.justintime import JustInTime
from fleetctl.platforms.local.outbox import flush
from fleetctl.wire.command import Reply
from fleetctl.wire.document import rfc3339
from fleetctl.wire.presence import Presence
from fleetctl.wire.provision import request_filter

if TYPE_CHECKING:
    from fleetctl.mqtt.message import Message
    from fleetctl.mqtt.session import Session
    from fleetctl.platforms.local.fleet import LocalFleet

LOCK = "provision.lock"
BEAT, SHORTEST_WAIT = 0.5, 0.01
SWEEP_SECONDS = 60.0
LEAP = 300.0
"""By how many seconds the clock may be set between two sweeps before its word for what is overdue does not count."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
RENEW = "renew"


def serve(
    fleet: "LocalFleet",
    *,
    mqtt: bool = True,
    est: bool = True,
    stop: threading.Event | None = None,
    pending_for: float = PENDING_SECONDS,
    sweep: float = SWEEP_SECONDS,
) -> Iterator[ServeEvent]:
    """Serve until `stop` is set or SIGTERM comes; `pending_for`: seconds that a certificate waits for its device to be seen.

    Raises:
        Conflict: another process serves this context over MQTT.
        Unavailable, Denied: the broker is not there, or does not let us in, at the start; later it is tried again and again.
    """
    ended = stop or threading.Event()
    told: SimpleQueue[ServeEvent] = SimpleQueue()
    with ExitStack() as held:
        if mqtt:
            held.enter_context(_alone(fleet.context.folder, fleet.context.name))
        held.enter_context(_terminated(ended))
        if est:
            held.enter_context(_est(fleet, told.put))
        service = Service(fleet, ended, told, pending_for, sweep)
        yield from service.run() if mqtt else service.watch()
        yield service.event(What.STOPPED)


@dataclass
class Service:
    """One loop without threads; what EST tells comes through `told`."""

    fleet: "LocalFleet"
    ended: threading.Event
    told: "SimpleQueue[ServeEvent]"
    pending_for: float
    sweep: float
    answering: Answering = field(init=False)
    activation: Activation = field(init=False)
    newcomers: JustInTime = field(init=False)
    _swept: float = float("-inf")
    _offset: float | None = None
    _early: list["Message"] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.answering = Answering(self.fleet, monotonic)
        self.activation = Activation(self.fleet, monotonic)
        self.newcomers = JustInTime(self.fleet, monotonic, self.activation.expect)

    def watch(self) -> Iterator[ServeEvent]:
        """Without MQTT: what EST tells."""
        yield self.event(What.LISTENING)
        while not self.ended.wait(BEAT):
            yield from self._overheard()
        yield from self._overheard()

    def run(self) -> Iterator[ServeEvent]:
        """One connection after the other; only the first one may fail for good."""
        pause, known = FIRST_PAUSE, False
        while not self.ended.is_set():
            try:
                with self.fleet.open_session("provision") as session:
                    self._begin(session)
                    yield self.event(What.CONNECTED if known else What.LISTENING, detail=str(self.fleet.endpoint))
                    pause, known = FIRST_PAUSE, True
                    yield from self._serve(session)
            except (Unavailable, Denied, Conflict) as error:
                if not known:
                    raise
                again = f"{error.message}; trying again in {pause:g} s"
                yield self.event(What.DISCONNECTED, error.code, again)
                self.ended.wait(pause)
                pause = min(LONGEST_PAUSE, pause * 2)

    def _begin(self, session: "Session") -> None:
        """Requests first; then who has been seen since we were away, by exact topics; then everybody who speaks."""
        tenant = self.fleet.tenant
        session.subscribe([request_filter(tenant)])
        session.subscribe([f"{tenant}/+/+/+/commands/{name}/reply" for name in (CONFIGURE, IDENTIFY, RENEW)])
        flush(self.fleet)
        self._early = []
        for page in self.activation.paths():
            found = session.read_retained([topics.of(path, Channel.STATUS) for path in page])
            self._early += found.values()
        session.subscribe([f"{tenant}/+/+/+/{Channel.STATUS}"], 0)

    def _serve(self, session: "Session") -> Iterator[ServeEvent]:
        wait = SHORTEST_WAIT
        while not self.ended.is_set():
            messages = [*self._early, *session.receive(max(SHORTEST_WAIT, wait))]
            self._early = []
            yield from self._answer(session, messages)
            yield from self._heard(messages)
            yield from self.activation.settle_twins()
            wait = min(self.activation.send(session), self.newcomers.send(session), BEAT)
            session.connection.on_writable()
            yield from self._overheard()
            yield from self._sweep()

    def _answer(self, session: "Session", messages: Sequence["Message"]) -> Iterator[ServeEvent]:
        """On disk first, then said, then told. What was left with the broker is of another time: nobody waits for its answer."""
        requests = [message for message in messages if message.topic.endswith("/request") and not message.retain]
        if not requests:
            return
        try:
            answers = self.answering.answer_all(requests)
        except FleetError as error:
            yield self.event(What.FAILED, error.code, error.message)
            return
        for answer in answers:
            session.publish(answer.topic, answer.reply.encode(), more=True)
        session.connection.on_writable()
        for answer in answers:
            yield from answer.events

    def _heard(self, messages: Sequence["Message"]) -> Iterator[ServeEvent]:
        said = [message for message in messages if not message.topic.endswith("/request")]
        if not said:
            return
        try:
            with self.fleet.registry.transaction():
                events = [event for message in said for event in self._one(message)]
        except Exception as error:
            self.activation.forget()
            words = (error.code, error.message) if isinstance(error, FleetError) else ("fault", repr(error)[:200])
            yield self.event(What.FAILED, *words)
            return
        yield from events

    def _one(self, message: "Message") -> Iterator[ServeEvent]:
        """What one message of a device comes to; what does not parse is nobody's."""
        found = topics.split(message.topic)
        if found is None or not message.payload:
            return
        path, channel = found
        if channel == Channel.STATUS:
            yield from self._status(message)
        elif message.retain:
            return
        elif channel == f"commands/{CONFIGURE}/reply":
            yield from self.activation.answered(path, message.payload)
        elif channel == f"commands/{IDENTIFY}/reply":
            yield from self.newcomers.answered(path, message.payload)
        elif channel == f"commands/{RENEW}/reply":
            yield from self._renewed(message)

    def _status(self, message: "Message") -> Iterator[ServeEvent]:
        found = topics.split(message.topic)
        try:
            presence = Presence.decode(message.payload)
        except Malformed:
            return
        if found is None or found[0].tenant != self.fleet.tenant:
            return
        if self.fleet.registry.standing(found[0].device_id) is None:
            self.newcomers.seen(found[0], presence)
        else:
            yield from self.activation.seen(message, found[0], presence)

    def _renewed(self, message: "Message") -> Iterator[ServeEvent]:
        """A device says that it has its newer certificate in use; EST has mostly seen so before."""
        found, registry, at = topics.split(message.topic), self.fleet.registry, rfc3339(self.fleet.clock())
        try:
            reply = Reply.decode(message.payload)
        except Malformed:
            return
        serial = reply.result.get("serial") if isinstance(reply.result, dict) and reply.status == "succeeded" else None
        if found is None or not registry.knows(found[0]) or registry.device(found[0].device_id).state is not LifeCycle.RENEWING:
            return
        good = [row for row in registry.certificates(found[0].device_id) if row.serial == serial and row.revoked_at is None]
        if good:
            registry.prove_certificate(good[0].serial, at)
            registry.move_device(found[0].device_id, LifeCycle.ACTIVE, event="renewed", at=at, actor=ACTOR)
            yield ServeEvent(What.RENEWED, at, None, found[0].device_id, None, None, good[0].serial)

    def _overheard(self) -> Iterator[ServeEvent]:
        while True:
            try:
                yield self.told.get_nowait()
            except Empty:
                return

    def _sweep(self) -> Iterator[ServeEvent]:
        if monotonic() - self._swept < self.sweep:
            return
        self._swept = monotonic()
        before, self._offset = self._offset, self.fleet.clock() - self._swept
        if before is not None and abs(self._offset - before) > LEAP:
            self._swept += self.pending_for
            words = f"the clock was set by {self._offset - before:.0f} s: nothing is taken back for {self.pending_for:.0f} s"
            yield self.event(What.FAILED, "clock", words)
            return
        try:
            yield from expire(self.fleet, self.pending_for)
        except FleetError as error:
            yield self.event(What.FAILED, error.code, error.message)

    def event(self, what: What, code: str | None = None, detail: str | None = None) -> ServeEvent:
        return ServeEvent(what, rfc3339(self.fleet.clock()), code=code, detail=detail)


@contextmanager
def _est(fleet: "LocalFleet", tell: Callable[[ServeEvent], None]) -> Iterator[None]:
    from fleetctl.platforms.local.est import EstService

    service = EstService(fleet, None, tell)
    service.start()
    try:
        yield
    finally:
        service.stop()


@contextmanager
def _alone(folder: Path, name: str) -> Iterator[None]:
    """Of two that serve each would know half of the nonces: the second one is refused, until the first one's process ends."""
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _hold(descriptor, name)
        yield
    finally:
        os.close(descriptor)


def _hold(descriptor: int, name: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise Conflict(f"context `{name}` is served already", "find who does: pgrep -af 'provision serve'") from error


@contextmanager
def _terminated(ended: threading.Event) -> Iterator[None]:
    """SIGTERM ends it in order; only the main thread can be told."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: ended.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
