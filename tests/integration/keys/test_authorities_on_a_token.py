"""Authorities that follow the first: their keys are made on the token too, which `pkcs11-tool` sees, and OpenSSL verifies."""

import os
import re
import subprocess
from pathlib import Path

from tests.conftest import Fleetctl
from tests.integration.keys.conftest import PIN, Token

LATER = ("prod-claim-ca", "prod-device-issuing-2", "prod-people-2")


def test_a_rotated_authority_signs_from_the_token(fleetctl: Fleetctl, token: Token, tmp_path: Path) -> None:
    def told(*words: str) -> None:
        ran = fleetctl(*words, "-o", "json", **token.environment)
        assert ran.status == 0, ran.err

    told("init", "prod", "--tenant", "acme", "--keystore", token.uri())
    before = set(labels(token))
    for words in (("init", "claims"), ("rotate", "devices", "--kty", "rsa3072"), ("rotate", "people")):
        told("certs", "ca", *words)
    found = labels(token)
    assert {label for label in found if label not in before} == set(LATER)
    assert all("never extractable" in found[label] for label in LATER)

    device = tmp_path / "p-1"
    told("provision", "add", "p-1", "--type", "pump", "--location", "oslo", "--bundle", str(device))
    told("certs", "ca", "export", "devices", "--root", "--file", str(device / "root.pem"))
    assert verify(device) == "device.pem: OK\n"
    told("certs", "revoke", "p-1")
    assert "certificate revoked" in verify(device)

    secrets = [path for path in home().rglob("*") if path.is_file() and b"PRIVATE KEY" in path.read_bytes()]
    assert {path.name for path in secrets} == {"broker.key", "operator.key"}
    assert not [path for path in home().rglob("*") if path.is_file() and PIN.encode() in path.read_bytes()]


def home() -> Path:
    return Path(os.environ["FLEETCTL_HOME"])


def labels(token: Token) -> dict[str, str]:
    """The private keys on it: what `pkcs11-tool` says of each."""
    private = [
        each for each in re.split(r"(?=Private Key Object|Public Key Object)", token.objects()) if each.startswith("Private")
    ]
    return {found[1]: each for each in private if (found := re.search(r"label: +(\S+)", each))}


def verify(device: Path) -> str:
    lists = ["-crl_check_all", "-CRLfile", str(home() / "prod" / "pki" / "device.crl.pem")]
    words = ["openssl", "verify", "-x509_strict", *lists, "-CAfile", "root.pem", "-untrusted", "device.pem", "device.pem"]
    done = subprocess.run(words, cwd=device, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr
