"""Authorities of others whose devices may register just in time: what is asked of them before their holders are let in."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from fleetctl import files
from fleetctl.errors import Conflict, Untrusted
from fleetctl.model.device import printable
from fleetctl.pki import crl
from fleetctl.pki.authority import chain_of, common_names, pem, read_certificates, validity_of
from fleetctl.pki.extensions import key_words
from fleetctl.platforms.local.authorities import registered_list, write_accepted
from fleetctl.platforms.local.layout import Layout
from fleetctl.platforms.local.lists import write_lists
from fleetctl.platforms.local.succession import AuthorityChange, tell
from fleetctl.registry import AuthorityRow
from fleetctl.wire.document import rfc3339

if TYPE_CHECKING:
    from fleetctl.platforms.local.fleet import LocalFleet

LEAST_RSA = 2048


@dataclass(frozen=True, slots=True)
class Candidate:
    """An authority of somebody else's, judged: its certificate with those above it, and its list."""

    name: str
    chain: tuple[x509.Certificate, ...]
    crl: x509.CertificateRevocationList


def register(fleet: "LocalFleet", file: Path, crl_file: Path, profile: str) -> AuthorityChange:
    """Let devices of another authority in, to be registered when they first connect; again, with a newer list, updates that.

    Raises:
        Untrusted: it is no authority, is weak or out of date, or the list is not its own or has ended.
        Conflict: the name is taken, or the list is older than the one that is here.
        NotFound: no such file or profile.
    """
    registry, layout, now = fleet.registry, Layout(fleet.context.folder), fleet.clock()
    candidate = judge(file, crl_file, now)
    registry.profile(profile)
    held = crl.held_of(candidate.crl)
    text = pem(*candidate.chain).decode()
    row = next((each for each in registry.authorities() if each.name == candidate.name), None)
    if row is not None and (row.role != "registered" or row.pem != text):
        raise Conflict(f"authority {printable(row.name)} is another one here", "see fleetctl certs ca show")
    last = registry.crl(candidate.name)
    if last is not None and (held.number, held.this_update) < (last.number, last.this_update):
        raise Conflict(f"list {held.number} of {printable(candidate.name)} is older than {last.number}", "fetch its newest list")
    with registry.transaction():
        if row is None:
            registry.add_authority(AuthorityRow(candidate.name, "registered", "root", "active", profile, text, rfc3339(now)))
        else:
            registry.set_authority(row.name, "active")
        registry.keep_crl(candidate.name, held.number, held.this_update, held.next_update)
        files.write_atomic(registered_list(layout, candidate.chain[0]), held.pem)
        write_accepted(registry, layout, "devices")
        signer = registry.signing_authority("devices")
        numbers = write_lists(registry, layout, signer.name if signer else "device-issuing", now)
    outcome = "registered" if row is None else "updated"
    end = rfc3339(validity_of(candidate.chain[0]).not_after)
    return tell(fleet, AuthorityChange(candidate.name, "registered", outcome, None, 0, end, False, False), numbers)


def judge(file: Path, crl_file: Path, now: float) -> Candidate:
    """1. It is an authority with one name. 2. It is strong. 3. It and all above are good now. 4. Its list is its own, and good.

    A broker believes an issuer only with its list: others below the same root get nobody in.
    """
    held = read_certificates(file)
    certificate, chain = held[0], chain_of(held[0], held)
    names = common_names(certificate)
    # 1
    if len(names) != 1 or not names[0].isprintable():
        raise Untrusted("the authority has no single common name", f"openssl x509 -in {file} -noout -subject")
    name = names[0]
    if not _may_sign(certificate):
        raise Untrusted(f"{printable(name)} may not sign certificates and lists", "name the authority's own certificate")
    # 2
    public_key = certificate.public_key()
    key_words(public_key)
    if isinstance(public_key, rsa.RSAPublicKey) and public_key.key_size < LEAST_RSA:
        raise Untrusted(f"the key of {printable(name)} is weak: RSA of {public_key.key_size} bits", "use another authority")
    # 3
    if chain[-1].issuer != chain[-1].subject:
        raise Untrusted(f"the root above {printable(name)} is missing", f"append what issued it to {file}")
    if any(validity_of(each).state(now) != "valid" for each in chain):
        raise Untrusted(f"{printable(name)} or what is above it is not valid now", f"openssl x509 -in {file} -noout -dates")
    # 4
    own = [each for each in crl.read_parsed(crl_file) if crl.is_own(each, certificate)]
    if not own:
        raise Untrusted(f"{printable(str(crl_file))} holds no list that {printable(name)} signed", "name its own list")
    times = crl.held_of(own[0])
    if not times.this_update <= now < times.next_update:
        raise Untrusted(f"the list of {printable(name)} is not valid now", "fetch its newest list")
    return Candidate(name, chain, own[0])


def _may_sign(certificate: x509.Certificate) -> bool:
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except (x509.ExtensionNotFound, ValueError):
        return False
    return constraints.ca and usage.key_cert_sign and usage.crl_sign
