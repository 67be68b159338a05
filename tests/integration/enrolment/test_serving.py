"""What survives: a service that is killed, a broker that is restarted, a second service, a clock that passes."""

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import pytest

from fleetctl.config import save_context
from fleetctl.errors import Conflict, FleetError, NotFound
from fleetctl.model.profile import Approval, ProvisioningProfile
from fleetctl.mqtt.broker import find_mosquitto
from fleetctl.platforms.local.enrolment import approval
from fleetctl.platforms.local.enrolment.serving import serve
from tests.integration.enrolment.stand import PATIENCE, Applicant, Gate, Serving, Stand, eventually, serving

MANUAL = ProvisioningProfile("by-hand", approval=Approval.MANUAL)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Stand]:
    """A stand whose broker the test may stop."""
    if find_mosquitto() is None:
        pytest.skip("mosquitto is not installed")
    with ExitStack() as stack:
        yield Stand(tmp_path, stack)


def test_a_service_that_is_killed_before_its_reply_leaves_one_certificate_and_one_device(own: Stand) -> None:
    own.run_broker()
    own.batch("b", 2)
    applicant = Applicant(own.claim("line", "b", quota=1), "b-0")
    with closing(Gate(own.port + 1)) as gate, applicant.session() as session:
        save_context(replace(own.fleet.context, broker=f"mqtts://localhost:{gate.port}"), own.environ)
        first = own.run("serve", "provision", "serve", "--no-est")
        first.wait_for("listening", PATIENCE)
        hello = applicant.ask(session, "hello")
        gate.shut.set()
        session.publish(f"{applicant.topics}/request", request(applicant.csr(hello.nonce)))
        (row,) = eventually(lambda: own.fleet.registry.certificates("dev-b-0"))
        os.kill(first._process.pid, signal.SIGKILL)
        assert session.receive(0.5) == []
    assert own.state("b-0") == "claimed"

    save_context(own.fleet.context, own.environ)
    own.run("serve-again", "provision", "serve", "--no-est").wait_for("listening", PATIENCE)
    reply = applicant.provision()

    assert (reply.certificate or "").startswith(row.pem)
    assert [each.serial for each in own.fleet.registry.certificates("dev-b-0")] == [row.serial]
    assert own.events("b-0") == ["added", "claimed"]
    assert own.fleet.registry.claim_used("line") == 1
    assert Applicant(applicant.folder, "b-1").provision().code == "quota"


def request(csr: bytes) -> bytes:
    from fleetctl.wire.provision import ProvisionRequest

    return ProvisionRequest("once", "enrol", csr.decode()).encode()


def test_a_broker_that_is_restarted_is_found_again(own: Stand) -> None:
    broker = own.run_broker()
    own.batch("b", 1)
    applicant = Applicant(own.claim("line", "b"), "b-0")
    with serving(own) as service:
        broker.stop()
        assert service.wait_for("disconnected").code == "unavailable"
        own.run_broker()
        service.wait_for("connected")
        assert applicant.provision().status == "accepted"
    assert service.error is None
    assert service.events[-1].event == "stopped"


def test_without_a_broker_it_says_so_at_once(own: Stand) -> None:
    with pytest.raises(FleetError, match="no broker answers"):
        list(serve(own.fleet, est=False))


def test_a_second_service_of_the_same_context_is_a_conflict(stand: Stand, service: Serving) -> None:
    assert service.error is None
    with pytest.raises(Conflict, match="is served already"):
        list(serve(stand.fleet, est=False))


def test_a_device_that_was_seen_while_nobody_served_is_active_when_somebody_does(own: Stand, tmp_path: Path) -> None:
    own.run_broker()
    own.batch("b", 1)
    applicant = Applicant(own.claim("line", "b"), "b-0")
    with serving(own):
        device = applicant.become(applicant.provision(), tmp_path / "device")
    with device.session():
        with serving(own) as service:
            service.wait_for("activated", device_id="dev-b-0")
        with serving(own) as service, device.session("1-2") as session:
            assert device.obey(session, "configure") is not None
            service.wait_for("configured", device_id="dev-b-0")
    assert own.events("b-0").count("configured") == 1


def test_a_certificate_whose_device_never_comes_is_taken_back_and_its_place_is_free(tmp_path: Path) -> None:
    with ExitStack() as stack:
        own = Stand(tmp_path / "own", stack)
        own.run_broker()
        own.batch("b", 2)
        applicant = Applicant(own.claim("line", "b", quota=1), "b-0")
        with serving(own):
            reply = applicant.provision()
            assert Applicant(applicant.folder, "b-1").provision().code == "quota"
        with serving(own, pending_for=0.0, sweep=0.05) as service:
            service.wait_for("expired", serial="b-0")
            (row,) = own.fleet.registry.certificates("dev-b-0")
            assert row.reason == "cessationOfOperation"
            assert (own.state("b-0"), own.fleet.registry.claim_used("line")) == ("manufactured", 0)
            with pytest.raises(FleetError), applicant.become(reply, tmp_path / "late").session():
                pass
        with serving(own):
            again = applicant.provision()
            assert again.certificate not in (None, reply.certificate)


def test_a_person_decides_where_the_profile_says_so(stand: Stand, service: Serving) -> None:
    stand.batch("manual", 2, MANUAL)
    applicant = Applicant(stand.claim("manual", "manual"), "manual-0")
    thief = Applicant(applicant.folder, "manual-0")

    assert applicant.provision().status == "pending"
    assert thief.provision().status == "pending"
    assert applicant.provision().status == "pending"
    waiting = [each for each in approval.pending(stand.fleet) if each.serial == "manual-0"]
    assert len({each.key for each in waiting}) == len(waiting) == 2
    assert stand.state("manual-0") == "manufactured"
    with pytest.raises(Conflict, match="2 keys wait"):
        approval.approve(stand.fleet, approval.choose(stand.fleet, ["manual-0"], None, "approve"), None)

    mine = next(each for each in waiting if each.key == own_key(applicant))
    theirs = next(each for each in waiting if each.key != own_key(applicant))
    decided = approval.approve(stand.fleet, approval.choose(stand.fleet, [mine.id], None, "approve"), "it shows the key")
    approval.reject(stand.fleet, approval.choose(stand.fleet, [theirs.id], None, "reject"), "not ours")

    assert [each.outcome for each in decided] == ["approved"]
    assert thief.provision().code == "rejected"
    assert applicant.provision().status == "accepted"
    again = approval.choose(stand.fleet, [mine.id], None, "approve")
    assert [each.outcome for each in approval.approve(stand.fleet, again, None)] == ["unchanged"]
    timeline = [(row.event, row.reason) for row in stand.fleet.registry.timeline("dev-manual-0")]
    assert timeline[1:3] == [("approved", "it shows the key"), ("rejected", "not ours")]


def own_key(applicant: Applicant) -> str:
    from fleetctl.pki.csr import spki_of

    return spki_of(applicant.key.public_key())


def test_who_was_rejected_may_come_again_after_a_reset(stand: Stand, service: Serving) -> None:
    stand.batch("banned", 1, MANUAL)
    applicant = Applicant(stand.claim("banned", "banned"), "banned-0")
    assert applicant.provision().status == "pending"
    approval.reject(stand.fleet, approval.choose(stand.fleet, ["banned-*"], None, "reject"), "wait")
    assert Applicant(applicant.folder, "banned-0").provision().code == "rejected"

    (reset,) = approval.reset(stand.fleet, [stand.fleet.registry.device("dev-banned-0")], "cleared up")
    assert (reset.outcome, reset.revoked) == ("reset", 0)
    assert applicant.provision().status == "pending"
    with pytest.raises(NotFound):
        approval.choose(stand.fleet, ["nothing"], None, "approve")


def test_more_than_there_is_room_for_cannot_be_approved(stand: Stand, service: Serving) -> None:
    stand.batch("narrow", 2, MANUAL, quota=1)
    folder = stand.claim("narrow", "narrow")
    for serial in ("narrow-0", "narrow-1"):
        assert Applicant(folder, serial).provision().status == "pending"

    with pytest.raises(Conflict, match="one more than"):
        approval.approve(stand.fleet, approval.choose(stand.fleet, ["narrow-*"], None, "approve"), None)
    assert all(each.state == "pending" for each in stand.fleet.registry.enrolments(device_id="dev-narrow-0"))


def test_an_active_device_enrols_again_after_a_reset_and_not_before(stand: Stand, service: Serving, tmp_path: Path) -> None:
    stand.batch("again", 1)
    applicant = Applicant(stand.claim("again", "again", quota=1), "again-0")
    device = applicant.become(applicant.provision(), tmp_path / "device")
    with device.session():
        service.wait_for("activated", device_id="dev-again-0")
    assert applicant.provision().code == "already_active"

    (reset,) = approval.reset(stand.fleet, [stand.fleet.registry.device("dev-again-0")], "board replaced")
    assert (reset.outcome, reset.state, reset.revoked) == ("reset", "manufactured", 1)
    with pytest.raises(FleetError), device.session():
        pass
    successor = Applicant(applicant.folder, "again-0")
    renewed = successor.become(successor.provision(), tmp_path / "successor")
    with renewed.session("2-1"):
        eventually(lambda: stand.state("again-0") == "active" or None)
    rows = stand.fleet.registry.timeline("dev-again-0")
    assert ("reset", "board replaced", "op:alice") in [(row.event, row.reason, row.actor) for row in rows]
    (second,) = approval.reset(stand.fleet, [stand.fleet.registry.device("dev-again-0")], "once more")
    assert second.revoked == 1


def test_a_status_from_an_earlier_life_makes_nobody_active(stand: Stand, service: Serving, tmp_path: Path) -> None:
    stand.batch("stale", 1)
    applicant = Applicant(stand.claim("stale", "stale"), "stale-0")
    device = applicant.become(applicant.provision(), tmp_path / "device")
    with device.session():
        service.wait_for("activated", device_id="dev-stale-0")
    approval.reset(stand.fleet, [stand.fleet.registry.device("dev-stale-0")], "again")

    with stand.fleet.open_session("test") as session:
        assert session.read_retained([f"{device.path}/status"]) == {}
        session.publish(f"{device.path}/status", device.status("1-1"), 1, True)
        session.flush()
        assert Applicant(applicant.folder, "stale-0").provision().status == "accepted"
        session.publish(f"{device.path}/status", b"")
