"""The EST server: HTTP in front of a desk that decides (RFC 7030; docs/adr/0012-est.md has the table)."""

import ssl
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Protocol

from cryptography import x509

from fleetctl import https
from fleetctl.errors import FleetError, Unavailable
from fleetctl.pki.csr import CSR_LIMIT
from fleetctl.pki.est import (
    CERTS,
    REQUEST_TYPE,
    Body,
    Credentials,
    Refusal,
    certs_only,
    csr_attributes,
    read_credentials,
)

WELL_KNOWN = "/.well-known/est/"
REALM = 'Basic realm="fleetctl", charset="UTF-8"'
DRAIN = 1 << 20
"""How much of a body that is too long is read and thrown away, so that its sender gets to see the answer."""
RETRY = 5


class Operation(StrEnum):
    CA_CERTS = "cacerts"
    CSR_ATTRS = "csrattrs"
    ENROL = "simpleenroll"
    RE_ENROL = "simplereenroll"
    KEY_GENERATION = "serverkeygen"

    @property
    def method(self) -> str:
        return "GET" if self in (Operation.CA_CERTS, Operation.CSR_ATTRS) else "POST"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: `certificate` is what TLS has verified (DER), `tls_unique` binds a request to a connection of TLS 1.2."""

    certificate: bytes | None
    credentials: Credentials | None
    peer: str
    tls_unique: bytes | None = None


class Desk(Protocol):
    """What the server asks; each may raise `Refusal`, and `FleetError` for what is not the client's fault."""

    label: str

    def authorities(self) -> Sequence[x509.Certificate]: ...

    def seen(self, caller: Caller) -> None: ...

    def enrol(self, operation: Operation, caller: Caller, body: bytes) -> Body: ...


class _Handler(https.Handler):
    """One connection of one client."""

    server: "_Server"

    def answer(self) -> None:
        try:
            body = self._body()
            operation = self._operation()
            self._reply(HTTPStatus.OK, self._ask(operation, body))
        except Refusal as refusal:
            self._refuse(refusal)
        except FleetError as error:
            self.server.failed(str(self.client_address[0]), error)
            words = "the service cannot do that now"
            self._refuse(Refusal(HTTPStatus.SERVICE_UNAVAILABLE, words, code="failed", retry_after=RETRY))

    def handle_expect_100(self) -> bool:
        """Ask for the body, at once; one that is too long is refused before it is sent."""
        if self.headers.get("Content-Length", "").isdigit() and int(self.headers["Content-Length"]) > CSR_LIMIT:
            self.close_connection = True
            self._refuse(_too_long())
            return False
        self.send_response_only(HTTPStatus.CONTINUE)
        self.end_headers()
        self.wfile.flush()
        return True

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the base class finds wrong with a request."""
        self.close_connection = True
        status = HTTPStatus(code)
        self._refuse(Refusal(status, (message or status.phrase).lower(), code="http"))

    def _ask(self, operation: Operation, body: bytes) -> Body:
        desk, caller = self.server.desk, self._caller()
        if operation.method == "POST":
            return desk.enrol(operation, caller, body)
        if caller.certificate is not None:
            desk.seen(caller)
        return csr_attributes() if operation is Operation.CSR_ATTRS else certs_only(desk.authorities(), CERTS)

    def _operation(self) -> Operation:
        """The last level of the path, after one label at most (RFC 7030 section 3.2.2)."""
        path = self.path.partition("?")[0]
        label, _, name = path.removeprefix(WELL_KNOWN).rpartition("/")
        if not path.startswith(WELL_KNOWN) or label not in ("", self.server.desk.label) or name not in set(Operation):
            raise Refusal(HTTPStatus.NOT_FOUND, "no such operation", code="not_found")
        operation = Operation(name)
        if self.command != operation.method:
            raise Refusal(HTTPStatus.METHOD_NOT_ALLOWED, f"use {operation.method}", code="method")
        return operation

    def _body(self) -> bytes:
        """All of the body, so that the next request of this connection begins where it should."""
        length = self.headers.get("Content-Length", "0" if self.command != "POST" else "")
        if "Transfer-Encoding" in self.headers or not (length.isascii() and length.isdigit() and len(length) < 16):
            self.close_connection = True
            raise Refusal(HTTPStatus.LENGTH_REQUIRED, "send a Content-Length", code="length")
        if int(length) > CSR_LIMIT:
            self._drain(int(length))
            raise _too_long()
        self.inlet.begin(https.TIMEOUT, CSR_LIMIT)
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            self.close_connection = True
            raise Refusal(HTTPStatus.BAD_REQUEST, "the body is not all there", code="http")
        sent = self.headers.get_content_type() if "Content-Type" in self.headers else REQUEST_TYPE
        if body and sent != REQUEST_TYPE:
            raise Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"send {REQUEST_TYPE}", code="type")
        return body

    def _drain(self, length: int) -> None:
        self.close_connection = True
        self.inlet.begin(https.HANDSHAKE_TIMEOUT, DRAIN)
        left = min(length, DRAIN)
        while left > 0 and (chunk := self.rfile.read1(left)):
            left -= len(chunk)

    def _caller(self) -> Caller:
        connection = self.connection
        if not isinstance(connection, ssl.SSLSocket):
            raise Refusal(HTTPStatus.FORBIDDEN, "TLS is needed", code="tls")
        unique = connection.get_channel_binding("tls-unique") if connection.version() == "TLSv1.2" else None
        credentials = read_credentials(self.headers.get("Authorization"))
        return Caller(connection.getpeercert(binary_form=True), credentials, str(self.client_address[0]), unique)

    def _refuse(self, refusal: Refusal) -> None:
        headers = {} if refusal.retry_after is None else {"Retry-After": str(refusal.retry_after)}
        if refusal.status is HTTPStatus.UNAUTHORIZED:
            headers["WWW-Authenticate"] = REALM
        if refusal.status is HTTPStatus.METHOD_NOT_ALLOWED:
            headers["Allow"] = refusal.words.removeprefix("use ")
        self._reply(refusal.status, Body("text/plain; charset=utf-8", refusal.words.encode() + b"\n"), headers)

    def _reply(self, status: HTTPStatus, body: Body, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", body.type)
        if status is HTTPStatus.OK and not body.type.startswith("multipart/"):
            self.send_header("Content-Transfer-Encoding", "base64")
        self.send_header("Content-Length", str(len(body.content)))
        self.send_header("Cache-Control", "no-store")
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body.content)
        self.wfile.flush()


def _too_long() -> Refusal:
    return Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a request has at most {CSR_LIMIT} bytes", code="too_long")


class _Server(https.Server):
    desk: Desk
    failed: Callable[[str, Exception], None]


class EstServer:
    """Serves in a thread of its own between `start` and `stop`; `failed` is told whom TLS turned away, and what broke here."""

    def __init__(
        self,
        host: str,
        port: int,
        desk: Desk,
        contexts: Callable[[], ssl.SSLContext],
        failed: Callable[[str, Exception], None],
        places: https.Places | None = None,
    ) -> None:
        contexts()
        try:
            self._server = _Server((host, port), _Handler, contexts, places or https.Places(), failed)
        except OSError as error:
            raise Unavailable(
                f"cannot serve EST on `{host}:{port}`: {error.strerror}", "stop what uses the port, or choose another one"
            ) from error
        self._server.desk = desk
        self._server.failed = failed
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="est", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()
