"""A mosquitto that somebody else runs, from a folder that was rendered."""

import datetime as dt
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fleetctl.config import Context, load_context
from fleetctl.demo.place import free_ports
from fleetctl.errors import FleetError
from fleetctl.keys.store import private_pem
from fleetctl.mqtt.broker import find_mosquitto
from fleetctl.mqtt.endpoint import Endpoint
from fleetctl.mqtt.session import open_session
from fleetctl.platforms.local.applying import Applied, apply
from fleetctl.platforms.local.fleet import LocalFleet
from fleetctl.platforms.local.init import create_context
from fleetctl.platforms.local.layout import Layout
from fleetctl.platforms.local.reloading import Reload
from fleetctl.platforms.local.rendering import Rendering, render
from fleetctl.wire import bundle

PATIENCE = 10.0


ME = pwd.getpwuid(os.geteuid()).pw_name


SERVICE = "mosquitto" if os.geteuid() == 0 else ME


@pytest.fixture
def context() -> Context:
    create_context("prod", "acme", f"mqtts://localhost:{free_ports()}", "alice")
    return load_context("prod")


@pytest.fixture
def fleet(context: Context) -> Iterator[LocalFleet]:
    with LocalFleet(context) as opened:
        yield opened


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """One that another user may enter, which pytest's are not."""
    made = Path(tempfile.mkdtemp(prefix="fleetctl-broker-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@dataclass
class Outside:
    """A mosquitto that somebody else runs, from a folder that was rendered."""

    context: Context
    folder: Path
    user: str
    process: "subprocess.Popen[bytes]"

    @property
    def pid_file(self) -> Path:
        return self.folder.parent / "mosquitto.pid"

    @property
    def wanted(self) -> Rendering:
        return Rendering(self.folder, user=self.user, with_key=True)

    def apply(self, fleet: LocalFleet, wanted: Rendering | None = None, reload: Reload | None = None) -> Applied:
        return apply(fleet, wanted or self.wanted, reload or Reload(self.pid_file))

    def contents(self) -> dict[str, tuple[bytes, int]]:
        return {
            path.name: (path.read_bytes(), path.stat().st_mode)
            for path in self.folder.iterdir()
            if path.is_file() and path.suffix != ".lock"
        }


@pytest.fixture
def outside(context: Context, open_folder: Path) -> Iterator[Outside]:
    program = find_mosquitto()
    if program is None:
        pytest.skip("mosquitto is not installed")
    folder = open_folder / "fleetctl"
    render(context, folder, Rendering(folder, user=SERVICE, with_key=True))
    with (open_folder / "log").open("wb") as log:
        process = subprocess.Popen([program, "-c", folder / "mosquitto.conf"], stdout=log, stderr=log)
    made = Outside(context, folder, SERVICE, process)
    made.pid_file.write_text(f"{process.pid}\n")
    try:
        _await(Endpoint.parse_url(context.broker, ca=context.ca, cert=context.cert, key=context.key))
        yield made
    finally:
        process.terminate()
        process.wait()


def _await(endpoint: Endpoint) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            with open_session(endpoint, "test"):
                return
        except FleetError:
            assert time.monotonic() < deadline, "it did not start"
            time.sleep(0.05)


@pytest.fixture
def new_device(fleet: LocalFleet, tmp_path: Path) -> Callable[[str], Endpoint]:
    def make(device_id: str) -> Endpoint:
        folder = tmp_path / device_id
        fleet.devices.add(device_id, device_type="pump", location="oslo", labels={}, bundle=folder)
        ca, cert, key = (folder / name for name in (bundle.AUTHORITY, bundle.CERTIFICATE, bundle.KEY))
        return Endpoint.parse_url(fleet.context.device_broker, ca=ca, cert=cert, key=key)

    return make


def renew_broker(fleet: LocalFleet, days: int = 30) -> None:
    """A certificate that begins and ends as told, by the services' authority."""
    layout = Layout(fleet.context.folder)
    authority = layout.authority("fleet-ca")
    key, now = ec.generate_private_key(ec.SECP256R1()), dt.datetime.now(dt.UTC)
    old = x509.load_pem_x509_certificate(layout.public("broker.pem").read_bytes())
    builder = x509.CertificateBuilder(
        authority.certificate.subject,
        old.subject,
        key.public_key(),
        x509.random_serial_number(),
        now - dt.timedelta(days=60),
        now + dt.timedelta(days=days, hours=1),
        list(old.extensions)[:4],
    )
    signing = authority.key
    assert isinstance(signing, ec.EllipticCurvePrivateKey)
    made = builder.sign(signing, hashes.SHA256())
    layout.key("broker").write_bytes(private_pem(key))
    layout.public("broker.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))


class OtherAuthority:
    """Somebody else's."""

    def __init__(self, name: str = "other-ca") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name.from_rfc4514_string(f"CN={name}")
        self._begins = dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)
        self._ends = self._begins + dt.timedelta(days=2)
        self.certificate = self._sign(self._name, self._key, ca=True)
        self.pem = self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def crl(self) -> bytes:
        made = x509.CertificateRevocationListBuilder(self._name, self._begins, self._ends).add_extension(x509.CRLNumber(1), False)
        return made.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def device(self, like: Endpoint, folder: Path, name: str) -> Endpoint:
        key = ec.generate_private_key(ec.SECP256R1())
        cert, secret = folder / f"{name}.pem", folder / f"{name}.key"
        cert.write_bytes(self._sign(x509.Name.from_rfc4514_string(f"CN={name}"), key).public_bytes(serialization.Encoding.PEM))
        secret.write_bytes(private_pem(key))
        return Endpoint(like.host, like.port, ca=like.ca, cert=cert, key=secret)

    def _sign(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, ca: bool = False) -> x509.Certificate:
        serial = x509.random_serial_number()
        return (
            x509.CertificateBuilder(self._name, subject, key.public_key(), serial, self._begins, self._ends)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
