"""Both engines on free ports, with authorities made here, and the clients that visit them."""

import datetime as dt
import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from paho.mqtt.client import MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from fleetctl.model.access import claim_rules, device_rules, fleet_rules
from fleetctl.mqtt.broker import Broker, BrokerConfig, Listener, find_mosquitto
from fleetctl.mqtt.builtin import BuiltinBroker
from fleetctl.mqtt.mosquitto import Mosquitto

DAY = dt.timedelta(days=1)
PATIENCE = 30.0
Identity = tuple[Path, Path]


class Authority:
    """A certificate authority in a folder, with its revocation list."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder, self.ca, self.crl = folder, folder / "ca.pem", folder / "crl.pem"
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, folder.name)])
        self._revoked: list[x509.RevokedCertificate] = []
        self.ca.write_bytes(self._sign(self._name, self._key, ca=True).public_bytes(serialization.Encoding.PEM))
        self._write_crl()

    def _sign(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, ca: bool = False) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        serial = x509.random_serial_number()
        return (
            x509.CertificateBuilder(self._name, subject, key.public_key(), serial, now - DAY, now + DAY)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
            .sign(self._key, hashes.SHA256())
        )

    def issue(self, *names: str) -> Identity:
        """A certificate with these common names, and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in names]), key)
        stem = self.folder / f"{certificate.serial_number:x}"
        cert, secret = stem.with_suffix(".pem"), stem.with_suffix(".key")
        cert.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        private = serialization.PrivateFormat.PKCS8
        secret.write_bytes(key.private_bytes(serialization.Encoding.PEM, private, serialization.NoEncryption()))
        return cert, secret

    def revoke(self, identity: Identity) -> None:
        serial = x509.load_pem_x509_certificate(identity[0].read_bytes()).serial_number
        self._revoked.append(x509.RevokedCertificateBuilder(serial, dt.datetime.now(dt.UTC) - DAY).build())
        self._write_crl()

    def _write_crl(self) -> None:
        begins = dt.datetime.now(dt.UTC) - DAY + dt.timedelta(seconds=len(self._revoked))
        ends = dt.datetime.now(dt.UTC) + DAY
        crl = x509.CertificateRevocationListBuilder(self._name, begins, ends, [], self._revoked)
        self.crl.write_bytes(crl.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))


def properties(kind: int, **values: Any) -> Properties:
    made = Properties(kind)  # type: ignore[no-untyped-call]
    for name, value in values.items():
        setattr(made, name, value)
    return made


@dataclass
class Client:
    """paho with MQTT 5 in its own thread; what it hears is waited for, never slept for."""

    paho: paho.Client
    changed: threading.Condition = field(default_factory=threading.Condition)
    greeting: tuple[int, bool, Properties | None] | None = None
    farewell: int | None = None
    messages: list[MQTTMessage] = field(default_factory=list)
    codes: dict[int, list[int]] = field(default_factory=dict)
    taken: int = 0

    def __post_init__(self) -> None:
        self.paho.on_connect = lambda _c, _u, flags, code, found: self._note(greeting=(code.value, flags.session_present, found))
        self.paho.on_disconnect = lambda _c, _u, _f, code, _p: self._note(farewell=code.value)
        self.paho.on_message = lambda _c, _u, message: self._note(message=message)
        self.paho.on_publish = lambda _c, _u, mid, code, _p: self._note(codes={mid: [code.value]})
        self.paho.on_subscribe = lambda _c, _u, mid, codes, _p: self._note(codes={mid: [code.value for code in codes]})
        self.paho.on_unsubscribe = lambda _c, _u, mid, codes, _p: self._note(codes={mid: [code.value for code in codes]})

    def _note(self, message: MQTTMessage | None = None, codes: dict[int, list[int]] | None = None, **said: Any) -> None:
        with self.changed:
            if message is not None:
                self.messages.append(message)
            self.codes.update(codes or {})
            for name, value in said.items():
                setattr(self, name, value)
            self.changed.notify_all()

    def until(self, happened: Any, seconds: float = PATIENCE) -> bool:
        with self.changed:
            return bool(self.changed.wait_for(happened, seconds))

    def answer(self, mid: int | None) -> list[int]:
        assert mid is not None
        assert self.until(lambda: mid in self.codes), "no acknowledgement"
        return self.codes[mid]

    def subscribe(self, *filters: str, qos: int = 1, identifier: int | None = None, **options: Any) -> list[int]:
        wanted = [(text, SubscribeOptions(qos, **options)) for text in filters]
        found = properties(PacketTypes.SUBSCRIBE, SubscriptionIdentifier=identifier) if identifier else None
        return self.answer(self.paho.subscribe(wanted, properties=found)[1])

    def publish(self, topic: str, payload: bytes = b"x", qos: int = 1, retain: bool = False, **extra: Any) -> int:
        found = properties(PacketTypes.PUBLISH, **extra) if extra else None
        return self.answer(self.paho.publish(topic, payload, qos, retain, found).mid)[0]

    def take(self, count: int) -> list[MQTTMessage]:
        """The next messages, which must come."""
        last = self.taken + count
        assert self.until(lambda: len(self.messages) >= last), f"{len(self.messages) - self.taken} of {count} messages"
        taken, self.taken = self.messages[self.taken : last], last
        return taken

    def topics(self, count: int) -> list[str]:
        return [message.topic for message in self.take(count)]

    def nothing_but(self, marker: str, via: "Client") -> list[str]:
        """The topics that arrive before `marker`, which `via` publishes now."""
        via.publish(marker)
        assert self.until(lambda: any(message.topic == marker for message in self.messages[self.taken :]))
        found = [message.topic for message in self.messages[self.taken :]]
        self.taken = len(self.messages)
        return found[: found.index(marker)]

    def ended(self, seconds: float = PATIENCE) -> int:
        assert self.until(lambda: self.farewell is not None, seconds), "the connection goes on"
        return self.farewell or 0

    def leave(self, code: int = 0, **extra: Any) -> None:
        found = properties(PacketTypes.DISCONNECT, **extra) if extra else None
        self.paho.disconnect(ReasonCode(PacketTypes.DISCONNECT, identifier=code), found)
        self.stop()

    def drop(self) -> None:
        """The network fails."""
        self.paho.on_disconnect = None
        if isinstance(sock := self.paho.socket(), socket.socket):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self.stop()

    def stop(self) -> None:
        self.paho.loop_stop()
        if (sock := self.paho.socket()) is not None:
            sock.close()


@dataclass
class Stand:
    """One running engine and everything to visit it."""

    engine: str
    broker: Broker
    config: BrokerConfig
    devices: Authority
    people: Authority
    claims: Authority
    exits: ExitStack
    issued: dict[str, Identity] = field(default_factory=dict)
    count: int = 0

    def another(self, config: BrokerConfig) -> Broker:
        return make_broker(self.engine, config)

    def identity(self, name: str) -> Identity:
        if name not in self.issued:
            authority = self.people if ":" in name else self.devices
            self.issued[name] = (self.claims if name.startswith("claim:") else authority).issue(name)
        return self.issued[name]

    def listener(self, name: str) -> Listener:
        if name.startswith("claim:"):
            assert self.config.claims is not None
            return self.config.claims
        return self.config.fleet if ":" in name else self.config.device

    def context(self, identity: Identity) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.people.ca))
        context.load_cert_chain(*identity)
        return context

    def unique(self, stem: str) -> str:
        self.count += 1
        return f"{stem}-{self.count}"

    def connect(
        self,
        client_id: str = "",
        name: str = "op:alice",
        *,
        identity: Identity | None = None,
        will: tuple[str, bytes, int, bool] | None = None,
        will_delay: int = 0,
        keepalive: int = 30,
        clean_start: bool = True,
        welcome: bool = True,
        **extra: Any,
    ) -> Client:
        """A connected client; with `welcome` off it may have been refused."""
        made = paho.Client(
            CallbackAPIVersion.VERSION2, client_id or self.unique("client"), protocol=paho.MQTTv5, reconnect_on_failure=False
        )
        made.connect_timeout = PATIENCE
        client = Client(made)
        if will is not None:
            made.will_set(*will, properties=properties(PacketTypes.WILLMESSAGE, WillDelayInterval=will_delay))
        made.tls_set_context(self.context(identity or self.identity(name)))
        found = properties(PacketTypes.CONNECT, **extra)
        self.exits.callback(client.drop)
        made.connect("localhost", self.listener(name).port, keepalive, clean_start=clean_start, properties=found)
        made.loop_start()
        assert client.until(lambda: client.greeting is not None or client.farewell is not None)
        if welcome:
            assert client.greeting is not None
            assert client.greeting[0] == 0
        return client

    def raw(self, name: str = "op:alice", identity: Identity | None = None) -> ssl.SSLSocket:
        """A TLS connection that speaks only what the test says."""
        context = self.context(identity or self.identity(name))
        with socket.create_connection(("localhost", self.listener(name).port), timeout=PATIENCE) as tcp:
            made = context.wrap_socket(tcp, server_hostname="localhost")
        self.exits.callback(made.close)
        return made

    @staticmethod
    def knock(raw: ssl.SSLSocket) -> None:
        """Raise what the other side has against us; hearing nothing is an `OSError` too."""
        raw.sendall(b"\xc0\x00")
        if not raw.recv(1):
            raise ConnectionResetError("closed")

    @staticmethod
    def hear_out(raw: ssl.SSLSocket) -> None:
        """Return at the end, which must come."""
        with suppress(ConnectionResetError, ssl.SSLEOFError):
            while raw.recv(4096):
                pass

    def nameless(self) -> None:
        """Try to enter without a certificate; with TLS 1.3 the refusal comes with the first read."""
        context = ssl.create_default_context(cafile=str(self.people.ca))
        with (
            socket.create_connection(("localhost", self.config.device.port), timeout=PATIENCE) as tcp,
            context.wrap_socket(tcp, server_hostname="localhost") as made,
        ):
            self.knock(made)

    def tool(self, program: str, name: str, client_id: str, *words: str) -> list[str]:
        cert, key = self.identity(name)
        files = ["--cafile", str(self.people.ca), "--cert", str(cert), "--key", str(key)]
        return [program, "-V", "5", "-h", "localhost", "-p", str(self.listener(name).port), *files, "-i", client_id, *words]

    def await_reader(self, topic: str) -> None:
        """Return once somebody has subscribed to it."""
        client, deadline = self.connect(), time.monotonic() + PATIENCE
        while client.publish(topic) == 0x10:
            assert time.monotonic() < deadline, "nobody subscribed"
            time.sleep(0.02)

    def pub(self, name: str, topic: str, *words: str) -> "subprocess.CompletedProcess[str]":
        """mosquitto_pub at QoS 1, with its debug lines."""
        command = self.tool("mosquitto_pub", name, self.unique("pub"), "-d", "-q", "1", "-t", topic, *words)
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)

    def sub(self, name: str, *words: str) -> list[dict[str, Any]]:
        """What mosquitto_sub prints, a record a message."""
        command = self.tool("mosquitto_sub", name, self.unique("sub"), "-q", "1", "-F", "%j", *words)
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert done.returncode in (0, 27), done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]


def free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        return [held.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for _ in range(count)]


def make_broker(engine: str, config: BrokerConfig) -> Broker:
    return Mosquitto(config) if engine == "mosquitto" else BuiltinBroker(config)


def make_stand(folder: Path, engine: str, exits: ExitStack) -> Stand:
    if engine == "mosquitto" and find_mosquitto() is None:
        pytest.skip("mosquitto is not installed")
    if shutil.which("mosquitto_pub") is None:
        pytest.skip("mosquitto-clients are not installed")
    devices, people, claims = (Authority(folder / name) for name in ("devices", "people", "claims"))
    server = people.issue("localhost")
    one, other, third = free_ports(3)
    config = BrokerConfig(
        Listener("127.0.0.1", one, *server, devices.ca, devices.crl, device_rules("acme"), identity_is_client_id=True),
        Listener("127.0.0.1", other, *server, people.ca, people.crl, fleet_rules("acme"), identity_is_client_id=False),
        folder / "broker",
        claims=Listener(
            "127.0.0.1",
            third,
            *server,
            claims.ca,
            claims.crl,
            claim_rules("acme"),
            identity_is_client_id=False,
            transient=True,
        ),
    )
    broker = make_broker(engine, config)
    broker.start()
    exits.callback(broker.stop)
    return Stand(engine, broker, config, devices, people, claims, exits)


@pytest.fixture(name="make_stand")
def _make_stand() -> Callable[..., Stand]:
    """For a test that wants a broker of its own."""
    return make_stand


@pytest.fixture(scope="module", params=["mosquitto", "builtin"])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with ExitStack() as exits:
        yield make_stand(tmp_path_factory.mktemp("stand"), request.param, exits)


@pytest.fixture
def stand(running: Stand) -> Iterator[Stand]:
    """A broker that the tests of a module share; each has its own topics, and its clients end with it."""
    with ExitStack() as exits:
        running.exits = exits
        yield running


@pytest.fixture
def tree(stand: Stand) -> str:
    """A part of the topics that no other test uses."""
    return f"acme/{stand.unique('t')}-{time.time_ns()}"
