"""`broker run` on a real context: who gets in, what a revocation does to it, and how it ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from queue import SimpleQueue

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from fleetctl.config import Context, load_context
from fleetctl.demo.place import free_ports
from fleetctl.errors import ConfigError, Conflict, Denied, FleetError, Pending, Unavailable
from fleetctl.keys.store import private_pem
from fleetctl.mqtt.broker import find_mosquitto
from fleetctl.mqtt.endpoint import Endpoint
from fleetctl.mqtt.session import Session, open_session
from fleetctl.pki.crl import read_numbers
from fleetctl.platforms.local import running
from fleetctl.platforms.local.broker import BrokerEvent, run_broker
from fleetctl.platforms.local.brokercheck import check_broker
from fleetctl.platforms.local.fleet import LocalFleet
from fleetctl.platforms.local.init import create_context
from fleetctl.platforms.local.layout import Layout
from fleetctl.platforms.local.listeners import broker_config, check_certificate
from fleetctl.platforms.local.lists import write_lists
from fleetctl.platforms.local.restoring import Requests
from fleetctl.platforms.local.revocation import Revocation
from fleetctl.platforms.protocol import Targets
from fleetctl.wire import bundle

PATIENCE = 20.0


@pytest.fixture
def context() -> Context:
    create_context("prod", "acme", f"mqtts://localhost:{free_ports()}", "alice")
    return load_context("prod")


@pytest.fixture
def fleet(context: Context) -> Iterator[LocalFleet]:
    with LocalFleet(context) as opened:
        yield opened


@pytest.fixture(params=["mosquitto", "builtin"])
def engine(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    if name == "mosquitto" and find_mosquitto() is None:
        pytest.skip("mosquitto is not installed")
    return name


@pytest.fixture
def new_device(fleet: LocalFleet, tmp_path: Path) -> Callable[[str], Endpoint]:
    """Provisions a device and says where and as whom it connects."""

    def make(device_id: str) -> Endpoint:
        folder = tmp_path / device_id
        fleet.devices.add(device_id, device_type="pump", location="oslo", labels={}, bundle=folder)
        ca, cert, key = (folder / name for name in (bundle.AUTHORITY, bundle.CERTIFICATE, bundle.KEY))
        return Endpoint.parse_url(fleet.context.device_broker, ca=ca, cert=cert, key=key)

    return make


class Running:
    """A broker in a thread of this process: the signals that others send to this process become its requests."""

    def __init__(self, context: Context, engine: str) -> None:
        self.requests: Requests = SimpleQueue()
        self._events: SimpleQueue[BrokerEvent | BaseException] = SimpleQueue()
        self._restored: SimpleQueue[BrokerEvent] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, args=(context, engine))

    def _run(self, context: Context, engine: str) -> None:
        try:
            for event in run_broker(context, engine, requests=self.requests):
                self._events.put(event)
        except BaseException as error:
            self._events.put(error)

    def next(self) -> BrokerEvent:
        """The next event; what becomes of restoring comes at any moment, and is kept."""
        while True:
            event = self._await()
            if isinstance(event, BaseException):
                raise event
            if not event.event.startswith("restore"):
                return event
            self._restored.put(event)

    def _await(self) -> BrokerEvent | BaseException:
        """In short steps: a signal that another thread sends to this process is handled between them."""
        deadline = time.monotonic() + PATIENCE
        while self._events.empty() and time.monotonic() < deadline:
            time.sleep(0.02)
        return self._events.get_nowait()

    def restored(self) -> BrokerEvent:
        if self._restored.empty():
            event = self._await()
            assert not isinstance(event, BaseException)
            return event
        return self._restored.get()

    def start(self) -> BrokerEvent:
        self._thread.start()
        return self.next()

    def stop(self) -> None:
        self.requests.put(signal.SIGTERM)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


@contextmanager
def broker(context: Context, engine: str) -> Iterator[Running]:
    made = Running(context, engine)
    before = signal.signal(signal.SIGHUP, lambda number, _: made.requests.put(number))
    try:
        made.start()
        yield made
    finally:
        made.stop()
        signal.signal(signal.SIGHUP, before)


def connect(endpoint: Endpoint, name: str) -> Session:
    return open_session(endpoint, "device", client_id=name, timeout=PATIENCE)


def status_of(name: str) -> str:
    return f"acme/oslo/pump/{name}/status"


def refused(engine: str, words: str = "revoked") -> AbstractContextManager[object]:
    """asyncio closes after a failed handshake before its alert is sent, so the built-in broker cannot say why."""
    if engine == "mosquitto":
        return pytest.raises(Denied, match=words)
    return pytest.raises((Denied, Unavailable), match=f"{words}|closed the connection|connection broke")


def wait_until_closed(session: Session) -> FleetError:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            session.receive(0.2)
        except FleetError as error:
            return error
    raise AssertionError("the session was not cut")


def wait_until_free(port: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return
        time.sleep(0.02)
    raise AssertionError(f"something still listens on {port}")


def test_devices_and_operators_each_have_their_door(
    context: Context, fleet: LocalFleet, new_device: Callable[[str], Endpoint], engine: str
) -> None:
    device = new_device("p-1")
    with broker(context, engine):
        with connect(device, "p-1") as session, fleet.open_session("test") as operator:
            operator.subscribe(["acme/oslo/#"])
            session.publish(status_of("p-1"), b"{}")
            assert [each.topic for each in operator.receive(PATIENCE)] == [status_of("p-1")]
            session.publish(status_of("p-2"), b"{}")
            with pytest.raises(Denied):
                session.flush()
        wrong_doors = (
            Endpoint.parse_url(context.broker, ca=device.ca, cert=device.cert, key=device.key),
            Endpoint.parse_url(context.device_broker, ca=context.ca, cert=context.cert, key=context.key),
        )
        for endpoint in wrong_doors:
            with refused(engine, "refused our certificate"):
                connect(endpoint, "p-1").close()


def test_a_revoked_device_is_cut_off_at_once_and_its_neighbour_is_not(
    context: Context, fleet: LocalFleet, new_device: Callable[[str], Endpoint], engine: str
) -> None:
    bad, good = new_device("p-1"), new_device("p-2")
    with broker(context, engine) as run, connect(good, "p-2") as neighbour:
        live = connect(bad, "p-1")
        try:
            (report,) = fleet.certificates.revoke("p-1", "keyCompromise")
            assert (report.broker_running, report.broker_reloaded, report.sessions_cut) == (True, True, True)
            wait_until_closed(live)
        finally:
            live.close()
        event = run.next()
        assert (event.event, event.crl_numbers["device-issuing"]) == ("reloaded", report.crl_number)
        with refused(engine):
            connect(bad, "p-1").close()
        neighbour.publish(status_of("p-2"), b"{}")
        neighbour.flush()
        assert neighbour.connection.connected


def test_revocations_right_after_each_other_are_all_obeyed(
    context: Context, fleet: LocalFleet, new_device: Callable[[str], Endpoint], engine: str
) -> None:
    devices = {name: new_device(name) for name in ("p-1", "p-2", "p-3", "p-4")}
    with broker(context, engine):
        for name in ("p-1", "p-2", "p-3"):
            (report,) = fleet.certificates.revoke(name)
            assert report.broker_reloaded
            with refused(engine):
                connect(devices[name], name).close()
        connect(devices["p-4"], "p-4").close()


def test_what_was_revoked_while_no_broker_ran_is_refused_by_the_next(
    context: Context, fleet: LocalFleet, new_device: Callable[[str], Endpoint], engine: str
) -> None:
    bad, good = new_device("p-1"), new_device("p-2")
    fleet.certificates.revoke("p-1")
    with broker(context, engine):
        with refused(engine):
            connect(bad, "p-1").close()
        connect(good, "p-2").close()


def test_a_revoked_operator_is_refused_and_others_are_not(
    context: Context, fleet: LocalFleet, tmp_path: Path, engine: str
) -> None:
    fleet.certificates.issue("op:bob", tmp_path / "bob")
    bob = Endpoint.parse_url(
        context.broker, ca=context.ca, cert=tmp_path / "bob" / "operator.pem", key=tmp_path / "bob" / "operator.key"
    )
    with broker(context, engine):
        connect(bob, "fleetctl-bob").close()
        (report,) = fleet.certificates.revoke("op:bob")
        assert report.sessions_cut
        with refused(engine):
            connect(bob, "fleetctl-bob").close()
        fleet.open_session("test").close()


def test_a_second_broker_of_the_same_context_is_a_conflict(context: Context, engine: str) -> None:
    with broker(context, engine):
        with pytest.raises(Conflict, match="runs already for context `prod`"):
            next(iter(run_broker(context, engine, requests=SimpleQueue())))
        assert running.running(context.folder) is not None


def test_it_says_where_it_listens_and_leaves_no_state_behind(context: Context, engine: str) -> None:
    run = Running(context, engine)
    event = run.start()
    assert (event.event, event.engine) == ("listening", engine)
    assert (event.device_url, event.fleet_url) == (context.device_broker, context.broker)
    assert event.in_memory
    state = json.loads((context.folder / "broker.pid").read_text())
    assert state["pid"] == os.getpid()
    assert (state["engine"], state["deviceUrl"], state["fleetUrl"]) == (engine, context.device_broker, context.broker)
    assert (context.folder / "broker.pid").stat().st_mode & 0o777 == 0o600
    run.stop()
    assert run.next().event == "stopped"
    assert not (context.folder / "broker.pid").exists()
    assert running.running(context.folder) is None


def test_a_taken_port_is_named_and_nothing_is_left(context: Context, engine: str) -> None:
    port = Endpoint.parse_url(context.broker).port
    with socket.create_server(("127.0.0.1", port)), pytest.raises(Unavailable, match=f"port `{port}` is taken"):
        next(iter(run_broker(context, engine, requests=SimpleQueue())))
    assert not (context.folder / "broker.pid").exists()


def test_what_a_killed_broker_left_behind_stops_nobody(context: Context, engine: str) -> None:
    other = subprocess.Popen(["sleep", "60"])
    try:
        stale = running.BrokerState(other.pid, engine, context.device_broker, context.broker)
        running.publish(context.folder, stale)
        assert running.running(context.folder) is None
        told = running.have_it_read(context.folder, {"device-issuing": 99})
        assert (told.running, told.reloaded) == (False, False)
        assert other.poll() is None
        with broker(context, engine):
            state = running.running(context.folder)
            assert state is not None
            assert state.pid == os.getpid()
    finally:
        other.kill()
        other.wait()


def test_a_list_that_cannot_be_read_is_reported_to_whoever_revoked(
    context: Context, fleet: LocalFleet, new_device: Callable[[str], Endpoint], engine: str, tmp_path: Path
) -> None:
    new_device("p-1")
    with broker(context, engine) as run:
        Layout(context.folder).fleet_lists.write_text("damaged")
        with pytest.raises(FleetError, match="has not taken it") as caught:
            fleet.certificates.revoke("p-1")
        assert run.next().event == "reloadFailed"
        assert isinstance(caught.value.record, list)
        (report,) = caught.value.record
        assert isinstance(report, Revocation)
        assert (report.broker_running, report.broker_reloaded, report.sessions_cut) == (True, False, False)
        # the next attempt, with the file mended, is judged by itself
        fleet.certificates.issue("op:bob", tmp_path / "bob")
        fleet.certificates.revoke("op:bob")
        (again,) = fleet.certificates.revoke("p-1")
        assert (again.outcome, again.broker_reloaded) == ("unchanged", True)


def test_a_context_that_others_dial_is_not_opened_to_them_unasked(engine: str) -> None:
    create_context("wide", "acme", "mqtts://broker.example.org:9000")
    wide = load_context("wide")
    with pytest.raises(ConfigError, match="nobody said that other machines may") as caught:
        broker_config(wide)
    assert "--listen" in caught.value.hint
    assert broker_config(wide, "0.0.0.0").allow_remote  # noqa: S104


def test_a_fresh_broker_is_told_what_the_registry_holds(
    context: Context, fleet: LocalFleet, new_device: Callable[[str], Endpoint], engine: str, tmp_path: Path
) -> None:
    device = new_device("p-1")
    for name in ("p-2", "p-3"):
        fleet.devices.add(name, device_type="pump", location="oslo", labels={})
    chosen = fleet.devices.resolve(Targets(("p-1", "p-2")))
    with pytest.raises(Pending):
        fleet.twins.set(chosen, {"interval": 60})
    with broker(context, engine) as run:
        event = run.restored()
        assert (event.event, event.twins, event.trust, event.error) == ("restored", 2, True, None)
    fleet.devices.remove(chosen[1:])
    topics = ["acme/oslo/pump/p-1/twin/desired", "acme/_fleet/trust"]
    with broker(context, engine) as run:
        event = run.restored()
        assert (event.event, event.twins, event.trust) == ("restored", 1, True)
        with connect(device, "p-1") as session:
            session.subscribe(topics[:1])
            assert [each.topic for each in session.receive(PATIENCE)] == topics[:1]
        with fleet.open_session("test") as operator:
            found = operator.read_retained(topics)
        assert json.loads(found[topics[0]].payload)["version"] == 1
        assert found[topics[1]].payload == Layout(context.folder).trust.read_bytes()
        assert fleet.twins.set(chosen[:1], {"interval": 60})[0].outcome == "unchanged"
    assert fleet.registry.outbox() == []


def test_a_broker_that_cannot_be_told_goes_on(context: Context, engine: str) -> None:
    Layout(context.folder).trust.unlink()
    with broker(context, engine) as run:
        event = run.restored()
        assert (event.event, event.twins) == ("restoreFailed", None)
        assert "trust.cose" in (event.error or "")
        run.requests.put(signal.SIGHUP)
        assert run.next().event == "reloaded"


class OwnClaims:
    """An authority for claims, as `certs ca init claims` leaves it, and a claim of it."""

    def __init__(self, context: Context, folder: Path) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name.from_rfc4514_string("CN=claim-ca")
        self._begins = datetime.now(UTC) - timedelta(hours=1)
        self._folder = folder
        self._layout = Layout(context.folder)
        self._context = context
        self._layout.claim_ca.write_bytes(self._sign(self._name, self._key, ca=True))
        self.list_revoked()

    def list_revoked(self, *serials: int) -> None:
        day = timedelta(seconds=len(serials))
        begins, ends = self._begins + day, self._begins + timedelta(days=9)
        lines = [x509.RevokedCertificateBuilder(serial, self._begins).build() for serial in serials]
        number = x509.Extension(x509.CRLNumber.oid, False, x509.CRLNumber(1 + len(serials)))
        made = x509.CertificateRevocationListBuilder(self._name, begins, ends, [number], lines)
        self._layout.claim_lists.write_bytes(made.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))

    def claim(self, name: str) -> Endpoint:
        key = ec.generate_private_key(ec.SECP256R1())
        cert, secret = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        cert.write_bytes(self._sign(x509.Name.from_rfc4514_string(f"CN=claim:{name}"), key))
        secret.write_bytes(private_pem(key))
        return Endpoint.parse_url(self._context.claims, ca=self._layout.fleet_ca, cert=cert, key=secret)

    def _sign(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, ca: bool = False) -> bytes:
        ends = self._begins + timedelta(days=9)
        made = x509.CertificateBuilder(self._name, subject, key.public_key(), x509.random_serial_number(), self._begins, ends)
        made = made.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        return made.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)


def test_claims_have_a_door_of_their_own_once_there_is_an_authority_for_them(
    context: Context, fleet: LocalFleet, new_device: Callable[[str], Endpoint], engine: str, tmp_path: Path
) -> None:
    device = new_device("p-1")
    with broker(context, engine) as run:
        claims = OwnClaims(context, tmp_path)
        holder = claims.claim("line-7")
        run.requests.put(signal.SIGHUP)
        assert run.next().event == "reloaded"
        event = run.next()
        assert (event.event, event.claims_url) == ("restartNeeded", None)
        assert "started again" in (event.error or "")
        with pytest.raises(Unavailable):
            connect(holder, "SN-1").close()
    base = "acme/_fleet/provision/claim:line-7"
    run = Running(context, engine)
    event = run.start()
    try:
        assert (event.claims_url, event.crl_numbers["claim-ca"]) == (context.claims, 1)
        with connect(holder, "SN-1") as session, fleet.open_session("test") as operator:
            operator.subscribe(["acme/_fleet/provision/+/+/request"])
            session.publish(f"{base}/SN-1/request", b"{}")
            assert [each.topic for each in operator.receive(PATIENCE)] == [f"{base}/SN-1/request"]
            session.publish(f"{base}/SN-2/request", b"{}")
            with pytest.raises(Denied):
                session.flush()
        for endpoint, identity in ((device, holder), (holder, device)):
            with refused(engine, "refused our certificate"):
                connect(replace(endpoint, cert=identity.cert, key=identity.key), "p-1").close()
        serial = x509.load_pem_x509_certificate((tmp_path / "line-7.pem").read_bytes()).serial_number
        claims.list_revoked(serial)
        run.requests.put(signal.SIGHUP)
        assert run.next().crl_numbers["claim-ca"] == 2
        with refused(engine):
            connect(holder, "SN-1").close()
    finally:
        run.stop()


def test_an_authority_for_claims_without_a_list_keeps_the_broker_from_starting(
    context: Context, engine: str, tmp_path: Path
) -> None:
    OwnClaims(context, tmp_path)
    Layout(context.folder).claim_lists.unlink()
    with pytest.raises(ConfigError, match=r"claim\.crl\.pem`, which does not exist"):
        next(iter(run_broker(context, engine, requests=SimpleQueue())))


def test_people_may_be_given_another_authority_while_it_runs(context: Context, engine: str) -> None:
    """The broker reads a file of its own, because the path of the authorities is fixed at the start."""
    layout = Layout(context.folder)
    with broker(context, engine) as run, LocalFleet(context) as fleet:
        layout.people_ca.write_bytes(layout.device_ca.read_bytes())
        run.requests.put(signal.SIGHUP)
        assert run.next().event == "reloaded"
        with refused(engine, "refused our certificate"):
            fleet.open_session("test").close()
        layout.people_ca.unlink()
        run.requests.put(signal.SIGHUP)
        assert run.next().event == "reloaded"
        fleet.open_session("test").close()


def test_an_expired_certificate_of_the_brokers_own_is_refused_with_what_mends_it(context: Context, engine: str) -> None:
    config = broker_config(context)
    certificate = x509.load_pem_x509_certificate(config.device.cert.read_bytes())
    ended = certificate.not_valid_after_utc.timestamp()
    check_certificate(config, ended - 1)
    with pytest.raises(ConfigError, match="expired on ") as caught:
        check_certificate(config, ended)
    assert caught.value.hint == "fleetctl certs renew broker"
    with pytest.raises(ConfigError, match="is not valid before "):
        check_certificate(config, certificate.not_valid_before_utc.timestamp() - 1)


def test_a_list_that_has_ended_is_signed_again_once_the_broker_runs(context: Context, engine: str) -> None:
    with LocalFleet(context) as fleet:
        write_lists(fleet.registry, Layout(context.folder), "fleet-ca", fleet.clock(), lifetime=2)
        number = read_numbers(Layout(context.folder).fleet_lists)["fleet-ca"]
    time.sleep(2.5)
    with broker(context, engine) as run:
        assert run.next().crl_numbers["fleet-ca"] == number + 1
        with LocalFleet(context) as fleet:
            fleet.open_session("test").close()


def test_the_broker_of_a_context_is_checked_while_it_runs(context: Context, fleet: LocalFleet, engine: str) -> None:
    with broker(context, engine):
        assert check_broker(fleet, None, live=False) == []
        Layout(context.folder).key("operator").unlink()
        assert [each.code for each in check_broker(fleet, None, live=False)] == ["operator_refused"]


SCRIPT = """
import sys
from fleetctl.config import load_context
from fleetctl.platforms.local.broker import run_broker
for event in run_broker(load_context("prod"), sys.argv[1]):
    if not event.event.startswith("restore"):
        print(event.event, flush=True)
"""


@pytest.mark.parametrize(("ending", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, -signal.SIGINT)])
def test_a_signal_ends_the_process_cleanly(context: Context, engine: str, ending: signal.Signals, status: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, engine], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "listening\n"
        process.send_signal(signal.SIGHUP)
        assert process.stdout.readline() == "reloaded\n"
        process.send_signal(ending)
        assert process.stdout.read() == "stopped\n"
        assert process.wait(PATIENCE) == status
    socket.create_server(("127.0.0.1", Endpoint.parse_url(context.device_broker).port)).close()
    assert not (context.folder / "broker.pid").exists()


def test_a_killed_process_leaves_no_broker_behind(context: Context, engine: str) -> None:
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, engine], stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "listening\n"
        process.kill()
    assert running.running(context.folder) is None
    wait_until_free(Endpoint.parse_url(context.device_broker).port)
    with broker(context, engine):
        pass


def test_an_engine_that_dies_is_reported(context: Context) -> None:
    if find_mosquitto() is None:
        pytest.skip("mosquitto is not installed")
    events = run_broker(context, "mosquitto", requests=SimpleQueue())
    assert next(events).event == "listening"
    children = subprocess.run(["pgrep", "-P", str(os.getpid()), "mosquitto"], capture_output=True, text=True, check=False)
    for pid in children.stdout.split():
        os.kill(int(pid), signal.SIGKILL)
    with pytest.raises(FleetError, match="ended by itself"):
        assert all(event.event.startswith("restore") for event in events)
    assert not (context.folder / "broker.pid").exists()
