"""Key stores whose keys are files; those of tokens are in tests/integration/keys."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import keyring
import pytest
from keyring.backend import KeyringBackend

from fleetctl.errors import ConfigError, Conflict, Denied, NotFound
from fleetctl.keys.cose import Signer
from fleetctl.keys.hsm import objection
from fleetctl.keys.passphrase import Pin, pin
from fleetctl.keys.store import Protection, generate_key, load_key, protection, public_pem
from fleetctl.keys.stores import context_store, open_reference, open_store, remember_store, settled

SECRET = "correct horse battery"


@pytest.fixture(autouse=True)
def _no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PASSPHRASE", "PASSPHRASE_FILE", "PIN", "PIN_FILE", "PKCS11_MODULE"):
        monkeypatch.delenv(f"FLEETCTL_{name}", raising=False)


@pytest.fixture
def held() -> Iterator[dict[tuple[str, str], str]]:
    """What a keyring of the system's own kind holds: a real back end, in memory."""
    secrets: dict[tuple[str, str], str] = {}
    methods = {
        "__module__": "keyring.backends.SecretService",
        "priority": 1,
        "get_password": lambda _, service, username: secrets.get((service, username)),
        "set_password": lambda _, service, username, password: secrets.update({(service, username): password}),
        "delete_password": lambda _, service, username: secrets.pop((service, username)),
    }
    make: Callable[[], KeyringBackend] = type("Keyring", (KeyringBackend,), methods)
    before = keyring.get_keyring()
    keyring.set_keyring(make())
    yield secrets
    keyring.set_keyring(before)


def test_a_folder_that_says_nothing_holds_plain_keys(tmp_path: Path) -> None:
    store = context_store(tmp_path)
    key = store.generate("a", "p256")
    assert (store.uri, store.exportable, store.signing) == ("plain:", True, "ed25519")
    assert public_pem(store.open("a")) == public_pem(key) == public_pem(load_key(tmp_path / "a.key"))
    with pytest.raises(Conflict):
        store.generate("a", "p256")
    remember_store(store, tmp_path)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.key"]
    store.discard("a")
    with pytest.raises(NotFound):
        store.open("a")


def test_keys_under_a_passphrase_open_with_it_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEETCTL_PASSPHRASE", SECRET)
    store = open_store("file:", tmp_path)
    key = store.generate("a", "ed25519")
    remember_store(store, tmp_path)
    assert context_store(tmp_path).uri == "file:"
    assert protection(tmp_path / "a.key") is Protection.ENCRYPTED
    assert public_pem(load_key(tmp_path / "a.key")) == public_pem(key)
    monkeypatch.setenv("FLEETCTL_PASSPHRASE", "something else")
    with pytest.raises(Denied, match="the passphrase is wrong"):
        load_key(tmp_path / "a.key")
    with pytest.raises(Denied, match="the passphrase is wrong"):
        context_store(tmp_path).generate("b", "ed25519")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.key", "store"]


def test_a_passphrase_file_goes_before_the_variable_and_must_be_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "passphrase"
    path.write_text(f"{SECRET}\nnot this\n")
    path.chmod(0o600)
    monkeypatch.setenv("FLEETCTL_PASSPHRASE_FILE", str(path))
    monkeypatch.setenv("FLEETCTL_PASSPHRASE", "something else")
    keys = tmp_path / "keys"
    keys.mkdir()
    open_store("file:", keys).generate("a", "ed25519")
    words = ["openssl", "pkey", "-in", str(keys / "a.key"), "-noout", "-passin", f"file:{path}"]
    assert subprocess.run(words, check=False).returncode == 0
    path.chmod(0o640)
    with pytest.raises(Denied) as caught:
        load_key(keys / "a.key")
    assert caught.value.hint == f"chmod 600 {path}"


@pytest.mark.parametrize("secret", ["", "\n", "short"])
def test_a_passphrase_that_is_none_makes_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secret: str) -> None:
    (tmp_path / "passphrase").write_text(secret)
    (tmp_path / "passphrase").chmod(0o600)
    monkeypatch.setenv("FLEETCTL_PASSPHRASE_FILE", str(tmp_path / "passphrase"))
    with pytest.raises(ConfigError) as caught:
        open_store("file:", tmp_path).generate("a", "ed25519")
    assert caught.value.hint
    assert not (tmp_path / "a.key").exists()


def test_with_nobody_to_ask_the_remedy_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no terminal to ask on") as caught:
        open_store("file:", tmp_path).generate("a", "ed25519")
    assert caught.value.hint == "export FLEETCTL_PASSPHRASE_FILE=PATH, a file that only you can read"
    with pytest.raises(ConfigError, match="no PIN of token `fleet`") as caught:
        pin("`fleet`")
    assert "FLEETCTL_PIN_FILE" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_keyring_holds_one_key_that_opens_the_files(tmp_path: Path, held: dict[tuple[str, str], str]) -> None:
    store = open_store("keyring:fleetctl/prod", tmp_path)
    keys = [store.generate(name, "p256") for name in ("a", "b")]
    remember_store(store, tmp_path)
    assert list(held) == [("fleetctl", "prod")]
    assert [public_pem(load_key(tmp_path / f"{name}.key")) for name in ("a", "b")] == list(map(public_pem, keys))
    assert protection(tmp_path / "a.key") is Protection.ENCRYPTED
    assert not any(held["fleetctl", "prod"] in path.read_text() for path in tmp_path.iterdir())
    held.clear()
    with pytest.raises(ConfigError, match="is not in the keyring"):
        load_key(tmp_path / "a.key")


def test_a_name_in_the_keyring_that_holds_something_else_is_left_alone(tmp_path: Path, held: dict[tuple[str, str], str]) -> None:
    held["fleetctl", "prod"] = "hunter2"
    with pytest.raises(ConfigError, match="holds something that is no key") as caught:
        open_store("keyring:fleetctl/prod", tmp_path).generate("a", "p256")
    assert "hunter2" not in str(caught.value)
    assert held == {("fleetctl", "prod"): "hunter2"}


@pytest.mark.parametrize(
    "uri", ["", "plain", "plain:x", "file:/some/where", "vault:x", "keyring:", "keyring:a", "keyring:a/", "pkcs11:", "hunter2"]
)
def test_what_is_no_store_is_refused(tmp_path: Path, uri: str) -> None:
    if uri == "plain":
        assert open_store(uri, tmp_path).uri == "plain:"
        return
    with pytest.raises(ConfigError) as caught:
        open_store(uri, tmp_path)
    assert caught.value.hint


def test_the_keys_of_a_context_on_a_token_begin_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEETCTL_PKCS11_MODULE", "/usr/lib/x.so")
    assert settled("pkcs11:token=fleet", "prod") == "pkcs11:token=fleet;object=prod-?module-path=/usr/lib/x.so"
    assert settled("pkcs11:token=fleet;object=ca", "prod") == "pkcs11:token=fleet;object=ca?module-path=/usr/lib/x.so"
    assert settled("file:", "prod") == "file:"


def test_a_reference_may_lead_to_an_encrypted_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEETCTL_PASSPHRASE", SECRET)
    key = open_store("file:", tmp_path).generate("a", "ed25519")
    assert public_pem(open_reference(f"file:{tmp_path}/a.key")) == public_pem(key)


def test_an_rsa_key_signs_no_documents() -> None:
    with pytest.raises(ConfigError, match="signs certificates only"):
        Signer(generate_key("rsa3072"))


def test_a_token_that_would_lock_itself_is_left_to_a_person() -> None:
    from pkcs11 import TokenFlag

    typed, stored = Pin("1234", typed=True), Pin("1234", typed=False)
    assert objection(0, stored, "`fleet`") is None
    assert objection(TokenFlag.USER_PIN_COUNT_LOW, stored, "`fleet`") is None
    assert objection(TokenFlag.USER_PIN_FINAL_TRY, typed, "`fleet`") is None
    last = objection(TokenFlag.USER_PIN_FINAL_TRY, stored, "`fleet`")
    assert last is not None
    assert "one more try" in last.message
    for given in (typed, stored, None):
        locked = objection(TokenFlag.USER_PIN_LOCKED, given, "`fleet`")
        assert locked is not None
        assert "is locked" in locked.message
    wrong = objection(TokenFlag.USER_PIN_FINAL_TRY, None, "`fleet`")
    assert wrong is not None
    assert wrong.message == "the PIN of token `fleet` is wrong, and one try is left"
    assert "1234" not in f"{typed} {stored!r}"
