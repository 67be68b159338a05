"""The built-in registry: the record of devices, certificates, desired twins and rollouts, in one SQLite file."""

from fleetctl.registry.authorities import AuthorityRow
from fleetctl.registry.certificates import CertificateRow
from fleetctl.registry.devices import DeviceRecord
from fleetctl.registry.projections import OutboxRow, TwinRow
from fleetctl.registry.rollouts import RolloutRow, UpdateStatusRow
from fleetctl.registry.store import Registry

__all__ = ["AuthorityRow", "CertificateRow", "DeviceRecord", "OutboxRow", "Registry", "RolloutRow", "TwinRow", "UpdateStatusRow"]
