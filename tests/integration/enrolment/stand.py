"""A fleet whose broker runs as a process of its own, and small devices that do by hand what an agent does."""

import base64
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from fleetctl.config import load_context
from fleetctl.demo.processes import Child, child
from fleetctl.keys.store import PrivateKey, generate_key, private_pem
from fleetctl.model.batch import Batch
from fleetctl.model.device import Device, DevicePath, LifeCycle
from fleetctl.model.profile import ProvisioningProfile
from fleetctl.mqtt.endpoint import Endpoint
from fleetctl.mqtt.session import Session, open_session
from fleetctl.pki.csr import make_csr
from fleetctl.platforms.local.enrolment.claims import create_claim
from fleetctl.platforms.local.enrolment.events import ServeEvent
from fleetctl.platforms.local.enrolment.serving import serve
from fleetctl.platforms.local.enrolment.vouching import identify_message
from fleetctl.platforms.local.fleet import LocalFleet
from fleetctl.platforms.local.init import create_context
from fleetctl.wire import bundle
from fleetctl.wire.bundle import parse_claim_yaml
from fleetctl.wire.command import Command, Reply
from fleetctl.wire.presence import Presence
from fleetctl.wire.provision import ProvisionReply, ProvisionRequest, Step

T = TypeVar("T")
PATIENCE = 20.0
PORTS = 5
DIGEST = "sha256:" + "0" * 64


class Gate:
    """What stands between a client and its broker: while it is shut, nothing that the client says gets through."""

    def __init__(self, port: int) -> None:
        self.shut = threading.Event()
        self._broker = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()
        self._sockets: list[socket.socket] = [self._listening]

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                broker = socket.create_connection(("127.0.0.1", self._broker))
                self._sockets += [client, broker]
                for source, target, guarded in ((client, broker, True), (broker, client, False)):
                    self._threads.append(threading.Thread(target=self._pass_on, args=(source, target, guarded), daemon=True))
                    self._threads[-1].start()

    def _pass_on(self, source: socket.socket, target: socket.socket, guarded: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if not (guarded and self.shut.is_set()):
                    target.sendall(data)
            target.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join(PATIENCE)


class Stand:
    """Tenant `acme`; `home` is FLEETCTL_HOME for processes."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder, self.stack = folder, stack
        self.home = folder / "home"
        self.environ = {"FLEETCTL_HOME": str(self.home)}
        self.port = free_ports()
        made = {**os.environ, **self.environ}
        create_context("prod", "acme", f"mqtts://localhost:{self.port}", "alice", environ=made)
        self.fleet = self.stack.enter_context(LocalFleet(load_context("prod", made)))
        make_claims_authority(self.fleet)

    def run(self, name: str, *words: str) -> Child:
        return self.stack.enter_context(child(name, [*words, "-o", "jsonl"], self.environ, self.folder / f"{name}.log"))

    def run_broker(self, engine: str = "mosquitto") -> Child:
        running = self.run("broker", "broker", "run", "--engine", engine)
        running.wait_for("listening", PATIENCE)
        running.wait_for("restored", PATIENCE)
        return running

    def batch(self, name: str, serials: int | list[str] = 0, profile: ProvisioningProfile | None = None, **facts: Any) -> Batch:
        registry = self.fleet.registry
        if profile is not None:
            registry.put_profile(profile)
        wanted = Batch(
            name, None if profile is None else profile.name, "oslo", "pump", created_at="2026-01-01T00:00:00.000Z", **facts
        )
        registry.add_batch(wanted)
        names = [f"{name}-{number}" for number in range(serials)] if isinstance(serials, int) else serials
        for serial in names:
            path = DevicePath("acme", "oslo", "pump", f"dev-{serial}")
            registry.add_device(
                Device(path, state=LifeCycle.MANUFACTURED, created_at="2026-01-01T00:00:00.000Z", serial=serial, batch=name)
            )
        return wanted

    def claim(self, name: str, batch: str, **facts: Any) -> Path:
        folder = self.folder / "claims" / name
        create_claim(self.fleet, name, batch, folder, **facts)
        return folder

    def state(self, serial: str) -> str:
        return self.fleet.registry.device_by_serial(serial).state.value

    def events(self, serial: str) -> list[str]:
        return [row.event for row in self.fleet.registry.timeline(f"dev-{serial}")]


@contextmanager
def serving(stand: Stand, **options: Any) -> Iterator["Serving"]:
    """`provision serve` in a thread of this process, without EST."""
    running = Serving(stand, options)
    running.start()
    try:
        yield running
    finally:
        running.end()


class Serving:
    def __init__(self, stand: Stand, options: dict[str, Any]) -> None:
        self.stop = threading.Event()
        self.events: list[ServeEvent] = []
        self.error: BaseException | None = None
        self._stand, self._options = stand, options
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            with LocalFleet(self._stand.fleet.context) as fleet:
                for event in serve(fleet, est=False, stop=self.stop, **self._options):
                    self.events.append(event)
        except BaseException as error:
            self.error = error

    def start(self) -> None:
        self._thread.start()
        self.wait_for("listening")

    def wait_for(self, event: str, **facts: object) -> ServeEvent:
        def found() -> ServeEvent | None:
            if self.error is not None:
                raise self.error
            return next(
                (each for each in self.events if each.event == event and all(getattr(each, k) == v for k, v in facts.items())),
                None,
            )

        return eventually(found)

    def end(self) -> None:
        self.stop.set()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


def eventually(look: Callable[[], T | None], patience: float = PATIENCE) -> T:
    """What `look` finds, as soon as it finds something."""
    deadline = time.monotonic() + patience
    while not (found := look()):
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)
    return found


class Applicant:
    """A device that has a claim bundle, a serial and a key of its own."""

    def __init__(self, folder: Path, serial: str, key: PrivateKey | None = None) -> None:
        self.folder, self.serial = folder, serial
        self.key: PrivateKey = key or generate_key("p256")
        self.config = parse_claim_yaml((folder / bundle.CLAIM_CONFIG).read_text())
        self.topics = f"{self.config.tenant}/_fleet/provision/{self.config.common_name}/{serial}"

    def endpoint(self) -> Endpoint:
        names = (bundle.AUTHORITY, bundle.CLAIM_CERTIFICATE, bundle.CLAIM_KEY)
        ca, cert, key = (self.folder / name for name in names)
        return Endpoint.parse_url(self.config.broker, ca=ca, cert=cert, key=key)

    @contextmanager
    def session(self) -> Iterator[Session]:
        with open_session(self.endpoint(), "device", client_id=self.serial, timeout=PATIENCE) as session:
            session.subscribe([f"{self.topics}/reply"])
            yield session

    def ask(self, session: Session, step: Step, csr: bytes | None = None) -> ProvisionReply:
        said = ProvisionRequest(secrets.token_hex(4), step, None if csr is None else csr.decode())
        return self.say(session, said.encode(), said.id)

    def say(self, session: Session, payload: bytes, name: str | None = None) -> ProvisionReply:
        session.publish(f"{self.topics}/request", payload)
        deadline = time.monotonic() + PATIENCE
        for message in session.messages(deadline):
            reply = ProvisionReply.decode(message.payload)
            if reply.id == name:
                return reply
        raise AssertionError("no reply")

    def csr(self, nonce: str | None, common_name: str = "whatever") -> bytes:
        return make_csr(self.key, common_name, nonce)

    def enrol(self, session: Session) -> ProvisionReply:
        """Hello and enrol; the answer to whichever was refused, or to the second."""
        hello = self.ask(session, "hello")
        return hello if hello.nonce is None else self.ask(session, "enrol", self.csr(hello.nonce))

    def provision(self) -> ProvisionReply:
        with self.session() as session:
            return self.enrol(session)

    def become(self, reply: ProvisionReply, folder: Path) -> "Own":
        assert reply.path is not None, reply
        assert reply.certificate is not None
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "device.pem").write_text(reply.certificate)
        (folder / "device.key").touch(0o600)
        (folder / "device.key").write_bytes(private_pem(self.key))
        (folder / "ca.pem").write_bytes((self.folder / bundle.AUTHORITY).read_bytes())
        return Own(reply.path, folder, self.config.device_broker, self.key)


class Own:
    """A device with its own certificate; it answers `configure` and `identify` as it is told to."""

    def __init__(self, path: DevicePath, folder: Path, url: str, key: PrivateKey) -> None:
        self.path, self.folder, self.url, self.key = path, folder, url, key
        self.settings: dict[str, Any] = {}

    @contextmanager
    def session(self, number: str = "1-1") -> Iterator[Session]:
        ca, cert, key = (self.folder / name for name in ("ca.pem", "device.pem", "device.key"))
        endpoint = Endpoint.parse_url(self.url, ca=ca, cert=cert, key=key)
        with open_session(endpoint, "device", client_id=self.path.device_id, timeout=PATIENCE) as session:
            session.subscribe([f"{self.path}/commands/+"])
            session.publish(f"{self.path}/status", self.status(number), 1, True)
            session.flush()
            yield session

    def status(self, number: str, word: Any = "online") -> bytes:
        return Presence(word, number, "1.0.0", DIGEST, "set", 60.0).encode()

    def obey(self, session: Session, wanted: str, patience: float = PATIENCE) -> Command | None:
        """Answer commands until `wanted` has come; that one, answered too."""
        for message in session.messages(time.monotonic() + patience):
            name = message.topic.rpartition("/")[2]
            command = Command.decode(message.payload)
            session.publish(f"{message.topic}/reply", Reply(command.id, "succeeded", self.result(name, command)).encode())
            session.flush()
            if name == wanted:
                return command
        return None

    def result(self, name: str, command: Command) -> Any:
        if name == "configure":
            self.settings = dict(command.args)
            return {"configured": True}
        message = identify_message(self.path, base64.b64decode(str(command.args["nonce"])))
        assert isinstance(self.key, ec.EllipticCurvePrivateKey)
        signature = self.key.sign(message, ec.ECDSA(hashes.SHA256()))
        return {"certificate": (self.folder / "device.pem").read_text(), "signature": base64.b64encode(signature).decode()}


def make_claims_authority(fleet: LocalFleet) -> None:
    from fleetctl.keys.store import save_key
    from fleetctl.model.certificate import Profile
    from fleetctl.pki.authority import CLAIM_CA, create_root, pem
    from fleetctl.platforms.local.authorities import record_authority
    from fleetctl.platforms.local.issuing import row_of
    from fleetctl.platforms.local.layout import Layout
    from fleetctl.platforms.local.lists import write_lists

    layout, key, now = Layout(fleet.context.folder), generate_key("p256"), fleet.clock()
    made = create_root(CLAIM_CA, "acme", key, now, 0)
    save_key(layout.key(CLAIM_CA), key)
    layout.claim_ca.write_bytes(pem(made.certificate))
    fleet.registry.add_certificate(row_of(made.certificate, CLAIM_CA, Profile.AUTHORITY))
    record_authority(fleet.registry, made, "claims")
    write_lists(fleet.registry, layout, CLAIM_CA, now)


def free_ports() -> int:
    """The first of five in a row: devices, fleet, artifacts, claims, EST."""
    for _ in range(1000):
        first = 33000 + secrets.randbelow(5000) * PORTS
        with ExitStack() as held:
            try:
                for port in range(first, first + PORTS):
                    held.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            return first
    raise AssertionError("no free ports")
