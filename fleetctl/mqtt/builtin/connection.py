"""One client's side of the protocol: bytes in, packets out. No sockets: it writes to a `Channel`."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Protocol

from fleetctl.model.access import Rule
from fleetctl.model.topic import is_filter, is_topic
from fleetctl.mqtt.builtin import greeting
from fleetctl.mqtt.builtin.greeting import Refused
from fleetctl.mqtt.builtin.hub import Hub
from fleetctl.mqtt.builtin.limits import SLICE, oversized
from fleetctl.mqtt.builtin.message import QOS, Delivery, Message
from fleetctl.mqtt.builtin.router import Subscription
from fleetctl.mqtt.builtin.sessions import Session
from fleetctl.mqtt.codec import (
    ConnectPacket,
    Decoder,
    DisconnectPacket,
    DisconnectReasonCode,
    MalformedPacket,
    Packet,
    PingReqPacket,
    PingRespPacket,
    PubAckPacket,
    PubAckReasonCode,
    PublishPacket,
    SubAckPacket,
    SubAckReasonCode,
    SubscribePacket,
    TopicFilter,
    UnsubAckPacket,
    UnsubAckReasonCode,
    UnsubscribePacket,
    UnsupportedVersion,
    encode,
)

NORMAL, KEEPS_WILL, NO_MATCH, NO_SUBSCRIPTION = 0x00, 0x04, 0x10, 0x11
PROTOCOL_ERROR, NOT_AUTHORIZED = 0x82, 0x87
SHUTTING_DOWN, KEEP_ALIVE_TIMEOUT = 0x8B, 0x8D
FILTER_INVALID, TOPIC_INVALID, ALIAS_INVALID = 0x8F, 0x90, 0x94
QUOTA_EXCEEDED, ADMINISTRATIVE_ACTION, QOS_NOT_SUPPORTED, NO_SHARED = 0x97, 0x98, 0x9B, 0x9E
KEEP_ALIVE_FACTOR = 1.5


class Channel(Protocol):
    """Where the bytes for the client go."""

    @property
    def ready(self) -> bool:
        """Whether there is room for more than a short answer."""

    def write(self, data: bytes) -> None: ...

    def close(self) -> None:
        """Send what was written, then close; nothing is received afterwards."""


@dataclass(frozen=True, slots=True)
class Door:
    """The listener that a client came through; `transient` as in `mqtt.broker.Listener`."""

    rules: tuple[Rule, ...]
    identity_is_client_id: bool
    transient: bool = False


class Violation(Exception):
    """The client broke the protocol: the connection ends with this reason code."""

    def __init__(self, reason: int) -> None:
        super().__init__(f"reason {reason:#04x}")
        self.reason = reason


class Connection:
    """Implements `sessions.Link`. `identity` None is a certificate without a usable name: it is told so and sent away.

    So is one that is `denied`. `hasty`: it published faster than some reader reads, and should be given a rest. `busy`: it should
    not be read from.
    """

    def __init__(self, hub: Hub, channel: Channel, door: Door, identity: str | None, *, denied: bool = False) -> None:
        self._hub = hub
        self._channel = channel
        self._door = door
        self._identity = identity
        self._denied = denied
        self._decoder = Decoder(hub.limits.packet)
        self._session: Session | None = None
        self._began = self._heard = hub.clock()
        self._stalled: float | None = None
        self._retained: Iterator[Delivery] | None = None
        self._keep_alive = 0
        self._largest = hub.limits.packet
        self._window = 0
        self._persistent = False
        self.closed = False
        self.hasty = False

    # -- what the transport tells

    def receive(self, data: bytes) -> None:
        """Handle the packets that these bytes complete; a bad one ends this connection and nothing else."""
        if self.closed:
            return
        if self.busy:
            self._decoder.hold(data)
            return
        try:
            for packet in self._decoder.feed(data):
                self._heard = self._hub.clock()
                if not self._handle(packet) or self.busy:
                    return
        except UnsupportedVersion as error:
            self._refuse_version(error.version)
        except MalformedPacket as error:
            self.end(error.reason)
        except Violation as violation:
            self.end(violation.reason)

    @property
    def busy(self) -> bool:
        """Whether retained messages are left to send before anything else of this client is handled: call `go_on`."""
        return self._retained is not None and not self.closed

    def go_on(self) -> None:
        """Send some of the retained messages that it subscribed to; behind the last, handle what it has said meanwhile."""
        if self._session is not None and self.busy:
            self._send_slice(self._session)
            self.receive(b"")

    def writable(self) -> None:
        """There is room again."""
        self._stalled = None
        if self._session is not None and not self.closed:
            self._session.pump(self._hub.clock())

    def lost(self) -> None:
        """The transport is gone: the will is published."""
        self._leave(with_will=True)

    def tick(self) -> None:
        """End a connection that is silent, stalled, or never introduced itself."""
        now = self._hub.clock()
        if self._channel.ready:
            self._stalled = None
        elif self._stalled is None:
            self._stalled = now
        elif now - self._stalled > self._hub.limits.stalled_seconds:
            self.end(KEEP_ALIVE_TIMEOUT)
            return
        if self._session is None:
            if now - self._began > self._hub.limits.connect_seconds:
                self._close()
        elif self._keep_alive and now - self._heard > self._keep_alive * KEEP_ALIVE_FACTOR:
            self.end(KEEP_ALIVE_TIMEOUT)

    # -- sessions.Link

    @property
    def window(self) -> int:
        return self._window

    @property
    def ready(self) -> bool:
        return not self.closed and self._channel.ready

    def transmit(self, delivery: Delivery, *, again: bool) -> bool:
        data = delivery.encode(self._hub.clock(), again=again)
        if len(data) > self._largest:
            return False
        self._channel.write(data)
        return True

    def end(self, reason: int) -> None:
        """Say why (only a client that was let in may be told, section 3.14), and close; the will is published."""
        if not self.closed and self._session is not None:
            self._send(DisconnectPacket(reason_code=DisconnectReasonCode(reason)))
        self._leave(with_will=True)
        self._close()

    # -- packets

    def _send(self, packet: Packet) -> None:
        self._channel.write(encode(packet))

    def _close(self) -> None:
        if not self.closed:
            self.closed = True
            self._channel.close()

    def _leave(self, *, with_will: bool) -> None:
        session, self._session = self._session, None
        if session is not None:
            self._hub.detach(session, self, with_will=with_will)

    def _handle(self, packet: Packet) -> bool:
        """Whether the connection goes on."""
        if self._session is None:
            if isinstance(packet, ConnectPacket):
                self._connect(packet)
            else:
                self._close()
            return not self.closed
        self._serve(packet, self._session)
        return not self.closed

    def _serve(self, packet: Packet, session: Session) -> None:
        match packet:
            case PublishPacket():
                self._publish(packet, session)
            case PubAckPacket():
                self._acknowledge(packet, session)
            case SubscribePacket():
                self._subscribe(packet, session)
            case UnsubscribePacket():
                self._unsubscribe(packet, session)
            case PingReqPacket():
                self._send(PingRespPacket())
            case DisconnectPacket():
                self._disconnect(packet, session)
            case _:
                raise Violation(PROTOCOL_ERROR)

    def _refuse_version(self, version: int) -> None:
        self._channel.write(greeting.refuse_version(version))
        self._close()

    def _connect(self, packet: ConnectPacket) -> None:
        try:
            if self._denied:
                raise Refused(NOT_AUTHORIZED, "the fleet does not let this device in")
            arrival = greeting.welcome(
                packet,
                self._door.rules,
                self._identity,
                self._hub,
                named=self._door.identity_is_client_id,
                transient=self._door.transient,
            )
            attached = self._hub.attach(self, arrival)
            if attached is None:
                raise Refused(QUOTA_EXCEEDED, "the broker holds too many sessions")
        except Refused as refusal:
            self._send(refusal.answer())
            self._close()
            return
        self._session, present = attached
        self._keep_alive = packet.keep_alive
        self._window = min(packet.receive_max, self._hub.limits.window)
        self._largest = packet.max_packet_size or self._largest
        self._persistent = packet.session_expiry_interval > 0 and not self._door.transient
        self._send(greeting.accept(packet, arrival, self._hub.limits, present=present))
        self._session.pump(self._hub.clock())

    def _publish(self, packet: PublishPacket, session: Session) -> None:
        qos, packet_id = int(packet.qos), packet.packet_id
        self._check_publish(packet, qos)
        code = self._accept(packet, session)
        if qos and packet_id is not None:
            self._send(PubAckPacket(packet_id, reason_code=PubAckReasonCode(code)))

    def _check_publish(self, packet: PublishPacket, qos: int) -> None:
        if qos > 1:
            raise Violation(QOS_NOT_SUPPORTED)
        if packet.topic_alias is not None:
            raise Violation(ALIAS_INVALID)
        if not packet.topic or packet.subscription_ids or (qos and not packet.packet_id):
            raise Violation(PROTOCOL_ERROR)
        if not is_topic(packet.topic) or oversized(packet.topic):
            raise Violation(TOPIC_INVALID)
        reply = packet.response_topic
        if reply is not None and (not is_topic(reply) or oversized(reply)):
            raise Violation(PROTOCOL_ERROR)

    def _accept(self, packet: PublishPacket, session: Session) -> int:
        if not session.policy.may_write(packet.topic):
            return NOT_AUTHORIZED
        outcome = self._hub.publish(Message.take(packet.topic, packet, session.client_id, session.policy, self._hub.clock()))
        self.hasty = self.hasty or outcome.congested
        if outcome.refused:
            return QUOTA_EXCEEDED
        return NORMAL if outcome.reached else NO_MATCH

    def _acknowledge(self, packet: PubAckPacket, session: Session) -> None:
        if not packet.packet_id:
            raise Violation(PROTOCOL_ERROR)
        session.acknowledge(packet.packet_id, self._hub.clock())

    def _subscribe(self, packet: SubscribePacket, session: Session) -> None:
        if not packet.packet_id or not packet.topic_filters:
            raise Violation(PROTOCOL_ERROR)
        asked = {wanted.pattern: wanted for wanted in packet.topic_filters}
        codes: dict[str, int] = {}
        found: list[Iterator[Delivery]] = []
        for pattern, wanted in asked.items():
            code = codes[pattern] = self._judge(wanted, session, len(codes))
            if code < len(QOS):
                identifier = packet.subscription_id or 0
                subscription = Subscription(pattern, code, wanted.no_local, wanted.retain_as_published, identifier)
                found.append(self._hub.subscribe(session, subscription, int(wanted.retain_handling)))
        answer = [SubAckReasonCode(codes[wanted.pattern]) for wanted in packet.topic_filters]
        self._send(SubAckPacket(packet.packet_id, answer))
        self._retained = chain.from_iterable(found)
        self._send_slice(session)

    def _send_slice(self, session: Session) -> None:
        if self._retained is not None:
            some = list(islice(self._retained, SLICE))
            if len(some) < SLICE:
                self._retained = None
            now = self._hub.clock()
            for delivery in some:
                session.offer(delivery, now)

    def _judge(self, wanted: TopicFilter, session: Session, before: int) -> int:
        """The reason code for one filter, `before` which others of its packet stand: the granted QoS, or why there is none."""
        pattern, limits, device = wanted.pattern, self._hub.limits, session.policy.device
        if pattern.startswith("$share/"):
            return NO_SHARED
        if device and before >= limits.device_filters:
            return QUOTA_EXCEEDED
        if not is_filter(pattern) or oversized(pattern):
            return FILTER_INVALID
        if not session.policy.may_subscribe(pattern):
            return NOT_AUTHORIZED
        room = limits.device_subscriptions if device else limits.subscriptions
        if pattern not in session.subscriptions and len(session.subscriptions) >= room:
            return QUOTA_EXCEEDED
        return min(int(wanted.max_qos), 1)

    def _unsubscribe(self, packet: UnsubscribePacket, session: Session) -> None:
        if not packet.packet_id or not packet.patterns:
            raise Violation(PROTOCOL_ERROR)
        codes = [NORMAL if self._hub.unsubscribe(session, pattern) else NO_SUBSCRIPTION for pattern in packet.patterns]
        self._send(UnsubAckPacket(packet.packet_id, [UnsubAckReasonCode(code) for code in codes]))

    def _disconnect(self, packet: DisconnectPacket, session: Session) -> None:
        """A session that was to end with its connection cannot be prolonged now (section 3.14.2.2.2)."""
        expiry = packet.session_expiry_interval
        if expiry is not None:
            if expiry and not self._persistent:
                raise Violation(PROTOCOL_ERROR)
            session.expiry = min(expiry, self._hub.limits.session_expiry)
        self._leave(with_will=int(packet.reason_code) != NORMAL)
        self._close()
