"""Signing requests that somebody else made: their key is certified, what the certificate says is decided here."""

import hmac
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fleetctl import files
from fleetctl.errors import Untrusted, UsageError
from fleetctl.keys.store import generate_key, load_key, private_pem
from fleetctl.model.certificate import State, check_operator, is_operator
from fleetctl.model.device import LifeCycle, printable
from fleetctl.pki.csr import SigningRequest, make_csr, parse_csr, spki_of
from fleetctl.platforms.local.bundling import Bundler
from fleetctl.platforms.local.held import state_of
from fleetctl.platforms.local.staging import staged, write
from fleetctl.registry import CertificateRow
from fleetctl.wire import bundle
from fleetctl.wire.document import rfc3339

if TYPE_CHECKING:
    from fleetctl.platforms.local.certificates import Issued
    from fleetctl.platforms.local.fleet import LocalFleet

REQUEST = "device.csr"
OPERATOR_REQUEST = "operator.csr"


@dataclass(frozen=True, slots=True)
class Signed:
    """What a request was given: `outcome` is `issued`, or `unchanged` where its key had a good certificate of that subject."""

    subject: str
    serial: str
    outcome: str
    not_after: str
    authority: str
    spki: str
    pem: str


@dataclass(frozen=True, slots=True)
class RequestMade:
    """A key and the request that it signed; `key` and `request` are files."""

    subject: str
    spki: str
    key: str
    request: str


def sign(fleet: "LocalFleet", data: bytes, owner: str | None, *, profile: str | None = None, nonce: str | None = None) -> Signed:
    """Certify the key of a request for `owner`, a device or `op:NAME`; nothing else in the request is believed.

    Raises:
        UsageError: nobody is named. NotFound: no such device. Malformed: that is no request.
        Untrusted: its signature or its key is not good enough, or it does not carry `nonce` as its challenge.
        Conflict: its key belongs to another certificate, or the device is retired or suspended.
    """
    request = parse_csr(data)
    if owner is None:
        raise _nobody(request)
    check_nonce(request, nonce)
    with fleet.registry.transaction():
        held = _held(fleet, request.spki, owner)
        if held is not None:
            return _signed(held, "unchanged", fleet.certificates.issuer.chain(held))
        if not owner.startswith("op:"):
            return _for_device(fleet, owner, request, profile)
        if profile is not None:
            raise UsageError(f"{printable(owner)} is no device, and profiles are theirs", "leave --profile out")
        row, chain = fleet.certificates.certify_operator(check_operator(owner), request.public_key)
    return _signed(row, "issued", chain)


def check_nonce(request: SigningRequest, nonce: str | None) -> None:
    """Raise `Untrusted` where a request does not prove that it was made for this occasion."""
    if nonce is not None and not hmac.compare_digest((request.challenge or "").encode(), nonce.encode()):
        raise Untrusted(
            "the request does not carry the nonce as its challenge: it may be an old one",
            "ask for a new one, with challengePassword set: openssl req -new -config FILE",
        )


def make_request(name: str, folder: Path, *, nonce: str | None = None) -> RequestMade:
    """A key that never leaves `folder`, or the one that is there, and the request to sign beside it."""
    operator = is_operator(name)
    key_name, request_name = ("operator.key", OPERATOR_REQUEST) if operator else (bundle.KEY, REQUEST)
    files.private_folder(folder)
    if (folder / key_name).exists():
        key = load_key(folder / key_name)
    else:
        key = generate_key("p256")
        files.write_atomic(folder / key_name, private_pem(key), 0o600, replace=False)
    files.write_atomic(folder / request_name, make_csr(key, name, nonce))
    return RequestMade(name, spki_of(key.public_key()), str(folder / key_name), str(folder / request_name))


def sign_into(fleet: "LocalFleet", data: bytes, owner: str, folder: Path, *, profile: str | None = None) -> "Issued":
    """A bundle without a key, for a device that made its own; raises as `sign` does, and `Conflict` where the folder is taken."""
    from fleetctl.platforms.local.certificates import Issued

    if owner.startswith("op:"):
        raise UsageError(f"{printable(owner)} is no device", f"fleetctl certs sign CSR --for {owner} -f FILE")
    with fleet.registry.transaction():
        signed = sign(fleet, data, owner, profile=profile)
        chosen = None if profile is None else fleet.registry.profile(profile)
        with staged(folder) as fresh:
            write(fresh / bundle.CERTIFICATE, signed.pem.encode())
            for name, content in Bundler(fleet, chosen).contents(fleet.registry.device(owner).path).items():
                write(fresh / name, content)
    return Issued(signed.subject, signed.serial, signed.outcome, signed.not_after, str(folder))


def _for_device(fleet: "LocalFleet", owner: str, request: SigningRequest, profile: str | None) -> Signed:
    registry, issuer = fleet.registry, fleet.certificates.issuer
    device = registry.active_device(owner)
    days = None if profile is None else registry.profile(profile).days
    row = issuer.issue(device, request.public_key, days=days)
    if device.state in (LifeCycle.MANUFACTURED, LifeCycle.REVOKED):
        registry.move_device(device.id, LifeCycle.CLAIMED, event="issued", at=rfc3339(fleet.clock()), actor=fleet.actor)
    return _signed(row, "issued", issuer.chain(row))


def _held(fleet: "LocalFleet", spki: str, owner: str) -> CertificateRow | None:
    """The good certificate that the key has already: signing a request again changes nothing."""
    now = fleet.clock()
    rows = [row for row in fleet.registry.certificates_by_key(spki) if row.subject == owner and state_of(row, now) is State.VALID]
    return rows[-1] if rows else None


def _signed(row: CertificateRow, outcome: str, chain: bytes) -> Signed:
    return Signed(row.subject, row.serial, outcome, row.not_after, row.authority, row.spki or "", chain.decode())


def _nobody(request: SigningRequest) -> UsageError:
    wish = request.common_name
    says = "" if wish is None else f"; it calls itself {printable(wish)}, which proves nothing"
    return UsageError(f"nobody is named whom the certificate is for{says}", "say it: --for DEVICE, or --for op:NAME")
