"""OpenSSL, GnuTLS, strongSwan and a mosquitto agree about certificates from every door, after a rotation and a revocation."""

import base64
import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from shutil import which
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from fleetctl.errors import Denied, Unavailable
from fleetctl.mqtt.broker import find_mosquitto
from fleetctl.mqtt.endpoint import Endpoint
from fleetctl.mqtt.session import open_session
from fleetctl.pki.authority import pem, read_certificates
from fleetctl.platforms.local.layout import Layout
from tests.conftest import Fleetctl
from tests.integration.enrolment.stand import PATIENCE, Applicant, Stand

ALL = ["openssl", "certtool", "pki", "mosquitto"]
TLS_CLIENT = "1.3.6.1.5.5.7.3.2"


class Doors:
    """By which a device gets its certificate; each leaves `device.pem` (with its chain), `device.key` and `ca.pem`."""

    def __init__(self, own: Stand, fleetctl: Fleetctl) -> None:
        self.own, self.layout = own, Layout(own.fleet.context.folder)
        self._fleetctl = fleetctl

    def told(self, *words: str) -> dict[str, Any]:
        """The one record that a verb prints."""
        ran = self._fleetctl(*words, "-o", "jsonl", **self.own.environ)
        assert ran.status == 0, ran.err
        (line,) = ran.out.splitlines()
        return dict(json.loads(line))

    def all(self, generation: str) -> dict[str, Path]:
        """A device of each, by name."""
        return {
            f"hand{generation}": self.by_hand(f"hand{generation}"),
            f"dev-claim{generation}": self.by_claim(f"claim{generation}"),
            f"est{generation}": self.by_est(f"est{generation}"),
        }

    def by_hand(self, name: str) -> Path:
        folder = self.own.folder / name
        self.told("provision", "add", name, "--type", "pump", "--location", "oslo", "--bundle", str(folder))
        return folder

    def by_claim(self, serial: str) -> Path:
        self.own.batch(serial, [serial])
        applicant = Applicant(self.own.claim(f"for-{serial}", serial, quota=1), serial)
        return applicant.become(applicant.provision(), self.own.folder / serial).folder

    def by_est(self, name: str) -> Path:
        """With `curl` and `openssl`; the authority in between comes from `cacerts`."""
        folder = self.own.folder / name
        folder.mkdir()
        (folder / "ca.pem").write_bytes(self.layout.fleet_ca.read_bytes())
        self.told("provision", "add", name, "--type", "pump", "--location", "oslo")
        token = self.told("provision", "token", "create", name)["token"]
        run(folder, "openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "device.key")
        run(folder, "openssl", "req", "-new", "-key", "device.key", "-subj", f"/CN={name}", "-outform", "DER", "-out", "r.der")
        url, curl = f"{self.own.fleet.context.enrol}/.well-known/est", ["curl", "-sSf", "--cacert", "ca.pem"]
        posted = ["-u", f"{name}:{token}", "-H", "Content-Type: application/pkcs10", "--data-binary", "@r.der"]
        (leaf,) = unpacked(run(folder, *curl, *posted, f"{url}/simpleenroll"))
        issuers = [each for each in unpacked(run(folder, *curl, f"{url}/cacerts")) if each.subject == leaf.issuer]
        (folder / "device.pem").write_bytes(pem(leaf, *issuers))
        return folder

    def judge(self, folder: Path) -> list[str]:
        """Who accepts it: each with the root alone, the lists of every authority, and what the device itself sends."""
        (folder / "root.pem").unlink(missing_ok=True)
        self.told("certs", "ca", "export", "devices", "--root", "--file", str(folder / "root.pem"))
        leaf, *issuers = read_certificates(folder / "device.pem")
        (folder / "leaf.pem").write_bytes(pem(leaf))
        (folder / "issuer.pem").write_bytes(pem(*issuers))
        lists = [folder / f"{index}.crl" for index, _ in enumerate(lists_in(self.layout.device_lists))]
        for path, each in zip(lists, lists_in(self.layout.device_lists), strict=True):
            path.write_bytes(each.public_bytes(Encoding.DER))
        every = str(self.layout.device_lists)
        strict = ["-x509_strict", "-purpose", "sslclient", "-crl_check_all", "-CRLfile", every, "-CAfile", "root.pem"]
        gnutls = ["--verify-purpose", TLS_CLIENT, "--load-ca-certificate", "root.pem", "--load-crl", every]
        swan = ["--cacert", "root.pem", "--cacert", "issuer.pem", *(word for path in lists for word in ("--crl", str(path)))]
        verdicts = (
            accepts(folder, "openssl", "verify", *strict, "-untrusted", "device.pem", "device.pem"),
            accepts(folder, "certtool", "--verify", *gnutls, "--infile", "device.pem"),
            accepts(folder, "pki", "--verify", "--in", "leaf.pem", *swan),
            self.connects(folder),
        )
        return [who for who, verdict in zip(ALL, verdicts, strict=True) if verdict]

    def connects(self, folder: Path) -> bool:
        ca, cert, key = (folder / name for name in ("ca.pem", "device.pem", "device.key"))
        endpoint = Endpoint.parse_url(self.own.fleet.context.device_broker, ca=ca, cert=cert, key=key)
        try:
            open_session(endpoint, "device", timeout=PATIENCE).close()
        except (Denied, Unavailable):
            return False
        return True


def run(folder: Path, *words: str) -> bytes:
    done = subprocess.run(words, cwd=folder, capture_output=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout


def accepts(folder: Path, *words: str) -> bool:
    return subprocess.run(words, cwd=folder, capture_output=True, check=False, timeout=30).returncode == 0


def unpacked(reply: bytes) -> list[x509.Certificate]:
    return pkcs7.load_der_pkcs7_certificates(base64.b64decode(reply))


def lists_in(path: Path) -> list[x509.CertificateRevocationList]:
    end = b"-----END X509 CRL-----\n"
    return [x509.load_pem_x509_crl(each + end) for each in path.read_bytes().split(end) if each.strip()]


@pytest.fixture
def doors(tmp_path: Path, fleetctl: Fleetctl) -> Iterator[Doors]:
    if find_mosquitto() is None or not all(which(program) for program in ("openssl", "certtool", "pki", "curl")):
        pytest.skip("mosquitto, openssl, gnutls-bin, strongswan-pki and curl are needed")
    with ExitStack() as stack:
        own = Stand(tmp_path, stack)
        own.run_broker()
        own.run("serve", "provision", "serve").wait_for("listening", PATIENCE)
        yield Doors(own, fleetctl)


def test_everyone_accepts_what_every_door_issues_before_and_after_a_rotation_and_nobody_what_is_revoked(doors: Doors) -> None:
    old = doors.all("")
    assert {name: doors.judge(folder) for name, folder in old.items()} == dict.fromkeys(old, ALL)

    assert doors.told("certs", "ca", "rotate", "devices")["name"] == "device-issuing-2"
    new = doors.all("-2")
    authorities = {name: doors.own.fleet.registry.certificates(name)[0].authority for name in (*old, *new)}
    assert authorities == {**dict.fromkeys(old, "device-issuing"), **dict.fromkeys(new, "device-issuing-2")}
    both = {**old, **new}
    assert {name: doors.judge(folder) for name, folder in both.items()} == dict.fromkeys(both, ALL)

    for name in both:
        assert doors.told("certs", "revoke", name, "--reason", "superseded")["refusalProven"], name
    assert {name: doors.judge(folder) for name, folder in both.items()} == {name: [] for name in both}
