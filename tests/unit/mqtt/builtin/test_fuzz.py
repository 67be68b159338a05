"""Hostile clients against the state machine: whatever they send, the others are served and nothing is left behind."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleetctl.mqtt.codec import (
    AuthPacket,
    ConnectPacket,
    DisconnectPacket,
    Packet,
    PingReqPacket,
    PubAckPacket,
    PublishPacket,
    QoS,
    RetainHandling,
    SubscribePacket,
    TopicFilter,
    UnsubscribePacket,
    Will,
    encode,
)

if TYPE_CHECKING:
    from tests.unit.mqtt.builtin.conftest import World

TOPICS = ["acme/a", "acme/b/c", "acme", "other/x", "acme/@", "acme/!", "$share/g/acme/!", "$SYS/x", "acme/a\u0007", "acme/é"]
topics = st.sampled_from(TOPICS)
ids = st.integers(0, 4)
wills = st.none() | st.builds(
    Will,
    topics,
    payload=st.binary(max_size=3),
    qos=st.sampled_from([QoS.AT_MOST_ONCE, QoS.AT_LEAST_ONCE, QoS.EXACTLY_ONCE]),
    retain=st.booleans(),
    will_delay_interval=st.sampled_from([0, 5, 0xFFFFFFFF]),
    message_expiry_interval=st.sampled_from([None, 0, 3]),
)
packets: st.SearchStrategy[Packet] = st.one_of(
    st.builds(
        ConnectPacket,
        st.sampled_from(["a", "b", "", "watcher"]),
        clean_start=st.booleans(),
        will=wills,
        keep_alive=st.sampled_from([0, 1, 65535]),
        session_expiry_interval=st.sampled_from([0, 5, 0xFFFFFFFF]),
        receive_max=st.sampled_from([1, 2, 65535]),
        max_packet_size=st.sampled_from([None, 1, 40]),
    ),
    st.builds(
        PublishPacket,
        topics,
        st.binary(max_size=40),
        qos=st.just(QoS.AT_LEAST_ONCE),
        packet_id=ids,
        retain=st.booleans(),
        duplicate=st.booleans(),
        message_expiry_interval=st.sampled_from([None, 0, 3, 0xFFFFFFFF]),
        response_topic=st.none() | topics,
        topic_alias=st.sampled_from([None, None, None, 1]),
    ),
    st.builds(PublishPacket, topics, st.binary(max_size=40), retain=st.booleans()),
    st.builds(
        SubscribePacket,
        ids,
        st.lists(
            st.builds(
                TopicFilter,
                topics,
                max_qos=st.sampled_from([QoS.AT_MOST_ONCE, QoS.AT_LEAST_ONCE, QoS.EXACTLY_ONCE]),
                no_local=st.booleans(),
                retain_as_published=st.booleans(),
                retain_handling=st.sampled_from(
                    [RetainHandling.SEND_ALWAYS, RetainHandling.SEND_IF_SUBSCRIPTION_NOT_EXISTS, RetainHandling.SEND_NEVER]
                ),
            ),
            min_size=1,
            max_size=3,
        ),
        subscription_id=st.sampled_from([None, 1, 268435455]),
    ),
    st.builds(UnsubscribePacket, ids, st.lists(topics, min_size=1, max_size=2)),
    st.builds(PubAckPacket, ids),
    st.just(PingReqPacket()),
    st.builds(DisconnectPacket, session_expiry_interval=st.sampled_from([None, 0, 5])),
    st.just(AuthPacket(authentication_method="x")),
)
frames = packets.map(lambda packet: encode(packet).replace(b"/@", b"/+").replace(b"/!", b"/#")) | st.sampled_from(
    [b"\x30\x03\x00\x00\x00", b"\x82\x03\x00\x01\x00", b"\xa2\x03\x00\x01\x00", b"\xc0\x00\xc0", b"\x30\x7f\x00"]
)
edits = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 255)), max_size=1)
steps = st.tuples(st.integers(0, 2), frames, edits, st.sampled_from([0.0, 0.0, 0.0, 1.0, 6.0]), st.sampled_from("...!~"))


def mutate(frame: bytes, changes: list[tuple[int, int]]) -> bytes:
    body = bytearray(frame)
    for place, value in changes:
        if place < len(body):
            body[place] = value
    return bytes(body)


def check_books(world: "World") -> None:
    """What the broker counts is what it holds."""
    queued = sum(session._bytes for session in world.hub.sessions.values())
    assert world.hub._ledger.used == queued
    for session in world.hub.sessions.values():
        assert session._bytes == sum(delivery.message.size for delivery in session._queue)
        assert all(packet_id == delivery.packet_id for packet_id, delivery in session._inflight.items())
        assert session.link is not None or session.ended_at is not None


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(script=st.lists(steps, max_size=30))
def test_whatever_some_clients_send_another_is_served(
    small_world: "Callable[..., World]", script: list[tuple[int, bytes, list[tuple[int, int]], float, str]]
) -> None:
    world = small_world(queue_messages=20, subscriptions=4, retained_messages=3)
    healthy = world.connect("healthy", identity="op:healthy")
    assert healthy.subscribe("acme/healthy") == [1]
    strangers = [world.peer() for _ in range(3)]
    for index, frame, changes, seconds, event in script:
        if strangers[index].hung_up:
            strangers[index].connection.lost()
            strangers[index] = world.peer()
            strangers[index].send(ConnectPacket("ab"[index % 2], clean_start=False, session_expiry_interval=5))
        if event == "!":
            strangers[index].drop()
            continue
        strangers[index].ready = event != "~"
        strangers[index].feed(mutate(frame, changes))
        strangers[index].connection.writable()
        world.pass_time(seconds)
        check_books(world)
    assert not healthy.hung_up
    healthy.take()
    assert healthy.publish("acme/healthy", b"still", qos=0) is None
    assert [message.payload for message in healthy.messages()][-1:] == [b"still"]
    for stranger in strangers:
        stranger.drop()
    healthy.drop()
    world.pass_time(8 * 86400)
    assert not world.hub.sessions
    assert not world.hub._router._root.children
    assert world.hub._ledger.used == 0
