"""Plans a rollout: reads what the selected devices run and were last told, and lets the model decide the rest."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from fleetctl.errors import Conflict, Malformed, Untrusted
from fleetctl.keys.trust import UnverifiedAssignment
from fleetctl.model import topic as topics
from fleetctl.model.device import Device, DevicePath
from fleetctl.model.rollout import Candidate, Target
from fleetctl.mqtt.message import Message
from fleetctl.wire import desired
from fleetctl.wire.assignment import Assignment
from fleetctl.wire.presence import Presence
from fleetctl.wire.status import UpdateStatus
from fleetctl.wire.trust import TrustDocument

FINAL_PHASES = ("succeeded", "rolled_back", "failed", "rejected", "canceled")
ORDER_LIMIT = 1 << 52
"""What a device may claim to have seen: its word, so one that lies harms itself alone."""
CHANNELS = (topics.Channel.STATUS, topics.Channel.OTA_DESIRED, topics.Channel.OTA_STATUS)


@dataclass(frozen=True, slots=True)
class Known:
    """What the broker retains of one device, as far as it parses and is signed by whom we trust."""

    presence: Presence | None
    assignment: Assignment | None
    status: UpdateStatus | None

    @property
    def order(self) -> int:
        """The highest order that the device may have seen."""
        told = self.assignment.order if self.assignment else 0
        said = self.status.order if self.status else 0
        return max(told, said if said < ORDER_LIMIT else 0)

    @property
    def busy_with(self) -> str | None:
        """The rollout whose install assignment this device has not answered for good."""
        if self.assignment is None or self.assignment.action != "install":
            return None
        answered = (
            self.status is not None
            and (self.status.rollout_id, self.status.attempt) == (self.assignment.rollout_id, self.assignment.attempt)
            and self.status.phase in FINAL_PHASES
        )
        return None if answered else self.assignment.rollout_id


def read_known(
    read_retained: Callable[[Iterable[str]], Mapping[str, Message]], paths: Sequence[DevicePath], trust: TrustDocument
) -> Iterator[Known]:
    """What is known of each path, in order; `read_retained` reads exact topics."""
    held = read_retained([topics.of(path, channel) for path in paths for channel in CHANNELS])
    for path in paths:
        status, assignment, progress = (held.get(topics.of(path, channel)) for channel in CHANNELS)
        yield Known(_presence(status), _assignment(assignment, path, trust), _update_status(progress))


def candidates(
    devices: Sequence[Device],
    known: Iterable[Known],
    orders: Mapping[str, int],
    *,
    supersede: bool,
    over: Collection[str] = (),
) -> Iterator[Candidate]:
    """The devices as the planner sees them; what they still owe to a rollout that is `over` holds nobody up.

    Nor does what a suspended or revoked device owes: it is not in service, and no target.

    Raises:
        Conflict: a device still works on another rollout, and `supersede` was not asked for.
    """
    for device, facts in zip(devices, known, strict=True):
        in_service = device.state.believed
        if in_service and facts.busy_with and facts.busy_with not in over and not supersede:
            raise Conflict(
                f"device `{device.id}` still has an assignment of rollout `{facts.busy_with}`",
                f"finish it with fleetctl ota resume {facts.busy_with}, end it with fleetctl ota abort {facts.busy_with},"
                " or plan with --supersede",
            )
        presence = facts.presence
        target = Target(
            path=device.path,
            digest=presence.digest if presence else None,
            base_order=max(facts.order, orders.get(device.id, 0)),
            stratum=device.path.device_type,
            site=device.path.location,
        )
        yield Candidate(target, presence.firmware_version if presence else None, in_service)


def check_orders(
    targets: Iterable[Target], known: Iterable[Known], rollout_id: str, orders: Mapping[str, int], attempts: int
) -> None:
    """Refuse a plan whose orders another rollout has overtaken, before anything is dispatched.

    Only signed assignments and `orders`, those that were given out from here, count: a device that lies about its orders must
    not hold up the others. `attempts` bounds the orders that the plan itself uses.

    Raises:
        Conflict: a device has seen an order of another rollout that this plan counts on being new.
    """
    for target, facts in zip(targets, known, strict=True):
        if orders.get(target.id, 0) > target.base_order + 2 * attempts:
            raise Conflict(
                f"device `{target.id}` was given order {orders[target.id]} after this was planned",
                "plan again with fleetctl ota plan",
            )
        told = facts.assignment
        if told is not None and told.rollout_id != rollout_id and told.order > target.base_order:
            raise Conflict(
                f"device `{target.id}` was given order {told.order} by rollout `{told.rollout_id}` after this was planned",
                "plan again with fleetctl ota plan",
            )


def _presence(message: Message | None) -> Presence | None:
    try:
        return Presence.decode(message.payload) if message and message.payload else None
    except Malformed:
        return None


def _update_status(message: Message | None) -> UpdateStatus | None:
    try:
        return UpdateStatus.decode(message.payload) if message and message.payload else None
    except Malformed:
        return None


def _assignment(message: Message | None, path: DevicePath, trust: TrustDocument) -> Assignment | None:
    try:
        if message is None or not message.payload:
            return None
        return UnverifiedAssignment(desired.unpack(message.payload)[0]).verify(trust, path, None)
    except (Malformed, Untrusted):
        return None
