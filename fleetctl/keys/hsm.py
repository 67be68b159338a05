"""Keys on a PKCS #11 token: made there, never to leave it, used through a session that is logged in once in a process."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, assert_never

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fleetctl.errors import ConfigError, Conflict, Denied, FleetError, NotFound, Unavailable
from fleetctl.keys.passphrase import FOR_PIN, Pin, pin
from fleetctl.keys.pkcs11_uri import Pkcs11Uri
from fleetctl.keys.store import KeyType, PrivateKey
from fleetctl.keys.token_key import TokenEcKey, TokenEd25519Key, TokenRsaKey
from fleetctl.model.device import printable

if TYPE_CHECKING:
    import pkcs11
    from pkcs11 import Session

MODULE = "FLEETCTL_PKCS11_MODULE"
_P256 = bytes.fromhex("06082a8648ce3d030107")
_ED25519 = bytes.fromhex("06032b6570")
_P256_LENGTH, _ED25519_LENGTH = 65, 32


def settled(uri: Pkcs11Uri, prefix: str) -> Pkcs11Uri:
    """The URI as it is remembered: it means the same without the environment, and names keys that no other context has."""
    return replace(uri, object=uri.object or prefix, module=uri.module or os.environ.get(MODULE))


def generate(uri: Pkcs11Uri, alg: KeyType) -> PrivateKey:
    """A new key on the token under the label `uri.object`.

    Raises:
        Conflict: the token has a key of that label.
        ConfigError, NotFound, Denied, Unavailable: the token cannot be used, or makes no such keys.
    """
    session, shown = _session(_login(uri)), _shown(uri)
    from pkcs11 import Attribute

    with _translated(uri), session.token.open(rw=True) as writing:
        if _objects(writing, uri.object):
            raise Conflict(f"{shown} exists already", "name another beginning: object=PREFIX in the URI")
        made = _generated(writing, uri.object, alg)
        kept = made[Attribute.SENSITIVE] and not made[Attribute.EXTRACTABLE]
    try:
        if not kept:
            raise ConfigError(f"{shown} could leave the token", "set the token's policy, or use another token")
        key = open_key(uri)
        _prove(key, shown)
    except FleetError:
        discard(uri)
        raise
    return key


def open_key(uri: Pkcs11Uri) -> PrivateKey:
    """The key of the label `uri.object`.

    Raises:
        NotFound: the token has none, or there is no such token.
        ConfigError: no module, or no support for it; more than one such key, or one of a kind that is not used here.
        Denied: the PIN is wrong, or locked.
        Unavailable: the token does not do its work.
    """
    private, public = _pair(uri)
    from pkcs11 import Attribute, KeyType

    sign = _Signing(private, uri)
    with _translated(uri):
        kind = private[Attribute.KEY_TYPE]
        if kind == KeyType.RSA:
            numbers = (int.from_bytes(public[each], "big") for each in (Attribute.PUBLIC_EXPONENT, Attribute.MODULUS))
            return TokenRsaKey(rsa.RSAPublicNumbers(*numbers).public_key(), sign)
        curve = bytes(public[Attribute.EC_PARAMS])
        point = _point(bytes(public[Attribute.EC_POINT]))
    if kind == KeyType.EC and curve == _P256:
        return TokenEcKey(ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point), sign)
    if kind == KeyType.EC_EDWARDS and len(point) == _ED25519_LENGTH:
        return TokenEd25519Key(Ed25519PublicKey.from_public_bytes(point), sign)
    raise ConfigError(f"{_shown(uri)} is neither Ed25519 nor P-256 nor RSA", "name another key")


def discard(uri: Pkcs11Uri) -> None:
    """Remove a key that was made for nothing."""
    session = _session(_login(uri))
    with _translated(uri), session.token.open(rw=True) as writing:
        for each in _objects(writing, uri.object):
            each.destroy()


def signs_with_ed25519(uri: Pkcs11Uri) -> bool:
    """Whether the token makes Ed25519 keys; many make P-256 only."""
    session = _session(_login(uri))
    from pkcs11 import Mechanism

    with _translated(uri):
        return Mechanism.EC_EDWARDS_KEY_PAIR_GEN in session.token.slot.get_mechanisms()


def objection(flags: int, given: Pin | None, shown: str) -> Denied | None:
    """Why a PIN is not tried, or why it failed (`given` is None): a service started again and again would lock a token."""
    from pkcs11 import TokenFlag

    unlock = "unlock it with the security officer's PIN: pkcs11-tool --init-pin"
    if flags & TokenFlag.USER_PIN_LOCKED:
        return Denied(f"the PIN of token {shown} is locked", unlock)
    last = bool(flags & TokenFlag.USER_PIN_FINAL_TRY)
    if given is None:
        return Denied(
            f"the PIN of token {shown} is wrong{', and one try is left' if last else ''}",
            f"check {FOR_PIN[0]} before the token locks itself",
        )
    if last and not given.typed:
        return Denied(
            f"token {shown} allows one more try of its PIN, which is for a person", "log in by hand once: pkcs11-tool -l -T"
        )
    return None


class _Signing:
    """What an adapter calls to have the token sign."""

    def __init__(self, key: Any, uri: Pkcs11Uri) -> None:
        self._key = key
        self._uri = uri

    def __call__(self, data: bytes, mechanism: str) -> bytes:
        from pkcs11 import Mechanism

        with _translated(self._uri):
            return bytes(self._key.sign(data, mechanism=Mechanism[mechanism]))


def _login(uri: Pkcs11Uri) -> Pkcs11Uri:
    """What decides on the session: the token, not the key."""
    return replace(uri, object="", module=_module(uri) or None)


@cache
def _session(uri: Pkcs11Uri) -> "Session":
    """A session that is logged in; one for each token, so that the PIN is asked for and tried once in a process."""
    token = _token(uri)
    given = pin(uri.shown, uri.pin_source)
    refused = objection(token.flags, given, uri.shown)
    if refused is not None:
        raise refused
    from pkcs11 import exceptions

    with _translated(uri):
        try:
            return token.open(user_pin=given.text)
        except (exceptions.PinIncorrect, exceptions.PinInvalid, exceptions.PinLenRange, exceptions.PinLocked) as error:
            raise objection(_token(uri).flags, None, uri.shown) or Denied(f"the PIN of token {uri.shown} is wrong") from error


def _token(uri: Pkcs11Uri) -> "pkcs11.Token":
    if uri.module is None:
        raise ConfigError(
            f"no PKCS #11 module for token {uri.shown}",
            f"export {MODULE}=/usr/lib/softhsm/libsofthsm2.so, or what your token has",
        )
    if not Path(uri.module).is_file():
        raise ConfigError(f"PKCS #11 module {printable(uri.module)} does not exist", f"set {MODULE} to the module of your token")
    try:
        import pkcs11
    except ImportError as error:
        raise ConfigError("this fleetctl cannot use PKCS #11 tokens", "pip install 'fleetctl[hsm]'") from error

    with _translated(uri):
        serial = None if uri.serial is None else uri.serial.encode()
        found = list(pkcs11.lib(uri.module).get_tokens(token_label=uri.token, token_serial=serial))
    if len(found) == 1:
        return found[0]
    look = f"see which there are: pkcs11-tool --module {uri.module} -L"
    if found:
        raise ConfigError(f"{len(found)} tokens are called {uri.shown}", f"add serial=… to the URI; {look}")
    raise NotFound(f"no token {uri.shown}: it is not plugged in, or has another name", look)


@contextmanager
def _translated(uri: Pkcs11Uri) -> Iterator[None]:
    from pkcs11.exceptions import MechanismInvalid, PKCS11Error

    try:
        yield
    except MechanismInvalid as error:
        raise ConfigError(f"token {uri.shown} has no such algorithm", f"see pkcs11-tool --module {_module(uri)} -M") from error
    except PKCS11Error as error:
        said = str(error) or type(error).__name__
        raise Unavailable(
            f"token {uri.shown} does not do its work: {said}", f"see that it is there: pkcs11-tool --module {_module(uri)} -L"
        ) from error


def _objects(session: "Session", label: str) -> list[Any]:
    from pkcs11 import Attribute, ObjectClass

    kinds = (ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY)
    return [each for kind in kinds for each in session.get_objects({Attribute.CLASS: kind, Attribute.LABEL: label})]


def _generated(session: "Session", label: str, alg: KeyType) -> Any:
    """The private key, which signs and does nothing else."""
    from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag

    options: dict[str, Any] = {
        "store": True,
        "label": label,
        "id": secrets.token_bytes(8),
        "capabilities": MechanismFlag.SIGN | MechanismFlag.VERIFY,
        "private_template": {Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False},
    }
    match alg:
        case "rsa3072":
            return session.generate_keypair(KeyType.RSA, 3072, **options)[1]
        case "p384":
            raise ConfigError("a token makes no p384 key here", "choose p256, ed25519 or rsa3072")
        case "p256":
            curve = session.create_domain_parameters(KeyType.EC, {Attribute.EC_PARAMS: _P256}, local=True)
            return curve.generate_keypair(**options)[1]
        case "ed25519":
            curve = session.create_domain_parameters(KeyType.EC_EDWARDS, {Attribute.EC_PARAMS: _ED25519}, local=True)
            return curve.generate_keypair(mechanism=Mechanism.EC_EDWARDS_KEY_PAIR_GEN, **options)[1]
    assert_never(alg)


def _pair(uri: Pkcs11Uri) -> tuple[Any, Any]:
    """The private and the public object of one label."""
    session = _session(_login(uri))
    from pkcs11 import ObjectClass
    from pkcs11.exceptions import MultipleObjectsReturned, NoSuchKey

    with _translated(uri):
        try:
            private, public = (
                session.get_key(kind, label=uri.object) for kind in (ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY)
            )
        except NoSuchKey as error:
            raise NotFound(f"no {_shown(uri)}", f"see what is there: pkcs11-tool --module {_module(uri)} -l -O") from error
        except MultipleObjectsReturned as error:
            raise ConfigError(f"more than one {_shown(uri)}", "remove or rename the others with pkcs11-tool") from error
    return private, public


def _shown(uri: Pkcs11Uri) -> str:
    return f"key {printable(uri.object)} on token {uri.shown}"


def _module(uri: Pkcs11Uri) -> str:
    return os.environ.get(MODULE) or uri.module or ""


def _point(data: bytes) -> bytes:
    """A point as the standard has it, in an OCTET STRING, or bare, as some tokens give it."""
    wrapped = len(data) in (_ED25519_LENGTH + 2, _P256_LENGTH + 2) and data[:2] == bytes((4, len(data) - 2))
    return data[2:] if wrapped else data


def _prove(key: PrivateKey, shown: str) -> None:
    """A token that signs wrongly is found out before anything depends on it."""
    message = b"fleetctl"
    try:
        match key:
            case TokenEd25519Key():
                key.public_key().verify(key.sign(message), message)
            case TokenEcKey():
                key.public_key().verify(key.sign(message, ec.ECDSA(hashes.SHA256())), message, ec.ECDSA(hashes.SHA256()))
            case TokenRsaKey():
                signature = key.sign(message, padding.PKCS1v15(), hashes.SHA256())
                key.public_key().verify(signature, message, padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature as error:
        raise Unavailable(f"{shown} does not sign what it should", "use another token") from error
