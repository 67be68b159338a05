"""Answers devices that hold a claim: `model.enrolment` decides on the registry's facts, and that is durable before it is said."""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fleetctl.errors import Conflict, FleetError, Malformed, Untrusted
from fleetctl.model.device import Device, LifeCycle
from fleetctl.model.enrolment import (
    CLAIM_PREFIX,
    Buckets,
    Code,
    EnrolmentState,
    Verdict,
    check_caller,
    decide,
    refused,
)
from fleetctl.pki.csr import SigningRequest, WeakKey, parse_csr
from fleetctl.platforms.local.enrolment import facts
from fleetctl.platforms.local.enrolment.events import ServeEvent, What
from fleetctl.platforms.local.enrolment.facts import Known
from fleetctl.platforms.local.enrolment.nonces import Nonces
from fleetctl.registry.enrolments import EnrolmentRow
from fleetctl.wire.document import rfc3339
from fleetctl.wire.provision import ProvisionReply, ProvisionRequest, reply_topic, split_request

if TYPE_CHECKING:
    from fleetctl.mqtt.message import Message
    from fleetctl.platforms.local.fleet import LocalFleet

SERIAL_BURST, SERIAL_RATE = 12.0, 0.5
CLAIM_BURST, CLAIM_RATE = 1000.0, 200.0
DENIED_BURST, DENIED_RATE = 5.0, 5 / 60
TOLD_BURST, TOLD_RATE = 20.0, 1.0
ALERT_RATE = 1 / 60
SUSPECT = (Code.SERIAL_NOT_IN_BATCH, Code.ALREADY_ACTIVE, Code.ALREADY_CLAIMED, Code.DUPLICATE_KEY)
"""What a device that may carry its claim does not meet again and again."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a device is told, and what is told of it."""

    topic: str
    reply: ProvisionReply
    events: tuple[ServeEvent, ...] = ()


@dataclass(frozen=True, slots=True)
class Case:
    """One request with what is known about who sent it."""

    claim: str
    serial: str
    request: ProvisionRequest | None
    known: Known | None = None


@dataclass
class Answering:
    """`monotonic` measures nonces and rates; the fleet's clock is that of windows and records."""

    fleet: "LocalFleet"
    monotonic: Callable[[], float]
    nonces: Nonces = field(init=False)
    serials: Buckets = field(default_factory=lambda: Buckets(SERIAL_BURST, SERIAL_RATE))
    claims: Buckets = field(default_factory=lambda: Buckets(CLAIM_BURST, CLAIM_RATE))
    denied: Buckets = field(default_factory=lambda: Buckets(DENIED_BURST, DENIED_RATE))
    told: Buckets = field(default_factory=lambda: Buckets(TOLD_BURST, TOLD_RATE))
    alerts: Buckets = field(default_factory=lambda: Buckets(1.0, ALERT_RATE))

    def __post_init__(self) -> None:
        self.nonces = Nonces(self.monotonic)

    def answer_all(self, messages: Sequence["Message"]) -> list[Answer]:
        """Decide about all of them in one transaction: when this returns, what the answers say is on disk."""
        with self.fleet.registry.transaction():
            answers = [self.answer(message.topic, message.payload) for message in messages]
        return [each for each in answers if each is not None]

    def answer(self, topic: str, payload: bytes) -> Answer | None:
        """None for a topic that is no claim's; to be called in a transaction."""
        found = split_request(topic)
        if found is None:
            return None
        case = Case(*found, None)
        now = self.monotonic()
        try:
            case = Case(*found, ProvisionRequest.decode(payload))
        except Malformed as error:
            problem = refused(Code.BAD_REQUEST, error.message)
        else:
            problem = refused(Code.RATE_LIMITED, "too many requests", 1 / SERIAL_RATE)
        # a device that asks without end wears out itself, not its batch
        passes = self.serials.take("/".join(found), now) and self.claims.take(case.claim, now)
        if case.request is None or not passes:
            return self._refuse(case, problem)
        return self._served(Case(*found, case.request, facts.known(self.fleet.registry, *found)), case.request)

    def _served(self, case: Case, request: ProvisionRequest) -> Answer:
        """A fault of ours (an authority whose key is not here) refuses this one and stops nothing."""
        try:
            with self.fleet.registry.transaction():
                return self._hello(case, request) if request.step == "hello" else self._enrol(case, request)
        except FleetError as error:
            return self._failed(case, request, error.code, error.message)
        except Exception as error:
            return self._failed(case, request, "fault", f"{type(error).__name__}: {error}")

    def _failed(self, case: Case, request: ProvisionRequest, code: str, words: str) -> Answer:
        reply = ProvisionReply(request.id, request.step, "rejected", "failed", "try again later", retry_after=60.0)
        return self._say(case, reply, What.FAILED, code, words)

    def _hello(self, case: Case, request: ProvisionRequest) -> Answer:
        known = case.known or Known(None, None, None)
        verdict = check_caller(case.serial, facts.caller(self.fleet.registry, known), self.fleet.clock())
        if verdict is not None:
            return self._refuse(case, verdict)
        nonce = self.nonces.give(case.claim, case.serial)
        return self._say(case, ProvisionReply(request.id, "hello", "accepted", nonce=nonce))

    def _enrol(self, case: Case, request: ProvisionRequest) -> Answer:
        registry, now = self.fleet.registry, self.fleet.clock()
        known = case.known or Known(None, None, None)
        parsed, fault = _parse(request.csr or "")
        nonce = self.nonces.matches(case.claim, case.serial, None if parsed is None else parsed.challenge)
        asked = facts.asked(registry, known, parsed, fault, nonce, now)
        verdict = decide(case.serial, facts.caller(registry, known), asked, now)
        if nonce:
            self.nonces.spend(case.claim, case.serial)
        if verdict.status == "rejected" or parsed is None or known.device is None:
            return self._refuse(case, verdict)
        held = facts.held_by(registry, known, parsed.spki, now)
        if verdict.status == "pending":
            return self._wait(case, request, parsed, held, verdict)
        if not verdict.issues and held is not None:
            return self._give(case, known.device, str(held.certificate), What.REPEATED)
        return self._issue(case, known.device, parsed, held)

    def _issue(self, case: Case, device: Device, parsed: SigningRequest, held: EnrolmentRow | None) -> Answer:
        """Certificate, enrolment and state together."""
        registry, at = self.fleet.registry, rfc3339(self.fleet.clock())
        before = [row.serial for row in registry.certificates_by_key(parsed.spki) if row.device_id == device.id]
        days = facts.profile_of(registry, device).days
        replaces = before[-1] if before else None
        try:
            row = self.fleet.certificates.issuer.issue(device, parsed.public_key, days=days, replaces=replaces)
        except Conflict as error:
            return self._refuse(case, refused(Code.DUPLICATE_KEY, error.message))
        if held is None:
            self._record(case, device, parsed, EnrolmentState.ISSUED, row.serial)
        else:
            registry.settle_enrolment(held.id, EnrolmentState.ISSUED, at=at, certificate=row.serial)
        registry.move_device(device.id, LifeCycle.CLAIMED, event="claimed", at=at, actor=f"{CLAIM_PREFIX}{case.claim}")
        return self._give(case, device, row.serial, What.ISSUED)

    def _give(self, case: Case, device: Device, serial: str, what: What) -> Answer:
        chain = self.fleet.certificates.issuer.chain(self.fleet.registry.certificate(serial)).decode()
        name = None if case.request is None else case.request.id
        return self._say(
            case, ProvisionReply(name, "enrol", "accepted", path=device.path, certificate=chain), what, detail=serial
        )

    def _wait(
        self, case: Case, request: ProvisionRequest, parsed: SigningRequest, held: EnrolmentRow | None, verdict: Verdict
    ) -> Answer:
        reply = ProvisionReply(request.id, "enrol", "pending", verdict.code, verdict.detail, retry_after=verdict.retry_after)
        if held is not None or case.known is None or case.known.device is None:
            return self._say(case, reply)
        self._record(case, case.known.device, parsed, EnrolmentState.PENDING, None)
        return self._say(case, reply, What.PENDING, verdict.code, f"key {parsed.spki}")

    def _record(self, case: Case, device: Device, parsed: SigningRequest, state: EnrolmentState, certificate: str | None) -> None:
        at = rfc3339(self.fleet.clock())
        pending = state is EnrolmentState.PENDING
        csr = None if case.request is None else case.request.csr
        who = (secrets.token_hex(8), "claim", case.claim, case.serial, device.id, parsed.spki, csr)
        what = (state.value, Code.PENDING.value if pending else None, certificate, at, None if pending else at)
        self.fleet.registry.add_enrolment(EnrolmentRow(*who, *what))

    def _refuse(self, case: Case, verdict: Verdict) -> Answer:
        code, request = verdict.code or Code.BAD_REQUEST, case.request
        if case.known is not None and case.known.claim is not None:
            at = rfc3339(self.fleet.clock())
            self.fleet.registry.record_refusal(case.claim, case.serial, case.known.device_id, code, at)
        name, step = (None, None) if request is None else (request.id, request.step)
        reply = ProvisionReply(name, step, "rejected", code, verdict.detail, retry_after=verdict.retry_after)
        answer = self._say(case, reply)
        return Answer(answer.topic, reply, self._told(case, code, verdict.detail))

    def _told(self, case: Case, code: Code, detail: str) -> tuple[ServeEvent, ...]:
        """A flood of refusals is told in drops; a claim that asks for what it may not have, again and again, raises an alarm."""
        now, events = self.monotonic(), []
        if self.told.take(case.claim, now):
            events.append(self._event(case, What.REFUSED, code, detail))
        if code in SUSPECT and not self.denied.take(case.claim, now) and self.alerts.take(case.claim, now):
            words = "this claim keeps asking for what it may not have: it may be in wrong hands"
            events.append(self._event(case, What.ALERT, code, words))
        return tuple(events)

    def _say(
        self, case: Case, reply: ProvisionReply, what: What | None = None, code: str | None = None, detail: str | None = None
    ) -> Answer:
        events = () if what is None else (self._event(case, what, code, detail),)
        return Answer(reply_topic(self.fleet.tenant, case.claim, case.serial), reply, events)

    def _event(self, case: Case, what: What, code: str | None, detail: str | None) -> ServeEvent:
        device_id = None if case.known is None else case.known.device_id
        return ServeEvent(what, rfc3339(self.fleet.clock()), case.serial, device_id, case.claim, code, detail)


def _parse(csr: str) -> tuple[SigningRequest | None, Code | None]:
    try:
        return parse_csr(csr.encode()), None
    except WeakKey:
        return None, Code.WEAK_KEY
    except (Malformed, Untrusted, UnicodeEncodeError):
        return None, Code.BAD_CSR
