"""Just in time: a device that nobody knows proves itself with a certificate of an authority that was registered."""

import base64
import binascii
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography import x509

from fleetctl.errors import Conflict, FleetError, Malformed, NotFound, Untrusted
from fleetctl.model import topic as topics
from fleetctl.model.certificate import Profile
from fleetctl.model.device import Device, DevicePath, LifeCycle, check_device_id, printable
from fleetctl.model.enrolment import Buckets, Code, EnrolmentState
from fleetctl.model.profile import DEFAULT, Approval, ProvisioningProfile
from fleetctl.platforms.local import authorities
from fleetctl.platforms.local.enrolment import vouching
from fleetctl.platforms.local.enrolment.events import ServeEvent, What
from fleetctl.platforms.local.issuing import row_of
from fleetctl.platforms.local.layout import Layout
from fleetctl.registry.enrolments import EnrolmentRow
from fleetctl.wire.command import Command, Reply
from fleetctl.wire.document import rfc3339
from fleetctl.wire.presence import Presence

if TYPE_CHECKING:
    from fleetctl.mqtt.session import Session
    from fleetctl.platforms.local.fleet import LocalFleet

COMMAND = "identify"
LIMIT = 256
"""How many unknown devices may be asked at once; the others are asked when they are heard of again."""
PATIENCE = 30.0
FIRST_WAIT = 1.0
ID_BURST, ID_RATE = 2.0, 1 / 60
ALL_BURST, ALL_RATE = 50.0, 10.0
TOLD_BURST, TOLD_RATE = 10.0, 0.5
NONCE_BYTES = 24
ACTOR = "fleetctl"


@dataclass(slots=True)
class Challenge:
    """A question to a device that nobody knows; times are of the monotonic clock."""

    path: DevicePath
    session: str
    nonce: bytes
    until: float
    due: float
    wait: float = FIRST_WAIT
    id: str = field(default_factory=lambda: secrets.token_hex(8))


class Refused(FleetError):
    """A device that is not taken in; `code` is in the event and the record."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass
class JustInTime:
    """Every table and every rate is bounded: whoever floods us with names is asked a few questions and told of in drops.

    `registered` is told of each device that was taken in, and in which of its sessions.
    """

    fleet: "LocalFleet"
    monotonic: Callable[[], float]
    registered: Callable[[DevicePath, str], None]
    asked: OrderedDict[str, Challenge] = field(default_factory=OrderedDict)
    ids: Buckets = field(default_factory=lambda: Buckets(ID_BURST, ID_RATE))
    all: Buckets = field(default_factory=lambda: Buckets(ALL_BURST, ALL_RATE))
    told: Buckets = field(default_factory=lambda: Buckets(TOLD_BURST, TOLD_RATE))

    def seen(self, path: DevicePath, presence: Presence) -> None:
        """A status of an id that nobody has."""
        now = self.monotonic()
        self._expire(now)
        held = self.asked.get(path.device_id)
        if presence.status != "online" or path.tenant != self.fleet.tenant:
            return
        if (held is not None and held.session == presence.session) or (held is None and len(self.asked) >= LIMIT):
            return
        if not self.fleet.registry.authorities("registered"):
            return
        if self.all.take("", now) and self.ids.take(path.device_id, now):
            nonce = secrets.token_bytes(NONCE_BYTES)
            self.asked[path.device_id] = Challenge(path, presence.session, nonce, now + PATIENCE, now)

    def send(self, session: "Session") -> float:
        """Ask who has not answered yet; how many seconds until somebody is asked again."""
        now, soonest = self.monotonic(), PATIENCE
        self._expire(now)
        for held in self.asked.values():
            if held.due <= now:
                said = Command(held.id, held.session, {"nonce": base64.b64encode(held.nonce).decode()})
                reply = topics.command_reply(held.path, COMMAND)
                topic = topics.command(held.path, COMMAND)
                session.publish(topic, said.encode(), response_topic=reply, correlation=held.id.encode(), more=True)
                held.due, held.wait = now + held.wait, held.wait * 3
            soonest = min(soonest, held.due - now)
        return max(0.0, soonest)

    def answered(self, path: DevicePath, payload: bytes) -> Iterator[ServeEvent]:
        """A reply to `identify`; to be called in a transaction."""
        held = self.asked.get(path.device_id)
        try:
            reply = Reply.decode(payload)
        except Malformed:
            return
        if held is None or held.path != path or reply.id != held.id or reply.status == "accepted":
            return
        del self.asked[path.device_id]
        try:
            if reply.status != "succeeded":
                raise Refused("no_proof", "the device did not identify itself")
            with self.fleet.registry.transaction():
                event = self._take_in(path, held.nonce, reply.result)
            if event.event == What.REGISTERED:
                self.registered(path, held.session)
            yield event
        except (Refused, FleetError) as error:
            code = error.reason if isinstance(error, Refused) else _CODES.get(type(error), error.code)
            self.fleet.registry.record_refusal(None, path.device_id, path.device_id, code, rfc3339(self.fleet.clock()))
            if self.told.take("", self.monotonic()):
                yield self._event(What.REFUSED, path, code, error.message)

    def _take_in(self, path: DevicePath, nonce: bytes, result: object) -> ServeEvent:
        chain, signature = _proof(result)
        voucher = vouching.check(path, chain, self._vouchers(), self.fleet.clock())
        vouching.check_signature(path, chain[0], nonce, signature)
        profile = self._profile(voucher)
        _check_profile(path, profile)
        if self.fleet.registry.standing(path.device_id) is not None:
            raise Refused("taken", f"device id {printable(path.device_id)} is in use")
        return self._decide(path, chain[0], voucher, profile)

    def _decide(
        self, path: DevicePath, leaf: x509.Certificate, voucher: vouching.Voucher, profile: ProvisioningProfile
    ) -> ServeEvent:
        registry, at = self.fleet.registry, rfc3339(self.fleet.clock())
        row = row_of(leaf, voucher.name, Profile.DEVICE, path.device_id)
        if registry.certificates_by_key(str(row.spki)):
            raise Refused(Code.DUPLICATE_KEY, "the key is in use already")
        held = next((each for each in registry.enrolments(device_id=path.device_id) if each.spki == row.spki), None)
        if held is not None and held.state == EnrolmentState.REJECTED:
            raise Refused(Code.REJECTED, "a person has turned it away")
        if profile.approval is Approval.MANUAL and (held is None or held.state != EnrolmentState.APPROVED):
            if held is None:
                self._record(path, str(row.spki), EnrolmentState.PENDING, None, at)
            return self._event(What.PENDING, path, Code.PENDING, f"key {row.spki}")
        device = Device(path, profile.labels, LifeCycle.CLAIMED, at, profile=voucher.profile)
        registry.add_device(device, actor=ACTOR)
        registry.add_certificate(row)
        registry.prove_certificate(row.serial, at)
        registry.move_device(path.device_id, LifeCycle.ACTIVE, event="activated", at=at, reason=voucher.name, actor=ACTOR)
        if held is None:
            self._record(path, str(row.spki), EnrolmentState.ACTIVE, row.serial, at)
        else:
            registry.settle_enrolment(held.id, EnrolmentState.ACTIVE, at=at, certificate=row.serial)
        return self._event(What.REGISTERED, path, None, f"certificate {row.serial} of {voucher.name}")

    def _record(self, path: DevicePath, spki: str, state: EnrolmentState, certificate: str | None, at: str) -> None:
        pending = state is EnrolmentState.PENDING
        who = (secrets.token_hex(8), "jit", None, path.device_id, path.device_id, spki, None)
        what = (state.value, Code.PENDING.value if pending else None, certificate, at, None if pending else at)
        self.fleet.registry.add_enrolment(EnrolmentRow(*who, *what))

    def _vouchers(self) -> list[vouching.Voucher]:
        layout = Layout(self.fleet.context.folder)
        found = []
        for row in self.fleet.registry.authorities("registered"):
            if row.state != "retired":
                certificate = x509.load_pem_x509_certificates(row.pem.encode())[0]
                listed = authorities.registered_list(layout, certificate)
                found.append(vouching.Voucher(row.name, row.profile, certificate, listed))
        return found

    def _profile(self, voucher: vouching.Voucher) -> ProvisioningProfile:
        if voucher.profile is None:
            return DEFAULT
        try:
            return self.fleet.registry.profile(voucher.profile)
        except NotFound as error:
            raise Refused("no_profile", f"profile `{voucher.profile}` of authority `{voucher.name}` is gone") from error

    def _expire(self, now: float) -> None:
        for name in [name for name, held in self.asked.items() if held.until < now]:
            del self.asked[name]

    def _event(self, what: What, path: DevicePath, code: str | None, detail: str) -> ServeEvent:
        return ServeEvent(what, rfc3339(self.fleet.clock()), None, path.device_id, None, code, detail)


_CODES: Mapping[type[FleetError], str] = {Malformed: "bad_proof", Untrusted: "untrusted", Conflict: "conflict"}


def _check_profile(path: DevicePath, profile: ProvisioningProfile) -> None:
    check_device_id(path.device_id)
    if not profile.takes(path.device_id):
        raise Refused("wrong_id", f"profile `{profile.name}` does not take that id")
    if profile.device_type not in (None, path.device_type):
        raise Refused("wrong_type", f"profile `{profile.name}` is for type {profile.device_type}")
    if profile.location not in (None, path.location):
        raise Refused("wrong_location", f"profile `{profile.name}` is for location {profile.location}")


def _proof(result: object) -> tuple[list[x509.Certificate], bytes]:
    """Chain and signature of an answer; raises `Malformed`."""
    if not isinstance(result, dict) or not all(isinstance(result.get(key), str) for key in ("certificate", "signature")):
        raise Malformed("the answer holds no certificate and signature")
    try:
        signature = base64.b64decode(result["signature"], validate=True)
    except (binascii.Error, ValueError) as error:
        raise Malformed("the signature is not base64") from error
    return vouching.read_chain(result["certificate"]), signature
