"""Whether a broker lets somebody in with a certificate: found out before anything depends on it.

A device is proven by the TLS handshake alone, with the broker's verdict on the certificate waited for. A session under its name
would cut the one that it has, or lose what the broker keeps for it.
"""

import socket
import ssl
import time
from collections.abc import Callable

from fleetctl import tls
from fleetctl.errors import Denied, Unavailable
from fleetctl.mqtt.endpoint import Endpoint
from fleetctl.mqtt.session import open_session

PATIENCE = 10.0
PAUSE = 0.5
_FUTURE = b"\x10\x0c\x00\x04MQTT\x7f\x02\x00\x3c\x00\x00"
"""A CONNECT of an MQTT version that no broker knows: whoever is let in is told so (MQTT 5.0 section 3.1.2.2), and is nobody."""
_CONNACK = b"\x20"


def reach(endpoint: Endpoint) -> None:
    """Return if something listens there; raises `Unavailable`."""
    try:
        socket.create_connection((endpoint.host, endpoint.port), timeout=PATIENCE).close()
    except OSError as error:
        raise _away(endpoint, error) from error


def prove_session(endpoint: Endpoint) -> None:
    """Connect under a name that nobody else has, and leave; raises `Denied`, `Untrusted` or `Unavailable`."""
    open_session(endpoint, "renew").close()


def prove_handshake(endpoint: Endpoint, sleep: Callable[[float], None] = time.sleep) -> None:
    """Have the certificate judged without becoming a client; raises `Denied`, `Untrusted` or `Unavailable`."""
    context = tls.client_context(endpoint.ca, endpoint.cert, endpoint.key)
    try:
        if _is_answered(endpoint, context):
            return
        sleep(PAUSE)  # it may be starting again
        if _is_answered(endpoint, context):
            return
    except ssl.SSLError as error:
        raise tls.explain(error, endpoint.host, port=endpoint.port, ca=endpoint.ca, cert=endpoint.cert) from error
    except OSError as error:
        raise _away(endpoint, error) from error
    raise Denied(
        f"the broker at `{endpoint}` closed the connection when it saw the certificate `{endpoint.cert}`",
        "see whether it is valid and not revoked: fleetctl certs verify FILE",
    )


def _is_answered(endpoint: Endpoint, context: ssl.SSLContext) -> bool:
    """Whether it speaks MQTT to whoever shows that certificate; False if it just closes."""
    with (
        socket.create_connection((endpoint.host, endpoint.port), timeout=PATIENCE) as tcp,
        context.wrap_socket(tcp, server_hostname=endpoint.host) as stream,
    ):
        try:
            stream.sendall(_FUTURE)
            return stream.recv(1) == _CONNACK
        except ConnectionError:
            return False


def _away(endpoint: Endpoint, error: OSError) -> Unavailable:
    reason = (error.strerror or str(error) or "no answer").lower()
    return Unavailable(f"the broker at `{endpoint}` cannot be reached: {reason}", "start it with fleetctl broker run")
