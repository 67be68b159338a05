"""Renewing certificates: proven at a real broker before anything changes, and never without an identity that works."""

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from fleetctl.agent.identity import Identity
from fleetctl.config import load_context
from fleetctl.demo.place import free_ports
from fleetctl.demo.processes import Child, child
from fleetctl.errors import Conflict, Denied, NotFound, Pending, Unavailable
from fleetctl.keys.store import load_key
from fleetctl.model.certificate import DAY, State
from fleetctl.model.device import LifeCycle
from fleetctl.mqtt.broker import find_mosquitto
from fleetctl.mqtt.session import open_session
from fleetctl.pki.authority import read_certificates, serial_of
from fleetctl.platforms.local.fleet import LocalFleet
from fleetctl.platforms.local.fleet_renewal import due, order
from fleetctl.platforms.local.held import state_of
from fleetctl.platforms.local.init import create_context
from fleetctl.platforms.local.renewal import Holding, of_context, of_folder, renew
from fleetctl.wire import bundle
from fleetctl.wire.command import Command, Reply, ReplyStatus
from fleetctl.wire.document import rfc3339
from fleetctl.wire.presence import Presence
from tests.conftest import Fleetctl

STATUS = Presence("online", "3-1", "1.0.0", f"sha256:{'0' * 64}", "set", 60.0).encode()


class Stopped(Exception):
    """The process ended here."""


class Stand:
    """A fleet whose broker may run, and one device with its bundle."""

    def __init__(self, fleet: LocalFleet, folder: Path, stack: ExitStack) -> None:
        self.fleet, self.folder, self._stack = fleet, folder, stack
        self.bundle = folder / "p-1"
        fleet.devices.add("p-1", device_type="pump", location="oslo", labels={}, bundle=self.bundle)

    def start(self, engine: str = "builtin") -> Child:
        words = ["broker", "run", "--engine", engine, "-o", "jsonl"]
        broker = self._stack.enter_context(child("broker", words, {}, self.folder / "broker.log"))
        broker.wait_for("listening", 20.0)
        return broker

    @property
    def device(self) -> Holding:
        return of_folder(self.fleet, self.bundle)

    def serial(self) -> str:
        return serial_of(read_certificates(self.bundle / bundle.CERTIFICATE)[0])

    def works(self) -> None:
        """The bundle is an identity, and the broker takes it."""
        Identity.load(self.bundle)
        self.device.prove(self.device.endpoint(self.device.pair))


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    create_context("prod", "acme", f"mqtts://localhost:{free_ports()}", "alice")
    with ExitStack() as stack, LocalFleet(load_context("prod")) as fleet:
        yield Stand(fleet, tmp_path, stack)


@pytest.mark.parametrize("engine", ["builtin", "mosquitto"])
def test_a_device_renews_and_then_gets_a_new_key(stand: Stand, engine: str) -> None:
    if engine == "mosquitto" and find_mosquitto() is None:
        pytest.skip("mosquitto is not installed")
    stand.start(engine)
    first, key = stand.serial(), (stand.bundle / bundle.KEY).read_bytes()

    renewed = renew(stand.fleet, stand.device)
    assert (renewed.subject, renewed.outcome, renewed.replaces) == ("p-1", "renewed", first)
    assert (stand.bundle / bundle.KEY).read_bytes() == key
    assert serial_of(read_certificates(stand.bundle / "device.pem.prev")[0]) == first
    stand.works()

    rekeyed = renew(stand.fleet, stand.device, rekey=True)
    assert (rekeyed.outcome, rekeyed.replaces) == ("rekeyed", renewed.serial)
    assert (stand.bundle / bundle.KEY).read_bytes() != key
    assert (stand.bundle / "device.key.prev").read_bytes() == key
    stand.works()
    rows = {row.serial: row for row in stand.fleet.registry.certificates("p-1")}
    assert rows[rekeyed.serial].proven_at is not None
    assert {state_of(row, stand.fleet.clock()) for row in rows.values()} == {State.VALID}
    assert stand.fleet.registry.device("p-1").state is LifeCycle.ACTIVE
    assert [step.event for step in stand.fleet.registry.timeline("p-1")][-4:] == ["renewing", "renewed"] * 2


def test_proving_a_device_does_not_cut_its_session_nor_take_its_messages(stand: Stand) -> None:
    stand.start()
    holding = stand.device
    with open_session(holding.endpoint(holding.pair), "device", client_id="p-1") as session:
        renew(stand.fleet, holding)
        session.publish("acme/oslo/pump/p-1/telemetry", b"{}")
        session.flush()


@pytest.mark.parametrize("rekey", [False, True], ids=["renew", "rekey"])
def test_a_renewal_that_is_stopped_anywhere_leaves_a_bundle_that_works_and_a_repeat_finishes_it(
    stand: Stand, *, rekey: bool
) -> None:
    stand.start()
    steps: list[str] = []
    renew(stand.fleet, stand.device, rekey=rekey, step=steps.append)
    assert len(steps) == len(set(steps)) == (12 if rekey else 5)
    for wanted in steps:
        before = stand.serial()

        def stop(step: str, wanted: str = wanted) -> None:
            if step == wanted:
                raise Stopped

        with pytest.raises(Stopped):
            renew(stand.fleet, stand.device, rekey=rekey, step=stop)
        stand.works()
        if rekey or stand.serial() == before:
            done = renew(stand.fleet, stand.device, rekey=rekey)
            assert done.replaces == before
        assert stand.serial() != before
        stand.works()
    assert not [each for each in stand.bundle.iterdir() if each.name.endswith(".new") or each.is_symlink() or each.is_dir()]


def test_a_broker_that_is_away_leaves_everything_as_it_is(stand: Stand) -> None:
    before = stand.serial()
    with pytest.raises(Unavailable):
        renew(stand.fleet, stand.device, rekey=True)
    assert stand.serial() == before
    assert len(stand.fleet.registry.certificates("p-1")) == 1
    assert sorted(each.name for each in stand.bundle.iterdir()) == sorted(bundle.FILES)


def test_a_broker_that_goes_away_in_between_leaves_the_new_one_waiting(stand: Stand) -> None:
    stand.start()
    holding, before = stand.device, stand.serial()

    def gone(_: object) -> None:
        raise Unavailable("gone")

    with pytest.raises(Unavailable) as caught:
        renew(stand.fleet, Holding(holding.pair, holding.endpoint, gone), rekey=True)
    assert "waits in" in caught.value.hint
    assert stand.serial() == before
    assert stand.fleet.registry.device("p-1").state is LifeCycle.RENEWING
    waiting = serial_of(read_certificates(stand.bundle / "device.pem.new")[0])
    assert renew(stand.fleet, stand.device, rekey=True).serial == waiting
    assert len(stand.fleet.registry.certificates("p-1")) == 2


def test_a_new_certificate_that_the_broker_refuses_is_revoked_and_the_old_one_stays(stand: Stand) -> None:
    stand.start()
    holding, before = stand.device, stand.serial()

    def refuse(_: object) -> None:
        raise Denied("no")

    with pytest.raises(Denied, match="the old one stays"):
        renew(stand.fleet, Holding(holding.pair, holding.endpoint, refuse), rekey=True)
    assert stand.serial() == before
    assert not (stand.bundle / "device.key.new").exists()
    old, new = sorted(stand.fleet.registry.certificates("p-1"), key=lambda row: row.serial != before)
    assert (old.revoked_at, new.reason) == (None, "superseded")
    assert stand.fleet.registry.device("p-1").state is LifeCycle.ACTIVE
    stand.works()


def test_a_revoked_certificate_is_found_out_by_the_handshake_alone(stand: Stand) -> None:
    stand.start()
    holding = stand.device
    stand.fleet.certificates.revoke("p-1", "keyCompromise")
    with pytest.raises(Denied, match="revoked"):
        holding.prove(holding.endpoint(holding.pair))
    with pytest.raises(Denied, match=r"revoked at .* \(keyCompromise\)"):
        renew(stand.fleet, holding)


def test_an_expired_certificate_is_renewed_only_where_that_is_allowed(stand: Stand) -> None:
    stand.start()
    before = stand.serial()
    stand.fleet.registry.write("UPDATE certificates SET not_after = '2020-01-01T00:00:00.000Z' WHERE serial = ?", (before,))
    with pytest.raises(Denied, match=r"expired at 2020-01-01T00:00:00\.000Z") as caught:
        renew(stand.fleet, stand.device)
    assert "--allow-expired" in caught.value.hint
    assert renew(stand.fleet, stand.device, allow_expired=True).replaces == before


def test_a_device_that_was_removed_does_not_renew(stand: Stand) -> None:
    stand.start()
    stand.fleet.registry.retire_device("p-1", "2026-01-01T00:00:00.000Z")
    with pytest.raises(Conflict, match="retired"):
        renew(stand.fleet, stand.device)


def test_the_operator_of_a_context_renews_and_rekeys_and_stays_connected(stand: Stand, fleetctl: Fleetctl) -> None:
    stand.start()
    for verb in ("renew", "rekey"):
        done = fleetctl("certs", verb, "-o", "json").json()
        assert sorted(done) == ["certificate", "notAfter", "outcome", "replaces", "serial", "subject"]
        assert done["subject"] == "op:alice"
    fleetctl("publish", "-t", "acme/oslo/pump/p-1/telemetry", "{}", "-o", "json").json()
    held = of_context(stand.fleet).pair
    assert load_key(held.key).public_key() == read_certificates(held.certificate)[0].public_key()


def test_the_bundle_of_an_operator_is_renewed_by_its_folder(stand: Stand) -> None:
    stand.start()
    stand.fleet.certificates.issue("op:bob", stand.folder / "bob")
    done = renew(stand.fleet, of_folder(stand.fleet, stand.folder / "bob"), rekey=True)
    assert (done.subject, done.outcome) == ("op:bob", "rekeyed")


def test_a_folder_that_is_no_bundle_is_not_renewed(stand: Stand) -> None:
    with pytest.raises(NotFound):
        of_folder(stand.fleet, stand.folder)


def answering(stand: Stand, name: str, *answers: ReplyStatus) -> threading.Thread:
    """A device that is online; `answers` are the statuses of its replies to `renew`, which a thread sends."""
    folder = stand.folder / name
    if not folder.exists():
        stand.fleet.devices.add(name, device_type="pump", location="oslo", labels={}, bundle=folder)
    holding = of_folder(stand.fleet, folder)
    session = open_session(holding.endpoint(holding.pair), "device", client_id=name)
    base = f"acme/oslo/pump/{name}"
    session.subscribe([f"{base}/commands/renew"])
    session.publish(f"{base}/status", STATUS, 1, True)
    session.flush()

    def serve() -> None:
        (message,) = session.receive(20.0)
        command = Command.decode(message.payload)
        assert command.args == {"rekey": False}
        for status in answers:
            session.publish(f"{base}/commands/renew/reply", Reply(command.id, status, {"serial": "ab"}).encode())
        session.flush()
        session.close()

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def ends_soon(fleet: LocalFleet, *names: str) -> None:
    soon = rfc3339(fleet.clock() + 5 * DAY)
    for name in names:
        fleet.registry.write("UPDATE certificates SET not_after = ? WHERE device_id = ?", (soon, name))


def test_devices_whose_certificates_end_soon_are_told_to_renew_and_answer_each_for_itself(
    stand: Stand, fleetctl: Fleetctl
) -> None:
    stand.start()
    threads = [answering(stand, "p-1", "accepted", "succeeded"), answering(stand, "p-2", "accepted", "failed")]
    for name in ("p-3", "p-4"):
        stand.fleet.devices.add(name, device_type="pump", location="oslo", labels={}, bundle=stand.folder / name)
    ends_soon(stand.fleet, "p-1", "p-2", "p-3")

    words = [
        "certs",
        "renew",
        "--expiring",
        "30d",
        "-l",
        "type=pump",
        "--rate",
        "20/s",
        "--timeout",
        "10s",
        "--yes",
        "-o",
        "json",
    ]
    done = fleetctl(*words)

    for thread in threads:
        thread.join(20.0)
    assert done.status == 8, done.err
    assert {each["id"]: each["status"] for each in json.loads(done.out)} == {
        "p-1": "succeeded",
        "p-2": "failed",
        "p-3": "unknown",
    }


def test_a_device_that_only_accepted_is_pending(stand: Stand) -> None:
    stand.start()
    thread = answering(stand, "p-1", "accepted")
    with pytest.raises(Pending):
        list(order(stand.fleet, [stand.fleet.registry.device("p-1")], rekey=False, timeout=1.0, pace=None))
    thread.join(20.0)


def test_only_the_last_good_certificate_of_a_device_decides_whether_it_is_due(stand: Stand) -> None:
    device = stand.fleet.registry.device("p-1")
    assert due(stand.fleet, [device], 30 * DAY) == []
    ends_soon(stand.fleet, "p-1")
    assert due(stand.fleet, [device], 30 * DAY) == [device]
    stand.fleet.certificates.issue("p-1", stand.folder / "another")
    assert due(stand.fleet, [device], 30 * DAY) == []


def test_what_ends_soon_is_listed(stand: Stand, fleetctl: Fleetctl) -> None:
    assert fleetctl("certs", "list", "--expiring", "30d", "-o", "json").json() == []
    ends_soon(stand.fleet, "p-1")
    assert [each["subject"] for each in fleetctl("certs", "list", "--expiring", "30d", "-o", "json").json()] == ["p-1"]
    assert fleetctl("certs", "list", "--state", "revoked", "-o", "json").json() == []
    assert fleetctl("certs", "list", "--state", "lost").status == 2


@pytest.mark.parametrize(
    "words",
    [("renew", "op:bob"), ("renew", "--rate", "3/m"), ("renew", "p-1", "--rate", "fast"), ("rekey", "p-1", "--allow-expired")],
    ids=" ".join,
)
def test_words_that_do_not_go_together_are_refused(stand: Stand, fleetctl: Fleetctl, words: tuple[str, ...]) -> None:
    assert fleetctl("certs", *words).status in (2, 3)
