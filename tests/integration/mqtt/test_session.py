"""Sessions against a real mosquitto, TLS 1.3 with certificates on both sides."""

import socket
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING

import pytest

from fleetctl.errors import Conflict, Denied, FleetError, Unavailable
from fleetctl.mqtt.connection import Connection, Message, Will
from fleetctl.mqtt.session import evict, open_session

if TYPE_CHECKING:
    from tests.integration.mqtt.conftest import Stand


def test_a_message_reaches_the_device_and_its_answer_comes_back(stand: "Stand") -> None:
    command, reply = stand.address("echo-1", "commands/ping"), stand.address("echo-1", "commands/ping/reply")
    with (
        open_session(stand.device("echo-1"), "device", client_id="echo-1") as device,
        open_session(stand.operator(), "test") as operator,
    ):
        device.subscribe([stand.address("echo-1", "commands/+")])
        operator.subscribe([reply])
        operator.publish(command, b"{}", response_topic=reply, correlation=b"c1")
        (asked,) = device.receive(5)
        assert (asked.topic, asked.payload, asked.retain, asked.qos) == (command, b"{}", False, 1)
        assert (asked.response_topic, asked.correlation) == (reply, b"c1")
        device.publish(reply, b"pong", correlation=asked.correlation)
        (answered,) = operator.receive(5)
        assert (answered.payload, answered.correlation) == (b"pong", b"c1")


def test_two_thousand_retained_messages_are_read_by_their_exact_topics(stand: "Stand") -> None:
    topics = [stand.address(f"many-{number}", "twin/desired") for number in range(2000)]
    with open_session(stand.operator(), "test") as operator:
        for number, topic in enumerate(topics):
            operator.publish(topic, str(number).encode() * 50, retain=True, more=True)
        operator.flush()
    with open_session(stand.operator(), "test") as reader:
        found = reader.read_retained([*topics, stand.address("nobody", "twin/desired")])
    assert list(found) == topics
    assert all(found[topic].payload == str(number).encode() * 50 for number, topic in enumerate(topics))


def test_live_messages_of_other_subscriptions_survive_a_retained_read(stand: "Stand") -> None:
    kept, live = stand.address("kept-1", "twin/desired"), stand.address("live-1", "telemetry")
    with open_session(stand.operator(), "test") as reader, open_session(stand.operator(), "test") as writer:
        writer.publish(kept, b"state", retain=True)
        writer.flush()
        reader.subscribe([live, stand.address("kept-1", "twin/+")])
        reader.receive(1)
        for number in range(50):
            writer.publish(live, str(number).encode())
        writer.flush()
        assert reader.read_retained([kept])[kept].payload == b"state"
        writer.publish(kept, b"changed", retain=True)
        writer.publish(live, b"last")
        writer.flush()
        arrived: list[Message] = []
        deadline = monotonic() + 5
        while len(arrived) < 52 and monotonic() < deadline:
            arrived += reader.receive(1)
    assert [m.payload for m in arrived if m.topic == live] == [*(str(n).encode() for n in range(50)), b"last"]
    assert [m.payload for m in arrived if m.topic == kept] == [b"changed"]


def test_an_own_subscription_outlives_a_retained_read_of_its_topic(stand: "Stand") -> None:
    topic = stand.address("own-1", "status")
    with open_session(stand.operator(), "test") as session:
        session.publish(topic, b"1", retain=True)
        session.subscribe([topic])
        session.receive(1)
        assert session.read_retained([topic])[topic].payload == b"1"
        session.publish(topic, b"2", retain=True)
        assert [m.payload for m in session.receive(5)] == [b"2"]


def test_five_thousand_publishes_stay_within_the_window_and_all_are_acknowledged(stand: "Stand") -> None:
    with open_session(stand.operator(), "test") as session:
        most = 0
        for number in range(5000):
            session.publish(stand.address("burst-1", "commands/noop"), str(number).encode(), more=True)
            most = max(most, session.connection.unacknowledged)
        session.flush()
        assert most <= session.connection.window == 100
        assert (session.connection.acknowledged, session.connection.unacknowledged) == (5000, 0)


def test_a_tail_loses_nothing_of_a_burst_that_it_formats_late(stand: "Stand") -> None:
    topic = stand.address("tail-1", "telemetry")
    with open_session(stand.operator(), "tail") as tail, open_session(stand.device("tail-1"), "x", client_id="tail-1") as device:
        tail.subscribe([stand.address("tail-1", "#")])
        for number in range(3000):
            device.publish(topic, str(number).encode(), more=True)
        device.flush()
        arrived: list[int] = []
        for message in tail.messages(monotonic() + 10):
            arrived.append(int(message.payload))
            if len(arrived) == 3000:
                break
    assert arrived == list(range(3000))
    assert tail.dropped == 0


def test_messages_end_at_the_deadline(stand: "Stand") -> None:
    with open_session(stand.operator(), "tail") as tail:
        tail.subscribe([stand.address("silent-1", "telemetry")])
        begin = monotonic()
        assert list(tail.messages(begin + 0.3)) == []
        assert 0.25 < monotonic() - begin < 2


def test_a_second_client_of_the_same_name_ends_the_first_with_a_conflict(stand: "Stand") -> None:
    with open_session(stand.operator(), "rollout", client_id="fleetctl-rollout-r1") as first:
        with open_session(stand.operator("op:bob"), "rollout", client_id="fleetctl-rollout-r1") as second:
            with pytest.raises(Conflict, match="`fleetctl-rollout-r1`"):
                first.receive(5)
            with pytest.raises(Conflict):
                first.publish(stand.address("dev-1", "ota/desired"), b"late")
            assert second.connection.connected
        assert not first.connection.connected


def test_a_publish_that_the_rules_forbid_is_denied_by_its_topic(stand: "Stand") -> None:
    other = stand.address("other-1", "telemetry")
    with open_session(stand.device("nosy-1"), "x", client_id="nosy-1") as device:
        device.publish(other, b"{}")
        with pytest.raises(Denied, match=other):
            device.flush()
        device.publish(stand.address("nosy-1", "telemetry"), b"{}")
        device.flush()


def test_a_refused_publish_does_not_pass_unseen_when_the_session_is_left(stand: "Stand") -> None:
    with pytest.raises(Denied, match="elsewhere/topic"), open_session(stand.operator(), "test") as session:
        session.publish("elsewhere/topic", b"{}")


def test_a_payload_beyond_the_limit_is_refused_and_the_connection_lives(stand: "Stand") -> None:
    topic = stand.address("big-1", "commands/big")
    with open_session(stand.operator(), "test") as session:
        session.publish(topic, bytes(131072))
        session.flush()
        with pytest.raises(FleetError, match="larger than the broker's limit of 135168 bytes"):
            session.publish(topic, bytes(135168))
        session.publish(topic, b"small")
        session.flush()


def test_the_will_comes_when_the_socket_is_dropped_and_not_after_a_goodbye(stand: "Stand") -> None:
    topic = stand.address("mortal-1", "status")
    will = Will(topic, b"offline")
    with open_session(stand.operator(), "test") as operator:
        operator.subscribe([topic])
        polite = Connection(stand.device("mortal-1"), "mortal-1", will=will)
        polite.connect()
        polite.publish(topic, b"bye", retain=True)
        polite.disconnect()
        assert [m.payload for m in operator.receive(5)] == [b"bye"]
        assert operator.receive(0.3) == []
        killed = Connection(stand.device("mortal-1"), "mortal-1", will=will)
        killed.connect()
        killed.abort()
        assert [m.payload for m in operator.receive(5)] == [b"offline"]
        assert killed.fileno() == -1
        assert not killed.connected
        assert killed.closed_reason is None


def test_a_persistent_session_keeps_what_came_while_it_was_away(stand: "Stand") -> None:
    topic = stand.address("sleepy-1", "commands/wake")
    first = Connection(stand.device("sleepy-1"), "sleepy-1", clean_start=False, session_expiry=600)
    first.connect()
    packet = first.subscribe([topic])
    while not first.answered(packet):
        first.drive(1)
    first.disconnect()
    with open_session(stand.operator(), "test") as operator:
        operator.publish(topic, b"1")
    again = Connection(stand.device("sleepy-1"), "sleepy-1", clean_start=False, session_expiry=0)
    again.connect()
    deadline = monotonic() + 5
    while not (arrived := again.take()) and monotonic() < deadline:
        again.drive(1)
    again.disconnect()
    assert again.session_present
    assert [m.payload for m in arrived] == [b"1"]


def test_evicting_cuts_a_live_device(stand: "Stand") -> None:
    device = Connection(stand.device("evicted-1"), "evicted-1", sole=True)
    device.connect()
    evict(stand.operator(), "evicted-1")
    deadline = monotonic() + 5
    while device.connected and monotonic() < deadline:
        device.drive(1)
    assert isinstance(device.closed_reason, Conflict)


def test_a_connection_lives_beyond_its_keep_alive(stand: "Stand") -> None:
    with open_session(stand.operator(), "test", keepalive=1) as session:
        assert session.receive(3.2) == []
        assert session.connection.connected


def test_a_name_that_does_not_resolve_is_unavailable(stand: "Stand") -> None:
    with pytest.raises(Unavailable, match=r"`no-such-host\.invalid` does not resolve"):
        open_session(replace(stand.operator(), host="no-such-host.invalid"), "test")


def test_where_nothing_listens_no_broker_answers(stand: "Stand") -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(Unavailable, match=f"no broker answers at `localhost:{port}`"):
        open_session(replace(stand.operator(), port=port), "test")


def test_a_sentinel_never_overtakes_what_is_read_on_own_subscriptions(stand: "Stand") -> None:
    topics = [stand.address(f"own-many-{number}", "ota/status") for number in range(1200)]
    with open_session(stand.operator(), "test") as session:
        for topic in topics:
            session.publish(topic, topic.encode() * 20, retain=True, more=True)
        session.subscribe(topics)
        found = session.read_retained([*topics, stand.address("nobody", "ota/status")])
        assert list(found) == topics
        session.publish(topics[7], b"changed", retain=True)
        assert any(message.payload == b"changed" for message in session.messages(monotonic() + 2))
