"""Secret references: configuration says where a secret lies, never what it is. Messages name the reference, never the value."""

import os
from pathlib import Path

from fleetctl import files
from fleetctl.errors import ConfigError, NotFound
from fleetctl.keys import ring
from fleetctl.model.device import printable

SECRET_LIMIT = 65536
_SCHEMES = "write env:NAME, file:PATH or keyring:SERVICE/USER"


def resolve(reference: str) -> str:
    """The secret that `reference` leads to; it is never empty, and one line end after it is dropped.

    Raises:
        ConfigError: the reference has no known scheme, or leads to nothing.
        NotFound, Denied: the file cannot be read.
    """
    scheme, _, place = reference.partition(":")
    match scheme:
        case "env":
            secret = _from_environment(place)
        case "file":
            secret = _from_file(place)
        case "keyring":
            secret = _from_keyring(place)
        case _:
            raise ConfigError("a secret is given by something that is no reference", _SCHEMES)
    if not secret:
        raise ConfigError(f"secret {printable(reference)} is empty", "put the secret there, or name another place")
    return secret


def _from_environment(name: str) -> str:
    secret = os.environ.get(name) if name else None
    if secret is None:
        raise ConfigError(f"secret {printable('env:' + name)} is not in the environment", f"export {name or 'NAME'}=…")
    return secret


def _from_file(place: str) -> str:
    if not place:
        raise ConfigError("secret `file:` names no file", _SCHEMES)
    path = Path(place).expanduser()
    if not path.exists():
        raise NotFound(f"secret {printable('file:' + place)} does not exist", f"create it: install -m 600 /dev/stdin {path}")
    text = _decoded(files.read_limited(path, SECRET_LIMIT))
    if text is None:
        raise ConfigError(f"secret {printable('file:' + place)} is not UTF-8", "store it as text")
    return text.removesuffix("\n").removesuffix("\r")


def _decoded(data: bytes) -> str | None:
    """Text, or None instead of an exception: that would carry the bytes, which are a secret, into a traceback."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def _from_keyring(place: str) -> str:
    service, _, user = place.partition("/")
    shown = printable("keyring:" + place)
    if not service or not user:
        raise ConfigError(f"secret {shown} names no service and user", _SCHEMES)
    secret = ring.lookup(service, user)
    if secret is None:
        raise ConfigError(f"secret {shown} is not in the keyring", f"keyring set {service} {user}")
    return secret
