"""Contexts: which fleet is meant, where its files are, and how its broker is reached."""

import contextlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fleetctl.errors import ConfigError, NotFound, UsageError
from fleetctl.model.device import check_level, is_level, printable

DEFAULT_CONTEXT = "default"
_RESERVED = ("config.yaml", "current-context")
_BROKER_URL = re.compile(r"mqtts?://[^\s/@?#]+")
_ARTIFACTS_URL = re.compile(r"https?://[^\s/@?#]+(/[^\s?#]*)?")
_REGISTRY_URL = re.compile(r"postgresql://([^\s/@?#:]+@)?[^\s/@?#]+/[^\s/?#]+(\?[^\s#]*)?")
_PASSWORD = re.compile(r"[?&](ssl)?password=")
_REFERENCE = re.compile(r"(env|file|keyring):.+")
_KEYS = (
    "tenant",
    "broker",
    "deviceBroker",
    "artifacts",
    "claims",
    "enrol",
    "certificates",
    "ca",
    "cert",
    "key",
    "username",
    "password",
    "registry",
)


REGISTRY_MEANT = "postgresql://USER@HOST/DATABASE, with its password in ~/.pgpass"


def is_registry_url(text: str) -> bool:
    """Whether it names a database, and no password."""
    return _REGISTRY_URL.fullmatch(text) is not None and _PASSWORD.search(text) is None


@dataclass(frozen=True, slots=True)
class Paths:
    """Where configuration and data live; `FLEETCTL_HOME` moves all of it."""

    config: Path
    data: Path
    current: Path

    def folder(self, name: str) -> Path:
        """The folder of a context; raises `UsageError` for a name that no folder may have."""
        check_level("context", name)
        if name in _RESERVED:
            raise UsageError(f"context `{name}` would hide a file of fleetctl's own", "choose another name")
        return self.data / name


@dataclass(frozen=True, slots=True)
class Place:
    """A context as far as it is known without reading YAML: enough to open its registry."""

    name: str
    folder: Path
    paths: Paths

    @property
    def registry(self) -> Path | str:
        """Its file; the configuration is read only where some context has its registry elsewhere."""
        with contextlib.suppress(OSError):
            if b"postgresql://" in self.paths.config.read_bytes():
                return load(self).registry
        return self.folder / "registry.db"


@dataclass(frozen=True, slots=True)
class Context:
    """One fleet: `broker` is what fleetctl dials, `device_broker` and `artifacts` are what bundles carry."""

    name: str
    tenant: str
    broker: str
    device_broker: str
    artifacts: str
    folder: Path
    certificates: Literal["local", "external"] = "local"
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    username: str | None = None
    password_ref: str | None = None
    claims_url: str | None = None
    enrol_url: str | None = None
    registry_url: str | None = None

    @property
    def claims(self) -> str:
        """Where devices dial with a claim: three ports above their own, unless the configuration says otherwise."""
        return self.claims_url or self._beside("mqtts", 3)

    @property
    def enrol(self) -> str:
        """The base URL of EST, on the port after that of the claims."""
        return self.enrol_url or self._beside("https", 4)

    def _beside(self, scheme: str, ports: int) -> str:
        from urllib.parse import urlsplit

        parts = urlsplit(self.device_broker)
        host = parts.hostname or "localhost"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{(parts.port or 8883) + ports}"

    @property
    def registry(self) -> Path | str:
        """Its file, or the `postgresql://` URL of the database that a team shares."""
        return self.registry_url or self.folder / "registry.db"

    @property
    def keys_folder(self) -> Path:
        return self.folder / "keys"

    @property
    def pki_folder(self) -> Path:
        return self.folder / "pki"

    @property
    def releases_folder(self) -> Path:
        return self.folder / "releases"

    @property
    def broker_folder(self) -> Path:
        return self.folder / "broker"


def home(environ: Mapping[str, str] | None = None) -> Paths:
    environ = os.environ if environ is None else environ
    moved = environ.get("FLEETCTL_HOME")
    if moved:
        root = Path(moved).expanduser().absolute()
        return Paths(root / "config.yaml", root, root / "current-context")
    user = Path(environ["HOME"]) if environ.get("HOME") else Path.home()
    config = user / ".config" / "fleetctl"
    return Paths(config / "config.yaml", user / ".local" / "share" / "fleetctl", config / "current-context")


def locate(name: str | None = None, environ: Mapping[str, str] | None = None) -> Place:
    """The context that is meant: `name` (the flag), else FLEETCTL_CONTEXT, else `current-context`, else `default`.

    Raises:
        NotFound: a name was given and there is no such context.
        ConfigError: there is no context at all.
    """
    environ = os.environ if environ is None else environ
    paths = home(environ)
    wanted = name or environ.get("FLEETCTL_CONTEXT") or _read_current(paths)
    place = Place(wanted or DEFAULT_CONTEXT, paths.folder(wanted or DEFAULT_CONTEXT), paths)
    if place.folder.is_dir():
        return place
    if wanted is None:
        raise ConfigError(
            "no context is chosen", "make one with fleetctl init NAME --tenant TENANT, or fleetctl context use NAME"
        )
    raise _unknown(wanted)


def load_context(name: str | None = None, environ: Mapping[str, str] | None = None) -> Context:
    """The settings of a context, chosen as by `locate`; raises `ConfigError` naming the file and the key that is wrong."""
    return load(locate(name, environ))


def load(place: Place) -> Context:
    entries = _read_entries(place.paths.config)
    if place.name not in entries:
        raise _unknown(place.name)
    return _context(place.name, entries[place.name], place.paths)


def contexts(environ: Mapping[str, str] | None = None) -> list[Context]:
    paths = home(environ)
    return [_context(name, entry, paths) for name, entry in sorted(_read_entries(paths.config).items())]


def current_name(environ: Mapping[str, str] | None = None) -> str | None:
    """The context that verbs without `--context` use; None if none was chosen."""
    environ = os.environ if environ is None else environ
    return environ.get("FLEETCTL_CONTEXT") or _read_current(home(environ))


def use_context(name: str, environ: Mapping[str, str] | None = None) -> Context:
    """Make it the current one; raises `NotFound`."""
    from fleetctl.files import write_atomic

    context = load_context(name, environ)
    write_atomic(home(environ).current, f"{name}\n".encode())
    return context


def save_context(context: Context, environ: Mapping[str, str] | None = None) -> None:
    """Write or replace one context in `config.yaml`; the others stay as they are."""
    import yaml

    from fleetctl.files import lock, write_atomic

    paths = home(environ)
    entry = _entry(context)
    _context(context.name, entry, paths)
    paths.config.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with lock(paths.config.with_name(".config.lock")):
        entries = {**_read_entries(paths.config), context.name: entry}
        text = yaml.safe_dump({"contexts": entries}, sort_keys=False, allow_unicode=True)
        write_atomic(paths.config, text.encode(), 0o600)


def _read_current(paths: Paths) -> str | None:
    try:
        name = paths.current.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"`{paths.current}` cannot be read: {error}", "fleetctl context use NAME") from error
    if not is_level(name):
        raise ConfigError(f"`{paths.current}` does not name a context: {printable(name)}", "fleetctl context use NAME")
    return name


def _read_entries(path: Path) -> dict[str, dict[str, Any]]:
    document = _read_yaml(path)
    if document is None:
        return {}
    if not isinstance(document, dict) or not all(isinstance(key, str) for key in document):
        raise ConfigError(f"`{path}` is not a mapping", "it begins with `contexts:`")
    for key in document:
        if key != "contexts":
            raise ConfigError(f"unknown key {printable(key)} in `{path}`", "it may have: contexts")
    entries = document.get("contexts") or {}
    if not isinstance(entries, dict) or not all(isinstance(name, str) for name in entries):
        raise ConfigError(f"`contexts` in `{path}` is not a mapping of names", f"see {path}")
    for name, entry in entries.items():
        if not isinstance(entry, dict):
            raise ConfigError(f"`contexts.{name}` in `{path}` is not a mapping", f"it may have: {', '.join(_KEYS)}")
    return entries


def _read_yaml(path: Path) -> object:
    import yaml

    try:
        return yaml.safe_load(path.read_bytes().decode())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"`{path}` cannot be read: {error.strerror}", f"ls -l {path}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark is not None else ""
        why = getattr(error, "problem", None) or getattr(error, "reason", None) or "it cannot be parsed"
        raise ConfigError(f"`{path}` is not YAML{where}: {why}", f"edit {path}") from error


def _context(name: str, entry: Mapping[str, Any], paths: Paths) -> Context:
    where = f"`contexts.{name}` in `{paths.config}`"
    folder = paths.folder(name)
    for key, value in entry.items():
        if key not in _KEYS:
            raise ConfigError(f"unknown key {printable(str(key))} in {where}", f"it may have: {', '.join(_KEYS)}")
        if not isinstance(value, str) or not value:
            raise ConfigError(f"`{key}` of {where} is not text", f"edit {paths.config}")
    for key in ("tenant", "broker"):
        if key not in entry:
            raise ConfigError(f"`{key}` is missing from {where}", f"edit {paths.config}")
    _check_values(entry, where)
    return Context(
        name,
        entry["tenant"],
        entry["broker"],
        entry.get("deviceBroker", entry["broker"]),
        entry.get("artifacts", ""),
        folder,
        entry.get("certificates", "local"),
        _path(folder, entry.get("ca")),
        _path(folder, entry.get("cert")),
        _path(folder, entry.get("key")),
        entry.get("username"),
        entry.get("password"),
        entry.get("claims"),
        entry.get("enrol"),
        entry.get("registry"),
    )


def _check_values(entry: Mapping[str, str], where: str) -> None:
    wrong = {
        "tenant": not is_level(entry["tenant"]),
        "broker": _BROKER_URL.fullmatch(entry["broker"]) is None,
        "deviceBroker": "deviceBroker" in entry and _BROKER_URL.fullmatch(entry["deviceBroker"]) is None,
        "artifacts": "artifacts" in entry and _ARTIFACTS_URL.fullmatch(entry["artifacts"]) is None,
        "claims": "claims" in entry and _BROKER_URL.fullmatch(entry["claims"]) is None,
        "enrol": "enrol" in entry and _ARTIFACTS_URL.fullmatch(entry["enrol"]) is None,
        "certificates": entry.get("certificates", "local") not in ("local", "external"),
        "password": "password" in entry and _REFERENCE.fullmatch(entry["password"]) is None,
        "registry": "registry" in entry and not is_registry_url(entry["registry"]),
    }
    meant = {
        "tenant": "a name of letters, digits, `.`, `_` and `-`",
        "broker": "mqtts://HOST:PORT",
        "deviceBroker": "mqtts://HOST:PORT",
        "artifacts": "https://HOST:PORT",
        "claims": "mqtts://HOST:PORT",
        "enrol": "https://HOST:PORT",
        "certificates": "local or external",
        "password": "a reference to a secret, never the secret: env:NAME, file:PATH or keyring:SERVICE/USER",
        "registry": REGISTRY_MEANT,
    }
    for key, is_wrong in wrong.items():
        if is_wrong:
            raise ConfigError(f"`{key}` of {where} is not what it should be", f"{key}: {meant[key]}")


def _entry(context: Context) -> dict[str, str]:
    values = {
        "tenant": context.tenant,
        "broker": context.broker,
        "deviceBroker": context.device_broker,
        "artifacts": context.artifacts,
        "claims": context.claims_url,
        "enrol": context.enrol_url,
        "certificates": context.certificates,
        "ca": _relative(context.folder, context.ca),
        "cert": _relative(context.folder, context.cert),
        "key": _relative(context.folder, context.key),
        "username": context.username,
        "password": context.password_ref,
        "registry": context.registry_url,
    }
    return {key: value for key, value in values.items() if value}


def _path(folder: Path, text: str | None) -> Path | None:
    return None if text is None else folder / Path(text).expanduser()


def _relative(folder: Path, path: Path | None) -> str | None:
    if path is None:
        return None
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path.absolute())


def _unknown(name: str) -> NotFound:
    return NotFound(f"no context named `{name}`", "see fleetctl context list")
