"""The artifact server: immutable `/sha256/<hex>` over HTTPS with client certificates (RFC 9110 ranges, RFC 8246 immutable)."""

import re
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO, Self

from fleetctl.errors import Unavailable
from fleetctl.ota.store import blob_path

CHUNK = 1 << 16
CONNECTIONS = 1024
HANDSHAKES = 256
EACH = 8
"""Connections that one certificate may hold: a device needs one or two."""
TIMEOUT = 30.0
HANDSHAKE_TIMEOUT = 10.0
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """The half-open range of bytes that a `Range` header asks for; None for everything.

    A header that is not one plain range of bytes is ignored, as RFC 9110 section 14.2 allows.

    Raises:
        ValueError: the range lies outside the `size` bytes that there are (416).
    """
    match = _RANGE.fullmatch(header.strip()) if header else None
    if not match or not (match[1] or match[2]):
        return None
    if not match[1]:
        wanted = int(match[2])
        if wanted == 0 or size == 0:
            raise ValueError(header)
        return max(0, size - wanted), size
    start, end = int(match[1]), int(match[2]) + 1 if match[2] else size
    if match[2] and end <= start:
        return None
    if start >= size:
        raise ValueError(header)
    return start, min(end, size)


class _Handler(BaseHTTPRequestHandler):
    """One connection: GET and HEAD of `/sha256/<64 hex digits>`, nothing else."""

    protocol_version = "HTTP/1.1"
    server_version = "fleetctl"
    sys_version = ""
    disable_nagle_algorithm = True
    wbufsize = CHUNK
    timeout = TIMEOUT
    server: "_Server"

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, body: bool) -> None:
        prefix, _, digest = self.path.rpartition("/")
        path = blob_path(self.server.store, digest) if prefix == "/sha256" else None
        if path is None:
            self.send_error(HTTPStatus.NOT_FOUND, "no such artifact")
            return
        with path.open("rb") as source:
            self._send(source, path.stat().st_size, f'"{digest}"', body)

    def _send(self, source: BinaryIO, size: int, etag: str, body: bool) -> None:
        condition = self.headers.get("If-Range")
        try:
            span = parse_range(self.headers.get("Range"), size) if condition in (None, etag) else None
        except ValueError:
            self.send_response(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
            self.send_header("Content-Range", f"bytes */{size}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start, end = span or (0, size)
        self.send_response(HTTPStatus.PARTIAL_CONTENT if span else HTTPStatus.OK)
        if span:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
        self.send_header("Content-Length", str(end - start))
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", etag)
        self.send_header("Cache-Control", "public, max-age=31536000, immutable")
        self.end_headers()
        if body:
            self._copy(source, start, end)

    def _copy(self, source: BinaryIO, start: int, end: int) -> None:
        source.seek(start)
        while start < end:
            chunk = source.read(min(CHUNK, end - start))
            if not chunk:
                self.close_connection = True
                return
            self.wfile.write(chunk)
            start += len(chunk)

    def log_message(self, *_: Any) -> None:
        """Quiet: what devices fetch is counted by the rollout, not logged here."""


class _Server(ThreadingHTTPServer):
    """TLS handshakes run in the connection's own thread, so that a slow client never holds up the accept loop."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], store: Path, contexts: Callable[[], ssl.SSLContext]) -> None:
        self.store = store
        self._contexts = contexts
        self._places = threading.BoundedSemaphore(CONNECTIONS)
        self._handshakes = threading.BoundedSemaphore(HANDSHAKES)
        self._held: Counter[bytes] = Counter()
        self._lock = threading.Lock()
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Shake hands, then serve; who has no certificate of ours takes a place of those who shake hands, and no other."""
        try:
            with self._place(self._handshakes):
                request.settimeout(HANDSHAKE_TIMEOUT)
                secured = self._contexts().wrap_socket(request, server_side=True)
            with secured, self._place(self._places), self._of(secured.getpeercert(binary_form=True) or b""):
                secured.settimeout(TIMEOUT)
                super().finish_request(secured, client_address)
        except OSError:
            return  # the peer went away, or had no certificate of ours: its affair, and it was told by TLS

    @contextmanager
    def _place(self, places: threading.BoundedSemaphore) -> Iterator[None]:
        if not places.acquire(blocking=False):
            raise ConnectionAbortedError("no place is free")
        try:
            yield
        finally:
            places.release()

    @contextmanager
    def _of(self, certificate: bytes) -> Iterator[None]:
        with self._lock:
            if self._held[certificate] >= EACH:
                raise ConnectionAbortedError("this certificate holds enough connections")
            self._held[certificate] += 1
        try:
            yield
        finally:
            with self._lock:
                self._held[certificate] -= 1
                if not self._held[certificate]:
                    del self._held[certificate]


class ArtifactServer:
    """Serves a store's blobs in a thread of its own; a context manager.

    `contexts` returns the TLS context of the moment, so that a new certificate or CRL counts from the next connection on.
    """

    def __init__(self, store: Path, host: str, port: int, contexts: Callable[[], ssl.SSLContext]) -> None:
        contexts()
        try:
            self._server = _Server((host, port), store, contexts)
        except OSError as error:
            raise Unavailable(
                f"cannot serve artifacts on `{host}:{port}`: {error.strerror}",
                "stop what uses the port, or choose another artifact base",
            ) from error
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="artifacts", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def wait(self) -> None:
        """Return when the server has ended; Ctrl-C gets through."""
        while self._thread.is_alive():
            self._thread.join(1.0)

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
