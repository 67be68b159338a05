"""paho on a socket of ours: on its own it leaks the socket of a failed handshake and swallows what TLS says."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from fleetctl.mqtt.endpoint import Endpoint
from fleetctl.mqtt.message import Will
from fleetctl.mqtt.stream import Stream

if TYPE_CHECKING:
    from paho.mqtt.client import SocketLike

WINDOW = 100
PACKET_LIMIT = 1 << 20
_make_properties: Callable[[int], Properties] = Properties  # its constructor has no types


class Client(paho.Client):
    """An MQTT 5 client without threads that never reconnects."""

    def __init__(self, endpoint: Endpoint, client_id: str, will: Will | None, stream: Stream) -> None:
        super().__init__(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=paho.MQTTv5, reconnect_on_failure=False)
        self._endpoint = endpoint
        self._stream = stream
        self.max_inflight_messages_set(WINDOW)
        if endpoint.username is not None:
            self.username_pw_set(endpoint.username, endpoint.password)
        if will is not None:
            self.will_set(will.topic, will.payload, will.qos, will.retain)

    def _create_socket(self) -> "SocketLike":
        return self._stream

    def send_connect(self, keepalive: int, clean_start: bool, session_expiry: int) -> None:
        properties = _make_properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = session_expiry
        properties.MaximumPacketSize = PACKET_LIMIT
        self.connect(self._endpoint.host, self._endpoint.port, keepalive, clean_start=clean_start, properties=properties)

    def narrow_window(self, size: int) -> None:
        """Obey the broker's Receive Maximum, which is known only now; paho ignores it and refuses to be told so late."""
        self._max_inflight_messages = size


def reply_properties(response_topic: str | None, correlation: bytes | None) -> Properties | None:
    """Request and response of MQTT 5 (section 4.10)."""
    if response_topic is None and correlation is None:
        return None
    properties = _make_properties(PacketTypes.PUBLISH)
    if response_topic is not None:
        properties.ResponseTopic = response_topic
    if correlation is not None:
        properties.CorrelationData = correlation
    return properties
