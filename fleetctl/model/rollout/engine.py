"""The rollout state machine: events in, actions out; no clock, no I/O (docs/protocol.md, "Rollouts")."""

from fleetctl.model.rollout.events import Act, Counts, Event, Explanation, Snapshot, State
from fleetctl.model.rollout.plan import Plan


class Rollout:
    """One rollout. Fold what the broker retained in any order, then a `Tick`, then everything as it happens."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.state = State.RUNNING

    @property
    def settled(self) -> bool:
        """Whether nothing is on offer and every exposed device is final or overdue."""
        raise NotImplementedError

    def fold(self, event: Event) -> list[Act]:
        """Take one event in; the actions are to be carried out in their order."""
        raise NotImplementedError

    def counts(self) -> Counts:
        """How many targets are where."""
        raise NotImplementedError

    def explain(self, index: int) -> Explanation:
        """Where one device is, and why."""
        raise NotImplementedError

    def snapshot(self) -> Snapshot:
        """What `/state` carries."""
        raise NotImplementedError
