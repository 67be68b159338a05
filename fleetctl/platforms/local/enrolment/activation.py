"""The first time that a device is seen with its own certificate: it becomes active, and is configured until it has said so."""

import json
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fleetctl.errors import FleetError, Malformed, Pending
from fleetctl.model import topic as topics
from fleetctl.model.device import Device, DevicePath, LifeCycle
from fleetctl.model.enrolment import EnrolmentState, beneath
from fleetctl.platforms.local.believed import take_in
from fleetctl.platforms.local.enrolment import facts
from fleetctl.platforms.local.enrolment.events import ServeEvent, What
from fleetctl.wire.bundle import topics_of
from fleetctl.wire.command import Command, Reply
from fleetctl.wire.document import parse_json, rfc3339
from fleetctl.wire.presence import Presence

if TYPE_CHECKING:
    from fleetctl.mqtt.message import Message
    from fleetctl.mqtt.session import Session
    from fleetctl.platforms.local.fleet import LocalFleet

COMMAND = "configure"
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
LIMIT = 20_000
"""How many devices may be waited for at once; the others are configured when they are heard of again."""
ACTOR = "fleetctl"


@dataclass(slots=True)
class Waiting:
    """A `configure` that is under way; `due` is when it is said again, on the monotonic clock. None: not in this session."""

    path: DevicePath
    session: str
    id: str = ""
    wait: float = FIRST_WAIT
    due: float | None = 0.0


@dataclass
class Activation:
    """Statuses in, commands out."""

    fleet: "LocalFleet"
    monotonic: Callable[[], float]
    waiting: dict[str, Waiting] = field(default_factory=dict)
    fresh: list[str] = field(default_factory=list)

    def seen(self, message: "Message", path: DevicePath, presence: Presence) -> Iterator[ServeEvent]:
        """A status at the path of a device that the registry has; to be called in a transaction."""
        registry = self.fleet.registry
        standing = registry.standing(path.device_id)
        if standing is None or standing.path != path:
            return
        if standing.state in (LifeCycle.MANUFACTURED, LifeCycle.CLAIMED):
            if self._is_stale(message, path) or not self._has_certificate(path.device_id):
                return
            yield self._activate(message, path)
        elif standing.configured or standing.state not in (LifeCycle.ACTIVE, LifeCycle.RENEWING):
            self.waiting.pop(path.device_id, None)
            return
        self._await(path, presence)

    def _is_stale(self, message: "Message", path: DevicePath) -> bool:
        """Whether it is of an earlier life: retained, and known since then."""
        return message.retain and parse_json(message.payload) == self.fleet.registry.presence_document(path.device_id)

    def _has_certificate(self, device_id: str) -> bool:
        now = self.fleet.clock()
        return any(facts.is_good(row, now) for row in self.fleet.registry.certificates(device_id))

    def _activate(self, message: "Message", path: DevicePath) -> ServeEvent:
        registry, now, name = self.fleet.registry, self.fleet.clock(), path.device_id
        at = rfc3339(now)
        registry.move_device(name, LifeCycle.ACTIVE, event="activated", at=at, actor=ACTOR)
        good = [row for row in registry.certificates(name) if facts.is_good(row, now)]
        if len(good) == 1:
            registry.prove_certificate(good[0].serial, at)
        for row in registry.enrolments(device_id=name, states=(EnrolmentState.ISSUED,)):
            registry.settle_enrolment(row.id, EnrolmentState.ACTIVE, at=at)
        take_in(registry, message)
        return ServeEvent(What.ACTIVATED, at, registry.device(name).serial, name)

    def _await(self, path: DevicePath, presence: Presence) -> None:
        if presence.status == "online":
            self.expect(path, presence.session)
        else:
            self.waiting.pop(path.device_id, None)

    def expect(self, path: DevicePath, session: str) -> None:
        """Configure a device that is online in a session."""
        held = self.waiting.get(path.device_id)
        if (held is None or held.session != session) and len(self.waiting) < LIMIT:
            self.waiting[path.device_id] = Waiting(path, session, due=self.monotonic())
            self.fresh.append(path.device_id)

    def forget(self) -> None:
        """What was heard could not be kept: whoever is to be configured will be heard of again."""
        self.waiting.clear()
        self.fresh.clear()

    def settle_twins(self) -> Iterator[ServeEvent]:
        """Give devices that are to be configured the twin defaults of their profiles, below what is desired already."""
        wanted: dict[str, list[Device]] = {}
        registry, fresh = self.fleet.registry, self.fresh
        self.fresh = []
        for device in map(registry.device, fresh):
            defaults = facts.profile_of(registry, device).twin
            patch = beneath(defaults, registry.twin(device.id).desired) if defaults else {}
            if patch:
                wanted.setdefault(json.dumps(patch, sort_keys=True), []).append(device)
        for text, devices in wanted.items():
            try:
                self.fleet.twins.set(devices, json.loads(text))
            except Pending:
                continue
            except FleetError as error:
                yield self._event(What.NOT_CONFIGURED, devices[0].id, error.code, f"twin defaults: {error.message}")

    def send(self, session: "Session") -> float:
        """Say what is due; how many seconds until something is due again."""
        now, soonest = self.monotonic(), LONGEST_WAIT
        for name, held in self.waiting.items():
            if held.due is not None and held.due <= now:
                self._send(session, name, held)
                held.due, held.wait = now + held.wait, min(LONGEST_WAIT, held.wait * 2)
            if held.due is not None:
                soonest = min(soonest, held.due - now)
        return max(0.0, soonest)

    def _send(self, session: "Session", name: str, held: Waiting) -> None:
        held.id = secrets.token_hex(8)
        said = Command(held.id, held.session, self._settings(self.fleet.registry.device(name)))
        reply = topics.command_reply(held.path, COMMAND)
        session.publish(
            topics.command(held.path, COMMAND), said.encode(), response_topic=reply, correlation=held.id.encode(), more=True
        )

    def _settings(self, device: Device) -> dict[str, Any]:
        profile, context = facts.profile_of(self.fleet.registry, device), self.fleet.context
        return {
            "broker": context.device_broker,
            "artifacts": context.artifacts,
            "enrol": context.enrol,
            "heartbeat": profile.heartbeat,
            "reportingInterval": profile.reporting_interval,
            "topics": topics_of(device.path),
        }

    def answered(self, path: DevicePath, payload: bytes) -> Iterator[ServeEvent]:
        """A reply to `configure`: remembered for good, or not asked again in this session."""
        held = self.waiting.get(path.device_id)
        try:
            reply = Reply.decode(payload)
        except Malformed:
            return
        if held is None or held.path != path or reply.id != held.id or reply.status == "accepted":
            return
        if reply.status != "succeeded":
            held.due = None
            yield self._event(What.NOT_CONFIGURED, path.device_id, reply.status, str(reply.result)[:200])
            return
        del self.waiting[path.device_id]
        at = rfc3339(self.fleet.clock())
        self.fleet.registry.note(path.device_id, "configured", at=at, actor=ACTOR)
        yield self._event(What.CONFIGURED, path.device_id)

    def paths(self) -> Iterator[Sequence[DevicePath]]:
        """Pages of the devices that a status is awaited of."""
        after = ""
        while page := self.fleet.registry.unsettled(after):
            yield page
            after = page[-1].device_id

    def _event(self, what: What, device_id: str, code: str | None = None, detail: str | None = None) -> ServeEvent:
        return ServeEvent(what, rfc3339(self.fleet.clock()), None, device_id, None, code, detail)
