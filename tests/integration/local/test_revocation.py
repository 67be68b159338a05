"""Revoking with a broker that runs: refused, cut off, proven, and nobody else notices."""

import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue

import pytest

from fleetctl.config import Context, load_context
from fleetctl.demo.place import free_ports
from fleetctl.errors import Conflict, Denied, FleetError, Unavailable
from fleetctl.model.certificate import Reason
from fleetctl.mqtt.broker import find_mosquitto
from fleetctl.mqtt.endpoint import Endpoint
from fleetctl.mqtt.session import Session, open_session
from fleetctl.pki import crl
from fleetctl.platforms.local import revocation
from fleetctl.platforms.local.broker import run_broker
from fleetctl.platforms.local.fleet import LocalFleet
from fleetctl.platforms.local.init import create_context
from fleetctl.platforms.local.layout import Layout
from fleetctl.platforms.local.restoring import Requests
from fleetctl.wire import bundle
from fleetctl.wire.document import rfc3339

PATIENCE = 10.0
REFUSALS = (Denied, Unavailable)
TOPIC = "acme/oslo/pump/p-1/twin/desired"


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
    if request.param == "mosquitto" and find_mosquitto() is None:
        pytest.skip("mosquitto is not installed")
    return str(request.param)


@pytest.fixture
def new_device(fleet: LocalFleet, tmp_path: Path) -> Callable[[str], Endpoint]:
    def make(device_id: str) -> Endpoint:
        folder = tmp_path / device_id
        fleet.devices.add(device_id, device_type="pump", location="oslo", labels={}, bundle=folder)
        ca, cert, key = (folder / name for name in (bundle.AUTHORITY, bundle.CERTIFICATE, bundle.KEY))
        return Endpoint.parse_url(fleet.context.device_broker, ca=ca, cert=cert, key=key)

    return make


@contextmanager
def broker(context: Context, engine: str) -> Iterator[None]:
    """In a thread of this process; what others signal to this process becomes its request."""
    requests: Requests = SimpleQueue()
    events: SimpleQueue[object] = SimpleQueue()

    def run() -> None:
        try:
            for event in run_broker(context, engine, requests=requests):
                events.put(event)
        except BaseException as error:
            events.put(error)

    before = signal.signal(signal.SIGHUP, lambda number, _: requests.put(number))
    thread = threading.Thread(target=run)
    thread.start()
    try:
        started = events.get(timeout=PATIENCE)
        if isinstance(started, BaseException):
            raise started
        yield
    finally:
        requests.put(signal.SIGTERM)
        thread.join(PATIENCE)
        signal.signal(signal.SIGHUP, before)
    assert not thread.is_alive()


def connect(endpoint: Endpoint, name: str) -> Session:
    return open_session(endpoint, "device", client_id=name, timeout=PATIENCE)


def wait_until_closed(session: Session) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            session.receive(0.2)
        except FleetError:
            return
    raise AssertionError("the session was not cut")


def operator(fleet: LocalFleet, folder: Path, name: str) -> Endpoint:
    fleet.certificates.issue(name, folder)
    return Endpoint.parse_url(
        fleet.context.broker, ca=fleet.context.ca, cert=folder / "operator.pem", key=folder / "operator.key"
    )


def test_a_device_that_mosquitto_sub_plays_is_out_within_two_seconds_and_others_notice_nothing(
    context: Context, fleet: LocalFleet, new_device: Callable[[str], Endpoint], engine: str
) -> None:
    program = shutil.which("mosquitto_sub")
    if program is None:
        pytest.skip("mosquitto_sub is not installed")
    bad, good = new_device("p-1"), new_device("p-2")
    words = ["--cafile", str(bad.ca), "--cert", str(bad.cert), "--key", str(bad.key), "-h", "localhost", "-p", str(bad.port)]
    command = ["stdbuf", "-oL", program, *words, "-V", "mqttv5", "-i", "p-1", "-t", TOPIC, "-q", "1", "-d"]
    will = ["--will-topic", "acme/oslo/pump/p-1/status", "--will-payload", "cut"]
    with broker(context, engine), connect(good, "p-2") as neighbour, fleet.open_session("watch") as watch:
        watch.subscribe(["acme/oslo/pump/p-1/status"])
        live = subprocess.Popen([*command, *will], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert live.stdout is not None
        while "SUBACK" not in live.stdout.readline():
            assert live.poll() is None
        begun = time.monotonic()
        (report,) = fleet.certificates.revoke("p-1", "keyCompromise")
        assert [each.payload for each in watch.receive(PATIENCE)] == [b"cut"]
        took = time.monotonic() - begun
        live.kill()
        live.wait(PATIENCE)
        live.stdout.close()
        again = subprocess.run([*command, "-W", "5"], capture_output=True, text=True, check=False)
        neighbour.publish("acme/oslo/pump/p-2/status", b"{}")
        neighbour.flush()
        assert neighbour.connection.connected
    assert took < 2
    assert again.returncode != 0
    assert "SUBACK" not in again.stdout
    assert (report.sessions_cut, report.refusal_proven, report.acceptance_proven, report.detail) == (True, True, True, None)


def test_a_revoked_operator_is_cut_whatever_its_client_ids_are(
    context: Context, fleet: LocalFleet, tmp_path: Path, engine: str
) -> None:
    bob, carol = operator(fleet, tmp_path / "bob", "op:bob"), operator(fleet, tmp_path / "carol", "op:carol")
    with broker(context, engine), open_session(carol, "watch") as other:
        sessions = [open_session(bob, "watch"), open_session(bob, "x", client_id="some (p5, c1, k60, u'op:carol').")]
        try:
            (report,) = fleet.certificates.revoke("op:bob")
            for session in sessions:
                wait_until_closed(session)
        finally:
            for session in sessions:
                session.close()
        assert (report.sessions_cut, report.refusal_proven, report.acceptance_proven) == (True, True, True)
        with pytest.raises(REFUSALS):
            open_session(bob, "watch").close()
        other.subscribe(["acme/#"])
        assert other.connection.connected


def test_without_a_broker_here_the_report_says_what_is_left_to_do(
    fleet: LocalFleet, new_device: Callable[[str], Endpoint]
) -> None:
    new_device("p-1")
    (report,) = fleet.certificates.revoke("p-1")
    assert (report.broker_running, report.sessions_cut, report.refusal_proven, report.acceptance_proven) == (
        False,
        None,
        None,
        None,
    )
    assert report.detail is not None
    assert "fleetctl broker apply" in report.detail


def test_proof_leaves_no_key_and_no_row_behind_and_its_entry_goes_with_the_next_list(
    context: Context, fleet: LocalFleet, new_device: Callable[[str], Endpoint], engine: str
) -> None:
    new_device("p-1")
    lists = Layout(context.folder).device_lists
    with broker(context, engine):
        (report,) = fleet.certificates.revoke("p-1")
        assert len(crl.read_serials(lists)) == 2
    assert report.refusal_proven
    assert not list(context.folder.glob(".canary-*"))
    assert not any("canary" in entry.subject for entry in fleet.certificates.list())
    new_device("p-2")
    fleet.certificates.revoke("p-2")
    assert len(crl.read_serials(lists)) == 2


def test_a_device_on_hold_is_out_and_comes_back_when_the_hold_ends(
    context: Context, fleet: LocalFleet, new_device: Callable[[str], Endpoint], engine: str
) -> None:
    endpoint = new_device("p-1")
    (row,) = fleet.registry.certificates("p-1")
    with broker(context, engine):
        live = connect(endpoint, "p-1")
        fleet.registry.hold_certificate(row.serial, rfc3339(fleet.clock()))
        (report,) = revocation.enforce(fleet, ["p-1"])
        try:
            wait_until_closed(live)
        finally:
            live.close()
        assert (report.outcome, report.reason, report.refusal_proven) == ("held", Reason.CERTIFICATE_HOLD, True)
        with pytest.raises(REFUSALS):
            connect(endpoint, "p-1").close()
        fleet.registry.release_certificate(row.serial)
        (report,) = revocation.enforce(fleet, ["p-1"])
        assert (report.outcome, report.acceptance_proven, report.sessions_cut) == ("released", True, None)
        connect(endpoint, "p-1").close()
    assert not crl.read_serials(Layout(context.folder).device_lists) & {int(row.serial, 16)}


def test_a_ticket_from_before_a_revocation_does_not_resume(
    context: Context, fleet: LocalFleet, new_device: Callable[[str], Endpoint], engine: str
) -> None:
    endpoint = new_device("p-1")
    tls = ssl.create_default_context(cafile=str(endpoint.ca))
    tls.load_cert_chain(str(endpoint.cert), str(endpoint.key))
    with broker(context, engine):
        ticket = greet(tls, endpoint, None)
        assert (ticket is not None) is (engine == "mosquitto")
        fleet.certificates.revoke("p-1")
        with pytest.raises((OSError, EOFError)):
            greet(tls, endpoint, ticket)


def greet(tls: ssl.SSLContext, endpoint: Endpoint, ticket: ssl.SSLSession | None) -> ssl.SSLSession | None:
    """Connect as MQTT 5 client `p-1`, and return the ticket that came with the answer; raises when there is no answer."""
    hello = b"\x00\x04MQTT\x05\x02\x00\x1e\x00\x00\x03p-1"
    with (
        socket.create_connection(("127.0.0.1", endpoint.port), timeout=PATIENCE) as tcp,
        tls.wrap_socket(tcp, server_hostname="localhost", session=ticket) as conversation,
    ):
        conversation.sendall(bytes([0x10, len(hello)]) + hello)
        if not conversation.recv(4):
            raise EOFError
        held = conversation.session
        with suppress(OSError):
            conversation.sendall(b"\xe0\x00")
        return held if held is not None and held.has_ticket else None


def test_a_certificate_of_a_registered_authority_is_not_ours_to_revoke(fleet: LocalFleet, tmp_path: Path) -> None:
    from fleetctl.registry import AuthorityRow

    fleet.devices.add("p-1", device_type="pump", location="oslo", labels={}, bundle=tmp_path / "p-1")
    (row,) = fleet.registry.certificates("p-1")
    pem = fleet.registry.authority("fleet-ca").pem
    fleet.registry.add_authority(AuthorityRow("Vendor CA", "registered", "root", "active", None, pem, row.not_before))
    fleet.registry.write("UPDATE certificates SET authority = 'Vendor CA' WHERE serial = ?", (row.serial,))
    with pytest.raises(Conflict, match="for the registered authority `Vendor CA` to revoke") as caught:
        revocation.revoke(fleet, fleet.registry.certificates("p-1"), Reason.KEY_COMPROMISE)
    assert caught.value.hint == "keep the device out here: fleetctl provision suspend p-1"
