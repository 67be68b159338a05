from pathlib import Path

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.errors import KeyringLocked

from fleetctl.errors import ConfigError, FleetError, NotFound
from fleetctl.keys.ring import is_safe
from fleetctl.keys.secrets import resolve

SECRET = "hunter2-geheim"


def test_a_secret_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER_PASSWORD", SECRET)
    assert resolve("env:BROKER_PASSWORD") == SECRET
    monkeypatch.delenv("BROKER_PASSWORD")
    with pytest.raises(ConfigError, match="secret `env:BROKER_PASSWORD` is not in the environment"):
        resolve("env:BROKER_PASSWORD")


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_secret_comes_from_a_file_without_its_line_end(tmp_path: Path, end: str) -> None:
    (tmp_path / "secret").write_text(SECRET + end, newline="")
    assert resolve(f"file:{tmp_path}/secret") == SECRET


def test_a_secret_file_that_is_missing_or_empty_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="secret `file:/no/such` does not exist"):
        resolve("file:/no/such")
    (tmp_path / "secret").touch()
    with pytest.raises(ConfigError, match="is empty"):
        resolve(f"file:{tmp_path}/secret")


def test_no_message_shows_a_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_bytes(SECRET.encode() + b"\xff")
    monkeypatch.setenv("EMPTY", "")
    for reference in (SECRET, f"file:{tmp_path}/secret", "env:EMPTY", "env:", "file:", "keyring:", "keyring:service"):
        with pytest.raises(FleetError) as caught:
            resolve(reference)
        error: BaseException | None = caught.value
        while error is not None:
            assert SECRET not in f"{error!r} {error} {vars(error)}"
            error = error.__cause__ or error.__context__


def use(monkeypatch: pytest.MonkeyPatch, module: str, answer: object) -> None:
    def get_password(_self: object, _service: str, _user: str) -> str | None:
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, str | None)
        return answer

    backend = type(
        "Backend",
        (KeyringBackend,),
        {"__module__": module, "priority": 1, "get_password": get_password, "set_password": None, "delete_password": None},
    )
    monkeypatch.setattr(keyring, "get_keyring", backend)
    monkeypatch.setattr(keyring, "get_password", lambda service, user: backend().get_password(service, user))


def test_a_secret_comes_from_the_keyring(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, "keyring.backends.SecretService", SECRET)
    assert resolve("keyring:fleetctl/prod") == SECRET
    use(monkeypatch, "keyring.backends.SecretService", None)
    with pytest.raises(ConfigError) as caught:
        resolve("keyring:fleetctl/prod")
    assert caught.value.hint == "keyring set fleetctl prod"
    use(monkeypatch, "keyring.backends.SecretService", KeyringLocked("no"))
    with pytest.raises(ConfigError, match="locked or absent"):
        resolve("keyring:fleetctl/prod")


@pytest.mark.parametrize("module", ["keyring.backends.fail", "keyring.backends.null", "keyrings.alt.file"])
def test_a_keyring_that_does_not_encrypt_is_refused(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    use(monkeypatch, module, SECRET)
    with pytest.raises(ConfigError, match="no keyring that encrypts"):
        resolve("keyring:fleetctl/prod")


def test_a_chain_of_keyrings_is_as_safe_as_all_of_its_links() -> None:
    assert is_safe("keyring.backends.chainer", ["keyring.backends.SecretService", "keyring.backends.libsecret"])
    assert not is_safe("keyring.backends.chainer", ["keyring.backends.SecretService", "keyrings.alt.file"])
    assert not is_safe("keyring.backends.chainer")
