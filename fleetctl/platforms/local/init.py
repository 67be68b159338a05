"""Making a context: a fleet of one's own, or a broker and a PKI that exist already."""

import contextlib
import getpass
import re
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from fleetctl import config, files
from fleetctl.config import Context, Paths
from fleetctl.errors import Conflict, UsageError
from fleetctl.keys.stores import PLAIN, KeyStore, open_store, remember_store, settled
from fleetctl.model.certificate import check_operator
from fleetctl.model.device import check_level, is_level, printable
from fleetctl.mqtt.endpoint import Endpoint
from fleetctl.platforms.local.existing import check_identity, first_name
from fleetctl.platforms.local.founding import OPERATOR, make_identities, make_signing_keys, unless_it_fails
from fleetctl.platforms.local.layout import KEYS, PKI, REGISTRY, RELEASES, Layout
from fleetctl.platforms.local.staging import is_vacant, staged
from fleetctl.registry import Registry

DEFAULT_BROKER = "mqtts://localhost:8883"
LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
STAGING = ".init-"
LOCK = ".init.lock"
_REFERENCE = re.compile(r"(env|file|keyring):.")


@dataclass(frozen=True, slots=True)
class ContextMade:
    """A context that was made; `operator` is as whom fleetctl connects, `current` whether verbs without `--context` use it.

    `authorities` is the file of who may sign the broker's certificate, or `system`; `login` how it logs in;
    `keystore` where the keys are that sign.
    """

    name: str
    current: bool
    tenant: str
    broker: str
    device_broker: str
    artifacts: str | None
    certificates: Literal["local", "external"]
    operator: str | None
    folder: str
    authorities: str
    login: str
    keystore: str


def create_context(
    name: str,
    tenant: str,
    broker: str = DEFAULT_BROKER,
    operator: str | None = None,
    *,
    artifacts: str | None = None,
    keystore: str = PLAIN,
    registry: str | None = None,
    environ: Mapping[str, str] | None = None,
    clock: Callable[[], float] = time.time,
) -> ContextMade:
    """Make a fleet of one's own, whole or not at all.

    `broker` is where devices will dial; the fleet's own listener is on the next port, artifacts are on the one after it.
    `operator` is the name of whoever runs this, else the login name. `keystore` is where the keys go that sign (`keys.stores`).
    `registry` is the URL of an empty PostgreSQL database, else the registry is a file of the context.

    Raises:
        Conflict: the context exists already; nothing is changed.
        UsageError: a name or an address is not one.
        ConfigError, Denied, Unavailable: the key store cannot be used.
    """
    paths, folder = _place(name, tenant, environ)
    _check_registry(registry)
    dialled = _own_endpoint(broker)
    person = check_operator(operator or _login_name())
    context = Context(
        name,
        tenant,
        _url("mqtts", dialled.host, dialled.port + 1),
        _url("mqtts", dialled.host, dialled.port),
        artifacts or _url("https", dialled.host, dialled.port + 2),
        folder,
        ca=Layout(folder).fleet_ca,
        cert=Layout(folder).public(f"{OPERATOR}.pem"),
        key=Layout(folder).key(OPERATOR),
        registry_url=registry,
    )
    names = (dialled.host, *LOCAL_NAMES, urlsplit(context.artifacts).hostname or dialled.host)

    def fill(layout: Layout, registry: Registry, store: KeyStore) -> None:
        make_signing_keys(layout, store, tenant)
        make_identities(layout, registry, store, person, names, clock())

    kept = _install(context, paths, fill, keystore, environ)
    return _made(context, person, kept, environ)


def adopt_context(
    name: str,
    tenant: str,
    broker: str,
    ca: Path | None,
    *,
    cert: Path | None = None,
    key: Path | None = None,
    username: str | None = None,
    password_ref: str | None = None,
    device_broker: str | None = None,
    artifacts: str | None = None,
    keystore: str = PLAIN,
    registry: str | None = None,
    environ: Mapping[str, str] | None = None,
    clock: Callable[[], float] = time.time,
) -> ContextMade:
    """Make a context for a broker and a PKI that exist already: their files are used where they are, identities stay theirs.

    Raises:
        Conflict: the context exists already; nothing is changed.
        UsageError: the words do not go together.
        ConfigError, NotFound, Denied: a file is missing, is not what it should be, or its certificate is out of date.
    """
    paths, folder = _place(name, tenant, environ)
    _check_registry(registry)
    if (cert is None) != (key is None):
        raise UsageError("a certificate needs its key, and a key its certificate", "give both --cert and --key")
    if (username is None) != (password_ref is None):
        raise UsageError("a user name needs a password, and a password its user", "give both --username and --password-ref")
    if cert is not None and username is not None:
        raise UsageError("a certificate and a user name are two ways to log in", "give one of them")
    if password_ref is not None and _REFERENCE.match(password_ref) is None:
        raise UsageError(
            "`--password-ref` is not a reference to a secret",
            "never the secret itself: env:NAME, file:PATH or keyring:SERVICE/USER",
        )
    endpoint = Endpoint.parse_url(broker)
    if not endpoint.tls:
        raise UsageError(f"{printable(broker)} is not encrypted", "give the broker's TLS port: mqtts://HOST:8883")
    ca, cert, key = (None if path is None else path.expanduser().absolute() for path in (ca, cert, key))
    check_identity(ca, cert, key, clock())
    context = Context(
        name,
        tenant,
        broker,
        device_broker or broker,
        artifacts or "",
        folder,
        certificates="external",
        ca=ca,
        cert=cert,
        key=key,
        username=username,
        password_ref=_settled(password_ref),
        registry_url=registry,
    )

    def fill(layout: Layout, _: Registry, store: KeyStore) -> None:
        make_signing_keys(layout, store, tenant)
        remember_store(store, layout.folder / KEYS)

    kept = _install(context, paths, fill, keystore, environ)
    return _made(context, username or first_name(cert), kept, environ)


def _settled(reference: str | None) -> str | None:
    """A reference that means the same wherever fleetctl is started."""
    if reference is None or not reference.startswith("file:"):
        return reference
    return f"file:{Path(reference.removeprefix('file:')).expanduser().absolute()}"


def _place(name: str, tenant: str, environ: Mapping[str, str] | None) -> tuple[Paths, Path]:
    check_level("tenant", tenant)
    paths = config.home(environ)
    return paths, paths.folder(name)


def _check_registry(url: str | None) -> None:
    if url is not None and not config.is_registry_url(url):
        raise UsageError("`--registry` is not the URL of a database without its password", config.REGISTRY_MEANT)


def _own_endpoint(broker: str) -> Endpoint:
    endpoint = Endpoint.parse_url(broker)
    if not endpoint.tls:
        raise UsageError(f"{printable(broker)} is not encrypted", "a fleet of one's own speaks TLS: write mqtts://HOST:PORT")
    if endpoint.port > 65533:
        raise UsageError(f"port {endpoint.port} leaves no room", "the two ports after it are used too: choose a lower one")
    return endpoint


def _url(scheme: str, host: str, port: int) -> str:
    return f"{scheme}://{Endpoint(host, port)}"


def _login_name() -> str:
    try:
        name = getpass.getuser()
    except (OSError, KeyError):
        name = ""
    return name if is_level(name) and len(name) <= 61 else "admin"


Fill = Callable[[Layout, Registry, KeyStore], None]


def _install(context: Context, paths: Paths, fill: Fill, keystore: str, environ: Mapping[str, str] | None) -> str:
    """Build beside the place and move it there last: what is interrupted leaves no context, and a repeat starts anew.

    Returns the URI under which the keys are found from then on.

    The configuration comes before the folder, because an entry without a folder is no context (`config.locate`), while a folder
    without an entry would be keys that nobody finds.
    """
    uri = settled(keystore, context.name)
    open_store(uri, context.keys_folder)  # a word that is no store is refused before anything is made
    files.private_folder(paths.data)
    with files.lock(paths.data / LOCK):
        _check_absent(context, paths, environ)
        for abandoned in paths.data.glob(f"{STAGING}*"):
            shutil.rmtree(abandoned, ignore_errors=True)
        with staged(context.folder, STAGING) as fresh:
            for name in (KEYS, PKI, RELEASES):
                files.private_folder(fresh / name)
            with unless_it_fails(open_store(uri, fresh / KEYS)) as store:
                place = context.registry_url or fresh / REGISTRY
                with _registry(place, context.tenant) as registry, registry.transaction():
                    fill(Layout(fresh), registry, store)
                config.save_context(context, environ)
    return uri


def _registry(place: Path | str, tenant: str) -> Registry:
    """A new registry; in a database also one that an interrupted `init` has left empty."""
    try:
        return Registry.create(place, tenant)
    except Conflict:
        if isinstance(place, Path):
            raise
        with contextlib.ExitStack() as undo:
            registry = undo.enter_context(Registry.open(place))
            if registry.tenant != tenant or registry.count_devices() or registry.certificates():
                raise
            undo.pop_all()
        return registry


def _check_absent(context: Context, paths: Paths, environ: Mapping[str, str] | None) -> None:
    if is_vacant(context.folder):
        return
    known = {each.name: each.tenant for each in config.contexts(environ)} if paths.config.exists() else {}
    tenant = known.get(context.name)
    if tenant is not None:
        use = f"use it: fleetctl context use {context.name}"
        other = f"choose another name: fleetctl init NAME --tenant {context.tenant}"
        raise Conflict(
            f"context `{context.name}` exists already, with tenant `{tenant}`", use if tenant == context.tenant else other
        )
    raise Conflict(
        f"`{context.folder}` exists already, and `{paths.config}` names no such context",
        f"restore that file, or move the folder away: mv {context.folder} {context.folder}.old",
    )


def _made(context: Context, operator: str | None, keystore: str, environ: Mapping[str, str] | None) -> ContextMade:
    """The record; the first context there is becomes the current one."""
    if not config.home(environ).current.exists():
        config.use_context(context.name, environ)
    return ContextMade(
        context.name,
        config.current_name(environ) == context.name,
        context.tenant,
        context.broker,
        context.device_broker,
        context.artifacts or None,
        context.certificates,
        operator,
        str(context.folder),
        "system" if context.ca is None else str(context.ca),
        "certificate" if context.cert else "password" if context.username else "none",
        keystore,
    )
