"""Where messages go: subscriptions, retained messages, sessions, wills."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from fleetctl.mqtt.codec import (
    ConnAckPacket,
    ConnectPacket,
    DisconnectPacket,
    Packet,
    PubAckPacket,
    PublishPacket,
    QoS,
    RetainHandling,
    TopicFilter,
    Will,
)

if TYPE_CHECKING:
    from tests.unit.mqtt.builtin.conftest import Peer, World

ZERO, ONE = QoS.AT_MOST_ONCE, QoS.AT_LEAST_ONCE


def taken_over(peer: "Peer") -> bool:
    return any(isinstance(packet, DisconnectPacket) and int(packet.reason_code) == 0x8E for packet in peer.take())


def publishes(packets: list[Packet]) -> list[PublishPacket]:
    return [packet for packet in packets if isinstance(packet, PublishPacket)]


def test_everything_that_belongs_to_a_request_is_forwarded(world: "World") -> None:
    listener, sender = world.connect("l"), world.connect("s")
    listener.subscribe("acme/#", identifier=77)
    sender.publish(
        "acme/é",
        b"\xff\x00",
        response_topic="acme/reply",
        correlation_data=b"\x00\xff",
        content_type="application/cbor",
        payload_format_indicator=1,
        user_properties=[("k", "1"), ("k", "2")],
        message_expiry_interval=30,
    )
    (message,) = listener.messages()
    assert (message.topic, message.payload, message.response_topic) == ("acme/é", b"\xff\x00", "acme/reply")
    assert (message.correlation_data, message.content_type) == (b"\x00\xff", "application/cbor")
    assert message.payload_format_indicator == 1
    assert message.user_properties == [("k", "1"), ("k", "2")]
    assert message.message_expiry_interval == 30
    assert message.subscription_ids == [77]


@pytest.mark.parametrize(("published", "granted", "delivered"), [(0, ONE, 0), (1, ZERO, 0), (1, ONE, 1)])
def test_a_message_arrives_with_the_lower_qos(world: "World", published: int, granted: QoS, delivered: int) -> None:
    listener = world.connect("l")
    listener.subscribe(TopicFilter("acme/#", max_qos=granted))
    world.connect("s").publish("acme/a", qos=published)
    (message,) = listener.messages()
    assert int(message.qos) == delivered


def test_overlapping_filters_deliver_one_copy_with_all_identifiers(world: "World") -> None:
    listener = world.connect("l")
    listener.subscribe(TopicFilter("acme/+", max_qos=ZERO), identifier=1)
    listener.subscribe(TopicFilter("acme/#", max_qos=ONE), identifier=2)
    world.connect("s").publish("acme/a")
    (message,) = listener.messages()
    assert int(message.qos) == 1
    assert sorted(message.subscription_ids) == [1, 2]


def test_a_filter_subscribed_again_is_replaced(world: "World") -> None:
    listener = world.connect("l")
    listener.subscribe("acme/#", identifier=1)
    listener.subscribe("acme/#")
    world.connect("s").publish("acme/a")
    (message,) = listener.messages()
    assert message.subscription_ids == []


def test_no_local_spares_the_sender_its_own_words(world: "World") -> None:
    peer, other = world.connect("a"), world.connect("b")
    peer.publish("acme/mine", retain=True)
    peer.subscribe(TopicFilter("acme/#", no_local=True))
    peer.publish("acme/x")
    assert peer.topics() == []
    other.publish("acme/x")
    assert peer.topics() == ["acme/x"]


# -- retained


def test_a_retained_message_waits_for_whoever_subscribes(world: "World") -> None:
    sender = world.connect("s")
    sender.publish("acme/a", b"1", retain=True)
    sender.publish("acme/a", b"2", retain=True)
    listener = world.connect("l")
    listener.subscribe("acme/+")
    (message,) = listener.messages()
    assert (message.payload, message.retain) == (b"2", True)


def test_a_live_copy_shows_retain_only_as_published(world: "World") -> None:
    plain, exact, sender = world.connect("p"), world.connect("e"), world.connect("s")
    plain.subscribe("acme/a")
    exact.subscribe(TopicFilter("acme/a", retain_as_published=True))
    sender.publish("acme/a", retain=True)
    sender.publish("acme/a")
    assert [message.retain for message in plain.messages()] == [False, False]
    assert [message.retain for message in exact.messages()] == [True, False]


def test_an_empty_retained_message_clears_its_topic_and_is_delivered(world: "World") -> None:
    sender, live = world.connect("s"), world.connect("live")
    sender.publish("acme/a", retain=True)
    live.subscribe("acme/a")
    live.take()
    sender.publish("acme/a", b"", retain=True)
    assert [message.payload for message in live.messages()] == [b""]
    late = world.connect("late")
    late.subscribe("acme/a")
    assert late.topics() == []
    assert len(world.hub.retained) == 0


@pytest.mark.parametrize(
    ("handling", "first", "again"),
    [
        (RetainHandling.SEND_ALWAYS, 1, 1),
        (RetainHandling.SEND_IF_SUBSCRIPTION_NOT_EXISTS, 1, 0),
        (RetainHandling.SEND_NEVER, 0, 0),
    ],
)
def test_retain_handling_is_obeyed(world: "World", handling: RetainHandling, first: int, again: int) -> None:
    world.connect("s").publish("acme/a", retain=True)
    listener = world.connect("l")
    for count in (first, again):
        listener.subscribe(TopicFilter("acme/a", retain_handling=handling))
        assert len(listener.messages()) == count


def test_a_retained_message_expires(world: "World") -> None:
    world.connect("s").publish("acme/a", retain=True, message_expiry_interval=10)
    world.pass_time(4)
    listener = world.connect("l")
    listener.subscribe("acme/a")
    assert [message.message_expiry_interval for message in listener.messages()] == [6]
    world.pass_time(6)
    listener.subscribe("acme/a")
    assert listener.topics() == []
    world.hub.retained.drop_expired(world.now)
    assert len(world.hub.retained) == 0


def test_what_has_no_room_to_be_retained_is_refused_and_delivered_to_nobody(small_world: "Callable[..., World]") -> None:
    world = small_world(retained_messages=1)
    sender = world.connect("s")
    assert sender.publish("acme/a", retain=True) == 0x10
    assert sender.publish("acme/b", retain=True) == 0x97
    assert sender.publish("acme/a", b"new", retain=True) == 0x10


def test_a_device_retains_little_and_leaves_room_to_the_fleet(small_world: "Callable[..., World]") -> None:
    world = small_world(retained_messages=8, device_retained_messages=4, device_retained_bytes=10_000)
    operator, one, other = world.connect("o"), world.device("dev-1"), world.device("dev-2")
    assert one.publish("acme/h/s/dev-1/status", b"x" * 10_000, retain=True) == 0x97
    assert [one.publish(f"acme/h/s{n}/dev-1/status", retain=True) for n in range(5)] == [0x10] * 4 + [0x97]
    assert one.publish("acme/h/s0/dev-1/status", b"new", retain=True) == 0x10
    assert [other.publish(f"acme/h/s{n}/dev-2/status", retain=True) for n in range(3)] == [0x10] * 2 + [0x97]
    assert [operator.publish(f"acme/{n}", b"x" * 20_000, retain=True) for n in range(3)] == [0x10] * 2 + [0x97]
    operator.publish("acme/h/s0/dev-1/status", b"", retain=True)
    assert one.publish("acme/h/s/dev-1/status", retain=True) == 0x97
    operator.publish("acme/0", b"", retain=True)
    operator.publish("acme/1", b"", retain=True)
    assert one.publish("acme/h/s/dev-1/status", retain=True) == 0x10


@pytest.mark.parametrize(
    ("channel", "kept"),
    [("status", 1), ("twin/reported", 1), ("ota/status", 1), ("telemetry", 0), ("alerts", 0), ("commands/ping/reply", 0)],
)
def test_of_what_a_device_writes_only_state_is_retained(world: "World", channel: str, kept: int) -> None:
    live = world.connect("l")
    live.subscribe("acme/#")
    assert world.device("dev-1").publish(f"acme/h/s/dev-1/{channel}", retain=True) == 0
    assert live.topics() == [f"acme/h/s/dev-1/{channel}"]
    assert len(world.hub.retained) == kept


# -- sessions


def test_a_session_keeps_subscriptions_and_messages_while_it_is_away(world: "World") -> None:
    away = world.connect("a", session_expiry_interval=60)
    away.subscribe("acme/#")
    away.send(DisconnectPacket())
    sender = world.connect("s")
    sent = [f"acme/{number}" for number in range(300)]
    for topic in sent:
        assert sender.publish(topic) == 0
    sender.publish("acme/lost", qos=0)
    back, rest = world.resume("a")
    assert isinstance(world.greeting, ConnAckPacket)
    assert world.greeting.session_present
    assert [packet.topic for packet in publishes(rest)] == sent[:100]
    received = publishes(rest)
    while unacknowledged := received[-100:]:
        back.send(*[PubAckPacket(packet.packet_id or 0) for packet in unacknowledged])
        fresh = back.messages()
        received += fresh
        if not fresh:
            break
    assert [packet.topic for packet in received] == sent


def test_what_was_not_acknowledged_comes_again_marked_and_first(world: "World") -> None:
    first = world.connect("a", session_expiry_interval=60, receive_max=2)
    first.subscribe("acme/#")
    sender = world.connect("s")
    for number in range(4):
        sender.publish(f"acme/{number}")
    kept, acknowledged = first.messages()
    first.send(PubAckPacket(acknowledged.packet_id or 0))
    (third,) = first.messages()
    first.drop()
    _, rest = world.resume("a")
    again = publishes(rest)
    assert [(packet.topic, packet.duplicate) for packet in again] == [("acme/0", True), ("acme/2", True), ("acme/3", False)]
    assert [packet.packet_id for packet in again[:2]] == [kept.packet_id, third.packet_id]
    assert len({packet.packet_id for packet in again}) == 3


def test_a_narrower_window_is_obeyed_on_resume_and_ids_never_meet(world: "World") -> None:
    first = world.connect("a", session_expiry_interval=60)
    first.subscribe("acme/#")
    sender = world.connect("s")
    for number in range(5):
        sender.publish(f"acme/{number}")
    first.drop()
    back, rest = world.resume("a", receive_max=1)
    received = publishes(rest)
    assert len(received) == 1
    sender.publish("acme/5")
    while len(received) < 6:
        back.send(PubAckPacket(received[-1].packet_id or 0))
        received += back.messages()
    assert [packet.topic for packet in received] == [f"acme/{number}" for number in range(6)]
    assert len({packet.packet_id for packet in received}) == 6


def test_a_session_ends_when_its_time_is_over(world: "World") -> None:
    away = world.connect("a", session_expiry_interval=60)
    away.subscribe("acme/#")
    away.drop()
    world.pass_time(59)
    assert "a" in world.hub.sessions
    world.pass_time(1)
    assert "a" not in world.hub.sessions
    assert world.connect("s").publish("acme/x") == 0x10


def test_a_session_of_no_duration_ends_with_its_connection(world: "World") -> None:
    world.connect("a").drop()
    assert not world.hub.sessions


def test_a_disconnect_may_shorten_the_session(world: "World") -> None:
    world.connect("a", session_expiry_interval=60).send(DisconnectPacket(session_expiry_interval=0))
    assert not world.hub.sessions


def test_a_session_that_asks_for_eternity_is_told_what_it_gets(world: "World") -> None:
    greeting = world.peer().send(ConnectPacket("a", session_expiry_interval=0xFFFFFFFF)).only(ConnAckPacket)
    assert greeting.session_expiry_interval == 7 * 86400


def test_a_clean_start_forgets(world: "World") -> None:
    world.connect("a", session_expiry_interval=60).subscribe("acme/#")
    world.connect("a", session_expiry_interval=60)
    assert isinstance(world.greeting, ConnAckPacket)
    assert not world.greeting.session_present
    assert world.connect("s").publish("acme/x") == 0x10


def test_a_session_is_not_handed_to_another_identity(world: "World") -> None:
    world.connect("a", session_expiry_interval=60).subscribe("acme/#")
    world.connect("a", identity="op:bob", clean_start=False)
    assert isinstance(world.greeting, ConnAckPacket)
    assert not world.greeting.session_present


def test_messages_that_expire_while_waiting_are_not_delivered(world: "World") -> None:
    away = world.connect("a", session_expiry_interval=600)
    away.subscribe("acme/#")
    away.drop()
    sender = world.connect("s")
    sender.publish("acme/short", message_expiry_interval=10)
    sender.publish("acme/long", message_expiry_interval=100)
    world.pass_time(40)
    _, rest = world.resume("a")
    (message,) = publishes(rest)
    assert (message.topic, message.message_expiry_interval) == ("acme/long", 60)


def test_a_queue_is_bounded_and_drops_the_newest(small_world: "Callable[..., World]") -> None:
    world = small_world(queue_messages=3)
    away = world.connect("a", session_expiry_interval=60)
    away.subscribe("acme/#")
    away.drop()
    sender = world.connect("s")
    for number in range(5):
        sender.publish(f"acme/{number}")
    assert world.hub.sessions["a"].dropped == 2
    _, rest = world.resume("a")
    assert [packet.topic for packet in publishes(rest)] == ["acme/0", "acme/1", "acme/2"]


@pytest.mark.parametrize("limit", ["queue_bytes", "all_queues_bytes"])
def test_queues_are_bounded_in_bytes(small_world: "Callable[..., World]", limit: str) -> None:
    world = small_world(**{limit: 25_000})
    away = world.connect("a", session_expiry_interval=60)
    away.subscribe("acme/#")
    away.drop()
    for _ in range(5):
        world.connect("s").publish("acme/a", b"x" * 10_000)
    assert world.hub.sessions["a"].waiting == 2
    world.connect("a")
    assert world.hub._ledger.used == 0


def test_a_client_that_does_not_read_is_waited_for(world: "World") -> None:
    slow, sender = world.connect("slow"), world.connect("s")
    slow.subscribe("acme/#")
    slow.ready = False
    for number in range(5):
        sender.publish(f"acme/{number}", qos=number % 2)
    assert slow.topics() == []
    slow.ready = True
    slow.connection.writable()
    assert slow.topics() == [f"acme/{number}" for number in range(5)]


def test_a_message_larger_than_the_client_takes_is_left_out(world: "World") -> None:
    small = world.connect("a", max_packet_size=100)
    small.subscribe("acme/#")
    sender = world.connect("s")
    sender.publish("acme/big", b"x" * 100)
    sender.publish("acme/small")
    assert small.topics() == ["acme/small"]
    assert world.hub.sessions["a"].waiting == 1


# -- client ids and wills


def test_a_second_client_of_the_same_name_cuts_the_first(world: "World") -> None:
    first = world.connect("a")
    second = world.connect("a")
    assert first.hung_up
    assert taken_over(first)
    first.connection.lost()
    second.subscribe("acme/#")
    assert second.publish("acme/x") == 0


def test_a_will_is_published_when_the_connection_breaks(world: "World") -> None:
    listener = world.connect("l")
    listener.subscribe("acme/#")
    will = Will("acme/will", payload=b"gone", qos=ONE, retain=True, content_type="t", user_properties=[("k", "v")])
    world.connect("a", will=will).drop()
    (message,) = listener.messages()
    assert (message.payload, message.content_type, message.user_properties) == (b"gone", "t", [("k", "v")])
    late = world.connect("late")
    late.subscribe("acme/will")
    assert [packet.retain for packet in late.messages()] == [True]


def test_a_will_is_published_when_the_client_falls_silent(world: "World") -> None:
    listener = world.connect("l")
    listener.subscribe("acme/#")
    world.connect("a", keep_alive=2, will=Will("acme/will", payload=b"gone"))
    world.pass_time(3)
    assert listener.topics() == []
    world.pass_time(0.5)
    assert listener.topics() == ["acme/will"]


@pytest.mark.parametrize(("delay", "clean_start", "topics"), [(0, True, 1), (0, False, 1), (30, True, 1), (30, False, 0)])
def test_a_takeover_publishes_the_will_unless_the_session_goes_on_and_it_may_wait(
    world: "World", delay: int, clean_start: bool, topics: int
) -> None:
    listener = world.connect("l")
    listener.subscribe("acme/#")
    world.connect("a", session_expiry_interval=60, will=Will("acme/will", payload=b"", will_delay_interval=delay))
    world.connect("a", session_expiry_interval=60, clean_start=clean_start)
    assert len(listener.topics()) == topics
    world.pass_time(100)
    assert listener.topics() == []


def test_a_delayed_will_waits_and_is_forgotten_when_the_client_returns(world: "World") -> None:
    listener = world.connect("l")
    listener.subscribe("acme/#")
    options: dict[str, Any] = {"session_expiry_interval": 60, "will": Will("acme/will", payload=b"", will_delay_interval=10)}
    world.connect("a", **options).drop()
    world.pass_time(9)
    world.connect("a", clean_start=False, **options).drop()
    world.pass_time(9)
    assert listener.topics() == []
    world.pass_time(1)
    assert listener.topics() == ["acme/will"]
    world.pass_time(100)
    assert listener.topics() == []


@pytest.mark.parametrize("expiry", [0, 5])
def test_a_delayed_will_waits_no_longer_than_its_session(world: "World", expiry: int) -> None:
    listener = world.connect("l")
    listener.subscribe("acme/#")
    will = Will("acme/will", payload=b"", will_delay_interval=100)
    world.connect("a", session_expiry_interval=expiry, will=will).drop()
    world.pass_time(expiry)
    assert listener.topics() == ["acme/will"]


def test_the_lifetime_of_a_will_begins_when_it_is_published(world: "World") -> None:
    peer = world.connect("a", will=Will("acme/will", payload=b"w", retain=True, message_expiry_interval=10))
    world.pass_time(50)
    peer.drop()
    listener = world.connect("l")
    listener.subscribe("acme/will")
    assert [message.message_expiry_interval for message in listener.messages()] == [10]


def test_who_publishes_faster_than_a_connected_client_reads_is_noticed(small_world: "Callable[..., World]") -> None:
    world = small_world(queue_messages=50)
    slow, sender = world.connect("slow"), world.connect("s")
    slow.subscribe("acme/#")
    slow.ready = False
    for _ in range(5):
        sender.publish("acme/a")
    assert not sender.connection.hasty
    sender.publish("acme/a")
    assert sender.connection.hasty


def test_a_client_that_is_away_slows_nobody_down(small_world: "Callable[..., World]") -> None:
    world = small_world(queue_messages=50)
    away, sender = world.connect("away", session_expiry_interval=60), world.connect("s")
    away.subscribe("acme/#")
    away.drop()
    for _ in range(60):
        sender.publish("acme/a")
    assert not sender.connection.hasty
