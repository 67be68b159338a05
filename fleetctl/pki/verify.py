"""Whether a certificate is what it claims to be, in steps that are named; the first that fails ends it.

1. Its key and signature are strong enough.
2. A chain of signatures leads from it to an authority that is trusted, through authorities that may issue.
3. It is meant for the purpose, and so is every authority that says what it is meant for.
4. For a server: it is meant for the host.
5. Everything on that chain is valid at this moment.
6. No list of an authority on the chain names it or an authority below; every authority has a list that is in force.

What time has undone comes last: a proof that only fails there was a good one once. The verifier of the library is not used: it
knows neither lists nor Ed25519, and gives no steps.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.x509.oid import ExtendedKeyUsageOID

from fleetctl.model.certificate import serial_text
from fleetctl.pki.authority import validity_of
from fleetctl.pki.csr import weakness
from fleetctl.pki.extensions import SubjectKey
from fleetctl.wire.document import rfc3339

LONGEST_CHAIN = 8
_UNDERSTOOD = (x509.BasicConstraints, x509.KeyUsage, x509.ExtendedKeyUsage, x509.SubjectAlternativeName, x509.NameConstraints)
_PURPOSES = {"client": ExtendedKeyUsageOID.CLIENT_AUTH, "server": ExtendedKeyUsageOID.SERVER_AUTH}
E = TypeVar("E", bound=x509.ExtensionType)
_BROKEN = (
    ValueError,
    TypeError,
    OverflowError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a proof, numbered from 1: `outcome` is ok or failed."""

    number: int
    step: str
    outcome: str
    detail: str


@dataclass(frozen=True, slots=True)
class Trust:
    """Who is believed: `anchors` end a chain, `others` may stand in it, `lists` revoke; `now` is seconds since 1970."""

    anchors: Sequence[x509.Certificate]
    others: Sequence[x509.Certificate]
    lists: Sequence[x509.CertificateRevocationList]
    now: float


class Refuted(Exception):
    """A step failed; the argument says why."""


class Lapsed(Refuted):
    """It was good once: it is expired, or revoked."""


@dataclass
class Verification:
    """A proof as far as it goes; `lapsed` where nothing but time or a revocation has undone it."""

    trust: Trust
    steps: list[Step] = field(default_factory=list)
    chain: list[x509.Certificate] = field(default_factory=list)
    lapsed: bool = False

    def run(self, certificate: x509.Certificate, purpose: str, host: str | None) -> bool:
        """Whether every step holds; `steps` says which and why."""
        stages = (
            ("strength", lambda: _strong(certificate)),
            ("chain", lambda: self._find_chain(certificate)),
            ("purpose", lambda: self._meant_for(purpose)),
            *((("host", lambda: _names_host(certificate, host or "")),) if host is not None else ()),
            ("validity", self._valid),
            ("revocation", self._not_revoked),
        )
        for number, (name, prove) in enumerate(stages, 1):
            try:
                self.steps.append(Step(number, name, "ok", prove()))
            except Refuted as why:
                self.lapsed = isinstance(why, Lapsed)
                self.steps.append(Step(number, name, "failed", str(why)))
                return False
            except _BROKEN:
                self.steps.append(Step(number, name, "failed", "what it would be judged by does not parse"))
                return False
        return True

    def _find_chain(self, certificate: x509.Certificate) -> str:
        self.chain = [certificate]
        while not any(_same(self.chain[-1], anchor) for anchor in self.trust.anchors):
            above = self._issuer(self.chain[-1], len(self.chain) - 1)
            if above is None or len(self.chain) == LONGEST_CHAIN:
                raise Refuted(f"nobody who is trusted has issued {_called(self.chain[-1])}")
            self.chain.append(above)
        if len(self.chain) == 1:
            raise Refuted("it is an authority that is trusted itself, not a certificate that one has issued")
        for each in self.chain:
            _understood(each)
        _within_constraints(certificate, self.chain[1:])
        return " < ".join(_called(each) for each in self.chain)

    def _issuer(self, certificate: x509.Certificate, below: int) -> x509.Certificate | None:
        """Who has issued a certificate that has `below` authorities under it."""
        for candidate in (*self.trust.anchors, *self.trust.others):
            if candidate.subject == certificate.issuer and not _same(candidate, certificate):
                try:
                    certificate.verify_directly_issued_by(candidate)
                except (InvalidSignature, *_BROKEN):
                    continue
                _may_issue(candidate, below)
                return candidate
        return None

    def _meant_for(self, purpose: str) -> str:
        leaf, *authorities = self.chain
        constraints = _extension(leaf, x509.BasicConstraints)
        if constraints is not None and constraints.ca:
            raise Refuted("it is an authority's, and no leaf")
        bits = _extension(leaf, x509.KeyUsage)
        signs = bits is None or bits.digital_signature or bits.key_agreement
        if not signs or not _allows(leaf, purpose, unless=False):
            raise Refuted(f"it is not meant for a {purpose}")
        for each in authorities:
            if not _allows(each, purpose, unless=True):
                raise Refuted(f"{_called(each)} may not vouch for a {purpose}")
        return f"for a {purpose}"

    def _valid(self) -> str:
        for each in self.chain:
            span = validity_of(each)
            if self.trust.now < span.not_before:
                raise Lapsed(f"{_called(each)} is not valid before {rfc3339(span.not_before)}")
            if self.trust.now > span.not_after:
                raise Lapsed(f"{_called(each)} expired at {rfc3339(span.not_after)}")
        return f"until {rfc3339(min(validity_of(each).not_after for each in self.chain))}"

    def _not_revoked(self) -> str:
        numbers = []
        for certificate, issuer in zip(self.chain, self.chain[1:], strict=False):
            lists = [each for each in self.trust.lists if each.issuer == issuer.subject and _signed_by(each, issuer)]
            if not lists:
                raise Refuted(f"there is no list of {_called(issuer)}, so nobody can tell")
            newest = max(lists, key=lambda each: each.last_update_utc)
            for each in lists:
                found = each.get_revoked_certificate_by_serial_number(certificate.serial_number)
                if found is not None:
                    at = rfc3339(found.revocation_date_utc.timestamp())
                    raise Lapsed(f"{_called(certificate)} ({serial_text(certificate.serial_number)}) was revoked at {at}")
            end = newest.next_update_utc
            if newest.last_update_utc.timestamp() > self.trust.now:
                raise Refuted(f"the list of {_called(issuer)} is from the future")
            if end is not None and end.timestamp() < self.trust.now:
                raise Lapsed(f"the list of {_called(issuer)} ended at {rfc3339(end.timestamp())}")
            numbers.append(_called(issuer))
        return f"not on the list of {', '.join(numbers)}"


def _strong(certificate: x509.Certificate) -> str:
    flaw = weakness(certificate.public_key())
    if flaw is not None:
        raise Refuted(flaw)
    digest = certificate.signature_hash_algorithm
    if digest is not None and digest.name in ("md5", "sha1"):
        raise Refuted(f"it is signed over {digest.name}")
    return "key and signature"


def _understood(certificate: x509.Certificate) -> None:
    for each in certificate.extensions:
        if each.critical and not isinstance(each.value, _UNDERSTOOD):
            raise Refuted(f"{_called(certificate)} makes a condition that is not known here: {each.oid.dotted_string}")


def _may_issue(issuer: x509.Certificate, below: int) -> None:
    constraints = _extension(issuer, x509.BasicConstraints)
    usage = _extension(issuer, x509.KeyUsage)
    if constraints is None or not constraints.ca or (usage is not None and not usage.key_cert_sign):
        raise Refuted(f"{_called(issuer)} has issued it, and is no authority")
    if constraints.path_length is not None and below > constraints.path_length:
        raise Refuted(f"{_called(issuer)} may have no authority below it at that depth")


def _allows(certificate: x509.Certificate, purpose: str, *, unless: bool) -> bool:
    """Whether its extended key usage names the purpose; `unless` where it has none."""
    usage = _extension(certificate, x509.ExtendedKeyUsage)
    return unless if usage is None else _PURPOSES[purpose] in usage


def _names_host(certificate: x509.Certificate, host: str) -> str:
    """Only alternative names count; an address must stand there as one."""
    names = _extension(certificate, x509.SubjectAlternativeName)
    hosts = [] if names is None else names.get_values_for_type(x509.DNSName)
    addresses = [] if names is None else names.get_values_for_type(x509.IPAddress)
    try:
        named = ipaddress.ip_address(host) in addresses
    except ValueError:
        named = any(_matches(each.lower(), host.lower()) for each in hosts)
    if not named:
        raise Refuted(f"it is not for that host, only for {', '.join([*hosts, *map(str, addresses)]) or 'none'}")
    return f"for {host}"


def _matches(pattern: str, host: str) -> bool:
    if pattern.startswith("*."):
        return "." in host and host.split(".", 1)[1] == pattern[2:]
    return pattern == host


def _signed_by(crl: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    """Whether a list is the issuer's own; one with a critical extension tells only a part."""
    try:
        key = issuer.public_key()
        partial = any(each.critical for each in crl.extensions)
        return not partial and isinstance(key, SubjectKey) and crl.is_signature_valid(key)
    except (InvalidSignature, *_BROKEN):
        return False


def _within_constraints(certificate: x509.Certificate, authorities: Sequence[x509.Certificate]) -> None:
    """RFC 5280 section 4.2.1.10, for host names and addresses."""
    names = _extension(certificate, x509.SubjectAlternativeName)
    hosts = [] if names is None else [each for each in names if isinstance(each, x509.DNSName | x509.IPAddress)]
    for authority in authorities:
        held = _extension(authority, x509.NameConstraints)
        for name in hosts if held is not None else []:
            permitted = [each for each in (held and held.permitted_subtrees) or () if type(each) is type(name)]
            excluded = [each for each in (held and held.excluded_subtrees) or () if type(each) is type(name)]
            if any(_covers(each, name) for each in excluded) or (
                permitted and not any(_covers(each, name) for each in permitted)
            ):
                raise Refuted(f"{_called(authority)} may not vouch for {name.value}")


def _covers(subtree: x509.GeneralName, name: x509.GeneralName) -> bool:
    if isinstance(subtree, x509.DNSName) and isinstance(name, x509.DNSName):
        base, host = subtree.value.lower().lstrip("."), name.value.lower()
        return host == base or host.endswith(f".{base}") or not base
    network = ipaddress.ip_network(subtree.value)
    return ipaddress.ip_address(name.value) in network


def _extension(certificate: x509.Certificate, kind: type[E]) -> E | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _same(one: x509.Certificate, other: x509.Certificate) -> bool:
    return one == other


def _called(certificate: x509.Certificate) -> str:
    return f"`{certificate.subject.rfc4514_string()[:200]}`"
