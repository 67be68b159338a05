"""A fleet with EST in front of it, and a device that speaks HTTP by hand."""

import base64
import http.client
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs7

from fleetctl.config import load_context
from fleetctl.keys.store import private_pem
from fleetctl.model.device import LifeCycle
from fleetctl.pki.authority import pem
from fleetctl.pki.csr import make_csr
from fleetctl.platforms.local import tokens
from fleetctl.platforms.local.enrolment.events import ServeEvent
from fleetctl.platforms.local.est import EstService
from fleetctl.platforms.local.fleet import LocalFleet
from fleetctl.platforms.local.init import create_context
from fleetctl.platforms.local.layout import Layout

Key = ec.EllipticCurvePrivateKey
TYPE = "application/pkcs10"


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def new_key() -> Key:
    return ec.generate_private_key(ec.SECP256R1())


class Reply(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def certificates(self) -> Sequence[x509.Certificate]:
        assert self.status == 200, self.body
        return pkcs7.load_der_pkcs7_certificates(base64.b64decode(self.body, validate=True))

    @property
    def certificate(self) -> x509.Certificate:
        (one,) = self.certificates
        return one

    @property
    def words(self) -> str:
        assert self.headers["Content-Type"] == "text/plain; charset=utf-8"
        return self.body.decode().removesuffix("\n")


class Stand:
    """The service in this process; `fleet` is the operator's own view of the same registry."""

    def __init__(self, folder: Path) -> None:
        create_context("prod", "acme", "mqtts://localhost:1", "alice")
        self.fleet = LocalFleet(load_context("prod"))
        self.folder = folder
        self.layout = Layout(self.fleet.context.folder)
        self.events: list[ServeEvent] = []
        self.service = EstService(self.fleet, "localhost:0", self.events.append)

    def restart(self) -> None:
        port = port_of(self.service.url)
        self.service.stop()
        self.service = EstService(self.fleet, f"localhost:{port}", self.events.append)
        self.service.start()

    def close(self) -> None:
        self.service.stop()
        self.fleet.close()

    def add(self, name: str = "p-1") -> str:
        self.fleet.devices.add(name, device_type="pump", location="oslo", labels={})
        return name

    def token(self, name: str = "p-1", seconds: float = 3600.0) -> str:
        (made,) = tokens.create(self.fleet, [self.fleet.registry.device(name)], seconds)
        return made.token

    def state(self, name: str = "p-1") -> LifeCycle:
        return self.fleet.registry.device(name).state

    def steps(self, name: str = "p-1") -> list[str]:
        return [row.event for row in self.fleet.registry.timeline(name)]

    def serials(self, name: str = "p-1") -> set[str]:
        return {row.serial for row in self.fleet.registry.certificates(name)}

    def holding(self, name: str, certificate: x509.Certificate, key: Key) -> Path:
        """A file with a key and its certificate, as clients take it."""
        path = self.folder / f"{name}.pem"
        path.write_bytes(private_pem(key) + pem(certificate))
        return path

    @contextmanager
    def connection(
        self, holding: Path | None = None, *, newest: ssl.TLSVersion | None = None, url: str | None = None
    ) -> Iterator[http.client.HTTPSConnection]:
        context = ssl.create_default_context(cafile=str(self.layout.fleet_ca))
        if newest is not None:
            context.maximum_version = newest
        if holding is not None:
            context.load_cert_chain(holding)
        made = http.client.HTTPSConnection("localhost", port_of(url or self.service.url), timeout=10, context=context)
        try:
            yield made
        finally:
            made.close()

    def ask(
        self,
        operation: str,
        body: bytes | None = None,
        *,
        user: str | None = None,
        holding: Path | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        with self.connection(holding) as connection:
            return ask(connection, operation, body, user=user, headers=headers)

    def enrolled(self, name: str = "p-1", key: Key | None = None) -> tuple[x509.Certificate, Path]:
        """A device with its first certificate, and the file that holds it with its key."""
        secret = key or new_key()
        reply = self.ask("simpleenroll", make_csr(secret, name), user=f"{name}:{self.token(name)}")
        return reply.certificate, self.holding(name, reply.certificate, secret)


def ask(
    connection: http.client.HTTPSConnection,
    operation: str,
    body: bytes | None = None,
    *,
    user: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Reply:
    sent = {} if body is None else {"Content-Type": TYPE}
    if user is not None:
        sent["Authorization"] = "Basic " + base64.b64encode(user.encode()).decode()
    path = operation if operation.startswith("/") else f"/.well-known/est/{operation}"
    connection.request("GET" if body is None else "POST", path, body, {**sent, **(headers or {})})
    reply = connection.getresponse()
    return Reply(reply.status, dict(reply.getheaders()), reply.read())
