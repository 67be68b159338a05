"""The certificate that the broker, the artifact server and EST of a context show: renewed for the names that it has."""

from typing import TYPE_CHECKING

from cryptography import x509

from fleetctl import files
from fleetctl.errors import FleetError
from fleetctl.keys.store import generate_key, load_key, private_pem
from fleetctl.model.certificate import Profile
from fleetctl.pki.authority import FLEET_CA, issue, pem, read_certificates, serial_of, server_request
from fleetctl.pki.csr import checked_key
from fleetctl.platforms.local.founding import BROKER
from fleetctl.platforms.local.issuing import row_of
from fleetctl.platforms.local.layout import Layout
from fleetctl.platforms.local.renewal import Renewed
from fleetctl.platforms.local.running import have_it_read
from fleetctl.platforms.local.swapping import Pair, settle, swap
from fleetctl.registry import CertificateRow

if TYPE_CHECKING:
    from fleetctl.platforms.local.fleet import LocalFleet


def renew_servers(fleet: "LocalFleet", *, rekey: bool = False) -> Renewed:
    """Renew it, also where it has expired: clients trust its authority and its names, and see no difference.

    Stopped at any point it leaves a pair that works; repeating it finishes. A broker that runs here shows the new one at once.

    Raises:
        ConfigError, NotFound, Denied: the context has no such certificate, or not the key of its authority.
        FleetError: it is renewed, but the broker that runs did not take it.
    """
    layout = Layout(fleet.context.folder)
    pair = Pair(layout.key(BROKER), layout.public(f"{BROKER}.pem"))
    finished = settle(pair, _nobody)
    held = read_certificates(pair.certificate)[0]
    if finished:
        row = fleet.registry.certificate(serial_of(held))
    else:
        row = _issue(fleet, layout, pair, held, rekey=rekey)
        swap(pair, _nobody)
    told = have_it_read(fleet.context.folder, {}, anew=True)
    if told.running and not told.reloaded:
        raise FleetError(
            f"the certificate is renewed, but the broker that runs has not taken it: {told.error}",
            "stop the broker and start it again: fleetctl broker run",
        )
    outcome = "finished" if finished else "rekeyed" if rekey else "renewed"
    return Renewed(row.subject, row.serial, outcome, row.replaces, row.not_after, str(pair.certificate))


def _issue(fleet: "LocalFleet", layout: Layout, pair: Pair, held: x509.Certificate, *, rekey: bool) -> CertificateRow:
    """Devices pin `fleet-ca`, so that it signs whatever other authorities people have by now."""
    pair.new.key.unlink(missing_ok=True)
    if rekey:
        files.write_atomic(pair.new.key, private_pem(generate_key("p256")), 0o600)
    key = checked_key(load_key(pair.new.key if rekey else pair.key).public_key())
    authority = layout.authority(FLEET_CA)
    certificate = issue(authority, server_request(_names(held)), key, fleet.clock())
    row = row_of(certificate, FLEET_CA, Profile.SERVER, replaces=serial_of(held))
    with fleet.registry.transaction():
        fleet.registry.add_certificate(row)
        files.write_atomic(pair.new.certificate, pem(certificate, *authority.issuers))
    return row


def _names(held: x509.Certificate) -> list[str]:
    names = held.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(each.value) for each in names]


def _nobody(step: str) -> None:
    """Whoever is told of the steps of a swap."""
