"""What a new context is given: signing keys with their trust document, authorities, and the first identities."""

from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec

from fleetctl.keys.cose import Signer, trust_key
from fleetctl.keys.store import generate_key, private_pem, public_pem
from fleetctl.keys.trust import sign_trust
from fleetctl.model.certificate import Profile
from fleetctl.pki.authority import (
    DEVICE_ISSUING,
    DEVICE_ROOT,
    FLEET_CA,
    Authority,
    Request,
    create_issuing,
    create_root,
    issue,
    operator_request,
    pem,
    server_request,
)
from fleetctl.platforms.local.issuing import row_of
from fleetctl.platforms.local.layout import Layout
from fleetctl.platforms.local.revocation import write_lists
from fleetctl.platforms.local.staging import write
from fleetctl.registry import Registry
from fleetctl.wire.trust import Role, TrustDocument

ROOT = "root"
OPERATOR = "operator"
BROKER = "broker"
"""The broker and the artifact server of a fleet of one's own are one machine, and show one certificate."""


def make_signing_keys(layout: Layout, tenant: str) -> None:
    """Root, release and rollout keys, and version 1 of the document in which the root says who may sign what."""
    root, release, rollout = (generate_key("ed25519") for _ in range(3))
    for name, key in ((ROOT, root), (Role.RELEASE, release), (Role.ROLLOUT, rollout)):
        write(layout.key(name), private_pem(key), 0o600)
    entries = (trust_key(release.public_key(), Role.RELEASE), trust_key(rollout.public_key(), Role.ROLLOUT))
    write(layout.trust, sign_trust(TrustDocument(1, tenant, entries), Signer(root)))
    write(layout.root_key, public_pem(root))


def make_identities(layout: Layout, registry: Registry, operator: str, server_names: Sequence[str], now: float) -> None:
    """Two houses of authorities with their lists; a certificate for the operator and one for the servers."""
    founder = _Founder(layout, registry, now)
    root = founder.authority(create_root(DEVICE_ROOT, registry.tenant, _key(), now, 1), DEVICE_ROOT)
    issuing = founder.authority(create_issuing(root, DEVICE_ISSUING, registry.tenant, _key(), now), DEVICE_ROOT)
    people = founder.authority(create_root(FLEET_CA, registry.tenant, _key(), now, 0), FLEET_CA)
    write(layout.device_ca, pem(*issuing.chain))
    write(layout.fleet_ca, pem(*people.chain))
    founder.identity(people, operator_request(registry.tenant, operator), OPERATOR)
    founder.identity(people, server_request(server_names), BROKER)
    write_lists(registry, layout, DEVICE_ISSUING, now)
    write_lists(registry, layout, FLEET_CA, now)


@dataclass(frozen=True, slots=True)
class _Founder:
    layout: Layout
    registry: Registry
    now: float

    def authority(self, made: Authority, issuer: str) -> Authority:
        write(self.layout.key(made.name), private_pem(made.key), 0o600)
        self.registry.add_certificate(row_of(made.certificate, issuer, Profile.AUTHORITY))
        return made

    def identity(self, authority: Authority, request: Request, name: str) -> None:
        key = _key()
        certificate = issue(authority, request, key.public_key(), self.now)
        write(self.layout.key(name), private_pem(key), 0o600)
        write(self.layout.public(f"{name}.pem"), pem(certificate, *authority.issuers))
        self.registry.add_certificate(row_of(certificate, authority.name, request.profile))


def _key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())
