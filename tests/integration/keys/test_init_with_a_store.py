"""`fleetctl init --keystore`: a whole fleet whose keys are encrypted or on a token, driven through the command line."""

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from fleetctl.demo.place import free_ports
from fleetctl.demo.processes import child
from tests.conftest import Fleetctl
from tests.integration.keys.conftest import MODULE, PIN, Token

SECRET = "correct horse battery"
INIT = ("init", "prod", "--tenant", "acme")
SIGNING = ("root", "release", "rollout", "device-root", "device-issuing", "fleet-ca")


def home() -> Path:
    return Path(os.environ["FLEETCTL_HOME"])


@pytest.fixture(autouse=True)
def _no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PASSPHRASE", "PASSPHRASE_FILE", "PIN", "PIN_FILE", "PKCS11_MODULE"):
        monkeypatch.delenv(f"FLEETCTL_{name}", raising=False)


def texts(folder: Path) -> Iterator[tuple[Path, bytes]]:
    return ((path, path.read_bytes()) for path in folder.rglob("*") if path.is_file())


def openssl(folder: Path, *words: str) -> str:
    done = subprocess.run(["openssl", *words], cwd=folder, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Callable[[], None]]:
    """Starts the broker of the context: none of its keys are in a store, so it needs no secret."""
    with ExitStack() as stack:

        def start() -> None:
            words = ["broker", "run", "--engine", "builtin", "-o", "jsonl"]
            stack.enter_context(child("broker", words, {}, tmp_path / "broker.log")).wait_for("listening", 20.0)

        yield start


def lived(fleetctl: Fleetctl, folder: Path, **environment: str) -> None:
    """Everything that signs: a device, a release, a plan, a rollout, a revocation."""
    (folder / "firmware").write_text("#!/bin/sh\n")
    plan = str(folder / "plan.json")
    for words in (
        ["provision", "add", "pump-1", "--type", "pump", "--location", "oslo", "--bundle", str(folder / "pump-1")],
        ["ota", "publish", str(folder / "firmware"), "--type", "pump", "--version", "2.0.0"],
        ["ota", "plan", "pump@2.0.0", "pump-1", "-f", plan],
        ["ota", "verify", "pump@2.0.0"],
        ["ota", "status", "-f", plan],
        ["ota", "abort", "-f", plan],
        ["certs", "revoke", "pump-1", "--reason", "keyCompromise"],
    ):
        ran = fleetctl(*words, "-o", "json", **environment)
        assert ran.status == 0, f"{words}: {ran.err}"


def test_a_fleet_whose_keys_are_on_a_token(fleetctl: Fleetctl, token: Token, tmp_path: Path, broker: Callable[[], None]) -> None:
    made = fleetctl(
        *INIT, "--broker", f"mqtts://localhost:{free_ports()}", "--keystore", token.uri(), "-o", "json", **token.environment
    )
    uri = f"pkcs11:token=fleet%20keys;object=prod-?module-path={MODULE}"
    assert made.json()["keystore"] == uri
    assert made.err == f"keys are on the token: {uri}\n"
    keys, pki = home() / "prod" / "keys", home() / "prod" / "pki"
    assert {each.name for each in keys.iterdir()} == {"store", "broker.key", "operator.key", *(f"{each}.uri" for each in SIGNING)}
    objects = re.split(r"(?=Private Key Object|Public Key Object)", token.objects())
    private = [each for each in objects if each.startswith("Private")]
    assert len(private) == len(SIGNING)
    assert all("never extractable" in each for each in private)

    broker()
    lived(fleetctl, tmp_path, **token.environment)
    words = ["ota", "status", "-f", str(tmp_path / "plan.json"), "-o", "json", "--key"]
    assert fleetctl(*words, token.uri("prod-rollout"), **token.environment).json()["release"] == "pump@2.0.0"
    assert fleetctl(*words, token.uri("prod-release"), **token.environment).error()["code"] == "untrusted"

    (root, issuing) = (f"-----BEGIN{each}" for each in reversed((pki / "device-ca.pem").read_text().split("-----BEGIN")[1:]))
    (tmp_path / "root.pem").write_text(root)
    (tmp_path / "issuing.pem").write_text(issuing)
    words = ["verify", "-x509_strict", "-CAfile", "root.pem", "-untrusted", "issuing.pem", "pump-1/device.pem"]
    lists = ["-crl_check_all", "-CRLfile", str(pki / "device.crl.pem")]
    assert openssl(tmp_path, *words) == "pump-1/device.pem: OK\n"
    assert "certificate revoked" in openssl(tmp_path, *words[:2], *lists, *words[2:])
    assert openssl(pki, "verify", "-x509_strict", "-crl_check_all", "-CRLfile", "fleet.crl.pem", "-CAfile", "fleet-ca.pem",
                   "operator.pem") == "operator.pem: OK\n"  # fmt: skip

    assert [path for path, data in texts(home()) if PIN.encode() in data] == []
    assert {path.name for path, data in texts(home()) if b"PRIVATE KEY" in data} == {"broker.key", "operator.key"}


def test_what_goes_wrong_with_a_token_leaves_nothing(fleetctl: Fleetctl, token: Token, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.touch(0o600)
    wrong.write_text("99999999\n")
    words = (*INIT, "--keystore", token.uri(), "-o", "json")
    without = {"SOFTHSM2_CONF": token.environment["SOFTHSM2_CONF"]}
    for environment, status, said in (
        ({**without, "FLEETCTL_PIN_FILE": str(wrong)}, 4, "the PIN of token `fleet keys` is wrong"),
        (without, 2, "no PIN of token `fleet keys`: there is no terminal to ask on"),
        ({**without, "FLEETCTL_PIN_FILE": str(tmp_path / "absent")}, 3, "cannot read"),
    ):
        ran = fleetctl(*words, **environment)
        assert (ran.status, ran.out) == (status, "")
        assert said in ran.error()["message"]
        assert ran.error()["hint"]
        assert "99999999" not in ran.err
        assert not (home() / "prod").exists()
    assert "Key Object" not in token.objects()
    again = fleetctl(*words, **{**token.environment, "FLEETCTL_PIN": "99999999"})
    assert again.status == 0, again.err


def test_an_init_that_fails_takes_its_keys_off_the_token(fleetctl: Fleetctl, token: Token) -> None:
    words = ["pkcs11-tool", "--module", MODULE, "--token-label", "fleet keys", "-l", "--pin", "env:PIN", "--keypairgen"]
    words += ["--key-type", "EC:prime256v1", "--label", "prod-fleet-ca"]
    subprocess.run(words, env={**token.environment, "PIN": PIN}, capture_output=True, check=True)
    before = token.objects()
    ran = fleetctl(*INIT, "--keystore", token.uri(), "-o", "json", **token.environment)
    assert (ran.status, ran.error()["message"]) == (5, "key `prod-fleet-ca` on token `fleet keys` exists already")
    assert token.objects() == before
    assert not (home() / "prod").exists()
    assert fleetctl(*INIT, "--keystore", token.uri("mine-"), **token.environment).status == 0


def test_without_the_extra_its_name_is_told(fleetctl: Fleetctl, token: Token, tmp_path: Path) -> None:
    (tmp_path / "pkcs11.py").write_text("raise ImportError('no module named pkcs11')\n")
    ran = fleetctl(*INIT, "--keystore", token.uri(), "-o", "json", **token.environment, PYTHONPATH=str(tmp_path))
    assert (ran.status, ran.error()["hint"]) == (2, "pip install 'fleetctl[hsm]'")


def test_a_pin_is_never_taken_from_the_command_line(fleetctl: Fleetctl, token: Token) -> None:
    ran = fleetctl(*INIT, "--keystore", f"{token.uri()}&pin-value=4711", **token.environment)
    assert ran.status == 2
    assert "4711" not in ran.out + ran.err
    assert "a PIN has no place in a URI" in ran.err


def test_a_fleet_whose_keys_are_under_a_passphrase(fleetctl: Fleetctl, tmp_path: Path) -> None:
    given = {"FLEETCTL_PASSPHRASE": SECRET}
    made = fleetctl(*INIT, "--keystore", "file:", "-o", "json", **given)
    assert made.json()["keystore"] == "file:"
    assert made.err == f"keys are in {home()}/prod/keys, encrypted with your passphrase\n"
    add = ["provision", "add", "pump-1", "--type", "pump", "--location", "oslo", "--bundle", str(tmp_path / "pump-1")]
    for words in (add, ["certs", "revoke", "pump-1"]):
        ran = fleetctl(*words, "-o", "json", **given)
        assert ran.status == 0, ran.err
    keys = home() / "prod" / "keys"
    for name in SIGNING:
        assert openssl(keys, "pkey", "-in", f"{name}.key", "-passin", f"pass:{SECRET}", "-noout") == ""
        assert ":scrypt" in openssl(keys, "asn1parse", "-in", f"{name}.key")
    assert [path for path, data in texts(home()) if SECRET.encode() in data] == []
    assert {path.name for path, data in texts(home()) if b"BEGIN PRIVATE KEY" in data} == {"broker.key", "operator.key"}
    wrong = fleetctl("certs", "issue", "op:bob", "--bundle", str(tmp_path / "bob"), "-o", "json", FLEETCTL_PASSPHRASE="no")
    assert (wrong.status, wrong.error()["code"]) == (4, "denied")
    assert not (tmp_path / "bob").exists()


@pytest.mark.parametrize("keystore", ["keyring:fleetctl/prod", "file:"])
def test_with_neither_keyring_nor_terminal_nothing_is_made(tmp_path: Path, keystore: str) -> None:
    words = [sys.executable, "-m", "fleetctl", *INIT, "--keystore", keystore, "-o", "json"]
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout) == (2, "")
    error = json.loads(done.stderr.splitlines()[-1])["error"]
    assert error["hint"]
    assert error["message"].startswith(
        {
            "file:": "no new passphrase for the keys: there is no terminal",
            "keyring:fleetctl/prod": "secret `keyring:fleetctl/prod`",
        }[keystore]
    )
    left = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    assert left == [".init.lock"]
    assert not any(b"PRIVATE KEY" in data for _, data in texts(tmp_path))


def test_plain_keys_are_called_what_they_are(fleetctl: Fleetctl) -> None:
    made = fleetctl(*INIT)
    assert made.status == 0
    assert made.err.startswith(f"keys are in {home()}/prod/keys, unencrypted: init --keystore file:")
    assert len(made.err.splitlines()) == 1
    assert not (home() / "prod" / "keys" / "store").exists()


def test_a_fleet_that_is_adopted_keeps_its_signing_keys_as_well(fleetctl: Fleetctl) -> None:
    words = ["init", "plant", "--tenant", "acme", "--external", "--broker", "mqtts://localhost:1", "--keystore", "file:"]
    made = fleetctl(*words, "-o", "json", FLEETCTL_PASSPHRASE=SECRET)
    assert made.json()["keystore"] == "file:"
    keys = home() / "plant" / "keys"
    assert {each.name for each in keys.iterdir()} == {"root.key", "release.key", "rollout.key", "store"}
    assert not any(b"BEGIN PRIVATE KEY" in data for _, data in texts(home()))


class Screen:
    """A terminal on which a person answers what is asked."""

    def __init__(self, *words: str) -> None:
        self._outside, inside = pty.openpty()
        self._process = subprocess.Popen([sys.executable, "-m", "fleetctl", *words], stdin=inside, stdout=inside, stderr=inside)
        os.close(inside)
        self.seen = ""

    def answer(self, *dialogue: tuple[str, str]) -> int:
        """Type each answer where its question appears; how it ended."""
        for question, answer in dialogue:
            self._read_until(question)
            os.write(self._outside, f"{answer}\n".encode())
        self._read_until(None)
        os.close(self._outside)
        return self._process.wait(30)

    def _read_until(self, question: str | None) -> None:
        start = len(self.seen)
        with suppress(OSError):  # Linux reports the end of a terminal as an error
            while question is None or question not in self.seen[start:]:
                data = os.read(self._outside, 4096)
                if not data:
                    return
                self.seen += data.decode()


NEW, AGAIN = "new passphrase for the keys: ", "once more: "


def test_a_person_types_a_new_passphrase_twice_and_a_known_one_once(tmp_path: Path) -> None:
    making = Screen(*INIT, "--keystore", "file:")
    assert making.answer((NEW, SECRET), (AGAIN, SECRET)) == 0, making.seen
    using = Screen("certs", "issue", "op:bob", "--bundle", str(tmp_path / "bob"))
    assert using.answer(("passphrase of the keys in ", SECRET)) == 0, using.seen
    for screen in (making, using):
        assert SECRET not in screen.seen
    assert making.seen.count("passphrase for") == 1
    assert using.seen.count("passphrase of") == 1


@pytest.mark.parametrize(
    "dialogue", [((NEW, SECRET), (AGAIN, "something else")), ((NEW, ""),), ((NEW, "short"), (AGAIN, "short")), ((NEW, "\x04"),)]
)
def test_a_passphrase_that_is_mistyped_makes_no_context(dialogue: tuple[tuple[str, str], ...]) -> None:
    screen = Screen(*INIT, "--keystore", "file:")
    assert screen.answer(*dialogue) == 2, screen.seen
    assert "error: " in screen.seen
    assert not (home() / "prod").exists()


def test_a_person_types_the_pin_once(token: Token, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOFTHSM2_CONF", token.environment["SOFTHSM2_CONF"])
    screen = Screen(*INIT, "--keystore", token.uri())
    assert screen.answer(("PIN of token `fleet keys`: ", PIN)) == 0, screen.seen
    assert screen.seen.count("PIN of token") == 1
    assert PIN not in screen.seen
