"""MQTT 5 packets and bytes: the only file that knows the `mqtt5` package, whose gaps it fills.

The package wants whole packets, panics (a `BaseException`) on strings that are not UTF-8, and leaves reserved bits unchecked.
Its enums are no `int`s whatever its stub says: compare them after `int()`.
"""

from collections.abc import Iterator

from mqtt5 import (
    AuthPacket,
    ConnAckPacket,
    ConnAckReasonCode,
    ConnectPacket,
    DisconnectPacket,
    DisconnectReasonCode,
    Packet,
    PingReqPacket,
    PingRespPacket,
    PubAckPacket,
    PubAckReasonCode,
    PublishPacket,
    QoS,
    RetainHandling,
    SubAckPacket,
    SubAckReasonCode,
    SubscribePacket,
    TopicFilter,
    UnsubAckPacket,
    UnsubAckReasonCode,
    UnsubscribePacket,
    Will,
    read,
)

from fleetctl.errors import Malformed
from fleetctl.mqtt.strings import check_strings

__all__ = [
    "AuthPacket",
    "ConnAckPacket",
    "ConnAckReasonCode",
    "ConnectPacket",
    "Decoder",
    "DisconnectPacket",
    "DisconnectReasonCode",
    "MalformedPacket",
    "Packet",
    "PingReqPacket",
    "PingRespPacket",
    "PubAckPacket",
    "PubAckReasonCode",
    "PublishPacket",
    "QoS",
    "RetainHandling",
    "SubAckPacket",
    "SubAckReasonCode",
    "SubscribePacket",
    "TopicFilter",
    "UnsubAckPacket",
    "UnsubAckReasonCode",
    "UnsubscribePacket",
    "UnsupportedVersion",
    "Will",
    "decode",
    "encode",
]

PROTOCOL_VERSION = 5
WRITE_LIMIT = (1 << 28) - 1
_CONNECT, _PUBLISH = 1, 3
_FLAGS = {6: 2, 8: 2, 10: 2}
_PROTOCOL_NAMES = (b"\0\4MQTT", b"\0\6MQIsdp")


class MalformedPacket(Malformed):
    """Bytes that are no packet of MQTT 5; `reason` is the DISCONNECT reason code that says so."""

    def __init__(self, message: str, reason: int = 0x81) -> None:
        super().__init__(message)
        self.reason = reason


class UnsupportedVersion(MalformedPacket):
    """A CONNECT of another version of the protocol."""

    def __init__(self, version: int) -> None:
        super().__init__(f"the client speaks version {version} of the protocol, not {PROTOCOL_VERSION}", 0x84)
        self.version = version


class Decoder:
    """Turns a stream of bytes into packets, and holds at most one packet of `limit` bytes back."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._needed = 0

    def hold(self, data: bytes) -> None:
        """Keep bytes for the next `feed`; the caller sees to it that they are few."""
        self._buffer += data

    def feed(self, data: bytes) -> Iterator[Packet]:
        """The packets that `data` completes; raises `MalformedPacket` behind the last good one."""
        self.hold(data)
        start = 0
        try:
            while len(self._buffer) - start >= self._needed and (end := self._end(start)):
                frame = bytes(memoryview(self._buffer)[start:end])
                start = end
                yield decode(frame)
        finally:
            del self._buffer[:start]

    def _end(self, start: int) -> int:
        """Where the packet ends that begins at `start`; 0 while that is not known, or not here yet."""
        self._needed = 0
        if len(self._buffer) > start:
            _check_first_byte(self._buffer[start])
        header = _read_length(self._buffer, start + 1)
        if header is None:
            return 0
        body, length = header
        if body - start + length > self._limit:
            raise MalformedPacket(f"a packet of {length} bytes is larger than {self._limit}", 0x95)
        end = body + length
        if len(self._buffer) >= end:
            return end
        self._needed = end - start
        return 0


def decode(frame: bytes) -> Packet:
    """The packet that fills `frame`; raises `MalformedPacket`."""
    if not frame:
        raise MalformedPacket("there is no packet in nothing")
    _check_first_byte(frame[0])
    header = _read_length(frame, 1)
    if header is None or sum(header) != len(frame):
        raise MalformedPacket("the length of the packet is wrong")
    kind, start = frame[0] >> 4, header[0]
    if kind == _CONNECT:
        _check_version(frame[start:])
    try:
        if kind != _PUBLISH or not _plain(frame, start):
            check_strings(frame, start)
    except Malformed as error:
        raise MalformedPacket(error.message) from error
    packet, used = _read(frame)
    if used != len(frame):
        raise MalformedPacket("the packet goes on behind its end")
    return packet


def encode(packet: Packet) -> bytes:
    """The bytes of a packet; raises `MalformedPacket` for one that MQTT cannot carry."""
    if isinstance(packet, PublishPacket) and len(packet.payload) > WRITE_LIMIT:
        raise MalformedPacket("a payload of 256 MiB fits into no packet", 0x95)
    try:
        return packet.write()
    except BaseException as error:
        raise _translated(error) from error


def _read(frame: bytes) -> tuple[Packet, int]:
    try:
        with memoryview(frame) as view:
            return read(view)
    except BaseException as error:
        raise _translated(error) from error


def _translated(error: BaseException) -> BaseException:
    """What the package raises; a panic is known by its name only, because its class cannot be imported."""
    if isinstance(error, Exception) or type(error).__name__ == "PanicException":
        return MalformedPacket(f"not a packet of MQTT 5: {str(error).lower()}")
    return error


def _check_first_byte(first: int) -> None:
    kind, flags = first >> 4, first & 15
    if kind == 0 or (kind != _PUBLISH and flags != _FLAGS.get(kind, 0)):
        raise MalformedPacket("no packet of MQTT begins like that")
    if kind == _PUBLISH and (flags & 6 == 6 or flags & 14 == 8):
        raise MalformedPacket("the flags of PUBLISH contradict each other")


def _check_version(body: bytes) -> None:
    for name in _PROTOCOL_NAMES:
        if body.startswith(name) and len(body) > len(name):
            version = body[len(name)]
            if version != PROTOCOL_VERSION or name != _PROTOCOL_NAMES[0]:
                raise UnsupportedVersion(version)
            return
    raise MalformedPacket("CONNECT names another protocol")


def _read_length(buffer: bytes | bytearray, at: int) -> tuple[int, int] | None:
    """Where the body begins and how long it is (section 1.5.5); None where more bytes are needed."""
    value = 0
    for count, digit in enumerate(buffer[at : at + 4], start=1):
        value |= (digit & 127) << 7 * (count - 1)
        if digit < 128:
            if count > 1 and digit == 0:
                raise MalformedPacket("the length of the packet is not in its shortest form")
            return at + count, value
    if len(buffer) >= at + 4:
        raise MalformedPacket("the length of the packet has no end")
    return None


def _plain(frame: bytes, start: int) -> bool:
    """Whether a PUBLISH has an ASCII topic and no properties: the common case, which needs no closer look."""
    end = start + 2 + (frame[start] << 8 | frame[start + 1]) if len(frame) > start + 1 else len(frame)
    after = end + (2 if frame[0] & 6 else 0)
    topic = frame[start + 2 : end]
    return after < len(frame) and frame[after] == 0 and topic.isascii() and 0 not in topic
