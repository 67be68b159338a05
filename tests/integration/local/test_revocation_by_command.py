"""`fleetctl certs revoke` beside `fleetctl broker run`, both processes of their own, and clients that are not ours."""

import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from fleetctl.config import Context, load_context
from fleetctl.demo.place import free_ports
from fleetctl.demo.processes import child
from fleetctl.mqtt.broker import find_mosquitto
from fleetctl.mqtt.endpoint import Endpoint
from fleetctl.platforms.local.init import create_context
from fleetctl.wire import bundle
from tests.conftest import Fleetctl

PATIENCE = 10.0
CONNECTED = "received CONNACK (0)"
CUT = "eceived DISCONNECT"
CONNECTING = "sending CONNECT"
RETRY = 1.0
"""Seconds after which `mosquitto_sub` connects again where its connection ends without a word."""


@pytest.fixture(params=["mosquitto", "builtin"])
def context(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Context]:
    if find_mosquitto() is None or shutil.which("mosquitto_sub") is None:
        pytest.skip("mosquitto and mosquitto-clients are not installed")
    create_context("prod", "acme", f"mqtts://localhost:{free_ports()}", "alice")
    with ExitStack() as stack:
        words = ["broker", "run", "--engine", request.param, "-o", "jsonl"]
        stack.enter_context(child("broker", words, {}, tmp_path / "broker.log")).wait_for("listening", 20.0)
        yield load_context("prod")


@pytest.fixture
def new_device(context: Context, fleetctl: Fleetctl, tmp_path: Path) -> Callable[[str], Endpoint]:
    def make(name: str) -> Endpoint:
        folder = tmp_path / name
        ran = fleetctl("provision", "add", name, "--type", "pump", "--location", "oslo", "--bundle", str(folder))
        assert ran.status == 0, ran.err
        ca, cert, key = (folder / each for each in (bundle.AUTHORITY, bundle.CERTIFICATE, bundle.KEY))
        return Endpoint.parse_url(context.device_broker, ca=ca, cert=cert, key=key)

    return make


class Listener:
    """`mosquitto_sub` as a device, which connects again by itself; what it says, and when."""

    def __init__(self, endpoint: Endpoint, name: str) -> None:
        files = ["--cafile", str(endpoint.ca), "--cert", str(endpoint.cert), "--key", str(endpoint.key)]
        where = [
            "-h",
            "localhost",
            "-p",
            str(endpoint.port),
            "-V",
            "mqttv5",
            "-i",
            name,
            "-t",
            f"acme/oslo/pump/{name}/twin/desired",
        ]
        words = ["stdbuf", "-oL", "-eL", "mosquitto_sub", *files, *where, "-q", "1", "-d"]
        self.said: list[tuple[float, str]] = []
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.said.extend((time.monotonic(), line.strip()) for line in self.process.stdout)

    def times(self, text: str) -> list[float]:
        return [when for when, line in self.said if text in line]

    def wait_for(self, text: str, count: int = 1) -> float:
        deadline = time.monotonic() + PATIENCE
        while len(found := self.times(text)) < count:
            assert time.monotonic() < deadline, "\n".join(map(str, self.said))
            time.sleep(0.02)
        return found[count - 1]

    def lost(self) -> float:
        """When its connection ended: the broker says so, or it connects again."""
        deadline = time.monotonic() + PATIENCE
        while not (ends := [*self.times(CUT), *(when - RETRY for when in self.times(CONNECTING)[1:])]):
            assert time.monotonic() < deadline, self.said
            time.sleep(0.02)
        return min(ends)

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(PATIENCE)
        self._thread.join(PATIENCE)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def listen() -> Iterator[Callable[..., Listener]]:
    with ExitStack() as stack:

        def start(endpoint: Endpoint, name: str, until: str = "received SUBACK") -> Listener:
            made = Listener(endpoint, name)
            stack.callback(made.end)
            made.wait_for(until)
            return made

        yield start


def test_the_command_disconnects_one_device_within_two_seconds_and_its_neighbour_notices_nothing(
    fleetctl: Fleetctl, new_device: Callable[[str], Endpoint], listen: Callable[..., Listener]
) -> None:
    endpoint = new_device("p-1")
    bad, good = listen(endpoint, "p-1"), listen(new_device("p-2"), "p-2")
    begun = time.monotonic()
    (report,) = fleetctl("certs", "revoke", "p-1", "--reason", "keyCompromise", "-o", "json").json()
    assert bad.lost() - begun < 2
    assert (report["sessionsCut"], report["refusalProven"], report["acceptanceProven"]) == (True, True, True)

    again = listen(endpoint, "p-1", "Error: ")
    for name in ("p-1", "p-2"):
        assert fleetctl("twin", "set", name, "mode=eco").status == 0
    good.wait_for("received PUBLISH")
    assert (len(good.times(CONNECTING)), good.times(CUT)) == (1, [])
    assert (len(bad.times(CONNECTED)), bad.times("received PUBLISH")) == (1, [])
    assert (again.times(CONNECTED), again.times("received PUBLISH")) == ([], [])


def test_a_ticket_that_resumed_before_the_command_does_not_after_it(
    request: pytest.FixtureRequest, fleetctl: Fleetctl, new_device: Callable[[str], Endpoint]
) -> None:
    endpoint = new_device("p-1")
    tls = ssl.create_default_context(cafile=str(endpoint.ca))
    tls.load_cert_chain(str(endpoint.cert), str(endpoint.key))
    _, ticket = greet(tls, endpoint, None)
    resumed, ticket = greet(tls, endpoint, ticket)
    gives_tickets = ticket is not None
    assert resumed is gives_tickets
    assert gives_tickets is ("mosquitto" in request.node.callspec.params.values())

    assert fleetctl("certs", "revoke", "p-1", "--reason", "keyCompromise").status == 0
    for held in (ticket, None):
        with pytest.raises((OSError, EOFError)):
            greet(tls, endpoint, held)


def greet(tls: ssl.SSLContext, endpoint: Endpoint, ticket: ssl.SSLSession | None) -> tuple[bool, ssl.SSLSession | None]:
    """Connect as MQTT 5 client `p-1`: whether the ticket was taken, and the next; raises when nobody answers."""
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
        return bool(conversation.session_reused), held if held is not None and held.has_ticket else None
