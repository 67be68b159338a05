"""Where a context keeps its keys, certificates and lists."""

from dataclasses import dataclass
from pathlib import Path

from fleetctl.keys.store import has_key
from fleetctl.pki.authority import CLAIM_CA, DEVICE_ISSUING, DEVICE_ROOT, FLEET_CA, Authority, common_names, read_certificates

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
        """What a device listener accepts: the issuing authorities, the newest first, their root, and those registered."""
        return self.public("device-ca.pem")

    @property
    def fleet_ca(self) -> Path:
        """The authority of services, which devices and operators hold."""
        return self.public("fleet-ca.pem")

    @property
    def people_ca(self) -> Path:
        """What the fleet listener accepts once people have an authority apart from the services'."""
        return self.public("people-ca.pem")

    @property
    def claim_ca(self) -> Path:
        return self.public("claim-ca.pem")

    @property
    def device_lists(self) -> Path:
        return self.public("device.crl.pem")

    @property
    def fleet_lists(self) -> Path:
        return self.public("fleet.crl.pem")

    @property
    def claim_lists(self) -> Path:
        return self.public("claim.crl.pem")

    @property
    def trust(self) -> Path:
        return self.public("trust.cose")

    @property
    def root_key(self) -> Path:
        return self.public("root.pub")

    def accepted(self, role: str) -> Path:
        """The file of the authorities that the listener of `devices`, `people` or `claims` accepts, as they are written."""
        return {"people": self.people_ca, "claims": self.claim_ca}.get(role, self.device_ca)

    def lists(self, role: str) -> Path:
        return {"people": self.fleet_lists, "claims": self.claim_lists}.get(role, self.device_lists)

    def lists_of(self, authority: str) -> tuple[Path, tuple[str, ...]]:
        """The same for an authority that a context is made with, and all such whose list is in that file."""
        if authority == FLEET_CA:
            return self.fleet_lists, (FLEET_CA,)
        if authority == CLAIM_CA:
            return self.claim_lists, (CLAIM_CA,)
        return self.device_lists, (DEVICE_ISSUING, DEVICE_ROOT)

    def authority(self, name: str) -> Authority:
        """Raises `ConfigError`, `NotFound` or `Denied` where its key or certificate is not as it was made."""
        return Authority.load(name, self.key(name), self._holder(name))

    def has_key(self, name: str) -> bool:
        """Whether its key is here, in a file or by reference to where it is kept."""
        return has_key(self.key(name))

    def _holder(self, name: str) -> Path:
        """The file that an authority's certificate is in."""
        first = self.fleet_ca if name == FLEET_CA else self.device_ca
        for path in (first, self.device_ca, self.people_ca, self.claim_ca):
            if path.exists() and any(common_names(each) == [name] for each in read_certificates(path)):
                return path
        return first
