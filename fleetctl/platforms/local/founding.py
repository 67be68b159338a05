"""What a new context is given: signing keys with their trust document, authorities, and the first identities."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from fleetctl.errors import FleetError
from fleetctl.keys.cose import Signer, trust_key
from fleetctl.keys.store import generate_key, private_pem, public_pem
from fleetctl.keys.stores import KeyStore, remember_store
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
from fleetctl.platforms.local.authorities import record_authority
from fleetctl.platforms.local.issuing import row_of
from fleetctl.platforms.local.layout import KEYS, Layout
from fleetctl.platforms.local.lists import write_lists
from fleetctl.platforms.local.staging import write
from fleetctl.registry import Registry
from fleetctl.wire.trust import Role, TrustDocument

ROOT = "root"
OPERATOR = "operator"
BROKER = "broker"
"""The broker and the artifact server of a fleet of one's own are one machine, and show one certificate."""


SIGNING_KEYS = (ROOT, Role.RELEASE.value, Role.ROLLOUT.value)
AUTHORITIES = (DEVICE_ROOT, DEVICE_ISSUING, FLEET_CA)


def make_signing_keys(layout: Layout, store: KeyStore, tenant: str) -> None:
    """Root, release and rollout keys, and version 1 of the document in which the root says who may sign what."""
    alg = store.signing
    root, release, rollout = (store.generate(name, alg) for name in SIGNING_KEYS)
    signer = Signer(root)
    entries = tuple(trust_key(Signer(key).public_key, role) for key, role in ((release, Role.RELEASE), (rollout, Role.ROLLOUT)))
    write(layout.trust, sign_trust(TrustDocument(1, tenant, entries), signer))
    write(layout.root_key, public_pem(signer.public_key))


def make_identities(
    layout: Layout, registry: Registry, store: KeyStore, operator: str, server_names: Sequence[str], now: float
) -> None:
    """Two houses of authorities with their lists; a certificate for the operator and one for the servers."""
    founder = _Founder(layout, registry, now)
    tenant = registry.tenant
    keys = {name: store.generate(name, "p256") for name in AUTHORITIES}
    root = founder.authority(create_root(DEVICE_ROOT, tenant, keys[DEVICE_ROOT], now, 1), DEVICE_ROOT, "devices")
    below = create_issuing(root, DEVICE_ISSUING, tenant, keys[DEVICE_ISSUING], now)
    issuing = founder.authority(below, DEVICE_ROOT, "devices")
    people = founder.authority(create_root(FLEET_CA, tenant, keys[FLEET_CA], now, 0), FLEET_CA, "people")
    write(layout.device_ca, pem(*issuing.chain))
    write(layout.fleet_ca, pem(*people.chain))
    founder.identity(people, operator_request(tenant, operator), OPERATOR)
    founder.identity(people, server_request(server_names), BROKER)
    remember_store(store, layout.folder / KEYS)
    write_lists(registry, layout, DEVICE_ISSUING, now)
    write_lists(registry, layout, FLEET_CA, now)


@contextmanager
def unless_it_fails(store: KeyStore) -> Iterator[KeyStore]:
    """A store whose keys are removed again if the block fails: what lies on a token is not in the folder that is removed then."""
    try:
        yield store
    except BaseException:
        for name in () if store.exportable else (*SIGNING_KEYS, *AUTHORITIES):
            with suppress(FleetError):
                store.discard(name)
        raise


@dataclass(frozen=True, slots=True)
class _Founder:
    layout: Layout
    registry: Registry
    now: float

    def authority(self, made: Authority, issuer: str, role: str) -> Authority:
        self.registry.add_certificate(row_of(made.certificate, issuer, Profile.AUTHORITY))
        record_authority(self.registry, made, role)
        return made

    def identity(self, authority: Authority, request: Request, name: str) -> None:
        key = generate_key("p256")
        certificate = issue(authority, request, key.public_key(), self.now)
        write(self.layout.key(name), private_pem(key), 0o600)
        write(self.layout.public(f"{name}.pem"), pem(certificate, *authority.issuers))
        self.registry.add_certificate(row_of(certificate, authority.name, request.profile))
