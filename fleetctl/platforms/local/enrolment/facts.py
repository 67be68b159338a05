"""What the registry says about a claim, a serial and a key: the facts that `model.enrolment` decides on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fleetctl.errors import NotFound
from fleetctl.model.batch import Batch
from fleetctl.model.certificate import Reason
from fleetctl.model.device import Device
from fleetctl.model.enrolment import Asked, Caller, ClaimFacts, Code, EnrolmentState
from fleetctl.model.profile import DEFAULT, Approval, ProvisioningProfile
from fleetctl.registry import CertificateRow, Registry
from fleetctl.registry.enrolments import ClaimRow, EnrolmentRow
from fleetctl.wire.document import parse_rfc3339

if TYPE_CHECKING:
    from fleetctl.pki.csr import SigningRequest

LIVE = (EnrolmentState.PENDING, EnrolmentState.APPROVED, EnrolmentState.ISSUED, EnrolmentState.ACTIVE)


@dataclass(frozen=True, slots=True)
class Known:
    """What the registry holds of one claim and serial; the device only if it is in the claim's batch."""

    claim: ClaimRow | None
    batch: Batch | None
    device: Device | None
    rows: Sequence[EnrolmentRow] = ()

    @property
    def device_id(self) -> str | None:
        return None if self.device is None else self.device.id

    @property
    def turned_away(self) -> bool:
        return any(row.state == EnrolmentState.REJECTED and row.code == Code.REJECTED and row.spki for row in self.rows)

    @property
    def live(self) -> list[EnrolmentRow]:
        return [row for row in self.rows if row.state in LIVE]


def known(registry: Registry, claim: str, serial: str) -> Known:
    try:
        row = registry.claim(claim)
        batch = registry.batch(row.batch)
    except NotFound:
        return Known(None, None, None)
    try:
        device = registry.device_by_serial(serial)
    except NotFound:
        return Known(row, batch, None)
    if device.batch != batch.name:
        return Known(row, batch, None)
    return Known(row, batch, device, registry.enrolments(device_id=device.id))


def caller(registry: Registry, facts: Known) -> Caller:
    row, batch, device = facts.claim, facts.batch, facts.device
    if row is None or batch is None:
        return Caller(None, None, 0, False, None)
    not_after = None if row.not_after is None else parse_rfc3339(row.not_after)
    used_of_it = registry.claim_used(row.name, without=facts.device_id)
    claim = ClaimFacts(row.state == "active" and _is_backed(registry, row), not_after, row.quota, used_of_it)
    used = registry.batch_held(batch.name, without=facts.device_id)
    state = None if device is None else device.state
    return Caller(claim, batch, used, device is not None, state, facts.turned_away and not facts.live)


def _is_backed(registry: Registry, claim: ClaimRow) -> bool:
    """Whether its certificate and the authority of that are still accepted: a session with them may be open long afterwards."""
    held = registry.certificate(claim.certificate)
    return held.revoked_at is None and not is_retired(registry, held.authority)


def is_retired(registry: Registry, authority: str) -> bool:
    """Whether nobody is let in any more with a certificate of this authority."""
    try:
        return registry.authority(authority).state == "retired"
    except NotFound:
        return False


def asked(
    registry: Registry,
    facts: Known,
    parsed: "SigningRequest | None",
    fault: Code | None,
    nonce: bool | None,
    now: float,
) -> Asked:
    """What the signing request says, and what is known of its key."""
    device = facts.device
    if parsed is None or device is None:
        return Asked(fault, nonce)
    others = [row for row in facts.live if row.spki != parsed.spki]
    held = held_by(registry, facts, parsed.spki, now)
    taken = any(is_good(row, now) and row.spki != parsed.spki for row in registry.certificates(device.id))
    return Asked(
        fault,
        nonce,
        is_foreign(registry, parsed.spki, device),
        None if held is None else EnrolmentState(held.state),
        sum(row.state == EnrolmentState.PENDING for row in others),
        taken or any(row.state == EnrolmentState.APPROVED for row in others),
        facts.turned_away,
        profile_of(registry, device).approval is Approval.MANUAL,
    )


def held_by(registry: Registry, facts: Known, spki: str, now: float) -> EnrolmentRow | None:
    """This key's enrolment, as far as it still counts: one whose certificate is no good any more does not."""
    for row in reversed(facts.rows):
        if row.spki != spki or not (row.state in LIVE or row.code == Code.REJECTED):
            continue
        if row.state != EnrolmentState.ISSUED or is_good(registry.certificate(str(row.certificate)), now):
            return row
    return None


def is_foreign(registry: Registry, spki: str, device: Device) -> bool:
    """Whether a key is somebody else's, or was given away."""
    rows = registry.certificates_by_key(spki)
    return any(row.device_id != device.id or row.reason == Reason.KEY_COMPROMISE for row in rows)


def is_good(row: CertificateRow, now: float) -> bool:
    return row.revoked_at is None and parse_rfc3339(row.not_after) > now


def profile_of(registry: Registry, device: Device) -> ProvisioningProfile:
    """That of the device, else of its batch, else the default one."""
    name = device.profile
    try:
        if name is None and device.batch is not None:
            name = registry.batch(device.batch).profile
        return DEFAULT if name is None else registry.profile(name)
    except NotFound:
        return DEFAULT
