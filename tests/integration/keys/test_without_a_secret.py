"""A fleet whose keys are encrypted, used where there is no passphrase, no keyring and no terminal: an error, and nothing left."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Fleetctl

SECRET = "correct horse battery"
NEW = ("--type", "pump", "--location", "oslo")
SIGNING = (
    ("provision", "add", "p-2", *NEW, "--bundle", "p-2"),
    ("certs", "issue", "p-1", "--bundle", "again"),
    ("certs", "issue", "op:bob", "--bundle", "bob"),
    ("certs", "revoke", "p-1"),
    ("certs", "ca", "rotate", "devices"),
    ("certs", "ca", "init", "claims"),
    ("certs", "crl", "build"),
    ("ota", "publish", "firmware", "--type", "pump", "--version", "2.0.0"),
)


@pytest.fixture(params=["file:", "keyring:fleetctl/prod"])
def place(request: pytest.FixtureRequest, fleetctl: Fleetctl, tmp_path: Path) -> Path:
    """A home with one device in it; the passphrase, or the wrapping key, stayed elsewhere."""
    given = {"FLEETCTL_PASSPHRASE": SECRET, "FLEETCTL_HOME": str(tmp_path / "home")}
    assert fleetctl("init", "prod", "--tenant", "acme", "--keystore", "file:", **given).status == 0
    assert fleetctl("provision", "add", "p-1", *NEW, "--bundle", str(tmp_path / "p-1"), **given).status == 0
    (tmp_path / "home" / "prod" / "keys" / "store").write_text(f"{request.param}\n")
    (tmp_path / "firmware").write_text("#!/bin/sh\n")
    return tmp_path


def bare(place: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """As `env -i HOME=… PATH=… fleetctl …` runs it, from a script."""
    environment = {"HOME": str(place), "PATH": os.environ["PATH"], "FLEETCTL_HOME": str(place / "home")}
    command = [sys.executable, "-m", "fleetctl", *words, "-o", "json"]
    return subprocess.run(
        command, cwd=place, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60
    )


def plain_keys(place: Path) -> set[str]:
    files = [path for path in place.rglob("*") if path.is_file()]
    return {str(path.relative_to(place)) for path in files if b"BEGIN PRIVATE KEY" in path.read_bytes()}


def rows(place: Path) -> list[str]:
    listed = [bare(place, *words) for words in (("provision", "list"), ("certs", "list"), ("certs", "ca", "show"))]
    assert [each.returncode for each in listed] == [0, 0, 0], listed
    return [each.stdout for each in listed]


def test_what_signs_says_what_it_lacks_and_leaves_nothing_and_what_reads_works(place: Path) -> None:
    keys, before, seen = plain_keys(place), rows(place), {path.name for path in place.iterdir()}
    assert keys == {"p-1/device.key", *(f"home/prod/keys/{name}.key" for name in ("broker", "operator"))}
    for words in SIGNING:
        ran = bare(place, *words)
        error = json.loads(ran.stderr.splitlines()[-1])["error"]
        assert (ran.returncode, ran.stdout, error["code"]) == (2, "", "config"), (words, ran)
        assert "passphrase" in error["message"] or "keyring" in error["message"], words
        assert error["hint"], words
        assert "Traceback" not in ran.stderr
        assert plain_keys(place) == keys, words
        assert {path.name for path in place.iterdir()} == seen, words
    assert rows(place) == before
