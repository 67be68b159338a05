"""Claims: a certificate and a key that every device of a batch may carry, good for nothing but asking for an identity."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fleetctl import files
from fleetctl.errors import Conflict, Malformed, NotFound, UsageError
from fleetctl.keys.store import generate_key, private_pem
from fleetctl.model.batch import BatchState
from fleetctl.model.certificate import DAY, Profile, Reason, reason
from fleetctl.model.device import check_level, printable
from fleetctl.model.profile import DEFAULT
from fleetctl.pki.authority import PEM_LIMIT, Authority, claim_request, issue, pem
from fleetctl.platforms.local import authorities
from fleetctl.platforms.local.issuing import row_of
from fleetctl.platforms.local.layout import Layout
from fleetctl.platforms.local.revocation import revoke
from fleetctl.platforms.local.staging import staged, write
from fleetctl.registry.enrolments import ClaimRow
from fleetctl.wire import bundle
from fleetctl.wire.bundle import ClaimConfig, render_claim_yaml
from fleetctl.wire.document import parse_rfc3339, rfc3339

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from fleetctl.platforms.local.fleet import LocalFleet


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim as it is now; `state` is active, expired or revoked, `used` how many devices hold a place of it."""

    name: str
    batch: str
    state: str
    used: int
    quota: int | None
    not_after: str | None
    serial: str
    created_at: str


@dataclass(frozen=True, slots=True)
class ClaimMade:
    """A claim that was made, and the folder that devices are given."""

    name: str
    batch: str
    quota: int | None
    not_after: str
    serial: str
    bundle: str


@dataclass(frozen=True, slots=True)
class ClaimRevoked:
    """`outcome` is revoked or unchanged; from now on nobody enrols with it, whatever the broker has read."""

    name: str
    outcome: str
    serial: str
    crl_number: int
    broker_running: bool
    broker_reloaded: bool


def create_claim(
    fleet: "LocalFleet", name: str, batch: str, folder: Path, *, quota: int | None = None, until: float | None = None
) -> ClaimMade:
    """A claim for a batch, and its bundle in a folder that does not exist yet; `until` is seconds since 1970.

    Raises:
        NotFound: no such batch, or there is no authority for claims yet.
        Conflict: the name was used before, the batch is closed, or the folder holds something.
    """
    check_level("claim", name)
    registry, now = fleet.registry, fleet.clock()
    held = registry.batch(batch)
    if held.state is not BatchState.OPEN:
        raise Conflict(f"batch `{batch}` is closed", "make another: fleetctl provision batch create")
    if quota is not None and quota < 1:
        raise UsageError(f"a quota of {quota} lets nobody in", "leave it away, or name 1 or more")
    if until is not None and until <= now:
        raise UsageError(f"claim {printable(name)} would have ended already", "name a time to come: --until 30d")
    ends = [each for each in (until, None if held.not_after is None else parse_rfc3339(held.not_after)) if each is not None]
    secret = generate_key("p256")
    authority = _authority(fleet)
    days = max(1, -int(-(min(ends) - now) // DAY)) if ends else None
    certificate = issue(authority, claim_request(fleet.tenant, name), secret.public_key(), now, days=days)
    row = row_of(certificate, authority.name, Profile.CLAIM)
    not_after = rfc3339(min([*ends, parse_rfc3339(row.not_after)]))
    with registry.transaction():
        registry.add_claim(ClaimRow(name, batch, row.serial, quota, not_after, "active", rfc3339(now)))
        registry.add_certificate(row)
        with staged(folder) as fresh:
            write(fresh / bundle.CLAIM_KEY, private_pem(secret), 0o600)
            _write_public(fleet, fresh, name, authority, certificate)
    return ClaimMade(name, batch, quota, not_after, row.serial, str(folder))


def ending(now: float, until: str | None, lasting: float | None) -> float | None:
    """When a claim ends that is good until a time, or for so many seconds; raises `UsageError` for both."""
    if until is not None and lasting is not None:
        raise UsageError("a claim has one end", "name --until TIME or --for DURATION")
    if until is None:
        return None if lasting is None else now + lasting
    try:
        return parse_rfc3339(until)
    except Malformed as error:
        raise UsageError(error.message, error.hint) from error


def list_claims(fleet: "LocalFleet", batch: str | None = None) -> Sequence[Claim]:
    """All claims, or those of one batch; raises `NotFound`."""
    if batch is not None:
        fleet.registry.batch(batch)
    return [_shown(fleet, row) for row in fleet.registry.claims(batch)]


def revoke_claim(fleet: "LocalFleet", name: str, why: str = Reason.UNSPECIFIED) -> ClaimRevoked:
    """Let nobody enrol with a claim any more: the registry at once, then the list of the claim authority and the broker.

    Raises:
        NotFound: no such claim.
        FleetError: it is revoked, but the broker that runs has not taken the list.
    """
    registry, wanted = fleet.registry, reason(why)
    row = registry.claim(name)
    changed = registry.revoke_claim(name)
    told = revoke(fleet, [registry.certificate(row.certificate)], wanted)[0]
    outcome = "revoked" if changed else "unchanged"
    return ClaimRevoked(name, outcome, row.certificate, told.crl_number, told.broker_running, told.broker_reloaded)


def _authority(fleet: "LocalFleet") -> Authority:
    try:
        return authorities.active(fleet, "claims")
    except NotFound as error:
        raise NotFound("there is no authority for claims yet", "make it: fleetctl certs ca init claims") from error


def _write_public(fleet: "LocalFleet", fresh: Path, name: str, authority: Authority, certificate: "Certificate") -> None:
    layout, context = Layout(fleet.context.folder), fleet.context
    config = ClaimConfig(
        fleet.tenant, name, context.claims, context.device_broker, context.artifacts, DEFAULT.heartbeat, context.enrol
    )
    write(fresh / bundle.CLAIM_CERTIFICATE, pem(certificate, *authority.issuers))
    for file, path in ((bundle.AUTHORITY, layout.fleet_ca), (bundle.TRUST, layout.trust), (bundle.ROOT, layout.root_key)):
        write(fresh / file, files.read_limited(path, PEM_LIMIT))
    write(fresh / bundle.CLAIM_CONFIG, render_claim_yaml(config).encode())


def _shown(fleet: "LocalFleet", row: ClaimRow) -> Claim:
    expired = row.not_after is not None and fleet.clock() > parse_rfc3339(row.not_after)
    state = row.state if row.state != "active" or not expired else "expired"
    used = fleet.registry.claim_used(row.name)
    return Claim(row.name, row.batch, state, used, row.quota, row.not_after, row.certificate, row.created_at)
