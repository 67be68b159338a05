"""Drives one rollout: carries out what the engine asks for, and tells it what the broker says (docs/protocol.md, "Rollouts" 5).

The order of things is the safety argument:
1. connect under the rollout's own client id, which cuts any other driver off, and never reconnect;
2. read `/state`, then `ota/desired`, `ota/status` and presence of exactly the plan's devices, before anything is published;
3. publish a decision, signed, before what follows from it;
4. fold an offer only when the broker has acknowledged it; repeating one is harmless, since the plan fixes its bytes.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict

from fleetctl.errors import Conflict, Untrusted
from fleetctl.keys.cose import Signer
from fleetctl.keys.trust import sign_assignment
from fleetctl.model import topic as topics
from fleetctl.model.rollout import (
    Abort,
    Act,
    Action,
    Changed,
    Completed,
    Counts,
    Event,
    Halted,
    Offer,
    Offered,
    Paused,
    Promoted,
    Reported,
    Restored,
    Rollout,
    Sighted,
    Snapshot,
    State,
    Tick,
    Withdraw,
    Withdrawn,
    assignment_order,
)
from fleetctl.mqtt.message import Message
from fleetctl.mqtt.session import Session
from fleetctl.platforms.local.plans import SignedPlan, sign_state, verify_state
from fleetctl.platforms.local.rollouts import Keep, entry_of, is_over
from fleetctl.platforms.local.sightings import Reader
from fleetctl.platforms.updates import RolloutEntry
from fleetctl.wire import desired
from fleetctl.wire.assignment import Assignment
from fleetctl.wire.document import dump_json, rfc3339
from fleetctl.wire.rollout import PlanPointer
from fleetctl.wire.trust import TrustDocument

BATCH = 400
PATIENCE = 20.0
BEAT = 0.2
TELL_NEWS, TELL_AGAIN = 2.0, 30.0
"""Seconds between two publications of `/state` without a decision, with news and without."""
UNTOLD = ("queued", None)
"""Where every device is before anything was said of it: no event."""

Record = dict[str, object]


def attendance(*, attended: bool, at: float | None) -> bytes:
    """The hint for people at `/controller`."""
    return dump_json({"attended": attended, "since": None if at is None else rfc3339(at)})


class Driver:
    """One controller of one rollout, for as long as its connection lasts."""

    def __init__(
        self,
        signed: SignedPlan,
        trust: TrustDocument,
        signer: Signer,
        session: Session,
        clock: Callable[[], float],
        keep: Keep,
        known_state: bytes = b"",
    ) -> None:
        self.signed = signed
        self.plan = signed.plan
        self.rollout = Rollout(signed.plan)
        self._trust = trust
        self._signer = signer
        self._session = session
        self._clock = clock
        self._keep = keep
        self._known_state = known_state
        self._reader = Reader(signed.plan, trust)
        self._index = {target.id: index for index, target in enumerate(signed.plan.targets)}
        self.sighted: dict[int, Message] = {}
        self._stages: dict[int, tuple[str, str | None]] = {}
        self._last = 0.0
        self._serial = 0
        self._signed_state = known_state
        self._unread = 0
        self._told: Counts | None = None
        self._told_at = 0.0

    # -- taking over

    def rebuild(self, *, without_state: bool = False) -> Iterator[Record]:
        """Learn from the broker how far the rollout is; nothing is published yet. An event for each device that is on its way.

        Raises:
            Conflict: devices have been told of the rollout and its state is gone, so that a halt or an abort could be forgotten;
                only who ends it goes on `without_state`.
        """
        restored = self._restore()
        paths = [target.path for target in self.plan.targets]
        live = (topics.Channel.OTA_STATUS, topics.Channel.STATUS)
        self._session.subscribe([topics.of(path, channel) for path in paths for channel in live], qos=1)
        for channel in (topics.Channel.OTA_DESIRED, *live):
            held = self._session.read_retained([topics.of(path, channel) for path in paths], PATIENCE)
            for message in held.values():
                event = self._read(message)
                if event is not None:
                    self.rollout.fold(event)
                if isinstance(event, Offered | Withdrawn | Reported) and not (restored or without_state):
                    raise Conflict(
                        f"the broker has lost the state of rollout `{self.plan.id}`, and it is not known here either",
                        "go on where it was started, or end it: fleetctl ota abort",
                    )
        for index in range(self.plan.size):
            yield from self._moved(index)

    def _restore(self) -> bool:
        """Take in the signed state, the broker's or ours, whichever is later; whether there was one.

        One that no rollout key has signed is refused: a rollout whose state was tampered with must not go on.
        """
        known = [self._held_state()]
        if self._known_state:
            known.append(verify_state(self._known_state, self.plan.tenant, self.plan.id, self._trust))
        snapshots = [snapshot for snapshot in known if snapshot is not None]
        if not snapshots:
            return False
        latest = max(snapshots, key=lambda snapshot: snapshot.serial)
        self.rollout.fold(Restored(latest, self._now()))
        self._serial = latest.serial
        return True

    def _held_state(self) -> Snapshot | None:
        place = topics.rollout_state(self.plan.tenant, self.plan.id)
        held = self._session.read_retained([place], PATIENCE).get(place)
        if held is None or not held.payload:
            return None
        return verify_state(held.payload, self.plan.tenant, self.plan.id, self._trust)

    # -- driving

    def begin(self) -> Iterator[Record]:
        """Publish where the plan lies, then make the first pass."""
        self._attend(attended=True)
        pointer = PlanPointer(self.signed.digest, f"sha256/{self.signed.digest.removeprefix('sha256:')}")
        self._session.publish(topics.rollout_plan(self.plan.tenant, self.plan.id), pointer.encode(), qos=1, retain=True)
        yield from self.fold(Tick(self._now()))
        self._tell_progress()

    @property
    def over(self) -> bool:
        """Whether there is nothing to wait for: at its end and settled, or paused until a person acts."""
        return self.rollout.state == State.PAUSED or is_over(self.rollout.state, self.rollout.settled)

    def leave(self) -> RolloutEntry:
        """Leave the state for whoever drives next, and say that nobody does now; the record of where the rollout is."""
        self._publish_state(self.rollout.snapshot())
        self._attend(attended=False)
        self._session.flush(PATIENCE)
        self._keep(self.rollout, False, self._signed_state)
        unread = self._reader.ignored + self._unread
        return entry_of(self.rollout, self.signed, attended=False, at=self._now(), unread=unread)

    def _attend(self, *, attended: bool) -> None:
        place = topics.rollout_controller(self.plan.tenant, self.plan.id)
        self._session.publish(place, attendance(attended=attended, at=self._now()), qos=1, retain=True)

    def turn(self, timeout: float = BEAT) -> Iterator[Record]:
        """Wait for messages at most `timeout` seconds, then take them and the time in."""
        for message in self._session.receive(timeout):
            yield from self._fold_message(message)
        yield from self.fold(Tick(self._now()))
        self._tell_progress()

    def _tell_progress(self) -> None:
        """Now and then, so that whoever looks from elsewhere, or comes after a crash, sees how far it is and since when."""
        now, counts = self._now(), self.rollout.counts()
        if now - self._told_at >= (TELL_NEWS if counts != self._told else TELL_AGAIN):
            self._told, self._told_at = counts, now
            self._publish_state(self.rollout.snapshot())

    def abort(self) -> Iterator[Record]:
        yield from self.fold(Abort(self._now()))

    def fold(self, event: Event) -> Iterator[Record]:
        """Fold one event and carry out all that follows from it, events of our own included."""
        acts = deque(self.rollout.fold(event))
        while acts:
            act = acts.popleft()
            if isinstance(act, Offer | Withdraw):
                batch = [act]
                while acts and isinstance(acts[0], Offer | Withdraw) and len(batch) < BATCH:
                    batch.append(acts.popleft())  # type: ignore[arg-type]
                yield from self._dispatch(batch, acts)
            else:
                yield from self._decide(act)

    def _dispatch(self, batch: list[Offer | Withdraw], acts: "deque[Act]") -> Iterator[Record]:
        for act in batch:
            action = Action.INSTALL if isinstance(act, Offer) else Action.CANCEL
            place, payload = self._assignment(act.index, act.attempt, action)
            self._session.publish(place, payload, qos=1, retain=True)
        self._session.flush(PATIENCE)
        for act in batch:
            done = Offered if isinstance(act, Offer) else Withdrawn
            acts.extend(self.rollout.fold(done(act.index, act.attempt, self._now())))
            name = "offered" if isinstance(act, Offer) else "withdrawn"
            yield self.event(name, deviceId=self.plan.targets[act.index].id, attempt=act.attempt)

    def _assignment(self, index: int, attempt: int, action: Action) -> tuple[str, bytes]:
        plan, target = self.plan, self.plan.targets[index]
        assignment = Assignment(
            tenant=plan.tenant,
            device_id=target.id,
            rollout_id=plan.id,
            order=assignment_order(target, attempt, action),
            action=action.value,
            attempt=attempt,
            manifest=bytes.fromhex(plan.manifest_digest.removeprefix("sha256:")),
            not_before=plan.not_before,
            not_after=plan.not_after,
            window=plan.window,
            jitter=plan.jitter,
            allow_downgrade=plan.allow_downgrade,
        )
        envelope = sign_assignment(assignment, target.path, self._signer)
        return topics.of(target.path, topics.Channel.OTA_DESIRED), desired.pack(envelope, self.signed.file.manifest)

    def _decide(self, act: Act) -> Iterator[Record]:
        match act:
            case Changed(snapshot):
                self._publish_state(snapshot)
            case Promoted(wave, size):
                yield self.event("wave", wave=wave, size=size, why=f"wave {wave} has room for {size}")
            case Halted(evidence):
                yield self.event("halted", why=str(evidence), evidence=asdict(evidence))
            case Paused(reason):
                yield self.event("paused", why=reason)
            case Completed():
                yield self.event("completed")

    def _publish_state(self, snapshot: Snapshot) -> None:
        """Write a decision down here, then tell it, before anything follows from it."""
        self._check_alone()
        self._serial = snapshot.serial
        self._signed_state = sign_state(snapshot, self.plan.tenant, self._signer)
        self._keep(self.rollout, True, self._signed_state)
        self._session.publish(topics.rollout_state(self.plan.tenant, self.plan.id), self._signed_state, qos=1, retain=True)
        self._session.flush(PATIENCE)

    def _check_alone(self) -> None:
        """Before each decision, and so before each wave: what another driver decided meanwhile counts, and this one stops.

        What no rollout key has signed is no other driver's, and ours is published again with the next decision.
        """
        try:
            snapshot = self._held_state()
        except Untrusted:
            self._unread += 1
            return
        if snapshot is not None and snapshot.serial > self._serial:
            raise Conflict(
                f"another controller drives rollout `{self.plan.id}`", f"look at it with fleetctl ota watch {self.plan.id}"
            )

    # -- telling

    def _read(self, message: Message) -> Event | None:
        event = self._reader.event(message.topic, message.payload, self._now())
        if isinstance(event, Sighted):
            self.sighted[event.index] = message
        return event

    def _fold_message(self, message: Message) -> Iterator[Record]:
        event = self._read(message)
        if event is None:
            return
        yield from self.fold(event)
        index = getattr(event, "index", None)
        if index is not None:
            yield from self._moved(index)

    def _moved(self, index: int) -> Iterator[Record]:
        found = self.rollout.explain(index)
        if self._stages.get(index, UNTOLD) == (found.stage, found.phase):
            return
        self._stages[index] = (found.stage, found.phase)
        yield self.event(
            "device",
            deviceId=found.device,
            stage=found.stage,
            phase=found.phase,
            code=found.code,
            wave=found.wave,
            attempt=found.attempt,
            why=found.why,
        )

    def event(self, name: str, **facts: object) -> Record:
        return {"event": name, "rolloutId": self.plan.id, "timestamp": rfc3339(self._now()), **facts}

    def _now(self) -> float:
        """The clock, never falling."""
        self._last = max(self._last, self._clock())
        return self._last
