"""What both engines do alike, behaviour by behaviour; where they differ is in test_differences.py."""

import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.contract.broker.conftest import Stand

NOT_AUTHORIZED, NO_MATCH = 0x87, 0x10
CUT = (0x8E, 0x80)  # taken over, and paho's code for an end without a word
ALERTS = r"(?i)certificate required|unknown ca|closed|reset|eof"
KIBI = 1024


class TestBroker:
    """Driven by paho."""

    # -- messages

    @pytest.mark.parametrize("qos", [0, 1])
    def test_messages_arrive_once_and_in_order(self, stand: "Stand", tree: str, qos: int) -> None:
        listener, sender = stand.connect(), stand.connect()
        assert listener.subscribe(f"{tree}/+", qos=qos) == [qos]
        for number in range(500):
            sender.paho.publish(f"{tree}/{number}", b"x", qos)
        assert listener.topics(500) == [f"{tree}/{number}" for number in range(500)]
        assert listener.nothing_but(f"{tree}/end", sender) == []

    @pytest.mark.parametrize(("published", "granted"), [(0, 1), (1, 0)])
    def test_the_lower_qos_counts(self, stand: "Stand", tree: str, published: int, granted: int) -> None:
        listener = stand.connect()
        listener.subscribe(f"{tree}/#", qos=granted)
        stand.connect().publish(f"{tree}/a", qos=published)
        assert listener.take(1)[0].qos == 0

    def test_wildcards_match_levels(self, stand: "Stand", tree: str) -> None:
        listener, sender = stand.connect(), stand.connect()
        listener.subscribe(f"{tree}/+/b", f"{tree}/deep/#", f"{tree}/+/+/")
        for topic in ("a/b", "a/c", "deep", "deep/x/y", "a/b/", "a/b/c", "b"):
            sender.publish(f"{tree}/{topic}")
        assert listener.topics(4) == [f"{tree}/{topic}" for topic in ("a/b", "deep", "deep/x/y", "a/b/")]
        assert listener.nothing_but(f"{tree}/end/b", sender) == []

    def test_a_request_arrives_with_all_that_belongs_to_it(self, stand: "Stand", tree: str) -> None:
        listener = stand.connect()
        listener.subscribe(f"{tree}/#", identifier=7)
        stand.connect().publish(
            f"{tree}/é",
            b"\xff\x00",
            ResponseTopic="acme/reply",
            CorrelationData=b"\x00\xff",
            ContentType="application/cbor",
            PayloadFormatIndicator=1,
            UserProperty=[("k", "1"), ("k", "2")],
            MessageExpiryInterval=30,
        )
        (message,) = listener.take(1)
        found: Any = message.properties
        assert (message.topic, message.payload) == (f"{tree}/é", b"\xff\x00")
        assert (found.ResponseTopic, found.CorrelationData, found.ContentType) == ("acme/reply", b"\x00\xff", "application/cbor")
        assert (found.PayloadFormatIndicator, found.UserProperty) == (1, [("k", "1"), ("k", "2")])
        assert 0 < found.MessageExpiryInterval <= 30
        assert found.SubscriptionIdentifier == [7]

    def test_no_local_spares_the_sender_its_own_words(self, stand: "Stand", tree: str) -> None:
        client, other = stand.connect(), stand.connect()
        client.subscribe(f"{tree}/#", noLocal=True)
        client.publish(f"{tree}/own")
        assert client.nothing_but(f"{tree}/end", other) == []

    def test_unsubscribing_ends_delivery_and_tells_what_it_ended(self, stand: "Stand", tree: str) -> None:
        client, other = stand.connect(), stand.connect()
        client.subscribe(f"{tree}/a", f"{tree}/end")
        assert client.answer(client.paho.unsubscribe([f"{tree}/a", f"{tree}/never"])[1]) == [0, 0x11]
        assert other.publish(f"{tree}/a") == NO_MATCH
        assert client.nothing_but(f"{tree}/end", other) == []

    def test_a_payload_of_128_kibibytes_passes(self, stand: "Stand", tree: str) -> None:
        listener, payload = stand.connect(), bytes(range(256)) * 512
        listener.subscribe(f"{tree}/#")
        assert stand.connect().publish(f"{tree}/big", payload) == 0
        assert listener.take(1)[0].payload == payload

    def test_a_payload_beyond_the_limit_costs_the_connection_only(self, stand: "Stand", tree: str) -> None:
        listener, client = stand.connect(), stand.connect()
        listener.subscribe(f"{tree}/#")
        client.paho.publish(f"{tree}/big", bytes(140 * KIBI), 1)
        client.ended()
        assert listener.nothing_but(f"{tree}/end", stand.connect()) == []

    def test_what_is_offered_is_declared(self, stand: "Stand") -> None:
        _, present, offered = stand.connect().greeting or (1, True, None)
        assert not present
        assert getattr(offered, "MaximumPacketSize", 0) == 132 * KIBI
        assert getattr(offered, "ReceiveMaximum", 65535) == 100

    # -- retained messages

    def test_a_retained_message_waits_and_a_live_copy_does_not_say_so(self, stand: "Stand", tree: str) -> None:
        live, sender = stand.connect(), stand.connect()
        live.subscribe(f"{tree}/#")
        sender.publish(f"{tree}/a/b", b"old", retain=True)
        sender.publish(f"{tree}/a/b", b"new", retain=True)
        assert [message.retain for message in live.take(2)] == [False, False]
        for pattern in (f"{tree}/a/b", f"{tree}/+/b", f"{tree}/#", f"{tree}/a/b/#"):
            late = stand.connect()
            late.subscribe(pattern)
            assert [(message.payload, message.retain) for message in late.take(1)] == [(b"new", True)]

    def test_an_empty_payload_clears_a_retained_message(self, stand: "Stand", tree: str) -> None:
        client = stand.connect()
        client.publish(f"{tree}/a", retain=True)
        client.publish(f"{tree}/a", b"", retain=True)
        client.subscribe(f"{tree}/#")
        assert client.nothing_but(f"{tree}/end", client) == []

    @pytest.mark.parametrize(("handling", "counts"), [(0, (1, 1)), (1, (1, 0)), (2, (0, 0))])
    def test_retain_handling_is_obeyed(self, stand: "Stand", tree: str, handling: int, counts: tuple[int, int]) -> None:
        client = stand.connect()
        client.publish(f"{tree}/a", retain=True)
        for number, count in enumerate(counts):
            client.subscribe(f"{tree}/+", retainHandling=handling)
            assert client.nothing_but(f"{tree}/end{number}", client) == [f"{tree}/a"] * count

    def test_retain_as_published_keeps_the_flag(self, stand: "Stand", tree: str) -> None:
        client = stand.connect()
        client.subscribe(f"{tree}/#", retainAsPublished=True)
        client.publish(f"{tree}/a", retain=True)
        client.publish(f"{tree}/b")
        assert [message.retain for message in client.take(2)] == [True, False]

    def test_five_hundred_exact_topics_are_read_at_once(self, stand: "Stand", tree: str) -> None:
        client, topics = stand.connect(), [f"{tree}/{number}/status" for number in range(500)]
        for topic in topics:
            client.paho.publish(topic, b"x", 1, True)
        assert client.subscribe(*topics, qos=0) == [0] * 500
        assert sorted(client.topics(500)) == sorted(topics)

    # -- sessions and client ids

    def test_a_session_waits_for_its_client(self, stand: "Stand", tree: str) -> None:
        name, sender = stand.unique("away"), stand.connect()
        first = stand.connect(name, SessionExpiryInterval=60)
        first.subscribe(f"{tree}/#")
        first.leave()
        for number in range(300):
            sender.paho.publish(f"{tree}/{number}", b"x", 1)
        sender.publish(f"{tree}/last")
        back = stand.connect(name, clean_start=False, SessionExpiryInterval=60)
        assert back.greeting is not None
        assert back.greeting[1]
        assert back.topics(301) == [*(f"{tree}/{number}" for number in range(300)), f"{tree}/last"]

    @pytest.mark.parametrize(("expiry", "clean_start"), [(0, False), (60, True)])
    def test_a_session_that_ended_is_forgotten(self, stand: "Stand", tree: str, expiry: int, clean_start: bool) -> None:
        name = stand.unique("gone")
        first = stand.connect(name, SessionExpiryInterval=expiry)
        first.subscribe(f"{tree}/#")
        first.leave()
        back = stand.connect(name, clean_start=clean_start)
        assert back.greeting is not None
        assert not back.greeting[1]
        assert back.publish(f"{tree}/a") == NO_MATCH

    def test_what_was_not_acknowledged_comes_again(self, stand: "Stand", tree: str) -> None:
        name = stand.unique("forgetful")
        first = stand.connect(name, SessionExpiryInterval=60)
        first.paho.manual_ack_set(True)
        first.subscribe(f"{tree}/#")
        stand.connect().publish(f"{tree}/a")
        first.take(1)
        first.drop()
        again = stand.connect(name, clean_start=False, SessionExpiryInterval=60).take(1)
        assert [(message.topic, message.dup) for message in again] == [(f"{tree}/a", True)]

    def test_a_message_expires_while_it_waits(self, stand: "Stand", tree: str) -> None:
        name, sender = stand.unique("late"), stand.connect()
        first = stand.connect(name, SessionExpiryInterval=60)
        first.subscribe(f"{tree}/#")
        first.leave()
        sender.publish(f"{tree}/short", MessageExpiryInterval=1)
        sender.publish(f"{tree}/long", MessageExpiryInterval=60)
        time.sleep(2.1)
        assert stand.connect(name, clean_start=False).topics(1) == [f"{tree}/long"]

    def test_the_clients_window_is_obeyed(self, stand: "Stand", tree: str) -> None:
        client, sender = stand.connect(ReceiveMaximum=3), stand.connect()
        client.paho.manual_ack_set(True)
        client.subscribe(f"{tree}/#")
        for number in range(6):
            sender.publish(f"{tree}/{number}")
        held = client.take(3)
        assert not client.until(lambda: len(client.messages) > 3, 0.2)
        client.paho.ack(held[0].mid, 1)
        assert client.topics(1) == [f"{tree}/3"]

    def test_a_second_client_of_the_same_name_cuts_the_first_off(self, stand: "Stand", tree: str) -> None:
        name = stand.unique("same")
        first, second = stand.connect(name), stand.connect(name)
        assert first.ended() in CUT
        second.subscribe(f"{tree}/#")
        assert second.publish(f"{tree}/a") == 0

    # -- wills

    def test_a_will_speaks_for_a_client_that_was_lost_and_is_retained(self, stand: "Stand", tree: str) -> None:
        listener = stand.connect()
        listener.subscribe(f"{tree}/#")
        stand.connect(will=(f"{tree}/will", b"gone", 1, True)).drop()
        assert listener.take(1)[0].payload == b"gone"
        late = stand.connect()
        late.subscribe(f"{tree}/will")
        assert late.take(1)[0].retain

    @pytest.mark.parametrize(("code", "count"), [(0, 0), (4, 1)])
    def test_a_goodbye_decides_about_the_will(self, stand: "Stand", tree: str, code: int, count: int) -> None:
        listener = stand.connect()
        listener.subscribe(f"{tree}/#")
        client = stand.connect(will=(f"{tree}/will", b"", 1, False))
        client.paho.on_disconnect = None
        client.leave(code)
        assert listener.nothing_but(f"{tree}/end", stand.connect()).count(f"{tree}/will") == count

    def test_silence_ends_the_connection_and_publishes_the_will(self, stand: "Stand", tree: str) -> None:
        listener = stand.connect()
        listener.subscribe(f"{tree}/#")
        client = stand.connect(will=(f"{tree}/will", b"gone", 1, False), keepalive=1)
        client.paho.loop_stop()
        assert listener.topics(1) == [f"{tree}/will"]

    def test_a_takeover_publishes_the_will(self, stand: "Stand", tree: str) -> None:
        listener, name = stand.connect(), stand.unique("heir")
        listener.subscribe(f"{tree}/#")
        stand.connect(name, will=(f"{tree}/will", b"gone", 1, False))
        stand.connect(name)
        assert listener.topics(1) == [f"{tree}/will"]

    def test_a_delayed_will_is_forgotten_when_the_client_returns_in_time(self, stand: "Stand", tree: str) -> None:
        listener, name = stand.connect(), stand.unique("patient")
        listener.subscribe(f"{tree}/#")
        will = (f"{tree}/will", b"", 1, False)
        stand.connect(name, will=will, will_delay=4, SessionExpiryInterval=60).drop()
        stand.connect(name, clean_start=False, SessionExpiryInterval=60, will=will, will_delay=4).drop()
        assert listener.topics(1) == [f"{tree}/will"]
        assert listener.nothing_but(f"{tree}/end", stand.connect()) == []

    # -- identity and rules

    def test_a_device_writes_and_reads_its_own_topics_only(self, stand: "Stand") -> None:
        name = stand.unique("dev")
        device, own, operator = stand.connect(name=name), f"acme/hall/sensor/{name}", stand.connect()
        assert device.subscribe(f"{own}/commands/+", f"{own}/twin/desired") == [1, 1]
        assert [device.publish(f"{own}/{channel}") for channel in ("status", "telemetry", "commands/x/reply")] == [NO_MATCH] * 3
        for topic in (f"{own}/twin/desired", "acme/hall/sensor/other/status", "acme/_fleet/trust", "other/topic"):
            assert device.publish(topic, retain=True) == NOT_AUTHORIZED
        assert operator.publish(f"{own}/commands/ping") == 0
        assert device.topics(1) == [f"{own}/commands/ping"]

    def test_a_wildcard_of_a_device_delivers_nothing_of_others(self, stand: "Stand") -> None:
        name, operator = stand.unique("nosy"), stand.connect()
        operator.publish("acme/hall/sensor/victim/twin/desired", b"secret", retain=True)
        device = stand.connect(name=name)
        device.subscribe("#", "acme/#", f"acme/hall/sensor/{name}/commands/+")
        operator.publish("acme/hall/sensor/victim/commands/ping")
        assert device.nothing_but(f"acme/hall/sensor/{name}/commands/end", operator) == []
        operator.publish("acme/hall/sensor/victim/twin/desired", b"", retain=True)

    def test_an_operator_stays_in_its_tenant(self, stand: "Stand") -> None:
        assert stand.connect().publish("other/tenant/topic") == NOT_AUTHORIZED

    def test_a_device_is_called_like_its_certificate(self, stand: "Stand") -> None:
        name = stand.unique("real")
        device = stand.connect("op-pretender", name=name)
        stand.connect("something-else", name=name)
        assert device.ended() in CUT

    def test_no_certificate_no_entry(self, stand: "Stand") -> None:
        with pytest.raises(OSError, match=ALERTS):
            stand.nameless()

    def test_people_and_devices_have_doors_of_their_own(self, stand: "Stand") -> None:
        with pytest.raises(OSError, match=ALERTS):
            stand.knock(stand.raw("op:alice", identity=stand.identity("lost-device")))
