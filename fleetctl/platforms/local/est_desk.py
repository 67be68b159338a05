"""Who is given a certificate over EST: every step is in the registry before a reply can leave (docs/adr/0012-est.md)."""

import base64
import hashlib
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from fleetctl.errors import Conflict, Malformed, NotFound, Untrusted
from fleetctl.model.certificate import serial_text
from fleetctl.model.device import Device, LifeCycle
from fleetctl.model.enrolment import CANDIDATES, POLL_SECONDS, Buckets, Code, EnrolmentState
from fleetctl.model.profile import Approval
from fleetctl.pki.csr import SigningRequest, WeakKey, parse_csr
from fleetctl.pki.est import Credentials, Refusal, read_request, wants_encryption
from fleetctl.pki.est_server import Caller, Operation
from fleetctl.pki.extensions import SubjectKey
from fleetctl.platforms.local.enrolment import facts
from fleetctl.platforms.local.enrolment.events import ServeEvent, What
from fleetctl.platforms.local.est_proof import ACTOR, prove
from fleetctl.platforms.local.fleet import LocalFleet
from fleetctl.platforms.local.issuing import DeviceIssuer
from fleetctl.registry import CertificateRow
from fleetctl.registry.enrolments import EnrolmentRow
from fleetctl.registry.tokens import TokenRow
from fleetctl.wire.document import parse_rfc3339, rfc3339

BARRED = (LifeCycle.SUSPENDED, LifeCycle.RETIRED)


class Holder(NamedTuple):
    """Who has shown a certificate that is good, and which."""

    device: Device
    row: CertificateRow


class Granted(NamedTuple):
    """The certificate in PEM, and its key where that was made here."""

    certificate: str
    key: ec.EllipticCurvePrivateKey | None


@dataclass(frozen=True)
class Desk:
    """Decides in one thread, the one that `fleet` belongs to."""

    fleet: LocalFleet
    authorities: Sequence[x509.Certificate]
    renewals: Buckets
    tell: Callable[[ServeEvent], None]

    @cached_property
    def issuer(self) -> DeviceIssuer:
        return self.fleet.certificates.issuer

    def enrol(self, operation: Operation, caller: Caller, body: bytes) -> Granted:
        """1. Who is it? 2. What does it ask for? 3. May it have that? 4. Has it got it already? 5. Issue."""
        holder = self.holder(caller)
        if caller.credentials is not None and operation is not Operation.RE_ENROL:
            return self._by_token(operation, caller, caller.credentials, holder, body)
        if holder is None:
            raise unauthorized("show the certificate of the device" if operation is Operation.RE_ENROL else "a token is needed")
        return self._renewed(operation, caller, holder, body)

    def holder(self, caller: Caller) -> Holder | None:
        """The device whose certificate TLS has verified; it is proven now. None for who has shown none."""
        if caller.certificate is None:
            return None
        shown = x509.load_der_x509_certificate(caller.certificate)
        try:
            row = self.fleet.registry.certificate(serial_text(shown.serial_number))
        except NotFound as error:
            raise forbidden("this certificate is not one of this fleet's own", "unknown_certificate") from error
        if row.fingerprint != f"sha256:{shown.fingerprint(hashes.SHA256()).hex()}" or row.device_id is None:
            raise forbidden("this certificate is not a device's of this fleet", "unknown_certificate")
        device = self._believed(row, row.device_id)
        if row.proven_at is None and prove(self.fleet, row):
            self._say(What.RENEWED if row.replaces else What.ACTIVATED, device, row.serial)
        return Holder(device, row)

    def _believed(self, row: CertificateRow, device_id: str) -> Device:
        """The device of a certificate that is good now, whatever was true when the connection began."""
        if row.revoked_at is not None:
            raise forbidden(f"this certificate was revoked: {row.reason}", "revoked")
        if not facts.is_good(row, self.fleet.clock()):
            raise forbidden("this certificate has expired", "expired")
        if facts.is_retired(self.fleet.registry, row.authority):
            raise forbidden("the authority of this certificate is retired", "unknown_certificate")
        device = self._device(device_id)
        if device.state is LifeCycle.REVOKED:
            raise forbidden("the device is revoked", "revoked")
        return device

    def _by_token(self, operation: Operation, caller: Caller, given: Credentials, holder: Holder | None, body: bytes) -> Granted:
        token = self._token(given)
        device = self._device(token.device_id)
        if holder is not None and holder.device.id != device.id:
            raise forbidden("the token and the certificate are not of one device", "spoofed")
        request = read(body, device, caller, operation)
        if token.used_at is not None:
            return self._repeated(operation, token, request)
        approved = self._approved(device, request)
        registry, at = self.fleet.registry, rfc3339(self.fleet.clock())
        with registry.transaction():
            # another process may have been quicker
            token = registry.token(token.digest) or token
            if token.used_at is not None:
                return self._repeated(operation, token, request)
            device = self._device(device.id)
            row, key = self._issue(operation, device, request, self._predecessor(device, request.spki))
            registry.use_token(token.digest, row.serial, at)
            self._enrolled(device, row, at)
            if approved is not None:
                registry.settle_enrolment(approved.id, EnrolmentState.ISSUED, at=at, certificate=row.serial)
        self._say(What.ISSUED, device, row.serial)
        return Granted(row.pem, key)

    def _token(self, given: Credentials) -> TokenRow:
        """By its digest: what a comparison of digests takes tells nothing about a token."""
        token = self.fleet.registry.token(digest_of(given.token))
        if token is None or token.device_id != given.device_id:
            raise unauthorized("that token is not one of this device")
        if token.used_at is None and parse_rfc3339(token.expires_at) < self.fleet.clock():
            raise unauthorized("the token has expired")
        if token.used_at is not None and token.certificate is None:
            raise unauthorized("the token was revoked")
        return token

    def _repeated(self, operation: Operation, token: TokenRow, request: SigningRequest) -> Granted:
        """What a token was used for already, if the reply may have been lost."""
        if operation is not Operation.KEY_GENERATION and token.certificate is not None:
            row = self.fleet.registry.certificate(token.certificate)
            if row.spki == request.spki and facts.is_good(row, self.fleet.clock()):
                self._say(What.REPEATED, self._device(token.device_id), row.serial)
                return Granted(row.pem, None)
        raise unauthorized("the token was used already")

    def _renewed(self, operation: Operation, caller: Caller, holder: Holder, body: bytes) -> Granted:
        device, held = holder
        request = read(body, device, caller, operation)
        registry = self.fleet.registry
        with registry.transaction():
            # another process may have shut it out since it was believed
            device = self._believed(registry.certificate(held.serial), device.id)
            if operation is not Operation.KEY_GENERATION:
                for row in registry.certificates_by_key(request.spki):
                    if row.replaces == held.serial and row.proven_at is None and facts.is_good(row, self.fleet.clock()):
                        self._say(What.REPEATED, device, row.serial)
                        return Granted(row.pem, None)
            if not self.renewals.take(device.id, time.monotonic()):
                words = "too many new certificates: connect with the one that was issued last"
                raise Refusal(HTTPStatus.TOO_MANY_REQUESTS, words, code=Code.RATE_LIMITED, retry_after=60)
            row, key = self._issue(operation, device, request, held.serial)
        self._say(What.ISSUED, device, row.serial)
        return Granted(row.pem, key)

    def _issue(
        self, operation: Operation, device: Device, request: SigningRequest, replaces: str | None
    ) -> tuple[CertificateRow, ec.EllipticCurvePrivateKey | None]:
        key = ec.generate_private_key(ec.SECP256R1()) if operation is Operation.KEY_GENERATION else None
        public_key: SubjectKey = request.public_key if key is None else key.public_key()
        days = facts.profile_of(self.fleet.registry, device).days
        try:
            return self.issuer.issue(device, public_key, days=days, replaces=replaces), key
        except Conflict as error:
            words = "the key is that of another certificate: make a new one"
            raise Refusal(HTTPStatus.CONFLICT, words, code=Code.DUPLICATE_KEY) from error

    def _predecessor(self, device: Device, spki: str) -> str | None:
        """What a new certificate takes the place of: the last good one, or one with this very key."""
        rows = self.fleet.registry.certificates(device.id)
        good = [row for row in rows if facts.is_good(row, self.fleet.clock())]
        return next((row.serial for row in reversed(good or [row for row in rows if row.spki == spki])), None)

    def _enrolled(self, device: Device, row: CertificateRow, at: str) -> None:
        registry, reason = self.fleet.registry, f"token; certificate {row.serial}"
        if device.state in (LifeCycle.MANUFACTURED, LifeCycle.REVOKED):
            registry.move_device(device.id, LifeCycle.CLAIMED, event="enrolled", at=at, reason=reason, actor=ACTOR)
        else:
            registry.note(device.id, "enrolled", at=at, reason=reason, actor=ACTOR)

    def _approved(self, device: Device, request: SigningRequest) -> EnrolmentRow | None:
        """The approval that a profile asks for; None where it asks for none."""
        if facts.profile_of(self.fleet.registry, device).approval is not Approval.MANUAL:
            return None
        with self.fleet.registry.transaction():
            found = self._decided(device, request)
        if isinstance(found, Refusal):
            raise found
        return found

    def _decided(self, device: Device, request: SigningRequest) -> EnrolmentRow | Refusal:
        """What a person has said about this key; one that nobody has seen waits from now on."""
        registry = self.fleet.registry
        rows = [row for row in registry.enrolments(device_id=device.id) if row.spki]
        held = [row for row in rows if row.spki == request.spki and row.state != EnrolmentState.REJECTED]
        if held and held[-1].state != EnrolmentState.PENDING:
            return held[-1]
        if any(row.state == EnrolmentState.REJECTED and row.code == Code.REJECTED for row in rows):
            return forbidden("the device was turned away", Code.REJECTED)
        if not held:
            if sum(row.state == EnrolmentState.PENDING for row in rows) >= CANDIDATES:
                words = f"{CANDIDATES} keys wait for this device already"
                return Refusal(HTTPStatus.TOO_MANY_REQUESTS, words, code=Code.RATE_LIMITED, retry_after=int(POLL_SECONDS))
            at, name = rfc3339(self.fleet.clock()), secrets.token_hex(8)
            pending = EnrolmentState.PENDING
            registry.add_enrolment(
                EnrolmentRow(name, "est", None, device.serial, device.id, request.spki, None, pending, Code.PENDING, None, at)
            )
            self._say(What.PENDING, device, "it waits to be approved")
        words = "it waits to be approved: send the same request again"
        return Refusal(HTTPStatus.ACCEPTED, words, code=Code.PENDING, retry_after=int(POLL_SECONDS))

    def _device(self, device_id: str) -> Device:
        device = self.fleet.registry.device(device_id)
        if device.state in BARRED:
            raise forbidden(f"the device is {device.state}", str(device.state))
        return device

    def _say(self, what: What, device: Device, detail: str) -> None:
        self.tell(ServeEvent(what, rfc3339(self.fleet.clock()), device.serial, device.id, detail=detail))


def digest_of(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def read(body: bytes, device: Device, caller: Caller, operation: Operation) -> SigningRequest:
    """What a request asks for: a key, for nobody but the one who was believed."""
    try:
        text = read_request(body)
        request = parse_csr(text)
    except (Malformed, WeakKey, Untrusted) as error:
        code = Code.WEAK_KEY if isinstance(error, WeakKey) else Code.BAD_CSR
        raise Refusal(HTTPStatus.BAD_REQUEST, error.message, code=code) from error
    if operation is Operation.KEY_GENERATION and wants_encryption(text):
        raise Refusal(HTTPStatus.BAD_REQUEST, "keys are encrypted by TLS alone here", code=Code.BAD_CSR)
    if request.common_name not in (None, device.id):
        raise forbidden("the request names another device", "spoofed")
    if request.challenge is not None and caller.tls_unique is not None:
        given = base64.b64encode(caller.tls_unique).decode()
        if not secrets.compare_digest(request.challenge.encode(), given.encode()):
            words = "the challenge of the request is not the tls-unique of this connection"
            raise Refusal(HTTPStatus.BAD_REQUEST, words, code=Code.STALE_CSR)
    return request


def unauthorized(words: str) -> Refusal:
    return Refusal(HTTPStatus.UNAUTHORIZED, words, code="unauthorized")


def forbidden(words: str, code: str) -> Refusal:
    return Refusal(HTTPStatus.FORBIDDEN, words, code=code)
