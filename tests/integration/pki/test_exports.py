"""Exports and proofs: what OpenSSL and GnuTLS make of them."""

import os
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetctl.agent.identity import Identity
from fleetctl.config import load_context
from fleetctl.keys.store import load_key
from fleetctl.pki.pkcs12 import ROUNDS
from fleetctl.platforms.local.fleet import LocalFleet
from fleetctl.platforms.local.init import create_context
from fleetctl.platforms.local.layout import Layout
from fleetctl.wire import bundle
from tests.conftest import Fleetctl

PASSPHRASE = "correct-hörse"


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[LocalFleet]:
    create_context("prod", "acme", "mqtts://localhost:1", "alice")
    with LocalFleet(load_context("prod")) as opened:
        opened.devices.add("p-1", device_type="pump", location="oslo", labels={}, bundle=tmp_path / "p-1")
        yield opened


def shell(*words: str, **environment: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False, env={**os.environ, **environment})
    return done.stdout + done.stderr


def test_openssl_and_gnutls_read_the_p12_and_find_nothing_weak_in_it(
    fleet: LocalFleet, fleetctl: Fleetctl, tmp_path: Path
) -> None:
    target, secret = tmp_path / "p-1.p12", tmp_path / "secret"
    secret.write_text(PASSPHRASE + "\n")
    secret.chmod(0o600)
    words = ["p-1", "p12", "-f", str(target), "--bundle", str(tmp_path / "p-1"), "--passphrase-file", str(secret), "-o", "json"]
    done = fleetctl("certs", "export", *words).json()
    assert done == {"subject": "p-1", "format": "p12", "file": str(target), "encrypted": True}
    assert stat.S_IMODE(target.stat().st_mode) == 0o600

    info = shell("openssl", "pkcs12", "-in", str(target), "-passin", "env:P", "-noout", "-info", P=PASSPHRASE)
    assert "PBES2, PBKDF2, AES-256-CBC" in info
    iterations = [line.rsplit(" ", 1)[1].rstrip(",") for line in info.splitlines() if "Iteration" in line and "MAC" in line]
    assert iterations == [str(ROUNDS)]
    assert info.count(f"Iteration {ROUNDS}") == 3
    assert "invalid password" in shell("openssl", "pkcs12", "-in", str(target), "-passin", "env:P", "-noout", P="wrong")
    key = shell("openssl", "pkcs12", "-in", str(target), "-passin", "env:P", "-nocerts", "-nodes", P=PASSPHRASE)
    (tmp_path / "out.key").write_text(key)
    (tmp_path / "out.key").chmod(0o600)
    assert load_key(tmp_path / "out.key").public_key() == load_key(tmp_path / "p-1" / bundle.KEY).public_key()
    if shutil.which("certtool") is None:
        pytest.skip("certtool is not installed")
    read = shell("certtool", "--p12-info", "--inder", "--infile", str(target), "--password", PASSPHRASE)
    assert "AES-256-CBC" in read
    assert "Iteration 2048" not in read


@pytest.mark.parametrize("form", ["pem", "bundle"])
def test_the_other_forms_are_whole_and_private(fleet: LocalFleet, fleetctl: Fleetctl, tmp_path: Path, form: str) -> None:
    target = tmp_path / "exported"
    words = ["export", "p-1", form, "-f", str(target), "--bundle", str(tmp_path / "p-1"), "-o", "json"]
    assert fleetctl("certs", *words).json()["encrypted"] is False
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert fleetctl("certs", *words).status == 5, "a file that exists is not written over"
    if form == "pem":
        assert shell("openssl", "pkey", "-in", str(target), "-noout") == ""
        assert "CN = p-1" in shell("openssl", "x509", "-in", str(target), "-noout", "-subject")
        return
    (tmp_path / "unpacked").mkdir()
    with tarfile.open(target) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    assert Identity.load(tmp_path / "unpacked" / "p-1").config.device.device_id == "p-1"


def test_the_bundle_of_somebody_else_is_not_exported(fleet: LocalFleet, fleetctl: Fleetctl, tmp_path: Path) -> None:
    words = ["pem", "-f", str(tmp_path / "x"), "--bundle"]
    assert fleetctl("certs", "export", "p-2", *words, str(tmp_path / "p-1")).status == 2
    assert fleetctl("certs", "export", "p-1", *words, str(tmp_path)).status == 3
    assert fleetctl("certs", "export", "p-1", "jks", "-f", str(tmp_path / "x"), "--bundle", str(tmp_path / "p-1")).status == 2
    assert not (tmp_path / "x").exists()


def test_a_passphrase_that_protects_nothing_or_is_nowhere_is_refused(
    fleet: LocalFleet, fleetctl: Fleetctl, tmp_path: Path
) -> None:
    words = ["certs", "export", "p-1", "p12", "-f", str(tmp_path / "x.p12"), "--bundle", str(tmp_path / "p-1")]
    assert fleetctl(*words, FLEETCTL_PASSPHRASE="short").status == 2
    assert fleetctl(*words).status == 2
    assert not (tmp_path / "x.p12").exists()


def test_a_proof_agrees_with_openssl_about_good_and_revoked(fleet: LocalFleet, fleetctl: Fleetctl, tmp_path: Path) -> None:
    layout = Layout(fleet.context.folder)
    cert = tmp_path / "p-1" / bundle.CERTIFICATE
    words = ["-purpose", "sslclient", "-crl_check_all", "-CRLfile", str(layout.device_lists), "-CAfile", str(layout.device_ca)]

    def openssl() -> bool:
        return shell("openssl", "verify", *words, str(cert)).endswith("OK\n")

    steps = fleetctl("certs", "verify", str(cert), "-o", "json").json()
    assert all(sorted(each) == ["detail", "number", "outcome", "step"] for each in steps)
    assert ({each["outcome"] for each in steps}, openssl()) == ({"ok"}, True)
    fleet.certificates.revoke("p-1", "keyCompromise")
    refused = fleetctl("certs", "verify", str(cert), "-o", "json")
    assert (refused.status, openssl()) == (11, False)
    assert '"outcome": "failed"' in refused.out


def test_a_server_is_verified_for_its_host(fleet: LocalFleet, fleetctl: Fleetctl) -> None:
    broker = str(Layout(fleet.context.folder).public("broker.pem"))
    assert fleetctl("certs", "verify", broker, "--host", "localhost").status == 0
    assert fleetctl("certs", "verify", broker, "--host", "evil.example").status == 7
    assert fleetctl("certs", "verify", broker, "--purpose", "client").status == 7
    assert fleetctl("certs", "verify", broker, "--purpose", "mail").status == 2


def test_fingerprints_are_those_of_openssl(fleet: LocalFleet, fleetctl: Fleetctl, tmp_path: Path) -> None:
    cert = str(tmp_path / "p-1" / bundle.CERTIFICATE)
    told = shell("openssl", "x509", "-in", cert, "-noout", "-fingerprint", "-sha256").strip().rsplit("=", 1)[1]
    done = fleetctl("certs", "fingerprint", "p-1", "-o", "json").json()
    assert done[0] == {"subject": "CN=p-1", "kind": "certificate", "fingerprint": f"sha256:{told.replace(':', '').lower()}"}
    spki = fleetctl("certs", "fingerprint", cert, "--spki", "-o", "name").out.split()[0]
    assert spki == f"sha256:{fleet.registry.certificates('p-1')[0].spki}"


def test_what_is_looked_at_may_come_from_stdin_and_may_be_anything(fleet: LocalFleet, fleetctl: Fleetctl, tmp_path: Path) -> None:
    text = (tmp_path / "p-1" / bundle.CERTIFICATE).read_text()
    shown = fleetctl("certs", "inspect", "-", "-o", "json", stdin=text).json()
    assert [each["subject"] for each in shown] == ["CN=p-1", "CN=device-issuing,O=acme"]
    assert fleetctl("certs", "inspect", "-", stdin="garbage").status == 1
    assert fleetctl("certs", "inspect", "nobody").status == 3
