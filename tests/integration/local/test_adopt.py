"""Adopting a broker and a PKI that exist already: their files are checked, used where they are, and never copied."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from fleetctl import config
from fleetctl.errors import ConfigError, Conflict, Denied, NotFound, UsageError
from fleetctl.keys.store import load_public_key
from fleetctl.keys.trust import UnverifiedTrust
from fleetctl.platforms.local.fleet import LocalFleet
from fleetctl.platforms.local.init import adopt_context
from fleetctl.platforms.local.layout import Layout
from fleetctl.platforms.protocol import Missing


def folder() -> Path:
    return config.home().data


def remains() -> list[str]:
    """What an attempt has left behind, besides locks."""
    return sorted(each.name for each in folder().glob("*") if not each.name.endswith(".lock"))


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


def test_the_record_says_what_is_relied_on_and_a_password_is_never_repeated(theirs: Theirs) -> None:
    made = adopt_context("plant", "acme", URL, None)
    assert (made.authorities, made.login) == ("system", "none")
    made = adopt_context("other", "acme", URL, theirs.ca, username="svc", password_ref="env:SECRET")
    assert (made.authorities, made.login) == (str(theirs.ca), "password")
    with pytest.raises(UsageError, match="`--password-ref`") as caught:
        adopt_context("third", "acme", URL, theirs.ca, username="svc", password_ref="hunter2")
    assert "hunter2" not in caught.value.message + caught.value.hint
