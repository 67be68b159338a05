"""What the planner makes of what the broker retains."""

from typing import Literal

import pytest

from fleetctl.errors import Conflict
from fleetctl.keys.cose import Signer, trust_key
from fleetctl.keys.store import generate_key
from fleetctl.keys.trust import sign_assignment
from fleetctl.model import topic as topics
from fleetctl.model.device import Device, DevicePath, LifeCycle
from fleetctl.model.rollout import Target
from fleetctl.model.topic import Channel
from fleetctl.mqtt.message import Message
from fleetctl.platforms.local.planning import Known, candidates, check_orders, read_known
from fleetctl.wire import desired
from fleetctl.wire.assignment import Assignment
from fleetctl.wire.presence import Presence
from fleetctl.wire.status import UpdateStatus
from fleetctl.wire.trust import TrustDocument

PATH = DevicePath("acme", "oslo", "pump", "pump-1")
SIGNER = Signer(generate_key())
TRUST = TrustDocument(1, "acme", (trust_key(SIGNER.public_key, "rollout"),))
DIGEST = "sha256:" + "a" * 64


def assignment(order: int = 7, rollout: str = "r-1", action: Literal["install", "cancel"] = "install") -> Assignment:
    return Assignment("acme", "pump-1", rollout, order, action, 1, b"m" * 32, None, None, None, 0, False)


def status(order: int = 7, phase: str = "succeeded", rollout: str = "r-1") -> UpdateStatus:
    return UpdateStatus(rollout, order, 1, 9, phase, None, None, "1.0.0", "2.0.0", DIGEST, "B", 12, 11)


def presence() -> Presence:
    return Presence("online", "12-1", "1.0.0", DIGEST, "set", 60.0)


def retained(signer: Signer = SIGNER, **payloads: bytes) -> dict[str, Message]:
    channels = {"status": Channel.STATUS, "desired": Channel.OTA_DESIRED, "progress": Channel.OTA_STATUS}
    held = {topics.of(PATH, channels[name]): payload for name, payload in payloads.items()}
    return {topic: Message(topic, payload, 1, True, 0.0) for topic, payload in held.items()}


def read(held: dict[str, Message]) -> Known:
    return next(read_known(lambda wanted: {topic: held[topic] for topic in wanted if topic in held}, [PATH], TRUST))


def test_everything_that_is_retained_is_read() -> None:
    payload = desired.pack(sign_assignment(assignment(), PATH, SIGNER), b"manifest")
    known = read(retained(status=presence().encode(), desired=payload, progress=status().encode()))
    assert (known.presence, known.assignment, known.status) == (presence(), assignment(), status())


def test_a_device_of_which_nothing_is_retained_is_unknown() -> None:
    known = read({})
    assert known == Known(None, None, None)
    assert (known.order, known.busy_with) == (0, None)


@pytest.mark.parametrize("payload", [b"", b"\xff", b"{}", b"null", b"[" * 5000, bytes(range(256))])
def test_garbage_is_as_if_nothing_were_retained(payload: bytes) -> None:
    assert read(retained(status=payload, desired=payload, progress=payload)) == Known(None, None, None)


def test_an_assignment_by_another_key_counts_for_nothing() -> None:
    payload = desired.pack(sign_assignment(assignment(), PATH, Signer(generate_key())), b"manifest")
    assert read(retained(desired=payload)).assignment is None


def test_the_highest_order_counts_but_not_one_that_only_the_device_claims_beyond_reason() -> None:
    assert Known(None, assignment(7), status(9)).order == 9
    assert Known(None, assignment(9), status(7)).order == 9
    assert Known(None, assignment(7), status((1 << 53) - 1)).order == 7


def test_a_device_is_busy_until_it_has_answered_for_good() -> None:
    assert Known(None, assignment(), None).busy_with == "r-1"
    assert Known(None, assignment(), status(phase="testing")).busy_with == "r-1"
    assert Known(None, assignment(), status(rollout="r-0")).busy_with == "r-1"
    assert Known(None, assignment(), status()).busy_with is None
    assert Known(None, assignment(action="cancel"), None).busy_with is None


def test_a_busy_device_is_planned_only_by_an_explicit_act() -> None:
    known = Known(presence(), assignment(), None)
    with pytest.raises(Conflict, match="still has an assignment of rollout `r-1`"):
        list(candidates([Device(PATH)], [known], {}, supersede=False))
    (candidate,) = candidates([Device(PATH)], [known], {"pump-1": 40}, supersede=True)
    assert [candidate] == list(candidates([Device(PATH)], [known], {"pump-1": 40}, supersede=False, over={"r-1"}))
    assert candidate.target == Target(PATH, DIGEST, 40, "pump", "oslo")
    assert candidate.version == "1.0.0"


@pytest.mark.parametrize("state", LifeCycle)
def test_a_suspended_or_revoked_device_holds_nobody_up_and_is_no_target(state: LifeCycle) -> None:
    if state.believed:
        (candidate,) = candidates([Device(PATH, state=state)], [Known(presence(), None, None)], {}, supersede=False)
    else:
        (candidate,) = candidates([Device(PATH, state=state)], [Known(presence(), assignment(), None)], {}, supersede=False)
    assert candidate.in_service is state.believed


def test_a_plan_that_was_overtaken_is_refused_and_a_lying_device_overtakes_nothing() -> None:
    target = Target(PATH, DIGEST, 5, "pump", "oslo")
    check_orders([target], [Known(None, assignment(6, "r-2"), status(9, rollout="r-9"))], "r-2", {}, 3)
    check_orders([target], [Known(None, assignment(5, "r-1"), None)], "r-2", {"pump-1": 11}, 3)
    with pytest.raises(Conflict, match="was given order 6 by rollout `r-1`"):
        check_orders([target], [Known(None, assignment(6, "r-1"), None)], "r-2", {}, 3)
    with pytest.raises(Conflict, match="was given order 12"):
        check_orders([target], [Known(None, None, None)], "r-2", {"pump-1": 12}, 3)
