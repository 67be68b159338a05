"""Whether a device that holds a claim may have an identity: facts in, a verdict out, the checks in the order of their numbers."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from fleetctl.model.batch import Batch, Refusal, check_batch
from fleetctl.model.device import LifeCycle

CLAIM_PREFIX = "claim:"
"""How the common name of a claim begins: a colon is in no device id."""
NONCE_SECONDS = 60.0
PENDING_SECONDS = 86400.0
"""How long a certificate waits for its device to be seen, before it is taken back."""
POLL_SECONDS = 30.0
CANDIDATES = 4
"""How many keys may wait for one serial to be approved."""
BUCKETS = 10_000


class Code(StrEnum):
    """Why an enrolment is not, or not yet, granted."""

    ALREADY_ACTIVE = "already_active"
    ALREADY_CLAIMED = "already_claimed"
    SERIAL_NOT_IN_BATCH = "serial_not_in_batch"
    CLAIM_EXPIRED = "claim_expired"
    CLAIM_REVOKED = "claim_revoked"
    QUOTA = "quota"
    NO_NONCE = "no_nonce"
    STALE_CSR = "stale_csr"
    DUPLICATE_KEY = "duplicate_key"
    BAD_CSR = "bad_csr"
    WEAK_KEY = "weak_key"
    BAD_REQUEST = "bad_request"
    RATE_LIMITED = "rate_limited"
    BATCH_CLOSED = "batch_closed"
    NOT_YET_OPEN = "not_yet_open"
    REJECTED = "rejected"
    PENDING = "pending"


class EnrolmentState(StrEnum):
    """pending: waits for a person. approved: the device fetches it next time. issued: not seen yet. active: seen. rejected."""

    PENDING = "pending"
    APPROVED = "approved"
    ISSUED = "issued"
    ACTIVE = "active"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class ClaimFacts:
    """`used` counts the devices, other than the one that asks, that hold a place of this claim."""

    active: bool
    not_after: float | None
    quota: int | None
    used: int


@dataclass(frozen=True, slots=True)
class Caller:
    """What the registry knows before the request is read.

    `used` is the batch's count without the device that asks; `banned`: a person has turned away all that asked for this serial.
    """

    claim: ClaimFacts | None
    batch: Batch | None
    used: int
    in_batch: bool
    state: LifeCycle | None
    banned: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """What the signing request says, and what is known of its key.

    `nonce`: whether the challenge is the outstanding one, None where none is; `fault`: what is wrong with the request; `held`:
    the state of this device's enrolment with this very key; `rivals`: how many others wait; `taken`: another key holds the
    certificate of this serial; `turned_away`: a person has rejected one of them.
    """

    fault: Code | None = None
    nonce: bool | None = None
    key_is_foreign: bool = False
    held: EnrolmentState | None = None
    rivals: int = 0
    taken: bool = False
    turned_away: bool = False
    manual: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the device is told; `issues`: it gets a certificate that does not exist yet."""

    status: str
    code: Code | None = None
    detail: str = ""
    retry_after: float | None = None
    issues: bool = False

    @property
    def accepted(self) -> bool:
        return self.status == "accepted"


def refused(code: Code, detail: str, retry_after: float | None = None) -> Verdict:
    return Verdict("rejected", code, detail, retry_after)


def check_caller(serial: str, caller: Caller, now: float) -> Verdict | None:
    """Checks 1 to 5, which need no signing request; None where all are passed."""
    return _check_claim(caller.claim, now) or _check_open(caller.batch, now) or _check_device(serial, caller)


def decide(serial: str, caller: Caller, asked: Asked, now: float) -> Verdict:
    """All checks, in the order of their numbers: what the request proves comes before what it may have.

    A device that asks again with the key that it was given a certificate for gets the same one, and takes no second place.
    """
    return (
        check_caller(serial, caller, now)
        or _check_proof(asked)
        or _check_key(serial, asked)
        or _check_room(caller, asked)
        or _check_approval(serial, asked)
        or Verdict("accepted", issues=asked.held is not EnrolmentState.ISSUED)
    )


def _check_claim(claim: ClaimFacts | None, now: float) -> Verdict | None:
    # 1. the claim is one of ours, and good
    if claim is None or not claim.active:
        return refused(Code.CLAIM_REVOKED, "this claim is not accepted")
    if claim.not_after is not None and now > claim.not_after:
        return refused(Code.CLAIM_EXPIRED, "this claim has expired")
    return None


def _check_open(batch: Batch | None, now: float) -> Verdict | None:
    # 2. its batch is open now
    refusal = Refusal.CLOSED if batch is None else check_batch(batch, now, 0)
    if refusal is Refusal.NOT_YET_OPEN:
        return refused(Code.NOT_YET_OPEN, "the batch is not open yet", POLL_SECONDS)
    return None if refusal is None else refused(Code.BATCH_CLOSED, "the batch is closed")


def _check_device(serial: str, caller: Caller) -> Verdict | None:
    # 3. the serial is in that batch
    if not caller.in_batch or caller.state is None:
        return refused(Code.SERIAL_NOT_IN_BATCH, f"serial {serial} is not in the batch of this claim")
    # 4. the device waits for its first identity
    if caller.state in (LifeCycle.ACTIVE, LifeCycle.RENEWING):
        return refused(Code.ALREADY_ACTIVE, f"serial {serial} has its identity already")
    # 5. nobody has turned it away
    if caller.banned or caller.state not in (LifeCycle.MANUFACTURED, LifeCycle.CLAIMED):
        return refused(Code.REJECTED, f"serial {serial} was turned away")
    return None


def _check_proof(asked: Asked) -> Verdict | None:
    # 6. the request answers a nonce of ours that is still good, and its key has signed it
    if asked.nonce is None:
        return refused(Code.NO_NONCE, "no nonce is outstanding: say hello first")
    if asked.fault is not None:
        return refused(asked.fault, _FAULTS.get(asked.fault, "the signing request is not accepted"))
    if not asked.nonce:
        return refused(Code.STALE_CSR, "the challenge in the signing request is not the nonce")
    return None


def _check_key(serial: str, asked: Asked) -> Verdict | None:
    # 7. its key is nobody else's
    if asked.key_is_foreign:
        return refused(Code.DUPLICATE_KEY, "this key is in use already: make one of its own")
    # 8. no person has turned it away
    if asked.held is EnrolmentState.REJECTED or (asked.turned_away and asked.held is None):
        return refused(Code.REJECTED, f"serial {serial} was turned away")
    # 9. no other key has claimed this serial
    if asked.taken and asked.held is not EnrolmentState.ISSUED:
        return refused(Code.ALREADY_CLAIMED, f"another key has claimed serial {serial}")
    return None


def _check_room(caller: Caller, asked: Asked) -> Verdict | None:
    # 10. there is room, unless this device holds its place already
    if asked.held in (EnrolmentState.APPROVED, EnrolmentState.ISSUED) or has_room(caller.claim, caller.batch, caller.used):
        return None
    return refused(Code.QUOTA, "as many devices have enrolled as may")


def _check_approval(serial: str, asked: Asked) -> Verdict | None:
    # 11. a person agrees, where one must
    if not asked.manual or asked.held in (EnrolmentState.APPROVED, EnrolmentState.ISSUED):
        return None
    if asked.held is None and asked.rivals >= CANDIDATES:
        return refused(Code.RATE_LIMITED, f"{CANDIDATES} keys wait for serial {serial} already", POLL_SECONDS)
    return Verdict("pending", Code.PENDING, "it waits to be approved", POLL_SECONDS)


def has_room(claim: ClaimFacts | None, batch: Batch | None, used: int) -> bool:
    """Whether one more device may hold a place of the claim and of its batch."""
    within = claim is None or claim.quota is None or claim.used < claim.quota
    return within and (batch is None or batch.quota is None or used < batch.quota)


def beneath(defaults: Mapping[str, Any], desired: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults of which nothing is desired yet, as a merge patch."""
    patch: dict[str, Any] = {}
    for key, value in defaults.items():
        held = desired.get(key)
        if isinstance(value, Mapping) and isinstance(held, Mapping):
            inner = beneath(value, held)
            patch |= {key: inner} if inner else {}
        elif key not in desired:
            patch[key] = value
    return patch


_FAULTS = {
    Code.BAD_CSR: "the signing request does not parse, or its signature does not fit its key",
    Code.WEAK_KEY: "the key is too weak: make one with P-256, Ed25519 or RSA of 2048 bits",
}


class Buckets:
    """Token buckets by name (RFC 2697's idea): `burst` at once, then `rate` a second; what is not known any more is full."""

    def __init__(self, burst: float, rate: float, limit: int = BUCKETS) -> None:
        self._burst, self._rate, self._limit = burst, rate, limit
        self._held: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def take(self, name: str, now: float) -> bool:
        """Whether one more may pass now; `now` is in seconds of any clock that does not go back."""
        left, at = self._held.pop(name, (self._burst, now))
        left = min(self._burst, left + max(0.0, now - at) * self._rate)
        passes = left >= 1.0
        self._held[name] = (left - 1.0 if passes else left, now)
        if len(self._held) > self._limit:
            self._held.popitem(last=False)
        return passes
