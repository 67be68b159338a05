"""What counts as an event of a rollout, and what is only counted."""

from dataclasses import replace

from fleetctl.keys.cose import Signer, trust_key
from fleetctl.keys.store import generate_key
from fleetctl.keys.trust import sign_assignment
from fleetctl.model import topic as topics
from fleetctl.model.device import DevicePath
from fleetctl.model.rollout import Offered, Parameters, Plan, Reported, Sighted, Superseded, Target, Withdrawn
from fleetctl.model.topic import Channel
from fleetctl.platforms.local.sightings import Reader
from fleetctl.wire import desired
from fleetctl.wire.assignment import Assignment
from fleetctl.wire.presence import Presence
from fleetctl.wire.status import UpdateStatus
from fleetctl.wire.trust import TrustDocument

PATH = DevicePath("acme", "oslo", "pump", "pump-1")
SIGNER = Signer(generate_key())
TRUST = TrustDocument(1, "acme", (trust_key(SIGNER.public_key, "rollout"),))
MANIFEST = "sha256:" + "b" * 64
IMAGE = "sha256:" + "a" * 64
TARGET = Target(PATH, None, 10, "pump", "oslo")
PLAN = Plan("r-1", "acme", "pump@2.0.0", IMAGE, MANIFEST, (TARGET,), (1,), Parameters(), 0)
STATUS = UpdateStatus("r-1", 11, 1, 3, "downloading", None, 40, "1.0.0", "2.0.0", MANIFEST, None, 4, 4)
ASSIGNMENT = Assignment("acme", "pump-1", "r-1", 11, "install", 1, b"m" * 32, None, None, None, 0, False)


def read(channel: Channel, payload: bytes, path: DevicePath = PATH) -> tuple[object, int]:
    reader = Reader(PLAN, TRUST)
    return reader.event(topics.of(path, channel), payload, 7.0), reader.ignored


def assigned(assignment: Assignment, signer: Signer = SIGNER) -> bytes:
    return desired.pack(sign_assignment(assignment, PATH, signer), b"manifest")


def test_presence_is_a_sighting() -> None:
    said = Presence("online", "12-3", "2.0.0", IMAGE, "set", 60.0)
    assert read(Channel.STATUS, said.encode()) == (Sighted(0, IMAGE, 12, 3, True, 60.0, 7.0, None), 0)


def test_the_answer_to_this_plan_is_a_report() -> None:
    assert read(Channel.OTA_STATUS, STATUS.encode()) == (Reported(0, 1, 3, "downloading", None, 4, 4, 7.0, None), 0)
    canceled = replace(STATUS, phase="canceled", order=12)
    assert read(Channel.OTA_STATUS, canceled.encode())[0] is not None


def test_a_report_that_answers_nothing_this_plan_said_is_only_counted() -> None:
    assert read(Channel.OTA_STATUS, replace(STATUS, order=13).encode()) == (None, 1)
    assert read(Channel.OTA_STATUS, replace(STATUS, manifest=IMAGE).encode()) == (None, 1)


def test_a_report_of_another_rollout_says_nothing_and_is_no_garbage() -> None:
    assert read(Channel.OTA_STATUS, replace(STATUS, rollout_id="r-2").encode()) == (None, 0)


def test_what_the_broker_retains_for_the_device_is_an_offer_or_its_withdrawal() -> None:
    assert read(Channel.OTA_DESIRED, assigned(ASSIGNMENT)) == (Offered(0, 1, 7.0), 0)
    assert read(Channel.OTA_DESIRED, assigned(replace(ASSIGNMENT, order=12, action="cancel"))) == (Withdrawn(0, 1, 7.0), 0)
    assert read(Channel.OTA_DESIRED, assigned(replace(ASSIGNMENT, rollout_id="r-2", order=20))) == (Superseded(0, 7.0), 0)
    assert read(Channel.OTA_DESIRED, assigned(replace(ASSIGNMENT, rollout_id="r-0", order=9))) == (None, 0)
    assert read(Channel.OTA_DESIRED, b"") == (None, 0)


def test_garbage_and_strangers_are_counted() -> None:
    assert read(Channel.OTA_DESIRED, assigned(ASSIGNMENT, Signer(generate_key()))) == (None, 1)
    assert read(Channel.STATUS, b"\xff\x00") == (None, 1)
    assert read(Channel.STATUS, b"{}", DevicePath("acme", "oslo", "pump", "pump-2")) == (None, 1)
    assert Reader(PLAN, TRUST).event("acme/_fleet/trust", b"", 7.0) is None
