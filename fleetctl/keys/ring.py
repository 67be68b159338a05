"""The operating system's keyring: only a backend that encrypts, and never waited for longer than a person would.

A keyring that is locked may wait for somebody at a screen that nobody looks at, and D-Bus for a service that never comes.
"""

import queue
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

from fleetctl.errors import ConfigError

if TYPE_CHECKING:
    from keyring.backend import KeyringBackend

T = TypeVar("T")

PATIENCE = 3.0
_SAFE_BACKENDS = ("SecretService", "libsecret", "kwallet", "macOS", "Windows")


def lookup(service: str, user: str, *, patience: float = PATIENCE) -> str | None:
    """The secret of that name, None where there is none; `patience` is seconds.

    Raises:
        ConfigError: this machine has no keyring that encrypts, it is locked, or it does not answer.
    """
    return _asked(lambda backend: backend.get_password(service, user), "read", service, user, patience)


def remember(service: str, user: str, secret: str, *, patience: float = PATIENCE) -> None:
    """Keep a secret, and see that it is kept; raises `ConfigError`."""

    def keep(backend: "KeyringBackend") -> bool:
        backend.set_password(service, user, secret)
        return backend.get_password(service, user) == secret

    if not _asked(keep, "written", service, user, patience):
        raise ConfigError(f"secret `keyring:{service}/{user}` was not kept by the keyring", "use env:NAME or file:PATH instead")


def forget(service: str, user: str, *, patience: float = PATIENCE) -> None:
    """Remove a secret; raises `ConfigError`."""
    _asked(lambda backend: backend.delete_password(service, user), "removed", service, user, patience)


def is_safe(module: str, inner: Iterable[str] = ()) -> bool:
    """Whether a keyring backend, named by its module, is the operating system's own; a chain is as safe as all of its links."""
    if module == "keyring.backends.chainer":
        links = list(inner)
        return bool(links) and all(is_safe(link) for link in links)
    return module.removeprefix("keyring.backends.") in _SAFE_BACKENDS


def _asked(work: "Callable[[KeyringBackend], T]", done: str, service: str, user: str, patience: float) -> T:
    """What `work` comes to with the keyring of this machine; the search for one may hang too, so it is a part of the work."""
    shown = f"secret `keyring:{service}/{user}`"

    def whole() -> T:
        import keyring
        from keyring.errors import KeyringError

        backend = keyring.get_keyring()
        module = type(backend).__module__
        if not is_safe(module, [type(link).__module__ for link in getattr(backend, "backends", ())]):
            raise ConfigError(
                f"{shown} cannot be {done}: this machine has no keyring that encrypts (`{module}`)",
                "use env:NAME or file:PATH instead, or for keys --keystore file:",
            )
        try:
            return work(backend)
        except KeyringError as error:
            raise ConfigError(f"{shown} cannot be {done}: the keyring is locked or absent", "unlock it and try again") from error

    answered: queue.SimpleQueue[Callable[[], T]] = queue.SimpleQueue()
    threading.Thread(target=lambda: answered.put(_outcome(whole)), name="keyring", daemon=True).start()
    try:
        outcome = answered.get(timeout=patience)
    except queue.Empty:
        raise ConfigError(
            f"{shown} cannot be {done}: the keyring does not answer within {patience:g} s", "unlock it and try again"
        ) from None
    return outcome()


def _outcome(work: Callable[[], T]) -> Callable[[], T]:
    """What another thread can take up: the result, or the exception raised there."""
    try:
        result = work()
    except Exception as error:
        failure = error

        def failed() -> T:
            raise failure

        return failed
    return lambda: result
