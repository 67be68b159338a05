"""OpenSSL and GnuTLS agree about what authorities of every kind of key issue, whom they refuse, and after a rotation."""

import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fleetctl.errors import ConfigError
from fleetctl.keys.store import KeyType, generate_key
from fleetctl.model.certificate import Reason
from fleetctl.model.device import DevicePath
from fleetctl.pki import crl
from fleetctl.pki.authority import (
    Authority,
    Request,
    claim_request,
    create_issuing,
    create_root,
    device_request,
    issue,
    pem,
    serial_of,
    server_request,
)
from fleetctl.pki.extensions import permitted

pytestmark = pytest.mark.skipif(
    not (shutil.which("certtool") and shutil.which("openssl")), reason="certtool or openssl is not installed"
)
KINDS: tuple[KeyType, ...] = ("p256", "p384", "ed25519", "rsa3072")
PURPOSES = {"sslclient": "1.3.6.1.5.5.7.3.2", "sslserver": "1.3.6.1.5.5.7.3.1"}
PUMP = device_request(DevicePath("acme", "oslo", "pump", "p-1"))

Judge = Callable[..., tuple[bool, bool]]


@pytest.fixture
def judge(tmp_path: Path) -> Judge:
    """What OpenSSL and GnuTLS make of a leaf below an authority, with the list of every authority in the chain."""

    def ask(authority: Authority, request: Request, purpose: str = "sslclient", *, revoked: bool = False) -> tuple[bool, bool]:
        now = time.time()
        leaf = issue(authority, request, generate_key("p256").public_key(), now)
        lines = [crl.Revoked(leaf.serial_number, now, Reason.KEY_COMPROMISE)] if revoked else []
        date = int(crl.first_date(now))
        lists = [crl.build(authority, lines, 1, date), *(crl.build(each, [], 1, date) for each in ROOTS.get(authority.name, ()))]
        (tmp_path / "leaf.pem").write_bytes(pem(leaf, *authority.issuers))
        (tmp_path / "root.pem").write_bytes(pem(authority.chain[-1]))
        (tmp_path / "crl.pem").write_bytes(b"".join(lists))
        return openssl(tmp_path, purpose), certtool(tmp_path, purpose)

    return ask


ROOTS: dict[str, tuple[Authority, ...]] = {}


def openssl(folder: Path, purpose: str) -> bool:
    words = ["-x509_strict", "-purpose", purpose, "-crl_check_all", "-CRLfile", "crl.pem", "-CAfile", "root.pem"]
    command = ["openssl", "verify", *words, "-untrusted", "leaf.pem", "leaf.pem"]
    return subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode == 0


def certtool(folder: Path, purpose: str) -> bool:
    words = ["--verify-purpose", PURPOSES[purpose], "--load-ca-certificate", "root.pem", "--load-crl", "crl.pem"]
    command = ["certtool", "--verify", *words, "--infile", "leaf.pem"]
    return subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode == 0


def house(kind: KeyType, name: str = "device-issuing", permit: tuple[str, ...] = ()) -> Authority:
    now = time.time()
    root = create_root("device-root", "acme", generate_key("p256"), now, 1)
    made = create_issuing(root, name, "acme", generate_key(kind), now, constraints=permitted(permit))
    ROOTS[name] = (root,)
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_both_accept_a_device_and_refuse_it_once_it_is_revoked(judge: Judge, kind: KeyType) -> None:
    issuing = house(kind)
    assert judge(issuing, PUMP) == (True, True)
    assert judge(issuing, PUMP, revoked=True) == (False, False)


@pytest.mark.parametrize("kind", KINDS)
def test_both_accept_a_claim_of_a_self_signed_authority(judge: Judge, kind: KeyType) -> None:
    claims = create_root("claim-ca", "acme", generate_key(kind), time.time(), 0, clients_only=True)
    assert judge(claims, claim_request("acme", "line-1")) == (True, True)
    assert judge(claims, claim_request("acme", "line-1"), revoked=True) == (False, False)


def test_an_authority_of_devices_cannot_vouch_for_a_server(judge: Judge) -> None:
    assert judge(house("p256"), server_request(["broker.example.org"]), "sslserver") == (False, False)


def test_an_authority_that_may_name_one_domain_vouches_for_devices_without_a_dot(judge: Judge) -> None:
    issuing = house("p256", permit=("dns:devices.example", "ip:10.0.0.0/8"))
    assert judge(issuing, PUMP) == (True, True)
    with pytest.raises(ConfigError, match="would be taken for one"):
        issue(issuing, device_request(DevicePath("acme", "oslo", "pump", "p.1")), generate_key().public_key(), time.time())


def test_serials_and_chains_of_two_authorities_below_one_root_stand_side_by_side(judge: Judge) -> None:
    old = house("p256")
    root = ROOTS["device-issuing"][0]
    new = create_issuing(root, "device-issuing-2", "acme", generate_key("p384"), time.time())
    ROOTS["device-issuing-2"] = (root,)
    assert [judge(each, PUMP) for each in (old, new)] == [(True, True), (True, True)]
    assert judge(new, PUMP, revoked=True) == (False, False)
    assert serial_of(old.certificate) != serial_of(new.certificate)
