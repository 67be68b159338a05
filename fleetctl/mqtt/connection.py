"""One MQTT 5 connection without threads: its owner watches the socket and says when to read and write."""

import ssl
import struct
from collections.abc import Callable, Sequence
from time import monotonic, time
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.exception import MQTTException
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from fleetctl import tls
from fleetctl.errors import Conflict, FleetError, Unavailable, UsageError
from fleetctl.model.device import printable
from fleetctl.model.topic import is_filter, is_topic
from fleetctl.mqtt import reasons
from fleetctl.mqtt.client import WINDOW, Client, reply_properties
from fleetctl.mqtt.endpoint import Endpoint
from fleetctl.mqtt.message import Inbox, Message, Will
from fleetctl.mqtt.polling import wait_for
from fleetctl.mqtt.reasons import Refusal
from fleetctl.mqtt.stream import CHUNK, Stream, open_stream

OUTBOX_LIMIT = 10_000
PACKET_OVERHEAD = 64
PROBE_SECONDS = 2.0
NO_BROKER_HINT = "is it a broker, and one that speaks MQTT 5?"
TAKEOVER_HINT = "let one of the two end; if there is no other, its certificate may have been revoked"
_DECODING_ERRORS = (MQTTException, ValueError, TypeError, AttributeError, LookupError, ArithmeticError, struct.error)

__all__ = ["Connection", "Message", "Will"]


class Connection:
    """Connects once and never again by itself; what goes wrong later is recorded in `closed_reason`, not raised.

    Messages beyond the inbox's limits are dropped and counted in `dropped`, those without a readable topic in `malformed`.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        client_id: str,
        *,
        will: Will | None = None,
        keepalive: int = 30,
        clean_start: bool = True,
        session_expiry: int = 0,
        sole: bool = False,
    ) -> None:
        """`sole`: a broker that hangs up without a word and still answers means a takeover (mosquitto 2.0 never says)."""
        self.endpoint = endpoint
        self.client_id = client_id
        self.session_present = False
        self.acknowledged = 0
        self.malformed = 0
        self.window = WINDOW
        self.closed_reason: FleetError | None = None
        self._will, self._keepalive, self._sole = will, keepalive, sole
        self._clean_start, self._session_expiry = clean_start, session_expiry
        self._client: Client | None = None
        self._stream: Stream | None = None
        self._accepted = False
        self._packet_limit = 0
        self._publishing: dict[int, str] = {}
        self._asking: dict[int, tuple[str, ...]] = {}
        self._refusals: list[Refusal] = []
        self._inbox = Inbox()

    # -- life

    def connect(self, timeout: float = 10.0) -> None:
        """Block until the broker has said yes; otherwise raise what is wrong, with no socket left behind."""
        if self._client is not None:
            raise RuntimeError("a connection connects once: make a new one")
        deadline = monotonic() + timeout
        self._stream = open_stream(self.endpoint, timeout)
        self._client = self._make_client(self._stream)
        try:
            self._client.send_connect(self._keepalive, self._clean_start, self._session_expiry)
            while not self._accepted and self.closed_reason is None:
                self.drive(max(0.0, deadline - monotonic()))
                if monotonic() >= deadline and not self._accepted:
                    self._close(reasons.silent(str(self.endpoint), timeout))
        finally:
            if not self._accepted:
                self.abort()
        if self.closed_reason is not None:
            raise self.closed_reason

    def _make_client(self, stream: Stream) -> Client:
        client = Client(self.endpoint, self.client_id, self._will, stream)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_answer
        client.on_unsubscribe = self._on_answer
        return client

    @property
    def connected(self) -> bool:
        return self._accepted and self._stream is not None and self._stream.is_open

    def disconnect(self) -> None:
        """Say goodbye, so that the broker forgets the will; waits a second at most for it to be heard."""
        if self._client is not None and self._stream is not None and self._stream.is_open:
            self._stream.lingers = True
            self._client.on_disconnect = None
            self._guard(self._client.disconnect)
        self.abort()

    def abort(self) -> None:
        """Drop the socket: the broker publishes the will."""
        if self._client is not None:
            self._client.on_disconnect = None
        if self._stream is not None:
            self._stream.lingers = False
            self._stream.close()

    # -- the owner's loop

    def fileno(self) -> int:
        """The socket to watch; -1 when there is none."""
        return -1 if self._stream is None else self._stream.fileno()

    def wants_write(self) -> bool:
        return self._stream is not None and self._stream.unsent > 0

    def on_readable(self) -> None:
        """Drain the socket and handle every packet that is complete."""
        client, stream = self._client, self._stream
        if client is None or stream is None:
            return
        stream.fill()
        self._digest(client, stream)
        self._send_pending()

    def _digest(self, client: Client, stream: Stream) -> None:
        while stream.is_open:
            before = stream.buffered
            self._guard(client.loop_read)
            if stream.buffered == before:
                return

    def on_writable(self) -> None:
        self._send_pending()

    def tick(self) -> None:
        """Keep-alive: call it about once a second."""
        if self._client is not None and self.fileno() >= 0:
            self._guard(self._client.loop_misc)
            self._send_pending()

    def drive(self, timeout: float) -> None:
        """For an owner with no other sockets: wait at most `timeout` seconds for this one and serve it once."""
        readable, writable = wait_for(self.fileno(), self.wants_write(), min(timeout, self._keepalive / 4 or timeout))
        if writable:
            self.on_writable()
        if readable:
            self.on_readable()
        self.tick()

    def _send_pending(self) -> None:
        client, stream = self._client, self._stream
        if client is None or stream is None:
            return
        stream.flush()
        if stream.failure is not None:
            self._digest(client, stream)

    # -- messages

    def publish(
        self,
        topic: str,
        payload: bytes,
        qos: int = 1,
        retain: bool = False,
        *,
        response_topic: str | None = None,
        correlation: bytes | None = None,
        more: bool = False,
    ) -> int:
        """Hand over one message and return its packet id; with `more` it may wait in the buffer for the next one.

        Raises the `closed_reason` where the connection has ended, `Unavailable` where 10,000 messages wait already.
        """
        client = self._ready()
        if not is_topic(topic):
            raise UsageError(f"{printable(topic)} is not a topic to publish on", "leave out wildcards")
        if self._packet_limit and len(payload) + len(topic.encode()) + PACKET_OVERHEAD > self._packet_limit:
            too_large = f"the message on {printable(topic)} is larger than the broker's limit of {self._packet_limit} bytes"
            raise FleetError(too_large, "send less, or raise the broker's maximum packet size")
        if len(self._publishing) >= OUTBOX_LIMIT:
            raise Unavailable(f"{OUTBOX_LIMIT} messages wait for the broker at `{self.endpoint}` already", "publish slower")
        info = client.publish(topic, payload, qos, retain, reply_properties(response_topic, correlation))
        if qos > 0:
            self._publishing[info.mid] = topic
        if not more or (self._stream is not None and self._stream.unsent > CHUNK):
            self._send_pending()
        return info.mid

    def subscribe(self, filters: Sequence[str], qos: int = 1) -> int:
        """Ask for the filters in one packet; `answered` tells when the broker has spoken, `take_refusals` what it refused."""
        client = self._ready()
        for text in filters:
            if not is_filter(text):
                raise UsageError(f"{printable(text)} is not a topic filter", "`+` fills one level, `#` the last ones")
        _, packet_id = client.subscribe([(text, qos) for text in filters])
        return self._ask(packet_id, filters)

    def unsubscribe(self, filters: Sequence[str]) -> int:
        _, packet_id = self._ready().unsubscribe(list(filters))
        return self._ask(packet_id, filters)

    def _ask(self, packet_id: int | None, filters: Sequence[str]) -> int:
        if packet_id is None:
            raise self.closed_reason or Unavailable("not connected")
        self._asking[packet_id] = tuple(filters)
        self._send_pending()
        return packet_id

    def _ready(self) -> Client:
        if self.closed_reason is not None:
            raise self.closed_reason
        if self._client is None or not self.connected:
            raise Unavailable(f"there is no connection to `{self.endpoint}`")
        return self._client

    @property
    def unacknowledged(self) -> int:
        """Messages of QoS 1 that the broker has not answered."""
        return len(self._publishing)

    def answered(self, packet_id: int) -> bool:
        """Whether a publish, subscribe or unsubscribe has its acknowledgement."""
        return packet_id not in self._publishing and packet_id not in self._asking

    def take(self) -> list[Message]:
        """The messages that arrived since the last call."""
        return self._inbox.take()

    @property
    def dropped(self) -> int:
        """Messages that arrived and found no room."""
        return self._inbox.dropped

    def take_refusals(self) -> list[Refusal]:
        """What the broker said no to since the last call."""
        taken, self._refusals = self._refusals, []
        return taken

    # -- what paho calls

    def _on_connect(
        self, _client: paho.Client, _data: object, flags: paho.ConnectFlags, code: ReasonCode, properties: Properties | None
    ) -> None:
        if code.value >= reasons.UNSPECIFIED:
            self._close(reasons.refused_connection(code.value, str(self.endpoint), self.client_id))
            return
        self._accepted = True
        self.session_present = flags.session_present
        self._packet_limit = int(getattr(properties, "MaximumPacketSize", 0))
        self.window = min(WINDOW, int(getattr(properties, "ReceiveMaximum", WINDOW)))
        if self._client is not None:
            self._client.narrow_window(self.window)

    def _on_disconnect(
        self,
        _client: paho.Client,
        _data: object,
        flags: paho.DisconnectFlags,
        code: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        if flags.is_disconnect_packet_from_server:
            self._close(reasons.ended_connection(code.value, str(self.endpoint), self.client_id))
        else:
            self._close(self._broken(code.value))

    def _broken(self, code: int) -> FleetError:
        failure = None if self._stream is None else self._stream.failure
        if isinstance(failure, ssl.SSLError) and not isinstance(failure, ssl.SSLEOFError):
            return _chained(tls.explain(failure, self.endpoint.host, ca=self.endpoint.ca, cert=self.endpoint.cert), failure)
        if code == reasons.PROTOCOL_ERROR:
            return Unavailable(f"`{self.endpoint}` sent what is not MQTT 5", NO_BROKER_HINT)
        if code == reasons.KEEP_ALIVE_TIMEOUT:
            return Unavailable(f"the broker at `{self.endpoint}` stopped answering", reasons.BROKER_HINT)
        hung_up = failure is None or isinstance(failure, ConnectionError | ssl.SSLEOFError)
        if self._accepted and self._sole and hung_up and self._still_answers():
            name = printable(self.client_id)
            return Conflict(f"the broker cut {name} off, as it does when another client takes over its name", TAKEOVER_HINT)
        if self._accepted:
            return _chained(Unavailable(f"the connection to `{self.endpoint}` was lost", reasons.BROKER_HINT), failure)
        hint = "its log says why: a certificate that it does not take, or too many connections"
        return _chained(Unavailable(f"`{self.endpoint}` closed the connection without an answer", hint), failure)

    def _still_answers(self) -> bool:
        try:
            open_stream(self.endpoint, PROBE_SECONDS).close()
        except FleetError:
            return False
        return True

    def _on_message(self, _client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            self.malformed += 1
            return
        properties = message.properties
        response, correlation = getattr(properties, "ResponseTopic", None), getattr(properties, "CorrelationData", None)
        self._inbox.put(Message(topic, bytes(message.payload), message.qos, message.retain, time(), response, correlation))

    def _on_publish(self, _client: paho.Client, _data: object, packet_id: int, code: ReasonCode, _properties: object) -> None:
        topic = self._publishing.pop(packet_id, None)
        if topic is None:
            return
        if code.value >= reasons.UNSPECIFIED:
            self._refusals.append(Refusal(packet_id, topic, code.value))
        else:
            self.acknowledged += 1

    def _on_answer(
        self, _client: paho.Client, _data: object, packet_id: int, codes: list[ReasonCode], _properties: object
    ) -> None:
        for topic, code in zip(self._asking.pop(packet_id, ()), codes, strict=False):
            if code.value >= reasons.UNSPECIFIED:
                self._refusals.append(Refusal(packet_id, topic, code.value, subscription=True))

    # -- endings

    def _guard(self, call: Callable[[], Any]) -> None:
        """Garbage makes paho raise whatever its decoding meets: here it ends this connection and nothing else."""
        try:
            call()
        except _DECODING_ERRORS as error:
            self._close(_chained(Unavailable(f"`{self.endpoint}` sent what is not MQTT 5", NO_BROKER_HINT), error))

    def _close(self, reason: FleetError) -> None:
        self.closed_reason = self.closed_reason or reason
        if self._stream is not None:
            self._stream.close()


def _chained(error: FleetError, cause: Exception | None) -> FleetError:
    error.__cause__ = cause
    return error
