"""EST as others speak it: curl with openssl, and strongSwan's pki."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fleetctl.model.device import LifeCycle
from fleetctl.pki.authority import DEVICE_ROOT, common_names, pem, read_certificates, serial_of
from fleetctl.pki.csr import make_csr, spki_of
from tests.integration.est.stand import Stand, new_key

SCRIPT = Path(__file__).with_name("curl.sh")
SERVICE = """
import sys, time
from fleetctl.config import load_context
from fleetctl.platforms.local.est import EstService
from fleetctl.platforms.local.fleet import LocalFleet
with LocalFleet(load_context("prod")) as fleet:
    service = EstService(fleet, "localhost:0", lambda event: sys.stdout.write(event.event + "\\n") and sys.stdout.flush())
    service.start()
    print(service.url, flush=True)
    time.sleep(60)
"""


def root_of(stand: Stand) -> Path:
    (root,) = [each for each in read_certificates(stand.layout.device_ca) if common_names(each) == [DEVICE_ROOT]]
    path = stand.folder / "device-root.pem"
    path.write_bytes(pem(root))
    return path


def test_curl_and_openssl_enrol_and_renew(stand: Stand) -> None:
    stand.add()
    words = [stand.service.url, str(stand.layout.fleet_ca), str(root_of(stand)), "p-1", stand.token(), "p-2"]
    done = subprocess.run(["bash", SCRIPT, *words], capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.returncode) == ("", 0), done.stderr
    assert stand.state() is LifeCycle.RENEWING, "the key that was made by the server is not in use yet"


class StrongSwan:
    """Its `pki`; keys and requests are its own too."""

    def __init__(self, stand: Stand) -> None:
        self.stand, self.folder = stand, stand.folder
        self.trusted = ["--cacert", str(stand.layout.fleet_ca)]
        for index, each in enumerate(read_certificates(stand.layout.device_ca)):
            path = self.folder / f"authority-{index}.pem"
            path.write_bytes(pem(each))
            self.trusted += ["--cacert", str(path)]

    def pki(self, *words: str | Path) -> bytes:
        done = subprocess.run(["pki", *words], capture_output=True, check=False, timeout=30)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def key(self, name: str) -> Path:
        path = self.folder / f"{name}.key"
        path.write_bytes(self.pki("--gen", "--type", "ecdsa", "--size", "256", "--outform", "pem"))
        return path

    def request(self, key: Path, name: str) -> Path:
        path = key.with_suffix(".der")
        path.write_bytes(self.pki("--req", "--in", key, "--type", "ecdsa", "--dn", f"CN={name}", "--outform", "der"))
        return path

    def est(self, request: Path, *words: str | Path) -> x509.Certificate:
        common = ["--url", self.stand.service.url, "--in", str(request), *self.trusted, "--outform", "pem"]
        return x509.load_pem_x509_certificate(self.pki("--est", *common, *words))


@pytest.fixture
def strongswan(stand: Stand) -> StrongSwan:
    told = subprocess.run(["pki"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False).stdout
    if "openssl" not in told.partition("loaded plugins")[2]:
        pytest.skip("strongSwan's openssl plugin is not installed")
    return StrongSwan(stand)


def test_strongswan_fetches_the_authorities(strongswan: StrongSwan, stand: Stand) -> None:
    out = stand.folder / "ca.pem"
    strongswan.pki("--estca", "--url", stand.service.url, *strongswan.trusted[:2], "--caout", out, "--outform", "pem")
    names = sorted(common_names(each)[0] for path in stand.folder.glob("ca*.pem") for each in read_certificates(path))
    assert names == ["device-issuing", "device-root", "fleet-ca"]


def test_strongswan_enrols_renews_and_rekeys(strongswan: StrongSwan, stand: Stand) -> None:
    stand.add()
    key = strongswan.key("first")
    request = strongswan.request(key, "p-1")
    first = strongswan.est(request, "--userpass", f"p-1:{stand.token()}")
    assert common_names(first) == ["p-1"]
    stand.restart()
    held = stand.folder / "held.pem"
    held.write_bytes(first.public_bytes(Encoding.PEM))
    renewed = strongswan.est(request, "--cert", held, "--key", key)
    assert renewed.public_key() == first.public_key()
    assert stand.state() is LifeCycle.RENEWING
    held.write_bytes(renewed.public_bytes(Encoding.PEM))
    rekeyed = strongswan.est(strongswan.request(strongswan.key("second"), "p-1"), "--cert", held, "--key", key)
    rows = {row.serial: row for row in stand.fleet.registry.certificates("p-1")}
    assert rows[serial_of(renewed)].proven_at is not None
    assert rows[serial_of(rekeyed)].replaces == serial_of(renewed)


@pytest.fixture
def process(stand: Stand) -> "Iterator[subprocess.Popen[str]]":
    """The same service in a process of its own, which may be killed."""
    stand.service.stop()
    with subprocess.Popen([sys.executable, "-c", SERVICE], stdout=subprocess.PIPE, text=True) as started:
        yield started
        started.kill()


def line_of(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_killed_between_issuing_and_replying_it_yields_one_certificate(stand: Stand, process: "subprocess.Popen[str]") -> None:
    """Stopped from the moment at which it says that it has issued: the reply may or may not be on its way."""
    stand.add()
    key, url = new_key(), line_of(process)
    stand.folder.joinpath("r.p10").write_bytes(make_csr(key, "p-1"))
    user = f"p-1:{stand.token()}"
    curl = ["curl", "-sS", "--cacert", str(stand.layout.fleet_ca), "-u", user, "-H", "Content-Type: application/pkcs10"]
    words = [*curl, "--data-binary", f"@{stand.folder / 'r.p10'}", f"{url}/.well-known/est/simpleenroll"]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as client:
        assert line_of(process) == "issued"
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        client.wait(10)
    stand.restart()
    certificate = stand.ask("simpleenroll", make_csr(key, "p-1"), user=user).certificate
    assert stand.serials() == {serial_of(certificate)}
    assert spki_of(certificate.public_key()) == spki_of(key.public_key())
    assert [event.event for event in stand.events] == ["repeated"]


def test_a_token_is_in_no_file_and_in_no_event(stand: Stand) -> None:
    stand.add()
    token = stand.token()
    stand.ask("simpleenroll", make_csr(new_key(), "p-1"), user=f"p-1:{token}")
    stand.ask("simpleenroll", make_csr(new_key(), "p-1"), user=f"p-1:{token}")
    assert token not in repr(stand.events)
    for path in stand.fleet.context.folder.rglob("*"):
        assert not path.is_file() or token.encode() not in path.read_bytes()
