"""Certificates in files or of the fleet, judged by the authorities and lists of this context."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509

from fleetctl import files
from fleetctl.errors import ConfigError, Findings, FleetError, Malformed, NotFound, Untrusted
from fleetctl.model.certificate import DAY
from fleetctl.model.device import printable
from fleetctl.pki import crl
from fleetctl.pki.authority import read_certificates, validity_of
from fleetctl.pki.inspect import LIMIT, inspect
from fleetctl.pki.verify import Step, Trust, Verification
from fleetctl.platforms.local.layout import Layout
from fleetctl.wire.document import rfc3339

if TYPE_CHECKING:
    from fleetctl.platforms.local.fleet import LocalFleet

SOON = 30 * DAY
_ROLES = ("devices", "people", "claims")


@dataclass(frozen=True, slots=True)
class Verified:
    """What a proof came to: `verdict` is trusted or untrusted; each of `steps` has step, outcome and detail."""

    subject: str | None
    purpose: str
    host: str | None
    verdict: str
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Print:
    """What tells a certificate or a key from all others."""

    subject: str | None
    kind: str
    fingerprint: str | None


def read(fleet: "LocalFleet", name: str, stdin: bytes | None = None) -> bytes:
    """The content of a file, of stdin for `-`, else the certificate of a device, an operator or a serial number."""
    if stdin is not None:
        return stdin
    path = Path(name)
    if path.is_file():
        return files.read_limited(path, LIMIT)
    try:
        return fleet.certificates.show(name).pem.encode()
    except NotFound as error:
        raise NotFound(f"no file and no certificate is called {printable(name)}", "see fleetctl certs list") from error


def prints(data: bytes, *, spki: bool) -> list[Print]:
    """The fingerprint of each certificate, or of the key of each certificate and request."""
    found = [each for each in inspect(data) if (each.spki if spki else each.fingerprint) is not None]
    if not found:
        raise Malformed("it holds nothing that has a fingerprint", "name a file with a certificate")
    return [
        Print(each.subject, "spki" if spki else each.kind, f"sha256:{each.spki}" if spki else each.fingerprint) for each in found
    ]


def verify(fleet: "LocalFleet", data: bytes, purpose: str | None, host: str | None) -> Verified:
    """Prove the first certificate of a file; those after it may stand in its chain.

    Raises:
        Malformed: there is none.
        Untrusted: a step of the proof failed. Findings: it holds, but not for long. Both carry the proof.
    """
    try:
        leaf, *others = x509.load_pem_x509_certificates(data)
    except ValueError:
        leaf, others = _der(data), []
    chosen = purpose or ("server" if host is not None else "client")
    now = fleet.clock()
    proof = Verification(trust_of(fleet, others, now))
    good = proof.run(leaf, chosen, host)
    subject = leaf.subject.rfc4514_string()[:200]
    if not good:
        done = Verified(subject, chosen, host, "untrusted", tuple(proof.steps))
        failed = proof.steps[-1]
        raise Untrusted(f"{printable(subject)} is not to be trusted, {failed.step}: {failed.detail}", _HINT, record=_record(done))
    end = min(validity_of(each).not_after for each in proof.chain)
    if end - now < SOON:
        proof.steps.append(Step("expiry", "warning", f"it ends at {rfc3339(end)}"))
        done = Verified(subject, chosen, host, "trusted", tuple(proof.steps))
        raise Findings(f"{printable(subject)} ends at {rfc3339(end)}", "renew it: fleetctl certs renew", record=_record(done))
    return Verified(subject, chosen, host, "trusted", tuple(proof.steps))


def trust_of(fleet: "LocalFleet", others: Sequence[x509.Certificate], now: float) -> Trust:
    """The authorities and lists that the listeners of this context go by."""
    layout = Layout(fleet.context.folder)
    paths = dict.fromkeys((*(layout.accepted(role) for role in _ROLES), layout.fleet_ca))
    held = [each for path in paths if path.exists() for each in read_certificates(path)]
    lists = [each for path in dict.fromkeys(layout.lists(role) for role in _ROLES) for each in _lists(path)]
    anchors = [each for each in held if each.subject == each.issuer]
    return Trust(anchors, [*(each for each in held if each not in anchors), *others], lists, now)


def _lists(path: Path) -> Sequence[x509.CertificateRevocationList]:
    try:
        return crl.read_parsed(path) if path.exists() else []
    except (ConfigError, FleetError):
        return []


def _der(data: bytes) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(data)
    except ValueError as error:
        raise Malformed("it holds no certificate", "look at it with fleetctl certs inspect FILE") from error


_HINT = "see every step: -o json"


def _record(done: Verified) -> dict[str, object]:
    return {
        "subject": done.subject,
        "purpose": done.purpose,
        "host": done.host,
        "verdict": done.verdict,
        "steps": [{"step": each.step, "outcome": each.outcome, "detail": each.detail} for each in done.steps],
    }
