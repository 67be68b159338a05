"""Messages of a local fleet: commands with their replies, raw messages, and what passes by."""

import itertools
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fleetctl.errors import Malformed
from fleetctl.model import topic as topics
from fleetctl.model.device import Device
from fleetctl.model.topic import Channel
from fleetctl.platforms.commands import Ledger
from fleetctl.platforms.local.believed import take_in
from fleetctl.platforms.messages import CommandResult, Dropped, RawPublished, TailRecord
from fleetctl.platforms.passing import check_command_name, check_raw, tail_filters, tail_record
from fleetctl.wire.command import Command, Reply
from fleetctl.wire.document import rfc3339
from fleetctl.wire.presence import Presence

if TYPE_CHECKING:
    from fleetctl.mqtt.session import Session
    from fleetctl.platforms.local.fleet import LocalFleet


@dataclass(frozen=True, slots=True)
class LocalMessages:
    """`Messages` through the broker of a local fleet."""

    fleet: "LocalFleet"

    def publish(
        self,
        devices: Sequence[Device],
        command: str,
        args: Mapping[str, Any],
        *,
        wait: bool = False,
        timeout: float = 5.0,
        pace: float | None = None,
    ) -> Iterator[CommandResult]:
        """A result for each device as it becomes known; when all are out, raises `Ledger.verdict`.

        A command is meant for the session that the device retains: one without, or offline, is not sent anything.
        `timeout` begins when the last one is sent; with `pace`, that many seconds pass from one to the next.
        """
        return self._publish(devices, check_command_name(command), dict(args), wait, timeout, pace)

    def publish_raw(self, topic: str, payload: bytes, *, retain: bool = False, qos: int = 1) -> RawPublished:
        """Returns when the broker has acknowledged it (at QoS 0: when it is sent)."""
        check_raw(topic, payload, qos)
        with self.fleet.open_session("publish") as session:
            session.publish(topic, payload, qos, retain)
        return RawPublished(topic, len(payload), qos, retain)

    def tail(
        self,
        devices: Sequence[Device] | None = None,
        filters: Iterable[str] = (),
        *,
        channel: str | None = None,
        count: int | None = None,
        duration: float | None = None,
        dropped: Dropped | None = None,
    ) -> Iterator[TailRecord]:
        """What arrives until `count` messages or `duration` seconds are over; then `dropped` says what was left out."""
        wanted = tail_filters(self.fleet.tenant, devices, filters, channel)
        return self._tail(wanted, count, duration, dropped or Dropped())

    def _publish(
        self,
        devices: Sequence[Device],
        command: str,
        args: Mapping[str, Any],
        wait: bool,
        timeout: float,
        pace: float | None,
    ) -> Iterator[CommandResult]:
        with self.fleet.open_session("publish") as session:
            sessions = self._sessions(session, devices)
            ledger = Ledger(command, {device.id: sessions.get(device.id) for device in devices})
            yield from ledger.unreachable()
            reachable = [device for device in devices if ledger.is_waiting(device.id)]
            if wait and reachable:
                session.subscribe([topics.command_reply(device.path, command) for device in reachable])
            ids: dict[str, tuple[str, str]] = {}
            for several, pause in _portions(reachable, pace):
                if pause:
                    yield from self._replies(session, ids, ledger, time.monotonic() + pause)
                expires = rfc3339(self.fleet.clock() + timeout) if wait else None
                ids |= self._send(session, several, command, args, ledger, expires)
                session.flush()
            if wait:
                yield from self._replies(session, ids, ledger, time.monotonic() + timeout)
            yield from ledger.rest("timedOut" if wait else "sent")
        if (verdict := ledger.verdict()) is not None:
            raise verdict

    def _sessions(self, session: "Session", devices: Sequence[Device]) -> dict[str, tuple[str, str]]:
        """Status and session of every device that retains them."""
        found = session.read_retained([topics.of(device.path, Channel.STATUS) for device in devices])
        said: dict[str, tuple[str, str]] = {}
        for device in devices:
            message = found.get(topics.of(device.path, Channel.STATUS))
            if message is None:
                continue
            try:
                presence = Presence.decode(message.payload)
            except Malformed:
                continue
            take_in(self.fleet.registry, message)
            said[device.id] = presence.status, presence.session
        return said

    def _send(
        self,
        session: "Session",
        devices: Sequence[Device],
        name: str,
        args: Mapping[str, Any],
        ledger: Ledger,
        expires: str | None,
    ) -> dict[str, tuple[str, str]]:
        """Publish to each device; the (topic, device) of the reply by the command's id.

        Nobody waiting, nothing expires: the session that a command names keeps it fresh, and a device may sleep for long.
        """
        ids = {}
        for device in devices:
            command_id = secrets.token_hex(8)
            reply = topics.command_reply(device.path, name)
            said = Command(command_id, ledger.session(device.id), args, expires)
            ids[command_id] = reply, device.id
            session.publish(
                topics.command(device.path, name),
                said.encode(),
                response_topic=reply,
                correlation=command_id.encode(),
                more=True,
            )
        return ids

    def _replies(
        self, session: "Session", ids: Mapping[str, tuple[str, str]], ledger: Ledger, deadline: float
    ) -> Iterator[CommandResult]:
        """What is answered until `deadline`, or until nobody is waited for."""
        while ledger.waiting and (left := deadline - time.monotonic()) > 0:
            for message in session.receive(left):
                try:
                    reply = Reply.decode(message.payload)
                except Malformed:
                    continue
                topic, device = ids.get(reply.id, ("", ""))
                if topic == message.topic:
                    yield from ledger.reply(device, reply.status, reply.result)

    def _tail(self, filters: Sequence[str], count: int | None, duration: float | None, dropped: Dropped) -> Iterator[TailRecord]:
        deadline = None if duration is None else time.monotonic() + duration
        with self.fleet.open_session("tail") as session:
            session.subscribe(filters)
            try:
                for message in itertools.islice(session.messages(deadline), count):
                    yield tail_record(message.topic, message.payload, message.received_at)
            finally:
                dropped.malformed, dropped.overflow = session.malformed, session.dropped


def _portions(devices: Sequence[Device], pace: float | None) -> Iterator[tuple[Sequence[Device], float]]:
    """Whom to send to at once, and how many seconds to wait before."""
    if not pace:
        yield devices, 0.0
        return
    for number, device in enumerate(devices):
        yield [device], pace if number else 0.0
