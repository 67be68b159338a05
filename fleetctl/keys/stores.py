"""Key stores: where a context's root, release, rollout and authority keys are made and kept, chosen by a URI.

`plain:` unencrypted files, `file:` files under a passphrase, `keyring:SERVICE/USER` files under a key in the operating system's
keyring, `pkcs11:…` a token. TLS keys are plain files wherever the others are: brokers and TLS libraries load them themselves.
"""

import base64
import binascii
import os
import secrets
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from fleetctl import files
from fleetctl.errors import ConfigError, Conflict
from fleetctl.keys import pbes2, ring
from fleetctl.keys.passphrase import new_passphrase, passphrase
from fleetctl.keys.pkcs11_uri import SCHEME, Pkcs11Uri
from fleetctl.keys.secrets import resolve
from fleetctl.keys.store import (
    KEY_FILE_LIMIT,
    KeyType,
    PrivateKey,
    Protection,
    generate_key,
    has_key,
    load_key,
    parse_key,
    private_der,
    private_pem,
    protection,
    uri_file,
)
from fleetctl.model.device import printable

PLAIN = "plain:"
FILE = "file:"
KEYRING = "keyring:"
STORE = "store"
"""The file beside the keys that names their store; plain keys need none."""
_KINDS = "write plain:, file:, keyring:SERVICE/USER or pkcs11:token=LABEL"
_WRAPPING_LENGTH = 32


class KeyStore(Protocol):
    """Makes and opens keys by name; `exportable` is whether one that it keeps can be copied elsewhere."""

    @property
    def uri(self) -> str: ...

    @property
    def exportable(self) -> bool: ...

    @property
    def signing(self) -> KeyType:
        """What release and rollout keys are here: Ed25519, or P-256 where a token has nothing else."""

    def generate(self, name: str, alg: KeyType) -> PrivateKey:
        """A new key under that name; raises `Conflict` where there is one."""

    def open(self, name: str) -> PrivateKey:
        """Raises what `load_key` raises."""

    def discard(self, name: str) -> None:
        """Remove a key that this folder has and nobody needs; nothing happens where it has none of that name."""


def open_store(uri: str, folder: Path) -> KeyStore:
    """The store that a URI means for the keys in `folder`; nothing is made or asked for yet. Raises `ConfigError`."""
    scheme, _, place = uri.partition(":")
    match scheme:
        case "plain" | "file" if not place:
            return PlainStore(folder) if scheme == "plain" else EncryptedStore(folder, FILE)
        case "keyring":
            _service_and_user(uri)
            return EncryptedStore(folder, uri)
        case "pkcs11":
            return TokenStore(folder, Pkcs11Uri.parse(uri))
    raise ConfigError(f"{printable(scheme + ':…')} is no key store", _KINDS)


def settled(uri: str, context: str) -> str:
    """The URI of a new context's store as it is remembered; keys on a token begin with the name of the context."""
    if not uri.startswith(SCHEME):
        return uri
    from fleetctl.keys import hsm

    return str(hsm.settled(Pkcs11Uri.parse(uri), f"{context}-"))


def context_store(keys_folder: Path) -> KeyStore:
    """The store that a context was made with."""
    return open_store(_remembered(keys_folder), keys_folder)


def remember_store(store: KeyStore, keys_folder: Path) -> None:
    if store.uri != PLAIN:
        files.write_atomic(keys_folder / STORE, f"{store.uri}\n".encode(), 0o600, replace=False)


def open_reference(reference: str) -> PrivateKey:
    """A key that a word names: `pkcs11:…`, or a secret (`env:`, `file:`, `keyring:`) that is its PEM; raises as `load_key`."""
    if reference.startswith(SCHEME):
        return open_token(reference)
    return parse_key(resolve(reference).encode(), f"secret `{reference}`", lambda: passphrase(printable(reference)).encode())


def open_token(uri: str) -> PrivateKey:
    """One key on a token: `object` is its label."""
    from fleetctl.keys import hsm

    return hsm.open_key(Pkcs11Uri.parse(uri))


def password_of(folder: Path) -> bytes:
    """What opens the encrypted keys in a folder."""
    uri = _remembered(folder)
    if not uri.startswith(KEYRING):
        return passphrase(printable(str(folder))).encode()
    found = ring.lookup(*_service_and_user(uri))
    if found is None:
        raise ConfigError(f"the key that opens {printable(str(folder))} is not in the keyring ({printable(uri)})", "restore it")
    return _wrapping(found, uri)


@dataclass(frozen=True, slots=True)
class PlainStore:
    """Unencrypted files."""

    folder: Path
    uri: str = PLAIN
    exportable: bool = True
    signing: KeyType = "ed25519"

    def generate(self, name: str, alg: KeyType) -> PrivateKey:
        key = generate_key(alg)
        _write(self.folder, name, private_pem(key))
        return key

    def open(self, name: str) -> PrivateKey:
        return load_key(_path(self.folder, name))

    def discard(self, name: str) -> None:
        _path(self.folder, name).unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class EncryptedStore:
    """Files under a passphrase, or under 32 random bytes that the keyring holds."""

    folder: Path
    uri: str
    exportable: bool = True
    signing: KeyType = "ed25519"

    def generate(self, name: str, alg: KeyType) -> PrivateKey:
        password = self._password()
        key = generate_key(alg)
        salt, iv = secrets.token_bytes(pbes2.SALT_LENGTH), secrets.token_bytes(pbes2.IV_LENGTH)
        _write(self.folder, name, pbes2.encrypt(private_der(key), password, salt, iv))
        return key

    def open(self, name: str) -> PrivateKey:
        return load_key(_path(self.folder, name))

    def discard(self, name: str) -> None:
        _path(self.folder, name).unlink(missing_ok=True)

    def _password(self) -> bytes:
        """The password of new keys: that of the keys which are here already, or a new one."""
        if self.uri.startswith(KEYRING):
            return _made_wrapping(self.uri)
        held = _held(self.folder)
        if held is None or not (self.folder / STORE).exists():
            return new_passphrase(printable(str(self.folder))).encode()
        load_key(held)  # a new key is never put under another passphrase than the others
        return password_of(self.folder)


@dataclass(frozen=True, slots=True)
class TokenStore:
    """Keys on a PKCS #11 token; a file `NAME.uri` says where each is."""

    folder: Path
    token: Pkcs11Uri
    exportable: bool = False

    @property
    def uri(self) -> str:
        return str(self.token)

    @property
    def signing(self) -> KeyType:
        from fleetctl.keys import hsm

        return "ed25519" if hsm.signs_with_ed25519(self.token) else "p256"

    def generate(self, name: str, alg: KeyType) -> PrivateKey:
        from fleetctl.keys import hsm

        _check_absent(_path(self.folder, name))
        place = self._place(name)
        key = hsm.generate(place, alg)
        files.write_atomic(uri_file(_path(self.folder, name)), f"{place}\n".encode(), 0o600, replace=False)
        return key

    def open(self, name: str) -> PrivateKey:
        return load_key(_path(self.folder, name))

    def discard(self, name: str) -> None:
        from fleetctl.keys import hsm

        written = uri_file(_path(self.folder, name))
        if written.exists():  # else the key of that label is somebody else's
            hsm.discard(self._place(name))
            written.unlink()

    def _place(self, name: str) -> Pkcs11Uri:
        return replace(self.token, object=self.token.object + name)


def _path(folder: Path, name: str) -> Path:
    return folder / f"{name}.key"


def _write(folder: Path, name: str, pem: bytes) -> None:
    path = _path(folder, name)
    _check_absent(path)
    files.write_atomic(path, pem, 0o600, replace=False)


def _check_absent(path: Path) -> None:
    if has_key(path):
        raise Conflict(f"key {printable(str(path))} exists already", f"move it away first: mv {path} {path}.old")


def _held(folder: Path) -> Path | None:
    """A key of the folder that is encrypted."""
    return next((path for path in sorted(folder.glob("*.key")) if protection(path) is Protection.ENCRYPTED), None)


def _remembered(folder: Path) -> str:
    path = folder / STORE
    return files.read_limited(path, KEY_FILE_LIMIT).decode(errors="replace").strip() if path.exists() else PLAIN


def _service_and_user(uri: str) -> tuple[str, str]:
    service, _, user = uri.removeprefix(KEYRING).partition("/")
    if not service or not user or not uri.isprintable():
        raise ConfigError(f"key store {printable(uri)} names no service and user", "write keyring:SERVICE/USER")
    return service, user


def _made_wrapping(uri: str) -> bytes:
    """The wrapping key under that name, made where there is none."""
    service, user = _service_and_user(uri)
    found = ring.lookup(service, user)
    if found is None:
        found = base64.b64encode(os.urandom(_WRAPPING_LENGTH)).decode()
        ring.remember(service, user, found)
    return _wrapping(found, uri)


def _wrapping(text: str, uri: str) -> bytes:
    """The text is the passphrase of the files, so that openssl opens them with it too."""
    try:
        length = len(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        length = 0
    if length != _WRAPPING_LENGTH:
        raise ConfigError(f"{printable(uri)} holds something that is no key", "choose another name: keyring:SERVICE/USER")
    return text.encode()
