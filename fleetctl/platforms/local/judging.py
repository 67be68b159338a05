"""Certificates in files or of the fleet, judged by the authorities and lists of this context."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509

from fleetctl import files
from fleetctl.errors import Findings, FleetError, Malformed, NotFound, Untrusted
from fleetctl.model.device import printable
from fleetctl.pki import crl
from fleetctl.pki.authority import read_certificates
from fleetctl.pki.inspect import LIMIT, certificates_in, inspect
from fleetctl.pki.verify import Step, Trust, Verification
from fleetctl.platforms.local.layout import Layout

if TYPE_CHECKING:
    from fleetctl.platforms.local.fleet import LocalFleet

_ROLES = ("devices", "people", "claims")


@dataclass(frozen=True, slots=True)
class Print:
    """What tells a certificate or a key from all others."""

    subject: str | None
    kind: str
    fingerprint: str | None


def read(name: str, pem: Callable[[], str]) -> bytes:
    """The content of a file, else what `pem` finds under that name; raises `NotFound`."""
    path = Path(name)
    if path.is_file():
        return files.read_limited(path, LIMIT)
    try:
        return pem().encode()
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


def verify(fleet: "LocalFleet", data: bytes, purpose: str | None, host: str | None) -> list[Step]:
    """Prove the first certificate of a file; those after it may stand in its chain.

    Raises:
        Malformed: there is none. Untrusted: a step of the proof failed. Findings: it is expired or revoked, all else holds. The
            last two carry the proof as far as it goes.
    """
    leaf, *others = certificates_in(data)
    proof = Verification(trust_of(fleet, others, fleet.clock()))
    if proof.run(leaf, purpose or ("server" if host is not None else "client"), host):
        return proof.steps
    failed, subject = proof.steps[-1], printable(leaf.subject.rfc4514_string()[:200])
    record: list[object] = [asdict(each) for each in proof.steps]
    if proof.lapsed:
        raise Findings(f"{subject} is no longer good: {failed.detail}", "issue another: fleetctl certs issue NAME", record=record)
    raise Untrusted(
        f"{subject} is not to be trusted, {failed.step}: {failed.detail}", "fleetctl certs inspect FILE", record=record
    )


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
    except FleetError:
        return []
