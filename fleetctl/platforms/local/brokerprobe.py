"""A broker that runs, seen from outside: what it answers, what it refuses, and whom it lets in."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from fleetctl.errors import FleetError
from fleetctl.mqtt.endpoint import Endpoint
from fleetctl.mqtt.session import open_session
from fleetctl.mqtt.settings import Finding, Severity
from fleetctl.pki.authority import read_certificates

PLAIN_PORT = 1883
SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Canary:
    """Two devices that are nobody: one that must be let in, as `name`, and one whose certificate is revoked."""

    name: str
    good: tuple[Path, Path]
    revoked: tuple[Path, Path]


def probe_plain(host: str, port: int = PLAIN_PORT) -> Iterator[Finding]:
    """Whether somebody answers where nobody may."""
    with suppress(OSError), socket.create_connection((host, port), timeout=SECONDS):
        detail = f"something answers at `{host}:{port}` without TLS"
        yield Finding("port_1883_open", Severity.ERROR, port, detail, f"ss -ltnp 'sport = :{port}'")


def probe_tls(host: str, port: int, cert: Path | None = None) -> Iterator[Finding]:
    """Whether it speaks TLS 1.3, nothing older, and shows the certificate in `cert`."""
    try:
        shown = _shake(host, port, ssl.TLSVersion.TLSv1_3)
    except OSError as error:
        words = (getattr(error, "reason", None) or error.strerror or str(error)).lower().replace("_", " ")
        detail = f"no TLS handshake at `{host}:{port}`: {words}"
        yield Finding("no_handshake", Severity.ERROR, port, detail, "see its log; can it read its key?")
        return
    with suppress(OSError):
        _shake(host, port, ssl.TLSVersion.TLSv1_2)
        yield Finding("tls12_accepted", Severity.ERROR, port, "it still speaks TLS 1.2", "write tls_version tlsv1.3")
    if cert is not None and shown != sha256(_leaf(cert)).digest():
        detail = f"it shows another certificate than that in `{cert}`"
        yield Finding("certificate_stale", Severity.WARNING, port, detail, "have it read its files again: fleetctl broker apply")


def _shake(host: str, port: int, version: ssl.TLSVersion) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    with socket.create_connection((host, port), timeout=SECONDS) as tcp, context.wrap_socket(tcp) as tls:
        return sha256(tls.getpeercert(binary_form=True) or b"").digest()


def _leaf(cert: Path) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return read_certificates(cert)[0].public_bytes(Encoding.DER)


def let_in(endpoint: Endpoint, client_id: str | None = None) -> str | None:
    """None if the broker accepts this certificate and answers its client, else why not."""
    try:
        with open_session(endpoint, "canary", client_id=client_id, timeout=SECONDS):
            return None
    except FleetError as error:
        return error.message


def probe_people(endpoint: Endpoint) -> Iterator[Finding]:
    if (why := let_in(endpoint)) is not None:
        yield Finding("operator_refused", Severity.ERROR, endpoint.port, why, "fleetctl certs check")


def probe_canary(canary: Canary, host: str, port: int, ca: Path, *, both: bool = True) -> Iterator[Finding]:
    """Whether revocation lists do their work: the good canary enters, the revoked one (with `both`) does not."""

    def endpoint(identity: tuple[Path, Path]) -> Endpoint:
        return Endpoint(host, port, ca=ca, cert=identity[0], key=identity[1])

    if (why := let_in(endpoint(canary.good), canary.name)) is not None:
        yield Finding("canary_refused", Severity.ERROR, port, f"a device in good standing is refused: {why}", "see its log")
    if both and let_in(endpoint(canary.revoked), f"{canary.name}-r") is None:
        detail = "a revoked device is let in: it has not read the list"
        yield Finding("revoked_accepted", Severity.ERROR, port, detail, "fleetctl broker apply")
