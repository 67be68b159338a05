"""Brokers that are down, that are none, that nobody can trust, and ports that are taken: one line, a hint, a status."""

import json
import shutil
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from fleetctl.demo import place
from fleetctl.keys.store import private_pem
from fleetctl.pki.authority import FLEET_CA, issue, operator_request, pem
from fleetctl.platforms.local.init import create_context
from fleetctl.platforms.local.layout import Layout
from tests.e2e.console import Console, files_of
from tests.e2e.running import RunningFleet

DAY = 86400.0


def ports_of(console: Console) -> tuple[int, int, int]:
    """Devices, fleet, artifacts."""
    shown = console.run("context", "show", "-o", "json").json
    device, fleet, artifacts = (urlsplit(shown[key]).port or 0 for key in ("deviceBroker", "broker", "artifacts"))
    return device, fleet, artifacts


@contextmanager
def answering(port: int, answer: Callable[[socket.socket], None]) -> Iterator[None]:
    """Somebody at a port who answers in an own way."""
    with socket.create_server(("127.0.0.1", port)) as server:

        def serve() -> None:
            while True:
                try:
                    peer, _ = server.accept()
                except OSError:
                    return
                with peer:
                    peer.settimeout(5)
                    try:
                        answer(peer)
                    except OSError:
                        continue

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield
        server.shutdown(socket.SHUT_RDWR)
    thread.join(10)


WORDS = [
    ["publish", "pump-1", "commands/ping", "--wait"],
    ["publish", "-t", "acme/x", "hello"],
    ["tail", "--duration", "1s"],
    ["provision", "list", "--refresh"],
    ["twin", "get", "pump-1", "--refresh"],
]


@pytest.mark.parametrize("words", WORDS, ids=lambda words: "-".join(words[:2]))
def test_a_broker_that_is_down_is_unavailable_and_named(unchanged: Console, words: list[str]) -> None:
    _, fleet, _ = ports_of(unchanged)
    error = unchanged.refused(6, f"localhost:{fleet}", *words)
    assert error["code"] == "unavailable"
    assert "fleetctl context show" in error["hint"]


def test_a_rollout_without_a_broker_is_not_even_planned(console: Console, tmp_path: Path) -> None:
    image = tmp_path / "firmware.bin"
    image.write_bytes(b"firmware")
    assert console.run("ota", "publish", image, "--type", "pump", "--version", "2.0.0").status == 0
    before, plan = files_of(console.folder), tmp_path / "plan.json"
    _, fleet, _ = ports_of(console)
    console.refused(6, f"localhost:{fleet}", "ota", "plan", "pump@2.0.0", "pump-1", "-f", plan)
    console.refused(6, f"localhost:{fleet}", "ota", "start", "pump@2.0.0", "pump-1", "--wait")
    assert files_of(console.folder) == before
    assert not plan.exists()


def test_what_waits_for_the_broker_is_said_and_kept(console: Console) -> None:
    said = console.run("twin", "set", "pump-1", "a=1", "-o", "json")
    assert said.error(10, f"localhost:{ports_of(console)[1]}")["code"] == "pending"
    assert json.loads(said.out) == [{"id": "pump-1", "version": 1, "outcome": "queued"}]
    removed = console.run("provision", "remove", "pump-1", "-o", "json").json
    assert (removed[0]["outcome"], removed[0]["cleared"]) == ("removed", False)


def test_a_host_that_does_not_exist_is_named(unchanged: Console, tmp_path: Path) -> None:
    other = Console(tmp_path / "home")
    assert other.run("init", "--tenant", "acme", "--broker", "mqtts://nowhere.invalid:8883").status == 0
    other.refused(6, "nowhere.invalid", "tail", "--duration", "1s")


@pytest.mark.parametrize("engine", ["mosquitto", "builtin"])
def test_a_taken_port_is_named_and_the_broker_leaves_nothing(unchanged: Console, engine: str) -> None:
    for port in ports_of(unchanged)[:2]:
        with socket.create_server(("127.0.0.1", port)):
            error = unchanged.refused(6, str(port), "broker", "run", "--engine", engine)
            assert str(port) in error["hint"]


def test_a_taken_artifact_port_is_named(unchanged: Console) -> None:
    port = ports_of(unchanged)[2]
    with socket.create_server(("127.0.0.1", port)):
        unchanged.refused(6, f"127.0.0.1:{port}", "ota", "serve")


def test_a_second_broker_of_a_context_is_refused(running_fleet: RunningFleet) -> None:
    running_fleet.console.refused(5, "default", "broker", "run")
    assert running_fleet.is_alive("pump-1")


def reads_and_closes(peer: socket.socket) -> None:
    peer.recv(4096)


def says_http(peer: socket.socket) -> None:
    peer.recv(4096)
    peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


@pytest.mark.parametrize("answer", [reads_and_closes, says_http])
def test_what_speaks_no_tls_is_no_broker(unchanged: Console, answer: Callable[[socket.socket], None]) -> None:
    fleet = ports_of(unchanged)[1]
    with answering(fleet, answer):
        unchanged.refused(6, "localhost" if answer is reads_and_closes else f"localhost:{fleet}", "tail", "--duration", "1s")


@pytest.mark.parametrize("garbage", [b"\x00" * 64, b"\xff" * 64, b"HTTP/1.1 200 OK\r\n\r\n", b"\x20\x03\x00\x87\x00", b""])
def test_a_broker_that_talks_garbage_ends_the_command_only(unchanged: Console, garbage: bytes) -> None:
    layout = Layout(unchanged.folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(layout.public("broker.pem"), layout.key("broker"))

    def answer(peer: socket.socket) -> None:
        with context.wrap_socket(peer, server_side=True) as tls:
            tls.recv(4096)
            tls.sendall(garbage)
            time.sleep(0.1)

    fleet = ports_of(unchanged)[1]
    status = 4 if garbage[:1] == b"\x20" else 6
    with answering(fleet, answer):
        unchanged.refused(status, f"localhost:{fleet}" if status == 6 else "", "tail", "--duration", "1s")


def moved(console: Console, port: int, folder: Path) -> Console:
    """The same context on another terminal, whose broker is at `port`."""
    other = Console(folder)
    shutil.copytree(console.home, other.home)
    config = other.home / "config.yaml"
    lines = [
        f"    broker: mqtts://localhost:{port}" if line.strip().startswith("broker:") else line
        for line in config.read_text().splitlines()
    ]
    config.write_text("\n".join(lines) + "\n")
    return other


def test_a_broker_of_another_authority_is_untrusted(running_fleet: RunningFleet, unchanged: Console, tmp_path: Path) -> None:
    stranger = moved(unchanged, running_fleet.port + 1, tmp_path / "home")
    before = files_of(stranger.home)
    for words in WORDS[:3]:
        assert stranger.refused(7, "localhost", *words)["code"] == "untrusted"
    assert files_of(stranger.home) == before


def test_a_broker_with_an_expired_certificate_is_untrusted(tmp_path: Path) -> None:
    old = Console(tmp_path / "home")
    port = place.free_ports()
    long_ago = time.time() - 30 * 365 * DAY
    environ = {"FLEETCTL_HOME": str(old.home)}
    create_context("default", "acme", f"mqtts://localhost:{port}", "me", environ=environ, clock=lambda: long_ago)
    layout = Layout(old.folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(layout.public("broker.pem"), layout.key("broker"))

    def answer(peer: socket.socket) -> None:
        with context.wrap_socket(peer, server_side=True) as tls:
            tls.recv(4096)

    with answering(port + 1, answer):
        error = old.refused(7, "localhost", "tail", "--duration", "1s")
    assert "expired" in error["message"]
    assert "days ago" in error["message"]


def key_of(layout: Layout) -> ec.EllipticCurvePrivateKey:
    key = layout.authority(FLEET_CA).key
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def past(certificate: x509.Certificate, issuer: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    """The same certificate, good until yesterday."""
    yesterday = datetime.now(UTC) - timedelta(days=1)
    builder = x509.CertificateBuilder(
        certificate.issuer, certificate.subject, certificate.public_key(), certificate.serial_number
    )
    builder = builder.not_valid_before(yesterday - timedelta(days=1)).not_valid_after(yesterday)
    for extension in certificate.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    return builder.sign(issuer, hashes.SHA256())


@pytest.mark.parametrize("flaw", ["expired", "revoked", "of another authority"])
def test_our_certificate_is_refused_in_words(running_fleet: RunningFleet, unchanged: Console, flaw: str, tmp_path: Path) -> None:
    console = moved(running_fleet.console, running_fleet.port + 1, tmp_path / "home")
    layout = Layout(console.folder)
    source = Layout(unchanged.folder) if flaw == "of another authority" else Layout(running_fleet.console.folder)
    if flaw == "revoked":
        bundle = tmp_path / "mallory"
        assert running_fleet.console.run("certs", "issue", "op:mallory", "--bundle", bundle).status == 0
        shutil.copy(bundle / "operator.pem", layout.public("operator.pem"))
        shutil.copy(bundle / "operator.key", layout.key("operator"))
        revoked = running_fleet.console.run("certs", "revoke", "op:mallory", "-o", "json").json
        assert revoked[0]["brokerReloaded"]
    else:
        authority, key = source.authority(FLEET_CA), ec.generate_private_key(ec.SECP256R1())
        certificate = issue(authority, operator_request("acme", "op:late"), key.public_key(), time.time())
        layout.public("operator.pem").write_bytes(pem(past(certificate, key_of(source)) if flaw == "expired" else certificate))
        layout.key("operator").write_bytes(private_pem(key))
    for words in WORDS[1:3]:
        error = console.refused(4, str(layout.public("operator.pem")), *words)
        assert error["code"] == "denied"
    if flaw == "expired":
        assert "expired" in error["message"]


def test_a_device_whose_broker_is_another_waits_and_says_why(
    running_fleet: RunningFleet, unchanged: Console, tmp_path: Path
) -> None:
    bundle = tmp_path / "pump-2"
    shutil.copytree(running_fleet.bundle("pump-2"), bundle)
    shutil.copy(unchanged.folder / "pki" / "fleet-ca.pem", bundle / "ca.pem")
    with running_fleet.console.start("agent", "run", bundle, "--state", tmp_path / "state", "-o", "jsonl") as agent:
        assert agent.stdout is not None
        told = [agent.stdout.readline() for _ in range(3)]
        assert "was not issued by" in told[1]
        assert "Traceback" not in "".join(told)
    assert running_fleet.is_alive("pump-2")
