"""The device's side of EST (RFC 7030) over mutual TLS: a certificate for a signing request, and the authorities above it."""

import base64
import http
import http.client
import ssl
from collections.abc import Mapping
from contextlib import closing
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.serialization import pkcs7

from fleetctl import tls
from fleetctl.agent.certificate import LONGEST_CHAIN, Chain
from fleetctl.agent.identity import Identity
from fleetctl.errors import ConfigError, Denied, FleetError, Malformed, Unavailable
from fleetctl.model.device import printable
from fleetctl.wire import bundle

BODY_LIMIT = 1 << 18
TIMEOUT = 30.0
WORDS_LIMIT = 200
_CSR = {"Content-Type": "application/pkcs10", "Content-Transfer-Encoding": "base64"}


class NotYet(FleetError):
    """The server wants to be asked again: later, where a person must decide first (202), or because it is in trouble."""

    def __init__(self, message: str, seconds: float | None) -> None:
        super().__init__(message, "try again later")
        self.seconds = seconds


def reenrol(identity: Identity, csr: bytes) -> Chain:
    """The certificate for a request (DER), with whatever else the server sent; raises `NotYet` or a `FleetError`."""
    return _certificates(_ask(identity, "simplereenroll", base64.b64encode(csr), _CSR))


def authorities(identity: Identity) -> Chain:
    """The authorities of the device certificates; shows the server our certificate in use."""
    return _certificates(_ask(identity, "cacerts"))


def _ask(identity: Identity, operation: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> bytes:
    base = identity.config.enrol
    if base is None:
        raise ConfigError("the device has no address to renew at", "let the fleet tell it one: fleetctl provision serve")
    parts = urlsplit(base)
    end = identity.endpoint
    context = tls.client_context(end.ca, end.cert, end.key)
    connection = http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=TIMEOUT, context=context)
    place = f"{parts.path.rstrip('/')}/.well-known/est/{operation}"
    try:
        with closing(connection):
            connection.request("GET" if body is None else "POST", place, body, dict(headers or {}))
            response = connection.getresponse()
            data = response.read(BODY_LIMIT + 1)
    except ssl.SSLError as error:
        raise tls.explain(error, parts.hostname or "", port=parts.port, ca=end.ca, cert=end.cert) from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise Unavailable(
            f"no answer from `{parts.netloc}`: {str(reason).lower()}", "does the fleet provision? fleetctl provision serve"
        ) from error
    _check(response, data, parts.netloc)
    return data


def _check(response: http.client.HTTPResponse, data: bytes, host: str) -> None:
    status = response.status
    if status == http.HTTPStatus.OK:
        if len(data) > BODY_LIMIT:
            raise Malformed(f"`{host}` answered with more than {BODY_LIMIT} bytes")
        return
    words = printable(data[:WORDS_LIMIT].decode(errors="replace").strip()) if data.strip() else "no reason given"
    if status in (http.HTTPStatus.ACCEPTED, http.HTTPStatus.TOO_MANY_REQUESTS) or status >= 500:
        raise NotYet(f"`{host}` answered {status}: {words}", _seconds(response.getheader("Retry-After", "")))
    raise Denied(f"`{host}` refused to renew ({status}): {words}", "see why: fleetctl provision status DEVICE")


def _seconds(text: str) -> float | None:
    return float(text) if text.isascii() and text.isdecimal() and len(text) < 9 else None


def _certificates(body: bytes) -> Chain:
    try:
        found = pkcs7.load_der_pkcs7_certificates(base64.b64decode(b"".join(body.split()), validate=True))
    except Exception as error:
        raise Malformed("the answer holds no certificates (PKCS #7 in base64)") from error
    if not 0 < len(found) <= LONGEST_CHAIN:
        raise Malformed(f"the answer holds {len(found)} certificates, 1 to {LONGEST_CHAIN} are allowed")
    return found


def request_of(identity: Identity) -> x509.CertificateSigningRequestBuilder:
    """A request with the subject and the names of the certificate in use (RFC 7030 section 4.2.2)."""
    held = x509.load_pem_x509_certificates((identity.folder / bundle.CERTIFICATE).read_bytes())[0]
    builder = x509.CertificateSigningRequestBuilder(subject_name=held.subject)
    try:
        names = held.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return builder
    return builder.add_extension(names.value, critical=names.critical)
