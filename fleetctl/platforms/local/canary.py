"""Proof that a running broker obeys: of two certificates made for this alone, it refuses the revoked one and lets the other in.

They are devices, operators or claims of the reserved prefix, good for an hour; their keys are gone before the proof is told.
"""

import secrets
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from fleetctl.errors import FleetError
from fleetctl.keys.store import private_pem
from fleetctl.model.certificate import CANARY_PREFIX, CLAIM_PREFIX, OPERATOR_PREFIX, Profile, Reason
from fleetctl.mqtt.endpoint import Endpoint
from fleetctl.mqtt.session import open_session
from fleetctl.pki import crl
from fleetctl.pki.authority import Authority, Request, claim_request, issue, operator_request, pem
from fleetctl.platforms.local.layout import Layout
from fleetctl.platforms.local.staging import write

if TYPE_CHECKING:
    from fleetctl.platforms.local.fleet import LocalFleet

LIFE_DAYS = 1 / 24
TIMEOUT = 5.0


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate with what it needs to be shown, and its key."""

    common_name: str
    key: ec.EllipticCurvePrivateKey
    chain: tuple[x509.Certificate, ...]


@dataclass(frozen=True, slots=True)
class Canary:
    """Two identities of one authority: `bad` is to be on its next list, `good` on none."""

    role: str
    bad: Identity
    good: Identity

    def line(self, now: float) -> crl.Revoked:
        """What the list must say."""
        return crl.Revoked(self.bad.chain[0].serial_number, now, Reason.SUPERSEDED)


@dataclass(frozen=True, slots=True)
class Proof:
    """What a broker did; None where it could not be asked. `detail` is what went otherwise than it should."""

    refused: bool | None
    accepted: bool | None
    detail: str | None = None


def hatch(authority: Authority, role: str, tenant: str, now: float) -> Canary:
    """Raises `ConfigError` where the authority may not issue now."""
    mark = secrets.token_hex(4)
    return Canary(role, *(_identity(authority, _request(role, tenant, f"{CANARY_PREFIX}{kind}{mark}"), now) for kind in "bg"))


def prove(fleet: "LocalFleet", canary: Canary) -> Proof:
    """Show both to the listener of their role; the good one first, for where it is refused nothing is proven by the other."""
    endpoint = _endpoint(fleet, canary.role)
    accepted = _shown(endpoint, canary.good, fleet.context.folder)
    if accepted is not None:
        return Proof(None, False, f"a good certificate was not let in: {accepted.message}")
    if _shown(endpoint, canary.bad, fleet.context.folder) is None:
        return Proof(False, True, f"the listener for {canary.role} let a revoked certificate in")
    return Proof(True, True)


def _request(role: str, tenant: str, name: str) -> Request:
    makers: dict[str, Callable[[], Request]] = {
        "devices": lambda: Request(Profile.DEVICE, name, (f"urn:fleetctl:{tenant}/{name}",)),
        "people": lambda: operator_request(tenant, OPERATOR_PREFIX + name),
        "claims": lambda: claim_request(tenant, CLAIM_PREFIX + name),
    }
    return makers[role]()


def _identity(authority: Authority, request: Request, now: float) -> Identity:
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = issue(authority, request, key.public_key(), now, days=LIFE_DAYS)
    return Identity(request.common_name, key, (leaf, *authority.issuers))


def _endpoint(fleet: "LocalFleet", role: str) -> Endpoint:
    context = fleet.context
    url = {"people": context.broker, "claims": context.claims}.get(role, context.device_broker)
    return Endpoint.parse_url(url, ca=Layout(context.folder).fleet_ca)


def _shown(endpoint: Endpoint, identity: Identity, folder: Path) -> FleetError | None:
    """How the broker refused it; None where it let it in."""
    with tempfile.TemporaryDirectory(prefix=".canary-", dir=folder) as name:
        cert, key = Path(name) / "canary.pem", Path(name) / "canary.key"
        write(cert, pem(*identity.chain))
        write(key, private_pem(identity.key), 0o600)
        place = Endpoint(endpoint.host, endpoint.port, ca=endpoint.ca, cert=cert, key=key)
        try:
            open_session(place, "canary", client_id=identity.common_name, timeout=TIMEOUT).close()
        except FleetError as error:
            return error
    return None
