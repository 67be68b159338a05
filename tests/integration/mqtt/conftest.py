"""A real mosquitto on free ports, with authorities and certificates made here: what fleetctl.pki does is not what is tested."""

import datetime as dt
import ipaddress
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fleetctl.model.access import device_rules, fleet_rules
from fleetctl.mqtt.broker import BrokerConfig, Listener, find_mosquitto
from fleetctl.mqtt.endpoint import Endpoint
from fleetctl.mqtt.mosquitto import Mosquitto

TENANT = "acme"
DAY = dt.timedelta(days=1)


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


@dataclass
class Authority:
    """A self-signed certificate authority in a folder."""

    folder: Path
    name: str
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    revoked: list[int] = field(default_factory=list)
    number: int = 0

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])
        identifier = x509.SubjectKeyIdentifier.from_public_key(self.key.public_key())
        self.certificate = (
            x509.CertificateBuilder(
                subject, subject, self.key.public_key(), x509.random_serial_number(), now() - DAY, now() + DAY
            )
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(identifier, critical=False)
            .sign(self.key, hashes.SHA256())
        )
        self.ca.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))
        self.write_crl()

    @property
    def ca(self) -> Path:
        return self.folder / "ca.pem"

    @property
    def crl(self) -> Path:
        return self.folder / "crl.pem"

    def issue(
        self,
        name: str,
        *,
        server: bool = False,
        names: tuple[str, ...] = (),
        begins: dt.timedelta = -DAY,
        ends: dt.timedelta = DAY,
    ) -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        usage = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = (
            x509.CertificateBuilder(
                self.certificate.subject,
                x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]),
                key.public_key(),
                x509.random_serial_number(),
                now() + begins,
                now() + ends,
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([_general_name(n) for n in names]), critical=False)
        certificate = builder.sign(self.key, hashes.SHA256())
        stem = self.folder / f"{name.replace(':', '-')}-{certificate.serial_number:x}"
        cert, secret = stem.with_suffix(".pem"), stem.with_suffix(".key")
        cert.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        secret.write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        secret.chmod(0o600)
        return cert, secret

    def revoke(self, cert: Path) -> None:
        self.revoked.append(x509.load_pem_x509_certificate(cert.read_bytes()).serial_number)
        self.write_crl()

    def write_crl(self) -> None:
        self.number += 1
        entries = [
            x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now() - DAY).build() for serial in self.revoked
        ]
        crl = (
            x509.CertificateRevocationListBuilder(
                self.certificate.subject, now() - DAY + dt.timedelta(seconds=self.number), now() + DAY, [], entries
            )
            .add_extension(x509.CRLNumber(self.number), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        self.crl.write_bytes(crl.public_bytes(serialization.Encoding.PEM))


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


@dataclass
class Stand:
    """A broker with the identities to visit it."""

    folder: Path
    devices: Authority
    people: Authority
    config: BrokerConfig
    engine: Mosquitto
    _issued: dict[str, tuple[Path, Path]] = field(default_factory=dict)

    def device(self, name: str) -> Endpoint:
        return self._endpoint(self.devices, self.config.device, name)

    def operator(self, name: str = "op:alice") -> Endpoint:
        return self._endpoint(self.people, self.config.fleet, name)

    def _endpoint(self, authority: Authority, listener: Listener, name: str) -> Endpoint:
        if name not in self._issued:
            self._issued[name] = authority.issue(name)
        cert, key = self._issued[name]
        return Endpoint("localhost", listener.port, ca=self.people.ca, cert=cert, key=key)

    def with_identity(self, identity: tuple[Path, Path]) -> Endpoint:
        return replace(self.operator(), cert=identity[0], key=identity[1])

    def address(self, device: str, channel: str) -> str:
        return f"{TENANT}/hall/sensor/{device}/{channel}"


def make_stand(folder: Path, **server: dt.timedelta) -> Stand:
    devices, people = Authority(folder / "devices", "device issuing"), Authority(folder / "people", "fleet ca")
    cert, key = people.issue("broker", server=True, names=("localhost", "127.0.0.1"), **server)
    device_port, fleet_port = free_ports(2)
    config = BrokerConfig(
        Listener("127.0.0.1", device_port, cert, key, devices.ca, devices.crl, device_rules(TENANT), identity_is_client_id=True),
        Listener("127.0.0.1", fleet_port, cert, key, people.ca, people.crl, fleet_rules(TENANT), identity_is_client_id=False),
        folder / "broker",
    )
    return Stand(folder, devices, people, config, Mosquitto(config))


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """One broker for a module; tests use their own devices and topics."""
    if find_mosquitto() is None:
        pytest.skip("mosquitto is not installed")
    made = make_stand(tmp_path_factory.mktemp("stand"))
    made.engine.start()
    try:
        yield made
    finally:
        made.engine.stop()


@pytest.fixture
def new_stand(tmp_path: Path) -> Callable[..., Stand]:
    """Makes a broker's files and ports; the test starts and stops it."""
    if find_mosquitto() is None:
        pytest.skip("mosquitto is not installed")
    return lambda **server: make_stand(tmp_path, **server)
