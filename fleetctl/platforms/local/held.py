"""What a folder from an earlier run holds: whether it is the good identity that the registry knows."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fleetctl.errors import FleetError
from fleetctl.keys.store import load_key
from fleetctl.model.certificate import State, Validity
from fleetctl.pki.authority import fingerprint, read_certificates, serial_of
from fleetctl.registry import CertificateRow
from fleetctl.wire.document import parse_rfc3339

if TYPE_CHECKING:
    from fleetctl.platforms.local.fleet import LocalFleet


def good_row(fleet: "LocalFleet", folder: Path, names: Sequence[str], subject: str) -> CertificateRow | None:
    """The certificate of a whole folder; `names` begins with those of key and certificate. None where anything is amiss."""
    if not all((folder / name).is_file() for name in names):
        return None
    try:
        certificate = read_certificates(folder / names[1])[0]
        row = fleet.registry.certificate(serial_of(certificate))
        belongs = load_key(folder / names[0]).public_key() == certificate.public_key()
    except FleetError:
        return None
    same = row.fingerprint == fingerprint(certificate) and row.subject == subject and belongs
    return row if same and state_of(row, fleet.clock()) is State.VALID else None


def validity_of_row(row: CertificateRow) -> Validity:
    return Validity(int(parse_rfc3339(row.not_before)), int(parse_rfc3339(row.not_after)))


def state_of(row: CertificateRow, now: float) -> State:
    return validity_of_row(row).state(now, revoked=row.revoked_at is not None)
