"""The keyring: never one that does not encrypt, never waited for too long."""

import threading
import time
from collections.abc import Callable, Iterator

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.backends import fail, null
from keyring.errors import InitError

from fleetctl.errors import ConfigError
from fleetctl.keys import ring

Use = Callable[[Callable[[], KeyringBackend]], None]


@pytest.fixture
def use() -> Iterator[Use]:
    """Makes a back end that of this process."""
    before = keyring.get_keyring()
    yield lambda make: keyring.set_keyring(make())
    keyring.set_keyring(before)


Make = Callable[[], KeyringBackend]


def backend(module: str, get: Callable[[str, str], str | None] = lambda *_: "x") -> Make:
    def get_password(_: object, service: str, username: str) -> str | None:
        return get(service, username)

    methods = {"priority": 1, "get_password": get_password, "set_password": lambda *_: None, "delete_password": lambda *_: None}
    made: Make = type("Keyring", (KeyringBackend,), {"__module__": module, **methods})
    return made


REFUSED: list[Make] = [fail.Keyring, null.Keyring, backend("keyrings.alt.file"), backend("keyrings.cryptfile.cryptfile")]


@pytest.mark.parametrize("make", REFUSED, ids=lambda make: make.__module__)
def test_a_keyring_that_does_not_encrypt_is_neither_read_nor_written(use: Use, make: Make) -> None:
    use(make)
    attempts: list[Callable[[], object]] = [
        lambda: ring.lookup("fleetctl", "prod"),
        lambda: ring.remember("fleetctl", "prod", "geheim"),
    ]
    for attempt in attempts:
        with pytest.raises(ConfigError, match="this machine has no keyring that encrypts") as caught:
            attempt()
        assert make.__module__ in caught.value.message
        assert "--keystore file:" in caught.value.hint


def test_a_keyring_that_hangs_is_given_up(use: Use) -> None:
    released = threading.Event()

    def wait(*_: str) -> None:
        released.wait(20)

    use(backend("keyring.backends.SecretService", wait))
    start = time.monotonic()
    try:
        with pytest.raises(ConfigError, match=r"does not answer within 0\.2 s"):
            ring.lookup("fleetctl", "prod", patience=0.2)
        assert time.monotonic() - start < 2
    finally:
        released.set()


def test_a_person_is_given_three_seconds() -> None:
    assert ring.PATIENCE == 3.0


def test_a_keyring_that_forgets_what_it_was_given_is_found_out(use: Use) -> None:
    use(backend("keyring.backends.SecretService", lambda *_: None))
    with pytest.raises(ConfigError, match="was not kept by the keyring"):
        ring.remember("fleetctl", "prod", "geheim")


def test_a_locked_keyring_is_said_to_be(use: Use) -> None:
    def locked(*_: str) -> None:
        raise InitError("Prompt dismissed")

    use(backend("keyring.backends.SecretService", locked))
    with pytest.raises(ConfigError, match="locked or absent"):
        ring.lookup("fleetctl", "prod")
