"""What a local broker is made of, whichever engine runs it: its listeners, their certificates and their rules."""

import errno
import ipaddress
import os
import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from fleetctl.errors import ConfigError, Unavailable
from fleetctl.model.access import Rule

BrokerEngine = Literal["mosquitto", "builtin"]
ADMIN_FOLDERS = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin")


@dataclass(frozen=True, slots=True)
class Listener:
    """One port. `identity_is_client_id`: the certificate's CN is the client id as well as the user name.

    `transient`: its clients leave nothing behind, neither a session nor a retained message, and there are few of them at a time.
    `denied`: identities that may do nothing here, whatever their certificates say.
    """

    host: str
    port: int
    cert: Path
    key: Path
    client_ca: Path
    crl: Path
    rules: tuple[Rule, ...]
    identity_is_client_id: bool
    transient: bool = False
    denied: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class BrokerConfig:
    """`folder` is for what the engine writes (rendered configuration, log); `allow_remote` permits other than loopback.

    `claims` is for devices that have a claim and no identity yet; without it nobody enrols over MQTT.
    """

    device: Listener
    fleet: Listener
    folder: Path
    allow_remote: bool = False
    claims: Listener | None = None

    @property
    def named(self) -> dict[str, Listener]:
        """The listeners that there are, by what they are called."""
        found = {"device": self.device, "fleet": self.fleet}
        return found if self.claims is None else {**found, "claims": self.claims}

    @property
    def listeners(self) -> tuple[Listener, ...]:
        return tuple(self.named.values())


class Broker(Protocol):
    """A broker that this process runs, and that does not outlive it."""

    def start(self) -> None:
        """Return once all listeners answer a TLS handshake."""

    def reload(self, config: BrokerConfig | None = None) -> None:
        """Read certificates, authorities and lists again; of `config` only those who are denied may differ."""

    def wait(self, timeout: float | None = None) -> bool:
        """Whether it has ended, after at most `timeout` seconds."""

    def stop(self) -> None:
        """End it; harmless when it has ended already."""


def find_mosquitto(which: Callable[..., str | None] = shutil.which) -> Path | None:
    """The program, also where distributions put it off a user's PATH."""
    found = which("mosquitto") or which("mosquitto", path=os.pathsep.join(ADMIN_FOLDERS))
    return Path(found) if found else None


def choose_engine(wanted: str | None, which: Callable[..., str | None] = shutil.which) -> BrokerEngine:
    """The engine asked for, else mosquitto where it is installed."""
    if wanted not in (None, "mosquitto", "builtin"):
        raise ConfigError(f"`{wanted}` is not a broker engine", "choose mosquitto or builtin")
    if wanted == "builtin":
        return "builtin"
    if find_mosquitto(which):
        return "mosquitto"
    if wanted == "mosquitto":
        raise ConfigError("mosquitto is not installed", "install it (apt-get install mosquitto), or use --engine builtin")
    return "builtin"


def check_config(config: BrokerConfig) -> None:
    """Raise `ConfigError` for what no engine may serve: an open address unasked, one port twice, a missing file."""
    _check_places(config)
    for listener in config.listeners:
        if not config.allow_remote and not is_loopback(listener.host):
            raise ConfigError(
                f"`{listener.host}` is reachable from other machines, and nobody asked for that",
                "listen on 127.0.0.1, or allow remote clients explicitly",
            )
        for path in (listener.cert, listener.key, listener.client_ca, listener.crl):
            if not path.is_file():
                raise ConfigError(
                    f"the broker needs `{path}`, which does not exist", "see what else is wrong: fleetctl certs check"
                )


def _check_places(config: BrokerConfig) -> None:
    taken: dict[tuple[str, int], str] = {}
    for name, listener in config.named.items():
        other = taken.setdefault((listener.host, listener.port), name)
        if other != name and listener.port:
            raise ConfigError(
                f"the {other} and the {name} listener cannot share port {listener.port}", "give each listener its own port"
            )


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def reachable(host: str) -> str:
    """An address at which this machine itself finds a listener: the unspecified one is no destination."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if not address.is_unspecified:
        return host
    return "127.0.0.1" if address.version == 4 else "::1"


def check_ports(config: BrokerConfig) -> None:
    """Raise `Unavailable` naming the port that something else holds; port 0 (any) is always free."""
    for listener in config.listeners:
        if listener.port:
            _check_port(listener.host, listener.port)


def _check_port(host: str, port: int) -> None:
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"the broker cannot listen on `{host}`: no such address", "listen on 127.0.0.1") from error
    for family, kind, protocol, _name, address in addresses:
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
        except OSError as error:
            _explain_bind(host, port, error)


def _explain_bind(host: str, port: int, error: OSError) -> None:
    if error.errno == errno.EADDRINUSE:
        raise Unavailable(f"port `{port}` is taken", f"another broker may run already: ss -ltnp 'sport = :{port}'") from error
    if error.errno == errno.EACCES:
        raise Unavailable(f"port `{port}` needs privileges that this user lacks", "choose a port above 1023") from error
    if error.errno != errno.EAFNOSUPPORT and not (host == "localhost" and error.errno == errno.EADDRNOTAVAIL):
        raise ConfigError(f"the broker cannot listen on `{host}:{port}`: {error.strerror}", "listen on 127.0.0.1") from error
