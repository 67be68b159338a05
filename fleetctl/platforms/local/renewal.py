"""A newer certificate for an identity on this machine: issued beside the old one, proven at the broker, then put in its place."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fleetctl import files
from fleetctl.errors import ConfigError, Denied, FleetError, NotFound, Unavailable, Untrusted
from fleetctl.keys.store import generate_key, load_key, private_pem
from fleetctl.model.certificate import Profile, Reason, State
from fleetctl.model.device import LifeCycle, printable
from fleetctl.mqtt.endpoint import Endpoint
from fleetctl.pki.authority import read_certificates, serial_of
from fleetctl.pki.csr import checked_key, spki_of
from fleetctl.platforms.local.certificates import OPERATOR_CERTIFICATE, OPERATOR_KEY
from fleetctl.platforms.local.held import state_of
from fleetctl.platforms.local.proving import prove_handshake, prove_session, reach
from fleetctl.platforms.local.swapping import Pair, Step, settle, swap
from fleetctl.registry import CertificateRow
from fleetctl.wire import bundle
from fleetctl.wire.document import rfc3339

if TYPE_CHECKING:
    from fleetctl.platforms.local.fleet import LocalFleet


@dataclass(frozen=True, slots=True)
class Renewed:
    """A certificate that took the place of another: `outcome` is `renewed`, `rekeyed`, or `finished` what was stopped before."""

    subject: str
    serial: str
    outcome: str
    replaces: str | None
    not_after: str
    certificate: str


@dataclass(frozen=True, slots=True)
class Holding:
    """An identity on this machine: its files, and how its broker is reached with them."""

    pair: Pair
    endpoint: Callable[[Pair], Endpoint]
    prove: Callable[[Endpoint], None]


def of_folder(fleet: "LocalFleet", folder: Path) -> Holding:
    """What a bundle of a device or an operator holds; raises `NotFound` where it is neither."""
    prove: Callable[[Endpoint], None]
    if (folder / bundle.KEY).exists():
        config = bundle.parse_yaml(files.read_limited(folder / bundle.CONFIG, bundle.CONFIG_LIMIT).decode(errors="replace"))
        pair, url, prove = Pair(folder / bundle.KEY, folder / bundle.CERTIFICATE), config.broker, prove_handshake
    elif (folder / OPERATOR_KEY).exists():
        pair, url, prove = Pair(folder / OPERATOR_KEY, folder / OPERATOR_CERTIFICATE), fleet.context.broker, prove_session
    else:
        raise NotFound(
            f"{printable(str(folder))} is no bundle of a device or an operator", f"it would hold {bundle.KEY}: ls {folder}"
        )
    return Holding(pair, _endpoint(url, folder / bundle.AUTHORITY), prove)


def of_context(fleet: "LocalFleet") -> Holding:
    """As whom this context connects; raises `ConfigError` where that is nobody with a certificate."""
    context = fleet.context
    if context.cert is None or context.key is None or context.ca is None:
        raise ConfigError(f"context `{context.name}` connects without a certificate", "name a folder: fleetctl certs renew DIR")
    return Holding(Pair(context.key, context.cert), _endpoint(context.broker, context.ca), prove_session)


def _endpoint(url: str, ca: Path) -> Callable[[Pair], Endpoint]:
    return lambda pair: Endpoint.parse_url(url, ca=ca, cert=pair.certificate, key=pair.key)


def renew(
    fleet: "LocalFleet", holding: Holding, *, rekey: bool = False, allow_expired: bool = False, step: Step = lambda _: None
) -> Renewed:
    """Renew a certificate, for a new key with `rekey`; the one before stays good, and its files are kept as `.prev`.

    Stopped at any point it leaves an identity that works, and repeating it finishes; `step` is told each step by name.

    Raises:
        NotFound: the registry does not know the certificate.
        Denied: it is revoked; it has expired, without `allow_expired`; or the broker refused the new one, and the old one stays.
        Conflict: its holder is retired or suspended. Unavailable: the broker is away, and the old one stays.
    """
    pair = holding.pair
    if settle(pair, step):
        return _renewed(pair, _row(fleet, pair.certificate), "finished")
    held = _row(fleet, pair.certificate)
    _check_renewable(fleet, held, allow_expired=allow_expired)
    row = _candidate(fleet, pair, held, rekey=rekey)
    if row is None:
        reach(holding.endpoint(pair))
        row = _issue(fleet, pair, held, step, rekey=rekey)
    _prove(fleet, holding, row)
    step("proven")
    swap(pair, step)
    return _renewed(pair, row, "rekeyed" if rekey else "renewed")


def _renewed(pair: Pair, row: CertificateRow, outcome: str) -> Renewed:
    return Renewed(row.subject, row.serial, outcome, row.replaces, row.not_after, str(pair.certificate))


def _row(fleet: "LocalFleet", path: Path) -> CertificateRow:
    return fleet.registry.certificate(serial_of(read_certificates(path)[0]))


def _check_renewable(fleet: "LocalFleet", row: CertificateRow, *, allow_expired: bool) -> None:
    state, subject = state_of(row, fleet.clock()), printable(row.subject)
    if row.profile not in (Profile.DEVICE, Profile.OPERATOR):
        raise Denied(f"certificate `{row.serial}` of {subject} is neither a device's nor an operator's", "see fleetctl certs ca")
    if state is State.REVOKED:
        raise Denied(
            f"the certificate of {subject} was revoked at {row.revoked_at} ({row.reason}): it cannot vouch for another",
            f"issue one anew: fleetctl certs issue {row.subject} --bundle NEW-DIR",
        )
    if state is State.EXPIRED and not allow_expired:
        raise Denied(
            f"the certificate of {subject} expired at {row.not_after}, and an expired one is renewed only where that is allowed",
            "if you trust who holds it, add --allow-expired",
        )


def _candidate(fleet: "LocalFleet", pair: Pair, held: CertificateRow, *, rekey: bool) -> CertificateRow | None:
    """The good certificate that an earlier run left as `.new`; anything else there is removed."""
    try:
        row = _row(fleet, pair.new.certificate)
        key = load_key(pair.new.key if rekey else pair.key)
    except FleetError:
        _discard(pair)
        return None
    sound = row.replaces == held.serial and state_of(row, fleet.clock()) is State.VALID
    if sound and pair.new.key.exists() is rekey and row.spki == spki_of(key.public_key()):
        return row
    _discard(pair)
    return None


def _discard(pair: Pair) -> None:
    for path in (pair.new.certificate, pair.new.key):
        path.unlink(missing_ok=True)


def _issue(fleet: "LocalFleet", pair: Pair, held: CertificateRow, step: Step, *, rekey: bool) -> CertificateRow:
    if rekey:
        key = generate_key("p256")
        files.write_atomic(pair.new.key, private_pem(key), 0o600)
        step("key made")
        public_key = checked_key(key.public_key())
    else:
        public_key = checked_key(load_key(pair.key).public_key())
    certificates, registry = fleet.certificates, fleet.registry
    with registry.transaction():
        if held.device_id is None:
            row, chain = certificates.certify_operator(held.subject, public_key, replaces=held.serial)
        else:
            row = certificates.issuer.issue(registry.device(held.device_id), public_key, replaces=held.serial)
            chain = certificates.issuer.chain(row)
        files.write_atomic(pair.new.certificate, chain)
        step("certificate written")
    step("issued")
    return row


def _prove(fleet: "LocalFleet", holding: Holding, row: CertificateRow) -> None:
    pair = holding.pair
    key = pair.new.key if pair.new.key.exists() else pair.key
    try:
        holding.prove(holding.endpoint(Pair(key, pair.new.certificate)))
    except Unavailable as error:
        error.hint = f"the old certificate stays, the new one waits in {pair.new.certificate}: repeat it when the broker is there"
        raise
    except (Denied, Untrusted) as error:
        _settle_state(fleet, row, LifeCycle.ACTIVE, "renewal failed", error.message)
        fleet.registry.revoke_certificate(row.serial, Reason.SUPERSEDED, rfc3339(fleet.clock()))
        _discard(pair)
        sentence = f"the new certificate of `{row.subject}` was not accepted, so the old one stays: {error.message}"
        raise type(error)(sentence, error.hint) from error
    fleet.registry.prove_certificate(row.serial, rfc3339(fleet.clock()))
    _settle_state(fleet, row, LifeCycle.ACTIVE, "renewed", None)


def _settle_state(fleet: "LocalFleet", row: CertificateRow, to: LifeCycle, event: str, reason: str | None) -> None:
    """A device that is renewing is no longer."""
    registry = fleet.registry
    if row.device_id is not None and registry.device(row.device_id).state is LifeCycle.RENEWING:
        registry.move_device(row.device_id, to, event=event, at=rfc3339(fleet.clock()), reason=reason, actor=fleet.actor)
