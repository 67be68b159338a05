"""`broker render`: the files of a mosquitto that runs elsewhere, the same bytes as long as the fleet is the same."""

import os
import pwd
from dataclasses import dataclass, replace
from pathlib import Path

from fleetctl import files
from fleetctl.config import Context
from fleetctl.errors import ConfigError, UsageError
from fleetctl.model.device import printable
from fleetctl.mqtt.broker import BrokerConfig, Listener
from fleetctl.mqtt.mosquitto import render_config
from fleetctl.pki.authority import PEM_LIMIT
from fleetctl.pki.crl import CRL_LIMIT
from fleetctl.platforms.local.listeners import broker_config, gather

CONFIGURATION = "mosquitto.conf"
KEY = "broker.key"
HEADER = "# made by fleetctl broker render, for the folder "
PRIVATE, PUBLIC = 0o600, 0o644


@dataclass(frozen=True, slots=True)
class RenderedFile:
    """One file: what was `rendered`, or left `unchanged`; `path` is where that mosquitto finds it."""

    name: str
    path: str
    mode: str
    outcome: str


@dataclass(frozen=True, slots=True)
class Rendering:
    """What to render: `prefix` is the folder as the broker's host sees it, `key` where its key is there.

    With `with_key` the key is among the files; `persistence` is a folder for retained messages and sessions.
    """

    prefix: Path
    listen: str | None = None
    user: str | None = "mosquitto"
    key: Path | None = None
    with_key: bool = False
    persistence: Path | None = None

    def __post_init__(self) -> None:
        for path in filter(None, (self.prefix, self.key, self.persistence)):
            if not path.is_absolute():
                raise UsageError(f"`{printable(str(path))}` is not a whole path", "begin it with /")
        if self.with_key and self.key is not None:
            raise UsageError("the key is either copied or somewhere already", "leave out --key or --with-key")


def make_files(context: Context, wanted: Rendering) -> dict[str, tuple[bytes, int]]:
    """Content and mode of every file by name; raises `ConfigError`, `NotFound` or `Denied`."""
    own = broker_config(context, wanted.listen, "render")
    gather(context)
    config = moved_config(context, wanted)
    texts = render_config(config, wanted.user, persistence=wanted.persistence)
    texts[CONFIGURATION] = f"{HEADER}{wanted.prefix}\n{texts[CONFIGURATION]}"
    made = {name: (text.encode(), PUBLIC) for name, text in texts.items()}
    for before, after in zip(own.listeners, config.listeners, strict=True):
        made[after.client_ca.name] = files.read_limited(before.client_ca, PEM_LIMIT), PUBLIC
        made[after.crl.name] = files.read_limited(before.crl, CRL_LIMIT), PUBLIC
    made[own.device.cert.name] = files.read_limited(own.device.cert, PEM_LIMIT), PUBLIC
    if wanted.with_key:
        made[KEY] = _key(own.device.key), PRIVATE
    return made


def _key(path: Path) -> bytes:
    if not path.is_file():
        raise ConfigError(f"there is no `{printable(str(path))}`: a broker's key must be a file", "fleetctl certs renew broker")
    return files.read_private(path, PEM_LIMIT)


def moved_config(context: Context, wanted: Rendering) -> BrokerConfig:
    """The listeners of the context, with their files in the prefix."""
    config = broker_config(context, wanted.listen, "render")
    key = wanted.key or (wanted.prefix / KEY)

    def move(listener: Listener) -> Listener:
        cert, ca, crl = (wanted.prefix / path.name for path in (listener.cert, listener.client_ca, listener.crl))
        return replace(listener, cert=cert, key=key, client_ca=ca, crl=crl)

    claims = None if config.claims is None else move(config.claims)
    return replace(config, device=move(config.device), fleet=move(config.fleet), claims=claims, folder=wanted.prefix)


def render(context: Context, folder: Path, wanted: Rendering) -> list[RenderedFile]:
    """Write the files into `folder`; the key alone is its owner's, who is the broker's user where root writes it."""
    made = make_files(context, wanted)
    make_folder(folder)
    return [_write(folder, name, data, mode, wanted) for name, (data, mode) in sorted(made.items())]


def make_folder(folder: Path) -> None:
    """Make sure that it exists; the broker, who is somebody else, must be able to enter it."""
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:
        words = (error.strerror or "unknown reason").lower()
        raise ConfigError(f"cannot create {printable(str(folder))}: {words}", f"ls -ld {folder.parent}") from error


def _write(folder: Path, name: str, data: bytes, mode: int, wanted: Rendering) -> RenderedFile:
    path = folder / name
    same = path.is_file() and path.stat().st_mode & 0o777 == mode and path.read_bytes() == data
    if not same:
        files.write_atomic(path, data, mode)
    if mode == PRIVATE:
        give(path, wanted.user)
    return RenderedFile(name, str(wanted.prefix / name), f"{mode:04o}", "unchanged" if same else "rendered")


def give(path: Path, user: str | None) -> None:
    """Make it the broker's, where we may and know that user: it reads its files after it has dropped root's rights."""
    if user is None or os.geteuid() != 0:
        return
    try:
        found = pwd.getpwnam(user)
    except KeyError:
        return
    os.chown(path, found.pw_uid, found.pw_gid, follow_symlinks=False)


def prefix_of(configuration: str) -> Path | None:
    """The folder that a rendered configuration speaks of; None where it was made otherwise."""
    first = configuration.partition("\n")[0]
    return Path(first.removeprefix(HEADER)) if first.startswith(HEADER) else None
