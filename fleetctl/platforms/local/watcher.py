"""Follows a rollout without driving it: the same engine folds the same facts, and whatever it asks for is left to the driver."""

from collections.abc import Callable, Iterator

from fleetctl.errors import Untrusted
from fleetctl.model import topic as topics
from fleetctl.model.rollout import Restored, Rollout, Snapshot
from fleetctl.mqtt.session import Session
from fleetctl.platforms.local.driver import BEAT, PATIENCE, UNTOLD
from fleetctl.platforms.local.plans import SignedPlan, verify_state
from fleetctl.platforms.local.rollouts import entry_of, is_over, with_attendance, with_snapshot
from fleetctl.platforms.local.sightings import Reader
from fleetctl.platforms.updates import RolloutEntry
from fleetctl.wire.document import rfc3339
from fleetctl.wire.trust import TrustDocument

Record = dict[str, object]


class Watcher:
    """Devices are followed live; decisions come from the signed `/state` alone."""

    def __init__(self, signed: SignedPlan, trust: TrustDocument, session: Session, clock: Callable[[], float]) -> None:
        self._signed = signed
        self._trust = trust
        self._session = session
        self._clock = clock
        self._rollout = Rollout(signed.plan)
        self._reader = Reader(signed.plan, trust)
        self._snapshot: Snapshot | None = None
        self._attendance = b""
        self._unread = 0
        self._stages: dict[int, tuple[str, str | None]] = {}
        plan = signed.plan
        self._state = topics.rollout_state(plan.tenant, plan.id)
        self._controller = topics.rollout_controller(plan.tenant, plan.id)

    def begin(self) -> Iterator[Record]:
        """Subscribe, then read what is retained."""
        live = (topics.Channel.OTA_DESIRED, topics.Channel.OTA_STATUS, topics.Channel.STATUS)
        devices = [topics.of(target.path, channel) for target in self._signed.plan.targets for channel in live]
        wanted = [self._state, self._controller, *devices]
        self._session.subscribe(wanted)
        for message in self._session.read_retained(wanted, PATIENCE).values():
            yield from self._take_in(message.topic, message.payload)

    def turn(self, timeout: float = BEAT) -> Iterator[Record]:
        for message in self._session.receive(timeout):
            yield from self._take_in(message.topic, message.payload)

    @property
    def over(self) -> bool:
        found = self._snapshot
        return found is not None and is_over(found.state, not (found.counts.updating or found.counts.offered))

    def entry(self) -> RolloutEntry:
        entry = entry_of(
            self._rollout, self._signed, attended=False, at=self._clock(), unread=self._reader.ignored + self._unread
        )
        if self._snapshot is not None:
            entry = with_snapshot(entry, self._snapshot)
        return with_attendance(entry, self._attendance)

    def _take_in(self, topic: str, payload: bytes) -> Iterator[Record]:
        if topic == self._controller:
            self._attendance = payload
        elif topic == self._state:
            yield from self._state_told(payload)
        else:
            yield from self._device(topic, payload)

    def _state_told(self, payload: bytes) -> Iterator[Record]:
        """A new state; what no rollout key has signed is counted, and the last good one stays."""
        if not payload:
            return
        try:
            snapshot = verify_state(payload, self._signed.plan.tenant, self._signed.plan.id, self._trust)
        except Untrusted:
            self._unread += 1
            return
        yield from self._decided(snapshot)

    def _decided(self, snapshot: Snapshot) -> Iterator[Record]:
        before, self._snapshot = self._snapshot, snapshot
        self._rollout.fold(Restored(snapshot, self._clock()))
        if before is None or (before.state, before.wave) != (snapshot.state, snapshot.wave):
            yield self._event(snapshot.state.value, wave=snapshot.wave, why=snapshot.reason or None)

    def _device(self, topic: str, payload: bytes) -> Iterator[Record]:
        event = self._reader.event(topic, payload, self._clock())
        index = getattr(event, "index", None)
        if event is None or index is None:
            return
        self._rollout.fold(event)
        found = self._rollout.explain(index)
        if self._stages.get(index, UNTOLD) != (found.stage, found.phase):
            self._stages[index] = (found.stage, found.phase)
            yield self._event(
                "device", deviceId=found.device, stage=found.stage, phase=found.phase, code=found.code, why=found.why
            )

    def _event(self, name: str, **facts: object) -> Record:
        return {"event": name, "rolloutId": self._signed.plan.id, "timestamp": rfc3339(self._clock()), **facts}
