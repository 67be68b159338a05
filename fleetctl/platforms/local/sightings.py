"""What the broker says of a rollout's devices, as events for the engine. Pure: payloads in, events out."""

from collections.abc import Mapping

from fleetctl.errors import Malformed, Untrusted
from fleetctl.keys.trust import UnverifiedAssignment
from fleetctl.model import topic as topics
from fleetctl.model.rollout import Action, Event, Offered, Plan, Reported, Sighted, Superseded, Withdrawn, assignment_order
from fleetctl.wire import desired
from fleetctl.wire.document import parse_rfc3339
from fleetctl.wire.presence import Presence
from fleetctl.wire.status import UpdateStatus
from fleetctl.wire.trust import TrustDocument


class Reader:
    """Turns retained and live payloads into events; what does not parse or verify is counted in `ignored`."""

    def __init__(self, plan: Plan, trust: TrustDocument) -> None:
        self._plan = plan
        self._trust = trust
        self._known: Mapping[str, int] = {str(target.path): index for index, target in enumerate(plan.targets)}
        self.ignored = 0

    def event(self, topic: str, payload: bytes, at: float) -> Event | None:
        """The event that a message of the contract amounts to; None for one that says nothing about this rollout."""
        found = topics.split(topic)
        index = self._known.get(str(found[0])) if found else None
        if found is None or index is None:
            self.ignored += 1
            return None
        try:
            match found[1]:
                case topics.Channel.STATUS:
                    return _sighted(index, Presence.decode(payload), at)
                case topics.Channel.OTA_STATUS:
                    return self._reported(index, UpdateStatus.decode(payload), at)
                case topics.Channel.OTA_DESIRED:
                    return self._assigned(index, payload, at) if payload else None
        except (Malformed, Untrusted):
            self.ignored += 1
        return None

    def _reported(self, index: int, status: UpdateStatus, at: float) -> Event | None:
        if status.rollout_id != self._plan.id:
            return None
        target = self._plan.targets[index]
        told = {assignment_order(target, status.attempt, action) for action in Action}
        if status.order not in told or status.manifest != self._plan.manifest_digest:
            self.ignored += 1  # not the answer to what this plan tells the device
            return None
        return Reported(
            index,
            status.attempt,
            status.step,
            status.phase,
            status.code,
            status.boot,
            status.accepted_boot,
            at,
            _stamp(status.timestamp),
        )

    def _assigned(self, index: int, payload: bytes, at: float) -> Event | None:
        path = self._plan.targets[index].path
        assignment = UnverifiedAssignment(desired.unpack(payload)[0]).verify(self._trust, path, None)
        if assignment.rollout_id != self._plan.id:
            first = assignment_order(self._plan.targets[index], 1, "install")
            return Superseded(index, at) if assignment.order >= first else None
        kind = Offered if assignment.action == "install" else Withdrawn
        return kind(index, assignment.attempt, at)


def _sighted(index: int, presence: Presence, at: float) -> Event:
    return Sighted(
        index,
        presence.digest,
        presence.boot,
        presence.count,
        presence.status == "online",
        presence.heartbeat,
        at,
        _stamp(presence.timestamp),
    )


def _stamp(timestamp: str | None) -> float | None:
    return None if timestamp is None else parse_rfc3339(timestamp)
