"""HTTPS servers for many clients: handshakes off the accept loop, and places, bytes and seconds bounded for each client."""

import io
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from fleetctl.errors import ConfigError, FleetError

CHUNK = 1 << 16
HEAD_LIMIT = 1 << 15
TIMEOUT = 30.0
HANDSHAKE_TIMEOUT = 10.0
HANDSHAKES, HANDSHAKES_OF_ONE = 256, 192
"""How many may be shaking hands at once, and how many of one address: whoever never ends leaves places to others."""


@dataclass(frozen=True, slots=True)
class Places:
    """How many connections there may be: with a certificate, of each one, without any, of each address without any."""

    certified: int = 1024
    each: int = 8
    strangers: int = 256
    each_address: int = 32


class Inlet(io.RawIOBase):
    """What a client sends, within a time and a size; `begin` starts both anew."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._deadline, self._left = 0.0, 0

    def begin(self, seconds: float, size: int) -> None:
        self._deadline, self._left = time.monotonic() + seconds, size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        seconds = self._deadline - time.monotonic()
        if seconds <= 0 or self._left <= 0:
            raise TimeoutError("the client takes too long, or sends too much")
        self._connection.settimeout(seconds)
        count = self._connection.recv_into(memoryview(buffer)[: self._left])
        self._left -= count
        return count


class Handler(BaseHTTPRequestHandler):
    """One connection: replies leave in one piece at once, and a client that trickles is left behind."""

    protocol_version = "HTTP/1.1"
    default_request_version = "HTTP/1.0"
    server_version = "fleetctl"
    sys_version = ""
    error_message_format = "%(message)s\n"
    error_content_type = "text/plain; charset=utf-8"
    disable_nagle_algorithm = True
    wbufsize = CHUNK
    timeout = TIMEOUT

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self.inlet = Inlet(self.connection)
        self.rfile = io.BufferedReader(self.inlet)

    def handle_one_request(self) -> None:
        self.inlet.begin(TIMEOUT, HEAD_LIMIT)
        super().handle_one_request()

    def parse_request(self) -> bool:
        try:
            return super().parse_request()
        finally:
            self.connection.settimeout(TIMEOUT)

    def do_GET(self) -> None:
        self.answer()

    def do_HEAD(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer()

    def answer(self) -> None:
        """Answer the request in `command` and `path`."""
        raise NotImplementedError

    def log_message(self, *_: Any) -> None:
        """Quiet: whoever runs the server says what matters."""


class Server(ThreadingHTTPServer):
    """TLS handshakes run in the connection's own thread, so that a slow client never holds up the accept loop.

    `contexts` gives the TLS context of the moment; `refused` is told whom TLS turned away, and why.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(
        self,
        address: tuple[str, int],
        handler: type[Handler],
        contexts: Callable[[], ssl.SSLContext],
        places: Places,
        refused: Callable[[str, Exception], None] | None = None,
    ) -> None:
        self._contexts = contexts
        self._places = places
        self._refused = refused
        self._handshakes = threading.BoundedSemaphore(HANDSHAKES)
        self._certified = threading.BoundedSemaphore(places.certified)
        self._strangers = threading.BoundedSemaphore(places.strangers)
        self._held: Counter[Hashable] = Counter()
        self._lock = threading.Lock()
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, handler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Shake hands, then serve; who has not shown a certificate takes no place of those who have."""
        try:
            with self._of(("hands", str(client_address[0])), HANDSHAKES_OF_ONE), self._place(self._handshakes):
                request.settimeout(HANDSHAKE_TIMEOUT)
                secured = self._contexts().wrap_socket(request, server_side=True)
            with secured, self._client(secured.getpeercert(binary_form=True), str(client_address[0])):
                secured.settimeout(TIMEOUT)
                super().finish_request(secured, client_address)
        except ssl.SSLCertVerificationError as error:
            self._tell(client_address, error)
        except OSError:
            return  # the peer went away, or had no certificate of ours: its affair, and it was told by TLS
        except FleetError as error:
            self._tell(client_address, error)

    def _tell(self, client_address: Any, error: Exception) -> None:
        if self._refused is not None:
            self._refused(str(client_address[0]), error)

    @contextmanager
    def _client(self, certificate: bytes | None, address: str) -> Iterator[None]:
        holder: Hashable = certificate or address
        most = self._places.each if certificate else self._places.each_address
        with self._place(self._certified if certificate else self._strangers), self._of(holder, most):
            yield

    @contextmanager
    def _place(self, places: threading.BoundedSemaphore) -> Iterator[None]:
        if not places.acquire(blocking=False):
            raise ConnectionAbortedError("no place is free")
        try:
            yield
        finally:
            places.release()

    @contextmanager
    def _of(self, holder: Hashable, most: int) -> Iterator[None]:
        with self._lock:
            if self._held[holder] >= most:
                raise ConnectionAbortedError("this client holds enough connections")
            self._held[holder] += 1
        try:
            yield
        finally:
            with self._lock:
                self._held[holder] -= 1
                if not self._held[holder]:
                    del self._held[holder]


def fresh(watched: Sequence[Path], make: Callable[[], ssl.SSLContext]) -> Callable[[], ssl.SSLContext]:
    """The TLS context of the moment: made anew when one of its files has changed, is there now or is gone.

    Raises `ConfigError`, then and now, where one that it needs is missing.
    """
    held: list[tuple[list[tuple[int, int]], ssl.SSLContext]] = []

    def current() -> ssl.SSLContext:
        stamps = [stamp(path) for path in watched]
        if not held or held[0][0] != stamps:
            held[:] = [(stamps, make())]
        return held[0][1]

    return current


def stamp(path: Path) -> tuple[int, int]:
    """What changes when a file is replaced."""
    try:
        found = path.stat()
    except OSError as error:
        raise ConfigError(f"{path} is missing: this context cannot serve", "make a context with fleetctl init") from error
    return found.st_mtime_ns, found.st_ino
