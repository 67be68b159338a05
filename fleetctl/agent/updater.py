"""Updates of one device: what the state machine decides, stored before it is told or acted on."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

from fleetctl.agent.storage import Storage
from fleetctl.errors import Untrusted
from fleetctl.keys.cose import UnknownKey
from fleetctl.keys.trust import UnverifiedAssignment, UnverifiedManifest
from fleetctl.model import update
from fleetctl.model.attempt import Code, Image, Offer, Phase, Record, Terms
from fleetctl.model.device import DevicePath
from fleetctl.model.update import Do, Moment, Verdict
from fleetctl.wire import desired
from fleetctl.wire.assignment import Assignment
from fleetctl.wire.document import digest
from fleetctl.wire.manifest import Manifest
from fleetctl.wire.trust import TrustDocument

_AT_ONCE = frozenset({Do.DEFER, Do.START, Do.EXPIRE, Do.BEGIN, Do.COMMIT, Do.RAISE_COUNTER})


@dataclass(frozen=True, slots=True)
class Clock:
    """`wall` is Unix seconds, or None while the clock is not set; `monotonic` never falls."""

    wall: Callable[[], float | None]
    monotonic: Callable[[], float]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a piece of work ended: `code` None is well, `healthy` is the answer of a self-test."""

    do: Do
    code: Code | None = None
    detail: str = ""
    healthy: bool = True


class Updater:
    """Holds the record of one boot; `unsent` are the records that are to be reported, in order."""

    def __init__(self, path: DevicePath, storage: Storage, booted: tuple[Record, tuple[Record, ...]], clock: Clock) -> None:
        self.path = path
        self.record = booted[0]
        self.unsent = list(booted[1])
        self._storage = storage
        self._clock = clock
        self._known_since = clock.monotonic()
        self._shown = ""
        self._payload: bytes | None = None

    def begin_session(self) -> None:
        """A new MQTT session has shown nothing yet."""
        self._shown, self._payload = "", None

    def receive(self, payload: bytes, trust: TrustDocument) -> Verdict:
        """Take what `ota/desired` says; raises `Malformed` or `Untrusted`, and then nothing has changed."""
        self._payload = payload
        offer = read_offer(payload, trust, self.path, self._clock.wall())
        verdict, records = update.receive(self.record, offer, self._moment(), self._storage.slot_size)
        self._keep(*records)
        if verdict is Verdict.ACCEPTED:
            self._known_since = self._clock.monotonic()
        if self.record.content == offer.content and self.record.order == offer.order:
            self._shown = offer.content
        return verdict

    def reconsider(self, trust: TrustDocument) -> Verdict | None:
        """Take the last assignment of this session again, after an attempt has ended or trust has changed."""
        return None if self._payload is None else self.receive(self._payload, trust)

    def advance(self) -> Do:
        """Do all that needs no work, store it, and say what work is due."""
        records = [self.record]
        while True:
            do = update.due(records[-1], self._moment(), self._confirmed())
            flagged = records[-1].attempt is not None and records[-1].attempt.phase is Phase.INSTALLED
            if do not in _AT_ONCE and not (do is Do.REBOOT and flagged):
                break
            records.append(update.done(records[-1], do))
        self._keep(*records[1:])
        return do

    def progressed(self, percent: int) -> None:
        self._keep(update.progressed(self.record, percent))

    def finish(self, outcome: Outcome) -> None:
        """Fold in how work ended, where it is still due: a cancel may have come in between."""
        if not self.awaits(outcome.do):
            return
        if outcome.do is Do.TEST:
            self._keep(update.judged(self.record, outcome.code is None and outcome.healthy, outcome.detail))
        elif outcome.code is not None:
            self._keep(update.failed(self.record, outcome.code, outcome.detail))
        else:
            self._keep(update.done(self.record, outcome.do))

    def awaits(self, do: Do, order: int | None = None) -> bool:
        """Whether this work is what is due now, for the assignment with that order."""
        attempt = self.record.attempt
        same = attempt is not None and order in (None, attempt.order)
        return same and update.due(self.record, self._moment(), self._confirmed()) is do

    @property
    def phase(self) -> Phase | None:
        return None if self.record.attempt is None else self.record.attempt.phase

    @property
    def wait(self) -> float:
        """Seconds until the terms of the attempt may let it go on."""
        attempt = self.record.attempt
        return 0.0 if attempt is None else update.hold(attempt.terms, self._moment())

    def _confirmed(self) -> bool:
        attempt = self.record.attempt
        return (
            attempt is not None and bool(self._shown) and (self._shown, attempt.order) == (self.record.content, self.record.order)
        )

    def _moment(self) -> Moment:
        return Moment(self._clock.wall(), self._clock.monotonic() - self._known_since)

    def _keep(self, *records: Record) -> None:
        """Store the last of them, then let it count, then let it be told."""
        if not records or records[-1] == self.record:
            return
        self._storage.save(records[-1])
        before, self.record = self.record.attempt, records[-1]
        for record in records:
            if record.attempt is not None and record.attempt != before:
                self.unsent.append(record)
                before = record.attempt


def read_offer(payload: bytes, trust: TrustDocument, path: DevicePath, now: float | None) -> Offer:
    """Prove an assignment and its manifest.

    1. It is two envelopes, and nothing else.
    2. A rollout key signed the assignment, for this tenant and this device, on this topic.
    3. The manifest's envelope is the one that the assignment names: another one makes this no update at all.
    4. A release key signed the manifest: if not, the rollout's own choice is at fault, and the offer carries the flaw.
    A cancel needs 1 and 2 only.

    Raises:
        Malformed, Untrusted: 1, 2 or 3 does not hold.
    """
    first, second = desired.unpack(payload)
    assignment = UnverifiedAssignment(first).verify(trust, path, now)
    offer = _offer(assignment, path)
    if offer.cancel:
        return offer
    if hashlib.sha256(second).digest() != assignment.manifest:
        raise Untrusted("the manifest is not the one that the assignment names")
    try:
        manifest = UnverifiedManifest(second).verify(trust, now)
    except UnknownKey as error:
        return replace(offer, flaw=Code.UNTRUSTED_KEY, detail=error.message)
    except Untrusted as error:
        return replace(offer, flaw=Code.SIGNATURE, detail=error.message)
    return _with_manifest(offer, manifest, path)


def _offer(assignment: Assignment, path: DevicePath) -> Offer:
    return Offer(
        rollout_id=assignment.rollout_id,
        order=assignment.order,
        attempt=assignment.attempt,
        cancel=assignment.action == "cancel",
        content=digest(assignment.encode()),
        manifest=f"sha256:{assignment.manifest.hex()}",
        allow_downgrade=assignment.allow_downgrade,
        terms=Terms(
            assignment.not_before,
            assignment.not_after,
            assignment.window,
            assignment.jitter * _spread(assignment.rollout_id, path.device_id),
        ),
    )


def _with_manifest(offer: Offer, manifest: Manifest, path: DevicePath) -> Offer:
    image = Image(manifest.image_digest, manifest.version, manifest.size, manifest.security_counter)
    compatible = manifest.device_class == path.device_type
    detail = "" if compatible else f"{manifest.name} is not for a {path.device_type}"
    return replace(offer, image=image, compatible=compatible, detail=detail)


def _spread(rollout_id: str, device_id: str) -> float:
    """Where in the jitter a device is, in [0, 1): the same on every call, and even over a fleet."""
    return int.from_bytes(hashlib.sha256(f"{rollout_id}/{device_id}".encode()).digest()[:6]) / 2**48
