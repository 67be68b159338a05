"""Exports and proofs: what OpenSSL and GnuTLS make of them."""

import json
import os
import shutil
import stat
import subprocess
import tarfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from fleetctl.agent.identity import Identity
from fleetctl.config import load_context
from fleetctl.keys.store import load_key
from fleetctl.model.device import DevicePath
from fleetctl.pki.authority import (
    DEVICE_ISSUING,
    DEVICE_ROOT,
    Authority,
    create_issuing,
    create_root,
    device_request,
    issue,
    pem,
)
from fleetctl.pki.pkcs12 import ROUNDS
from fleetctl.platforms.local.fleet import LocalFleet
from fleetctl.platforms.local.init import create_context
from fleetctl.platforms.local.layout import Layout
from fleetctl.wire import bundle
from tests.conftest import Fleetctl, Ran

PASSPHRASE = "correct-hörse"


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[LocalFleet]:
    create_context("prod", "acme", "mqtts://localhost:1", "alice")
    with LocalFleet(load_context("prod")) as opened:
        opened.devices.add("p-1", device_type="pump", location="oslo", labels={}, bundle=tmp_path / "p-1")
        yield opened


def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def issued(authority: Authority, path: Path, ended: int | None = None) -> Path:
    """A device certificate and its chain in a file; `ended` is how many seconds ago it expired."""
    request = device_request(DevicePath("acme", "oslo", "pump", "p-1"))
    leaf = issue(authority, request, key().public_key(), time.time())
    if ended is not None:
        end = datetime.fromtimestamp(int(time.time()) - ended, UTC)
        builder = x509.CertificateBuilder(
            leaf.issuer, leaf.subject, leaf.public_key(), leaf.serial_number, end - timedelta(days=1), end, list(leaf.extensions)
        )
        leaf = builder.sign(authority.key, hashes.SHA256())
    path.write_bytes(pem(leaf, *authority.issuers))
    return path


def shell(*words: str, **environment: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False, env={**os.environ, **environment})
    return done.stdout + done.stderr


def test_openssl_and_gnutls_read_the_p12_and_find_nothing_weak_in_it(
    fleet: LocalFleet, fleetctl: Fleetctl, tmp_path: Path
) -> None:
    target, secret = tmp_path / "p-1.p12", tmp_path / "secret"
    secret.write_text(PASSPHRASE + "\n")
    secret.chmod(0o600)
    words = ["p12", str(tmp_path / "p-1"), "--to", str(target), "--passphrase-ref", f"file:{secret}", "-o", "json"]
    done = fleetctl("certs", "export", *words).json()
    assert done == {"subject": "p-1", "format": "p12", "file": str(target), "secret": True, "encrypted": True}
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


def test_a_bundle_is_whole_and_private_in_its_archive(fleet: LocalFleet, fleetctl: Fleetctl, tmp_path: Path) -> None:
    target = tmp_path / "exported.tar"
    words = ["certs", "export", "bundle", str(tmp_path / "p-1"), "--to", str(target), "-o", "json"]
    done = fleetctl(*words).json()
    assert (done["secret"], done["encrypted"], stat.S_IMODE(target.stat().st_mode)) == (True, False, 0o600)
    assert fleetctl(*words).status == 5, "a file that exists is not written over"
    (tmp_path / "unpacked").mkdir()
    with tarfile.open(target) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    assert Identity.load(tmp_path / "unpacked" / "p-1").config.device.device_id == "p-1"


@pytest.mark.parametrize(("name", "count"), [("p-1", 2), ("op:alice", 1)])
def test_the_chain_in_pem_comes_from_the_registry_and_holds_no_key(
    fleet: LocalFleet, fleetctl: Fleetctl, tmp_path: Path, name: str, count: int
) -> None:
    target = tmp_path / "chain.pem"
    done = fleetctl("certs", "export", "pem", name, "--to", str(target), "-o", "json").json()
    assert (done["subject"], done["secret"]) == (name, False)
    text = target.read_text()
    assert (text.count("BEGIN CERTIFICATE"), text.count("PRIVATE")) == (count, 0)
    assert fleetctl("certs", "verify", str(target)).status == 0


def test_what_is_no_bundle_or_no_form_is_not_exported(fleet: LocalFleet, fleetctl: Fleetctl, tmp_path: Path) -> None:
    to = ["--to", str(tmp_path / "x")]
    assert fleetctl("certs", "export", "p12", str(tmp_path), *to).status == 3
    assert fleetctl("certs", "export", "pem", "p-9", *to).status == 3
    assert fleetctl("certs", "export", "jks", str(tmp_path / "p-1"), *to).status == 2
    assert fleetctl("certs", "export", "pem", "p-1", "--passphrase-ref", "env:X", *to).status == 2
    assert not (tmp_path / "x").exists()


def test_a_passphrase_that_protects_nothing_or_is_nowhere_is_refused(
    fleet: LocalFleet, fleetctl: Fleetctl, tmp_path: Path
) -> None:
    words = ["certs", "export", "p12", str(tmp_path / "p-1"), "--to", str(tmp_path / "x.p12")]
    secret = tmp_path / "secret"
    secret.write_text(PASSPHRASE)
    secret.chmod(0o644)
    assert fleetctl(*words, FLEETCTL_PASSPHRASE="short").status == 2
    assert fleetctl(*words, "--passphrase-ref", "env:P", P="short").status == 2
    assert fleetctl(*words, "--passphrase-ref", f"file:{secret}").status == 4, "others may read it"
    assert fleetctl(*words, "--passphrase-ref", PASSPHRASE).status == 2
    assert fleetctl(*words).status == 2
    assert not (tmp_path / "x.p12").exists()


def proof(done: Ran) -> tuple[int, str, str]:
    """Status, and the last step with its outcome."""
    steps = json.loads(done.out)
    assert all(list(each) == ["number", "step", "outcome", "detail"] for each in steps)
    return done.status, steps[-1]["step"], steps[-1]["outcome"]


def test_a_proof_agrees_with_openssl(fleet: LocalFleet, fleetctl: Fleetctl, tmp_path: Path) -> None:
    layout, good = Layout(fleet.context.folder), tmp_path / "p-1" / bundle.CERTIFICATE
    past = issued(layout.authority(DEVICE_ISSUING), tmp_path / "past.pem", ended=3600)
    stranger = create_root(DEVICE_ROOT, "acme", key(), time.time(), 1)
    foreign = issued(create_issuing(stranger, DEVICE_ISSUING, "acme", key(), time.time()), tmp_path / "foreign.pem")

    def both(cert: Path, purpose: str = "client") -> tuple[int, str, str]:
        words = ["-purpose", f"ssl{purpose}", "-crl_check_all", "-CRLfile", str(layout.device_lists)]
        told = shell("openssl", "verify", *words, "-CAfile", str(layout.device_ca), "-untrusted", str(cert), str(cert))
        ours = proof(fleetctl("certs", "verify", str(cert), "--purpose", purpose, "-o", "json"))
        assert told.endswith("OK\n") is (ours[0] == 0), told
        return ours

    assert both(good) == (0, "revocation", "ok")
    assert both(good, "server") == (7, "purpose", "failed")
    assert both(foreign) == (7, "chain", "failed")
    assert both(past) == (11, "validity", "failed")
    fleet.certificates.revoke("p-1", "keyCompromise")
    assert both(good) == (11, "revocation", "failed")


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
    described = "kind subject issuer serial notBefore notAfter keyType signatureAlgorithm san usages isAuthority pathLength"
    assert list(shown[0]) == [*described.split(), "fingerprint", "spki", "number", "entries", "challenge", "problems"]
    assert fleetctl("certs", "inspect", "-", stdin="garbage").status == 1
    assert fleetctl("certs", "inspect", "nobody").status == 3
