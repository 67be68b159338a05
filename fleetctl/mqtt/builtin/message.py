"""A message on its way through the broker."""

from dataclasses import dataclass, field
from math import ceil
from sys import getsizeof
from typing import Self

from fleetctl.mqtt.builtin.policy import Policy
from fleetctl.mqtt.codec import PublishPacket, QoS, Will, encode

OVERHEAD = 512
PAIR_OVERHEAD = 64
QOS = (QoS.AT_MOST_ONCE, QoS.AT_LEAST_ONCE)


@dataclass(frozen=True, slots=True)
class Message:
    """What was published, by whom (`origin`, a client id) and until when it is worth anything (`expires_at`, monotonic).

    `owner`: the device to whose share of the retained messages it counts; None is the fleet.
    `size`: about the bytes of memory that it takes.
    """

    topic: str
    payload: bytes
    qos: int
    retain: bool
    origin: str
    expires_at: float | None
    payload_format: int
    content_type: str | None
    response_topic: str | None
    correlation: bytes | None
    user_properties: tuple[tuple[str, str], ...]
    owner: str | None = None
    size: int = field(init=False)

    def __post_init__(self) -> None:
        parts = (self.topic, self.payload, self.content_type, self.response_topic, self.correlation)
        pairs = sum(getsizeof(key) + getsizeof(value) + PAIR_OVERHEAD for key, value in self.user_properties)
        object.__setattr__(self, "size", sum(getsizeof(part) for part in parts if part) + pairs + OVERHEAD)

    @classmethod
    def take(cls, topic: str, source: PublishPacket | Will, origin: str, policy: Policy, now: float) -> Self:
        """The message that a PUBLISH or a will carries; a device's is retained on the topics that are for that only."""
        lifetime = source.message_expiry_interval
        return cls(
            topic=topic,
            payload=source.payload or b"",
            qos=int(source.qos),
            retain=source.retain and policy.may_retain(topic),
            origin=origin,
            expires_at=None if lifetime is None else now + lifetime,
            payload_format=int(source.payload_format_indicator),
            content_type=source.content_type,
            response_topic=source.response_topic,
            correlation=source.correlation_data,
            user_properties=tuple(source.user_properties),
            owner=policy.identity if policy.device else None,
        )

    def expired(self, now: float) -> bool:
        return self.expires_at is not None and now >= self.expires_at


@dataclass(slots=True)
class Delivery:
    """A message for one session; `packet_id` 0 means that it was never sent."""

    message: Message
    qos: int
    retain: bool
    identifiers: tuple[int, ...] = ()
    packet_id: int = 0

    def encode(self, now: float, *, again: bool) -> bytes:
        """Its PUBLISH packet, with the lifetime that is left (MQTT 5.0 section 3.3.2.3.3)."""
        message = self.message
        return encode(
            PublishPacket(
                message.topic,
                message.payload,
                qos=QOS[self.qos],
                retain=self.retain,
                packet_id=self.packet_id or None,
                duplicate=again,
                payload_format_indicator=message.payload_format,
                message_expiry_interval=None if message.expires_at is None else max(0, ceil(message.expires_at - now)),
                content_type=message.content_type,
                response_topic=message.response_topic,
                correlation_data=message.correlation,
                subscription_ids=list(self.identifiers),
                user_properties=list(message.user_properties),
            )
        )
