"""Signing what openssl asks for: the key is certified, the rest is decided here."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from fleetctl.config import load_context
from fleetctl.errors import Conflict, Malformed, NotFound, Untrusted, UsageError
from fleetctl.model.device import LifeCycle
from fleetctl.pki.authority import common_names
from fleetctl.pki.csr import WeakKey
from fleetctl.platforms.local.fleet import LocalFleet
from fleetctl.platforms.local.init import create_context
from fleetctl.platforms.local.layout import Layout
from fleetctl.platforms.local.signing import make_request, sign
from fleetctl.wire import bundle
from tests.conftest import Fleetctl

EC = ("-newkey", "ec", "-pkeyopt")


@pytest.fixture
def fleet() -> Iterator[LocalFleet]:
    create_context("prod", "acme", "mqtts://localhost:1", "alice")
    with LocalFleet(load_context("prod")) as opened:
        opened.devices.add("p-1", device_type="pump", location="oslo", labels={})
        yield opened


def request(folder: Path, *words: str, subject: str = "/CN=admin", name: str = "r") -> bytes:
    command = ["openssl", "req", "-new", *words, "-nodes", "-subj", subject, "-keyout", str(folder / f"{name}.key")]
    subprocess.run([*command, "-out", str(folder / f"{name}.csr")], check=True, capture_output=True)
    return (folder / f"{name}.csr").read_bytes()


def verify(fleet: LocalFleet, folder: Path, chain: str) -> str:
    """What openssl says, with the root alone and every list."""
    layout = Layout(fleet.context.folder)
    (folder / "chain.pem").write_text(chain)
    (folder / "root.pem").write_text("-----BEGIN" + layout.device_ca.read_text().rsplit("-----BEGIN", 1)[1])
    words = ["-x509_strict", "-purpose", "sslclient", "-crl_check_all", "-CRLfile", str(layout.device_lists)]
    words += ["-CAfile", str(folder / "root.pem"), "-untrusted", str(folder / "chain.pem"), str(folder / "chain.pem")]
    done = subprocess.run(["openssl", "verify", *words], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    "words",
    [(*EC, "ec_paramgen_curve:P-256"), (*EC, "ec_paramgen_curve:P-384"), ("-newkey", "ed25519"), ("-newkey", "rsa:2048")],
    ids=["p256", "p384", "ed25519", "rsa2048"],
)
def test_a_request_of_openssl_is_signed_and_openssl_verifies_it(
    fleet: LocalFleet, tmp_path: Path, words: tuple[str, ...]
) -> None:
    signed = sign(fleet, request(tmp_path, *words), "p-1")
    leaf = x509.load_pem_x509_certificates(signed.pem.encode())[0]
    assert common_names(leaf) == ["p-1"], "the request called itself admin"
    assert verify(fleet, tmp_path, signed.pem).endswith("OK\n")
    assert sign(fleet, (tmp_path / "r.csr").read_bytes(), "p-1").outcome == "unchanged"
    public = subprocess.run(["openssl", "pkey", "-in", str(tmp_path / "r.key"), "-pubout"], capture_output=True, check=True)
    shown = ["openssl", "x509", "-in", str(tmp_path / "chain.pem"), "-noout", "-pubkey"]
    assert subprocess.run(shown, capture_output=True, check=True).stdout == public.stdout


@pytest.mark.parametrize(
    "words",
    [("-newkey", "rsa:1024"), (*EC, "ec_paramgen_curve:prime192v1"), (*EC, "ec_paramgen_curve:secp256k1")],
    ids=["rsa1024", "p192", "secp256k1"],
)
def test_a_weak_key_is_not_signed(fleet: LocalFleet, tmp_path: Path, words: tuple[str, ...]) -> None:
    with pytest.raises(WeakKey):
        sign(fleet, request(tmp_path, *words), "p-1")
    assert fleet.registry.certificates("p-1") == []


def test_extensions_that_a_request_asks_for_are_not_copied(fleet: LocalFleet, tmp_path: Path) -> None:
    words = ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "subjectAltName=DNS:evil.example"]
    signed = sign(fleet, request(tmp_path, *EC, "ec_paramgen_curve:P-256", *words), "p-1")
    leaf = x509.load_pem_x509_certificates(signed.pem.encode())[0]
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.UniformResourceIdentifier("urn:fleetctl:acme/oslo/pump/p-1")]


def test_nobody_is_guessed_from_what_a_request_calls_itself(fleet: LocalFleet, tmp_path: Path) -> None:
    data = request(tmp_path, *EC, "ec_paramgen_curve:P-256", subject="/CN=p-1")
    with pytest.raises(UsageError, match="proves nothing"):
        sign(fleet, data, None)
    with pytest.raises(NotFound):
        sign(fleet, data, "p-9")
    with pytest.raises(Malformed):
        sign(fleet, data[:200], "p-1")


def test_a_nonce_must_be_in_the_request(fleet: LocalFleet, tmp_path: Path) -> None:
    fresh = make_request("p-1", tmp_path / "p-1", nonce="n-1")
    data = Path(fresh.request).read_bytes()
    for nonce, body in (("n-2", data), ("n-1", request(tmp_path, *EC, "ec_paramgen_curve:P-256"))):
        with pytest.raises(Untrusted, match="nonce"):
            sign(fleet, body, "p-1", nonce=nonce)
    assert sign(fleet, data, "p-1", nonce="n-1").outcome == "issued"


def test_one_key_is_not_signed_for_two(fleet: LocalFleet, tmp_path: Path) -> None:
    fleet.devices.add("p-2", device_type="pump", location="oslo", labels={})
    data = request(tmp_path, *EC, "ec_paramgen_curve:P-256")
    sign(fleet, data, "p-1")
    for other in ("p-2", "op:bob"):
        with pytest.raises(Conflict, match="`p-1` already"):
            sign(fleet, data, other)


def test_a_request_for_an_operator_is_signed_by_the_authority_of_people(fleet: LocalFleet, tmp_path: Path) -> None:
    signed = sign(fleet, request(tmp_path, *EC, "ec_paramgen_curve:P-256"), "op:bob")
    assert (signed.subject, signed.authority) == ("op:bob", "fleet-ca")


def test_a_device_that_was_revoked_is_claimed_when_it_is_given_another(fleet: LocalFleet, tmp_path: Path) -> None:
    fleet.registry.move_device("p-1", LifeCycle.REVOKED, event="revoked", at="2026-01-01T00:00:00.000Z")
    sign(fleet, request(tmp_path, *EC, "ec_paramgen_curve:P-256"), "p-1")
    assert fleet.registry.device("p-1").state is LifeCycle.CLAIMED


def test_key_and_request_are_made_where_they_stay_and_signed_from_the_shell(
    fleet: LocalFleet, fleetctl: Fleetctl, tmp_path: Path
) -> None:
    made = fleetctl("certs", "csr", "p-1", "--bundle", str(tmp_path / "p-1"), "-o", "json").json()
    assert sorted(made) == ["key", "request", "spki", "subject"]
    out = tmp_path / "p-1" / bundle.CERTIFICATE
    done = fleetctl("certs", "sign", made["request"], "--for", "p-1", "-f", str(out), "-o", "json").json()
    assert sorted(done) == ["authority", "notAfter", "outcome", "pem", "serial", "spki", "subject"]
    assert out.read_text() == done["pem"]
    assert done["spki"] == made["spki"]
    piped = fleetctl("certs", "sign", "-", "--for", "p-1", "-o", "json", stdin=Path(made["request"]).read_text()).json()
    assert piped["outcome"] == "unchanged"


def test_a_bundle_without_a_key_is_made_for_a_device_that_has_one(fleet: LocalFleet, fleetctl: Fleetctl, tmp_path: Path) -> None:
    request(tmp_path, *EC, "ec_paramgen_curve:P-256")
    words = ["p-1", "--csr", str(tmp_path / "r.csr"), "--bundle", str(tmp_path / "p-1")]
    fleetctl("certs", "issue", *words, "-o", "json").json()
    assert sorted(each.name for each in (tmp_path / "p-1").iterdir()) == sorted(set(bundle.FILES) - {bundle.KEY})
