"""One device: what it does with what it hears, and what it says when. It knows no socket, no thread and no loop."""

from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import Literal, Protocol

from fleetctl.agent.commands import Call, Commands, expired
from fleetctl.agent.configuration import Configuration
from fleetctl.agent.drops import Drops
from fleetctl.agent.identity import Identity
from fleetctl.agent.orders import carry_out
from fleetctl.agent.reports import update_event, update_status
from fleetctl.agent.settings import Settings
from fleetctl.agent.storage import Storage
from fleetctl.agent.trust import HeldTrust
from fleetctl.agent.twin import Twin
from fleetctl.agent.updater import Clock, Outcome, Updater
from fleetctl.agent.work import WORK
from fleetctl.errors import Malformed
from fleetctl.model import topic
from fleetctl.model.attempt import Record
from fleetctl.model.presence import session_order
from fleetctl.model.update import Do
from fleetctl.mqtt.message import Message, Will
from fleetctl.wire.bundle import BundleConfig
from fleetctl.wire.command import Reply, ReplyStatus
from fleetctl.wire.document import PAYLOAD_LIMIT, Json, rfc3339
from fleetctl.wire.presence import Presence
from fleetctl.wire.telemetry import Telemetry

LONGEST_WAIT = 30.0
SHORTEST_WAIT = 0.02

Event = dict[str, Json]


class Link(Protocol):
    """What a device needs of its connection; `fleetctl.mqtt.connection.Connection` is one."""

    def publish(
        self, topic: str, payload: bytes, qos: int = 1, retain: bool = False, *, correlation: bytes | None = None
    ) -> int: ...

    def subscribe(self, filters: Sequence[str], qos: int = 1) -> int: ...


class Device:
    """Made at every boot, from disk alone; a reboot throws it away. `events` are taken by the loop, `reboots` asks it for one."""

    def __init__(self, identity: Identity, settings: Settings, storage: Storage, clock: Clock, chance: Random) -> None:
        self.path = identity.config.device
        self.id = self.path.device_id
        self.settings, self.storage = settings, storage
        self.configuration = Configuration(storage, identity, settings.fallback_after)
        self.events: list[Event] = []
        self.reboots = False
        self.asked: tuple[Call, bool] | None = None
        self.renewing = False
        self._unsent: list[tuple[Call, ReplyStatus, Json]] = []
        self._drops = Drops(clock.monotonic, self.tell)
        self._clock, self._chance = clock, chance
        self._topics = identity.config.topics
        storage.prepare(partial(settings.factory_image, self.path.device_type), settings.firmware_version)
        self.updater = Updater(self.path, storage, storage.boot(), clock)
        self._twin, self._commands = Twin(storage), Commands(storage)
        self._trust = HeldTrust(storage, identity)
        self._link: Link | None = None
        self._sessions = self._messages = 0
        self._started = clock.monotonic()
        self._connected_at: str | None = None
        self._next_heartbeat = self._next_telemetry = 0.0
        self.working = False
        image = self.updater.record.current
        self.tell("boot", boot=self.updater.record.boot, firmwareVersion=image.version, digest=image.digest)
        self._report_updates()

    @property
    def dropped(self) -> int:
        return self._drops.count

    @property
    def identity(self) -> Identity:
        """Who it is, with the addresses that are in force."""
        return self.configuration.identity

    # -- life of a session

    @property
    def session(self) -> str:
        return self._session(self._sessions)

    def _session(self, number: int) -> str:
        return f"{self.updater.record.boot}-{number}"

    def opening(self) -> Will:
        """Begin the next session; what the broker is to say when it ends without a goodbye."""
        will = self.next_will()
        self._sessions += 1
        self._connected_at = self._now()
        self.updater.begin_session()
        self._commands.begin_session(self.session)
        self.configuration.begin_session()
        return will

    def next_will(self) -> Will:
        """The will of the session after this one, which may never begin."""
        return Will(self._topics["status"], self._presence("offline", self._session(self._sessions + 1), self._now()))

    def opened(self, link: Link) -> None:
        """Say who is there, listen, and say again what may have been lost."""
        self._link = link
        lost = self.configuration.connected()
        if lost is not None:
            self.tell("fellBack", broker=self.identity.config.broker, unreachable=lost)
        self._heartbeat()
        link.subscribe([self._topics[name] for name in ("trust", "status", "twinDesired", "otaDesired", "commands")])
        self._report_update(self.updater.record)
        self._report_twin()
        pending = self._commands.pending()
        if pending is not None:
            self._publish_reply(*pending, "succeeded", {"session": self.session}, None)
        unsent, self._unsent = self._unsent, []
        for call, status, result in unsent:
            self.answer(call, status, result)
        self._next_telemetry = self._clock.monotonic() + self._telemetry_interval * self._chance.random()
        self.tell("online", session=self.session)

    def closing(self) -> None:
        """Say goodbye: the clean counterpart of the will."""
        if self._link is not None:
            self._link.publish(self._topics["status"], self._presence("offline"), retain=True)

    def closed(self, reason: str) -> None:
        if self._link is not None:
            self._link = None
            self.tell("offline", session=self.session, reason=reason)

    # -- what it hears

    def received(self, message: Message) -> None:
        """Take one message; what does not parse or is not trusted is dropped and counted, and changes nothing."""
        if not message.payload:
            return
        self._drops.guard(message.topic, partial(self._route, message))

    def _route(self, message: Message) -> None:
        if len(message.payload) > PAYLOAD_LIMIT:
            raise Malformed(f"the payload has {len(message.payload)} bytes, {PAYLOAD_LIMIT} are allowed")
        handlers: dict[str, Callable[[bytes], None]] = {
            self._topics["otaDesired"]: self._on_update,
            self._topics["twinDesired"]: self._on_twin,
            self._topics["trust"]: self._on_trust,
            self._topics["status"]: self._on_status,
        }
        handler = handlers.get(message.topic)
        if handler is not None:
            handler(message.payload)
        elif topic.matches(self._topics["commands"], message.topic):
            self._on_command(message)
        else:
            raise Malformed("nothing was subscribed there")

    def _on_update(self, payload: bytes) -> None:
        verdict = self.updater.receive(payload, self._trust.document)
        self.tell("assignment", verdict=str(verdict), order=self.updater.record.order)
        self._report_updates()

    def _on_twin(self, payload: bytes) -> None:
        if self._twin.receive(payload):
            self.tell("twin", version=self._twin.held.version if self._twin.held else None)
            self._next_telemetry = min(self._next_telemetry, self._clock.monotonic() + self._telemetry_interval)
        self._report_twin()

    def _on_trust(self, payload: bytes) -> None:
        if not self._trust.receive(payload):
            return
        self.tell("trust", version=self._trust.document.version)
        self._reconsider()

    def _on_status(self, payload: bytes) -> None:
        if session_order(Presence.decode(payload).session) < session_order(self.session):
            self._heartbeat()

    def _on_command(self, message: Message) -> None:
        name = message.topic.rpartition("/")[2]
        call = self._commands.receive(name, message.payload, message.correlation)
        if call is None:
            return
        self.tell("command", name=name, id=call.command.id)
        if expired(call.command, self._clock.wall()):
            self.answer(call, "rejected", {"error": "the command has expired"})
        else:
            carry_out(self, call)

    def remember(self, call: Call) -> None:
        """Answer it after the next boot."""
        self._commands.remember(call)

    def configure(self, config: BundleConfig) -> None:
        """Store what the fleet wants; its intervals count at once."""
        self.configuration.take(config)
        self.tell("configured", broker=config.broker, artifacts=config.artifacts, enrol=config.enrol)
        now = self._clock.monotonic()
        self._next_heartbeat = min(self._next_heartbeat, now + self._heartbeat_interval)
        self._next_telemetry = min(self._next_telemetry, now + self._telemetry_interval)

    def unreachable(self) -> None:
        """The broker did not answer: a new one that never did is given up in time."""
        other = self.configuration.missed(self._clock.monotonic())
        if other is not None:
            self.tell("fallback", broker=other, unreachable=self.configuration.config.broker)

    def renewed(self, identity: Identity) -> None:
        self.configuration.renew(identity)

    # -- updates

    def work(self) -> Do | None:
        """Go on with an update as far as it goes without work; the work that is due, unless some is under way."""
        if self.working or self.reboots:
            return None
        do = self.updater.advance()
        self._report_updates()
        if do is Do.REBOOT:
            self.reboots = True
        return do if do in WORK else None

    def worked(self, outcome: Outcome | None) -> None:
        """Fold in how work ended."""
        self.working = False
        if outcome is None:
            return
        self.updater.finish(outcome)
        self._report_updates()
        attempt = self.updater.record.attempt
        if attempt is not None and attempt.final:
            self.storage.drop_downloads()
            self._reconsider()
            self._heartbeat()

    def progressed(self, percent: int) -> None:
        self.updater.progressed(percent)
        self._report_updates()

    def _reconsider(self) -> None:
        self._drops.guard(self._topics["otaDesired"], partial(self.updater.reconsider, self._trust.document))
        self._report_updates()

    # -- what it says

    def tick(self) -> float:
        """Say what is due; the monotonic time at which to ask again."""
        now = self._clock.monotonic()
        due = [now + LONGEST_WAIT]
        quiet = self._drops.tell()
        if quiet is not None:
            due.append(quiet)
        if self.updater.wait > 0:
            due.append(now + max(SHORTEST_WAIT, self.updater.wait))
        if self._link is not None:
            if now >= self._next_heartbeat:
                self._heartbeat()
            if now >= self._next_telemetry:
                self._publish_telemetry(now)
            due += [self._next_heartbeat, self._next_telemetry]
        return min(due)

    @property
    def _heartbeat_interval(self) -> float:
        return self.settings.heartbeat or self.configuration.config.heartbeat

    @property
    def _telemetry_interval(self) -> float:
        return self._twin.interval or self.configuration.config.reporting_interval or self.settings.telemetry

    def _heartbeat(self) -> None:
        if self._link is not None:
            self._link.publish(self._topics["status"], self._presence("online"), retain=True)
        self._next_heartbeat = self._clock.monotonic() + self._heartbeat_interval * self._chance.uniform(0.8, 1.0)

    def _presence(
        self, status: Literal["online", "offline"], session: str | None = None, connected_at: str | None = None
    ) -> bytes:
        image = self.updater.record.current
        return Presence(
            status=status,
            session=session or self.session,
            firmware_version=image.version,
            digest=image.digest,
            clock="none" if self._clock.wall() is None else "set",
            heartbeat=self._heartbeat_interval,
            connected_at=connected_at or self._connected_at,
            timestamp=self._now(),
        ).encode()

    def _publish_telemetry(self, now: float) -> None:
        self._messages += 1
        self._next_telemetry = now + self._telemetry_interval * self._chance.uniform(0.9, 1.1)
        if self._link is None:
            return
        message = Telemetry(
            device_id=self.id,
            timestamp=self._now(),
            message_id=f"{self.session}-{self._messages}",
            readings={} if self.settings.sensors is None else self.settings.sensors(self.id, self._clock.wall() or now),
            metadata=self.facts | {"uptime": round(now - self._started), "dropped": self.dropped},
        )
        self._link.publish(self._topics["telemetry"], message.encode())

    def _report_update(self, record: Record) -> None:
        if self._link is not None and record.attempt is not None:
            status = update_status(record, record.attempt, self._now())
            self._link.publish(self._topics["otaStatus"], status.encode(), retain=True)

    def _report_updates(self) -> None:
        unsent, self.updater.unsent = self.updater.unsent, []
        for record in unsent:
            if record.attempt is not None:
                self.tell("update", **update_event(record, record.attempt))
        for record in unsent:
            self._report_update(record)

    def _report_twin(self) -> None:
        report = self._twin.report(self.facts, self._now())
        if self._link is not None and report is not None:
            self._link.publish(self._topics["twinReported"], report.encode(), retain=True)

    def answer(self, call: Call, status: ReplyStatus, result: Json) -> None:
        """Reply to a command, now or when there is a connection again."""
        if self._link is None:
            self._unsent.append((call, status, result))
            return
        self._publish_reply(call.name, call.command.id, status, result, call.correlation)

    def _publish_reply(self, name: str, reply_to: str, status: ReplyStatus, result: Json, correlation: bytes | None) -> None:
        if self._link is not None:
            payload = Reply(reply_to, status, result, self._now()).encode()
            self._link.publish(topic.command_reply(self.path, name), payload, correlation=correlation)

    @property
    def facts(self) -> dict[str, Json]:
        return {"firmwareVersion": self.updater.record.current.version}

    def _now(self) -> str | None:
        wall = self._clock.wall()
        return None if wall is None else rfc3339(wall)

    def tell(self, event: str, **words: Json) -> None:
        self.events.append({"event": event, "deviceId": self.id, "time": self._now(), **words})
