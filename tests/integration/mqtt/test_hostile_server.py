"""Servers that are no broker, or a bad one: one clear error, no crash, no socket left."""

import socket
import threading
from collections.abc import Callable, Iterator
from time import monotonic

import pytest

from fleetctl.errors import Conflict, Denied, FleetError, Unavailable
from fleetctl.mqtt.connection import Connection
from fleetctl.mqtt.endpoint import Endpoint
from fleetctl.mqtt.session import open_session

WELCOME = bytes.fromhex("20 03 00 00 00")
Server = Callable[..., Endpoint]


@pytest.fixture
def server() -> Iterator[Server]:
    """Sends each packet given after the client has spoken, then waits for it to go, or hangs up."""
    threads: list[threading.Thread] = []

    def serve(listening: socket.socket, packets: tuple[bytes, ...], hang_up: bool) -> None:
        with listening:
            listening.settimeout(10)
            client, _ = listening.accept()
        with client:
            client.settimeout(5)
            try:
                client.recv(65536)
                for packet in packets:
                    client.sendall(packet)
                while not hang_up and client.recv(65536):
                    pass
            except OSError:
                pass

    def start(*packets: bytes, hang_up: bool = False) -> Endpoint:
        listening = socket.create_server(("127.0.0.1", 0))
        thread = threading.Thread(target=serve, args=(listening, packets, hang_up))
        thread.start()
        threads.append(thread)
        return Endpoint("127.0.0.1", listening.getsockname()[1], tls=False)

    yield start
    for thread in threads:
        thread.join(12)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"HTTP/1.1 400 Bad Request\r\n\r\n", id="HTTP"),
        pytest.param(bytes(range(256)), id="noise"),
        pytest.param(b"\x20\xff\xff\xff\xff\xff", id="length without end"),
        pytest.param(b"\x20\x02\x00\xee", id="unknown reason"),
        pytest.param(b"\x20\x00", id="empty CONNACK"),
        pytest.param(b"\x20\x05\x00\x00\x02\x7f\x00", id="unknown property"),
        pytest.param(b"\x15\x03\x03\x00\x02\x02\x28" * 3, id="TLS alert"),
    ],
)
def test_an_answer_that_is_not_mqtt_is_said_to_be_none(server: Server, answer: bytes) -> None:
    with pytest.raises(Unavailable, match=r"is not MQTT 5|without an answer|did not answer"):
        open_session(server(answer), "test", timeout=1)


@pytest.mark.parametrize(
    "garbage",
    [
        pytest.param(b"\x00\x00", id="packet type 0"),
        pytest.param(b"\x10\x00", id="CONNECT from a server"),
        pytest.param(b"\x40\x00", id="empty PUBACK"),
        pytest.param(b"\x40\x04\x00\x01\x95\x00", id="PUBACK with a reason it may not have"),
        pytest.param(b"\x90\x01\x00", id="short SUBACK"),
        pytest.param(b"\x30\x02\xff\xff", id="topic longer than its packet"),
        pytest.param(b"\x36\x05\x00\x01a\x00\x01", id="QoS 3"),
        pytest.param(b"\xe0\x01\xee", id="DISCONNECT with an unknown reason"),
        pytest.param(b"\xd0\x05hello", id="PINGRESP with a body"),
        pytest.param(bytes(range(255, -1, -1)), id="noise"),
    ],
)
def test_garbage_after_the_welcome_ends_the_connection_and_raises_only_where_it_is_used(server: Server, garbage: bytes) -> None:
    connection = Connection(server(WELCOME), "test", keepalive=2)
    connection.connect()
    connection.disconnect()
    connection = Connection(server(WELCOME + garbage, hang_up=True), "test", keepalive=2)
    try:
        connection.connect()
    except FleetError:
        assert not connection.connected
        return
    deadline = monotonic() + 5
    while connection.connected and monotonic() < deadline:
        connection.drive(0.2)
    assert connection.fileno() == -1
    assert isinstance(connection.closed_reason, FleetError)
    with pytest.raises(FleetError):
        connection.publish("acme/x", b"")
    connection.abort()


def test_a_topic_that_is_not_utf8_is_counted_and_the_next_message_arrives(server: Server) -> None:
    bad, good = b"\x30\x05\x00\x02\xff\xfe\x00", b"\x30\x05\x00\x01a\x00x"
    with open_session(server(WELCOME, bad + good), "test") as session:
        assert [(m.topic, m.payload) for m in session.receive(3)] == [("a", b"x")]
        assert session.malformed == 1


def test_acknowledgements_nobody_asked_for_are_ignored(server: Server) -> None:
    strangers = b"\x40\x02\x12\x34" + b"\x90\x04\x12\x34\x00\x00" + b"\xb0\x04\x12\x34\x00\x00"
    with open_session(server(WELCOME, strangers + b"\x30\x05\x00\x01a\x00x"), "test") as session:
        assert len(session.receive(3)) == 1
        assert session.connection.acknowledged == 0


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (0x84, Unavailable, "does not speak MQTT 5"),
        (0x01, Unavailable, "does not speak MQTT 5"),
        (0x85, Denied, "the client id is not acceptable"),
        (0x86, Denied, "bad user name or password"),
        (0x87, Denied, "not authorized"),
        (0x88, Unavailable, "unavailable"),
        (0x89, Unavailable, "busy"),
        (0x97, Unavailable, "quota"),
        (0x95, FleetError, "too large"),
    ],
)
def test_each_refusal_of_connack_is_put_into_words(server: Server, code: int, kind: type[FleetError], words: str) -> None:
    with pytest.raises(kind, match=words):
        open_session(server(bytes([0x20, 3, 0, code, 0]), hang_up=True), "test")


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (0x8E, Conflict, "another client took over `fleetctl-test"),
        (0x8B, Unavailable, "shutting down"),
        (0x87, Denied, "not authorized"),
        (0x98, Denied, "an administrator ended the session"),
        (0x95, Unavailable, "too large"),
    ],
)
def test_each_farewell_of_the_broker_is_put_into_words(server: Server, code: int, kind: type[FleetError], words: str) -> None:
    endpoint = server(WELCOME, bytes([0xE0, 1, code]), hang_up=True)
    with pytest.raises(kind, match=words), open_session(endpoint, "test") as session:
        session.receive(5)


def test_a_server_that_never_answers_connect_is_given_up(server: Server) -> None:
    with pytest.raises(Unavailable, match=r"did not answer CONNECT within 0\.5 s"):
        open_session(server(), "test", timeout=0.5)


def test_a_server_that_is_silent_in_the_handshake_is_given_up(server: Server) -> None:
    endpoint = server()
    with pytest.raises(Unavailable, match=r"did not answer the TLS handshake within 0\.5 s"):
        open_session(Endpoint("127.0.0.1", endpoint.port), "test", timeout=0.5)


def test_a_plain_server_on_a_tls_address_is_recognized(server: Server) -> None:
    endpoint = server(b"220 smtp.example ESMTP\r\n")
    with pytest.raises(Unavailable, match="does not speak TLS"):
        open_session(Endpoint("127.0.0.1", endpoint.port), "test", timeout=3)


def test_unacknowledged_messages_are_told_by_their_number(server: Server) -> None:
    session = open_session(server(WELCOME), "test")
    for number in range(3):
        session.publish("acme/x", str(number).encode())
    with pytest.raises(Unavailable, match="did not acknowledge 3 messages"):
        session.flush(0.3)
    session.close()


def test_a_narrower_receive_maximum_is_obeyed(server: Server) -> None:
    with_maximum = b"\x20\x06\x00\x00\x03\x21\x00\x02"
    session = open_session(server(with_maximum), "test")
    assert session.connection.window == 2
    session.publish("acme/x", b"1")
    session.publish("acme/x", b"2")
    with pytest.raises(Unavailable, match="did not acknowledge 2 messages"):
        session.publish("acme/x", b"3", timeout=0.3)
    session.close()


def test_a_silent_broker_is_noticed_by_the_keep_alive(server: Server) -> None:
    session = open_session(server(WELCOME), "test", keepalive=1)
    with pytest.raises(Unavailable, match="stopped answering"):
        session.receive(6)
    session.close()
