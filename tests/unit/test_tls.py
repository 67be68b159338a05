"""Contexts and failures, with handshakes through memory: no sockets."""

import datetime as dt
import ipaddress
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fleetctl import tls
from fleetctl.errors import ConfigError, Denied, FleetError, Unavailable, Untrusted

NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)


class Ca:
    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, folder.name)])
        self.pem = self._write("ca", self._builder(self.name, self.key, -DAY, DAY, ca=True))

    def _builder(
        self, name: x509.Name, key: ec.EllipticCurvePrivateKey, begins: dt.timedelta, ends: dt.timedelta, *, ca: bool
    ) -> x509.CertificateBuilder:
        number = x509.random_serial_number()
        builder = x509.CertificateBuilder(self.name, name, key.public_key(), number, NOW + begins, NOW + ends)
        return builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)

    def _write(self, stem: str, builder: x509.CertificateBuilder) -> Path:
        path = self.folder / f"{stem}.pem"
        path.write_bytes(builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        return path

    def issue(
        self, stem: str, *, server: bool = False, begins: dt.timedelta = -DAY, ends: dt.timedelta = DAY
    ) -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        usage = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, stem)])
        builder = self._builder(name, key, begins, ends, ca=False).add_extension(names, critical=False)
        cert = self._write(stem, builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False))
        path = self.folder / f"{stem}.key"
        path.write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        return cert, path

    def crl(self, *revoked: Path) -> Path:
        entries = [
            x509.RevokedCertificateBuilder()
            .serial_number(x509.load_pem_x509_certificate(path.read_bytes()).serial_number)
            .revocation_date(NOW - DAY)
            .build()
            for path in revoked
        ]
        crl = x509.CertificateRevocationListBuilder(self.name, NOW - DAY, NOW + DAY, [], entries).sign(self.key, hashes.SHA256())
        path = self.folder / "crl.pem"
        path.write_bytes(crl.public_bytes(serialization.Encoding.PEM))
        return path


class World(NamedTuple):
    people: Ca
    strangers: Ca
    server: tuple[Path, Path]
    client: tuple[Path, Path]


@pytest.fixture
def world(tmp_path: Path) -> World:
    people, strangers = Ca(tmp_path / "people"), Ca(tmp_path / "strangers")
    return World(people, strangers, people.issue("server", server=True), people.issue("client"))


def failure_of(client: ssl.SSLContext, server: ssl.SSLContext, host: str = "localhost") -> Exception | None:
    """What the client sees of a handshake and the first read after it."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server, server_hostname=host)
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    server_failed = False
    steps: list[Callable[[], object]] = [ours.do_handshake, lambda: ours.read(1)]
    for _ in range(8):
        try:
            steps[0]()
            steps = steps[1:] or [lambda: ours.read(1)]
        except ssl.SSLWantReadError:
            if server_failed:
                return None
        except ssl.SSLError as error:
            return error
        try:
            theirs.do_handshake()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            server_failed = True
    return None


def explained(client: ssl.SSLContext, server: ssl.SSLContext, host: str = "localhost", cert: Path | None = None) -> FleetError:
    failure = failure_of(client, server, host)
    assert failure is not None
    return tls.explain(failure, host, cert=cert)


def test_both_sides_agree_on_tls_13_with_certificates(world: World) -> None:
    server = tls.server_context(*world.server, world.people.pem, world.people.crl())
    assert failure_of(tls.client_context(world.people.pem, *world.client), server) is None
    assert server.minimum_version == ssl.TLSVersion.TLSv1_3
    assert server.num_tickets == 0


def test_a_client_without_a_certificate_is_refused_after_its_handshake(world: World) -> None:
    error = explained(tls.client_context(world.people.pem), tls.server_context(*world.server, world.people.pem))
    assert isinstance(error, Denied)
    assert "wants a client certificate" in error.message


def test_a_revoked_certificate_is_ours_to_replace(world: World) -> None:
    server = tls.server_context(*world.server, world.people.pem, world.people.crl(world.client[0]))
    error = explained(tls.client_context(world.people.pem, *world.client), server, cert=world.client[0])
    assert isinstance(error, Denied)
    assert error.message == f"`localhost` refused our certificate `{world.client[0]}`: it is revoked"


def test_a_certificate_of_strangers_is_refused(world: World) -> None:
    identity = world.strangers.issue("client")
    server = tls.server_context(*world.server, world.people.pem)
    error = explained(tls.client_context(world.people.pem, *identity), server, cert=identity[0])
    assert isinstance(error, Denied)
    assert "authority that is not accepted" in error.message


@pytest.mark.parametrize(
    ("begins", "ends", "words"),
    [
        (-9 * DAY, -3 * DAY, "it has expired, 3 days ago"),
        (-9 * DAY, -dt.timedelta(minutes=90), "it has expired, 1 hour ago"),
        (dt.timedelta(minutes=30), DAY, "it is not valid yet, it begins in "),
    ],
)
def test_the_age_of_our_certificate_is_told(world: World, begins: dt.timedelta, ends: dt.timedelta, words: str) -> None:
    identity = world.people.issue("old", begins=begins, ends=ends)
    server = tls.server_context(*world.server, world.people.pem)
    error = explained(tls.client_context(world.people.pem, *identity), server, cert=identity[0])
    assert isinstance(error, Denied)
    assert words in error.message


def test_a_server_of_strangers_is_not_trusted(world: World) -> None:
    error = explained(tls.client_context(world.strangers.pem), tls.server_context(*world.server, world.people.pem))
    assert isinstance(error, Untrusted)
    assert "was not issued by" in error.message


@pytest.mark.parametrize(("begins", "ends", "word"), [(-9 * DAY, -DAY, "has expired"), (DAY, 9 * DAY, "is not valid yet")])
def test_a_server_out_of_date_is_not_trusted(world: World, begins: dt.timedelta, ends: dt.timedelta, word: str) -> None:
    server = tls.server_context(*world.people.issue("late", server=True, begins=begins, ends=ends), world.people.pem)
    error = explained(tls.client_context(world.people.pem), server)
    assert isinstance(error, Untrusted)
    assert word in error.message


@pytest.mark.parametrize("host", ["broker.example", "127.0.0.9"])
def test_a_server_with_other_names_is_not_trusted(world: World, host: str) -> None:
    error = explained(tls.client_context(world.people.pem), tls.server_context(*world.server, world.people.pem), host)
    assert isinstance(error, Untrusted)
    assert f"not for `{host}`" in error.message


def test_a_client_certificate_is_no_server_certificate(world: World) -> None:
    error = explained(tls.client_context(world.people.pem), tls.server_context(*world.client, world.people.pem))
    assert isinstance(error, Untrusted)
    assert "not meant for servers" in error.message


def test_tls_12_is_not_spoken_unless_asked_for(world: World) -> None:
    old = tls.client_context(world.people.pem, *world.client, minimum=ssl.TLSVersion.TLSv1_2)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    error = explained(old, tls.server_context(*world.server, world.people.pem))
    assert isinstance(error, Unavailable)
    assert "no version of TLS" in error.message
    both = tls.server_context(*world.server, world.people.pem, minimum=ssl.TLSVersion.TLSv1_2)
    assert failure_of(old, both) is None


def test_a_broken_pipe_is_unavailable() -> None:
    assert isinstance(tls.explain(ConnectionResetError(104, "Connection reset by peer"), "localhost"), Unavailable)


@pytest.mark.parametrize(
    ("content", "words"), [(None, "no such file"), (b"", "holds no"), (b"junk", "holds no"), (b"\xff\xfe\0", "holds no")]
)
def test_an_unusable_ca_file_is_named(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=words) as caught:
        tls.client_context(path)
    assert str(path) in caught.value.message


def test_a_folder_is_no_ca_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a directory"):
        tls.client_context(tmp_path)


def test_a_certificate_is_no_revocation_list(world: World) -> None:
    with pytest.raises(ConfigError, match=r"the revocation list .* holds none"):
        tls.server_context(*world.server, world.people.pem, world.people.pem)


def test_a_key_of_another_certificate_is_named(world: World) -> None:
    with pytest.raises(ConfigError, match="does not belong to the certificate") as error:
        tls.client_context(world.people.pem, world.client[0], world.server[1])
    assert "openssl pkey" in error.value.hint


def test_an_encrypted_key_does_not_ask_on_the_terminal(world: World) -> None:
    key = serialization.load_pem_private_key(world.client[1].read_bytes(), None)
    encryption = serialization.BestAvailableEncryption(b"secret")
    world.client[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption))
    with pytest.raises(ConfigError, match="encrypted"):
        tls.client_context(world.people.pem, *world.client)


def test_junk_instead_of_a_key_pair_is_named(world: World, tmp_path: Path) -> None:
    junk = tmp_path / "junk.pem"
    junk.write_text("junk")
    with pytest.raises(ConfigError, match="not a PEM certificate"):
        tls.client_context(world.people.pem, junk, junk)
