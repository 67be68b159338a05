"""`pkcs11:` URIs (RFC 7512) that name a token, and the beginning of the labels of the keys on it."""

import re
from dataclasses import dataclass
from typing import Self
from urllib.parse import quote, unquote_to_bytes

from fleetctl.errors import ConfigError
from fleetctl.model.device import printable

SCHEME = "pkcs11:"
_PATH = {"token", "serial", "object", "type"}
_QUERY = {"module-path", "pin-source"}
_EXAMPLE = "write pkcs11:token=LABEL;object=PREFIX?module-path=/usr/lib/softhsm/libsofthsm2.so"
_PCT = re.compile(r"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True)
class Pkcs11Uri:
    """`object` is what the labels of a store's keys begin with, or the whole label of one key."""

    token: str | None = None
    serial: str | None = None
    object: str = ""
    module: str | None = None
    pin_source: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises `ConfigError`, which never shows a PIN, and so not the URI."""
        path, _, query = text.removeprefix(SCHEME).partition("?")
        if "pin-value" in text:
            raise ConfigError(
                "a PIN has no place in a URI, which is printed and stored", "leave pin-value out; export FLEETCTL_PIN_FILE=PATH"
            )
        given = _attributes(path, ";", _PATH) | _attributes(query, "&", _QUERY)
        if not text.startswith(SCHEME) or not ("token" in given or "serial" in given):
            raise ConfigError("a `pkcs11:` URI names no token", _EXAMPLE)
        if given.pop("type", "private") != "private":
            raise ConfigError("a `pkcs11:` URI is not that of a private key", "leave `type` out")
        return cls(
            given.get("token"), given.get("serial"), given.get("object", ""), given.get("module-path"), given.get("pin-source")
        )

    def __str__(self) -> str:
        path = [("token", self.token), ("serial", self.serial), ("object", self.object or None)]
        query = [("module-path", self.module), ("pin-source", self.pin_source)]
        asked = "&".join(f"{name}={quote(value, safe='/:.-_')}" for name, value in query if value is not None)
        return (
            SCHEME
            + ";".join(f"{name}={quote(value, safe=':.-_')}" for name, value in path if value is not None)
            + (f"?{asked}" if asked else "")
        )

    @property
    def shown(self) -> str:
        """The token, as messages name it."""
        return printable(self.token or f"serial {self.serial}")


def _attributes(text: str, separator: str, known: set[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for each in filter(None, text.split(separator)):
        name, equals, value = each.partition("=")
        if not equals or name not in known or name in found:
            raise ConfigError(f"a `pkcs11:` URI has {printable(name)} twice, or where it does not belong", _EXAMPLE)
        found[name] = _decoded(name, value)
    return found


def _decoded(name: str, value: str) -> str:
    try:
        text = unquote_to_bytes(value).decode()
    except UnicodeDecodeError:
        text = ""
    if not text or not text.isprintable() or _PCT.search(value):
        raise ConfigError(f"`{name}` of a `pkcs11:` URI is no text", "write other characters than letters and digits as %XX")
    return text
