"""OpenSSL's own command judges what the authorities make."""

import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from fleetctl.model.certificate import Reason
from fleetctl.model.device import DevicePath
from fleetctl.pki import crl
from fleetctl.pki.authority import (
    DEVICE_ISSUING,
    DEVICE_ROOT,
    FLEET_CA,
    Authority,
    Request,
    create_issuing,
    create_root,
    device_request,
    issue,
    operator_request,
    pem,
    server_request,
)

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")


def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@dataclass
class House:
    folder: Path
    root: Authority
    issuing: Authority
    people: Authority

    def issue(self, authority: Authority, request: Request) -> Path:
        path = self.folder / f"{request.common_name.replace(':', '-')}.pem"
        path.write_bytes(pem(issue(authority, request, key().public_key(), time.time()), *authority.issuers))
        return path

    def write_lists(self, *revoked: int, number: int = 1) -> Path:
        date = int(crl.first_date(time.time())) + number
        lines = [crl.Revoked(serial, time.time(), Reason.KEY_COMPROMISE) for serial in revoked]
        path = self.folder / "crl.pem"
        lists = [crl.build(self.root, [], number, date), crl.build(self.issuing, lines, number, date)]
        path.write_bytes(b"".join([*lists, crl.build(self.people, lines, number, date)]))
        return path


@pytest.fixture
def house(tmp_path: Path) -> House:
    now = time.time()
    root = create_root(DEVICE_ROOT, "acme", key(), now, 1)
    made = House(
        tmp_path,
        root,
        create_issuing(root, DEVICE_ISSUING, "acme", key(), now),
        create_root(FLEET_CA, "acme", key(), now, 0),
    )
    (tmp_path / "root.pem").write_bytes(pem(root.certificate))
    (tmp_path / "people.pem").write_bytes(pem(made.people.certificate))
    return made


def verify(ca: Path, cert: Path, purpose: str, crl_file: Path | None = None) -> tuple[bool, str]:
    command = ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-CAfile", str(ca), "-untrusted", str(cert)]
    if crl_file is not None:
        command += ["-crl_check_all", "-CRLfile", str(crl_file)]
    done = subprocess.run([*command, str(cert)], capture_output=True, text=True, check=False)
    return done.returncode == 0, done.stdout + done.stderr


def openssl(*words: str) -> str:
    return subprocess.run(["openssl", *words], capture_output=True, text=True, check=True).stdout


DEVICE = device_request(DevicePath("acme", "oslo", "pump", "p-1"))


def test_a_device_passes_strictly_with_a_list_of_every_authority(house: House) -> None:
    cert = house.issue(house.issuing, DEVICE)
    assert verify(house.folder / "root.pem", cert, "sslclient", house.write_lists()) == (True, f"{cert}: OK\n")


def test_an_operator_passes_as_a_client_and_not_as_a_server(house: House) -> None:
    cert = house.issue(house.people, operator_request("acme", "op:alice"))
    assert verify(house.folder / "people.pem", cert, "sslclient", house.write_lists())[0]
    assert not verify(house.folder / "people.pem", cert, "sslserver")[0]


def test_a_server_passes_as_a_server_and_not_as_a_client(house: House) -> None:
    cert = house.issue(house.people, server_request(["broker.example.org", "127.0.0.1"]))
    assert verify(house.folder / "people.pem", cert, "sslserver", house.write_lists())[0]
    assert not verify(house.folder / "people.pem", cert, "sslclient")[0]
    for name, matches in (("broker.example.org", True), ("other.example.org", False)):
        words = openssl("x509", "-in", str(cert), "-noout", "-checkhost", name)
        assert ("does match" in words) is matches
    assert "does match" in openssl("x509", "-in", str(cert), "-noout", "-checkip", "127.0.0.1")


def test_people_and_devices_do_not_pass_for_each_other(house: House) -> None:
    device = house.issue(house.issuing, DEVICE)
    operator = house.issue(house.people, operator_request("acme", "op:alice"))
    assert not verify(house.folder / "people.pem", device, "sslclient")[0]
    assert not verify(house.folder / "root.pem", operator, "sslclient")[0]


def test_a_revoked_device_fails_and_its_neighbour_does_not(house: House) -> None:
    neighbour = house.issue(house.issuing, device_request(DevicePath("acme", "oslo", "pump", "p-2")))
    cert = house.issue(house.issuing, DEVICE)
    serial = int(openssl("x509", "-in", str(cert), "-noout", "-serial").strip().removeprefix("serial="), 16)
    lists = house.write_lists(serial)
    ok, words = verify(house.folder / "root.pem", cert, "sslclient", lists)
    assert not ok
    assert "certificate revoked" in words
    assert verify(house.folder / "root.pem", neighbour, "sslclient", lists)[0]


def test_a_leaf_cannot_issue(house: House) -> None:
    secret = key()
    leaf = issue(house.issuing, DEVICE, secret.public_key(), time.time())
    rogue = Authority("p-1", secret, (leaf, *house.issuing.chain))
    cert = house.folder / "rogue.pem"
    forged = issue(rogue, device_request(DevicePath("acme", "oslo", "pump", "p-9")), key().public_key(), time.time())
    cert.write_bytes(pem(forged, leaf, house.issuing.certificate))
    ok, words = verify(house.folder / "root.pem", cert, "sslclient")
    assert not ok
    assert "invalid CA certificate" in words or "unsuitable" in words


def test_openssl_reads_the_number_of_a_list(house: House) -> None:
    for number in (1, 2, 3):
        text = openssl("crl", "-in", str(house.write_lists(number=number)), "-noout", "-crlnumber")
        found = re.search(r"crlNumber=0x0*([0-9A-F]+)", text)
        assert found is not None
        assert int(found[1], 16) == number
