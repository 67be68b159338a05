"""TLS contexts, and TLS failures put into words: whose certificate, what is wrong with it, and by how much."""

import socket
import ssl
from pathlib import Path
from time import time
from typing import TYPE_CHECKING

from fleetctl.errors import ConfigError, Denied, FleetError, Unavailable, Untrusted
from fleetctl.model.device import printable

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

PROBE_SECONDS = 3.0
BROKEN_HINT = "try again; if it lasts, see the log of that server"
CLOCK_HINT = "is the clock right? date -u"

# X509_V_ERR_* of openssl/x509_vfy.h
_NOT_YET_VALID, _EXPIRED = 9, 10
_OTHER_AUTHORITY = (2, 18, 19, 20, 21)
_REVOKED = 23
_WRONG_PURPOSE = 26
_OTHER_NAME = (62, 64)

# what the other side's alert says of our certificate (RFC 8446 section 6.2), by the end of OpenSSL's name for it
_ABOUT_OURS = {
    "ALERT_CERTIFICATE_REQUIRED": "it demands one and none was shown",
    "ALERT_CERTIFICATE_REVOKED": "it is revoked",
    "ALERT_CERTIFICATE_EXPIRED": "it has expired",
    "ALERT_UNKNOWN_CA": "it was issued by an authority that is not accepted there",
    "ALERT_BAD_CERTIFICATE": "it is not acceptable there",
    "ALERT_UNSUPPORTED_CERTIFICATE": "it is not meant for clients",
    "ALERT_CERTIFICATE_UNKNOWN": "it is not acceptable there",
    "ALERT_ACCESS_DENIED": "its holder has no access",
    "ALERT_DECRYPT_ERROR": "its key does not match",
}
_NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "UNEXPECTED_MESSAGE")
_NO_COMMON_GROUND = ("ALERT_PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL", "ALERT_HANDSHAKE_FAILURE", "NO_SHARED_CIPHER")


def client_context(
    ca: Path | None,
    cert: Path | None = None,
    key: Path | None = None,
    minimum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
) -> ssl.SSLContext:
    """A context that trusts `ca` alone (None: the system's authorities) and shows `cert`; raises `ConfigError`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = minimum
    if ca is None:
        context.load_default_certs()
    else:
        _trust(context, ca, "CA file")
    if cert is not None:
        _identify(context, cert, key)
    return context


def server_context(
    cert: Path,
    key: Path,
    client_ca: Path,
    crl: Path | None = None,
    minimum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
) -> ssl.SSLContext:
    """A context that demands a client certificate of `client_ca` which `crl` does not list; raises `ConfigError`.

    No session tickets: one from before a revocation would be resumed after it.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = minimum
    context.verify_mode = ssl.CERT_REQUIRED
    context.num_tickets = 0
    _identify(context, cert, key)
    _trust(context, client_ca, "CA file")
    if crl is not None:
        _trust(context, crl, "revocation list")
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    return context


def _trust(context: ssl.SSLContext, path: Path, what: str) -> None:
    _readable(path, what)
    before = context.cert_store_stats()
    try:
        context.load_verify_locations(cafile=path)
    except ssl.SSLError as error:
        raise ConfigError(f"the {what} `{path}` holds no PEM that OpenSSL reads", f"openssl x509 -in {path} -noout") from error
    after, kind = context.cert_store_stats(), "crl" if what == "revocation list" else "x509"
    if after[kind] == before[kind]:
        raise ConfigError(f"the {what} `{path}` holds none", "is it another file's name?")


def _identify(context: ssl.SSLContext, cert: Path, key: Path | None) -> None:
    _readable(cert, "certificate")
    if key is not None:
        _readable(key, "key")
    try:
        context.load_cert_chain(cert, key, password=_refuse_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            hint = (
                f"these print the same for a pair: openssl x509 -in {cert} -noout -pubkey; openssl pkey -in {key or cert} -pubout"
            )
            raise ConfigError(f"the key `{key or cert}` does not belong to the certificate `{cert}`", hint) from error
        hint = f"openssl x509 -in {cert} -noout; openssl pkey -in {key or cert} -noout"
        raise ConfigError(f"`{cert}` and `{key or cert}` are not a PEM certificate and its key", hint) from error


def _refuse_password() -> str:
    raise ConfigError("the key is encrypted, and TLS keys are read without a passphrase", "openssl pkey -in KEY -out PLAIN_KEY")


def _readable(path: Path, what: str) -> None:
    try:
        with path.open("rb"):
            return
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConfigError(f"cannot read the {what} `{path}`: {reason.lower()}", f"ls -l {path}") from error


def explain(
    error: Exception,
    host: str,
    *,
    port: int | None = None,
    ca: Path | None = None,
    cert: Path | None = None,
    now: float | None = None,
) -> FleetError:
    """What a failed handshake, or the first read after it, means: what is theirs is `Untrusted`, what is ours `Denied`.

    With `port` their certificate is fetched once more, unverified, to say what is wrong with it.
    """
    moment = time() if now is None else now
    if isinstance(error, ssl.SSLCertVerificationError):
        return _about_theirs(error, host, port, ca, moment)
    if not isinstance(error, ssl.SSLError):
        return Unavailable(f"the TLS connection to `{host}` broke: {_words(error)}", BROKEN_HINT)
    reason = error.reason or ""
    for alert, words in _ABOUT_OURS.items():
        if reason.endswith(alert):
            return _about_ours(host, alert, words, cert, moment)
    if reason in _NO_TLS:
        return Unavailable(f"`{_place(host, port)}` does not speak TLS", "is it the plain port, or another service?")
    if reason.endswith(_NO_COMMON_GROUND):
        return Unavailable(f"`{host}` offers no version of TLS that is accepted here", "enable TLS 1.3 on it")
    return Unavailable(f"the TLS connection to `{host}` broke: {_words(error)}", BROKEN_HINT)


def _about_theirs(error: ssl.SSLCertVerificationError, host: str, port: int | None, ca: Path | None, now: float) -> Untrusted:
    code = error.verify_code
    shown = _fetch(host, port) if port is not None and code in (_NOT_YET_VALID, _EXPIRED, *_OTHER_NAME) else None
    authority = f"`{ca}`" if ca else "an authority that this system trusts"
    flaws = {
        _EXPIRED: (f"has expired{_ago(shown, now)}", "renew it there; if it is in date, set the clock here"),
        _NOT_YET_VALID: (f"is not valid yet{_ahead(shown, now)}", CLOCK_HINT),
        _REVOKED: ("is revoked", "ask who runs that server for its new certificate"),
        _WRONG_PURPOSE: ("is not meant for servers", "give that server a certificate with serverAuth"),
        **dict.fromkeys(_OTHER_AUTHORITY, (f"was not issued by {authority}", "name the CA file of that server")),
    }
    if code in _OTHER_NAME:
        names = f", only for {_names(shown)}" if shown is not None else ""
        return Untrusted(f"the certificate is not for `{host}`{names}", "use a name that the certificate holds")
    flaw, hint = flaws.get(code, (f"cannot be verified: {error.verify_message}", "look at it: openssl s_client -showcerts"))
    return Untrusted(f"the certificate of `{host}` {flaw}", hint)


def _about_ours(host: str, alert: str, words: str, cert: Path | None, now: float) -> Denied:
    if cert is None or alert == "ALERT_CERTIFICATE_REQUIRED":
        sentence = f"`{host}` refused the connection: it wants a client certificate that it accepts"
        return Denied(sentence, "name a certificate and its key")
    ours, hint = _read(cert), "issue a new one, or name another"
    if ours is not None and ours.not_valid_after_utc.timestamp() <= now:
        words = f"it has expired{_ago(ours, now)}"
    if ours is not None and ours.not_valid_before_utc.timestamp() > now:
        words, hint = f"it is not valid yet{_ahead(ours, now)}", CLOCK_HINT
    return Denied(f"`{host}` refused our certificate `{cert}`: {words}", hint)


def _fetch(host: str, port: int | None) -> "Certificate | None":
    """What the server shows, unverified: for words in an error, never for a decision."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, port or 0), timeout=PROBE_SECONDS) as tcp,
            context.wrap_socket(tcp, server_hostname=host) as tls,
        ):
            shown = tls.getpeercert(binary_form=True)
    except (OSError, ValueError):
        return None
    from cryptography.x509 import load_der_x509_certificate

    try:
        return load_der_x509_certificate(shown) if shown else None
    except ValueError:
        return None


def _read(path: Path) -> "Certificate | None":
    from cryptography.x509 import load_pem_x509_certificate

    try:
        return load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError):
        return None


def _ago(certificate: "Certificate | None", now: float) -> str:
    """Nothing where the certificate shown is in date: then it is its issuer that is not."""
    late = 0.0 if certificate is None else now - certificate.not_valid_after_utc.timestamp()
    return f", {_span(late)} ago" if late > 0 else ""


def _ahead(certificate: "Certificate | None", now: float) -> str:
    early = 0.0 if certificate is None else certificate.not_valid_before_utc.timestamp() - now
    return f", it begins in {_span(early)}" if early > 0 else ""


def _span(seconds: float) -> str:
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return "less than a minute"


def _names(certificate: "Certificate") -> str:
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found = [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]
    except (x509.ExtensionNotFound, ValueError):
        found = []
    return ", ".join(printable(name) for name in found[:5]) or "no name at all"


def _place(host: str, port: int | None) -> str:
    return host if port is None else f"{host}:{port}"


def _words(error: Exception) -> str:
    """A library's message in our style: lower case, without its decoration."""
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(reason).lower().replace("_", " ")
