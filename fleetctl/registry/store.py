"""The registry: its parts as one object."""

from fleetctl.registry.audit import Audit
from fleetctl.registry.authorities import Authorities
from fleetctl.registry.batches import Batches
from fleetctl.registry.certificates import Certificates
from fleetctl.registry.devices import Devices
from fleetctl.registry.enrolments import Enrolments
from fleetctl.registry.groups import Groups
from fleetctl.registry.projections import Projections
from fleetctl.registry.rollouts import Rollouts
from fleetctl.registry.selection import Selecting
from fleetctl.registry.tokens import Tokens


class Registry(Devices, Certificates, Authorities, Batches, Enrolments, Tokens, Projections, Rollouts, Selecting, Groups, Audit):
    """The record of a fleet; `Registry.open(path)` and `Registry.create(path, tenant)` make one, `with` closes it."""

    @property
    def tenant(self) -> str:
        return self._meta("tenant")

    @property
    def generation(self) -> int:
        """Names this registry among its restored copies: raised when one is restored."""
        return int(self._meta("generation"))

    def _meta(self, key: str) -> str:
        row = self.read_one("SELECT value FROM meta WHERE key = ?", (key,))
        return str(row[0]) if row else ""
