"""What one client may do, and what ends its connection: bytes in, packets out."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from fleetctl.model.access import device_rules
from fleetctl.mqtt.builtin.connection import Door
from fleetctl.mqtt.codec import (
    AuthPacket,
    ConnAckPacket,
    ConnectPacket,
    DisconnectPacket,
    DisconnectReasonCode,
    Packet,
    PingReqPacket,
    PingRespPacket,
    PubAckPacket,
    PublishPacket,
    QoS,
    SubscribePacket,
    TopicFilter,
    UnsubAckPacket,
    UnsubAckReasonCode,
    UnsubscribePacket,
    Will,
    encode,
)

if TYPE_CHECKING:
    from tests.unit.mqtt.builtin.conftest import Peer, World

ONE, TWO = QoS.AT_LEAST_ONCE, QoS.EXACTLY_ONCE
DEVICES = Door(device_rules("acme"), identity_is_client_id=True)


def reason(peer: "Peer") -> int:
    """Why the broker ended the connection."""
    assert peer.hung_up
    last = peer.take()[-1]
    assert isinstance(last, DisconnectPacket)
    return int(last.reason_code)


def test_the_greeting_declares_what_is_offered(world: "World") -> None:
    greeting = world.peer().send(ConnectPacket("a", clean_start=True)).only(ConnAckPacket)
    assert (int(greeting.reason_code), greeting.session_present) == (0, False)
    assert int(greeting.max_qos) == 1
    assert greeting.max_packet_size == 131072 + 4096
    assert greeting.topic_alias_max == 0
    assert greeting.receive_max == 100
    assert not greeting.shared_subscription_available
    assert greeting.retain_available
    assert greeting.wildcard_subscription_available


@pytest.mark.parametrize("version", [3, 4])
def test_an_older_client_is_refused_in_its_own_words(world: "World", version: int) -> None:
    name = b"\0\6MQIsdp" if version == 3 else b"\0\4MQTT"
    body = name + bytes((version, 2, 0, 60, 0, 1)) + b"c"
    peer = world.peer().feed(bytes((0x10, len(body))) + body)
    assert peer.raw == b"\x20\x02\x00\x01"
    assert peer.hung_up


def test_a_client_of_the_future_is_told_which_version_is_spoken(world: "World") -> None:
    peer = world.peer().feed(b"\x10\x10\x00\x04MQTT\x06\x02\x00\x3c\x00\x00\x03abc")
    assert int(peer.only(ConnAckPacket).reason_code) == 0x84
    assert peer.hung_up


@pytest.mark.parametrize(
    "first", [PingReqPacket(), PublishPacket("acme/a", b""), SubscribePacket(1, [TopicFilter("acme/#")]), DisconnectPacket()]
)
def test_whoever_does_not_introduce_itself_is_cut_without_a_word(world: "World", first: Packet) -> None:
    peer = world.peer().send(first)
    assert (peer.hung_up, peer.raw) == (True, b"")


def test_silence_instead_of_an_introduction_ends_the_connection(world: "World") -> None:
    peer = world.peer()
    world.pass_time(9)
    assert not peer.hung_up
    world.pass_time(2)
    assert peer.hung_up


def test_noise_instead_of_an_introduction_ends_the_connection(world: "World") -> None:
    peer = world.peer().feed(b"GET / HTTP/1.1\r\n\r\n")
    assert (peer.hung_up, peer.raw) == (True, b"")


@pytest.mark.parametrize(
    ("packet", "code"),
    [
        (ConnectPacket(""), 0x85),
        (ConnectPacket("a\tb"), 0x85),
        (ConnectPacket("x" * 257), 0x85),
        (ConnectPacket("a", authentication_method="scram"), 0x8C),
        (ConnectPacket("a", will=Will("acme/@/x")), 0x90),
        (ConnectPacket("a", will=Will("")), 0x90),
        (ConnectPacket("a", will=Will("acme/" + "a" * 1020)), 0x90),
        (ConnectPacket("a", will=Will("acme/x", response_topic="a/!")), 0x82),
        (ConnectPacket("a", will=Will("acme/x", qos=TWO)), 0x9B),
        (ConnectPacket("a", will=Will("other/x")), 0x87),
    ],
)
def test_who_is_not_let_in_learns_why(world: "World", packet: ConnectPacket, code: int) -> None:
    peer = world.peer().send(packet)
    greeting = peer.only(ConnAckPacket)
    assert int(greeting.reason_code) == code
    assert greeting.reason_str
    assert peer.hung_up
    assert not world.hub.sessions


def test_a_certificate_without_a_usable_name_is_not_let_in(world: "World") -> None:
    peer = world.peer(identity=None).send(ConnectPacket("a"))
    assert int(peer.only(ConnAckPacket).reason_code) == 0x87


def test_a_device_is_called_like_its_certificate_whatever_it_asks_for(world: "World") -> None:
    world.device("dev-1")
    assert list(world.hub.sessions) == ["dev-1"]
    peer = world.peer(DEVICES, "dev-2").send(ConnectPacket(""))
    assert peer.only(ConnAckPacket).assigned_client_id == "dev-2"


def test_more_sessions_than_there_is_room_for_are_refused(small_world: "Callable[..., World]") -> None:
    world = small_world(sessions=1)
    world.connect("a")
    assert int(world.peer().send(ConnectPacket("b")).only(ConnAckPacket).reason_code) == 0x97


@pytest.mark.parametrize(
    ("packet", "code"),
    [
        (ConnectPacket("a"), 0x82),
        (PublishPacket("acme/a", b"", qos=TWO, packet_id=1), 0x9B),
        (PublishPacket("acme/a", b"", qos=ONE, packet_id=0), 0x82),
        (PublishPacket("acme/a", b"", topic_alias=1), 0x94),
        (PublishPacket("acme/@/a", b""), 0x90),
        (PublishPacket("acme/!", b""), 0x90),
        (PublishPacket("acme" + "/" * 200, b""), 0x90),
        (PublishPacket("acme/" + "é" * 510, b""), 0x90),
        (PublishPacket("acme/a", b"", response_topic="a" * 1025), 0x82),
        (PublishPacket("acme/a", b"", response_topic="a/@"), 0x82),
        (PublishPacket("acme/a", b"", subscription_ids=[1]), 0x82),
        (SubscribePacket(0, [TopicFilter("acme/#")]), 0x82),
        (UnsubscribePacket(0, ["acme/#"]), 0x82),
        (PubAckPacket(0), 0x82),
        (ConnAckPacket(), 0x82),
        (PingRespPacket(), 0x82),
        (UnsubAckPacket(1, [UnsubAckReasonCode.SUCCESS]), 0x82),
        (AuthPacket(authentication_method="x"), 0x82),
        (DisconnectPacket(session_expiry_interval=5), 0x82),
    ],
)
def test_a_broken_rule_ends_the_connection_with_its_reason(world: "World", packet: Packet, code: int) -> None:
    bystander = world.connect("bystander")
    peer = world.connect("a").send(packet)
    assert reason(peer) == code
    assert bystander.publish("acme/b") == 0x10


@pytest.mark.parametrize("data", [b"\x30\x03\x00\x00\x00", b"\x82\x03\x00\x01\x00", b"\xa2\x03\x00\x01\x00"])
def test_an_empty_topic_or_list_of_filters_is_a_protocol_error(world: "World", data: bytes) -> None:
    assert reason(world.connect("a").feed(data)) in (0x81, 0x82)


@pytest.mark.parametrize("data", [b"\x32\x04\x00\x02\xff\xfe", b"\x62\x00", b"\xc0\x80\x80\x80\x80", b"\x00\x00"])
def test_what_is_no_packet_ends_the_connection_as_malformed(world: "World", data: bytes) -> None:
    assert reason(world.connect("a").feed(data)) == 0x81


def test_a_packet_that_is_announced_too_large_is_refused_at_once(world: "World") -> None:
    assert reason(world.connect("a").feed(b"\x30\xff\xff\xff\x7f")) == 0x95


def test_what_follows_the_end_is_not_handled(world: "World") -> None:
    listener = world.connect("l")
    listener.subscribe("acme/#")
    world.connect("a").feed(encode(DisconnectPacket()) + encode(PublishPacket("acme/late", b"x")))
    assert listener.topics() == []


def test_a_ping_is_answered(world: "World") -> None:
    assert isinstance(world.connect("a").send(PingReqPacket()).only(PingRespPacket), PingRespPacket)


def test_a_denied_publish_is_acknowledged_as_such_and_goes_nowhere(world: "World") -> None:
    listener = world.connect("l")
    listener.subscribe("acme/#")
    device = world.device("dev-1")
    assert device.publish("acme/hall/sensor/dev-2/telemetry") == 0x87
    assert device.publish("acme/hall/sensor/dev-1/twin/desired", retain=True) == 0x87
    assert device.publish("acme/hall/sensor/dev-2/telemetry", qos=0) is None
    assert listener.topics() == []
    assert len(world.hub.retained) == 0
    assert not device.hung_up


def test_nobody_listening_is_told_and_no_failure(world: "World") -> None:
    assert world.connect("a").publish("acme/nobody") == 0x10


@pytest.mark.parametrize(
    ("pattern", "code"),
    [
        ("acme/hall/sensor/dev-1/commands/+", 1),
        ("acme/+/sensor/dev-1/commands/ping", 1),
        ("acme/hall/sensor/dev-1/#", 0x87),
        ("acme/hall/sensor/+/status", 0x87),
        ("acme/#", 0x87),
        ("#", 0x87),
        ("acme/_fleet/trust", 1),
        ("acme/hall/sensor/dev-2/#", 0x87),
        ("acme/hall/sensor/dev-1/telemetry", 0x87),
        ("other/#", 0x87),
        ("$SYS/#", 0x87),
        ("$share/g/acme/#", 0x9E),
        ("acme/!/x", 0x8F),
        ("acme/@a", 0x8F),
        ("", 0x8F),
        ("acme" + "/" * 200, 0x8F),
        ("acme/" + "a" * 1020, 0x8F),
    ],
)
def test_a_device_is_granted_filters_that_its_rules_cover(world: "World", pattern: str, code: int) -> None:
    device = world.device("dev-1")
    assert device.subscribe("acme/+/+/dev-1/ota/desired", pattern) == [1, code]
    assert not device.hung_up


def test_a_wildcard_of_a_device_delivers_its_own_only(world: "World") -> None:
    operator, device = world.connect("o"), world.device("dev-1")
    operator.publish("acme/hall/sensor/dev-2/twin/desired", retain=True)
    operator.publish("acme/hall/sensor/dev-1/twin/desired", retain=True)
    device.subscribe("#", "acme/+/+/dev-1/twin/desired", "acme/+/+/dev-1/commands/+")
    assert device.topics() == ["acme/hall/sensor/dev-1/twin/desired"]
    operator.publish("acme/hall/sensor/dev-2/commands/ping")
    operator.publish("acme/hall/sensor/dev-1/commands/ping")
    assert device.topics() == ["acme/hall/sensor/dev-1/commands/ping"]


def test_qos_2_is_granted_as_1(world: "World") -> None:
    assert world.connect("a").subscribe(TopicFilter("acme/#", max_qos=TWO)) == [1]


def test_more_subscriptions_than_there_is_room_for_are_refused(small_world: "Callable[..., World]") -> None:
    peer = small_world(subscriptions=2).connect("a")
    assert peer.subscribe("acme/1", "acme/2") == [1, 1]
    assert peer.subscribe("acme/3", "acme/2") == [0x97, 1]


def test_a_device_has_few_subscriptions_and_few_filters_in_a_packet(world: "World") -> None:
    device = world.device("dev-1")
    codes = [device.subscribe(*(f"acme/h/s/dev-1/commands/{part}-{n}" for n in range(65))) for part in range(5)]
    assert codes[:4] == [[1] * 64 + [0x97]] * 4
    assert codes[4] == [0x97] * 65


def test_a_filter_that_a_packet_repeats_is_served_once(world: "World") -> None:
    operator = world.connect("o")
    operator.publish("acme/a", retain=True)
    assert operator.subscribe(*["acme/#"] * 8000) == [1] * 8000
    assert operator.topics() == ["acme/a"]


def test_retained_messages_leave_in_slices_and_before_what_the_client_does_next(world: "World") -> None:
    operator = world.connect("o", receive_max=5000)
    for number in range(1200):
        operator.publish(f"acme/{number}", retain=True)
    reader = world.connect("r")
    wanted = SubscribePacket(1, [TopicFilter("acme/#", max_qos=QoS.AT_MOST_ONCE)])
    reader.connection.receive(encode(wanted).replace(b"/!", b"/#") + encode(PublishPacket("acme/end", b"x")))
    counts = []
    while reader.connection.busy:
        counts.append(len(reader.topics()))
        reader.connection.go_on()
    assert counts == [500, 500]
    assert reader.topics()[200:] == ["acme/end"]


def test_unsubscribing_tells_whether_there_was_something_to_end(world: "World") -> None:
    peer = world.connect("a")
    peer.subscribe("acme/a")
    answer = peer.send(UnsubscribePacket(3, ["acme/a", "acme/b"])).only(UnsubAckPacket)
    assert [int(code) for code in answer.reason_codes] == [0, 0x11]
    world.connect("b").publish("acme/a")
    assert peer.topics() == []


def test_a_silent_client_is_cut_after_one_and_a_half_keep_alives(world: "World") -> None:
    peer = world.connect("a", keep_alive=10)
    world.pass_time(14)
    peer.send(PingReqPacket())
    world.pass_time(14)
    assert not peer.hung_up
    world.pass_time(2)
    assert reason(peer) == 0x8D


def test_half_a_packet_is_no_sign_of_life(world: "World") -> None:
    peer = world.connect("a", keep_alive=10)
    peer.feed(b"\x30\x7f")
    for _ in range(3):
        world.pass_time(4)
        peer.feed(b"x")
    world.pass_time(4)
    assert reason(peer) == 0x8D


def test_no_keep_alive_means_no_limit(world: "World") -> None:
    peer = world.connect("a", keep_alive=0)
    world.pass_time(100_000)
    assert not peer.hung_up


def test_a_client_that_never_reads_is_cut(world: "World") -> None:
    peer = world.connect("a")
    peer.ready = False
    world.pass_time(1)
    world.pass_time(59)
    assert not peer.hung_up
    world.pass_time(2)
    assert peer.hung_up


def test_a_second_introduction_publishes_the_will(world: "World") -> None:
    listener = world.connect("l")
    listener.subscribe("acme/#")
    peer = world.connect("a", will=Will("acme/will", payload=b"w"))
    assert reason(peer.send(ConnectPacket("a"))) == 0x82
    assert listener.topics() == ["acme/will"]


def test_a_disconnect_code_is_what_the_client_made_of_it(world: "World") -> None:
    listener = world.connect("l")
    listener.subscribe("acme/#")
    for code, topics in ((0, []), (4, ["acme/will"]), (0x80, ["acme/will"])):
        peer = world.connect("a", will=Will("acme/will", payload=b"w"))
        peer.send(DisconnectPacket(reason_code=DisconnectReasonCode(code)))
        assert peer.hung_up
        assert listener.topics() == topics
