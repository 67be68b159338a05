"""The listeners of a context's broker: their addresses, whom each accepts, and by which files."""

import time
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from fleetctl import files
from fleetctl.config import Context
from fleetctl.errors import ConfigError
from fleetctl.model.access import claim_rules, device_rules, fleet_rules
from fleetctl.mqtt.broker import BrokerConfig, Listener, is_loopback
from fleetctl.mqtt.endpoint import Endpoint
from fleetctl.pki.authority import PEM_LIMIT, read_certificates
from fleetctl.platforms.local.founding import BROKER
from fleetctl.platforms.local.layout import Layout
from fleetctl.platforms.protocol import Missing
from fleetctl.registry import Registry
from fleetctl.wire.document import rfc3339

LOOPBACK = "127.0.0.1"
RENEW_HINT = "fleetctl certs renew broker"


def broker_config(context: Context, listen: str | None = None, verb: str = "run") -> BrokerConfig:
    """The listeners of the contract; `listen` is an address of this machine, loopback unless told otherwise.

    Raises:
        Missing: the context's broker is somebody else's.
        ConfigError: other machines are told to dial it, and nobody said that they may.
    """
    if context.certificates == "external":
        raise Missing(
            f"context `{context.name}` does not own its certificates: its broker is somebody else's",
            "make a fleet of your own with fleetctl init",
        )
    device, fleet = Endpoint.parse_url(context.device_broker), Endpoint.parse_url(context.broker)
    if listen is None and not is_loopback(device.host):
        raise ConfigError(
            f"devices of context `{context.name}` dial `{device.host}`, but nobody said that other machines may",
            f"say where the broker may listen: fleetctl broker {verb} --listen 0.0.0.0",
        )
    host = listen or (LOOPBACK if device.host == "localhost" else device.host)
    layout, tenant = Layout(context.folder), context.tenant
    cert, key = layout.public(f"{BROKER}.pem"), layout.key(BROKER)
    devices, people = device_rules(tenant), fleet_rules(tenant)
    ca, lists, out = layout.device_ca, layout.device_lists, denied(context)
    return BrokerConfig(
        Listener(host, device.port, cert, key, ca, lists, devices, identity_is_client_id=True, denied=out),
        Listener(host, fleet.port, cert, key, _people(context), layout.fleet_lists, people, identity_is_client_id=False),
        context.broker_folder,
        allow_remote=listen is not None,
        claims=_claims(context, host, cert, key),
    )


def _people(context: Context) -> Path:
    """A file of the broker's own: people get an authority apart from the services' while it runs, and its path is fixed then."""
    return context.broker_folder / Layout(context.folder).people_ca.name


def _claims(context: Context, host: str, cert: Path, key: Path) -> Listener | None:
    layout = Layout(context.folder)
    if not layout.claim_ca.exists():
        return None
    return Listener(
        host,
        Endpoint.parse_url(context.claims).port,
        cert,
        key,
        layout.claim_ca,
        layout.claim_lists,
        claim_rules(context.tenant),
        identity_is_client_id=False,
        transient=True,
    )


def gather(context: Context) -> None:
    """Bring the broker's own copies up to date; before each start and reload."""
    layout = Layout(context.folder)
    wanted = layout.people_ca if layout.people_ca.exists() else layout.fleet_ca
    data = files.read_limited(wanted, PEM_LIMIT)
    files.private_folder(context.broker_folder)
    files.write_atomic(_people(context), data)


def denied(context: Context) -> frozenset[str]:
    """The devices that are suspended or gone and that a list of ours cannot name, for a registered authority vouches for them."""
    with Registry.open(context.registry) as registry:
        return registry.denied(rfc3339(time.time()))


def denying(config: BrokerConfig, names: frozenset[str]) -> BrokerConfig:
    """The same listeners, with these devices kept out."""
    return replace(config, device=replace(config.device, denied=names))


def digest(names: frozenset[str]) -> str:
    """Tells one set of names from another."""
    return sha256("\n".join(sorted(names)).encode()).hexdigest()


def unopened(context: Context, config: BrokerConfig) -> str | None:
    """Why a broker that runs with `config` should be started again: a claims listener is opened at a start only."""
    if config.claims is None and Layout(context.folder).claim_ca.exists():
        return "there is an authority for claims now, and its listener opens when the broker is started again"
    return None


def check_certificate(config: BrokerConfig, now: float | None = None) -> None:
    """Raise `ConfigError` for a certificate of the broker's own that no client would accept."""
    certificate = read_certificates(config.device.cert)[0]
    moment = time.time() if now is None else now
    ended, begins = certificate.not_valid_after_utc, certificate.not_valid_before_utc
    if ended.timestamp() <= moment:
        raise ConfigError(f"the broker's certificate `{config.device.cert}` expired on {ended:%Y-%m-%d}", RENEW_HINT)
    if begins.timestamp() > moment:
        raise ConfigError(
            f"the broker's certificate `{config.device.cert}` is not valid before {begins:%Y-%m-%d %H:%M} UTC",
            "is the clock right? date -u",
        )
