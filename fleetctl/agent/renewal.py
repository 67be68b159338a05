"""Renewing a certificate: when, and the part of it that takes time. The proof and the exchange are the keeper's."""

import zlib
from dataclasses import dataclass

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fleetctl import files
from fleetctl.agent import est
from fleetctl.agent.certificate import Chain, Credential, chain_pem, check_issued, completed, parse_chain
from fleetctl.agent.identities import UNANNOUNCED, Identities
from fleetctl.agent.identity import Identity
from fleetctl.errors import FleetError, Malformed, NotFound, Unavailable
from fleetctl.keys.store import PrivateKey, generate_key, load_key, public_pem
from fleetctl.wire import bundle

EARLIEST, LATEST = 1 / 2, 2 / 3
"""The shares of its life between which a certificate is renewed, each device at a point of its own."""


def renewal_point(credential: Credential, device_id: str) -> float:
    """When to renew: the same at every start, and even over a fleet that was issued in one go."""
    spread = zlib.crc32(f"{device_id}/{credential.serial}".encode()) / 2**32
    return credential.at(EARLIEST + (LATEST - EARLIEST) * spread)


def seconds_left(credential: Credential, device_id: str, wall: float | None, held_for: float) -> float:
    """Until the renewal is due; a device without a clock counts from when it first held the certificate in this process."""
    point = renewal_point(credential, device_id)
    return point - wall if wall is not None else point - credential.not_before - held_for


@dataclass(frozen=True, slots=True)
class Failed:
    """Why there is no new certificate; `seconds` is when the server wants to be asked again."""

    reason: str
    seconds: float | None = None


def obtain(identity: Identity, identities: Identities, rekey: bool, now: float | None) -> Identity | Failed:
    """A whole identity that waits for its proof: the one that is there already, else a new one; never raises.

    The key is kept over a crash and over a server that does not answer, and thrown away when the server refused.
    """
    try:
        return _resumed(identity, identities, now) or _renewed(identity, identities, rekey, now)
    except est.NotYet as error:
        return Failed(error.message, error.seconds)
    except Unavailable as error:
        return Failed(error.message)
    except FleetError as error:
        return _given_up(identities, error.message)
    except Exception as error:
        return _given_up(identities, f"{type(error).__name__}: {error}")


def announce(identity: Identity) -> bool:
    """Show the fleet the new certificate in use; whether that is done. Never raises."""
    try:
        if identity.config.enrol is not None:
            est.authorities(identity)
        (identity.folder / UNANNOUNCED).unlink(missing_ok=True)
    except (FleetError, OSError):
        return False
    return True


def _given_up(identities: Identities, reason: str) -> Failed:
    try:
        identities.drop_candidate()
    except OSError as error:
        return Failed(f"{reason}; and {error}")
    return Failed(reason)


def _resumed(identity: Identity, identities: Identities, now: float | None) -> Identity | None:
    """What an earlier process brought as far as the proof."""
    folder = identities.whole_candidate
    if folder is None:
        return None
    try:
        check_issued(
            parse_chain(files.read_limited(folder / bundle.CERTIFICATE, est.BODY_LIMIT)),
            load_key(folder / bundle.KEY),
            identity.config.device,
            now,
        )
        return Identity.load(folder)
    except FleetError:
        identities.drop_candidate()
        return None


def _renewed(identity: Identity, identities: Identities, rekey: bool, now: float | None) -> Identity:
    key = _new_key(identity, identities, rekey)
    digest = None if isinstance(key, Ed25519PrivateKey) else hashes.SHA256()
    csr = est.request_of(identity).sign(key, digest).public_bytes(serialization.Encoding.DER)
    chain = _chain(identity, est.reenrol(identity, csr), key)
    check_issued(chain, key, identity.config.device, now)
    parts = {name: files.read_limited(identity.folder / name, est.BODY_LIMIT) for name in _KEPT}
    parts |= {UNANNOUNCED: b"", bundle.CERTIFICATE: chain_pem(chain)}
    return Identity.load(identities.complete(parts))


_KEPT = (bundle.AUTHORITY, bundle.TRUST, bundle.ROOT, bundle.CONFIG)


def _new_key(identity: Identity, identities: Identities, rekey: bool) -> PrivateKey:
    held = identity.private_key
    key = identities.candidate_key(generate_key("p256") if rekey else held)
    if (public_pem(key) == public_pem(held)) == rekey:
        identities.drop_candidate()
        key = identities.candidate_key(generate_key("p256") if rekey else held)
    return key


def _chain(identity: Identity, answered: Chain, key: PrivateKey) -> Chain:
    """The leaf of the answer and the authorities above it, from wherever they are known."""
    leaf = next((one for one in answered if _has_key(one.public_key(), key)), None)
    if leaf is None:
        raise Malformed("the answer holds no certificate for the key that was sent")
    known = [*answered, *parse_chain(identity.certificate)]
    chain = completed(leaf, known)
    if len(chain) > 1:
        return chain
    try:
        return completed(leaf, [*known, *est.authorities(identity)])
    except (FleetError, NotFound):
        return chain


def _has_key(found: object, key: PrivateKey) -> bool:
    return found == key.public_key()
