"""Where a context keeps its keys, certificates and lists."""

from dataclasses import dataclass
from pathlib import Path

from fleetctl.pki.authority import DEVICE_ISSUING, DEVICE_ROOT, FLEET_CA, Authority

KEYS = "keys"
PKI = "pki"
RELEASES = "releases"
REGISTRY = "registry.db"


@dataclass(frozen=True, slots=True)
class Layout:
    """The files below the folder of a context."""

    folder: Path

    def key(self, name: str) -> Path:
        return self.folder / KEYS / f"{name}.key"

    def public(self, name: str) -> Path:
        return self.folder / PKI / name

    @property
    def device_ca(self) -> Path:
        """The issuing authority and its root: what a device listener accepts."""
        return self.public("device-ca.pem")

    @property
    def fleet_ca(self) -> Path:
        return self.public("fleet-ca.pem")

    @property
    def device_lists(self) -> Path:
        return self.public("device.crl.pem")

    @property
    def fleet_lists(self) -> Path:
        return self.public("fleet.crl.pem")

    @property
    def trust(self) -> Path:
        return self.public("trust.cose")

    @property
    def root_key(self) -> Path:
        return self.public("root.pub")

    def lists_of(self, authority: str) -> tuple[Path, tuple[str, ...]]:
        """The file that an authority's list is in, and every authority whose list is in it."""
        if authority == FLEET_CA:
            return self.fleet_lists, (FLEET_CA,)
        return self.device_lists, (DEVICE_ISSUING, DEVICE_ROOT)

    def authority(self, name: str) -> Authority:
        """Raises `ConfigError`, `NotFound` or `Denied` where its key or certificate is not as it was made."""
        chain = self.fleet_ca if name == FLEET_CA else self.device_ca
        return Authority.load(name, self.key(name), chain, skip=1 if name == DEVICE_ROOT else 0)
