"""The messages of a fleet in memory."""

import itertools
import queue
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fleetctl.errors import Malformed
from fleetctl.model import topic as topics
from fleetctl.model.device import Device
from fleetctl.model.topic import Channel
from fleetctl.platforms.commands import Ledger
from fleetctl.platforms.memory.broker import Received
from fleetctl.platforms.messages import CommandResult, Dropped, RawPublished, TailRecord
from fleetctl.platforms.passing import check_command_name, check_raw, tail_filters, tail_record
from fleetctl.wire.command import Command, Reply
from fleetctl.wire.presence import Presence

if TYPE_CHECKING:
    from fleetctl.platforms.memory.fleet import MemoryFleet


@dataclass(frozen=True, slots=True)
class MemoryMessages:
    """`Messages` in memory."""

    fleet: "MemoryFleet"

    def publish(
        self, devices: Sequence[Device], command: str, args: Mapping[str, Any], *, wait: bool = False, timeout: float = 5.0
    ) -> Iterator[CommandResult]:
        return self._publish(devices, check_command_name(command), args, wait, timeout)

    def publish_raw(self, topic: str, payload: bytes, *, retain: bool = False, qos: int = 1) -> RawPublished:
        check_raw(topic, payload, qos)
        self.fleet.broker.publish(topic, payload, retain)
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
        wanted = tail_filters(self.fleet.tenant, devices, filters, channel)
        passing = self._listen(wanted, None if duration is None else time.monotonic() + duration)
        return (tail_record(topic, payload, self.fleet.clock()) for topic, payload, _ in itertools.islice(passing, count))

    def _listen(self, filters: Sequence[str], deadline: float | None) -> Iterator[Received]:
        inbox = self.fleet.broker.subscribe(filters)
        try:
            while (left := None if deadline is None else deadline - time.monotonic()) is None or left > 0:
                try:
                    yield inbox.get(timeout=left)
                except queue.Empty:
                    return
        finally:
            self.fleet.broker.unsubscribe(inbox)

    def _publish(
        self, devices: Sequence[Device], command: str, args: Mapping[str, Any], wait: bool, timeout: float
    ) -> Iterator[CommandResult]:
        self.fleet.broker.unsubscribe(self.fleet.broker.subscribe([]))
        self.fleet.refresh(devices)
        said = {device.id: self._session(device) for device in devices}
        ledger = Ledger(command, said)
        yield from ledger.unreachable()
        paths = {device.path: device.id for device in devices if ledger.is_waiting(device.id)}
        inbox = self.fleet.broker.subscribe([topics.command_reply(path, command) for path in paths])
        try:
            for number, (path, name) in enumerate(paths.items()):
                payload = Command(f"c-{number}", ledger.session(name), dict(args)).encode()
                self.fleet.broker.publish(topics.command(path, command), payload)
            deadline = time.monotonic() + timeout
            while wait and ledger.waiting and (left := deadline - time.monotonic()) > 0:
                yield from self._reply(inbox, left, ledger)
        finally:
            self.fleet.broker.unsubscribe(inbox)
        yield from ledger.rest("timedOut" if wait else "sent")
        if (verdict := ledger.verdict()) is not None:
            raise verdict

    def _session(self, device: Device) -> tuple[str, str] | None:
        payload = self.fleet.broker.retained.get(topics.of(device.path, Channel.STATUS))
        try:
            said = None if payload is None else Presence.decode(payload)
        except Malformed:
            return None
        return None if said is None else (said.status, said.session)

    def _reply(self, inbox: "queue.Queue[Received]", left: float, ledger: Ledger) -> Iterator[CommandResult]:
        try:
            topic, payload, _ = inbox.get(timeout=left)
            found, said = topics.split(topic), Reply.decode(payload)
        except (queue.Empty, Malformed):
            return
        if found is not None:
            yield from ledger.reply(found[0].device_id, said.status, said.result)
