"""EST of a context: the server, and the one thread in which its registry and its keys are used."""

import ssl
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from cryptography import x509

from fleetctl import https, tls
from fleetctl.config import Context
from fleetctl.errors import ConfigError, FleetError, Unavailable
from fleetctl.model.enrolment import Buckets
from fleetctl.pki.authority import read_certificates
from fleetctl.pki.est import Body, Refusal, certs_only, key_and_certificate
from fleetctl.pki.est_server import Caller, EstServer, Operation
from fleetctl.platforms.local.artifacts import LOOPBACK
from fleetctl.platforms.local.enrolment.events import ServeEvent, What
from fleetctl.platforms.local.est_desk import Desk
from fleetctl.platforms.local.est_proof import ACTOR
from fleetctl.platforms.local.fleet import LocalFleet
from fleetctl.platforms.local.layout import Layout
from fleetctl.wire.document import rfc3339

if TYPE_CHECKING:
    from fleetctl.config import Place

T = TypeVar("T")
PATIENCE = 30.0
RENEWALS, RENEWALS_PER_SECOND = 16, 1 / 60
"""New certificates that one device may fetch at once, and from then on."""
TOLD, TOLD_PER_SECOND = 20, 0.2
"""Refusals of one address that are reported at once, and from then on: whoever knocks for ever fills no log."""
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"


class EstService:
    """Issues and renews over EST between `start` and `stop`; `tell` hears what happens, from threads of this service.

    `listen` is `HOST:PORT`, None for where the context says that devices enrol.
    """

    def __init__(
        self,
        fleet: LocalFleet,
        listen: str | None,
        tell: Callable[[ServeEvent], None],
        *,
        renewals: Buckets | None = None,
        places: https.Places | None = None,
    ) -> None:
        self._place: Context | Place = fleet.context
        self._context = fleet.context
        self._clock = fleet.clock
        self._tell = tell
        self._listen = address(fleet.context, listen)
        self._renewals = Buckets(RENEWALS, RENEWALS_PER_SECOND) if renewals is None else renewals
        self._told = Buckets(TOLD, TOLD_PER_SECOND)
        self._places = places
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="est-registry")
        self._watched = (self._context.pki_folder / "device-ca.pem", self._context.pki_folder / "fleet-ca.pem")
        self._desk: tuple[list[tuple[int, int]], Desk] | None = None
        self._server: EstServer | None = None
        self.label = fleet.tenant

    @property
    def url(self) -> str:
        """The base of it: what `/.well-known/est/` is appended to."""
        host, port = self._listen
        name = f"[{host}]" if ":" in host else host
        return f"https://{name}:{self._server.port if self._server else port}"

    def start(self) -> None:
        """Listen; raises `Unavailable` for a port that is taken, `ConfigError` for a context that cannot issue."""
        try:
            self._call(lambda desk: desk.issuer.authority())
            host, port = self._listen
            server = EstServer(LOOPBACK.get(host, host), port, self, tls_contexts(self._context), self._failed, self._places)
        except BaseException:
            self._end()
            raise
        self._server = server
        server.start()

    def stop(self) -> None:
        """Take no more requests; what has begun ends first."""
        if self._server is not None:
            self._server.stop()
        self._end()

    def authorities(self) -> Sequence[x509.Certificate]:
        return self._call(lambda desk: desk.authorities)

    def seen(self, caller: Caller) -> None:
        self._asked(caller, lambda desk: desk.holder(caller))

    def enrol(self, operation: Operation, caller: Caller, body: bytes) -> Body:
        certificate, key = self._asked(caller, lambda desk: desk.enrol(operation, caller, body))
        found = x509.load_pem_x509_certificate(certificate.encode())
        return certs_only([found]) if key is None else key_and_certificate(key, found)

    def _asked(self, caller: Caller, work: "Callable[[Desk], T]") -> T:
        try:
            return self._call(work)
        except Refusal as refusal:
            # without any credentials it is only the question which are wanted (RFC 9110 section 11.6.1)
            if refusal.code != "pending" and (caller.certificate or caller.credentials):
                self._refused(caller.peer, refusal.code, refusal.words)
            raise

    def _call(self, work: "Callable[[Desk], T]") -> T:
        """In the one thread that owns the registry's connection and the authority's key."""
        try:
            return self._worker.submit(lambda: work(self._current())).result(PATIENCE)
        except (RuntimeError, TimeoutError) as error:
            raise Unavailable("enrolment over EST has no time now", "try again in a moment") from error

    def _current(self) -> Desk:
        """The desk of the moment: it changes with the authorities."""
        stamps = [https.stamp(path) for path in self._watched]
        if self._desk is None or self._desk[0] != stamps:
            self._close()
            fleet = LocalFleet(self._place, self._clock)
            fleet.actor = ACTOR
            self._desk = stamps, Desk(fleet, self._authorities(fleet), self._renewals, self._tell)
        return self._desk[1]

    def _authorities(self, fleet: LocalFleet) -> list[x509.Certificate]:
        """Those of devices that count still, and that of the services: it has issued this server's certificate."""
        rows = [row for row in fleet.registry.authorities("devices") if row.state != "retired"]
        ours = [each for row in rows for each in x509.load_pem_x509_certificates(row.pem.encode())]
        return list(dict.fromkeys([*ours, *read_certificates(Layout(self._context.folder).fleet_ca)]))

    def _close(self) -> None:
        if self._desk is not None:
            self._desk[1].fleet.close()
            self._desk = None

    def _end(self) -> None:
        try:
            self._worker.submit(self._close)
        except RuntimeError:
            return  # it has ended before
        self._worker.shutdown()

    def _failed(self, peer: str, error: Exception) -> None:
        if isinstance(error, ssl.SSLCertVerificationError):
            self._refused(peer, "certificate", f"its certificate is not accepted: {error.verify_message}")
        elif isinstance(error, FleetError):
            self._event(What.FAILED, error.code, error.message)

    def _refused(self, peer: str, code: str, words: str) -> None:
        if self._told.take(peer, self._clock()):
            self._event(What.REFUSED, code, f"{peer}: {words}")

    def _event(self, what: What, code: str, detail: str) -> None:
        self._tell(ServeEvent(what, rfc3339(self._clock()), code=code, detail=detail))


def address(context: Context, listen: str | None) -> tuple[str, int]:
    """Host and port to listen at; raises `ConfigError`."""
    parts = urlsplit(context.enrol if listen is None else f"https://{listen}")
    if listen is None and (parts.scheme != "https" or not parts.hostname):
        raise ConfigError(f"`{context.enrol}` is no address for EST", "write it as enrol: https://HOST:PORT in config.yaml")
    try:
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"`{listen or context.enrol}` has no port that exists", "write it as HOST:PORT") from error
    return parts.hostname or "localhost", 443 if port is None else port


def tls_contexts(context: Context) -> Callable[[], ssl.SSLContext]:
    """A certificate of a device is optional, and must be good where it is shown; TLS 1.2 for clients like strongSwan's."""
    pki, key = context.pki_folder, context.keys_folder / "broker.key"
    cert, authorities, lists = pki / "broker.pem", pki / "device-ca.pem", pki / "device.crl.pem"

    def make() -> ssl.SSLContext:
        made = tls.server_context(cert, key, authorities, lists, ssl.TLSVersion.TLSv1_2)
        made.verify_mode = ssl.CERT_OPTIONAL
        made.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
        made.set_ciphers(CIPHERS)
        return made

    return https.fresh((key, cert, authorities, lists), make)
