"""A fleet for agents: mosquitto with TLS, the artifact server, keys of every role, bundles; made here, without fleetctl.pki."""

import datetime as dt
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fleetctl import tls
from fleetctl.agent import run as agents
from fleetctl.agent.settings import Settings
from fleetctl.keys.cose import Signer, trust_key
from fleetctl.keys.store import generate_key, public_pem, save_key
from fleetctl.keys.trust import sign_assignment, sign_manifest, sign_trust
from fleetctl.model import topic
from fleetctl.model.access import claim_rules, device_rules, fleet_rules
from fleetctl.model.device import DevicePath
from fleetctl.model.topic import Channel
from fleetctl.mqtt.broker import BrokerConfig, Listener, find_mosquitto
from fleetctl.mqtt.connection import Connection
from fleetctl.mqtt.endpoint import Endpoint
from fleetctl.mqtt.mosquitto import Mosquitto
from fleetctl.mqtt.session import Session
from fleetctl.ota.server import ArtifactServer
from fleetctl.wire import bundle
from fleetctl.wire.assignment import Assignment
from fleetctl.wire.bundle import BundleConfig, ClaimConfig
from fleetctl.wire.desired import pack
from fleetctl.wire.manifest import Manifest
from fleetctl.wire.trust import TrustDocument

TENANT = "acme"
DAY, MINUTE = dt.timedelta(days=1), dt.timedelta(minutes=1)
HEALTHY = b"#!/bin/sh\nexit 0\n"
BROKEN = b"#!/bin/sh\necho pump does not answer >&2\nexit 1\n"
QUICK = Settings(heartbeat=0.5, telemetry=0.3, reboot_delay=0.1, backoff=0.1)


@dataclass
class Authority:
    """A self-signed certificate authority in a folder."""

    folder: Path
    name: str
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def __post_init__(self) -> None:
        self.folder.mkdir()
        self.subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])
        builder = self._builder(self.subject, self.key.public_key())
        certificate = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        (self.folder / "ca.pem").write_bytes(self._signed(certificate))
        now = dt.datetime.now(dt.UTC)
        crl = x509.CertificateRevocationListBuilder(self.subject, now - DAY, now + DAY, [], []).sign(self.key, hashes.SHA256())
        (self.folder / "crl.pem").write_bytes(crl.public_bytes(serialization.Encoding.PEM))

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        return x509.CertificateBuilder(self.subject, subject, key, x509.random_serial_number(), now - DAY, now + DAY)

    def certify(self, path: DevicePath, key: Any, life: dt.timedelta = 2 * DAY, begins: dt.timedelta = -MINUTE) -> bytes:
        """A device certificate as the fleet's own authority would write it."""
        now = dt.datetime.now(dt.UTC)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, path.device_id)])
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"urn:fleetctl:{path}")])
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
        builder = x509.CertificateBuilder(
            self.subject, subject, key, x509.random_serial_number(), now + begins, now + begins + life
        )
        return self._signed(builder.add_extension(usage, critical=False).add_extension(names, critical=False))

    def _signed(self, builder: x509.CertificateBuilder) -> bytes:
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def issue(self, name: str, cert: Path, key_file: Path, *, server: bool = False) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        usage = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._builder(subject, key.public_key()).add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if server:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        cert.write_bytes(self._signed(builder))
        save_key(key_file, key)


@dataclass(frozen=True)
class Release:
    manifest: Manifest
    envelope: bytes

    @property
    def digest(self) -> str:
        return self.manifest.image_digest


class Fleet:
    """What a fleet does to its devices, spelled out: sign, publish, look."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.devices, self.services = Authority(folder / "devices", "device ca"), Authority(folder / "services", "fleet ca")
        self.claims = Authority(folder / "claims", "claim ca")
        self.root, self.release_key, self.rollout_key = (Signer(generate_key()) for _ in range(3))
        self.trust = self.trust_document(1)
        cert, key, ca = folder / "broker.pem", folder / "broker.key", self.devices.folder / "ca.pem"
        self.services.issue("broker", cert, key, server=True)
        self.services.issue("op:test", folder / "operator.pem", folder / "operator.key")
        ports = free_ports(3)
        rules = (
            (device_rules(TENANT), self.devices),
            (fleet_rules(TENANT), self.services),
            (claim_rules(TENANT), self.claims),
        )
        device, services, claims = (
            Listener("127.0.0.1", port, cert, key, authority.folder / "ca.pem", authority.folder / "crl.pem", allowed, bound)
            for port, (allowed, authority), bound in zip(ports, rules, (True, False, False), strict=True)
        )
        self.config = BrokerConfig(device, services, folder / "broker", claims=replace(claims, transient=True))
        self.engine = Mosquitto(self.config)
        self.store = folder / "store"
        (self.store / "sha256").mkdir(parents=True)
        self.server = ArtifactServer(self.store, "localhost", 0, lambda: tls.server_context(cert, key, ca))

    def trust_document(self, version: int, *, rollout: Signer | None = None) -> bytes:
        keys = (
            trust_key(self.release_key.public_key, "release"),
            trust_key((rollout or self.rollout_key).public_key, "rollout"),
        )
        return sign_trust(TrustDocument(version, TENANT, keys), self.root)

    def path(self, device: str) -> DevicePath:
        return DevicePath(TENANT, "hall", "pump", device)

    def bundle(self, device: str) -> Path:
        place = self.folder / "bundles" / device
        place.mkdir(parents=True)
        self.devices.issue(device, place / bundle.CERTIFICATE, place / bundle.KEY)
        (place / bundle.AUTHORITY).write_bytes((self.services.folder / "ca.pem").read_bytes())
        (place / bundle.TRUST).write_bytes(self.trust)
        (place / bundle.ROOT).write_bytes(public_pem(self.root.public_key))
        broker, artifacts = f"mqtts://localhost:{self.config.device.port}", f"https://localhost:{self.server.port}"
        config = BundleConfig.of(self.path(device), broker, artifacts, 900.0)
        (place / bundle.CONFIG).write_text(bundle.render_yaml(config))
        return place

    def claim(self, name: str, place: Path, enrol: str | None = None) -> Path:
        """A claim bundle."""
        place.mkdir(parents=True)
        self.claims.issue(f"claim:{name}", place / bundle.CLAIM_CERTIFICATE, place / bundle.CLAIM_KEY)
        (place / bundle.AUTHORITY).write_bytes((self.services.folder / "ca.pem").read_bytes())
        (place / bundle.TRUST).write_bytes(self.trust)
        (place / bundle.ROOT).write_bytes(public_pem(self.root.public_key))
        listeners = (self.config.claims, self.config.device)
        broker, device = (f"mqtts://localhost:{one.port}" for one in listeners if one is not None)
        config = ClaimConfig(TENANT, name, broker, device, f"https://localhost:{self.server.port}", 900.0, enrol)
        (place / bundle.CLAIM_CONFIG).write_text(bundle.render_claim_yaml(config))
        return place

    def release(
        self, version: str, image: bytes, *, counter: int = 0, stored: bool = True, device_class: str = "pump"
    ) -> Release:
        digest = hashlib.sha256(image).digest()
        if stored:
            (self.store / "sha256" / digest.hex()).write_bytes(image)
        name = f"{device_class}@{version}"
        manifest = Manifest("acme", device_class, version, "app", len(image), digest, "raw", counter, 1, name)
        return Release(manifest, sign_manifest(manifest, self.release_key))

    def assignment(self, device: str, release: Release, order: int, **changes: Any) -> bytes:
        """The payload of `ota/desired`."""
        assignment = Assignment(
            TENANT, device, "r1", order, "install", (order + 1) // 2, hashlib.sha256(release.envelope).digest()
        )
        envelope = sign_assignment(replace(assignment, **changes), self.path(device), self.rollout_key)
        return pack(envelope, release.envelope)

    def session(self) -> Session:
        operator = Endpoint(
            "localhost",
            self.config.fleet.port,
            ca=self.services.folder / "ca.pem",
            cert=self.folder / "operator.pem",
            key=self.folder / "operator.key",
        )
        connection = Connection(operator, f"fleetctl-test-{os.urandom(3).hex()}")
        connection.connect()
        return Session(connection)

    def publish(self, device: str, channel: Channel, payload: bytes) -> None:
        self.publish_on(topic.of(self.path(device), channel), payload)

    def publish_on(self, name: str, payload: bytes, *, retain: bool = True) -> None:
        with self.session() as session:
            session.publish(name, payload, retain=retain)

    def retained(self, device: str, channel: Channel) -> dict[str, Any]:
        """What the broker keeps of a channel; empty where it keeps nothing."""
        name = topic.of(self.path(device), channel)
        with self.session() as session:
            found = session.read_retained([name])
        return dict(json.loads(found[name].payload)) if name in found else {}


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


class Running:
    """Agents in a thread of the test; their events as they come."""

    def __init__(self, events: Callable[[threading.Event], Iterator[dict[str, Any]]]) -> None:
        self.stop = threading.Event()
        self.events: list[dict[str, Any]] = []
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._collect, args=(events(self.stop),))
        self._thread.start()

    def _collect(self, events: Iterator[dict[str, Any]]) -> None:
        try:
            self.events.extend(events)
        except BaseException as error:
            self.error = error

    def end(self) -> None:
        self.stop.set()
        self._thread.join(20)
        assert not self._thread.is_alive()

    def of(self, event: str, **words: object) -> list[dict[str, Any]]:
        return [found for found in self.events if found["event"] == event and words.items() <= found.items()]

    def wait(self, event: str, count: int = 1, timeout: float = 20.0, **words: object) -> list[dict[str, Any]]:
        """The events of that name and content, once there are `count`."""
        deadline = monotonic() + timeout
        while len(found := self.of(event, **words)) < count:
            if self.error is not None:
                raise self.error
            assert monotonic() < deadline, f"no {event} {words} in {self.events}"
            sleep(0.02)
        return found

    def phases(self) -> list[str]:
        return [str(event["phase"]) for event in self.of("update")]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """One fleet for a module; tests use their own devices."""
    if find_mosquitto() is None:
        pytest.skip("mosquitto is not installed")
    made = Fleet(tmp_path_factory.mktemp("fleet"))
    made.engine.start()
    try:
        with made.server:
            yield made
    finally:
        made.engine.stop()


@pytest.fixture
def watch() -> Iterator[Callable[..., Running]]:
    """Runs what yields events until it is told to stop, and ends it with the test."""
    running: list[Running] = []

    def begin(events: Callable[[threading.Event], Iterator[dict[str, Any]]]) -> Running:
        running.append(Running(events))
        return running[-1]

    yield begin
    for one in running:
        one.end()


@pytest.fixture
def start() -> Iterator[Callable[..., Running]]:
    """Starts the agent of a bundle in a thread, and ends it with the test."""
    running: list[Running] = []

    def begin(place: Path, self_test: str | None = "sh {image}", settings: Settings = QUICK) -> Running:
        running.append(Running(lambda stop: agents.run(place, None, self_test, settings=settings, stop=stop)))
        return running[-1]

    yield begin
    for agent in running:
        agent.end()


_PROCESS = """
import json, sys
from pathlib import Path
from fleetctl.agent.run import run
from fleetctl.agent.settings import Settings
settings = Settings(heartbeat=0.5, telemetry=60.0, reboot_delay=0.1, backoff=0.1)
for event in run(Path(sys.argv[1]), None, sys.argv[2], settings=settings):
    sys.stdout.write(json.dumps(event) + "\\n")
    sys.stdout.flush()
"""


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Callable[..., "subprocess.Popen[bytes]"]]:
    """Starts the agent of a bundle as a process that can be killed; its events go to a file, one write each.

    A line that the kill of its predecessor tore is cut off first, so that two never become one.
    """
    started: list[subprocess.Popen[bytes]] = []

    def begin(place: Path, log: Path, self_test: str = "sh {image}") -> "subprocess.Popen[bytes]":
        if log.exists():
            os.truncate(log, log.read_bytes().rfind(b"\n") + 1)
        with log.open("ab") as sink:
            arguments = [sys.executable, "-c", _PROCESS, str(place), self_test]
            started.append(subprocess.Popen(arguments, stdout=sink, stderr=sink, stdin=subprocess.DEVNULL))
        return started[-1]

    yield begin
    for one in started:
        if one.poll() is None:
            one.send_signal(signal.SIGKILL)
        one.wait()
