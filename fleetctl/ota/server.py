"""The artifact server: immutable `/sha256/<hex>` over HTTPS with client certificates (RFC 9110 ranges, RFC 8246 immutable)."""

import re
import ssl
import threading
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO, Self

from fleetctl import https
from fleetctl.errors import Unavailable
from fleetctl.https import CHUNK
from fleetctl.ota.store import blob_path

EACH = 8
"""Connections that one certificate may hold: a device needs one or two."""
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


class _Handler(https.Handler):
    """One connection: GET and HEAD of `/sha256/<64 hex digits>`, nothing else."""

    server: "_Server"

    def answer(self) -> None:
        if self.command == "POST":
            self.send_error(HTTPStatus.METHOD_NOT_ALLOWED, "artifacts are fetched with GET")
            return
        prefix, _, digest = self.path.rpartition("/")
        path = blob_path(self.server.store, digest) if prefix == "/sha256" else None
        if path is None:
            self.send_error(HTTPStatus.NOT_FOUND, "no such artifact")
            return
        with path.open("rb") as source:
            self._send(source, path.stat().st_size, f'"{digest}"', self.command == "GET")

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


class _Server(https.Server):
    def __init__(self, address: tuple[str, int], store: Path, contexts: Callable[[], ssl.SSLContext]) -> None:
        self.store = store
        super().__init__(address, _Handler, contexts, https.Places(each=EACH))


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
