"""Two devices that are nobody, for a day: one in good standing, one revoked; by them a broker shows what it obeys."""

import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec

from fleetctl import files
from fleetctl.errors import FleetError
from fleetctl.keys.store import private_pem
from fleetctl.model.certificate import CANARY_PREFIX, Profile, Reason
from fleetctl.pki import crl
from fleetctl.pki.authority import Authority, Request, common_names, issue, pem, read_certificates
from fleetctl.platforms.local.authorities import active
from fleetctl.platforms.local.brokerprobe import Canary
from fleetctl.platforms.local.layout import Layout
from fleetctl.platforms.local.lists import write_lists

if TYPE_CHECKING:
    from fleetctl.platforms.local.fleet import LocalFleet

FOLDER = "canary"
GOOD, REVOKED = "good", "revoked"
SPARE_SECONDS = 3600


def make_canary(fleet: "LocalFleet", applied: Path) -> Canary:
    """The pair of the context, made anew where the broker has not read the list at `applied` that names the revoked one.

    So that a refusal proves that the list of now is in force, and not only an older one.
    """
    layout = Layout(fleet.context.folder)
    folder = files.private_folder(fleet.context.broker_folder / FOLDER)
    if not _serves(folder, layout.device_lists, applied, fleet.clock()):
        _renew(fleet, layout, folder)
    name = common_names(read_certificates(_files(folder, GOOD)[0])[0])[0]
    return Canary(name, _files(folder, GOOD), _files(folder, REVOKED))


def _files(folder: Path, name: str) -> tuple[Path, Path]:
    return folder / f"{name}.pem", folder / f"{name}.key"


def _serves(folder: Path, lists: Path, applied: Path, now: float) -> bool:
    try:
        revoked, good = (read_certificates(_files(folder, name)[0])[0] for name in (REVOKED, GOOD))
        listed = revoked.serial_number in crl.read_serials(lists)
        same = files.read_limited(applied, crl.CRL_LIMIT) == files.read_limited(lists, crl.CRL_LIMIT)
    except FleetError:
        return False
    return listed and same and min(each.not_valid_after_utc.timestamp() for each in (good, revoked)) > now + SPARE_SECONDS


def _renew(fleet: "LocalFleet", layout: Layout, folder: Path) -> None:
    authority, now = active(fleet, "devices"), fleet.clock()
    for name in (GOOD, REVOKED):
        serial = _issue(authority, fleet.tenant, folder, name, now)
    line = crl.Revoked(serial, now, Reason.CESSATION_OF_OPERATION)
    write_lists(fleet.registry, layout, authority.name, now, extra={authority.name: [line]})


def _issue(authority: Authority, tenant: str, folder: Path, name: str, now: float) -> int:
    key = ec.generate_private_key(ec.SECP256R1())
    common_name = f"{CANARY_PREFIX}{secrets.token_hex(4)}"
    request = Request(Profile.DEVICE, common_name, (f"urn:fleetctl:{tenant}:{common_name}",))
    made = issue(authority, request, key.public_key(), now, days=1)
    certificate, secret = _files(folder, name)
    files.write_atomic(secret, private_pem(key), 0o600)
    files.write_atomic(certificate, pem(made, *authority.issuers))
    return made.serial_number
