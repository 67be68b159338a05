"""CONNECT and its answer: who is let in, as whom, and what is offered (MQTT 5.0 sections 3.1 and 3.2)."""

from fleetctl.model.access import Rule, is_one_level
from fleetctl.model.topic import is_topic
from fleetctl.mqtt.builtin.hub import Arrival, Hub
from fleetctl.mqtt.builtin.limits import Limits, oversized
from fleetctl.mqtt.builtin.message import QOS, Message
from fleetctl.mqtt.builtin.policy import Policy
from fleetctl.mqtt.builtin.sessions import Testament
from fleetctl.mqtt.codec import ConnAckPacket, ConnAckReasonCode, ConnectPacket, Will, encode

PROTOCOL_ERROR, CLIENT_ID_NOT_VALID, NOT_AUTHORIZED = 0x82, 0x85, 0x87
BAD_AUTHENTICATION_METHOD, TOPIC_INVALID, QOS_NOT_SUPPORTED = 0x8C, 0x90, 0x9B
CLIENT_ID_LIMIT = 256
OLDER = (3, 4)
# "unacceptable protocol version" of MQTT 3.1.1, table 3.1: a newer client is answered in its own words
REFUSE_OLDER = bytes((0x20, 2, 0, 1))


class Refused(Exception):
    """The client is not let in; it learns the reason code and the words."""

    def __init__(self, reason: int, words: str) -> None:
        super().__init__(words)
        self.reason = reason
        self.words = words

    def answer(self) -> ConnAckPacket:
        return ConnAckPacket(reason_code=ConnAckReasonCode(self.reason), reason_str=self.words)


def refuse_version(version: int) -> bytes:
    """What a client of another version of MQTT understands."""
    if version in OLDER:
        return REFUSE_OLDER
    return encode(ConnAckPacket(reason_code=ConnAckReasonCode(0x84)))


def welcome(
    packet: ConnectPacket,
    rules: tuple[Rule, ...],
    identity: str | None,
    hub: Hub,
    *,
    named: bool,
    transient: bool = False,
) -> Arrival:
    """What the CONNECT asks of its session, or `Refused`; `named`: the identity is the client id, whatever was asked for.

    `transient`: the session ends with its connection, and takes no other identity's client id.
    """
    if identity is None:
        raise Refused(NOT_AUTHORIZED, "the certificate has no single common name that may stand in a topic")
    if packet.authentication_method is not None:
        raise Refused(BAD_AUTHENTICATION_METHOD, "certificates are the only way in")
    client_id = identity if named else packet.client_id
    if not 0 < len(client_id) <= CLIENT_ID_LIMIT or not client_id.isprintable():
        raise Refused(CLIENT_ID_NOT_VALID, "a client id is 1 to 256 printable characters")
    if transient:
        _check_vacant(client_id, identity, hub)
    policy = Policy(rules, identity, client_id, device=named or transient)
    will = None if packet.will is None else _testament(packet.will, client_id, policy, hub)
    expiry = 0 if transient else min(packet.session_expiry_interval, hub.limits.session_expiry)
    return Arrival(client_id, policy, packet.clean_start or transient, expiry, will)


def _check_vacant(client_id: str, identity: str, hub: Hub) -> None:
    """Somebody who is hardly known may neither put out a device of that name, nor be anything but one level of a topic."""
    if not is_one_level(client_id):
        raise Refused(CLIENT_ID_NOT_VALID, "the client id is one level of a topic here")
    held = hub.sessions.get(client_id)
    if held is not None and held.policy.identity != identity:
        raise Refused(CLIENT_ID_NOT_VALID, "that client id is another's")


def _testament(will: Will, client_id: str, policy: Policy, hub: Hub) -> Testament:
    if int(will.qos) >= len(QOS):
        raise Refused(QOS_NOT_SUPPORTED, "QoS 2 is not offered")
    if not is_topic(will.topic) or oversized(will.topic):
        raise Refused(TOPIC_INVALID, "the will names no topic")
    if will.response_topic is not None and (not is_topic(will.response_topic) or oversized(will.response_topic)):
        raise Refused(PROTOCOL_ERROR, "the will's response topic is none")
    if not policy.may_write(will.topic):
        raise Refused(NOT_AUTHORIZED, "the will's topic is not for this client to write")
    message = Message.take(will.topic, will, client_id, policy, hub.clock())
    return Testament(message, will.message_expiry_interval, will.will_delay_interval)


def accept(packet: ConnectPacket, arrival: Arrival, limits: Limits, *, present: bool) -> ConnAckPacket:
    """The answer to who is let in: what this broker offers, and what it has decided for the client."""
    return ConnAckPacket(
        session_present=present,
        session_expiry_interval=arrival.expiry if arrival.expiry != packet.session_expiry_interval else None,
        assigned_client_id=arrival.client_id if not packet.client_id else None,
        receive_max=limits.window,
        topic_alias_max=0,
        max_qos=QOS[-1],
        max_packet_size=limits.packet,
        shared_subscription_available=False,
    )
