"""The strings and flags inside an MQTT packet, found without decoding it (MQTT 5.0 sections 1.5.4 and 2.2.2)."""

from collections.abc import Callable

from fleetctl.errors import Malformed

CONNECT, CONNACK, PUBLISH, SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK, DISCONNECT, AUTH = 1, 2, 3, 8, 9, 10, 11, 14, 15
ACKNOWLEDGEMENTS = (4, 5, 6, 7)

# property identifiers by the shape of their values (table 2-4)
_YES_OR_NO = frozenset((1, 23, 25, 36, 37, 40, 41, 42))
_FIXED = {2: 4, 17: 4, 19: 2, 24: 4, 33: 2, 34: 2, 35: 2, 39: 4}
_STRINGS = frozenset((3, 8, 18, 21, 26, 28, 31))
_BINARY = frozenset((9, 22))
_VARINT, _PAIR = 11, 38


def check_strings(frame: bytes, start: int) -> None:
    """Raise `Malformed` unless all strings of the packet (its body begins at `start`) are UTF-8 without NUL, all flags 0 or 1.

    The `mqtt5` package panics on the rest, with half a kilobyte of text on stderr.
    """
    kind = frame[0] >> 4
    if kind in _WALKS:
        try:
            _WALKS[kind](_Walk(frame, start))
        except IndexError as error:
            raise Malformed("the packet ends within a field") from error


class _Walk:
    """A position in a packet that moves over one field at a time."""

    def __init__(self, frame: bytes, start: int) -> None:
        self._frame = frame
        self._at = start

    @property
    def more(self) -> bool:
        return self._at < len(self._frame)

    def skip(self, count: int) -> None:
        self._at += count
        if self._at > len(self._frame):
            raise IndexError

    def byte(self) -> int:
        self.skip(1)
        return self._frame[self._at - 1]

    def binary(self) -> bytes:
        length = self.byte() << 8 | self.byte()
        self.skip(length)
        return self._frame[self._at - length : self._at]

    def string(self) -> None:
        value = self.binary()
        try:
            value.decode()
        except UnicodeDecodeError as error:
            raise Malformed("a string in the packet is not UTF-8") from error
        if 0 in value:
            raise Malformed("a string in the packet holds NUL")

    def varint(self) -> int:
        value = 0
        for shift in (0, 7, 14, 21):
            digit = self.byte()
            value |= (digit & 127) << shift
            if digit < 128:
                return value
        raise Malformed("a variable byte integer in the packet is too long")

    def properties(self) -> None:
        end = self.varint() + self._at
        while self._at < end:
            self._property(self.varint())

    def _property(self, identifier: int) -> None:
        if identifier in _YES_OR_NO:
            if self.byte() > 1:
                raise Malformed("a property of the packet is neither 0 nor 1")
        elif identifier in _FIXED:
            self.skip(_FIXED[identifier])
        elif identifier in _STRINGS:
            self.string()
        elif identifier in _BINARY:
            self.binary()
        elif identifier == _VARINT:
            self.varint()
        elif identifier == _PAIR:
            self.string()
            self.string()
        else:
            raise Malformed("the packet holds a property that MQTT 5 does not know")

    def connect(self) -> None:
        self.string()
        self.byte()
        flags = self.byte()
        if flags & 0x01 or (not flags & 0x04 and flags & 0x38):
            raise Malformed("the flags of CONNECT contradict each other")
        self.skip(2)
        self.properties()
        self.string()
        if flags & 0x04:
            self.properties()
            self.string()
            self.binary()
        if flags & 0x80:
            self.string()

    def publish(self) -> None:
        self.string()
        self.skip(2 if self._frame[0] & 0x06 else 0)
        self.properties()

    def subscribe(self) -> None:
        self.skip(2)
        self.properties()
        while self.more:
            self.string()
            if self.byte() & 0xC0:
                raise Malformed("a reserved bit of a subscription is set")

    def unsubscribe(self) -> None:
        self.skip(2)
        self.properties()
        while self.more:
            self.string()

    def answer(self) -> None:
        self.skip(2)
        self.properties()

    def acknowledgement(self) -> None:
        self.skip(2)
        self.ending()

    def ending(self) -> None:
        if self.more:
            self.byte()
        if self.more:
            self.properties()


_WALKS: dict[int, Callable[[_Walk], None]] = {
    CONNECT: _Walk.connect,
    CONNACK: _Walk.answer,
    PUBLISH: _Walk.publish,
    SUBSCRIBE: _Walk.subscribe,
    SUBACK: _Walk.answer,
    UNSUBSCRIBE: _Walk.unsubscribe,
    UNSUBACK: _Walk.answer,
    DISCONNECT: _Walk.ending,
    AUTH: _Walk.ending,
    **dict.fromkeys(ACKNOWLEDGEMENTS, _Walk.acknowledgement),
}
