"""The socket below an MQTT connection: buffered both ways, so that a TLS record never waits unseen for the next poll."""

import socket
import ssl
from time import monotonic

from fleetctl import tls
from fleetctl.errors import Unavailable
from fleetctl.mqtt.endpoint import Endpoint

CHUNK = 65536
FILL_LIMIT = 1 << 20
LINGER_SECONDS = 1.0


class Stream:
    """What paho needs of a socket. `fill` and `flush` do the work; `recv` and `send` only touch memory."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._input = b""
        self._position = 0
        self._output = bytearray()
        self.is_open = True
        self.ended = False
        self.lingers = False
        self.failure: Exception | None = None

    @property
    def buffered(self) -> int:
        """Bytes that were read and not yet taken."""
        return len(self._input) - self._position

    @property
    def unsent(self) -> int:
        """Bytes that were written and not yet sent."""
        return len(self._output) if self.is_open else 0

    def fill(self) -> None:
        """Read what has arrived, about a mebibyte at most, and never leave bytes behind in the TLS layer."""
        chunks, total = [self._input[self._position :]], 0
        while self.is_open and not self.ended and (total < FILL_LIMIT or self._pending()):
            try:
                chunk = self._socket.recv(CHUNK)
            except (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                break
            except (OSError, ValueError) as error:
                self._fail(error)
                break
            self.ended = not chunk
            total += len(chunk)
            chunks.append(chunk)
        self._input, self._position = b"".join(chunks), 0

    def _pending(self) -> bool:
        return isinstance(self._socket, ssl.SSLSocket) and self._socket.pending() > 0

    def flush(self) -> None:
        """Write what the socket takes. When it is broken, what can still be read says why (an alert of TLS)."""
        while self.is_open and self._output and self.failure is None:
            try:
                sent = self._socket.send(bytes(self._output[:CHUNK]))
            except (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            except (OSError, ValueError) as error:
                self.fill()
                self._fail(error)
                return
            del self._output[:sent]

    def _fail(self, error: Exception) -> None:
        self.ended = True
        if not isinstance(self.failure, ssl.SSLError):
            self.failure = self.failure or error

    def recv(self, buffer_size: int) -> bytes:
        """Take at most `buffer_size` bytes of what `fill` has read."""
        taken = self._input[self._position : self._position + buffer_size]
        if not taken and not self.ended:
            raise BlockingIOError
        self._position += len(taken)
        return taken

    def send(self, buffer: bytes | bytearray) -> int:
        """Take all of it; `flush` sends it."""
        self._output += buffer
        return len(buffer)

    def setblocking(self, flag: bool) -> None:
        self._socket.setblocking(flag)

    def fileno(self) -> int:
        return self._socket.fileno() if self.is_open else -1

    def close(self) -> None:
        """Close it; when it `lingers`, deliver what was written first and let the other side read it."""
        if not self.is_open:
            return
        self.is_open = False
        try:
            if self.lingers and self.failure is None:
                self._say_goodbye(monotonic() + LINGER_SECONDS)
        finally:
            self._socket.close()

    def _say_goodbye(self, deadline: float) -> None:
        """Closing with unread input would reset the connection, and the other side might never see the last packet."""
        try:
            self._socket.settimeout(LINGER_SECONDS)
            self._socket.sendall(self._output)
            self._socket.shutdown(socket.SHUT_WR)
            while (left := deadline - monotonic()) > 0:
                self._socket.settimeout(left)
                if not self._socket.recv(CHUNK):
                    return
        except (OSError, ValueError):
            return


def open_stream(endpoint: Endpoint, timeout: float) -> Stream:
    """Resolve, connect and shake hands within `timeout` seconds each; every failure says which of them it was."""
    context = tls.client_context(endpoint.ca, endpoint.cert, endpoint.key) if endpoint.tls else None
    tcp = _open_tcp(endpoint, timeout)
    try:
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return Stream(tcp if context is None else _shake_hands(context, tcp, endpoint, timeout))
    except BaseException:
        tcp.close()
        raise


def _open_tcp(endpoint: Endpoint, timeout: float) -> socket.socket:
    hint = "is it running, and is the address right? fleetctl context show"
    try:
        return socket.create_connection((endpoint.host, endpoint.port), timeout=timeout)
    except (socket.gaierror, UnicodeError) as error:
        raise Unavailable(f"the name `{endpoint.host}` does not resolve", "check its spelling, and the name service") from error
    except ConnectionRefusedError as error:
        raise Unavailable(f"no broker answers at `{endpoint}`", hint) from error
    except TimeoutError as error:
        raise Unavailable(f"no answer from `{endpoint}` within {timeout:g} s", hint) from error
    except (OSError, OverflowError) as error:
        reason = str(getattr(error, "strerror", None) or error).lower()
        raise Unavailable(f"`{endpoint}` cannot be reached: {reason}", hint) from error


def _shake_hands(context: ssl.SSLContext, tcp: socket.socket, endpoint: Endpoint, timeout: float) -> ssl.SSLSocket:
    wrapped = context.wrap_socket(tcp, server_hostname=endpoint.host, do_handshake_on_connect=False)
    try:
        wrapped.settimeout(timeout)
        wrapped.do_handshake()
    except TimeoutError as error:
        wrapped.close()
        hint = "is it the plain port, or another service?"
        raise Unavailable(f"`{endpoint}` did not answer the TLS handshake within {timeout:g} s", hint) from error
    except (OSError, ValueError) as error:
        wrapped.close()
        raise tls.explain(error, endpoint.host, port=endpoint.port, ca=endpoint.ca, cert=endpoint.cert) from error
    return wrapped
