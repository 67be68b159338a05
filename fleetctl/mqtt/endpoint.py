"""Where a broker is and how a client proves itself there."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from fleetctl.errors import ConfigError
from fleetctl.model.device import printable

DEFAULT_PORTS = {"mqtts": 8883, "mqtt": 1883}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`ca` None means the system's authorities; `cert` and `key` are ours."""

    host: str
    port: int
    tls: bool = True
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        """`host:port`, as messages name it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{'mqtts' if self.tls else 'mqtt'}://{self}"

    @classmethod
    def parse_url(
        cls,
        url: str,
        *,
        ca: Path | None = None,
        cert: Path | None = None,
        key: Path | None = None,
        username: str | None = None,
        password: str | None = None,
    ) -> Self:
        """The endpoint that `mqtts://host[:port]` or `mqtt://host[:port]` names; raises `ConfigError`."""
        hint = "write mqtts://host:8883"
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ConfigError(f"{printable(url)} is not a broker's address", hint) from error
        if parts.username is not None or parts.password is not None:
            raise ConfigError("a broker's address carries no user name or password", "keep them in a secret reference")
        host = parts.hostname or ""
        if parts.scheme not in DEFAULT_PORTS or not _is_host(host) or port == 0 or parts.path not in ("", "/"):
            raise ConfigError(f"{printable(url)} is not a broker's address", hint)
        if parts.query or parts.fragment:
            raise ConfigError(f"{printable(url)} is not a broker's address", hint)
        tls = parts.scheme == "mqtts"
        return cls(host, port or DEFAULT_PORTS[parts.scheme], tls, ca, cert, key, username, password)


def _is_host(host: str) -> bool:
    return 0 < len(host) <= 253 and host.isprintable() and not set(host) & set(" \\\"'`%/")
