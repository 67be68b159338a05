"""Artifacts of a context: probed where devices will look for them, and served from here where that is this machine."""

import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from fleetctl import https, tls
from fleetctl.config import Context
from fleetctl.errors import ConfigError, Unavailable
from fleetctl.ota.probe import probe
from fleetctl.ota.server import ArtifactServer

LOOPBACK = {"localhost": "127.0.0.1"}


def base_of(context: Context) -> tuple[str, int]:
    """Host and port of the artifact base; raises `ConfigError` for a context without one."""
    if not context.artifacts:
        raise ConfigError(
            f"context `{context.name}` has no artifact base: nobody knows where devices would look",
            f"add a line to its entry in config.yaml: artifacts: https://HOST:PORT (see {context.folder.parent})",
        )
    parts = urlsplit(context.artifacts)
    if parts.scheme != "https" or not parts.hostname:
        raise ConfigError(f"artifact base `{context.artifacts}` is not https", "name it as https://HOST:PORT")
    return parts.hostname, parts.port or 443


def client_context(context: Context) -> ssl.SSLContext:
    return tls.client_context(context.ca, context.cert, context.key)


def server(context: Context) -> ArtifactServer:
    """A server of the context's store at its artifact base; raises `Unavailable` where that is not this machine, or taken."""
    host, port = base_of(context)
    return ArtifactServer(context.releases_folder, LOOPBACK.get(host, host), port, _contexts(context))


@contextmanager
def available(context: Context, digest: str, size: int, *, serve: bool) -> Iterator[bool]:
    """Make sure that devices find the image; with `serve` this process serves it where nobody else does.

    Raises:
        Unavailable, Denied, Untrusted: they would not, and why.
    """
    secured = client_context(context)
    base_of(context)
    name = digest.removeprefix("sha256:")
    try:
        probe(context.artifacts, name, size, secured)
    except Unavailable as error:
        if not serve or context.certificates == "external":
            raise
        try:
            serving = server(context)
        except Unavailable:
            raise error from None
        with serving:
            probe(context.artifacts, name, size, secured)
            yield True
        return
    yield False


def _contexts(context: Context) -> Callable[[], ssl.SSLContext]:
    """The TLS context of the moment: made anew when one of its files has changed."""
    pki = context.pki_folder
    key = context.keys_folder / "broker.key"
    cert, device_ca, fleet_ca, device_crl, fleet_crl = (
        pki / name for name in ("broker.pem", "device-ca.pem", "fleet-ca.pem", "device.crl.pem", "fleet.crl.pem")
    )

    def make() -> ssl.SSLContext:
        made = tls.server_context(cert, key, device_ca, device_crl)
        made.load_verify_locations(fleet_ca)
        made.load_verify_locations(fleet_crl)
        return made

    return https.fresh((key, cert, device_ca, fleet_ca, device_crl, fleet_crl), make)
