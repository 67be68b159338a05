"""Is an artifact there, for somebody like a device? Asked before anything is dispatched."""

import re
import ssl

import httpx

from fleetctl.errors import Denied, Unavailable, Untrusted
from fleetctl.tls import explain

TIMEOUT = 10.0
_ERRNO = re.compile(r"^\[Errno -?\d+\] ")


def probe(base: str, hex_digest: str, size: int, context: ssl.SSLContext) -> None:
    """Ask `base` for the head of one artifact, with our own client certificate.

    Raises:
        Unavailable: nobody answers there, or the artifact is missing.
        Denied: our certificate is refused.
        Untrusted: the server's certificate is not of our authority, or the size differs.
    """
    url = f"{base.rstrip('/')}/sha256/{hex_digest}"
    hint = "serve the release store with fleetctl ota serve, or let fleetctl ota start --wait do it"
    try:
        with httpx.Client(verify=context, timeout=TIMEOUT, trust_env=False) as client:
            answer = client.head(url)
    except httpx.HTTPError as error:
        cause = _tls_cause(error)
        if cause is not None:
            raise explain(cause, httpx.URL(base).host) from error
        reason = _ERRNO.sub("", str(error)).lower() or "no reason given"
        raise Unavailable(f"the artifact base `{base}` does not answer: {reason}", hint) from error
    if answer.status_code in (401, 403):
        raise Denied(f"the artifact base `{base}` refuses our certificate ({answer.status_code})", "check the client certificate")
    if answer.status_code != 200:
        raise Unavailable(f"the artifact base `{base}` answers {answer.status_code} for `{hex_digest[:12]}…`", hint)
    if answer.headers.get("Content-Length") != str(size):
        raise Untrusted(
            f"the artifact base `{base}` holds {answer.headers.get('Content-Length')} bytes for `{hex_digest[:12]}…`, not {size}",
            "publish the release again to that base",
        )


def _tls_cause(error: BaseException) -> ssl.SSLError | None:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    return cause
