"""Who a device is: its bundle, read and checked before anything is connected."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from fleetctl import files
from fleetctl.agent.certificate import Credential, credential_of, parse_chain
from fleetctl.agent.download import Artifacts
from fleetctl.errors import ConfigError, FleetError, Malformed
from fleetctl.keys.store import PrivateKey, PublicKey, load_key, load_public_key
from fleetctl.keys.trust import UnverifiedTrust
from fleetctl.mqtt.endpoint import Endpoint
from fleetctl.tls import client_context
from fleetctl.wire import bundle
from fleetctl.wire.bundle import BundleConfig
from fleetctl.wire.document import PAYLOAD_LIMIT
from fleetctl.wire.trust import TrustDocument

SMALL = 65536


@dataclass(frozen=True, slots=True)
class Identity:
    """A bundle that was found whole: addresses, keys, and the trust document that it came with."""

    config: BundleConfig
    endpoint: Endpoint
    artifacts: Artifacts
    root: PublicKey
    trust: TrustDocument
    trust_envelope: bytes
    folder: Path = Path()
    credential: Credential | None = None

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a bundle.

        Raises:
            ConfigError: it is not whole, or a part of it does not belong to the others.
            NotFound, Denied: a file of it is missing, or may be read by others.
            Untrusted: its trust document is not signed by its root key.
        """
        config = _config(folder)
        ca, cert, key = (folder / name for name in (bundle.AUTHORITY, bundle.CERTIFICATE, bundle.KEY))
        load_key(key)
        root = load_public_key(files.read_limited(folder / bundle.ROOT, SMALL), f"`{folder / bundle.ROOT}`")
        envelope = files.read_limited(folder / bundle.TRUST, PAYLOAD_LIMIT)
        context = client_context(ca, cert, key)
        return cls(
            config=config,
            endpoint=Endpoint.parse_url(config.broker, ca=ca, cert=cert, key=key),
            artifacts=Artifacts(config.artifacts, context if config.artifacts.startswith("https:") else None),
            root=root,
            trust=UnverifiedTrust(envelope).verify(root, config.device.tenant),
            trust_envelope=envelope,
            folder=folder,
            credential=_credential(cert),
        )

    @property
    def private_key(self) -> PrivateKey:
        """Read again whenever it is needed, and not kept; raises `NotFound` or `Denied`."""
        return load_key(self.folder / bundle.KEY)

    @property
    def certificate(self) -> bytes:
        """The certificate and those above it, as PEM; raises `NotFound` or `Denied`."""
        return files.read_limited(self.folder / bundle.CERTIFICATE, SMALL)

    def configured(self, config: BundleConfig) -> Self:
        """The same device with other addresses; raises `ConfigError`."""
        if config == self.config:
            return self
        end, context = self.endpoint, self.artifacts.context
        endpoint = Endpoint.parse_url(config.broker, ca=end.ca, cert=end.cert, key=end.key)
        if config.artifacts.startswith("https:") and context is None:
            context = client_context(end.ca, end.cert, end.key)
        artifacts = replace(self.artifacts, base=config.artifacts, context=context)
        return replace(self, config=config, endpoint=endpoint, artifacts=artifacts)

    def newer_trust(self, envelope: bytes, held: TrustDocument, held_envelope: bytes) -> TrustDocument:
        """The trust document that replaces the one held; raises `Untrusted` where it must not."""
        return UnverifiedTrust(envelope).verify(self.root, self.config.device.tenant, held.version, held=held_envelope)


def _credential(cert: Path) -> Credential:
    try:
        return credential_of(parse_chain(files.read_limited(cert, SMALL)))
    except Malformed as error:
        raise ConfigError(f"`{cert}`: {error.message}", "make one: fleetctl certs issue DEVICE") from error


def _config(folder: Path) -> BundleConfig:
    path = folder / bundle.CONFIG
    try:
        text = files.read_limited(path, bundle.CONFIG_LIMIT).decode()
        return bundle.parse_yaml(text)
    except (Malformed, UnicodeDecodeError) as error:
        words = error.message if isinstance(error, FleetError) else "it is not UTF-8"
        raise ConfigError(
            f"`{folder}` is not the bundle of a device: {words}", "make one: fleetctl certs issue DEVICE"
        ) from error
