"""Making a context: everything that a fleet needs, private, whole or not at all."""

import os
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from fleetctl import config
from fleetctl.errors import ConfigError, Conflict, Denied, FleetError, NotFound, UsageError
from fleetctl.keys.store import load_key, load_public_key
from fleetctl.keys.trust import UnverifiedTrust
from fleetctl.platforms.local.fleet import LocalFleet
from fleetctl.platforms.local.init import adopt_context, create_context
from fleetctl.platforms.local.layout import Layout
from fleetctl.platforms.protocol import Missing
from fleetctl.registry import Registry
from fleetctl.tls import client_context, server_context

KEYS = {"device-root", "device-issuing", "fleet-ca", "operator", "broker", "root", "release", "rollout"}


def folder() -> Path:
    return config.home().data


def remains() -> list[str]:
    """What an attempt has left behind, besides locks."""
    if not folder().exists():
        return []
    return sorted(each.name for each in folder().iterdir() if not each.name.endswith(".lock"))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_context_has_all_that_a_fleet_needs() -> None:
    made = create_context("prod", "acme", "mqtts://broker.example.org:9000", "alice")

    context = config.load_context()
    assert (made.name, made.current, made.operator, made.folder) == ("prod", True, "op:alice", str(context.folder))
    assert context.device_broker == made.device_broker == "mqtts://broker.example.org:9000"
    assert context.broker == made.broker == "mqtts://broker.example.org:9001"
    assert context.artifacts == made.artifacts == "https://broker.example.org:9002"
    assert {each.stem for each in context.keys_folder.iterdir()} == KEYS
    with Registry.open(context.registry) as registry:
        assert registry.tenant == "acme"


def test_nothing_secret_can_be_read_by_others() -> None:
    create_context("prod", "acme")
    context = config.load_context()
    assert {mode(each) for each in context.keys_folder.iterdir()} == {0o600}
    assert {mode(each) for each in (context.folder, context.keys_folder, context.pki_folder)} == {0o700}
    assert mode(context.registry) == 0o600
    assert mode(config.home().config) == 0o600


def test_a_loose_umask_opens_nothing() -> None:
    before = os.umask(0)
    try:
        create_context("prod", "acme")
    finally:
        os.umask(before)
    context = config.load_context()
    assert {mode(each) for each in context.keys_folder.iterdir()} == {0o600}
    assert mode(context.folder) == mode(context.keys_folder) == 0o700


def test_the_broker_certificate_holds_every_name_it_is_dialled_by() -> None:
    create_context("prod", "acme", "mqtts://broker.example.org:9000", artifacts="https://files.example.org:443")
    pem = (config.load_context().pki_folder / "broker.pem").read_bytes()
    names = x509.load_pem_x509_certificate(pem).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["broker.example.org", "localhost", "files.example.org"]
    assert [str(each) for each in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]


def test_an_address_of_the_sixth_version_keeps_its_brackets() -> None:
    made = create_context("prod", "acme", "mqtts://[::1]:9000")
    assert (made.device_broker, made.broker, made.artifacts) == ("mqtts://[::1]:9000", "mqtts://[::1]:9001", "https://[::1]:9002")


def test_the_trust_document_is_the_roots_and_names_release_and_rollout_keys() -> None:
    create_context("prod", "acme")
    layout = Layout(config.load_context().folder)
    root = load_public_key(layout.root_key.read_bytes())
    trust = UnverifiedTrust(layout.trust.read_bytes()).verify(root, "acme")
    assert trust.version == 1
    assert [key.role for key in trust.keys] == ["release", "rollout"]
    assert load_key(layout.key("root")).public_key() == root


def test_the_files_serve_tls_as_they_are() -> None:
    create_context("prod", "acme")
    context = config.load_context()
    layout = Layout(context.folder)
    client_context(context.ca, context.cert, context.key)
    broker = layout.public("broker.pem"), layout.key("broker")
    server_context(*broker, layout.device_ca, layout.device_lists)
    server_context(*broker, layout.fleet_ca, layout.fleet_lists)


def test_the_same_again_is_a_conflict_that_changes_nothing() -> None:
    create_context("prod", "acme")
    context = config.load_context()
    before = {each: each.read_bytes() for each in context.folder.rglob("*") if each.is_file()}
    with pytest.raises(Conflict, match="context `prod` exists already") as caught:
        create_context("prod", "acme")
    assert caught.value.hint == "use it: fleetctl context use prod"
    assert before == {each: each.read_bytes() for each in context.folder.rglob("*") if each.is_file()}


def test_keys_that_the_configuration_does_not_name_are_never_written_over() -> None:
    create_context("prod", "acme")
    config.home().config.unlink()
    with pytest.raises(Conflict, match="names no such context"):
        create_context("prod", "acme")
    assert (folder() / "prod" / "keys" / "root.key").exists()


def test_a_second_context_does_not_become_the_current_one() -> None:
    create_context("one", "acme")
    made = create_context("two", "acme", "mqtts://localhost:9883")
    assert not made.current
    assert config.load_context().name == "one"
    assert [each.name for each in config.contexts()] == ["one", "two"]


@pytest.mark.parametrize(
    ("name", "tenant", "broker", "operator"),
    [
        ("a/b", "acme", "mqtts://localhost:8883", None),
        ("..", "acme", "mqtts://localhost:8883", None),
        ("current-context", "acme", "mqtts://localhost:8883", None),
        ("prod", "_fleet", "mqtts://localhost:8883", None),
        ("prod", "a+b", "mqtts://localhost:8883", None),
        ("prod", "", "mqtts://localhost:8883", None),
        ("prod", "acme", "mqtt://localhost:1883", None),
        ("prod", "acme", "mqtts://localhost:65534", None),
        ("prod", "acme", "mqtts://localhost:0", None),
        ("prod", "acme", "http://localhost", None),
        ("prod", "acme", "mqtts://user:secret@localhost", None),
        ("prod", "acme", "mqtts://bad..name:8883", None),
        ("prod", "acme", "mqtts://localhost:8883", "a/b"),
        ("prod", "acme", "mqtts://localhost:8883", "x" * 62),
    ],
)
def test_bad_words_make_nothing(name: str, tenant: str, broker: str, operator: str | None) -> None:
    with pytest.raises((UsageError, ConfigError)) as caught:
        create_context(name, tenant, broker, operator)
    assert caught.value.hint
    assert remains() == []


def test_a_broken_configuration_leaves_no_half_made_context() -> None:
    folder().mkdir(parents=True)
    config.home().config.write_text("contexts: [")
    with pytest.raises(ConfigError):
        create_context("prod", "acme")
    assert remains() == ["config.yaml"]


def test_a_folder_that_cannot_be_made_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FLEETCTL_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(FleetError, match="cannot create"):
        create_context("prod", "acme")


KILLED = """
import os, signal, sys
from fleetctl.platforms.local import init
from fleetctl.platforms.local.founding import make_identities

def die(*words):
    make_identities(*words)
    os.kill(os.getpid(), signal.SIGKILL)

init.make_identities = die
init.create_context("prod", "acme")
"""


def test_a_process_that_is_killed_in_the_middle_leaves_no_context_and_a_repeat_cleans_up() -> None:
    done = subprocess.run([sys.executable, "-c", KILLED], check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    assert not (folder() / "prod").exists()
    assert not config.home().config.exists()
    assert [mode(folder() / each) for each in remains()] == [0o700]

    create_context("prod", "acme")
    assert remains() == ["config.yaml", "current-context", "prod"]


def test_an_interrupted_init_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(config, "save_context", interrupted)
    with pytest.raises(KeyboardInterrupt):
        create_context("prod", "acme")
    assert remains() == []


def test_two_at_once_make_one_context() -> None:
    script = textwrap.dedent("""
        from fleetctl.errors import Conflict
        from fleetctl.platforms.local.init import create_context
        try:
            create_context("prod", "acme")
        except Conflict:
            raise SystemExit(5)
    """)
    running = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(2)]
    assert sorted(each.wait(60) for each in running) == [0, 5]
    assert remains() == ["config.yaml", "current-context", "prod"]


class Theirs:
    """The PKI of somebody else, RSA as most are."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = rsa.generate_private_key(65537, 2048)
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Their CA")])
        self.ca = self._write("ca.pem", self._certificate(self.name, self.key.public_key(), ca=True))

    def issue(self, name: str = "svc", days: int = 1) -> tuple[Path, Path]:
        key = rsa.generate_private_key(65537, 2048)
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        cert = self._write(f"{name}.pem", self._certificate(subject, key.public_key(), days=days))
        path = self.folder / f"{name}.key"
        path.write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        path.chmod(0o600)
        return cert, path

    def _certificate(
        self, subject: x509.Name, key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey, *, ca: bool = False, days: int = 1
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        begin, end = now - timedelta(days=2), now + timedelta(days=days)
        builder = x509.CertificateBuilder(self.name, subject, key, x509.random_serial_number(), begin, end)
        return builder.add_extension(x509.BasicConstraints(ca, None), critical=True).sign(self.key, hashes.SHA256())

    def _write(self, name: str, certificate: x509.Certificate) -> Path:
        path = self.folder / name
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return path


@pytest.fixture
def theirs(tmp_path: Path) -> Theirs:
    return Theirs(tmp_path)


URL = "mqtts://broker.example.org:8883"


def test_what_exists_is_adopted_with_signing_keys_of_our_own(theirs: Theirs) -> None:
    cert, key = theirs.issue()
    made = adopt_context("plant", "acme", URL, theirs.ca, cert=cert, key=key)
    context = config.load_context("plant")
    assert (made.certificates, made.operator, made.artifacts) == ("external", "svc", None)
    assert (context.ca, context.cert, context.key) == (theirs.ca, cert, key)
    assert context.broker == context.device_broker == URL
    assert {each.stem for each in context.keys_folder.iterdir()} == {"root", "release", "rollout"}
    assert UnverifiedTrust(Layout(context.folder).trust.read_bytes()).verify(
        load_public_key(Layout(context.folder).root_key.read_bytes()), "acme"
    )
    with LocalFleet(context) as fleet, pytest.raises(Missing, match="does not own identities"):
        _ = fleet.certificates


def test_a_user_name_keeps_its_password_where_it_is(theirs: Theirs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MQTT_PASSWORD", "hunter2")
    made = adopt_context("plant", "acme", URL, theirs.ca, username="svc", password_ref="env:MQTT_PASSWORD")
    assert made.operator == "svc"
    assert all(b"hunter2" not in each.read_bytes() for each in folder().rglob("*") if each.is_file())


def test_a_password_file_is_found_from_everywhere(theirs: Theirs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(theirs.folder)
    adopt_context("plant", "acme", URL, Path("ca.pem"), username="svc", password_ref="file:password")
    context = config.load_context("plant")
    assert (context.password_ref, context.ca) == (f"file:{theirs.folder}/password", theirs.ca)


def test_adopting_again_is_a_conflict(theirs: Theirs) -> None:
    adopt_context("plant", "acme", URL, theirs.ca)
    with pytest.raises(Conflict):
        adopt_context("plant", "acme", URL, theirs.ca)


def test_files_that_are_not_what_they_should_be_make_nothing(theirs: Theirs) -> None:
    cert, key = theirs.issue()
    _, other = theirs.issue("other")
    old, old_key = theirs.issue("old", days=-1)
    garbage = theirs.folder / "garbage.pem"
    garbage.write_text("hello")
    for ca, ours, secret, error, words in (
        (theirs.folder / "none.pem", None, None, NotFound, "none.pem"),
        (garbage, None, None, ConfigError, "holds no PEM certificate"),
        (cert, None, None, ConfigError, "holds no certificate of an authority"),
        (theirs.ca, cert, other, ConfigError, "does not belong to the certificate"),
        (theirs.ca, old, old_key, ConfigError, "is good from"),
        (theirs.ca, cert, garbage, Denied, "can be used by others"),
        (theirs.ca, garbage, key, ConfigError, "holds no PEM certificate"),
        (theirs.ca, cert, theirs.folder / "none.key", NotFound, "none.key"),
    ):
        with pytest.raises(error, match=words):
            adopt_context("plant", "acme", URL, ca, cert=ours, key=secret)
    assert remains() == []


def test_words_that_do_not_go_together_make_nothing(theirs: Theirs) -> None:
    cert, key = theirs.issue()
    wrong: list[dict[str, object]] = [
        {"cert": cert},
        {"key": key},
        {"username": "svc"},
        {"password_ref": "env:X"},
        {"cert": cert, "key": key, "username": "svc", "password_ref": "env:X"},
        {"username": "svc", "password_ref": "hunter2"},
    ]
    for words in wrong:
        with pytest.raises((UsageError, ConfigError)) as caught:
            adopt_context("plant", "acme", URL, theirs.ca, **words)  # type: ignore[arg-type]
        assert "hunter2" not in f"{caught.value.message} {caught.value.hint}"
    with pytest.raises(UsageError, match="not encrypted"):
        adopt_context("plant", "acme", "mqtt://broker.example.org", theirs.ca)
    assert remains() == []


def test_init_takes_no_longer_than_a_person_waits() -> None:
    start = time.monotonic()
    create_context("prod", "acme")
    assert time.monotonic() - start < 5


def test_a_broken_place_for_folders_is_no_defect(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    create_context("prod", "acme")
    moved = tmp_path / "moved"
    shutil.move(folder(), moved)
    monkeypatch.setenv("FLEETCTL_HOME", str(moved))
    assert config.load_context("prod").ca == moved / "prod" / "pki" / "fleet-ca.pem"
