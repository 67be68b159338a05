"""The broker without sockets: clients that are bytes in memory, and a clock that the test moves."""

from collections.abc import Callable
from typing import Any, TypeVar

import pytest

from fleetctl.model.access import device_rules, fleet_rules
from fleetctl.mqtt.builtin.connection import Connection, Door
from fleetctl.mqtt.builtin.hub import Hub
from fleetctl.mqtt.builtin.limits import Limits
from fleetctl.mqtt.codec import (
    ConnAckPacket,
    ConnectPacket,
    Decoder,
    Packet,
    PubAckPacket,
    PublishPacket,
    QoS,
    SubAckPacket,
    SubscribePacket,
    TopicFilter,
    encode,
)

DEVICES = Door(device_rules("acme"), identity_is_client_id=True)
PEOPLE = Door(fleet_rules("acme"), identity_is_client_id=False)

P = TypeVar("P")


def wild(packet: Packet) -> bytes:
    """A packet that the codec would not make: `@` and `!` stand behind `/` for the wildcards `+` and `#`."""
    return encode(packet).replace(b"/@", b"/+").replace(b"/!", b"/#")


class Peer:
    """A client and its channel."""

    def __init__(self, hub: Hub, door: Door, identity: str | None) -> None:
        self.ready = True
        self.hung_up = False
        self.raw = b""
        self._decoder = Decoder(1 << 24)
        self._packets: list[Packet] = []
        self.connection = Connection(hub, self, door, identity)

    def write(self, data: bytes) -> None:
        assert not self.hung_up, "the broker writes to a connection that it closed"
        self.raw += data

    def close(self) -> None:
        self.hung_up = True

    def send(self, *packets: Packet) -> "Peer":
        return self.feed(b"".join(wild(packet) for packet in packets))

    def feed(self, data: bytes) -> "Peer":
        self.connection.receive(data)
        while self.connection.busy:
            self.connection.go_on()
        return self

    def take(self) -> list[Packet]:
        """What the broker has sent since the last call."""
        data, self.raw = self.raw, b""
        return list(self._decoder.feed(data))

    def only(self, kind: type[P]) -> P:
        """The one packet that the broker has sent."""
        (packet,) = self.take()
        assert isinstance(packet, kind), packet
        return packet

    def topics(self) -> list[str]:
        return [packet.topic for packet in self.messages()]

    def messages(self) -> list[PublishPacket]:
        return [packet for packet in self.take() if isinstance(packet, PublishPacket)]

    def subscribe(self, *filters: str | TopicFilter, identifier: int | None = None) -> list[int]:
        """The reason codes; retained messages that follow are left to `take`."""
        wanted = [one if isinstance(one, TopicFilter) else TopicFilter(one, retain_as_published=False) for one in filters]
        self.send(SubscribePacket(7, wanted, subscription_id=identifier))
        taken = self.take()
        (answer,) = [packet for packet in taken if isinstance(packet, SubAckPacket)]
        self.raw = b"".join(encode(packet) for packet in taken if packet is not answer)
        return [int(code) for code in answer.reason_codes]

    def publish(self, topic: str, payload: bytes = b"x", qos: int = 1, packet_id: int = 9, **options: Any) -> int | None:
        """The reason code of the acknowledgement."""
        level = QoS.AT_LEAST_ONCE if qos else QoS.AT_MOST_ONCE
        self.send(PublishPacket(topic, payload, qos=level, packet_id=packet_id if qos else None, **options))
        taken = self.take()
        acknowledgements = [packet for packet in taken if isinstance(packet, PubAckPacket)]
        self.raw = b"".join(encode(packet) for packet in taken if packet not in acknowledgements)
        return int(acknowledgements[0].reason_code) if acknowledgements else None

    def drop(self) -> None:
        """The network fails."""
        self.hung_up = True
        self.connection.lost()


class World:
    """One broker and its clock."""

    def __init__(self, limits: Limits) -> None:
        self.now = 1000.0
        self.limits = limits
        self.hub = Hub(limits, lambda: self.now)
        self.peers: list[Peer] = []

    def peer(self, door: Door = PEOPLE, identity: str | None = "op:alice") -> Peer:
        made = Peer(self.hub, door, identity)
        self.peers.append(made)
        return made

    def connect(self, client_id: str, *, identity: str = "op:alice", clean_start: bool = True, **options: Any) -> Peer:
        peer = self.peer(PEOPLE, identity)
        self.greeting = peer.send(ConnectPacket(client_id, clean_start=clean_start, **options)).take()[0]
        assert isinstance(self.greeting, ConnAckPacket)
        assert int(self.greeting.reason_code) == 0, self.greeting
        peer.raw = b""
        return peer

    def device(self, name: str, **options: Any) -> Peer:
        peer = self.peer(DEVICES, name)
        peer.send(ConnectPacket("whatever", clean_start=True, **options))
        assert int(peer.only(ConnAckPacket).reason_code) == 0
        return peer

    def resume(self, client_id: str, **options: Any) -> tuple[Peer, list[Packet]]:
        """Connect to a session that should be there; returns what was sent behind the greeting."""
        peer = self.peer()
        peer.send(ConnectPacket(client_id, clean_start=False, session_expiry_interval=60, **options))
        self.greeting, *rest = peer.take()
        return peer, rest

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for peer in self.peers:
            if not peer.hung_up:
                peer.connection.tick()
        self.hub.tick()


@pytest.fixture
def world() -> World:
    return World(Limits())


@pytest.fixture(scope="session")
def small_world() -> Callable[..., World]:
    return lambda **limits: World(Limits(**limits))
