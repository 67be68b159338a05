"""Renewal in the field: a real broker, a scripted EST server over mutual TLS, an agent that goes on working."""

import base64
import datetime as dt
import json
import secrets
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs7

from fleetctl import tls
from fleetctl.agent import run as agents
from fleetctl.agent.identity import Identity
from fleetctl.agent.settings import Settings
from fleetctl.keys.store import save_key
from fleetctl.model import topic
from fleetctl.model.device import DevicePath
from fleetctl.model.topic import Channel
from fleetctl.wire import bundle
from fleetctl.wire.command import Command

QUICK = Settings(heartbeat=0.5, telemetry=0.1, reboot_delay=0.1, backoff=0.1, renewal_retry=0.2, renewal_limit=0.5)
HOUR = dt.timedelta(hours=1)


@dataclass
class Asked:
    operation: str
    peer: str
    key: Any = None


class EstServer:
    """Answers as ADR 12 says; `respond` may say something else to a request for a certificate."""

    def __init__(self, fleet: Any) -> None:
        self.fleet = fleet
        self.asked: list[Asked] = []
        self.respond: Callable[[Any, DevicePath], tuple[int, bytes]] = self.renew
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.handle(self, b"")

            def do_POST(self) -> None:
                server.handle(self, self.rfile.read(int(self.headers["Content-Length"])))

            def log_message(self, *_: Any) -> None:
                return

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.socket = tls.server_context(
            fleet.folder / "broker.pem", fleet.folder / "broker.key", fleet.devices.folder / "ca.pem"
        ).wrap_socket(self.http.socket, server_side=True)
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.05,))
        self.thread.start()

    @property
    def url(self) -> str:
        return f"https://localhost:{self.http.server_address[1]}"

    def handle(self, request: Any, body: bytes) -> None:
        peer = dict(pair[0] for pair in request.connection.getpeercert()["subject"])["commonName"]
        operation = request.path.rpartition("/")[2]
        if operation == "cacerts":
            self.asked.append(Asked(operation, peer))
            status, data = 200, self.encoded((self.fleet.devices.folder / "ca.pem").read_bytes())
        else:
            csr = x509.load_der_x509_csr(base64.b64decode(body))
            assert csr.is_signature_valid
            self.asked.append(Asked(operation, peer, csr.public_key()))
            status, data = self.respond(csr.public_key(), self.fleet.path(peer))
        request.send_response(status)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)

    def renew(self, key: Any, path: DevicePath) -> tuple[int, bytes]:
        return 200, self.encoded(self.fleet.devices.certify(path, key))

    @staticmethod
    def encoded(pem: bytes) -> bytes:
        found = x509.load_pem_x509_certificates(pem)
        return base64.b64encode(pkcs7.serialize_certificates(found, serialization.Encoding.DER))

    def end(self) -> None:
        self.http.shutdown()
        self.thread.join(5)
        self.http.server_close()


@pytest.fixture
def est(fleet: Any) -> Iterator[EstServer]:
    made = EstServer(fleet)
    yield made
    made.end()


def given(fleet: Any, device: str, enrol: str | None, *, age: float, life: dt.timedelta = HOUR) -> Path:
    """A bundle whose certificate has used up this share of its life."""
    place: Path = fleet.bundle(device)
    key = ec.generate_private_key(ec.SECP256R1())
    save_key(place / bundle.KEY, key, replace=True)
    (place / bundle.CERTIFICATE).write_bytes(fleet.devices.certify(fleet.path(device), key.public_key(), life, -life * age))
    config = bundle.parse_yaml((place / bundle.CONFIG).read_text())
    (place / bundle.CONFIG).write_text(bundle.render_yaml(replace(config, enrol=enrol)))
    return place


def serial_of(folder: Path) -> str:
    credential = Identity.load(folder).credential
    assert credential is not None
    return credential.serial


def ask(fleet: Any, device: str, name: str, session: str, **args: Any) -> list[dict[str, Any]]:
    """Send a command and collect its replies up to the final one."""
    path = fleet.path(device)
    command = Command(secrets.token_hex(8), session, args)
    replies: list[dict[str, Any]] = []
    with fleet.session() as client:
        client.subscribe([topic.command_reply(path, name)])
        client.publish(topic.command(path, name), command.encode())
        for message in client.messages():
            document = json.loads(message.payload)
            if document["id"] == command.id:
                replies.append(document)
                if document["status"] != "accepted":
                    return replies
    raise AssertionError


def test_a_device_renews_in_time_and_goes_on(fleet: Any, est: EstServer, start: Any) -> None:
    place = given(fleet, "old", est.url, age=0.7)
    before = {path.name: path.read_bytes() for path in place.iterdir()}
    with fleet.session() as listener:
        listener.subscribe([topic.of(fleet.path("old"), Channel.TELEMETRY)])
        agent = start(place, settings=QUICK)
        renewed = agent.wait("renewed")[0]
        agent.wait("online", session="1-2")
        sessions = [json.loads(listener.receive(5)[0].payload)["messageId"].rpartition("-")[0] for _ in range(1)]
        agent.wait("online", 2)
        while sessions[-1] != "1-2":
            sessions += [json.loads(message.payload)["messageId"].rpartition("-")[0] for message in listener.receive(5)]
    state = place / "state"
    assert renewed["serial"] == serial_of(state / "identity")
    assert [event["reason"] for event in agent.of("offline")] == ["a new certificate"]
    asked = [one.operation for one in est.asked]
    assert "simplereenroll" in asked
    assert {one.peer for one in est.asked} == {"old"}
    agent.wait("renewed", 1)
    agent.end()
    assert {path.name: path.read_bytes() for path in place.iterdir() if path.name != "state"} == before
    assert fleet.retained("old", Channel.STATUS)["session"] == "1-2"


def test_a_renewed_identity_wins_over_the_bundle_after_a_restart(fleet: Any, est: EstServer, start: Any) -> None:
    place = given(fleet, "again", est.url, age=0.9)
    first = start(place, settings=QUICK)
    first.wait("renewed")
    first.end()
    count = len([one for one in est.asked if one.operation == "simplereenroll"])
    second = start(place, settings=QUICK)
    second.wait("online")
    second.end()
    assert second.of("renewing") == []
    assert len([one for one in est.asked if one.operation == "simplereenroll"]) == count == 1


def test_the_fleet_is_shown_the_new_certificate(fleet: Any, est: EstServer, start: Any) -> None:
    place = given(fleet, "shown", est.url, age=0.8)
    agent = start(place, settings=QUICK)
    agent.wait("renewed")
    marker = place / "state" / "identity" / "unannounced"
    for _ in range(200):
        if not marker.exists():
            break
        threading.Event().wait(0.02)
    assert not marker.exists()
    assert [one.operation for one in est.asked][-1] == "cacerts"


def test_a_certificate_of_seconds_is_renewed_again_and_again(fleet: Any, est: EstServer, start: Any) -> None:
    life = dt.timedelta(seconds=6)
    est.respond = lambda key, path: (200, est.encoded(fleet.devices.certify(path, key, life, dt.timedelta())))
    patient = replace(QUICK, renewal_retry=60.0, renewal_limit=3600.0)
    agent = start(given(fleet, "brief", est.url, age=0.6, life=4 * life), settings=patient)
    agent.wait("renewed", 3)
    assert agent.of("renewFailed") == agent.of("expired") == []


def test_a_young_certificate_is_left_alone(fleet: Any, est: EstServer, start: Any) -> None:
    agent = start(given(fleet, "young", est.url, age=0.4), settings=QUICK)
    agent.wait("online")
    threading.Event().wait(0.5)
    assert est.asked == []


@pytest.mark.parametrize("rekey", [True, False])
def test_the_fleet_asks_for_a_renewal(fleet: Any, est: EstServer, start: Any, rekey: bool) -> None:
    name = f"asked-{rekey}"
    place = given(fleet, name, est.url, age=0.1)
    agent = start(place, settings=QUICK)
    session = agent.wait("online")[0]["session"]
    replies = ask(fleet, name, "renew", session, rekey=rekey)
    assert [reply["status"] for reply in replies] == ["accepted", "succeeded"]
    state = place / "state"
    assert replies[-1]["result"] == {"serial": serial_of(state / "identity")}
    same = Identity.load(place).private_key.public_key() == Identity.load(state / "identity").private_key.public_key()
    assert same is not rekey
    again = ask(fleet, name, "renew", agent.wait("online", 2)[-1]["session"])
    assert again[-1]["status"] == "succeeded"
    assert serial_of(state / "identity.prev") == replies[-1]["result"]["serial"]


def test_a_refused_renewal_keeps_the_old_certificate_and_says_why(fleet: Any, est: EstServer, start: Any) -> None:
    est.respond = lambda _key, _path: (403, b"the device is on hold\n")
    place = given(fleet, "held", est.url, age=0.8)
    agent = start(place, settings=QUICK)
    failed = agent.wait("renewFailed", 2)
    assert "403" in failed[0]["reason"]
    assert "on hold" in failed[0]["reason"]
    assert agent.of("offline") == []
    assert not (place / "state" / "identity").exists()
    keys = {one.key.public_numbers() for one in est.asked}
    assert len(keys) >= 2
    est.respond = est.renew
    agent.wait("renewed")


def test_a_server_in_trouble_is_asked_again_with_the_same_key(fleet: Any, est: EstServer, start: Any) -> None:
    est.respond = lambda _key, _path: (503, b"")
    agent = start(given(fleet, "busy", est.url, age=0.8), settings=QUICK)
    agent.wait("renewFailed", 2)
    assert len({one.key.public_numbers() for one in est.asked}) == 1
    est.respond = est.renew
    agent.wait("renewed")
    assert len({one.key.public_numbers() for one in est.asked if one.key}) == 1


def test_a_certificate_that_the_broker_refuses_is_not_put_in_the_place_of_a_good_one(
    fleet: Any, est: EstServer, start: Any
) -> None:
    def foreign(key: Any, path: DevicePath) -> tuple[int, bytes]:
        return 200, est.encoded(fleet.claims.certify(path, key))

    est.respond = foreign
    place = given(fleet, "foreign", est.url, age=0.8)
    agent = start(place, settings=QUICK)
    agent.wait("renewFailed", 2)
    assert agent.of("offline") == agent.of("renewed") == []
    est.respond = est.renew
    agent.wait("renewed")
    assert agent.of("offline", reason="a new certificate")


def answers(est: EstServer, fleet: Any) -> dict[str, Callable[[Any, DevicePath], tuple[int, bytes]]]:
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    good = fleet.devices.certify
    return {
        "garbage": lambda _key, _path: (200, b"\x00\xff garbage"),
        "empty": lambda _key, _path: (200, b""),
        "huge": lambda _key, _path: (200, b"A" * 400_000),
        "no certificates": lambda _key, _path: (200, base64.b64encode(b"\x30\x00")),
        "another key": lambda _key, path: (200, est.encoded(good(path, other))),
        "another device": lambda key, _path: (200, est.encoded(good(fleet.path("other"), key))),
        "another place": lambda key, path: (200, est.encoded(good(replace(path, location="cellar"), key))),
        "expired": lambda key, path: (200, est.encoded(good(path, key, HOUR, -2 * HOUR))),
    }


def test_hostile_answers_change_nothing(fleet: Any, est: EstServer, start: Any) -> None:
    place = given(fleet, "hostile", est.url, age=0.8)
    agent = start(place, settings=QUICK)
    for index, answer in enumerate(answers(est, fleet).values(), 1):
        est.respond = answer
        agent.wait("renewFailed", len(agent.of("renewFailed")) + 2)
        assert index
    assert agent.of("renewed") == agent.of("offline") == []
    assert not (place / "state" / "identity").exists()
    est.respond = est.renew
    agent.wait("renewed")


def test_an_expired_certificate_is_said_with_the_way_out(fleet: Any, start: Any) -> None:
    agent = start(given(fleet, "late", None, age=1.5), settings=QUICK)
    expired = agent.wait("expired")[0]
    assert expired["hint"] == "fleetctl certs issue late --bundle FOLDER"
    assert agent.wait("waiting")


def test_a_certificate_that_nobody_renews_is_said_in_good_time(fleet: Any, start: Any) -> None:
    agent = start(given(fleet, "alone", None, age=0.7), settings=QUICK)
    assert "notAfter" in agent.wait("expiring")[0]
    agent.wait("online")


def test_many_devices_renew_in_one_process(fleet: Any, est: EstServer, watch: Any, tmp_path: Path) -> None:
    places = [given(fleet, f"many-{number}", est.url, age=0.8) for number in range(12)]
    agent = watch(lambda stop: agents.simulate(places, tmp_path / "state", settings=QUICK, stop=stop))
    agent.wait("renewed", 12)
    agent.wait("online", 24)
    assert len({event["serial"] for event in agent.of("renewed")}) == 12
