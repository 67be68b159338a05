import socket
from collections.abc import Iterator

import pytest

from fleetctl.mqtt.message import Inbox, Message
from fleetctl.mqtt.stream import FILL_LIMIT, Stream


@pytest.fixture
def pair() -> Iterator[tuple[Stream, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    stream = Stream(ours)
    yield stream, theirs
    stream.close()
    theirs.close()


def test_what_was_read_is_taken_in_pieces_and_then_blocks(pair: tuple[Stream, socket.socket]) -> None:
    stream, theirs = pair
    theirs.sendall(b"hello")
    stream.fill()
    assert (stream.recv(1), stream.buffered, stream.recv(100)) == (b"h", 4, b"ello")
    with pytest.raises(BlockingIOError):
        stream.recv(1)


def test_an_end_is_seen_after_everything_before_it(pair: tuple[Stream, socket.socket]) -> None:
    stream, theirs = pair
    theirs.sendall(b"bye")
    theirs.close()
    stream.fill()
    assert stream.ended
    assert (stream.recv(10), stream.recv(10)) == (b"bye", b"")


def test_writing_touches_memory_until_it_is_flushed(pair: tuple[Stream, socket.socket]) -> None:
    stream, theirs = pair
    theirs.setblocking(False)
    assert stream.send(b"one") == 3
    stream.send(bytearray(b"two"))
    assert stream.unsent == 6
    with pytest.raises(BlockingIOError):
        theirs.recv(10)
    stream.flush()
    assert (stream.unsent, theirs.recv(10)) == (0, b"onetwo")


def test_what_the_socket_does_not_take_waits(pair: tuple[Stream, socket.socket]) -> None:
    stream, theirs = pair
    stream.send(bytes(4 << 20))
    stream.flush()
    assert 0 < stream.unsent < 4 << 20
    received = 0
    while stream.unsent:
        received += len(theirs.recv(1 << 20))
        stream.flush()
    theirs.setblocking(False)
    while received < 4 << 20:
        received += len(theirs.recv(1 << 20))


def test_ctrl_c_in_the_middle_of_a_flush_leaves_a_stream_that_can_say_goodbye() -> None:
    class Interrupted(socket.socket):
        def send(self, _data: object, _flags: int = 0) -> int:
            raise KeyboardInterrupt

    ours = Interrupted()
    stream = Stream(ours)
    stream.send(b"hello")
    with pytest.raises(KeyboardInterrupt) as caught:
        stream.flush()
    stream.send(b"bye")
    assert caught.tb is not None
    assert stream.unsent == len(b"hellobye")
    stream.close()


def test_one_fill_is_bounded(pair: tuple[Stream, socket.socket]) -> None:
    stream, theirs = pair
    theirs.setblocking(False)
    sent = 0
    for _ in range(200):
        try:
            sent += theirs.send(bytes(65536))
        except BlockingIOError:
            stream.fill()
            assert stream.buffered < sent + 1
            break
    assert stream.buffered <= max(FILL_LIMIT + 65536, sent)


def test_a_broken_socket_is_remembered_and_not_raised(pair: tuple[Stream, socket.socket]) -> None:
    stream, theirs = pair
    theirs.close()
    stream.send(b"x")
    stream.flush()
    stream.fill()
    assert isinstance(stream.failure, OSError)
    assert stream.ended


def test_lingering_delivers_what_was_written_before_it_closes(pair: tuple[Stream, socket.socket]) -> None:
    stream, theirs = pair
    stream.send(b"last words")
    stream.lingers = True
    theirs.sendall(b"unread")
    theirs.shutdown(socket.SHUT_WR)
    stream.close()
    assert theirs.recv(100) == b"last words"
    assert (stream.fileno(), stream.unsent) == (-1, 0)


def test_dropping_delivers_nothing(pair: tuple[Stream, socket.socket]) -> None:
    stream, theirs = pair
    stream.send(b"never said")
    stream.close()
    assert theirs.recv(100) == b""


def message(size: int) -> Message:
    return Message("a", bytes(size), 0, False, 0.0)


def test_an_inbox_drops_and_counts_what_exceeds_its_limits() -> None:
    inbox = Inbox(limit=3, limit_bytes=100)
    for _ in range(5):
        inbox.put(message(1))
    assert (len(inbox.take()), inbox.dropped, inbox.take()) == (3, 2, [])
    for _ in range(3):
        inbox.put(message(60))
    assert (len(inbox.take()), inbox.dropped) == (2, 3)
